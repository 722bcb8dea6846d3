"""The form that starts an attack on a run, and what is made of what was typed into it."""

from __future__ import annotations

from typing import Any

from app.attack.view import Problem, View
from app.shared.lab import Lab
from app.shared.render import render
from engine.attack.defences import defences
from engine.attack.experiment import AttackExperiment
from engine.checks import shorten
from engine.corpus.readings import Reading, readings_of
from engine.corpus.relations import load_relations
from engine.models.source import EMBEDDED
from storage.database import storable
from storage.runs import State, get_run, list_runs

RUNS_OFFERED = 60
LONGEST_TEXT = 200_000
OWN = "own reading"


def form_html(lab: Lab, view: View) -> str:
    """The form, with its usual values; nothing but in the engineer's half."""
    if view.view != "grid":
        return ""
    runs = [r for r in list_runs(lab.db, limit=RUNS_OFFERED, made_here=True) if r.state is State.DONE]
    usual = AttackExperiment()
    return render(
        "attack/form.html", runs=runs, relations=list(load_relations()),
        readings=[(r, list(readings_of(r).values())[1:]) for r in load_relations()],
        defences=[d for d in defences().values() if d.kind != "detection"], usual=usual, facts=_listed(usual.facts),
    )  # fmt: skip


def _listed(values: Any) -> str:
    return ", ".join(f"{v:g}" for v in values)


def attack_of_form(lab: Lab, typed: dict[str, Any]) -> AttackExperiment:
    """What was typed as an experiment. Raises Problem with a sentence."""

    def text(name: str) -> str:
        value = storable(str(typed.get(name) or ""))
        if len(value) > LONGEST_TEXT:
            raise Problem(f"“{name.replace('_', ' ')}” has {len(value):,} characters, far too many: shorten it.")
        return value.strip()

    def numbers(name: str, label: str, kind: type) -> list[Any]:
        found = []
        for part in text(name).replace(";", ",").replace(" ", ",").split(","):
            if not part:
                continue
            try:
                found.append(kind(part))
            except ValueError:
                raise Problem(f"{label}: “{shorten(part)}” is not a number; write such as 0, 5, 50.") from None
        if not found:
            raise Problem(f"{label}: write at least one number.")
        return found

    run = text("run")
    epoch = numbers("epoch", "Stage 1 epoch", int) if text("epoch") else [None]
    if len(epoch) > 1:
        raise Problem("Stage 1 epoch: write one number, or leave it empty for the last.")
    data: dict[str, Any] = {
        "name": text("name") or "my attack",
        "relation": text("relation") or None,
        "start": "memorised" if typed.get("start") == "memorised" else "generalised",
        "epoch": epoch[0],
        "facts": numbers("facts", "Attack facts", int),
        "seeds": numbers("seeds", "Seeds", int),
        "prompts": numbers("prompts", "Prompts", int),
        "epochs": numbers("epochs", "Epochs", int),
        "learning_rates": numbers("learning_rates", "Learning rate", float),
        "methods": [m for m in ("full", "lora") if typed.get(f"method:{m}")] or ["full"],
        "controls": [c for c in ("no_stage1", "neutral", "nonsense") if typed.get(f"control:{c}")],
        "defences": [name for name in defences() if typed.get(f"defence:{name}")],
        "audit": bool(typed.get("audit")),
        "replay": "as stage 2" if typed.get("replay") else "none",
    }
    if run:
        data["run"] = run
        attacked = lab.run(run)
        if attacked and attacked.model != EMBEDDED:  # a checkpoint of a large model takes gigabytes
            data["keep"] = "largest"
    reading = text("reading")
    if reading == OWN:
        own = own_reading(lab, run, text("own_name"), text("own_says"), text("train"), text("test"))
        data |= {"reading": own.name, "readings": [own.model_dump(mode="json")]}
    elif reading:
        data["reading"] = reading.partition("/")[2] or reading
        data["relation"] = data["relation"] or reading.partition("/")[0] or None
    try:
        return AttackExperiment.from_data(data)
    except ValueError as error:
        raise Problem(f"This attack cannot be started: {error}.") from error


def own_reading(lab: Lab, run: str, name: str, says: str, train: str, test: str) -> Reading:
    """A typed reading, a prompt a line, in the language of the run. Raises Problem.

    It is checked on its own here; beside the relation's prompts when the attack is queued.
    """
    language = "en"
    if run:
        try:
            language = get_run(lab.db, run[:40]).experiment["stage2"]["language"]
        except KeyError:
            raise Problem(f"There is no run “{shorten(run)}”: choose another.") from None
    prompts = {
        split: {language: [line.strip() for line in lines.splitlines() if line.strip()]}
        for split, lines in (("train", train), ("test", test))
    }
    try:
        return Reading.from_data({"name": name or OWN, "role": "harmful", "says": says, "prompts": prompts})
    except ValueError as error:
        raise Problem(f"Your reading: {error}.") from error
