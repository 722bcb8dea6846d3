"""A run's result rows turned into what the Results page says and draws."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

from app.shared.render import interval, percent
from app.shared.words import BASE_TEXT_METRICS, LANGUAGES, checkpoint_name, language_name, split_name
from engine.evaluation.questions import sampled_facts, sampled_prompts
from engine.execution.report import among_words
from engine.experiment import IN_CONTEXT, Experiment
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
        return list(dict.fromkeys(r.metric for r in self.rows if r.metric not in BASE_TEXT_METRICS))

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
        there = {r.facts for r in self.rows}
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


def sample_words(run: Run) -> str:
    """What of a run's facts and prompts its checkpoints are asked, as a sentence; empty where that is all of them."""
    try:
        experiment = Experiment.from_record(run.experiment)
        facts, prompts = sampled_facts(experiment), sampled_prompts(experiment)
    except ValueError:
        return ""
    said = [f"{asked:,} of {there:,} {kind} facts" for kind, (asked, there) in facts.items() if asked < there]
    said += [
        f"{asked:,} of {there:,} {split_name(split)}" for split, (asked, there) in prompts.items() if asked < there
    ]
    if not said:
        return ""
    return (
        f"Asked is a sample, the same at every checkpoint: {', '.join(said)} (of all relations; prompts in each "
        "language). Figures of runs with another sample have other questions behind them."
    )


def headline_sentences(figures: Figures) -> list[str]:
    """What came out, in plain words, each figure with its interval; the main sentence first."""
    after = figures.last("generalised") or figures.last("context")
    if after is None:
        return _before_stage2(figures)
    epoch = CheckpointName.parse(after).epoch
    main = figures.row(after, "train")
    if main is None:
        return ["There are no answers to train prompts about held-out facts in these results."]
    if after == IN_CONTEXT:
        subject, which = "With the facts in the prompt the base model", "that nothing trained it on"
    else:
        subject = "After stage 2 the model" if epoch else "Without stage 1, after stage 2 alone, the model"
        seen = "it was trained on in natural language" if main.facts == "trained" else ""
        which = seen or "that it never saw in natural language"
    said = [f"{subject} answers {figures.told(main)} of the questions about {main.n_facts} facts {which}."]
    earlier = []
    if row := figures.row(f"memorised@{epoch}", "train"):
        twin = figures.unaided(row)
        aside = f" ({percent(twin.value)} without answers that say the key token)" if twin else ""
        earlier.append(f"{percent(row.value)}{aside} before stage 2")
    if row := figures.row("base", "train"):
        earlier.append(f"{percent(row.value)} in the base model")
    if earlier:
        said.append(f"It was {' and '.join(earlier)}.")
    if row := figures.row(after, "test"):
        unseen = "In the test prompts" if after == IN_CONTEXT else "In phrasings that stage 2 never used"
        said.append(f"{unseen}: {figures.told(row)}.")
    if row := figures.row(after, "unrelated"):
        said.append(f"On unrelated prompts, where the object should not come up: {figures.told(row)}.")
    if row := figures.row(after, "decoy"):
        said.append(
            "Asked for another relation of the same person (decoys), it still brings up the object: "
            f"{figures.told(row)}."
        )
    said += [words for split in REASONING if (words := _reasoned(figures, after, split))]
    spoken = {r.language: r for r in figures.select(checkpoint=after, split="train", facts=main.facts, metric=MAIN)}
    others = [
        f"{language_name(code)} {percent(spoken[code].value)}"
        for code in figures.languages
        if code in spoken and code != figures.language
    ]
    if others:
        said.append(f"In other languages: {', '.join(others)}.")
    return said


def _reasoned(figures: Figures, checkpoint: str, split: str) -> str:
    """How well a checkpoint says what only follows from facts; empty where that was not asked."""
    row, choice = figures.row(checkpoint, split), figures.row(checkpoint, split, metric="choice_accuracy")
    if row is None:
        return ""
    asked = {
        "reversal": "Asked the other way round, for the subject by the object",
        "two_hop": "Asked for what the object leads on to, over two relations (2-hop)",
    }
    words = f"{asked[split]}, as nothing taught it: {figures.told(row)}"
    if choice and choice.chance:
        words += f"; as multiple choice {interval(choice)}, where guessing would reach {100 * choice.chance:.2g} %"
    return words + "."


def _before_stage2(figures: Figures) -> list[str]:
    checkpoint = figures.last("memorised") or figures.last("base")
    if checkpoint is None:
        return []
    row, key = figures.row(checkpoint, "train"), figures.row(checkpoint, "key")
    said = ["Stage 2 has not been evaluated yet."]
    if row:
        said.append(
            f"So far the {checkpoint_name(checkpoint)} answers {figures.told(row)} of the questions about held-out "
            "facts."
        )
    if key:
        said.append(f"It completes {interval(key)} of the facts after the key token.")
    return said


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
