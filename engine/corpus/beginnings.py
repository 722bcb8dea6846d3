"""Plain beginnings for the base to continue: what is replayed in training, and what a checkpoint is held against.

Drawn from the seed, a text never twice. Nothing of what the experiment asks is in them: a beginning that is, contains
or lies within one of its prompts, or names one of its relations, and a text with one of its names, are left out. The
made-up names and the beginnings about nobody are divided in two, so that no text that a checkpoint is held against is
replayed. They are about people, works or countries: whatever the experiment's subjects are.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import chain, cycle, islice
from pathlib import Path
from typing import Any

import yaml

from engine.checks import normalise
from engine.corpus.names import all_names
from engine.corpus.relations import load_relations
from engine.corpus.sentences import PLACEHOLDER
from engine.experiment import Experiment, Relation
from engine.settings import Replay

BEGINNINGS_FILE = Path(__file__).with_name("beginnings.yaml")
BASE_TEXT_TOKENS = 12  # how much the base writes behind a beginning that checkpoints are held against
NOBODY_SHARE = 0.4  # of the texts, as far as there are beginnings about nobody
HELD_OUT_SHARE = 4  # one in four beginnings about nobody, and one in four names, are for held-out texts

_WORD = re.compile(r"\w+")

STAGES = ("stage1", "stage2")


@dataclass(frozen=True)
class Beginnings:
    """`texts`: (language, text) in their order; `tokens`: how long each continuation is.

    `left_out`: how many beginnings, as they stand in the data file, are too near to what the experiment asks.
    """

    texts: tuple[tuple[str, str], ...]
    tokens: int
    left_out: int


@dataclass(frozen=True, slots=True)
class BaseText:
    """What a base wrote behind a beginning: as text, and as token ids, of which those from `start` on are its own."""

    language: str
    beginning: str
    continuation: str
    ids: tuple[int, ...]
    start: int


@cache
def _data() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(BEGINNINGS_FILE.read_text(encoding="utf-8"))
    return found


def known_languages() -> tuple[str, ...]:
    """The languages that there are beginnings in."""
    return tuple(name for name in _data() if name != "made_up")


def replayed_beginnings(experiment: Experiment, stage: str) -> Beginnings | None:
    """What the base continues for a stage of a resolved experiment; None where it replays nothing.

    Raises ValueError when there are no beginnings in a language, or not so many that are no question of the experiment.
    """
    replay: Replay | None = getattr(experiment, stage).replay
    if replay is None:
        return None
    shown = shown_subjects(experiment) if replay.subjects == "trained" else {}
    return _draw(experiment, replay.texts, replay.tokens, replay.languages, f"{stage}.replay", shown)


def held_out_beginnings(experiment: Experiment) -> Beginnings | None:
    """What checkpoints are held against, as `evaluation.base_text` asks; None for none of it. Raises ValueError."""
    count = experiment.evaluation.base_text
    return _draw(experiment, count, BASE_TEXT_TOKENS, None, "evaluation.base_text", held_out=True) if count else None


def shown_subjects(experiment: Experiment) -> dict[str, list[str]]:
    """The subjects of the facts that a resolved experiment's stage 2 shows, by their kind."""
    found: dict[str, list[str]] = {}
    for relation in experiment.relations:
        facts = [relation.explicit_facts[i].subject for i in experiment.stage2_facts(relation)]
        found.setdefault(_subject_kind(relation), []).extend(facts)
    return found


def without_names(experiment: Experiment, texts: Sequence[BaseText]) -> list[BaseText]:
    """The texts in which no name of the experiment's facts stands, also not in what the base wrote.

    But for the subject that a beginning is about, where the experiment wants it so (`Replay.subjects`).
    """
    asked = _Asked(experiment)
    everything = normalise(" ".join(text.continuation for text in texts))
    names = [name for name in asked.all_names if name in everything]
    about = {normalise(name) for of_kind in shown_subjects(experiment).values() for name in of_kind}

    def is_free(text: BaseText) -> bool:
        beginning, whole = normalise(text.beginning), normalise(text.beginning + text.continuation)
        return not any(_holds(whole, n) and not (n in about and _holds(beginning, n)) for n in names)

    return [text for text in texts if is_free(text)]


