"""What was asked on the Query page: every question, of which models, and every answer, kept for good.

An *asking* is one click: its questions (numbered from 1) are asked of each of its *columns*, one column a model. The
rows are the only channel between the page and the threads that ask (storage/asked_queue.py). Runs may be deleted; what
was asked of them stays.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from sqlite_utils import Database

from storage.database import now, write

WAITING, ASKING, DONE, FAILED = "waiting", "asking", "done", "failed"
QUESTION_FIELDS = ("split", "language", "prompt", "text", "subject", "object", "about", "trained")


@dataclass(frozen=True)
class Asking:
    """One click. `kind`: fact, text or facts; `settings`: how it was asked, as plain data."""

    id: str
    kind: str
    run: str
    run_name: str
    relation: str
    subject: str
    object: str | None
    title: str
    settings: dict[str, Any]
    created_at: str


@dataclass(frozen=True)
class Column:
    """One model of an asking, named `RUN/CHECKPOINT`; `error` is a sentence once it has failed.

    Of its `questions` so many are `answered`, and of these so many `complete`: with their rank, or for good without.
    """

    asking: str
    model: str
    position: int
    run: str
    run_name: str
    checkpoint: str
    state: str
    error: str | None
    backend: str | None
    questions: int
    answered: int
    complete: int


def add_asking(
    db: Database,
    *,
    kind: str,
    run: str,
    run_name: str,
    relation: str,
    subject: str,
    object: str | None,
    title: str,
    settings: dict[str, Any],
    questions: Iterable[dict[str, Any]],
) -> str:
    """Store what is asked (questions with `QUESTION_FIELDS`), not yet of any model; returns its id."""
    asking = secrets.token_hex(6)
    with write(db):
        db.table("askings").insert(
            {
                "id": asking, "kind": kind, "run": run, "run_name": run_name, "relation": relation, "subject": subject,
                "object": object, "title": title, "settings": json.dumps(settings), "created_at": now(),
            }
        )  # fmt: skip
        db.conn.executemany(
            f"insert into asked_questions (asking, number, {', '.join(QUESTION_FIELDS)})"
            f" values ({', '.join('?' * (2 + len(QUESTION_FIELDS)))})",
            ((asking, number, *(q[f] for f in QUESTION_FIELDS)) for number, q in enumerate(questions, 1)),
        )
    return asking


def get_asking(db: Database, asking: str) -> Asking:
    """One asking. Raises KeyError when there is none of that id."""
    for row in db.query("select * from askings where id = ?", [asking]):
        return _asking(row)
    raise KeyError(asking)


def _asking(row: dict[str, Any]) -> Asking:
    fields = {k: row[k] for k in Asking.__dataclass_fields__}
    return Asking(**fields | {"settings": json.loads(row["settings"])})


def list_columns(db: Database, asking: str) -> list[Column]:
    """The models of an asking in the order they were asked, with how far each has come."""
    sql = """select c.*, (select count(*) from asked_questions q where q.asking = c.asking) as questions,
        count(a.number) as answered, coalesce(sum(a.complete), 0) as complete
        from asked_columns c left join asked_answers a on a.asking = c.asking and a.model = c.model
        where c.asking = ? group by c.model order by c.position"""
    return [Column(**{k: row[k] for k in Column.__dataclass_fields__}) for row in db.query(sql, [asking])]


def list_questions(db: Database, asking: str, limit: int = -1, offset: int = 0) -> list[dict[str, Any]]:
    """The questions of an asking: `number` and `QUESTION_FIELDS`, in order."""
    sql = f"""select number, {", ".join(QUESTION_FIELDS)} from asked_questions where asking = ?
        order by number limit ? offset ?"""
    return list(db.query(sql, [asking, limit, offset]))


def list_answers(db: Database, asking: str, models: Sequence[str] | None = None) -> list[dict[str, Any]]:
    """The answers there are, without their tokens, by number and then by model; `models`: only of these.

    Each: `model, number, answer, hit, log_probability, rank, options, complete, error`.
    """
    condition, parameters = "", list(models or ())
    if models is not None:
        condition = f" and model in ({', '.join('?' * len(parameters))})"
    sql = f"""select model, number, answer, hit, log_probability, rank, options, complete, error from asked_answers
        where asking = ?{condition} order by number, model"""
    return list(db.query(sql, [asking, *parameters]))


def full_answers(db: Database, asking: str) -> Iterator[dict[str, Any]]:
    """Every answer with its `tokens` and when it was stored (`at`), by model as they were asked, then by number."""
    sql = """select a.model, a.number, a.answer, a.hit, a.log_probability, a.rank, a.options, a.error, a.at, a.tokens
        from asked_answers a join asked_columns c on c.asking = a.asking and c.model = a.model
        where a.asking = ? order by c.position, a.number"""
    for row in db.query(sql, [asking]):
        yield row | {"tokens": json.loads(row["tokens"])}


def get_answer(db: Database, asking: str, model: str, number: int) -> dict[str, Any] | None:
    """One answer with its `tokens` (id, text, log_probability each) and its question; None if it is not there."""
    sql = f"""select a.*, {", ".join("q." + f for f in QUESTION_FIELDS)} from asked_answers a
        join asked_questions q on q.asking = a.asking and q.number = a.number
        where a.asking = ? and a.model = ? and a.number = ?"""
    for row in db.query(sql, [asking, model, number]):
        return row | {"tokens": json.loads(row["tokens"])}
    return None


def find_askings(db: Database, search: str = "", limit: int = 20, offset: int = 0) -> tuple[list[dict[str, Any]], int]:
    """Askings, newest first, and how many match: `search` looks in what was asked and in the answers.

    Each row: the asking's columns, and `questions`, `answers`, `hits`, `models`.
    """
    condition, parameters = "1", []
    if text := search.strip().lower():
        condition = """instr(lower(title || ' ' || run_name || ' ' || coalesce(object, '')), ?)
            or id in (select asking from asked_questions where instr(lower(text), ?))
            or id in (select asking from asked_answers where instr(lower(answer), ?))"""
        parameters = [text] * 3
    total = next(iter(db.query(f"select count(*) as n from askings where {condition}", parameters)))["n"]
    sql = f"""select s.*,
        (select count(*) from asked_questions q where q.asking = s.id) as questions,
        (select count(*) from asked_answers a where a.asking = s.id) as answers,
        (select count(*) from asked_answers a where a.asking = s.id and a.hit) as hits,
        (select count(*) from asked_columns c where c.asking = s.id) as models
        from (select * from askings where {condition} order by created_at desc, rowid desc limit ? offset ?) s"""
    rows = list(db.query(sql, [*parameters, limit, offset]))
    return [row | {"settings": json.loads(row["settings"])} for row in rows], total
