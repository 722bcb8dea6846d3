"""The work on what was asked: columns and wishes for alternatives wait, are claimed for a moment, and are answered.

A claim lasts for a lease, so that what a killed asker had taken is taken again by another. Columns take turns, a few
questions each: a long one holds none of the others up.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable
from typing import Any

from sqlite_utils import Database

from storage.asked import DONE, FAILED, QUESTION_FIELDS, WAITING, Column, list_columns
from storage.database import now, write


def add_columns(db: Database, asking: str, models: Iterable[tuple[str, str, str, str]]) -> None:
    """Ask the questions of further models: (model, run, run name, checkpoint). One that failed is asked again."""
    with write(db):
        for model, run, run_name, checkpoint in models:
            db.execute(
                """insert into asked_columns (asking, model, position, run, run_name, checkpoint, requested_at)
                values (?, ?, (select count(*) from asked_columns where asking = ?), ?, ?, ?, ?)
                on conflict (asking, model) do update set state = 'waiting', error = null, served_at = 0, tries = 0
                where state = 'failed'""",
                [asking, model, asking, run, run_name, checkpoint, now()],
            )


def anything_waits(db: Database) -> bool:
    """Whether there is something to claim; takes no lock."""
    sql = """select exists (select 1 from {0} where state = 'waiting' or (state = 'asking' and lease_until < ?))"""
    tables = ("asked_columns", "asked_alternatives")
    return any(db.conn.execute(sql.format(table), [time.time()]).fetchone()[0] for table in tables)


def claim_column(db: Database, lease_seconds: float) -> Column | None:
    """Take the column that was served the longest ago; None when nothing waits. Atomic, so that many may claim.

    A column whose asker died (its lease lapsed) is claimed too. The columns take turns: a long one holds none up.
    """
    clock = time.time()
    with write(db):
        rows = list(
            db.query(
                """update asked_columns set state = 'asking', lease_until = ?, served_at = ?
                where rowid = (select rowid from asked_columns
                    where state = 'waiting' or (state = 'asking' and lease_until < ?)
                    order by served_at, rowid limit 1)
                returning asking, model""",
                [clock + lease_seconds, clock, clock],
            )
        )
    if not rows:
        return None
    return next(c for c in list_columns(db, rows[0]["asking"]) if c.model == rows[0]["model"])


def unanswered(db: Database, asking: str, model: str, limit: int) -> list[dict[str, Any]]:
    """The first questions of the column that have no complete answer yet."""
    sql = f"""select number, {", ".join(QUESTION_FIELDS)} from asked_questions q where asking = ? and not exists
        (select 1 from asked_answers a where a.asking = q.asking and a.model = ? and a.number = q.number and a.complete)
        order by number limit ?"""
    return list(db.query(sql, [asking, model, limit]))


def store_asked(db: Database, asking: str, model: str, answers: Iterable[dict[str, Any]]) -> None:
    """Store answers of a claimed column, in place of earlier versions of them.

    An answer: `number, answer, hit, log_probability, rank, options, tokens, complete, error` (an error in place of an
    answer is one sentence). Those that are not `complete` are shown, but count as unanswered. Answers of an asking
    that is gone meanwhile are dropped.
    """
    with write(db):
        if not list(db.query("select 1 from asked_columns where asking = ? and model = ?", [asking, model])):
            return
        db.conn.executemany(
            """insert or replace into asked_answers (asking, model, number, answer, hit, log_probability, rank, options,
                tokens, complete, error, at) values (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)""",
            (
                (
                    asking, model, a["number"], a["answer"], a["hit"], a["log_probability"], a["rank"], a["options"],
                    json.dumps(a["tokens"], ensure_ascii=False), int(a["complete"]), a["error"], now(),
                )
                for a in answers
            ),
        )  # fmt: skip


def release_column(db: Database, asking: str, model: str, backend: str) -> None:
    """Give a claimed column back: to wait for its next turn, or done when nothing is left to ask."""
    with write(db):
        left = bool(unanswered(db, asking, model, 1))
        db.execute(
            """update asked_columns set state = ?, backend = ?, error = null, lease_until = null, served_at = ?,
                finished_at = ?, tries = 0 where asking = ? and model = ?""",
            [WAITING if left else DONE, backend, time.time(), None if left else now(), asking, model],
        )


def fail_column(db: Database, asking: str, model: str, error: str) -> None:
    """End a column with a sentence; what it has answered stays."""
    with write(db):
        db.execute(
            "update asked_columns set state = 'failed', error = ?, lease_until = null, finished_at = ?"
            " where asking = ? and model = ?",
            [error, now(), asking, model],
        )


def give_back_column(db: Database, asking: str, model: str, *, counts: bool = True) -> int:
    """Let a claimed column wait again, since no server answers; returns how often in a row that was counted."""
    with write(db):
        rows = db.query(
            "update asked_columns set state = 'waiting', lease_until = null, served_at = ?, tries = tries + ?"
            " where asking = ? and model = ? and state = 'asking' returning tries",
            [time.time(), int(counts), asking, model],
        )
        return next((row["tries"] for row in list(rows)), 0)


def renew_column(db: Database, asking: str, model: str, lease_seconds: float) -> None:
    """Push on the lease of a claimed column, while its server starts."""
    with write(db):
        db.execute(
            "update asked_columns set lease_until = ? where asking = ? and model = ? and state = 'asking'",
            [time.time() + lease_seconds, asking, model],
        )


def forget_errors(db: Database, asking: str, model: str) -> None:
    """Ask again what failed in a column."""
    with write(db):
        db.execute("delete from asked_answers where asking = ? and model = ? and error is not null", [asking, model])
        db.execute(
            "update asked_columns set state = 'waiting', error = null, served_at = 0, tries = 0"
            " where asking = ? and model = ? and state in ('done', 'failed')",
            [asking, model],
        )


def want_alternatives(db: Database, asking: str, model: str, number: int, place: int) -> None:
    """Ask for the next-token alternatives at a place of an answer (0 is its first token), once."""
    with write(db):
        db.execute(
            """insert into asked_alternatives (asking, model, number, place) values (?, ?, ?, ?)
            on conflict do update set state = 'waiting', error = null where state = 'failed'""",
            [asking, model, number, place],
        )


def claim_alternatives(db: Database, lease_seconds: float) -> dict[str, Any] | None:
    """Take one wish for alternatives: `asking, model, number, place`; None when there is none."""
    clock = time.time()
    with write(db):
        rows = db.query(
            """update asked_alternatives set state = 'asking', lease_until = ? where rowid = (
                select rowid from asked_alternatives
                where state = 'waiting' or (state = 'asking' and lease_until < ?) order by rowid limit 1)
            returning asking, model, number, place""",
            [clock + lease_seconds, clock],
        )
        return next(iter(list(rows)), None)


def give_back_alternatives(db: Database, wish: dict[str, Any]) -> None:
    """Let a claimed wish wait again, since no server answers."""
    with write(db):
        db.execute(
            "update asked_alternatives set state = 'waiting', lease_until = null"
            " where asking = ? and model = ? and number = ? and place = ? and state = 'asking'",
            [wish["asking"], wish["model"], wish["number"], wish["place"]],
        )


def store_alternatives(
    db: Database, wish: dict[str, Any], alternatives: list[dict[str, Any]], error: str | None = None
) -> None:
    """Store the alternatives of a wish, most probable first (`id, text, log_probability`), or why there are none."""
    with write(db):
        db.execute(
            """update asked_alternatives set state = ?, alternatives = ?, error = ?
            where asking = ? and model = ? and number = ? and place = ?""",
            [
                FAILED if error else DONE, json.dumps(alternatives, ensure_ascii=False), error,
                wish["asking"], wish["model"], wish["number"], wish["place"],
            ],
        )  # fmt: skip


def get_alternatives(db: Database, asking: str, model: str, number: int, place: int) -> dict[str, Any] | None:
    """`state, alternatives, error` at a place of an answer; None when nobody asked for them."""
    sql = """select state, alternatives, error from asked_alternatives
        where asking = ? and model = ? and number = ? and place = ?"""
    for row in db.query(sql, [asking, model, number, place]):
        return row | {"alternatives": json.loads(row["alternatives"])}
    return None
