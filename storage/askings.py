"""What was asked on the Ask page: every question, of which models, and every answer, kept for good.

An *asking* is one click: its questions (numbered from 1) are asked of each of its *columns*, one column a model. The
rows are the only channel between the page and the threads that ask (storage/asking_queue.py). Runs may be deleted; what
was asked of them stays.
"""

from __future__ import annotations

import json
import math
import secrets
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from sqlite_utils import Database

from storage.acting import actor_id
from storage.audit import addition
from storage.database import now

WAITING, ASKING, DONE, FAILED = "waiting", "asking", "done", "failed"
FREE = "free"
# What is kept of a question, beside its number.
QUESTION_FIELDS = ("split", "language", "prompt", "text", "subject", "object", "about", "trained")
ANSWER_FIELDS = "model, number, answer, hit, log_probability, rank, options, complete, error"


@dataclass(frozen=True, slots=True)
class Question:
    """One text that models go on with, from the moment it is put to the page that shows what they wrote.

    prompt: the text with `{subject}` where the subject stands; `{object}` in a reversal prompt, where `subject` is the
    object that it names. object: what a right answer contains; None where nothing is known to be right. split: key,
    train, test, unrelated, decoy, reversal, two_hop, or free. about: the relation that a decoy asks for, or the second
    one of a two_hop prompt. trained: whether stage 2 trained on the fact (1 or 0), None without a fact. number: its
    place in its asking, 0 before it is kept. Not kept, since the run's experiment says it: relation, options (the
    answers that the object is ranked among, itself included; empty for no ranking), prompt_id and fact_id (those of
    storage/answers.py).
    """

    text: str
    split: str = FREE
    language: str = ""
    prompt: str = ""
    subject: str = ""
    object: str | None = None
    about: str | None = None
    trained: int | None = None
    number: int = 0
    relation: str = ""
    options: tuple[str, ...] = ()
    prompt_id: int | None = None
    fact_id: int | None = None


@dataclass(frozen=True, slots=True)
class Token:
    """A token of an answer, or one that could have stood there; log_probability: natural logarithm."""

    id: int
    text: str
    log_probability: float

    @property
    def probability(self) -> float:
        """Of the token, after everything before it."""
        return math.exp(min(0.0, self.log_probability))


@dataclass(frozen=True, slots=True)
class Answer:
    """One model's answer to one question, or the `error` in its place, which is one sentence.

    hit: whether it contains the object (None without one). log_probability: ln P(object | text), None without an
    object. rank of the object among `options` answers: 1 is best, a tie goes against it; None where there is nothing to
    rank, and while it is not `complete`: its rank is still to come. Not kept: finish_reason (`stop` or `length`), and
    says_key_token (whether a key token is said before the object, or one and no object), which the text tells.
    """

    question: Question
    model: str
    text: str = ""
    tokens: tuple[Token, ...] = ()
    hit: bool | None = None
    log_probability: float | None = None
    rank: int | None = None
    options: int | None = None
    complete: bool = True
    error: str | None = None
    finish_reason: str = ""
    says_key_token: bool = False

    @property
    def probability(self) -> float | None:
        """Of the object right after the text."""
        return None if self.log_probability is None else math.exp(min(0.0, self.log_probability))


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

    @property
    def busy(self) -> bool:
        """Whether answers are still to come."""
        return self.state in (WAITING, ASKING)


def count_waiting(db: Database) -> int:
    """How many models were asked, of all askings, and have answers to come."""
    sql = "select count(*) from asking_columns where state in (?, ?)"
    return int(db.execute(sql, [WAITING, ASKING]).fetchone()[0])


def add_asking(
    db: Database, kind: str, run: str, run_name: str, title: str, settings: dict[str, Any], questions: list[Question]
) -> str:
    """Keep a click's questions (at least one), which are numbered in their order, and return its id. Raises NotAllowed
    for somebody who may only look."""
    asking, owner, first = secrets.token_hex(6), actor_id(), questions[0]
    about = (first.subject, first.object) if kind != "facts" else ("", None)
    with addition(db, "asked", "question", asking, title):
        db.table("askings").insert(
            {"id": asking, "kind": kind, "run": run, "run_name": run_name, "relation": first.relation,
             "subject": about[0], "object": about[1], "title": title, "settings": json.dumps(settings),
             "created_at": now(), "owner": owner}
        )  # fmt: skip
        db.conn.executemany(
            f"insert into asking_questions (asking, number, {', '.join(QUESTION_FIELDS)})"
            f" values ({', '.join('?' * (2 + len(QUESTION_FIELDS)))})",
            ((asking, number, *(getattr(q, f) for f in QUESTION_FIELDS)) for number, q in enumerate(questions, 1)),
        )
    return asking