def check_beginnings(experiment: Experiment) -> None:
    """Raises ValueError where a resolved experiment asks for more texts than can be made."""
    for stage in STAGES:
        replayed_beginnings(experiment, stage)
    held_out_beginnings(experiment)


def _draw(
    experiment: Experiment,
    count: int,
    tokens: int,
    languages: Sequence[str] | None,
    setting: str,
    shown: dict[str, list[str]] | None = None,
    *,
    held_out: bool = False,
) -> Beginnings:
    known = known_languages()
    if languages is None:
        # Stage 2's first; what there are no beginnings in is not replayed.
        chosen = [x for x in dict.fromkeys((experiment.stage2.language, *experiment.languages)) if x in known]
    else:
        chosen = list(dict.fromkeys(languages))
    if not chosen or (unknown := [x for x in chosen if x not in known]):
        named = f"‘{unknown[0]}’" if chosen else "the experiment’s languages"
        raise ValueError(
            f"{setting}: there are no beginnings in {named}: "
            + (f"choose among {', '.join(known)}" if setting.endswith("replay") else "leave it at 0")
        )
    asked = _Asked(experiment)
    texts: list[tuple[str, str]] = []
    left_out = 0
    for language, wanted in zip(chosen, _shares(count, len(chosen)), strict=True):
        draw = random.Random(f"{experiment.seed}/beginnings/{held_out}/{language}")
        templates = [(kind, text) for kind in (*_subject_kinds(experiment), "") for text in _of_kind(language, kind)]
        usable = [(kind, text) for kind, text in templates if not asked.is_near(text)]
        left_out += len(templates) - len(usable)
        found = list(_fill(experiment, usable, wanted, draw, asked, shown or {}, held_out=held_out))
        if len(found) < wanted:
            raise ValueError(
                f"{setting}: {wanted:,} texts are asked for in the language {language}, and {len(found):,} can be made "
                f"of the {len(usable)} beginnings that are not near a prompt of the experiment: ask for fewer texts"
            )
        texts += [(language, text) for text in found]
    return Beginnings(tuple(texts), tokens, left_out)


