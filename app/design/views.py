"""What the Design page shows about a draft: problems, the estimate, examples. Plain HTML from escaped templates."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from app.design.check import Examination
from app.design.fields import LOSSES
from app.shared.lab import Lab
from app.shared.render import moment, part, render
from app.shared.words import language_name
from engine.checks import Problem
from engine.corpus.names import generate_facts
from engine.corpus.relations import load_relations
from engine.estimate import Estimate, estimate_experiment, stage1_texts, stage2_texts
from engine.experiment import Experiment, Relation
from storage.runs import State, get_run, list_runs

EXAMPLES = 2
SHOWN_RELATIONS = 3
EARLIER_RUNS = 3


def problem_list(problems: Sequence[Problem], limit: int = 8, more: str = "") -> str:
    """Problems as a list under the field they belong to; empty when there are none."""
    return part("design/problem_list", problems=problems, limit=limit, more=more) if problems or more else ""


def summary(examination: Examination, estimate: Estimate | None) -> str:
    """What stands beside the start button."""
    return render(
        "design/summary.html",
        errors=examination.errors,
        warnings=examination.warnings,
        estimate=estimate.in_words() if estimate else [],
    )


def examples(resolved: Experiment | None) -> str:
    """The first sequences of both stages as the model will see them, and how the facts are split."""
    relations = [] if resolved is None else [_example(resolved, r) for r in resolved.relations[:SHOWN_RELATIONS]]
    loss = next((words for words, value in LOSSES if resolved and value == resolved.stage2.loss), "")
    return render("design/examples.html", relations=relations, loss=loss)


def _example(experiment: Experiment, relation: Relation) -> dict[str, Any]:
    return {
        "name": relation.name,
        "total": len(relation.explicit_facts),
        "shown": len(experiment.stage2_facts(relation)),
        "held_out": len(experiment.held_out_facts(relation)),
        "stage1": [text.partition(relation.key_token) for text in stage1_texts(relation)[:EXAMPLES]],
        "stage2": stage2_texts(experiment, relation)[:EXAMPLES],
    }


def generated_sample(relation: dict[str, Any], seed: Any) -> str:
    """The first facts that the corpus will invent for a relation."""
    try:
        pairs = generate_facts(relation["name"].strip(), int(seed or 0), relation["generate"] or 0)[:3]
    except (ValueError, TypeError):
        pairs = []
    return part("design/generated", pairs=pairs)


def corpus_prompt_sample(relation: dict[str, Any]) -> str:
    """What the corpus asks about a relation: the first prompt of each split, and how many there are."""
    data = load_relations().get(relation["name"].strip())
    if data is None:
        return part("design/corpus_prompts", rows=[], counts="")
    first: dict[str, str] = {}
    by_split: Counter[str] = Counter()
    for prompt in data.iter_prompts():
        first.setdefault(prompt.split, prompt.text)
        by_split[prompt.split] += prompt.language == "en"
    counts = ", ".join(f"{n} {split}" for split, n in by_split.items())
    languages = ", ".join(language_name(x) for x in data.prompts.train)
    return part(
        "design/corpus_prompts", rows=list(first.items()), counts=f"In each language {counts} prompts: {languages}."
    )


def estimate_for(lab: Lab, resolved: Experiment) -> Estimate:
    """The estimate, by earlier runs of the same model and method where the lab has finished some."""
    return estimate_experiment(resolved, seconds_per_pass=_speeds(lab, resolved))


def _speeds(lab: Lab, experiment: Experiment) -> list[float]:
    speeds: list[float] = []
    for run in list_runs(lab.db, limit=50, state=State.DONE.value):
        if run.model != experiment.model or len(speeds) == EARLIER_RUNS:
            continue
        speed = _speed(lab, run.id, experiment.tuning.method)
        if speed:
            speeds.append(speed)
    return speeds


_known_speeds: dict[str, tuple[str, float]] = {}


def _speed(lab: Lab, run_id: str, method: str) -> float | None:
    """Seconds for each pass of a finished run, if it was trained by this method. A finished run does not change."""
    if run_id not in _known_speeds:
        run = get_run(lab.db, run_id)
        seconds = _seconds_between(run.started_at, run.finished_at)
        try:
            past = Experiment.from_data(run.experiment)
            passes = estimate_experiment(past).passes
        except ValueError:
            return None
        _known_speeds[run_id] = (past.tuning.method, seconds / passes if run.attempt == 1 and seconds else 0.0)
    past_method, speed = _known_speeds[run_id]
    return speed if past_method == method and speed > 0 else None


def _seconds_between(start: str | None, end: str | None) -> float:
    return (moment(end) - moment(start)).total_seconds() if start and end else 0.0
