"""What a user does, with nothing pretended: paste facts, start, reload in the middle, see it finish, open, export."""

from __future__ import annotations

import csv
import io
import re
import time
from pathlib import Path

import pytest
from playwright.sync_api import Browser, expect

from app.server.first_start import MARK
from engine.corpus.names import generate_facts
from storage.database import open_database
from storage.runs import list_runs
from tests.browser.conftest import serving

pytestmark = pytest.mark.browser
MINUTES = 60_000


def test_design_start_reload_finish_open_export(chromium: Browser, tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    (home / MARK).write_text("Not the first start: this test's own run is the only one.\n")
    facts = generate_facts("mother", seed=77, count=12)
    pasted = "\n".join(f"{subject}\t{mother}" for subject, mother in facts)
    with serving(home, worker=True) as address:
        page = chromium.new_context(viewport={"width": 1280, "height": 900}, accept_downloads=True).new_page()
        page.goto(f"{address}/design")
        page.locator("#summary .state").wait_for()
        page.get_by_text("My own", exact=True).first.click()
        expect(page.get_by_role("radio", name="My own").first).to_be_checked()
        page.get_by_role("button", name="Paste text …").click()
        page.get_by_label("One fact a line: subject, then object").fill(pasted)
        page.get_by_role("button", name="Add to the table").click()
        expect(page.get_by_label("Subject, row 12")).to_have_value(facts[11][0])
        page.get_by_label("Name", exact=True).fill("twelve mothers")
        expect(page.locator("#summary")).to_contain_text("Ready to start")
        page.locator("#start").click()
        page.wait_for_url("**/run?run=*")

        expect(page.get_by_text(re.compile("Memorising: epoch|Asking|Generalising")).first).to_be_visible(
            timeout=3 * MINUTES
        )
        page.reload()
        expect(page.get_by_role("heading", name="twelve mothers")).to_be_visible()
        db = open_database(home)
        deadline = time.monotonic() + 400
        while not (run := list_runs(db)[0]).ended and time.monotonic() < deadline:
            time.sleep(0.5)
        assert (run.name, run.state, run.error) == ("twelve mothers", "done", None)
        expect(page.locator(".badge").first).to_contain_text("Done", timeout=30_000)

        page.get_by_role("link", name="Results").last.click()
        page.locator(".finding").wait_for()
        expect(page.locator(".finding")).to_contain_text("6 facts")
        page.get_by_role("searchbox").fill(facts[0][0])
        row = page.locator("table.answers tbody tr").first
        expect(row).to_contain_text(facts[0][0])
        row.get_by_role("button").click()
        answer = page.locator(".card.answer")
        expect(answer).to_contain_text(facts[0][1])

        with page.expect_download() as download:
            page.get_by_role("link", name="Answers (CSV)").click()
        written = list(csv.DictReader(io.StringIO(Path(download.value.path()).read_text(encoding="utf-8-sig"))))
        assert {r["subject"] for r in written} == {subject for subject, _ in facts}
        assert {r["language"] for r in written} == {"en", "de", "es", "zh", "ja"}
        with page.expect_download() as download:
            page.get_by_role("link", name="Report (HTML)").click()
        report = Path(download.value.path()).read_text(encoding="utf-8")
        assert "twelve mothers" in report and "http://" not in report.replace("http://www.w3.org", "")

        page.get_by_role("link", name="Teach it more facts").click()
        page.wait_for_url("**/design*")
        expect(page.get_by_label("Name", exact=True)).to_have_value("twelve mothers, facts that come later")
        expect(page.locator("#summary")).to_contain_text("Ready to start")
        expect(page.get_by_label("Subject, row 12")).to_be_visible()
        expect(page.get_by_label("Subject, row 12")).not_to_have_value(facts[11][0])
