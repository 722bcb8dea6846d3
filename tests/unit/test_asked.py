"""What was asked: kept whole, asked in turns, found again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from sqlite_utils import Database

from storage import asked
from storage import asked_queue as queue
from storage.database import open_database
from storage.runs import add_run, delete_run

QUESTION = {
    "split": "train", "language": "en", "prompt": "Who is {subject}'s mother?", "about": None, "trained": 0,
    "subject": "Vurnia Virik", "object": "Salvis Barmont",
}  # fmt: skip


@pytest.fixture
def db(tmp_path: Path):
    database = open_database(tmp_path)
    yield database
    database.close()


def ask(db: Database, count: int = 3, *models: str, title: str = "Vurnia Virik, mother") -> str:
    questions = [QUESTION | {"text": f"Who is Vurnia Virik's mother? {n}"} for n in range(count)]
    asking = asked.add_asking(
        db, kind="fact", run="r1", run_name="quick", relation="mother", subject="Vurnia Virik", object="Salvis Barmont",
        title=title, settings={"temperature": 0.0}, questions=questions,
    )  # fmt: skip
    queue.add_columns(db, asking, [(m, "r1", "quick", m.partition("/")[2]) for m in models])
    return asking


def answer(number: int, **changes: Any) -> dict[str, Any]:
    tokens = [{"id": 7, "text": " Salvis", "log_probability": -0.5}]
    return {
        "number": number, "answer": "Salvis Barmont.", "hit": 1, "log_probability": -0.7, "rank": 1, "options": 100,
        "tokens": tokens, "complete": True, "error": None,
    } | changes  # fmt: skip


def test_columns_take_turns_and_are_done_when_every_question_is_answered(db: Database) -> None:
    first, second = ask(db, 3, "r1/base", "r1/generalised@20"), ask(db, 1, "r1/base")
    order = []
    while column := queue.claim_column(db, 60):
        order.append((column.asking, column.model))
        chunk = queue.unanswered(db, column.asking, column.model, 2)
        queue.store_asked(db, column.asking, column.model, [answer(q["number"]) for q in chunk])
        queue.release_column(db, column.asking, column.model, "embedded")
    long, short = [(first, "r1/base"), (first, "r1/generalised@20")], [(second, "r1/base")]
    assert order == long + short + long, "the short one waits for two questions of each other column, not for all"
    columns = asked.list_columns(db, first)
    assert [(c.model, c.state, c.answered, c.questions) for c in columns] == [
        ("r1/base", "done", 3, 3),
        ("r1/generalised@20", "done", 3, 3),
    ]
    assert len(asked.list_answers(db, first)) == 6
    assert {a["model"] for a in asked.list_answers(db, first, ["r1/base"])} == {"r1/base"}


def test_a_column_whose_asker_died_is_claimed_again_and_nothing_is_asked_twice(db: Database) -> None:
    asking = ask(db, 3, "r1/base")
    assert queue.claim_column(db, -1) is not None
    queue.store_asked(db, asking, "r1/base", [answer(1), answer(2, rank=None, complete=False)])
    queue.release_column(db, asking, "r1/base", "embedded")
    assert queue.claim_column(db, -1) is not None, "taken, and its lease has lapsed"
    again = queue.claim_column(db, 60)
    assert again is not None and (again.answered, again.complete) == (2, 1)
    assert [q["number"] for q in queue.unanswered(db, asking, "r1/base", 10)] == [2, 3]
    assert queue.claim_column(db, 60) is None and not queue.anything_waits(db), "held"


def test_a_failed_column_keeps_its_answers_and_can_be_asked_again(db: Database) -> None:
    asking = ask(db, 2, "r1/base")
    queue.claim_column(db, 60)
    queue.store_asked(db, asking, "r1/base", [answer(1, error="too long", answer="", hit=None)])
    queue.release_column(db, asking, "r1/base", "vllm")
    for tries in (1, 2):
        assert queue.claim_column(db, 60) is not None
        assert queue.give_back_column(db, asking, "r1/base") == tries
    queue.fail_column(db, asking, "r1/base", "the server went away")
    (column,) = asked.list_columns(db, asking)
    assert (column.state, column.error, column.answered, column.backend) == (
        "failed",
        "the server went away",
        1,
        "vllm",
    )
    queue.forget_errors(db, asking, "r1/base")
    (column,) = asked.list_columns(db, asking)
    assert (column.state, column.error, column.answered) == ("waiting", None, 0)
    queue.add_columns(db, asking, [("r1/base", "r1", "quick", "base")])
    assert len(asked.list_columns(db, asking)) == 1


def test_alternatives_are_asked_for_once(db: Database) -> None:
    asking = ask(db, 1, "r1/base")
    for _ in range(2):
        queue.want_alternatives(db, asking, "r1/base", 1, 0)
    wish = queue.claim_alternatives(db, 60)
    assert wish == {"asking": asking, "model": "r1/base", "number": 1, "place": 0}
    assert queue.claim_alternatives(db, 60) is None
    queue.store_asked(db, "no such asking", "r1/base", [answer(1)])
    found = [{"id": 7, "text": " Salvis", "log_probability": -0.5}]
    queue.store_alternatives(db, wish, found)
    kept = queue.get_alternatives(db, asking, "r1/base", 1, 0)
    assert kept == {"state": "done", "alternatives": found, "error": None}
    queue.want_alternatives(db, asking, "r1/base", 1, 0)
    assert queue.claim_alternatives(db, 60) is None, "they are kept"
    assert queue.get_alternatives(db, asking, "r1/base", 1, 1) is None


def test_everything_is_found_again_also_after_its_run_is_gone(db: Database) -> None:
    run = add_run(db, name="quick", experiment={}, model="embedded", seed=1)
    asking, other = ask(db, 1, "r1/base"), ask(db, 1, title="100 % of 'quotes'")
    queue.claim_column(db, 60)
    queue.store_asked(db, asking, "r1/base", [answer(1, answer="Temon SERLOW")])
    delete_run(db, run.id)
    assert [r["id"] for r in asked.find_askings(db, "serlow")[0]] == [asking]
    assert [r["id"] for r in asked.find_askings(db, "100 % of 'QUOTES'")[0]] == [other]
    assert asked.find_askings(db, "_%'; drop table askings; --") == ([], 0)
    rows, total = asked.find_askings(db, "", limit=1)
    assert (total, rows[0]["id"]) == (2, other)
    found = asked.get_answer(db, asking, "r1/base", 1)
    assert found is not None and found["tokens"][0]["text"] == " Salvis" and found["prompt"] == QUESTION["prompt"]
    assert asked.get_answer(db, asking, "r1/base", 9) is None
    assert asked.get_asking(db, asking).settings == {"temperature": 0.0}
    with pytest.raises(KeyError):
        asked.get_asking(db, "no such id")
