"""Exports that need no other program: what is written where, and judged how. Real readers are in tests/exports."""

from __future__ import annotations

import io
import sqlite3
import zipfile
from contextlib import closing
from html import escape
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from app.shared.words import BASE_TEXT_METRICS
from engine.corpus.resolve import resolve
from engine.evaluation.answer import rank_of
from engine.evaluation.hits import is_hit
from engine.evaluation.summary import METRICS
from engine.experiment import Experiment
from engine.exports.database import DATABASE, described, export_database
from engine.exports.dataset import dataset_files
from engine.exports.harness_task import judge_choice, judge_generation, normalise
from engine.exports.markdown import plain
from engine.exports.target import new_folder, write_files, zipped
from storage.database import open_database
from storage.measurements import SECONDS, TRAINING_TOKENS
from storage.runs import add_event, add_run
from storage.studies import ALL_FACTS

# Tables that stay in the lab: what is private to people, machines and processes, or only steers them.
KEPT_IN = {
    "drafts", "workers", "servers", "devices", "recordings", "askings", "asking_questions", "asking_columns",
    "asking_answers", "asking_alternatives", "study_groups", "users", "sessions", "tokens", "turns", "wrong_passwords",
    "audit",
}  # fmt: skip
WORDS = st.sampled_from(["Cody", "Ross", "cody ross", "Ross:", ".", ",", "é", "e\u0301", "[X]", " ", "\n", "中"])
TEXT = st.lists(WORDS, max_size=6).map(" ".join)


@given(TEXT, TEXT.filter(normalise), TEXT)
def test_the_exported_task_judges_answers_as_the_lab_does(answer: str, wanted: str, spelling: str) -> None:
    accepted = [form for form in (normalise(wanted), normalise(spelling)) if form]
    found = judge_generation({"accepted": accepted}, [answer])
    assert found == {"generation_accuracy": float(is_hit(answer, wanted, spelling))}


@given(st.lists(st.floats(-60, 0) | st.sampled_from([-7.0, -7.0000001, -7.00001]), min_size=2, max_size=8), st.data())
def test_the_exported_task_judges_choices_as_the_lab_does(scores: list[float], data: st.DataObject) -> None:
    truth = data.draw(st.integers(0, len(scores) - 1))
    found = judge_choice({"truth": truth}, [(score, False) for score in scores])
    assert found["choice_accuracy"] == float(rank_of(scores, truth) == 1)
    assert 0 <= found["object_probability_normalised"] <= 1


def test_a_folder_is_whole_or_not_there(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), new_folder(tmp_path / "new") as new:
        (new / "half").write_text("x")
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "empty").mkdir()
    write_files({"a/b.txt": "x"}, tmp_path / "empty")
    assert (tmp_path / "empty" / "a" / "b.txt").read_text() == "x"
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    with pytest.raises(ValueError, match="new or empty"):
        write_files({"a": "x"}, tmp_path / "link")


def test_an_archive_holds_one_folder() -> None:
    data = zipped({"README.md": "é", "facts/held_out.jsonl": "{}"}, "mine")
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        assert archive.namelist() == ["mine/README.md", "mine/facts/held_out.jsonl"]
        assert archive.read("mine/README.md").decode() == "é"
    assert data == zipped({"README.md": "é", "facts/held_out.jsonl": "{}"}, "mine")


def test_every_table_goes_out_or_is_kept_on_purpose(tmp_path: Path) -> None:
    """A new table stays in the lab until somebody decides; so it has to be in one of the two lists."""
    db = open_database(tmp_path)
    tables = {name for name in db.table_names() if not name.startswith(("_", "sqlite_"))}
    exported = {name for name, table in described()["tables"].items() if "sql" in table}
    assert tables == exported | KEPT_IN
    for name, table in described()["tables"].items():
        if "sql" in table:
            cursor = db.execute(table["sql"])
            assert [column[0] for column in cursor.description] == list(table["columns"]), name
    db.close()


@pytest.mark.parametrize(
    ("described", "stages"),
    [
        ({}, {"stage1", "stage2"}),
        ({"stage1": {"epochs": 0}}, {"stage2"}),
        ({"stage1": {"epochs": 0}, "in_context": {}}, set()),
    ],
)
def test_a_data_set_has_the_texts_of_the_stages_that_train(described: dict[str, Any], stages: set[str]) -> None:
    relations = [{"name": "mother", "facts": {"generate": 20}}]
    experiment = Experiment.from_data({"relations": relations, "stage2": {"facts": 5}, **described})
    files = dataset_files(resolve(experiment))
    assert {name.partition("/")[0] for name in files} - {"README.md", "facts", "prompts"} == stages
    card = yaml.safe_load(files["README.md"].split("---\n")[1])
    assert {about["config_name"] for about in card["configs"]} == {"facts", "prompts"} | stages
    assert ("trains nothing" in files["README.md"]) == (not stages)


def test_every_measure_and_its_unit_is_described() -> None:
    """A number whose column says another unit is read as that."""
    columns = {name: table["columns"] for name, table in described()["tables"].items()}
    for word in (*(metric for metric, _ in METRICS if "probability" not in metric), *BASE_TEXT_METRICS):
        assert word.removesuffix("_unaided") in columns["results"]["metric"], word
    assert "nats" in columns["results"]["value"] and "tokens" in columns["results"]["n"]
    assert "none" in columns["results"]["facts"] and "context@0" in columns["results"]["checkpoint"]
    for word in ("loss", "replay loss", "probe", SECONDS, TRAINING_TOKENS):
        assert word in columns["measurements"]["series"], word
    assert "seconds or tokens" in columns["measurements"]["value"]
    figures = columns["study_figures"]
    assert "context" in figures["kind"] and ALL_FACTS in figures["facts"] and TRAINING_TOKENS in figures["split"]
    assert all(word in figures["value"] for word in ("choices", "tokens a fact", "cosine"))
    assert "for each seed" not in figures["n_facts"]


def test_events_come_in_their_order(tmp_path: Path) -> None:
    with closing(open_database(tmp_path / "home")) as db:
        run = add_run(db, name="one", experiment={"relations": []}, model="embedded", seed=0)
        for number in range(12):
            add_event(db, run.id, "note", str(number))
    export_database(tmp_path / "home", tmp_path / "out")
    with closing(sqlite3.connect(tmp_path / "out" / DATABASE)) as out:
        said = out.execute("select message from events where kind = 'note' order by id").fetchall()
    assert [int(number) for (number,) in said] == list(range(12))


@pytest.mark.parametrize(
    "text",
    ["- one", "+ one", "* one", "1. one", "12) one", "---", "-", "3.5 is", "-5", "> q", "# h", "| a |",
     "`x` &copy; <b>", "![a](b)", "a\n- b"],
)  # fmt: skip
def test_what_somebody_typed_is_a_paragraph_of_markdown(text: str) -> None:
    shown = MarkdownIt("commonmark").enable("table").render(plain(text)).strip()
    assert shown == f"<p>{escape(' '.join(text.split()), quote=False)}</p>"
