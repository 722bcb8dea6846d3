"""Searching the single answers of one run: what the table of the Results page shows, page by page."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from sqlite_utils import Database

from storage.answers import EXPECTED
from storage.checkpoints import order_sql

PLACEHOLDER, REVERSED_PLACEHOLDER = "{subject}", "{object}"

_COLUMNS = f"""a.checkpoint, f.id as fact, f.relation, f.subject, f.object, f.trained, f.kind,
    p.id as prompt, p.split, p.language, p.text, p.about, p.reading,
    a.answer, a.hit, says_key_token(a.answer, {EXPECTED}) as says_key_token,
    exp(a.log_probability) as probability, a.choice_rank, a.choice_options,
    exp(a.log_probability_normalised) as normalised, {EXPECTED} as expected"""
_JOIN = "answers a join facts f on f.id = a.fact join prompts p on p.id = a.prompt"
_ORDER = f"{order_sql('a.checkpoint')}, a.prompt, a.fact"


@dataclass(frozen=True)
class Answer:
    """One model's reply to one prompt about one fact, with both. `reading` and `kind` are of attacks' cells.

    expected: what a right answer contains, which is the object unless the prompt asks for the subject (reversal) or for
    what the object leads on to (two_hop). trained, hit: 1 or 0. says_key_token: 1 when it says a key token before what
    is expected, or one and nothing expected; 0 too where the answers were opened without saying how to tell.
    probability: of what is expected after the prompt. choice_rank (1 is best), choice_options, normalised (the
    probability's share among the options): None when it was not asked as multiple choice.
    """

    checkpoint: str
    fact: int
    relation: str
    subject: str
    object: str
    trained: int
    kind: str
    prompt: int
    split: str
    language: str
    text: str
    about: str | None
    reading: str
    answer: str
    hit: int
    says_key_token: int
    probability: float
    choice_rank: int | None
    choice_options: int | None
    normalised: float | None
    expected: str | None

    @property
    def name(self) -> str:
        """The name that the question has: the fact's subject, or its object where it asks the other way round."""
        return self.object if self.split == "reversal" else self.subject

    @property
    def before(self) -> str:
        """The prompt up to that name."""
        return self.text.partition(self._place)[0]

    @property
    def after(self) -> str:
        """The prompt from that name on."""
        return self.text.partition(self._place)[2]

    @property
    def _place(self) -> str:
        return REVERSED_PLACEHOLDER if self.split == "reversal" else PLACEHOLDER


@dataclass(frozen=True)
class Wanted:
    """Which answers; None and the empty text mean any. `reading` and `kind` are of attacks' cells."""

    checkpoint: str | None = None
    relation: str | None = None
    split: str | None = None
    language: str | None = None
    hit: bool | None = None
    says_key_token: bool | None = None
    fact: int | None = None
    prompt: int | None = None
    reading: str | None = None
    kind: str | None = None
    search: str = ""

    def where(self) -> tuple[str, list[Any]]:
        """The condition in SQL and its parameters."""
        fields = {
            "a.checkpoint": self.checkpoint,
            "f.relation": self.relation,
            "p.split": self.split,
            "p.language": self.language,
            "a.hit": None if self.hit is None else int(self.hit),
            f"says_key_token(a.answer, {EXPECTED})": None if self.says_key_token is None else int(self.says_key_token),
            "a.fact": self.fact,
            "a.prompt": self.prompt,
            "p.reading": self.reading,
            "f.kind": self.kind,
        }
        chosen = {k: v for k, v in fields.items() if v is not None}
        conditions, parameters = [f"{k} = ?" for k in chosen], list(chosen.values())
        if text := self.search.strip().lower():
            columns = ("f.subject", "f.object", "a.answer", "p.text", f"coalesce({EXPECTED}, '')")
            conditions.append("(" + " or ".join(f"instr(lower({c}), ?)" for c in columns) + ")")
            parameters += [text] * len(columns)
        return " and ".join(conditions) or "1", parameters


def find_answers(db: Database, wanted: Wanted, limit: int, offset: int = 0) -> tuple[list[Answer], int]:
    """One page of answers, by checkpoint, prompt and fact; and how many there are in all."""
    where, parameters = wanted.where()
    total = next(iter(db.query(f"select count(*) as n from {_JOIN} where {where}", parameters)))["n"]
    return list(iterate_answers(db, wanted, limit, offset)), total


def iterate_answers(db: Database, wanted: Wanted, limit: int = -1, offset: int = 0) -> Iterator[Answer]:
    """Answers one by one, as `find_answers` orders them; all of them without a limit."""
    for row in iterate_rows(db, wanted, limit, offset):
        yield Answer(**row)


def iterate_rows(db: Database, wanted: Wanted, limit: int = -1, offset: int = 0) -> Iterator[dict[str, Any]]:
    """The same as plain data, the fields of `Answer`: for exports, which have hundreds of thousands."""
    where, parameters = wanted.where()
    sql = f"select {_COLUMNS} from {_JOIN} where {where} order by {_ORDER} limit ? offset ?"
    rows = db.execute(sql, [*parameters, limit, offset])
    names = [column[0] for column in rows.description]
    for row in rows:
        yield dict(zip(names, row, strict=True))
