"""The rows of a map: each a preset with some settings changed, on some seeds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import yaml
from pydantic import BaseModel, ConfigDict

Facts = Literal["held_out", "trained"]


@dataclass(frozen=True)
class Row:
    """One experiment of the map. settings: `path=value`, as the command line takes them after `--set`; facts: whose
    figures the table shows, which are trained ones where a baseline trains on all."""

    name: str
    preset: str
    settings: tuple[str, ...]
    seed: int
    facts: Facts = "held_out"

    @property
    def run_name(self) -> str:
        """What the row's run is called in the lab."""
        return f"map, {self.name}"

    @property
    def command(self) -> str:
        """The command line that makes the same run."""
        return f"python -m engine run {self.preset}{''.join(f' --set {s}' for s in self.settings)} --seed {self.seed}"


class _RowOfFile(BaseModel):
    model_config = ConfigDict(extra="forbid")
    name: str
    preset: str | None = None
    set: tuple[str, ...] = ()
    seeds: tuple[int, ...] | None = None
    facts: Facts = "held_out"


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid")
    title: str
    about: str = ""
    rows: tuple[_RowOfFile, ...]


class Plan(BaseModel):
    """A map: parts with a title each. `preset`, `set`, `seeds` hold for rows that say nothing else."""

    model_config = ConfigDict(extra="forbid")
    preset: str
    set: tuple[str, ...] = ()
    seeds: tuple[int, ...]
    parts: tuple[_Part, ...]

    def rows_of(self, part: _Part) -> list[list[Row]]:
        """For each line of a part its runs, one a seed."""
        return [
            [
                Row(line.name, line.preset or self.preset, (*self.set, *line.set), seed, line.facts)
                for seed in line.seeds or self.seeds
            ]
            for line in part.rows
        ]

    def chosen(self, names: Sequence[str] | None) -> list[Row]:
        """All rows, or those of these names: the first seed of all before the second. Raises ValueError."""
        lines = [line for part in self.parts for line in self.rows_of(part)]
        there = {line[0].name for line in lines}
        if unknown := set(names or ()) - there:
            raise ValueError(f"no row is called {', '.join(sorted(unknown))}: there are {', '.join(sorted(there))}")
        lines = [line for line in lines if not names or line[0].name in names]
        longest = max(map(len, lines), default=0)
        return [line[i] for i in range(longest) for line in lines if i < len(line)]


def read_plan(file: Path) -> Plan:
    """The plan of a YAML file. Raises ValueError and OSError."""
    return Plan.model_validate(yaml.safe_load(file.read_text(encoding="utf-8")))
