"""Hugging Face's datasets opens what was exported, whatever stands in it."""

from __future__ import annotations

from pathlib import Path

import datasets
import pytest
from huggingface_hub import DatasetCard

from engine.corpus.resolve import resolve
from engine.evaluation.questions import options_of
from engine.experiment import Experiment
from engine.exports.dataset import COLUMNS, dataset_files
from engine.exports.target import write_files
from engine.presets import load_preset
from engine.relation import Fact
from tests.exports.conftest import Made, exported

HOSTILE = "</script><img src=x> | `x` [a](javascript:x) =1+1 مرحبا 👩‍👩‍👧 {subject}"


def opened(folder: Path, name: str, cache: Path) -> datasets.DatasetDict:
    found = datasets.load_dataset(str(folder), name, cache_dir=str(cache))
    assert isinstance(found, datasets.DatasetDict)
    return found


def test_every_fact_and_prompt_of_a_run_is_in_it(made: Made, tmp_path: Path) -> None:
    exported("dataset", made.run.id, "--licence", "cc-by-4.0", "--to", tmp_path / "set", "--home", made.home)
    experiment, cache = made.experiment, tmp_path / "cache"
    (relation,) = experiment.relations
    facts = opened(tmp_path / "set", "facts", cache)
    assert {name: len(rows) for name, rows in facts.items()} == {"trained": 6, "held_out": 10}
    trained = experiment.stage2_facts(relation)
    wanted = [relation.explicit_facts[i] for i in sorted(trained)]
    assert [(row["subject"], row["object"]) for row in facts["trained"]] == [(f.subject, f.object) for f in wanted]
    assert facts["trained"][0]["options"] == list(options_of(relation, wanted[0]))
    prompts = opened(tmp_path / "set", "prompts", cache)
    texts = {(split, row["text"], row["language"]) for split, rows in prompts.items() for row in rows}
    assert texts == {(p.split, p.text, p.language) for p in relation.explicit_prompts}
    assert sum(row["used"] for row in prompts["train"]) == experiment.stage2.prompts
    assert len(opened(tmp_path / "set", "stage1", cache)["train"]) == 16
    stage2 = opened(tmp_path / "set", "stage2", cache)["train"]
    assert {row["completion"].strip() for row in stage2} == {fact.object for fact in wanted}
    card = DatasetCard.load(tmp_path / "set" / "README.md")
    assert card.data.license == "cc-by-4.0" and set(card.data.language) == {"en", "de", "es", "zh", "ja"}


def test_what_somebody_typed_stays_text(tmp_path: Path) -> None:
    quick = resolve(load_preset("one-fact"))
    (relation,) = quick.relations
    facts = (Fact(subject="Ana {subject} =1", object='"O" \u2028 O'), *relation.explicit_facts[1:])
    update = {"facts": facts, "name": "‘x’ | y"}
    hostile = quick.model_copy(
        update={"name": HOSTILE, "description": HOSTILE, "relations": (relation.model_copy(update=update),)}
    )
    write_files(dataset_files(hostile), tmp_path / "set")
    found = opened(tmp_path / "set", "facts", tmp_path / "cache")
    rows = [row for split in found.values() for row in split]
    assert ("Ana {subject} =1", '"O" \u2028 O') in {(row["subject"], row["object"]) for row in rows}
    text = (tmp_path / "set" / "README.md").read_text(encoding="utf-8")
    card = DatasetCard.load(tmp_path / "set" / "README.md")
    assert card.data.pretty_name == HOSTILE and card.data.license == "unknown"
    below = text.split("---\n", 2)[2]
    assert "<img" not in below and "[a](" not in below and "Nobody has said under which licence" in below


def test_a_folder_that_holds_something_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")
    with pytest.raises(ValueError, match="new or empty"):
        write_files({"README.md": "x"}, tmp_path / "mine")
    assert [p.name for p in tmp_path.rglob("*")] == ["mine", "thesis.txt"]


def test_columns_are_those_of_the_card(tmp_path: Path) -> None:
    experiment: Experiment = resolve(load_preset("one-fact"))
    write_files(dataset_files(experiment), tmp_path / "set")
    for name, columns in COLUMNS.items():
        for rows in opened(tmp_path / "set", name, tmp_path / "cache").values():
            assert rows.column_names == list(columns)
