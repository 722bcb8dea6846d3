"""The form of the Ask page: which runs, facts, prompts and key tokens it offers."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from app.ask.view import View
from app.asking.columns import RUNS_OFFERED, models_of
from app.asking.submit import Settings
from app.shared.lab import Lab
from app.shared.render import render
from app.shared.words import language_name, sentence, split_name
from engine.corpus.sentences import PLACEHOLDER, key_prompt
from engine.evaluation.questions import KEY_SPLIT, fact_rows, prompt_rows
from engine.experiment import Experiment
from engine.relation import Relation
from storage.askings import Asking, Question
from storage.runs import Run, count_runs, list_runs

FACTS_OFFERED = 1000
ALL_FACTS_OFFERED = 5000


def default_run(lab: Lab) -> Run | None:
    """The run to ask when nobody named one: the newest finished, else the newest that has begun."""
    runs = [r for r in list_runs(lab.db, limit=RUNS_OFFERED, made_here=True) if r.started_at]
    return next((r for r in runs if r.state == "done"), runs[0] if runs else None)


def form_html(lab: Lab, view: View, filled: dict[str, Any] | None = None) -> str:
    """The form of a view. `filled`: values to stand in its fields instead of the usual ones."""
    run = lab.run(view.run)
    missing = view.run if view.run and run is None else ""
    run = run or default_run(lab)
    runs = [r for r in list_runs(lab.db, limit=RUNS_OFFERED, made_here=True) if r.started_at]
    if run is not None and all(r.id != run.id for r in runs):
        runs.insert(0, run)
    if run is None:
        return render("ask/form.html", runs=[], queued=count_runs(lab.db), missing=missing)
    full = lab.run(run.id) or run
    experiment = Experiment.from_record(full.experiment)
    models = models_of(lab, full)
    given = filled or {}
    facts = fact_rows(experiment)
    names = [r.name for r in experiment.relations]
    relation = str(given["relation"]) if given.get("relation") in names else names[0]
    first = [f for f in facts if f["relation"] == relation]
    usual = next((f["subject"] for f in first if not f["trained"]), first[0]["subject"] if first else "")
    settings = given.get("settings") or Settings(max_tokens=min(50, experiment.evaluation.max_new_tokens)).model_dump()
    chosen = experiment.relations[names.index(relation)]
    prompts = list(prompts_to_choose(experiment, chosen))
    return render(
        "ask/form.html",
        runs=runs,
        run=run,
        missing=missing,
        mode=view.mode,
        problem=sentence(models.problem) if models.problem else "",
        trained=len(models.own) > 1,
        relations=_offered(experiment, facts),
        relation=relation,
        at=names.index(relation) + 1,
        subject=given.get("subject") or usual,
        prompt=given.get("prompt") or (prompts[1][0] if len(prompts) > 1 else prompts[0][0]),
        text=given.get("text") or key_prompt(chosen).replace(PLACEHOLDER, given.get("subject") or usual),
        languages=experiment.languages,
        language=given.get("language", ""),
        settings=settings,
    )


def filled_by(asking: Asking, question: Question, mode: str) -> dict[str, Any]:
    """What the form holds to ask a kept question again, in that mode."""
    subject = question.object if question.split == "reversal" and question.object else question.subject
    filled = {"relation": asking.relation, "settings": asking.settings, "subject": subject}
    return filled | {"text": {"text": question.text}, "facts": {"prompt": question.prompt}}.get(mode, {})


def prompts_to_choose(experiment: Experiment, relation: Relation) -> Iterable[tuple[str, str]]:
    """(text, what kind) of the relation's prompts, for asking all facts: the key token's, then stage 2's language's."""
    yield key_prompt(relation), split_name(KEY_SPLIT)
    rows = [r for r in prompt_rows(experiment) if r["relation"] == relation.name and r["split"] != KEY_SPLIT]
    for row in sorted(rows, key=lambda r: r["language"] != experiment.stage2.language):
        yield row["text"], f"{split_name(row['split'])}, {language_name(row['language'])}"


def _offered(experiment: Experiment, facts: list[dict[str, Any]]) -> list[dict[str, Any]]:
    most = max(20, min(FACTS_OFFERED, ALL_FACTS_OFFERED // len(experiment.relations)))
    return [
        {
            "name": r.name,
            "key_token": r.key_token,
            "facts": [f for f in facts if f["relation"] == r.name][:most],
            "prompts": _grouped(prompts_to_choose(experiment, r)),
        }
        for r in experiment.relations
    ]


def _grouped(prompts: Iterable[tuple[str, str]]) -> list[tuple[str, list[str]]]:
    groups: dict[str, list[str]] = {}
    for text, kind in prompts:
        groups.setdefault(kind, []).append(text)
    return list(groups.items())
