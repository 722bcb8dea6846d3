"""The data behind the beginnings: `beginnings.yaml`, read, and what of it concerns an experiment."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import yaml

from engine.corpus.names import all_names
from engine.corpus.relations import load_relations
from engine.experiment import Experiment
from engine.relation import Relation

BEGINNINGS_FILE = Path(__file__).with_name("beginnings.yaml")
# What is no language in it.
LISTS = ("made_up", "neighbours")


@cache
def data() -> dict[str, Any]:
    """The whole file."""
    found: dict[str, Any] = yaml.safe_load(BEGINNINGS_FILE.read_text(encoding="utf-8"))
    return found


def known_languages() -> tuple[str, ...]:
    """The languages that there are beginnings in."""
    return tuple(name for name in data() if name not in LISTS)


def of_kind(language: str, kind: str) -> list[str]:
    """The beginnings about a kind of subject, or about nobody."""
    found: list[str] = data()[language][kind or "nobody"]
    return found


def neighbours(language: str, kind: str) -> list[str]:
    """The beginnings that ask whom or what else belongs to a subject of a kind; none where there are none."""
    found: list[str] = data()["neighbours"].get(language, {}).get(kind, [])
    return found


def subject_kinds(experiment: Experiment) -> tuple[str, ...]:
    """The kinds that the experiment's subjects are of."""
    return tuple(dict.fromkeys(map(subject_kind, experiment.relations)))


def subject_kind(relation: Relation) -> str:
    """The kind of a relation's subjects; those of a relation of the experiment's own are taken for people."""
    known = load_relations()
    return known[relation.name].subject_kind if relation.name in known else "person"


def made_up(experiment: Experiment, kind: str) -> list[str]:
    """The other names of a kind. The embedded base reads no others than those of its invented world."""
    if experiment.model == "embedded":
        return list(all_names(kind, reserved=False))
    words = data()["made_up"][kind]
    pattern, last = words.get("pattern", "{first} {last}"), words.get("last", [""])
    return [pattern.format(first=first, last=second) for first in words["first"] for second in last]
