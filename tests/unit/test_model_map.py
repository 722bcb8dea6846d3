"""The map of a model: rows are runs of the lab, and rows that memorise alike share what is before stage 2."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from sqlite_utils import Database

from storage.answers import all_answers, evaluation_times, open_answers
from storage.database import open_database
from storage.folders import checkpoint_folder, run_folder
from storage.measurements import Result, list_results
from storage.runs import State
from tools.model_map.evidence import evidence_table
from tools.model_map.plan import read_plan
from tools.model_map.runs import carry_out_row, experiment_of, find_run
from tools.model_map.table import map_table

PLAN = """
preset: quick
seeds: [3]
set: ["relations.0.facts={generate: 12}", "stage1.epochs=1", "stage2.facts=6", "evaluation={languages: [en],
  facts: 4, prompts: 1, max_new_tokens: 4, choice: {facts: 2, prompts: 1}, options: 4, base_text: 2}"]
parts:
  - title: Stage 2
    rows:
      - {name: one prompt}
      - {name: two prompts, set: ["stage2.prompts=2"]}
      - {name: more asked, set: ["stage2.prompts=2", "evaluation.prompts=2"]}
      - {name: memorised otherwise, set: ["stage1.learning_rate=0.001"]}
      - {name: not yet, set: ["stage2.prompts=3"]}
"""


def test_rows_that_memorise_alike_share_checkpoint_and_answers(tmp_path: Path) -> None:
    file = tmp_path / "plan.yaml"
    file.write_text(PLAN)
    plan, db = read_plan(file), open_database(tmp_path)
    rows = plan.chosen(["one prompt", "two prompts", "more asked", "memorised otherwise"])
    for row in rows:
        carry_out_row(tmp_path, row, keep=False)
    runs = [run for row in rows if (run := find_run(db, experiment_of(row)))]
    assert [run.state for run in runs] == [State.DONE] * 4

    folders = [run_folder(tmp_path, run.id) for run in runs]
    weights = [next(checkpoint_folder(folder, "memorised@1").glob("*.safetensors")) for folder in folders]
    inodes = [file.stat().st_ino for file in weights]
    assert inodes[0] == inodes[1] == inodes[2] != inodes[3]
    assert not checkpoint_folder(folders[0], "generalised@1").exists(), "what nobody asks again takes no disk"

    answers = [open_answers(folder) for folder in folders]
    before = [[all_answers(db_, name) for name in ("base", "memorised@1")] for db_ in answers]
    assert before[0] == before[1] != before[2]
    first, second = (evaluation_times(db_) for db_ in answers[:2])
    assert max(first.values()) < min(second.values()), "asked or taken over, each row has answers of its own"
    results = [[vars(r) for r in list_results(db, run.id) if r.checkpoint != "generalised@1"] for run in runs]
    assert results[0] == results[1] and len(results[0]) > 10
    assert list_results(db, runs[0].id) != list_results(db, runs[1].id)

    table = map_table(db, plan)
    assert "| one prompt |" in table and "| not yet |" not in table
    assert "python -m engine run quick --set" in table and "--set stage2.prompts=2 --seed 3" in table
    check_evidence(evidence_table(db, tmp_path, plan, "one prompt"), answers[0], list_results(db, runs[0].id))
    with pytest.raises(ValueError, match="no run of the row not yet is done"):
        evidence_table(db, tmp_path, plan, "not yet")
    carry_out_row(tmp_path, rows[0], keep=False)
    assert find_run(db, experiment_of(rows[0])) == runs[0], "a row that is done is not done again"
    older = dict(runs[0].experiment)
    del older["stage2"]["embeddings"], older["evaluation"]["general"]
    db.table("runs").update(runs[0].id, {"experiment": json.dumps(older)})
    found = find_run(db, experiment_of(rows[0]))
    assert found and found.id == runs[0].id, "nor because a setting came since"


def check_evidence(table: str, answers: Database, results: list[Result]) -> None:
    """The table has the stored figures, and counts answers and facts; with one prompt a fact its interval is Wilson's,
    as the results have it."""
    line = next(line for line in table.splitlines() if line.startswith("| test, after stage 2, English |"))
    cells = [cell.strip() for cell in line.strip("|").split("|")]
    wanted = ("generalised@1", "held_out", "test", "en", "generation_accuracy")
    mine = next(r for r in results if (r.checkpoint, r.facts, r.split, r.language, r.metric) == wanted)
    assert cells[1] == f"{mine.value:.2f} ({mine.low:.2f} to {mine.high:.2f})" and cells[3] == f"{mine.value:.2f}"
    asked = [a for a in all_answers(answers, "generalised@1") if a["prompt"] == first_test_prompt(answers)]
    assert cells[4] == f"{mine.n} about {mine.n_facts} facts" and mine.n == mine.n_facts == 2 < len(asked) == 4
    assert "python -m engine run quick" in table and "test, after stage 2, German" not in table


def first_test_prompt(answers: Database) -> int:
    return int(next(answers["prompts"].rows_where("split = 'test' and language = 'en'", order_by="id"))["id"])


def test_a_row_that_is_not_in_the_plan_is_named(tmp_path: Path) -> None:
    file = tmp_path / "plan.yaml"
    file.write_text(PLAN)
    with pytest.raises(ValueError, match="no row is called x: there are memorised otherwise, "):
        read_plan(file).chosen(["x"])
