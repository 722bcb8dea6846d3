"""Experiments that come with the lab, one YAML file each in this folder: add a file and it is a preset.

python -m engine presets
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

from engine.description import Described
from engine.experiment import Experiment

Kind = TypeVar("Kind", bound=Described)


@dataclass(frozen=True)
class Presets(Generic[Kind]):
    """A folder of YAML files, a preset each. kind: what they describe; first: which is listed first; word: their name
    in a sentence."""

    folder: Path
    kind: type[Kind]
    first: str
    word: str

    def names(self) -> list[str]:
        """The names of the presets."""
        return sorted((p.stem for p in self.folder.glob("*.yaml")), key=lambda name: (name != self.first, name))

    def text(self, name: str) -> str:
        """A preset's YAML, with its comments. Raises ValueError that lists the presets when there is none so named."""
        if name not in self.names():
            raise ValueError(f"there is no {self.word} ‘{name}’: choose one of {', '.join(self.names())}")
        return (self.folder / f"{name}.yaml").read_text(encoding="utf-8")

    def load(self, name: str) -> Kind:
        """What the preset describes, not yet resolved. Raises ValueError when there is none of that name."""
        return self.kind.from_text(self.text(name))


EXPERIMENTS = Presets(Path(__file__).parent, Experiment, "quick", "preset")
load_preset = EXPERIMENTS.load


def describe_preset(name: str) -> str:
    """One sentence about the preset: its experiment's description."""
    return load_preset(name).description
