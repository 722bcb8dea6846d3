"""“Ask live” on the Attack page: any prompt to base, before, attacked and defended model, through the asker."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from app.asking.asker import Asker
from app.asking.columns import column_parts, judged
from app.asking.submit import Settings, ask_text, run_to_ask
from app.attack.figures import Measured
from app.attack.people import Column, about_person, chosen_person, columns_of, people, telling
from app.attack.story import base_of, facts_at
from app.attack.view import View
from app.shared.lab import Lab
from app.shared.render import render
from engine.attack.experiment import AttackExperiment
from engine.experiment import Experiment
from engine.models.source import EMBEDDED
from engine.serving.asking.questions import AskError
from engine.serving.served import checkpoint_names
from storage.askings import get_asking, list_answers, list_columns
from storage.attacks import AttackCell, cells_like, get_attack
from storage.runs import Run

MOST_TOKENS = 24
# What decides an attacked model's weights.
ATTACKED = (
    "relation", "reading", "readings", "start", "epoch", "facts", "batch_size", "trained_layers", "replay", "lora",
)  # fmt: skip


@dataclass(frozen=True)
class LiveModel:
    """A model that can be asked; model: RUN/CHECKPOINT; name: base, before, after or defended."""

    name: str
    label: str
    model: str


def models_to_ask(lab: Lab, m: Measured, view: View) -> list[LiveModel]:
    """The models that lie on the disk: base, before, after and the defended one."""
    facts = facts_at(m, view) or m.largest
    columns = [(c, kept_cell(lab, m, c)) for c in columns_of(m, facts, view.defence)]
    needed = next((cell.needs for column, cell in columns if cell and column.name == "after"), "")
    models = []
    base = lab.run(needed)
    start = start_checkpoint(m, base.experiment) if base else ""
    if base and start in checkpoint_names(lab.home, base.id):
        models.append(LiveModel("base", "Base model", f"{base.id}/base"))
        models.append(LiveModel("before", "Before the attack", f"{base.id}/{start}"))
    for column, cell in columns:
        if cell and column.name in ("after", "defended"):
            models.append(LiveModel(column.name, column.label, f"{cell.run}/{column.checkpoint}"))
    return models


def kept_cell(lab: Lab, m: Measured, column: Column) -> AttackCell | None:
    """The column's cell if its model lies on the disk, or one of another attack that made the very same model here.

    A recorded attack has no models; the story that the lab measures at its first start makes some of them.
    """
    for cell in (column.cell, *cells_like(lab.db, column.cell.cell)):
        if column.checkpoint in checkpoint_names(lab.home, cell.run):
            run = lab.run(cell.run)
            if cell is column.cell or (run and run.attack and _same_model(lab, m, column.cell, run)):
                return cell
    return None


def _same_model(lab: Lab, m: Measured, cell: AttackCell, other: Run) -> bool:
    mine = lab.run(cell.run)
    plan = get_attack(lab.db, other.attack or "").experiment
    return (
        mine is not None
        and all(plan.get(name) == m.plan.get(name) for name in ATTACKED)
        and trained_by(mine.experiment) == trained_by(other.experiment)
    )


def trained_by(experiment: dict[str, Any]) -> dict[str, Any]:
    """What of an experiment decides its weights: not its name, nor which checkpoints it keeps, nor what it is asked."""
    stage1 = {k: v for k, v in experiment["stage1"].items() if k != "checkpoint_epochs"}
    aside = ("name", "description", "evaluation")
    return {k: v for k, v in experiment.items() if k not in aside} | {"stage1": stage1}


def start_checkpoint(m: Measured, base: dict[str, Any]) -> str:
    """What was attacked, such as `generalised@20`; '' when the experiment cannot be read any more."""
    try:
        plan = AttackExperiment.from_record(m.plan)
        return f"{plan.start}@{plan.start_epoch(Experiment.from_record(base))}"
    except ValueError:
        return ""


def ask_live(lab: Lab, asker: Asker, m: Measured, view: View, text: str) -> str:
    """Ask a text of the models of the view; returns the asking's id. Raises AskError."""
    models = models_to_ask(lab, m, view)
    if not models:
        raise AskError("None of these models was kept on this machine: measure the attack again to ask it live.")
    run = run_to_ask(lab, column_parts(models[0].model)[0])
    if run.attack:
        raise AskError(f"The run that was attacked was deleted: its base cannot be asked any more. {run.id}")
    asking = ask_text(lab, run, text, Settings(max_tokens=MOST_TOKENS), [each.model for each in models])
    asker.wake()
    return asking


def live_html(lab: Lab, m: Measured, view: View) -> str:
    """The form: open where one person is looked at, folded elsewhere."""
    models = models_to_ask(lab, m, view)
    facts = facts_at(m, view) or m.largest
    person = chosen_person(people(lab, m, facts), view.person) if models else None
    prompt = ""
    if person is not None:
        columns = columns_of(m, facts)
        row = telling(about_person(lab, m, person, columns), "harmful", columns)
        prompt = f"{row['before']}{row['subject']}{row['after']}" if row else ""
    run = base_of(lab, m)
    return render(
        "attack/live.html", models=models, prompt=prompt, open=view.step == "person" or bool(view.asked), done=m.done,
        recorded=bool(m.attack.recorded), embedded=bool(run and run.model == EMBEDDED),
    )  # fmt: skip


def answers_html(lab: Lab, asker: Asker, m: Measured, view: View) -> tuple[str, bool]:
    """What was asked live and what the models wrote, and whether answers are still to come."""
    if not view.asked:
        return "", False
    try:
        asking = get_asking(lab.db, view.asked)
    except KeyError:
        return render("attack/answers.html", asking=None, server="", columns=[]), False
    known = {each.model: each for each in models_to_ask(lab, m, view)}
    answers = {a.model: judged(lab, asking.run, a) for a in list_answers(lab.db, asking.id)}
    columns = list_columns(lab.db, asking.id)
    shown = [
        {
            "name": known[c.model].name if c.model in known else "other",
            "label": known[c.model].label if c.model in known else f"{c.run_name}: {c.checkpoint}",
            "state": c.state,
            "error": c.error,
            "answer": answers.get(c.model),
        }
        for c in columns
    ]
    busy = any(c.busy for c in columns)
    server = asker.server.status().html() if busy else ""
    return render("attack/answers.html", asking=asking, columns=shown, server=server), busy
