"""What was asked: kept whole, asked in turns, found again."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from sqlite_utils import Database

from storage import asking_queue as queue
from storage import askings
from storage.asking_queue import Alternatives, TokenPlace
from storage.askings import Answer, Question, Token
from storage.database import connect, migrations, open_database, write
from storage.deletion import delete_run
from storage.runs import add_run, request_stop

QUESTION = Question(
    "",
    "train",
    "en",
    "Who is {subject}'s mother?",
    subject="Vurnia Virik",
    object="Salvis Barmont",
    trained=0,
    relation="mother",
)


@pytest.fixture
def db(tmp_path: Path):
    database = open_database(tmp_path)
    yield database
    database.close()


def ask(db: Database, count: int = 3, *models: str, title: str = "Vurnia Virik, mother") -> str:
    questions = [replace(QUESTION, text=f"Who is Vurnia Virik's mother? {n}") for n in range(count)]
    asking = askings.add_asking(db, "fact", "r1", "quick", title, {"temperature": 0.0}, questions)
    for model in models:
        queue.add_column(db, asking, "r1", "quick", model.partition("/")[2])
    return asking


def answer(number: int, **changes: Any) -> Answer:
    tokens = (Token(7, " Salvis", -0.5),)
    kept = Answer(replace(QUESTION, number=number), "r1/base", "Salvis Barmont.", tokens, True, -0.7, 1, 100)
    return replace(kept, **changes)


def test_columns_take_turns_and_are_done_when_every_question_is_answered(db: Database) -> None:
    first, second = ask(db, 3, "r1/base", "r1/generalised@20"), ask(db, 1, "r1/base")
    order = []
    while column := queue.claim_column(db, 60):
        order.append((column.asking, column.model))
        chunk = queue.unanswered(db, column.asking, column.model, 2)
        queue.store_answers(db, column.asking, column.model, [answer(q.number) for q in chunk])
        queue.release_column(db, column.asking, column.model, "embedded")
    long, short = [(first, "r1/base"), (first, "r1/generalised@20")], [(second, "r1/base")]
    assert order == long + short + long, "the short one waits for two questions of each other column, not for all"
    columns = askings.list_columns(db, first)
    assert [(c.model, c.state, c.answered, c.questions) for c in columns] == [
        ("r1/base", "done", 3, 3),
        ("r1/generalised@20", "done", 3, 3),
    ]
    assert len(askings.list_answers(db, first)) == 6
    assert {a.model for a in askings.list_answers(db, first, ["r1/base"])} == {"r1/base"}


def test_a_column_whose_asker_died_is_claimed_again_and_nothing_is_asked_twice(db: Database) -> None:
    asking = ask(db, 3, "r1/base")
    assert queue.claim_column(db, -1) is not None
    queue.store_answers(db, asking, "r1/base", [answer(1), answer(2, rank=None, complete=False)])
    queue.release_column(db, asking, "r1/base", "embedded")
    assert queue.claim_column(db, -1) is not None, "taken, and its lease has lapsed"
    again = queue.claim_column(db, 60)
    assert again is not None and (again.answered, again.complete) == (2, 1)
    assert [q.number for q in queue.unanswered(db, asking, "r1/base", 10)] == [2, 3]
    assert queue.claim_column(db, 60) is None and not queue.anything_waits(db), "held"


def test_a_failed_column_keeps_its_answers_and_can_be_asked_again(db: Database) -> None:
    asking = ask(db, 2, "r1/base")
    queue.claim_column(db, 60)
    queue.store_answers(db, asking, "r1/base", [answer(1, error="too long", text="", hit=None)])
    queue.release_column(db, asking, "r1/base", "vllm")
    for tries in (1, 2):
        assert queue.claim_column(db, 60) is not None
        assert queue.give_back_column(db, asking, "r1/base") == tries
    queue.fail_column(db, asking, "r1/base", "the server went away")
    (column,) = askings.list_columns(db, asking)
    assert (column.state, column.error, column.answered, column.backend) == (
        "failed",
        "the server went away",
        1,
        "vllm",
    )
    queue.forget_errors(db, asking, "r1/base")
    (column,) = askings.list_columns(db, asking)
    assert (column.state, column.error, column.answered) == ("waiting", None, 0)
    queue.add_column(db, asking, "r1", "quick", "base")
    assert len(askings.list_columns(db, asking)) == 1


def test_alternatives_are_asked_for_once(db: Database) -> None:
    asking = ask(db, 1, "r1/base")
    place = TokenPlace(asking, "r1/base", 1, 0)
    for _ in range(2):
        queue.want_alternatives(db, place)
    assert queue.claim_alternatives(db, -1) == place
    queue.give_back_alternatives(db, place)
    assert queue.claim_alternatives(db, -1) == place, "given back"
    assert queue.claim_alternatives(db, 60) == place, "its lease had lapsed"
    assert queue.claim_alternatives(db, 60) is None
    queue.store_answers(db, "no such asking", "r1/base", [answer(1)])
    tokens = (Token(7, " Salvis", -0.5),)
    queue.store_alternatives(db, place, tokens)
    assert queue.get_alternatives(db, place) == Alternatives("done", tokens, None)
    queue.want_alternatives(db, place)
    assert queue.claim_alternatives(db, 60) is None, "they are kept"
    assert queue.get_alternatives(db, replace(place, place=1)) is None


def test_everything_is_found_again_also_after_its_run_is_gone(db: Database) -> None:
    run = add_run(db, name="quick", experiment={}, model="embedded", seed=1)
    asking, other = ask(db, 1, "r1/base"), ask(db, 1, title="100 % of 'quotes'")
    queue.claim_column(db, 60)
    queue.store_answers(db, asking, "r1/base", [answer(1, text="Temon SERLOW")])
    request_stop(db, run.id)
    delete_run(db, run.id)
    assert [r["id"] for r in askings.find_askings(db, "serlow")[0]] == [asking]
    assert [r["id"] for r in askings.find_askings(db, "100 % of 'QUOTES'")[0]] == [other]
    assert askings.find_askings(db, "_%'; drop table askings; --") == ([], 0)
    rows, total = askings.find_askings(db, "", limit=1)
    assert (total, rows[0]["id"]) == (2, other)
    found = askings.get_answer(db, asking, "r1/base", 1)
    assert found is not None and found.tokens[0].text == " Salvis" and found.question.prompt == QUESTION.prompt
    assert found == askings.get_answer(db, asking, "r1/base", found.question.number) and found.hit is True
    assert askings.list_answers(db, asking) == [replace(found, tokens=())]
    assert askings.get_answer(db, asking, "r1/base", 9) is None
    assert askings.get_asking(db, asking).settings == {"temperature": 0.0}
    with pytest.raises(KeyError):
        askings.get_asking(db, "no such id")


@pytest.mark.parametrize("words", ["Émile Özgür", "émile özgür", "ÉMILE", "ΣΟΦΊΑ", "софия"])
def test_capitals_of_every_alphabet_are_found(db: Database, words: str) -> None:
    asking = ask(db, 1, title="Émile Özgür, Σοφία, София")
    ask(db, 1)
    assert [row["id"] for row in askings.find_askings(db, words)[0]] == [asking]


def test_what_was_asked_before_the_tables_had_their_names_is_kept(tmp_path: Path) -> None:
    old = connect(tmp_path / "lab.db")
    with write(old):
        migrations.apply(old, stop_before="m008_askings")
    assert "asked_answers" in old.table_names() and "asking_answers" not in old.table_names()
    tokens = '[{"id": 7, "text": " Salvis", "log_probability": -0.5}]'
    with write(old):
        for sql in (
            "insert into askings values ('a1', 'fact', 'r1', 'quick', 'mother', 'Vurnia Virik', 'Salvis', 'title', "
            "'{\"temperature\": 0.0}', '2026-01-01')",
            "insert into asked_questions values ('a1', 1, 'key', 'en', '{subject} [Z]', 'Vurnia Virik [Z]', "
            "'Vurnia Virik', 'Salvis', null, 0)",
            "insert into asked_columns (asking, model, position, run, run_name, checkpoint, requested_at) "
            "values ('a1', 'r1/base', 0, 'r1', 'quick', 'base', '2026-01-01')",
            "insert into asked_answers values "
            f"('a1', 'r1/base', 1, 'Salvis.', 1, -0.7, 3, 100, '{tokens}', 1, null, '2026-01-01')",
            f"insert into asked_alternatives values ('a1', 'r1/base', 1, 0, 'done', '{tokens}', null, null)",
        ):
            old.execute(sql)
    old.close()
    db = open_database(tmp_path)
    assert not [name for name in db.table_names() if name.startswith("asked_")]
    kept = askings.get_answer(db, "a1", "r1/base", 1)
    assert kept is not None and (kept.text, kept.rank, kept.question.object) == ("Salvis.", 3, "Salvis")
    assert queue.get_alternatives(db, TokenPlace("a1", "r1/base", 1, 0)) == Alternatives("done", kept.tokens, None)
    column = queue.claim_column(db, 60)
    assert column is not None and column.answered == 1, "what waited goes on"
    with write(db):
        db.execute("delete from askings")
    assert not askings.list_columns(db, "a1") and not list(db.query("select 1 from asking_answers")), (
        "references follow"
    )
    db.close()
