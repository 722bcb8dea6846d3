"""The published data set's own form: a CSV file for each relation, with a list of alternatives in each row."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import pytest

from engine.commands.main import main
from engine.corpus.import_files import MOST_FILES, read_files, relation_of
from engine.corpus.names import generate_facts
from engine.corpus.resolve import resolve
from engine.evaluation.questions import options_of
from engine.experiment import Experiment

HEADER = ["Head", "Fact", "Alternate Facts", "Text"]


def published(relation: str, count: int = 100) -> bytes:
    """A file as the data set has them: 99 alternatives a row, as Python writes a list."""
    pairs = generate_facts(relation, 7, count, "natural")
    objects = [object_ for _, object_ in pairs]
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(HEADER)
    for subject, object_ in pairs:
        others = [other for other in objects if other != object_]
        writer.writerow([subject, object_, repr(others), f"{subject} [X] {object_}."])
    return text.getvalue().encode()


def test_the_published_files_become_an_experiment(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("mother", "author"):
        (tmp_path / f"{name}.csv").write_bytes(published(name))
    assert main(["import", str(tmp_path), "--onto", "all-relations", "--to", str(tmp_path / "mine.yaml")]) == 0
    assert "100 facts of mother" in capsys.readouterr().out
    experiment = resolve(Experiment.from_text((tmp_path / "mine.yaml").read_text(encoding="utf-8")))
    assert [r.name for r in experiment.relations] == ["author", "mother"]
    assert len({r.key_token for r in experiment.relations}) == 2
    for relation in experiment.relations:
        fact = relation.explicit_facts[42]
        objects = {f.object for f in relation.explicit_facts}
        assert len(fact.alternatives) == len(objects) - 1 and set(options_of(relation, fact)) == objects
        assert relation.prompts_of("test", "ja")


@pytest.mark.parametrize(
    ("name", "relation"),
    [
        ("mother.csv", "mother"),
        ("/tmp/../T-Rex_Educated At.csv", "educated_at"),
        ("author_P50.csv", "author"),
        ("C:\\data\\genre.CSV", "genre"),
        ("grandmother.csv", "grandmother"),
        ("mother_and_author.csv", "mother_and_author"),
        ("<script>.csv", "script"),
    ],
)
def test_a_files_name_names_its_relation(name: str, relation: str) -> None:
    assert relation_of(name) == relation


HOSTILE = {
    "calls": "__import__('os').system('true')",
    "deep": "[" * 50_000,
    "number": "[1, 2, 3]",
    "open": "['A', 'B'",
    "cut": "['A', 'B', ..., 'Z']",
    "long": "['" + "A" * 200_000 + "']",
    "nested": "[['A'], ['B']]",
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_a_broken_list_is_refused_with_its_file_and_row(
    kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = io.StringIO()
    csv.writer(text).writerows([HEADER, ["Ana", "Bea", "['Cleo']", "x"], ["Dora", "Edda", HOSTILE[kind], "x"]])
    data = text.getvalue().encode()
    imported = read_files([("author.csv", published("author", 4)), ("mother.csv", data)])
    assert len(imported.facts) == 6 and imported.facts[-1].alternatives == ()
    (problem,) = [p for p in imported.problems if p.severity == "error"]
    assert problem.message.startswith("‘mother.csv’, row 3: ") and len(problem.message) < 300
    (tmp_path / "mother.csv").write_bytes(data)
    assert main(["import", str(tmp_path / "mother.csv"), "--to", str(tmp_path / "x.yaml")]) == 2
    assert "row 3" in capsys.readouterr().err.splitlines()[-1] and not (tmp_path / "x.yaml").exists()


def test_rows_of_several_files_are_told_apart() -> None:
    imported = read_files(
        [("mother.csv", b"subject,object\nAna,\nBea,Cleo\n"), ("author.csv", b"subject,object\nBook,\n")]
    )
    messages = [p.message for p in imported.problems if p.severity == "error"]
    assert len(set(imported.rows)) == 3 and imported.relations == ("mother", "mother", "author")
    assert messages and imported.several


def test_what_must_be_asked_is_an_error_with_its_file() -> None:
    imported = read_files([("mother.csv", b"Frage,Antwort\nAna,Bea\n"), ("author.csv", published("author", 3))])
    assert imported.asked == () and any("‘mother.csv’" in p.message and "alone" in p.message for p in imported.problems)


@pytest.mark.parametrize(
    "data", [b"", b"\x00\x01\x02", b"\xff\xfe\x00", b"PK\x03\x04" + b"\x00" * 50, "\u202e".encode()]
)
def test_what_is_no_table_is_a_sentence(data: bytes) -> None:
    imported = read_files([("mother.csv", data), ("author.csv", published("author", 3))])
    assert any(p.severity == "error" and "‘mother.csv’" in p.message for p in imported.problems)
    assert len([name for name in imported.relations if name == "author"]) == 3


def test_too_many_files_and_unknown_relations(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "leave some out" in read_files([("x.csv", b"")] * (MOST_FILES + 1)).problems[0].message
    (tmp_path / "uncle.csv").write_bytes(published("mother", 6))
    assert main(["import", str(tmp_path / "uncle.csv")]) == 2
    assert "--relation" in capsys.readouterr().err
    assert main(["import", str(tmp_path / "uncle.csv"), "--relation", "mother"]) == 0
    printed = capsys.readouterr()
    assert "stage2.facts is 3" in printed.err
    assert resolve(Experiment.from_text(printed.out)).stage2.facts == 3
