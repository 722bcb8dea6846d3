"""Plain beginnings for the base to continue: what is replayed in training, and what a checkpoint is held against.

Drawn from the seed, a text never twice. Nothing of what the experiment asks is in them: a beginning that is, contains
or lies within one of its prompts, or names one of its relations, and a text with one of its names, are left out; but
for the trained facts' subjects where replay is about them, too. The
made-up names and the beginnings about nobody are divided in two, so that no text that a checkpoint is held against is
replayed. They are about people, works or countries: whatever the experiment's subjects are.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, count, cycle, islice

from engine.checks import normalise
from engine.corpus.asked import Asked, holds
from engine.corpus.beginning_data import known_languages, made_up, neighbours, of_kind, subject_kind, subject_kinds
from engine.corpus.sentences import PLACEHOLDER
from engine.experiment import Experiment
from engine.settings import Replay

BASE_TEXT_TOKENS = 12  # how much the base writes behind a beginning that checkpoints are held against
NOBODY_SHARE = 0.4  # of the texts, as far as there are beginnings about nobody
HELD_OUT_SHARE = 4  # one in four beginnings about nobody, and one in four names, are for held-out texts

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


def replayed_beginnings(experiment: Experiment, stage: str) -> Beginnings | None:
    """What the base continues for a stage of a resolved experiment; None where it replays nothing.

    Raises ValueError when there are no beginnings in a language, or not so many that are no question of the experiment.
    """
    replay: Replay | None = getattr(experiment, stage).replay
    if replay is None:
        return None
    return _draw(experiment, replay.texts, replay.tokens, replay.languages, f"{stage}.replay", replay)


def held_out_beginnings(experiment: Experiment) -> Beginnings | None:
    """What checkpoints are held against, as `evaluation.base_text` asks; None for none of it. Raises ValueError."""
    count = experiment.evaluation.base_text
    return _draw(experiment, count, BASE_TEXT_TOKENS, None, "evaluation.base_text", held_out=True) if count else None


def shown_subjects(experiment: Experiment) -> dict[str, list[str]]:
    """The subjects of the facts that a resolved experiment's stage 2 shows, by their kind."""
    found: dict[str, list[str]] = {}
    for relation in experiment.relations:
        facts = [relation.explicit_facts[i].subject for i in experiment.stage2_facts(relation)]
        found.setdefault(subject_kind(relation), []).extend(facts)
    return found


def without_names(experiment: Experiment, texts: Sequence[BaseText]) -> list[BaseText]:
    """The texts in which no name of the experiment's facts stands, also not in what the base wrote.

    But for the subject that a beginning is about, where the experiment wants it so (`Replay.subjects`).
    """
    asked = Asked(experiment)
    everything = normalise(" ".join(text.continuation for text in texts))
    names = [name for name in asked.all_names if name in everything]
    about = {normalise(name) for shown in shown_subjects(experiment).values() for name in shown}

    def is_free(text: BaseText) -> bool:
        beginning, whole = normalise(text.beginning), normalise(text.beginning + text.continuation)
        return not any(holds(whole, n) and not (n in about and holds(beginning, n)) for n in names)

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
    replay: Replay | None = None,
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
    asked = Asked(experiment)
    kinds = subject_kinds(experiment)
    texts: list[tuple[str, str]] = []
    left_out = 0
    for language, wanted in zip(chosen, _shares(count, len(chosen)), strict=True):
        draw = random.Random(f"{experiment.seed}/beginnings/{held_out}/{language}")
        there = [(kind, text) for kind in (*kinds, "") for text in of_kind(language, kind)]
        near = [(kind, text) for kind in kinds for text in neighbours(language, kind)]
        near = near if replay and replay.neighbours else []
        usable, usable_near = ([(kind, text) for kind, text in of if not asked.is_near(text)] for of in (there, near))
        left_out += len(there) + len(near) - len(usable) - len(usable_near)
        filling = _Filling(experiment, asked, draw, replay, held_out)
        found = list(filling.texts(usable, usable_near, wanted))
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


@dataclass(frozen=True)
class _Filling:
    """Beginnings with names in them, drawn by `draw`. `replay`: what is replayed; None for held-out texts."""

    experiment: Experiment
    asked: Asked
    draw: random.Random
    replay: Replay | None
    held_out: bool

    def texts(self, usable: list[tuple[str, str]], near: list[tuple[str, str]], wanted: int) -> Iterator[str]:
        """At most `wanted` different texts: those about nobody, then every other beginning in turn, each time about
        another name; of these `replay.neighbours` are among `near`. Both are pairs of (kind of subject, beginning)."""
        nobody = _half([text for kind, text in usable if not kind], self.experiment.seed, self.held_out)
        plain = self.draw.sample(nobody, min(len(nobody), round(NOBODY_SHARE * wanted)))
        about = [(kind, text) for kind, text in usable if kind]
        self.draw.shuffle(about)
        names = {kind: self._names(kind, wanted) for kind in subject_kinds(self.experiment)}
        self.draw.shuffle(near)
        rounds = range((len(about) + len(near)) * max(map(len, names.values())))
        filled = (
            (template, mine[(i + i // len(mine)) % len(mine)])
            for i, (kind, template) in zip(rounds, self._in_turn(about, near), strict=False)
            for mine in [names[kind]]
        )
        own = self.replay is not None and self.replay.subjects == "trained"
        seen: set[str] = set()
        for template, name in chain(((text, "") for text in plain), filled):
            if len(seen) == wanted:
                return
            text = template.replace(PLACEHOLDER, name)
            if text not in seen and not self.asked.names(text, but=name if own else ""):
                seen.add(text)
                yield text

    def _in_turn(self, about: list[tuple[str, str]], near: list[tuple[str, str]]) -> Iterator[tuple[str, str]]:
        """One after the other, again and again; the share `replay.neighbours` from `near`, spread evenly."""
        share = self.replay.neighbours if self.replay and near and about else float(not about)
        for i in count() if about or near else ():
            taken = int(i * share)  # from `near`
            yield near[taken % len(near)] if int((i + 1) * share) > taken else about[(i - taken) % len(about)]

    def _names(self, kind: str, wanted: int) -> list[str]:
        """The names that fill beginnings about a kind; half of them the trained facts' own, where replay wants that."""
        names = _half(made_up(self.experiment, kind), self.experiment.seed, self.held_out)
        self.draw.shuffle(names)
        own = shown_subjects(self.experiment).get(kind) if self.replay and self.replay.subjects == "trained" else None
        if own:
            of_each = min(wanted, len(names))
            names = names[:of_each] + list(islice(cycle(own), of_each))
            self.draw.shuffle(names)
        return names


def _half(items: list[str], seed: int, held_out: bool) -> list[str]:
    """The items for held-out texts, or all others: the same division for every setting."""
    order = list(items)
    random.Random(f"{seed}/held out").shuffle(order)
    few = len(order) // HELD_OUT_SHARE
    return order[:few] if held_out else order[few:]
