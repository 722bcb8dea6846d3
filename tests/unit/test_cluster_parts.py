"""Files that travel in parts: whole or not at all, and only where they may lie. No Ray is needed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from engine.cluster import parts
from engine.cluster.carried import take_answers
from engine.cluster.parts import Arrivals, Part, RefusedFile, is_path, parts_of
from engine.cluster.versions import difference, versions
from engine.models.folders import replaced
from storage.answers import open_answers, store_questions

UNIT = "runs/abc/checkpoints/memorised@3"


@pytest.fixture
def source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(parts, "PART_BYTES", 10)
    with replaced(tmp_path / "source" / UNIT) as new:
        (new / "training").mkdir()
        (new / "model.bin").write_bytes(b"0123456789" * 3 + b"x")
        (new / "training/state.json").write_bytes(b"{}")
        (new / "empty").write_bytes(b"")
    return tmp_path / "source"


@pytest.fixture
def arrivals(tmp_path: Path) -> Arrivals:
    home = tmp_path / "target"
    return Arrivals(home, home / "arriving", may=lambda unit: unit.startswith("runs/abc/"))


def arrive(arrivals: Arrivals, sent: Iterator[Part] | list[Part]) -> list[str]:
    return [unit for part in sent if (unit := arrivals.take(part))]


def test_a_folder_arrives_as_it_was_and_nothing_else_is_left(source: Path, arrivals: Arrivals) -> None:
    assert arrive(arrivals, parts_of(source, UNIT)) == [UNIT]
    there, here = arrivals.home / UNIT, source / UNIT
    files = {p.relative_to(here): p.read_bytes() for p in here.rglob("*") if p.is_file()}
    assert {p.relative_to(there): p.read_bytes() for p in there.rglob("*") if p.is_file()} == files
    assert len(files) == 4 and not arrivals.waiting.exists()


def test_a_folder_that_is_not_whole_never_takes_its_place(source: Path, arrivals: Arrivals) -> None:
    sent = list(parts_of(source, UNIT))
    arrive(arrivals, sent[:-1])
    assert not (arrivals.home / UNIT).exists()
    arrivals.drop()
    changed = [part | {"data": b"9" + part["data"][1:]} if part["data"] else part for part in sent]
    with pytest.raises(RefusedFile, match="did not arrive as it was sent"):
        arrive(arrivals, changed)
    arrivals.drop()
    without = [part for part in sent if part["file"] != "checksums.json"]
    with pytest.raises(RefusedFile, match="without checksums"):
        arrive(arrivals, [*without[:-1], without[-1] | {"end": True}])
    assert not (arrivals.home / UNIT).exists()


@pytest.mark.parametrize("name", ["../x", "/etc/x", "a/../../x", "..", ".", "a//b", "a/", "a\\b", "", "a\0b", "a\nb"])
def test_a_name_that_leads_elsewhere_is_refused(arrivals: Arrivals, name: str) -> None:
    assert not is_path(name)
    for part in ({"unit": f"runs/abc/{name}", "file": ""}, {"unit": UNIT, "file": name or ".."}):
        with pytest.raises(RefusedFile, match="has no place here"):
            arrivals.take({"data": b"", "sha256": "", "end": True} | part)
    assert not arrivals.home.exists()


def test_a_unit_of_another_run_and_what_is_no_part_are_refused(arrivals: Arrivals) -> None:
    with pytest.raises(RefusedFile, match="has no place here"):
        arrivals.take({"unit": "runs/other/run.json", "file": "", "data": b""})
    for part in ({}, {"unit": UNIT, "file": "x", "data": "text"}, {"unit": 3, "file": "x", "data": b""}):
        with pytest.raises(RefusedFile, match="no part of a file"):
            arrivals.take(part)


def test_answers_are_taken_while_others_read_them_and_only_as_the_lab_makes_them(tmp_path: Path) -> None:
    here, there = open_answers(tmp_path / "here"), open_answers(tmp_path / "there")
    fact = {"id": 0, "relation": "r", "subject": "s", "object": "o", "trained": 0}
    store_questions(there, [fact], [])
    there.execute("pragma journal_mode = delete")
    arrived = tmp_path / "there/answers.db"
    take_answers(tmp_path / "here", arrived)
    assert [row["subject"] for row in here.query("select * from facts")] == ["s"]
    there.execute("create trigger t after insert on facts begin delete from facts; end")
    there.close()
    with pytest.raises(RefusedFile, match="another version of the lab"):
        take_answers(tmp_path / "here", arrived)
    arrived.write_bytes(b"no database at all" * 100)
    with pytest.raises(RefusedFile, match="damaged"):
        take_answers(tmp_path / "here", arrived)


def test_another_embedded_base_is_another_version(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    weights = tmp_path / "engine/base/weights"
    weights.mkdir(parents=True)
    monkeypatch.setattr("engine.cluster.versions.CODE_ROOT", tmp_path)
    told = []
    for model in (b"one", b"one", b"another"):
        (weights / "model.safetensors").write_bytes(model)
        told.append(versions.__wrapped__()["lab"])
    assert told[0] == told[1] != told[2]


def test_versions_that_differ_are_said_in_one_sentence() -> None:
    assert difference("node", versions()) == ""
    sentence = difference("node", versions() | {"python": "3.9", "ray": "2.1.0"})
    assert "Python 3.9 instead of" in sentence and "Ray 2.1.0 instead of" in sentence and "the lab" not in sentence
    assert "does not say" in difference("node", None)
