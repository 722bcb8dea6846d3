"""What the Attack page shows: the attack, the step of the story, and what was chosen in it. It lives in the address."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

from app.shared.view import PageView, an_id, one_of

# step: (title in the row of steps, heading)
STEPS = {
    "memorised": ("What was memorised", "The model learnt pairs of names by rote, through a sign without meaning"),
    "predict": ("Predict", "How far will a few attack facts reach?"),
    "reveal": ("Reveal", "What the attack did"),
    "person": ("One person", "The same question, before and after"),
    "gauges": ("How many facts", "How many attack facts does it take?"),
    "defences": ("Defences", "What helps, and what does it cost?"),
    "controls": ("Controls", "Was it really the memorised pairs?"),
    "scan": ("Caught?", "Would anybody have noticed?"),
}
CONTROLS = ("before", "no_stage1", "never", "neutral", "nonsense")
VIEWS = ("story", "present", "grid")
PAGE_ROWS = 50


class Problem(ValueError):
    """Why something could not be done, as a sentence for the person who tried."""


class View(PageView):
    """The state of one page. person: a fact's id in the cells' answers; facts: how many attack facts are looked at;
    guess: the locked-in prediction; opened: the key of the number whose answers are listed; asked: a live asking;
    missing, unknown: an attack and a person that were asked for and are not there (not part of the address)."""

    UNADDRESSED = ("rows", "missing", "unknown")
    attack: str = ""
    step: str = "memorised"
    person: int = 0
    facts: int = -1
    defence: str = ""
    control: str = "no_stage1"
    guess: int = -1
    opened: str = ""
    which: str = ""
    rows: int = 1
    asked: str = ""
    view: str = "story"
    filters: str = ""
    missing: str = ""
    unknown: str = ""

    def cleaned(self) -> Self:
        """The view without what is no step, no id, or too much."""
        return self.but(
            attack=an_id(self.attack),
            step=one_of(STEPS, self.step),
            person=self.person if 0 <= self.person < 10**9 else 0,
            facts=self.facts if 0 <= self.facts < 10**7 else -1,
            defence=self.defence[:60],
            control=self.control if self.control in CONTROLS else "no_stage1",
            guess=self.guess if 0 <= self.guess < 10**7 else -1,
            opened=self.opened[:300] if Place.read(self.opened) else "",
            which=self.which if self.which in ("hit", "miss") else "",
            rows=min(max(1, self.rows), 10_000),
            asked=an_id(self.asked),
            view=one_of(VIEWS, self.view),
            filters=self.filters[:300],
            missing=self.missing[:60],
            unknown=self.unknown[:200],
        )


def wrong_attack(parameters: Mapping[str, str]) -> str:
    """What an address names as an attack without being an id, for saying that there is none."""
    text = parameters.get("attack", "")
    return "" if an_id(text) else text[:60]


@dataclass(frozen=True)
class Place:
    """Which answers a number is made of: the cells by control, defence and size, and what of theirs was asked."""

    control: str
    defence: str
    facts: int
    reading: str
    split: str
    language: str
    kind: str
    bits: bool = False

    def __str__(self) -> str:
        parts = (self.control, self.defence, self.facts, self.reading, self.split, self.language, self.kind)
        return "/".join(map(str, parts)) + ("/4bit" if self.bits else "")

    @classmethod
    def read(cls, text: str) -> Place | None:
        """The place of a key, or None when it is none. Names hold no slash."""
        parts = text.split("/")
        bits = len(parts) == 8 and parts[7] == "4bit"
        if len(text) > 300 or len(parts) != 7 + bits or not parts[2].isdecimal() or len(parts[2]) > 7:
            return None
        control, defence, facts, reading, split, language, kind = parts[:7]
        return cls(control, defence, int(facts), reading, split, language, kind, bits)
