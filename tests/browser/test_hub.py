"""A model of the hub from the page: its size told, downloaded with its bytes shown, stopped, retried; a gated one."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, expect

from app.server.first_start import MARK
from engine.commands.run import queue_experiment, read_experiment
from storage.database import open_database
from storage.runs import request_stop
from tests.browser.conftest import serving
from tests.loopback_hub import Hub, loopback_hub, made_large
from tests.unit.tiny_models import build_qwen2

pytestmark = pytest.mark.browser
NAME = "someone/tiny"
SMALL = [
    f"model={NAME}",
    "name=a model of the hub",
    "relations=[{name: mother, key_token: '[X]', facts: {generate: 12}}]",
    "stage1.epochs=2",
    "stage2.facts=6",
    "evaluation={languages: [en], facts: 4, prompts: 2, max_new_tokens: 20, choice: {facts: 2, prompts: 1}}",
]
MINUTES = 60_000


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[Hub]:
    """A slow hub with one model of 60 MB."""
    folder = made_large(build_qwen2(tmp_path, max_position_embeddings=512), 60_000_000)
    with loopback_hub({NAME: folder}) as found:
        found.bytes_a_second = 6_000_000
        yield found


def test_a_model_of_the_hub_from_the_page(
    chromium: Browser, tmp_path: Path, hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    home, pictures = tmp_path / "home", os.environ.get("ROTE_LAB_PICTURES")
    home.mkdir()
    (home / MARK).write_text("Not the first start: nothing is queued.\n")
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.delenv("HF_TOKEN", raising=False)
    db = open_database(home)
    seen = queue_experiment(db, read_experiment("quick", SMALL, 1))
    request_stop(db, seen.id)
    outside = {"HF_ENDPOINT": hub.address, "HF_HOME": str(tmp_path / "hf")}
    with serving(home, worker=True, **outside) as address:
        page = chromium.new_context(viewport={"width": 1280, "height": 900}).new_page()

        def picture(name: str) -> None:
            if pictures:
                page.screenshot(path=f"{pictures}/{name}.png")

        page.goto(f"{address}/design?clone={seen.id}")
        expect(page.locator("#summary")).to_contain_text("the worker will download it when the run starts")
        expect(page.locator("#summary")).to_contain_text("60 MB before it trains, of ")
        picture("hub-design")
        page.locator("#start").click()
        page.wait_for_url("**/run?run=*")
        head = page.locator(".run-head")
        expect(head).to_contain_text(re.compile(r"Downloading the model: [1-9]\d of 60 MB"), timeout=MINUTES)
        picture("hub-downloading")
        head.get_by_role("button", name="Cancel").click()
        page.get_by_role("dialog").get_by_role("button", name="Stop").click()
        expect(head.locator(".badge")).to_contain_text("Cancelled", timeout=MINUTES)
        hub.token = "hf_right"
        head.get_by_role("button", name="Retry").click()
        gated = f"The model ‘{NAME}’ is gated: accept its terms on {hub.address}/{NAME}, then start the lab"
        expect(head.get_by_role("alert")).to_contain_text(gated, timeout=MINUTES)
        picture("hub-gated")
        hub.token, hub.bytes_a_second = None, 0
        head.get_by_role("button", name="Retry").click()
        expect(head.locator(".badge")).to_contain_text("Done", timeout=3 * MINUTES)
