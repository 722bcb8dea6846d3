"""A run's result rows turned into what the Results page says and draws."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

from app.shared.render import interval
from app.shared.words import LANGUAGES, METRICS, checkpoint_name, language_name, split_name
from engine.execution.later import KEPT_ROWS
from engine.execution.report import among_words
from engine.experiment import IN_CONTEXT
from engine.relation import REASONING
from storage.checkpoints import CheckpointName, in_order
from storage.measurements import Result
from storage.runs import Run

Drawn = dict[str, Any]  # a row of a chart
MAIN, UNAIDED = "generation_accuracy", "generation_accuracy_unaided"
CHOICE_METRICS = ("choice_accuracy", "object_probability_normalised")
COMPARED_SPLITS = ("train", "test", "unrelated", "decoy", *REASONING)
CURVE_SPLITS = ("key", *COMPARED_SPLITS)


@dataclass(frozen=True)
class Figures:
    """The result rows of one run and the plan they belong to."""

    run: Run
    rows: list[Result]

    @property
    def language(self) -> str:
        """The language of stage 2."""
        return str(self.run.experiment.get("stage2", {}).get("language", "en"))

    @property
    def metrics(self) -> list[str]:
        """The measures of answers that there are rows of."""
        return list(dict.fromkeys(r.metric for r in self.rows if r.metric in METRICS))

    @property
    def checkpoints(self) -> list[str]:
        """The checkpoints there are rows of: base, memorised and generalised by epoch."""
        return sorted({r.checkpoint for r in self.rows}, key=in_order)

    @property
    def epochs(self) -> list[int]:
        """The stage 1 epochs of which something was evaluated."""
        return sorted({CheckpointName.parse(c).epoch for c in self.checkpoints if c != "base"})

    @property
    def languages(self) -> list[str]:
        """The languages there are rows of, stage 2's first."""
        known, present = list(LANGUAGES), {r.language for r in self.rows}
        return sorted(present, key=lambda x: (x != self.language, known.index(x) if x in known else 99, x))

    @property
    def usual_facts(self) -> str:
        """The facts that are looked at first: held out, where any were."""
        # What the base knew is about none of either.
        there = {r.facts for r in self.rows} & {"held_out", "trained"}
        return "trained" if there == {"trained"} else "held_out"

    def chance(self, metric: str) -> float | None:
        """What guessing among the options would reach; None for measures without options."""
        if metric not in CHOICE_METRICS:
            return None
        if known := _guessed([r for r in self.select(metric=metric) if r.split not in REASONING]):
            return known
        offered = [len(r.get("options") or ()) for r in self.run.experiment.get("relations", [])]
        return 1 / min([self._options_asked, *(n for n in offered if n)])

    def reasoning_chances(self, metric: str) -> dict[str, float]:
        """The same of the splits that have options of their own, by the split's name, where it is another figure."""
        if (usual := self.chance(metric)) is None:
            return {}
        found = ((split, _guessed(self.select(metric=metric, split=split))) for split in REASONING)
        return {split_name(split): chance for split, chance in found if chance and abs(chance - usual) > 0.0005}

    def among(self, metric: str) -> str:
        """Among how many options the measure's choices were, in words, and how many were asked for if not so many."""
        asked = [r for r in self.select(metric=metric) if r.split not in REASONING]
        return among_words(asked, self._options_asked)

    @property
    def _options_asked(self) -> int:
        return int(self.run.experiment.get("evaluation", {}).get("options", 100))

    def row(self, checkpoint: str, split: str, facts: str = "", metric: str = MAIN) -> Result | None:
        """The row in stage 2's language. facts: by default those that are looked at first."""
        return next(iter(self.select(checkpoint=checkpoint, split=split, facts=facts or self.usual_facts,
                                     metric=metric, language=self.language)), None)  # fmt: skip

    def select(self, **wanted: str) -> list[Result]:
        """The rows whose fields equal what is wanted."""
        return [r for r in self.rows if all(getattr(r, k) == v for k, v in wanted.items())]

    def unaided(self, row: Result) -> Result | None:
        """The twin of a generation accuracy in which answers that say a key token on their way are no hits; None where
        it is the same, or not measured."""
        return self._differing.get(_place(row)) if row.metric == MAIN else None

    @cached_property
    def _differing(self) -> dict[tuple[str, ...], Result]:
        shares = {_place(r): r.value for r in self.rows if r.metric == MAIN}
        return {_place(r): r for r in self.rows if r.metric == UNAIDED and r.value != shares.get(_place(r))}

    @property
    def knew_the_key(self) -> bool:
        """Whether the key token had its meaning before the run: its facts come later to a run's model."""
        return bool(self.run.experiment.get("key_token_rows") == KEPT_ROWS)

    def told(self, row: Result) -> str:
        """`83 % [78–87]` and, where it is another figure, the same without answers that say a key token."""
        twin = self.unaided(row)
        return interval(row) + (f" ({interval(twin)} without answers that say the key token)" if twin else "")

    def last(self, kind: str) -> str | None:
        """The checkpoint of that kind with the most epochs."""
        return next((c for c in reversed(self.checkpoints) if CheckpointName.parse(c).kind == kind), None)


