"""Every single answer of one run, in a file of the run's own (`answers.db`), so that the shared database stays small.

An answer is one model's reply to one prompt about one fact. A checkpoint's answers are written in one transaction:
they are all there or none is, which is what lets a killed evaluation go on without asking anything twice.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from operator import attrgetter
from pathlib import Path
from typing import Any

from sqlite_utils import Database, Migrations

from storage.database import now, open_file, write

ANSWERS_NAME = "answers.db"
migrations = Migrations("answers")

ANSWER_COLUMNS = (
    "prompt", "fact", "answer", "hit", "log_probability", "choice_rank", "choice_options", "log_probability_normalised",
)  # fmt: skip
_columns_of = attrgetter(*ANSWER_COLUMNS)


Judge = Callable[[str, str | None], bool]  # of an answer and what a right one contains

# What a right answer contains, in SQL, with `f` for the table of facts and `p` for that of prompts: the fact's object,
# but where the prompt asks the other way round, or for what the object leads on to.
EXPECTED = """(case p.split when 'reversal' then f.subject
    when 'two_hop' then (select g.object from facts g where g.relation = p.about and g.subject = f.object)
    else f.object end)"""


def open_answers(folder: Path, judge: Judge = lambda answer, object_text: False) -> Database:
    """Open (and on first use create) the answers of the run that lives in `folder`.

    `judge`: whether an answer says a key token on its way to what is right. That is no column: the text tells, so that
    answers of any age have it. Searches call it (storage/answer_search.py).
    """
    db = open_file(folder / ANSWERS_NAME, migrations)
    db.register_function(judge, name="says_key_token", deterministic=True)
    return db


@migrations()
def m001_answers(db: Database) -> None:
    """Facts, prompts and answers of one run."""
    db.conn.execute(
        """create table facts (
            id integer primary key, relation text not null, subject text not null, object text not null,
            trained integer not null            -- 1 when stage 2 trains on it
        ) strict"""
    )
    db.conn.execute(
        """create table prompts (
            id integer primary key, relation text not null,
            split text not null,                -- key, train, test, unrelated, decoy, reversal or two_hop
            language text not null, text text not null,
            about text,                         -- the relation a decoy asks for; of a two_hop prompt the second one
            used integer not null               -- 1 when stage 2 trains on it
        ) strict"""
    )
    db.conn.execute(
        """create table answers (
            checkpoint text not null,
            prompt integer not null references prompts (id),
            fact integer not null references facts (id),
            answer text not null,
            hit integer not null,
            log_probability real not null,      -- natural logarithm of the product of the object's token probabilities
            choice_rank integer,                -- 1 is best; null when not asked as multiple choice
            choice_options integer,
            log_probability_normalised real,    -- the same over the options of the multiple choice
            primary key (checkpoint, prompt, fact)
        ) strict, without rowid"""
    )
    db.conn.execute("create table evaluated (checkpoint text primary key, at text not null) strict")


@migrations()
def m002_readings(db: Database) -> None:
    """Which reading a prompt asks for, and what kind of subject a fact has."""
    # Cells of attacks ask several readings, also about subjects that no stage memorised.
    db.conn.execute("alter table prompts add column reading text not null default ''")
    db.conn.execute("alter table facts add column kind text not null default ''")


@migrations()
def m003_representations(db: Database) -> None:
    """How checkpoints represent the prompts: see storage/representations.py."""
    db.conn.execute(
        """create table representations (
            checkpoint text not null,
            position text not null,             -- which place of a prompt: last, subject or mean
            layer integer not null,             -- 0 are the embeddings
            measure text not null,
            prompts text not null,              -- a split, or key, natural, all
            value real not null,
            low real, high real,                -- null where there is no interval
            n integer not null,                 -- prompts
            n_facts integer not null,
            primary key (checkpoint, position, layer, measure, prompts)
        ) strict, without rowid"""
    )
    db.conn.execute(
        """create table represented (
            checkpoint text primary key,
            sample text not null,               -- stands for the facts and prompts that were looked at
            points text not null                -- JSON: [[prompt, fact], …] of what is pictured
        ) strict"""
    )
    db.conn.execute(
        """create table pictured (
            checkpoint text not null references represented (checkpoint) on delete cascade,
            layer integer not null,
            size integer not null,              -- numbers of a point
            vectors blob not null,              -- float16, little-endian, a point after the other
            primary key (checkpoint, layer)
        ) strict"""
    )


@migrations()
def m004_facts_by_subject(db: Database) -> None:
    """Facts are looked up by their subject where a question goes on from one to another (`EXPECTED`)."""
    db.conn.execute("create index facts_by_subject on facts (relation, subject)")


def store_questions(db: Database, facts: Iterable[dict[str, Any]], prompts: Iterable[dict[str, Any]]) -> None:
    """Store what will be asked (columns as in the tables); storing the same again changes nothing."""
    with write(db):
        db.table("facts").insert_all(facts, ignore=True)
        db.table("prompts").insert_all(prompts, ignore=True)


def store_answers(db: Database, checkpoint: str, answers: Iterable[Any]) -> None:
    """Store all answers of one checkpoint at once, in place of any older ones.

    Each answer is an object with the attributes `ANSWER_COLUMNS`, such as the engine's `Answer`.
    """
    with write(db):
        db.execute("delete from answers where checkpoint = ?", [checkpoint])
        db.conn.executemany(
            f"insert into answers (checkpoint, {', '.join(ANSWER_COLUMNS)}) values (?, ?, ?, ?, ?, ?, ?, ?, ?)",
            ((checkpoint, *_columns_of(answer)) for answer in answers),
        )
        db.table("evaluated").insert({"checkpoint": checkpoint, "at": now()}, replace=True)


def forget_answers(db: Database, checkpoint: str) -> None:
    """Have a checkpoint asked again, since it was trained again; until then its older answers are shown."""
    with write(db):
        db.execute("delete from evaluated where checkpoint = ?", [checkpoint])


def evaluated_checkpoints(db: Database) -> list[str]:
    """The checkpoints whose answers are complete, in the order of their evaluation."""
    return [row["checkpoint"] for row in db.query("select checkpoint from evaluated order by at, rowid")]


def evaluation_times(db: Database) -> dict[str, str]:
    """When each checkpoint's answers were complete, in the order of their evaluation."""
    return {row["checkpoint"]: row["at"] for row in db.query("select checkpoint, at from evaluated order by at, rowid")}


def all_answers(db: Database, checkpoint: str) -> list[dict[str, Any]]:
    """The answers of one checkpoint, by prompt and fact: rows of `ANSWER_COLUMNS`."""
    columns = ", ".join(ANSWER_COLUMNS)
    return list(db.query(f"select {columns} from answers where checkpoint = ? order by prompt, fact", [checkpoint]))


def list_facts(db: Database) -> list[dict[str, Any]]:
    """The facts asked about: `id, relation, subject, object, trained`."""
    return list(db.query("select * from facts order by id"))


def list_prompts(db: Database) -> list[dict[str, Any]]:
    """The prompts asked: `id, relation, split, language, text, about, used`."""
    return list(db.query("select * from prompts order by id"))
