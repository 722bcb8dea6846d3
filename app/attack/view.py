"""What the Attack page shows: the attack, the step of the story, and what was chosen in it. It lives in the address."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

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
UNADDRESSED = ("rows", "missing", "unknown")


class Problem(ValueError):
    """Why something could not be done, as a sentence for the person who tried."""


class View(BaseModel):
    """The state of one page. person: a fact's id in the cells' answers; facts: how many attack facts are looked at;
    guess: the locked-in prediction; opened: the key of the number whose answers are listed; asked: a live asking;
    missing, unknown: an attack and a person that were asked for and are not there (not part of the address)."""

    model_config = ConfigDict(extra="ignore", frozen=True)
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

    def but(self, **changes: Any) -> View:
        """The same view with changes."""
        return self.model_copy(update=changes)

    def address(self) -> dict[str, str]:
        """The view as parameters of the page's address; what is as usual is left out of it."""
        usual = View()
        return {
            name: "" if value == getattr(usual, name) else str(value)
            for name, value in self.model_dump().items()
            if name not in UNADDRESSED
        }


def cleaned(view: View) -> View:
    """The view without what is no step, no id, or too much."""
    return view.but(
        attack=view.attack if view.attack.isalnum() and len(view.attack) <= 32 else "",
        step=view.step if view.step in STEPS else "memorised",
        person=view.person if 0 <= view.person < 10**9 else 0,
        facts=view.facts if 0 <= view.facts < 10**7 else -1,
        defence=view.defence[:60],
        control=view.control if view.control in CONTROLS else "no_stage1",
        guess=view.guess if 0 <= view.guess < 10**7 else -1,
        opened=view.opened[:300] if Place.read(view.opened) else "",
        which=view.which if view.which in ("hit", "miss") else "",
        rows=min(max(1, view.rows), 10_000),
        asked=view.asked if view.asked.isalnum() and len(view.asked) <= 32 else "",
        view=view.view if view.view in VIEWS else "story",
        filters=view.filters[:300],
        missing=view.missing[:60],
        unknown=view.unknown[:200],
    )


def view_of_address(asked: Mapping[str, str]) -> View:
    """The view that an address names; what cannot be read is as usual."""
    given: dict[str, Any] = {}
    for name in View.model_fields:
        if name in asked and name not in UNADDRESSED:
            text = asked[name]
            if isinstance(getattr(View(), name), int):
                if text.isdecimal() and len(text) < 10:
                    given[name] = int(text)
            else:
                given[name] = text
    return cleaned(View(**given))


def wrong_attack(asked: Mapping[str, str]) -> str:
    """What an address names as an attack without being an id, for saying that there is none."""
    text = asked.get("attack", "")
    return "" if text.isalnum() and len(text) <= 32 else text[:60]


def view_of_page(text: str | None) -> View:
    """The view that a page sends back; an empty one when it is not what the page was given."""
    try:
        return cleaned(View.model_validate_json(text or "{}"))
    except ValidationError:
        return View()


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