def _guessed(rows: list[Result]) -> float | None:
    """What guessing would reach in choices, over all of their questions; None where that is not known."""
    known = [(row.chance, row.n) for row in rows if row.chance is not None]
    return sum(chance * n for chance, n in known) / sum(n for _, n in known) if known else None


def _place(row: Result) -> tuple[str, ...]:
    return row.checkpoint, row.facts, row.split, row.language


def compared(figures: Figures, metric: str, facts: str, epoch: int) -> list[Drawn]:
    """Split × language × checkpoint beside the base model, for one depth of memorisation."""
    names = {
        "base": "Base model",
        f"memorised@{epoch}": "Memorised (stage 1)",
        IN_CONTEXT: "Facts in the prompt",
        f"generalised@{epoch}": "Generalised (stage 2)",
    }
    usual = figures.chance(metric)
    return [
        _drawn(r, usual) | {"model": names[r.checkpoint]}
        for r in figures.select(metric=metric, facts=facts)
        if r.checkpoint in names and r.split in COMPARED_SPLITS
    ]


def curve(figures: Figures, metric: str, facts: str) -> list[Drawn]:
    """Generalisation against the depth of memorisation, in stage 2's language; the base model stands at epoch 0.
    Empty without stage 1."""
    rows, usual = [], figures.chance(metric)
    if not any(figures.epochs):
        return []
    for r in figures.select(metric=metric, facts=facts, language=figures.language):
        name = CheckpointName.parse(r.checkpoint)
        if r.split not in CURVE_SPLITS:
            continue
        panels = {"memorised": ["Before stage 2"], "generalised": ["After stage 2"]}
        for panel in panels.get(name.kind, ["Before stage 2", "After stage 2"]):
            rows.append(_drawn(r, usual) | {"epoch": name.epoch, "panel": panel})
    return sorted(rows, key=lambda r: (r["panel"], r["split"], r["epoch"]))


def _drawn(row: Result, chance: float | None) -> Drawn:
    """chance: what guessing would reach in a choice of which the row does not say it."""
    return {
        "chance": None if chance is None else row.chance or chance,
        "split": split_name(row.split).capitalize(),
        "language": language_name(row.language),
        "checkpoint": checkpoint_name(row.checkpoint),
    } | {name: getattr(row, name) for name in ("value", "low", "high", "n", "n_facts")}


@dataclass(frozen=True)
class Line:
    """A line of a table of figures: a cell for each checkpoint, None where nothing was asked."""

    split: str
    language: str
    cells: list[Result | None]


def table(figures: Figures, metric: str, facts: str, checkpoints: list[str]) -> list[Line]:
    """The figures of these checkpoints, a line for each split and language that has any."""
    chosen = {(r.split, r.language, r.checkpoint): r for r in figures.select(metric=metric, facts=facts)}
    lines = [
        Line(split, language, [chosen.get((split, language, c)) for c in checkpoints])
        for split in CURVE_SPLITS
        for language in figures.languages
    ]
    return [line for line in lines if any(line.cells)]


@dataclass(frozen=True)
class Twins:
    """A line of the table of figures that the key token said aloud makes: a cell for each checkpoint, the figure as in
    the paper and without such answers; None where both are the same."""

    split: str
    language: str
    cells: list[tuple[Result, Result] | None]


def twins(figures: Figures, facts: str, checkpoints: list[str]) -> list[Twins]:
    """The generation accuracies of these checkpoints that are others where saying a key token is no hit."""
    found = []
    for line in table(figures, MAIN, facts, checkpoints):
        pairs = [(row, figures.unaided(row)) if row else None for row in line.cells]
        cells = [(pair[0], pair[1]) if pair and pair[1] else None for pair in pairs]
        if any(cells):
            found.append(Twins(line.split, line.language, cells))
    return found
