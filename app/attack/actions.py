"""What a click on the Attack page does: it changes what is shown, puts attacks into the queue, or asks live."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from app.asking.asker import Asker
from app.attack.figures import Attacks, Measured
from app.attack.form import attack_of_form
from app.attack.live import ask_live
from app.attack.people import people, surprise
from app.attack.story import facts_at
from app.attack.view import STEPS, VIEWS, Problem, View
from app.shared.lab import Lab
from app.shared.words import sentence
from engine.attack.experiment import AttackExperiment
from engine.attack.presets import attack_preset_names, load_attack_preset
from engine.execution.attacks.queue import queue_attack
from storage.attacks import attack_counts, get_attack, list_attacks, retry_attack, stop_attack

Told = dict[str, Any]


@dataclass(frozen=True)
class After:
    """The view afterwards; rebuild: draw the form to start an attack anew."""

    view: View
    rebuild: bool = False


@dataclass(frozen=True)
class Click:
    """One click: the page's parts that it may need, and what was told."""

    lab: Lab
    asker: Asker
    attacks: Attacks
    view: View
    told: Told

    @property
    def value(self) -> str:
        """The value of what was clicked."""
        return str(self.told.get("value") or "")

    @property
    def attack(self) -> str:
        """The attack that was clicked, else the one that is shown."""
        return str(self.told.get("attack") or self.view.attack)[:32]

    def number(self, name: str = "value") -> int:
        """A whole number that was told; -1 when it is none."""
        text = str(self.told.get(name) or "")
        return int(text) if text.isdecimal() and len(text) < 8 else -1

    def measured(self) -> Measured:
        """The attack that is shown. Raises Problem."""
        try:
            return self.attacks.measured(get_attack(self.lab.db, self.view.attack))
        except KeyError:
            raise Problem("This attack is no longer there.") from None


def act_on(lab: Lab, asker: Asker, attacks: Attacks, view: View, told: Told) -> After:
    """Carry out what a part of the page told. Raises Problem and AskError; an unknown action changes nothing."""
    picked = str(told.get("pick") or "")
    if picked.startswith("open:"):
        told = {"act": "open", "value": picked.removeprefix("open:")}
    action = ACTIONS.get(str(told.get("act")))
    if action is None:
        return After(view)
    try:
        after = action(Click(lab, asker, attacks, view.but(unknown=""), told))
    except KeyError:
        raise Problem("This attack is no longer there.") from None
    return After(after.view.cleaned(), after.rebuild)


def _step(click: Click) -> After:
    step = click.value if click.value in STEPS else click.view.step
    return After(click.view.but(step=step, opened=""))


def _view(click: Click) -> After:
    kind = click.value if click.value in VIEWS else "story"
    return After(click.view.but(view=kind, opened=""), rebuild=kind == "grid")


def _attack(click: Click) -> After:
    found = get_attack(click.lab.db, click.value[:32])
    return After(View(attack=found.id, step=click.view.step, view=click.view.view))


def _start(click: Click) -> After:
    if click.value not in attack_preset_names():
        raise Problem("There is no such preset.")
    for attack in list_attacks(click.lab.db):
        # Two clicks, or two people, want it once.
        if attack.name == click.value and set(attack_counts(click.lab.db, attack.id)) & {"queued", "running"}:
            return After(View(attack=attack.id, step=click.view.step, view=click.view.view))
    return After(_queued(click, load_attack_preset(click.value)))


def _again(click: Click) -> After:
    plan = AttackExperiment.from_data(get_attack(click.lab.db, click.attack).experiment)
    return After(_queued(click, plan))


def _form(click: Click) -> After:
    return After(_queued(click, attack_of_form(click.lab, click.told)).but(view="grid"), rebuild=True)


def _queued(click: Click, plan: AttackExperiment) -> View:
    try:
        attack = queue_attack(click.lab.db, plan)
    except ValueError as error:
        raise Problem(f"This attack cannot be started: {error}.") from error
    return View(attack=attack, step=click.view.step, view=click.view.view)


def _stop(click: Click) -> After:
    stop_attack(click.lab.db, click.attack)
    return After(click.view)


def _retry(click: Click) -> After:
    retry_attack(click.lab.db, click.attack)
    return After(click.view)


def _delete(click: Click) -> After:
    try:
        click.lab.delete_attack(click.attack)
    except ValueError as error:
        raise Problem(sentence(str(error))) from error
    gone = click.attack == click.view.attack
    return After(View(view="grid") if gone else click.view, rebuild=True)


def _lock(click: Click) -> After:
    guess = click.number("number")
    if guess < 0:
        raise Problem("Choose a number first.")
    return After(click.view.but(guess=min(guess, click.measured().persons)))


def _person(click: Click) -> After:
    typed = str(click.told.get("person") or "").strip()[:200]
    m = click.measured()
    found = people(click.lab, m, facts_at(m, click.view) or m.largest)
    wanted = typed.casefold()
    exact = [p for p in found if p["subject"].casefold() == wanted]
    near = exact or [p for p in found if wanted and wanted in p["subject"].casefold()]
    if not near:
        return After(click.view.but(unknown=typed or "Nobody"))
    return After(click.view.but(person=near[0]["id"], asked=""))


def _surprise(click: Click) -> After:
    m = click.measured()
    found = people(click.lab, m, facts_at(m, click.view) or m.largest)
    return After(click.view.but(person=surprise(found, click.view.person), asked=""))


def _ask(click: Click) -> After:
    text = str(click.told.get("text") or "")
    return After(click.view.but(asked=ask_live(click.lab, click.asker, click.measured(), click.view, text)))


def _filter(click: Click) -> After:
    name, value = str(click.told.get("name") or "")[:20], click.value[:80]
    kept = dict(pair.partition("=")[::2] for pair in click.view.filters.split(";") if "=" in pair)
    kept = {k: v for k, v in (kept | {name: value.replace(";", "")}).items() if v}
    return After(click.view.but(filters=";".join(f"{k}={v}" for k, v in sorted(kept.items())), rows=1))


ACTIONS: dict[str, Callable[[Click], After]] = {
    "step": _step,
    "view": _view,
    "attack": _attack,
    "start": _start,
    "again": _again,
    "form": _form,
    "stop": _stop,
    "retry": _retry,
    "delete": _delete,
    "lock": _lock,
    "unlock": lambda click: After(click.view.but(guess=-1)),
    "facts": lambda click: After(click.view.but(facts=click.number())),
    "defence": lambda click: After(click.view.but(defence=click.value)),
    "control": lambda click: After(click.view.but(control=click.value)),
    "person": _person,
    "surprise": _surprise,
    "ask": _ask,
    "forget": lambda click: After(click.view.but(asked="")),
    "open": lambda click: After(click.view.but(opened=click.value, which="", rows=1)),
    "close": lambda click: After(click.view.but(opened="", which="", rows=1)),
    "which": lambda click: After(click.view.but(which=click.value, rows=1)),
    "page": lambda click: After(click.view.but(rows=max(1, click.number()))),
    "filter": _filter,
}