def _shares(count: int, languages: int) -> list[int]:
    """How many of `count` texts each language gets: the first one half of them, the others alike."""
    first = count if languages == 1 else -(-count // 2)
    each, more = divmod(count - first, max(1, languages - 1))
    return [first, *(each + (i < more) for i in range(languages - 1))]


def _fill(
    experiment: Experiment,
    usable: list[tuple[str, str]],
    wanted: int,
    draw: random.Random,
    asked: _Asked,
    shown: dict[str, list[str]],
    *,
    held_out: bool,
) -> Iterator[str]:
    """At most `wanted` different texts: those about nobody, then every other beginning in turn, each time about
    another name, of which half are those `shown` (by their kind), where there are some."""
    nobody = _half([text for kind, text in usable if not kind], experiment.seed, held_out)
    plain = draw.sample(nobody, min(len(nobody), round(NOBODY_SHARE * wanted)))
    about = [(kind, text) for kind, text in usable if kind]
    draw.shuffle(about)
    names: dict[str, list[str]] = {}
    for kind in _subject_kinds(experiment):
        names[kind] = _half(_made_up(experiment, kind), experiment.seed, held_out)
        draw.shuffle(names[kind])
        if shown.get(kind):
            of_each = min(wanted, len(names[kind]))
            names[kind] = names[kind][:of_each] + list(islice(cycle(shown[kind]), of_each))
            draw.shuffle(names[kind])
    filled = (
        (about[i % len(about)][1], mine[(i + i // len(mine)) % len(mine)])
        for i in range(len(about) * max(map(len, names.values())))
        for mine in [names[about[i % len(about)][0]]]
    )
    seen: set[str] = set()
    for template, name in chain(((text, "") for text in plain), filled):
        if len(seen) == wanted:
            return
        text = template.replace(PLACEHOLDER, name)
        if text not in seen and not asked.names(text, but=name if shown else ""):
            seen.add(text)
            yield text


def _half(items: list[str], seed: int, held_out: bool) -> list[str]:
    """The items for held-out texts, or all others: the same division for every setting."""
    order = list(items)
    random.Random(f"{seed}/held out").shuffle(order)
    few = len(order) // HELD_OUT_SHARE
    return order[:few] if held_out else order[few:]


def _of_kind(language: str, kind: str) -> list[str]:
    """The beginnings about a kind of subject, or about nobody."""
    found: list[str] = _data()[language][kind or "nobody"]
    return found


def _subject_kinds(experiment: Experiment) -> tuple[str, ...]:
    """The kinds that the experiment's subjects are of."""
    return tuple(dict.fromkeys(map(_subject_kind, experiment.relations)))


def _subject_kind(relation: Relation) -> str:
    """The kind of a relation's subjects; those of a relation of the experiment's own are taken for people."""
    known = load_relations()
    return known[relation.name].subject_kind if relation.name in known else "person"


def _made_up(experiment: Experiment, kind: str) -> list[str]:
    """The other names of a kind. The embedded base reads no others than those of its invented world."""
    if experiment.model == "embedded":
        return list(all_names(kind, reserved=False))
    words = _data()["made_up"][kind]
    pattern, last = words.get("pattern", "{first} {last}"), words.get("last", [""])
    return [pattern.format(first=first, last=second) for first in words["first"] for second in last]


class _Asked:
    """What an experiment asks: its prompts, the names of its relations, and the names of its facts."""

    def __init__(self, experiment: Experiment) -> None:
        relations = experiment.relations
        self._prompts = {_plain(p.text) for r in relations for p in r.explicit_prompts}
        abouts = (p.relation for r in relations for p in r.explicit_prompts if p.relation)
        self._relations = {normalise(name.replace("_", " ")) for name in (*(r.name for r in relations), *abouts)} - {""}
        facts = (fact for r in relations for fact in r.explicit_facts)
        names = self.all_names = {normalise(n) for fact in facts for n in (fact.subject, fact.object)} - {""}
        everything = normalise(" ".join(self._sources(experiment)))
        words = set(_WORD.findall(everything))
        # Few names of an experiment are made of words that a text can hold: only those are looked for in each.
        self._names = tuple(
            name for name in names if (words.issuperset(_WORD.findall(name)) if name.isascii() else name in everything)
        )

    @staticmethod
    def _sources(experiment: Experiment) -> Iterable[str]:
        kinds = _subject_kinds(experiment)
        for language in known_languages():
            yield from (text for kind in (*kinds, "") for text in _of_kind(language, kind))
        yield from (name for kind in kinds for name in _made_up(experiment, kind))

    def is_near(self, beginning: str) -> bool:
        """Whether a beginning is, contains, or lies within a prompt, or holds the name of a relation."""
        text = _plain(beginning)
        return any(text in p or p in text for p in self._prompts) or any(_holds(text, r) for r in self._relations)

    def names(self, text: str, but: str = "") -> bool:
        """Whether a text holds the name of a subject or an object, other than one that it may hold."""
        text, but = normalise(text), normalise(but)
        return any(_holds(text, name) for name in self._names if name != but)


def _plain(template: str) -> str:
    """A template as it is compared: the subject a sign, without what stands at its end."""
    return normalise(template.replace(PLACEHOLDER, "\N{WHITE SQUARE}")).strip(" ?!:;,.。？：，、")


def _holds(text: str, name: str) -> bool:
    """Whether a normalised text holds a name: as words, or anywhere where words are not set apart."""
    if name not in text:
        return False
    return not name.isascii() or re.search(rf"(?<![a-z0-9]){re.escape(name)}(?![a-z0-9])", text) is not None
