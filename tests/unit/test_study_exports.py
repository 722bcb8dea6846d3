"""A study as a report in one file, and by the command line; Parquet is read in tests/exports."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from app.command_line import main
from app.shared.lab import Lab
from app.studies.exports import written
from app.studies.view import FURTHER_MEASURES, MEASURES
from engine.execution.studies.kept import is_kept
from engine.studies.study import Study
from tests.browser import study_seeding

HOSTILE = "<img src=x onerror=alert(1)> ${1} </svg> مرحبا"


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    return Lab(tmp_path / "home")


def test_a_report_stands_alone_and_has_every_measure(lab: Lab) -> None:
    study = study_seeding.paper(lab.db, name=HOSTILE)
    text = written(lab, study, ".html", {"rows": "stage2.epochs", "fixed": "stage2.facts=10"}).decode()
    assert "<img" not in text and "&lt;img src=x onerror=alert(1)&gt;" in text
    assert not re.search(r"<script|<link|<iframe|\son\w+=\"|(?:src|href)=\"(?!#)|@import|url\((?!#)", text)
    headings = re.findall(r"<h2>(.*?)</h2>", text)
    asked = [
        label for name, (label, _, split) in MEASURES.items() if name not in FURTHER_MEASURES and not is_kept(split)
    ]
    assert headings == [*asked, "What was run"], "what the study does not ask has no part"
    assert text.count("<svg") == len(asked) == text.count("<tbody>")
    assert "Facts in stage 2 (k) 10" in text and "18 of 18 runs done" in text and "3 seeds" in text
    plan = re.search(r"<pre dir=\"auto\">(.*?)</pre>", text, re.DOTALL)
    assert plan and "stage2.epochs" in plan[1]


def test_a_report_of_what_has_just_begun(lab: Lab) -> None:
    study = study_seeding.paper(lab.db, done=0)
    text = written(lab, study, ".html", {}).decode()
    assert "Nothing has been measured yet." in text and "<svg" not in text and "0 of 18 runs done" in text


def test_the_command_writes_each_form(lab: Lab, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    study = study_seeding.paper(lab.db)
    for name, begins in (
        ("f.csv", "stage2.epochs,stage2.facts,"),
        ("t.tex", "% paper-main"),
        ("s.yaml", "name: paper-main"),
    ):
        assert main(["export", "study", study, "--to", str(tmp_path / name), "--home", str(lab.home)]) == 0
        assert (tmp_path / name).read_text(encoding="utf-8").startswith(begins)
    assert Study.from_text((tmp_path / "s.yaml").read_text(encoding="utf-8")).name == "paper-main"
    view = ["--view", "?rows=stage2.epochs&measure=key"]
    assert main(["export", "study", study, "--to", str(tmp_path / "k.tex"), "--home", str(lab.home), *view]) == 0
    assert "Key token" in (tmp_path / "k.tex").read_text(encoding="utf-8").splitlines()[0]


def test_without_pyarrow_one_sentence_says_how_to_get_it(
    lab: Lab, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    study = study_seeding.paper(lab.db, done=1)
    assert main(["export", "study", study, "--to", str(tmp_path / "f.parquet"), "--home", str(lab.home)]) == 2
    assert "pip install pyarrow" in capsys.readouterr().err and not (tmp_path / "f.parquet").exists()
