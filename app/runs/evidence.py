"""What recorded runs show, for the first page: a few figures of each recording, with every seed.

A figure is the mean over the seeds. Each seed is a dot with its own 95 % interval, in which facts are the unit: no
interval over three seeds would say anything, and one over facts says nothing of another seed.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import groupby
from statistics import fmean
from typing import Any

from app.shared.lab import Lab
from app.shared.recordings import hardware_of, here_of
from app.shared.render import percent, render
from app.shared.words import LANGUAGES, language_name, split_name
from engine.execution.report import HEADLINE_METRIC
from engine.relation import REASONING
from storage.checkpoints import BASE, CheckpointName, in_order
from storage.measurements import Result, list_results
from storage.recordings import recorded_ids, recorded_runs
from storage.runs import Run

# As engine/evaluation/general.py has them, which is too heavy for a page.
GENERAL_SPLIT, GENERAL_METRIC = "general knowledge", "general_accuracy"


@dataclass(frozen=True)
class Seed:
    """One seed's figure: its run, and the result row."""

    run: str
    seed: int
    row: Result


@dataclass(frozen=True)
class Figure:
    """One figure of every seed; empty where nothing was asked."""

    seeds: tuple[Seed, ...]

    @property
    def mean(self) -> float:
        """Over the seeds."""
        return fmean(seed.row.value for seed in self.seeds)

    @property
    def spread(self) -> str:
        """The lowest and the highest seed in percent: `82–88`; empty for a single one."""
        values = [seed.row.value for seed in self.seeds]
        return f"{100 * min(values):.0f}–{100 * max(values):.0f}" if len(values) > 1 else ""

    @property
    def n(self) -> int:
        """How many answers it stands on, of all seeds."""
        return sum(seed.row.n for seed in self.seeds)


@dataclass(frozen=True)
class Line:
    """A line of the card: what was asked, and how it came out before and after stage 2 (either may be missing).

    base: of what the base knew, how much that was.
    """

    label: str
    split: str
    language: str
    before: Figure | None
    after: Figure | None
    base: Figure | None = None

    def opens(self, seed: Seed) -> str:
        """The address of what a seed's figure is made of."""
        if self.split == GENERAL_SPLIT:
            return f"/results?run={seed.run}#base-text"
        asked = f"checkpoint={seed.row.checkpoint}&split={self.split}&language={self.language}"
        return f"/results?run={seed.run}&{asked}#answers"

    @property
    def n(self) -> int:
        """How many answers of one checkpoint its figures stand on, of all seeds."""
        return max(figure.n for figure in (self.before, self.after) if figure)


def evidence_html(lab: Lab) -> str:
    """A card for each recording; empty without any."""
    groups = groupby(recorded_runs(lab.db), key=lambda run: (run.recorded or {})["file"])
    cards = [card for _, runs in groups if (card := _card(lab, list(runs)))]
    return render("runs/evidence.html", cards=cards) if cards else ""


def evidence_sign(lab: Lab) -> str:
    """Changes when the recorded runs do."""
    return ",".join(recorded_ids(lab.db))


def _card(lab: Lab, runs: list[Run]) -> dict[str, Any]:
    """What the template needs of one recording's runs; empty where they have no results."""
    rows = {run.id: list_results(lab.db, run.id) for run in runs}
    found = list(lines(runs, rows))
    if not found:
        return {}
    first, seconds = runs[0], [run.recorded["seconds"].get("total") for run in runs if run.recorded]
    spent = [s for s in seconds if s]
    return {
        "title": (first.recorded or {})["title"],
        "model": first.model,
        "runs": runs,
        "recorded": first.recorded,
        "language": first.experiment["stage2"]["language"],
        "claim": claim(found, first.model),
        "lines": found,
        "seconds": fmean(spent) if spent else None,
        "hardware": hardware_of(first.environment),
        "here": here_of(first),
    }


def lines(runs: list[Run], rows: dict[str, list[Result]]) -> Iterator[Line]:
    """The card's lines in their order; those for which there are answers. All about held-out facts."""
    language = str(runs[0].experiment["stage2"]["language"])
    checkpoints = {kind: _last(rows[runs[0].id], kind) for kind in ("memorised", "generalised")}

    def figure(kind: str, split: str, language: str) -> Figure | None:
        general = split == GENERAL_SPLIT
        about, metric = ("none", GENERAL_METRIC) if general else ("held_out", HEADLINE_METRIC)
        wanted = (checkpoints.get(kind, kind), about, split, language, metric)
        seeds = tuple(
            Seed(run.id, run.seed, row)
            for run in runs
            for row in rows[run.id]
            if (row.checkpoint, row.facts, row.split, row.language, row.metric) == wanted
        )
        return Figure(seeds) if seeds else None

    present = {r.language for r in rows[runs[0].id] if r.split == "test"}
    others = sorted(present - {language}, key=lambda code: ([*LANGUAGES, code].index(code), code))
    asked = [
        (named("key"), "key", language, ("memorised",)),
        (named("train"), "train", language, ("memorised", "generalised")),
        (named("test"), "test", language, ("memorised", "generalised")),
        *((language_name(code), "test", code, ("memorised", "generalised")) for code in others),
        (named("unrelated"), "unrelated", language, ("memorised", "generalised")),
        (named("decoy"), "decoy", language, ("memorised", "generalised")),
        *((named(split), split, language, ("memorised", "generalised")) for split in REASONING),
        ("General questions", GENERAL_SPLIT, "en", ("memorised", "generalised")),
    ]
    for label, split, code, kinds in asked:
        before, after = (figure(k, split, code) if k in kinds else None for k in ("memorised", "generalised"))
        if before or after:
            yield Line(label, split, code, before, after, figure(BASE, split, code) if split == GENERAL_SPLIT else None)


def named(split: str) -> str:
    """A split at the head of its line."""
    return split_name(split).capitalize()


def claim(found: Iterable[Line], model: str) -> str:
    """The main figure as a sentence; empty where it was not measured."""
    main = next((line for line in found if line.split == "train" and line.after), None)
    if main is None or main.after is None:
        return ""
    facts = sum(seed.row.n_facts for seed in main.after.seeds)
    name = "the embedded base" if model == "embedded" else model.rstrip("/").rpartition("/")[2]
    before = f", {percent(main.before.mean)} before" if main.before else ""
    return (
        f"After stage 2, {name} answers {percent(main.after.mean)} of the questions about {facts} facts that it had "
        f"only learnt by rote{before}."
    )


def _last(rows: list[Result], kind: str) -> str:
    names = {row.checkpoint for row in rows if CheckpointName.parse(row.checkpoint).kind == kind}
    return max(names, key=in_order, default="")
