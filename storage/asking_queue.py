"""The work on what was asked: columns and wishes for alternatives wait, are claimed for a moment, and are answered.

A claim lasts for a lease, so that what a killed asker had taken is taken again by another. Columns take turns, a few
questions each: a long one holds none of the others up.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict, astuple, dataclass
from typing import Any

from sqlite_utils import Database

from storage import askings
from storage.askings import QUESTION_FIELDS, Answer, Column, Question, Token, list_columns, read_tokens
from storage.database import now, write


@dataclass(frozen=True, slots=True)
class TokenPlace:
    """A token of a kept answer, for looking at what else might have stood there. `place`: 0 is the first token."""

    asking: str
    model: str
    number: int
    place: int


@dataclass(frozen=True, slots=True)
class Alternatives:
    """What might have stood at a place, the most probable first, or the `error` that came of looking."""

    state: str
    tokens: tuple[Token, ...]
    error: str | None


@dataclass(frozen=True)
class _Queue:
    """Rows of a table that wait, in `order`, and are claimed by their `key`. `stamp`: the column that notes turns."""

    table: str
    key: tuple[str, ...]
    order: str
    stamp: str = ""

    def waits(self, db: Database) -> bool:
        """Whether there is something to claim; takes no lock."""
        sql = f"select exists (select 1 from {self.table} where {_CLAIMABLE})"
        return bool(db.conn.execute(sql, [time.time()]).fetchone()[0])

    def claim(self, db: Database, lease_seconds: float) -> dict[str, Any] | None:
        """The key of the row that was taken; None when nothing waits. Atomic, so that many may claim."""
        clock = time.time()
        # Later than every other, also after the clock was set back.
        latest = f"(select coalesce(max({self.stamp}), 0) + 0.001 from {self.table})"
        stamp = f", {self.stamp} = max({clock!r}, {latest})" if self.stamp else ""
        with write(db):
            rows = db.query(
                f"""update {self.table} set state = 'asking', lease_until = ?{stamp} where rowid =
                    (select rowid from {self.table} where {_CLAIMABLE} order by {self.order} limit 1)
                    returning {", ".join(self.key)}""",
                [clock + lease_seconds, clock],
            )
            return next(iter(list(rows)), None)

    def change(self, db: Database, key: Sequence[Any], changes: str, values: Sequence[Any], *states: str) -> int:
        """Set columns (as SQL) of one row, only in one of these states if some are given; returns how many changed."""
        only = f" and state in ({', '.join('?' * len(states))})" if states else ""
        with write(db):
            sql = f"update {self.table} set {changes} where {' and '.join(f'{name} = ?' for name in self.key)}{only}"
            return db.execute(sql, [*values, *key, *states]).rowcount


# A claim whose lease lapsed was that of an asker that died. None is for an hour: the clock was set back since.
_CLAIMABLE = "(state = 'waiting' or (state = 'asking' and abs(lease_until - 1800 - ?) > 1800))"
# The columns take turns: the one that was served the longest ago comes first.
_COLUMNS = _Queue("asking_columns", ("asking", "model"), "served_at, rowid", "served_at")
# Those that were given back come behind those that were not.
_PLACES = _Queue("asking_alternatives", ("asking", "model", "number", "place"), "coalesce(lease_until, 0), rowid")


def add_column(db: Database, asking: str, run: str, run_name: str, checkpoint: str) -> None:
    """Ask the questions of a further model. One that failed is asked again; any other stays as it is."""
    with write(db):
        db.execute(
            """insert into asking_columns (asking, model, position, run, run_name, checkpoint, requested_at)
            values (?, ?, (select count(*) from asking_columns where asking = ?), ?, ?, ?, ?)
            on conflict (asking, model) do update set state = 'waiting', error = null, served_at = 0, tries = 0
            where state = 'failed'""",
            [asking, f"{run}/{checkpoint}", asking, run, run_name, checkpoint, now()],
        )


def anything_waits(db: Database) -> bool:
    """Whether there is something to claim; takes no lock."""
    return _COLUMNS.waits(db) or _PLACES.waits(db)


def claim_column(db: Database, lease_seconds: float) -> Column | None:
    """Take the column that was served the longest ago; None when nothing waits."""
    claimed = _COLUMNS.claim(db, lease_seconds)
    if claimed is None:
        return None
    return next(c for c in list_columns(db, claimed["asking"]) if c.model == claimed["model"])


def unanswered(db: Database, asking: str, model: str, limit: int) -> list[Question]:
    """The first questions of the column that have no complete answer yet."""
    sql = f"""select number, {", ".join(QUESTION_FIELDS)} from asking_questions q where asking = ? and not exists
        (select 1 from asking_answers a
            where a.asking = q.asking and a.model = ? and a.number = q.number and a.complete)
        order by number limit ?"""
    return [Question(**row) for row in db.query(sql, [asking, model, limit])]


def store_answers(db: Database, asking: str, model: str, answers: Iterable[Answer]) -> None:
    """Store answers of a claimed column, in place of earlier versions of them.

    Those that are not `complete` are shown, but count as unanswered. Answers of an asking that is gone meanwhile are
    dropped.
    """
    with write(db):
        if not list(db.query("select 1 from asking_columns where asking = ? and model = ?", [asking, model])):
            return
        db.conn.executemany(
            """insert or replace into asking_answers (asking, model, number, answer, hit, log_probability, rank,
                options, tokens, complete, error, at) values (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)""",
            (
                (
                    asking, model, a.question.number, a.text, a.hit, _finite(a.log_probability), a.rank, a.options,
                    _tokens(a.tokens), a.complete, a.error, now(),
                )
                for a in answers
            ),
        )  # fmt: skip


def _finite(log_probability: float | None) -> float | None:
    return None if log_probability is None or log_probability < -1e300 else log_probability


def _tokens(tokens: Iterable[Token]) -> str:
    return json.dumps([asdict(token) for token in tokens], ensure_ascii=False)


def release_column(db: Database, asking: str, model: str, backend: str) -> None:
    """Give a claimed column back: to wait for its next turn, or done when nothing is left to ask."""
    with write(db):
        left = bool(unanswered(db, asking, model, 1))
        _COLUMNS.change(
            db, (asking, model),
            "state = ?, backend = ?, error = null, lease_until = null, served_at = ?, finished_at = ?, tries = 0",
            [askings.WAITING if left else askings.DONE, backend, time.time(), None if left else now()],
        )  # fmt: skip


def fail_column(db: Database, asking: str, model: str, error: str) -> None:
    """End a column with a sentence; what it has answered stays."""
    changes = "state = 'failed', error = ?, lease_until = null, finished_at = ?"
    _COLUMNS.change(db, (asking, model), changes, [error, now()])


def give_back_column(db: Database, asking: str, model: str, *, counts: bool = True) -> int:
    """Let a claimed column wait again, since no server answers; returns how often in a row that was counted."""
    changes = "state = 'waiting', lease_until = null, served_at = ?, tries = tries + ?"
    with write(db):
        if not _COLUMNS.change(db, (asking, model), changes, [time.time(), counts], askings.ASKING):
            return 0
        rows = db.query("select tries from asking_columns where asking = ? and model = ?", [asking, model])
        return next(iter(rows))["tries"]


def renew_column(db: Database, asking: str, model: str, lease_seconds: float) -> None:
    """Push on the lease of a claimed column, while its server starts."""
    _COLUMNS.change(db, (asking, model), "lease_until = ?", [time.time() + lease_seconds], askings.ASKING)


def forget_errors(db: Database, asking: str, model: str) -> None:
    """Ask again what failed in a column."""
    with write(db):
        db.execute("delete from asking_answers where asking = ? and model = ? and error is not null", [asking, model])
        changes = "state = 'waiting', error = null, served_at = 0, tries = 0"
        _COLUMNS.change(db, (asking, model), changes, (), askings.DONE, askings.FAILED)


def want_alternatives(db: Database, place: TokenPlace) -> None:
    """Ask for the next-token alternatives at a place of an answer, once."""
    with write(db):
        db.execute(
            """insert into asking_alternatives (asking, model, number, place) values (?, ?, ?, ?)
            on conflict do update set state = 'waiting', error = null, lease_until = null where state = 'failed'""",
            astuple(place),
        )


def claim_alternatives(db: Database, lease_seconds: float) -> TokenPlace | None:
    """Take one place that alternatives are wanted for; None when there is none."""
    claimed = _PLACES.claim(db, lease_seconds)
    return TokenPlace(**claimed) if claimed else None


def give_back_alternatives(db: Database, place: TokenPlace) -> None:
    """Let a claimed place wait again, since no server answers."""
    _PLACES.change(db, astuple(place), "state = 'waiting', lease_until = ?", [time.time()], askings.ASKING)


def store_alternatives(db: Database, place: TokenPlace, tokens: Iterable[Token], error: str | None = None) -> None:
    """Store the alternatives at a place, most probable first, or why there are none."""
    changes = "state = ?, alternatives = ?, error = ?"
    _PLACES.change(db, astuple(place), changes, [askings.FAILED if error else askings.DONE, _tokens(tokens), error])


def get_alternatives(db: Database, place: TokenPlace) -> Alternatives | None:
    """The alternatives at a place of an answer; None when nobody asked for them."""
    sql = """select state, alternatives, error from asking_alternatives
        where asking = ? and model = ? and number = ? and place = ?"""
    for row in db.query(sql, astuple(place)):
        return Alternatives(row["state"], read_tokens(row["alternatives"]), row["error"])
    return None
