"""The results document: what `--results` writes and the page exports; the headline; and figures of older labs."""

from __future__ import annotations

from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

from sqlite_utils import Database

from engine.evaluation.answer import Answer
from engine.evaluation.hits import key_token_judge
from engine.evaluation.summary import UNAIDED, summarise
from engine.experiment import Experiment
from storage.answer_search import Wanted, iterate_answers
from storage.answers import ANSWERS_NAME, all_answers, open_answers
from storage.folders import run_folder
from storage.measurements import RESULT_FIELDS, Result, list_results
from storage.representations import RepresentationFigure, list_representations
from storage.runs import Run

HEADLINE_METRIC = "generation_accuracy"
RUN_FIELDS = (
    "id", "name", "state", "seed", "created_at", "started_at", "finished_at", "error", "environment", "recorded",
)  # fmt: skip


def results_document(db: Database, home: Path, run: Run) -> dict[str, Any]:
    """`{"run": …, "experiment": …, "rows": […], "representations": […]}` of a run, as far as it has come.

    `home`: where its answers are.
    """
    return {
        "run": {name: getattr(run, name) for name in RUN_FIELDS} | {"state": run.state.value},
        "experiment": run.experiment,
        "rows": [vars(row) for row in with_twins(list_results(db, run.id), run, home)],
        "representations": [vars(figure) for figure in representations_of(run_folder(home, run.id))],
    }


def representations_of(folder: Path) -> list[RepresentationFigure]:
    """How the checkpoints of the run in `folder` represent its prompts; nothing where that was not looked at."""
    if not (folder / ANSWERS_NAME).is_file():
        return []
    with closing(open_answers(folder)) as answers:
        return list_representations(answers)


def headline(rows: list[Result], checkpoint: str, language: str) -> dict[str, Any]:
    """The figures for the list of runs: held-out facts, generation accuracy of one checkpoint, by split.

    `unaided`: the same without answers that say a key token on their way, where that is another figure. `facts`:
    trained, where none was held out.
    """
    asked = [r for r in rows if (r.checkpoint, r.language) == (checkpoint, language)]
    chosen = [r for r in asked if r.facts == "held_out"] or asked
    twins = {row.split: _figures(row) for row in chosen if row.metric == UNAIDED}
    figures = {row.split: _figures(row) for row in chosen if row.metric == HEADLINE_METRIC}
    return {
        split: row if twins.get(split, row) == row else row | {"unaided": twins[split]}
        for split, row in figures.items()
    }


def _figures(row: Result) -> dict[str, Any]:
    figures = {key: getattr(row, key) for key in ("value", "low", "high", "n", "n_facts")}
    return figures | ({} if row.facts == "held_out" else {"facts": row.facts})


def key_tokens_of(experiment: dict[str, Any]) -> tuple[str, ...]:
    """The key tokens that a stored experiment uses."""
    used = (r for r in experiment.get("relations", []) if "{key}" in r.get("key_template", "{key}"))
    return tuple(relation["key_token"] for relation in used if relation.get("key_token"))


def lacking(rows: list[Result]) -> tuple[str, ...]:
    """The checkpoints whose rows are of a lab that did not know `generation_accuracy_unaided` yet."""
    have = {row.checkpoint for row in rows if row.metric == UNAIDED}
    return tuple(dict.fromkeys(r.checkpoint for r in rows if r.metric == HEADLINE_METRIC and r.checkpoint not in have))


def with_twins(rows: list[Result], run: Run, home: Path) -> list[Result]:
    """The rows, and the twin of each generation accuracy that an older lab stored without one, made of the run's
    answers. Without these it is left out: not measured."""
    folder, wanting = run_folder(home, run.id), lacking(rows)
    if not wanting or not (folder / ANSWERS_NAME).exists():
        return rows
    judge = key_token_judge(key_tokens_of(run.experiment))
    twins: dict[tuple[str, ...], Result] = {}
    with closing(open_answers(folder, judge)) as answers:
        for checkpoint in wanting:
            mine = [r for r in rows if r.checkpoint == checkpoint and r.metric == HEADLINE_METRIC]
            aloud = Wanted(checkpoint=checkpoint, hit=True, says_key_token=True)
            if next(iterate_answers(answers, aloud, 1), None) is None:
                made = [replace(row, metric=UNAIDED) for row in mine]
            else:
                given = [Answer(**row) for row in all_answers(answers, checkpoint)]
                counted = summarise(given, Experiment.from_record(run.experiment), checkpoint)
                made = [Result(**{k: r[k] for k in RESULT_FIELDS}) for r in counted if r["metric"] == UNAIDED]
            twins |= {_place(row): row for row in made}
    found = []
    for row in rows:
        found.append(row)
        if row.metric == HEADLINE_METRIC and _place(row) in twins:
            found.append(twins[_place(row)])
    return found


def _place(row: Result) -> tuple[str, ...]:
    return row.checkpoint, row.facts, row.split, row.language


def among_words(rows: list[Result], asked: int) -> str:
    """Among how many options the choices of these rows were: ‘among 4 options (10 asked for)’; '' where none tells."""
    counts = [n for row in rows for n in (row.options_least, row.options_most) if n is not None]
    if not counts:
        return ""
    least, most = min(counts), max(counts)
    wanted = "" if least == most == asked else f" ({asked:,} asked for)"
    return f"among {least:,} options{wanted}" if least == most else f"among {least:,} to {most:,} options{wanted}"
