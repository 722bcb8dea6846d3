"""What an experiment asks, held against other texts: whether one comes near to it, or names somebody in it."""

from __future__ import annotations

import re
from collections.abc import Iterable

from engine.checks import normalise
from engine.corpus.beginning_data import known_languages, made_up, neighbours, of_kind, subject_kinds
from engine.corpus.sentences import question_text
from engine.experiment import Experiment

_WORD = re.compile(r"\w+")


class Asked:
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
        kinds = subject_kinds(experiment)
        for language in known_languages():
            yield from (text for kind in (*kinds, "") for text in of_kind(language, kind))
            yield from (text for kind in kinds for text in neighbours(language, kind))
        yield from (name for kind in kinds for name in made_up(experiment, kind))

    def is_near(self, beginning: str) -> bool:
        """Whether a beginning is, contains, or lies within a prompt, or holds the name of a relation."""
        text = _plain(beginning)
        return any(text in p or p in text for p in self._prompts) or any(holds(text, r) for r in self._relations)

    def names(self, text: str, but: str = "") -> bool:
        """Whether a text holds the name of a subject or an object, other than one that it may hold."""
        text, but = normalise(text), normalise(but)
        return any(holds(text, name) for name in self._names if name != but)


def _plain(template: str) -> str:
    """A template as it is compared: the subject a sign, without what stands at its end."""
    return normalise(question_text(template, "\N{WHITE SQUARE}")).strip(" ?!:;,.。？：，、")


def holds(text: str, name: str) -> bool:
    """Whether a normalised text holds a name: as words, or anywhere where words are not set apart."""
    if name not in text:
        return False
    return not name.isascii() or re.search(rf"(?<![a-z0-9]){re.escape(name)}(?![a-z0-9])", text) is not None