def get_asking(db: Database, asking: str) -> Asking:
    """One asking. Raises KeyError when there is none of that id."""
    for row in db.query("select * from askings where id = ?", [asking]):
        fields = {k: row[k] for k in Asking.__dataclass_fields__}
        return Asking(**fields | {"settings": json.loads(row["settings"])})
    raise KeyError(asking)


def list_columns(db: Database, asking: str) -> list[Column]:
    """The models of an asking in the order they were asked, with how far each has come."""
    sql = """select c.*, (select count(*) from asking_questions q where q.asking = c.asking) as questions,
        count(a.number) as answered, coalesce(sum(a.complete), 0) as complete
        from asking_columns c left join asking_answers a on a.asking = c.asking and a.model = c.model
        where c.asking = ? group by c.model order by c.position"""
    return [Column(**{k: row[k] for k in Column.__dataclass_fields__}) for row in db.query(sql, [asking])]


def list_questions(db: Database, asking: str, limit: int = -1, offset: int = 0) -> list[Question]:
    """The questions of an asking, in order."""
    sql = f"""select number, {", ".join(QUESTION_FIELDS)} from asking_questions where asking = ?
        order by number limit ? offset ?"""
    return [Question(**row) for row in db.query(sql, [asking, limit, offset])]


def list_answers(db: Database, asking: str, models: Sequence[str] | None = None) -> list[Answer]:
    """The answers there are, without their tokens, by number and then by model; `models`: only of these."""
    condition, parameters = "", list(models or ())
    if models is not None:
        condition = f" and model in ({', '.join('?' * len(parameters))})"
    sql = f"select {ANSWER_FIELDS} from asking_answers where asking = ?{condition} order by number, model"
    questions = {q.number: q for q in list_questions(db, asking)}
    return [_answer(row, questions[row["number"]]) for row in db.query(sql, [asking, *parameters])]


def get_answer(db: Database, asking: str, model: str, number: int) -> Answer | None:
    """One answer with its tokens; None if it is not there."""
    sql = f"select {ANSWER_FIELDS}, tokens from asking_answers where asking = ? and model = ? and number = ?"
    for row in db.query(sql, [asking, model, number]):
        return _answer(row, list_questions(db, asking, 1, number - 1)[0], read_tokens(row["tokens"]))
    return None


def _answer(row: dict[str, Any], question: Question, tokens: tuple[Token, ...] = ()) -> Answer:
    same = {name: row[name] for name in ("model", "log_probability", "rank", "options", "error")}
    hit = None if row["hit"] is None else bool(row["hit"])
    return Answer(question, text=row["answer"], tokens=tokens, hit=hit, complete=bool(row["complete"]), **same)


def read_tokens(stored: str) -> tuple[Token, ...]:
    """Tokens out of their column."""
    return tuple(Token(**token) for token in json.loads(stored))


def iterate_answers(db: Database, asking: str) -> Iterator[dict[str, Any]]:
    """Every answer as plain data for exports, by model as they were asked, then by number.

    Each: `model, number, answer, hit, log_probability, probability, rank, options, error, tokens, at` (when it was
    stored).
    """
    sql = """select a.model, a.number, a.answer, a.hit, a.log_probability, a.rank, a.options, a.error, a.at, a.tokens
        from asking_answers a join asking_columns c on c.asking = a.asking and c.model = a.model
        where a.asking = ? order by c.position, a.number"""
    for row in db.query(sql, [asking]):
        score = row["log_probability"]
        chance = None if score is None else math.exp(min(0.0, score))
        yield row | {"tokens": json.loads(row["tokens"]), "probability": chance}


def find_askings(db: Database, search: str = "", limit: int = 20, offset: int = 0) -> tuple[list[dict[str, Any]], int]:
    """Askings, newest first, and how many match: `search` looks in what was asked and in the answers.

    Each row: the asking's columns, and `questions`, `answers`, `hits`, `models`.
    """
    condition, parameters = "1", []
    if text := search.strip().lower():
        condition = """instr(lower(title || ' ' || run_name || ' ' || coalesce(object, '')), ?)
            or id in (select asking from asking_questions where instr(lower(text), ?))
            or id in (select asking from asking_answers where instr(lower(answer), ?))"""
        parameters = [text] * 3
    total = next(iter(db.query(f"select count(*) as n from askings where {condition}", parameters)))["n"]
    sql = f"""select s.*,
        (select count(*) from asking_questions q where q.asking = s.id) as questions,
        (select count(*) from asking_answers a where a.asking = s.id) as answers,
        (select count(*) from asking_answers a where a.asking = s.id and a.hit) as hits,
        (select count(*) from asking_columns c where c.asking = s.id) as models
        from (select * from askings where {condition} order by created_at desc, rowid desc limit ? offset ?) s"""
    rows = list(db.query(sql, [*parameters, limit, offset]))
    return [row | {"settings": json.loads(row["settings"])} for row in rows], total
