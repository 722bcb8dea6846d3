"""Datasette opens the exported database; what is private is not in it."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from pathlib import Path
from typing import Any

import pytest
from datasette.app import Datasette

from engine.exports.database import described, scrub
from storage.database import open_database
from storage.runs import add_event
from tests.exports.conftest import Made, exported

SECRET = "hf_AbCdEfGhIjKlMnOpQrStUvWxYz0123456789"


# A busy machine may take longer than the fifth of a second that Datasette gives a facet.
PATIENT = {"facet_time_limit_ms": 60_000, "sql_time_limit_ms": 60_000}


def asked(folder: Path, *paths: str) -> list[Any]:
    """What Datasette answers, with the exported metadata, as a person starts it: `datasette FOLDER`."""
    metadata = json.loads((folder / "metadata.json").read_text(encoding="utf-8"))

    async def ask() -> list[Any]:
        datasette = Datasette([str(folder / "lab.db")], metadata=metadata, settings=PATIENT)
        await datasette.invoke_startup()
        return [await datasette.client.get(path) for path in paths]

    return asyncio.run(ask())


@pytest.fixture(scope="module")
def published(made: Made, tmp_path_factory: pytest.TempPathFactory) -> Path:
    db = open_database(made.home)
    add_event(db, made.run.id, "note", f"read {made.home}/models/mine with {SECRET} from https://me:pw@hub.example/x/y")
    db.table("workers").insert(
        {"id": "w1", "host": "secret-host", "pid": 1, "process_started": 0.0, "heartbeat": 0.0, "run": None}
    )
    folder = tmp_path_factory.mktemp("published") / "lab"
    exported("database", "--to", folder, "--home", made.home)
    return folder


def test_datasette_shows_runs_figures_and_answers(made: Made, published: Path) -> None:
    pages = asked(
        published, "/", "/lab", "/lab/runs", f"/lab/runs/{made.run.id}.json", "/lab/answers.json?_facet=hit&_size=1",
        "/lab/answers?_search=mother", "/lab/results.json?metric=choice_accuracy&_labels=on&_size=1",
    )  # fmt: skip
    assert [page.status_code for page in pages] == [200] * len(pages)
    home, tables, runs, run, answers, found, figures = pages
    assert "Rote Lab" in home.text and described()["description"] in home.text
    assert all(name in tables.text for name in described()["tables"])
    assert "Decides names, facts, split and order" in runs.text and "&nbsp;s</td>" in runs.text
    assert run.json()["rows"][0][run.json()["columns"].index("name")] == "quick-lora"
    facets = answers.json()["facet_results"]["hit"]["results"]
    assert {facet["value"] for facet in facets} == {0, 1}
    assert "Custom SQL query" not in found.text and "mother" in found.text
    assert figures.json()["rows"][0]["run"] == {"value": made.run.id, "label": "quick-lora"}


def test_every_column_is_described_and_every_table_decided_on(made: Made, published: Path) -> None:
    out = sqlite3.connect(published / "lab.db")
    metadata = json.loads((published / "metadata.json").read_text(encoding="utf-8"))["databases"]["lab"]["tables"]
    tables = {row[0] for row in out.execute("select name from sqlite_master where type = 'table'")}
    assert {t for t in tables if "_fts" not in t} == set(metadata)
    for name, about in metadata.items():
        assert [row[1] for row in out.execute(f"pragma table_info({name})")] == list(about["columns"]), name
        assert set(about.get("facets", ())) <= set(about["columns"])
    out.close()


def test_nothing_private_is_in_it(made: Made, published: Path) -> None:
    data = (published / "lab.db").read_bytes() + (published / "metadata.json").read_bytes()
    for private in (SECRET, "secret-host", str(made.home), "me:pw"):
        assert private.encode() not in data, private
    assert b"models/mine" not in data and "…/mine".encode() in data


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("/home/ana/models/qwen is broken", "…/qwen is broken"),
        (r"C:\Users\ana\models\qwen", "…/qwen"),
        (r'{"model": "C:\\Users\\ana\\qwen"}', '{"model": "…/qwen"}'),
        ("~/models/qwen", "…/qwen"),
        ("Qwen/Qwen2.5-1.5B", "Qwen/Qwen2.5-1.5B"),
        ("https://huggingface.co/Qwen/Qwen2.5", "https://huggingface.co/Qwen/Qwen2.5"),
        ("1/2 and he/she/it", "1/2 and he/she/it"),
        (f"token {SECRET}.", "token …."),
    ],
)
def test_folders_and_tokens_are_taken_out(text: str, wanted: str) -> None:
    assert scrub(text) == wanted


def test_without_answers(made: Made, tmp_path: Path) -> None:
    exported("database", "--no-answers", "--to", tmp_path / "lab", "--home", made.home)
    (page,) = asked(tmp_path / "lab", "/lab")
    assert page.status_code == 200 and "answers" not in page.text
