"""The map as Markdown: for each row the figures of its facts (held-out ones, but where the plan says trained), the mean
over its seeds and each seed's own."""

from __future__ import annotations

from sqlite_utils import Database

from engine.evaluation.questions import KEY_SPLIT
from storage.checkpoints import BASE, CheckpointName
from storage.measurements import Result, list_results
from storage.runs import Run, State
from tools.model_map.plan import Plan, Row
from tools.model_map.runs import experiment_of, find_run

METRIC, GENERAL = "generation_accuracy", "general_accuracy"
HEAD = (
    "row", "key", "train before", "train", "test", "es", "de", "ja", "zh", "unrelated", "unrelated, others at worst",
    "decoys", "general, base", "general, after", "seeds",
)  # fmt: skip
OTHERS = ("es", "de", "ja", "zh")


def map_table(db: Database, plan: Plan) -> str:
    """Every part of the plan as a table, with the command of each row below it."""
    found = []
    for part in plan.parts:
        rows = plan.rows_of(part)
        lines = [HEAD, ("---",) * len(HEAD), *(line for row in rows if (line := _line(db, row)))]
        table = "\n".join(f"| {' | '.join(line)} |" for line in lines)
        commands = "\n".join(f"{row[0].name}: {row[0].command}" for row in rows)
        found.append(f"## {part.title}\n\n{part.about.strip()}\n\n{table}\n\n```\n{commands}\n```")
    return "\n\n".join(found)


def _line(db: Database, rows: list[Row]) -> tuple[str, ...] | None:
    done = [run for row in rows if (run := find_run(db, experiment_of(row))) and run.state is State.DONE]
    if not done:
        return None
    figures = [_figures(db, run, rows[0].facts) for run in done]
    return rows[0].name, *(_cell(values) for values in zip(*figures, strict=True)), str(len(done))


def _cell(values: tuple[float | None, ...]) -> str:
    """The mean, and in brackets each seed's where there are several: .83 (.80 .86)."""
    known = [value for value in values if value is not None]
    if not known:
        return ""
    mean = f"{sum(known) / len(known):.2f}"
    return f"{mean} ({' '.join(f'{v:.2f}' for v in known)})" if len(known) > 1 else mean


def _figures(db: Database, run: Run, facts: str) -> list[float | None]:
    results = list_results(db, run.id)
    knew: dict[str | None, float] = {r.checkpoint: r.value for r in results if r.metric == GENERAL}
    rows = [r for r in results if r.metric == METRIC and r.facts == facts]
    last = {kind: _last(rows, kind) for kind in ("memorised", "generalised")}

    def share(kind: str, split: str, language: str = "en") -> float | None:
        mine = (r for r in rows if (r.checkpoint, r.split, r.language) == (last[kind], split, language))
        return next((r.value for r in mine), None)

    worst = [value for code in OTHERS if (value := share("generalised", "unrelated", code)) is not None]
    return [
        share("memorised", KEY_SPLIT),
        share("memorised", "train"),
        share("generalised", "train"),
        share("generalised", "test"),
        *(share("generalised", "test", code) for code in OTHERS),
        share("generalised", "unrelated"),
        max(worst, default=None),
        share("generalised", "decoy"),
        *(knew.get(checkpoint) for checkpoint in (BASE, last["generalised"])),
    ]


def _last(rows: list[Result], kind: str) -> str | None:
    named = [r.checkpoint for r in rows if CheckpointName.parse(r.checkpoint).kind == kind]
    return named[-1] if named else None
