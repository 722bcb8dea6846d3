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
from engine.attack.presets import ATTACKS
from engine.execution.attacks.queue import queue_attack
from storage.attacks import attack_counts, get_attack, list_attacks, retry_attack, stop_attack

Clicked = dict[str, Any]
# After these the form to start an attack is drawn anew.
REBUILDING = ("view", "form", "delete")


@dataclass(frozen=True)
class Click:
    """One click: the page's parts that it may need, and `data`: the texts that go with what was clicked."""

    lab: Lab
    asker: Asker
    attacks: Attacks
    view: View
    data: Clicked

    @property
    def value(self) -> str:
        """The value of what was clicked."""
        return str(self.data.get("value") or "")

    @property
    def attack(self) -> str:
        """The attack that was clicked, else the one that is shown."""
        return str(self.data.get("attack") or self.view.attack)[:32]

    def number(self, name: str = "value") -> int:
        """A whole number that goes with the click; -1 when there is none."""
        text = str(self.data.get(name) or "")
        return int(text) if text.isdecimal() and len(text) < 8 else -1

    def measured(self) -> Measured:
        """The attack that is shown. Raises KeyError when it is gone."""
        return self.attacks.measured(self.view.attack)

    def people(self) -> list[dict[str, Any]]:
        """The persons among whom one is chosen, and how the view's attack changed what is said of them."""
        m = self.measured()
        return people(self.lab, m, facts_at(m, self.view) or m.largest)

    def show(self, attack: str) -> View:
        """The view of another attack, at the same step."""
        return View(attack=attack, step=self.view.step, view=self.view.view)


def act_on(lab: Lab, asker: Asker, attacks: Attacks, view: View, clicked: Clicked) -> View:
    """Carry out a click; returns the view after it. Raises Problem and AskError; an unknown action changes nothing."""
    picked = str(clicked.get("pick") or "")
    if picked.startswith("open:"):
        clicked = {"act": "open", "value": picked.removeprefix("open:")}
    action = ACTIONS.get(str(clicked.get("act")))
    if action is None:
        return view
    try:
        return action(Click(lab, asker, attacks, view.but(unknown=""), clicked)).cleaned()
    except KeyError:
        raise Problem("This attack is no longer there.") from None


def _step(click: Click) -> View:
    step = click.value if click.value in STEPS else click.view.step
    return click.view.but(step=step, opened="")


def _view(click: Click) -> View:
    kind = click.value if click.value in VIEWS else "story"
    return click.view.but(view=kind, opened="")


def _attack(click: Click) -> View:
    return click.show(get_attack(click.lab.db, click.value[:32]).id)


def _start(click: Click) -> View:
    if click.value not in ATTACKS.names():
        raise Problem("There is no such preset.")
    for attack in list_attacks(click.lab.db):
        # Two clicks, or two people, want it once.
        if attack.name == click.value and set(attack_counts(click.lab.db, attack.id)) & {"queued", "running"}:
            return click.show(attack.id)
    return _queued(click, ATTACKS.load(click.value))


def _again(click: Click) -> View:
    plan = AttackExperiment.from_record(get_attack(click.lab.db, click.attack).experiment)
    return _queued(click, plan)


def _form(click: Click) -> View:
    return _queued(click, attack_of_form(click.lab, click.data)).but(view="grid")


def _queued(click: Click, plan: AttackExperiment) -> View:
    try:
        attack = queue_attack(click.lab.db, plan)
    except ValueError as error:
        raise Problem(f"This attack cannot be started: {error}.") from error
    return click.show(attack)


def _stop(click: Click) -> View:
    stop_attack(click.lab.db, click.attack)
    return click.view


def _retry(click: Click) -> View:
    retry_attack(click.lab.db, click.attack)
    return click.view


def _delete(click: Click) -> View:
    try:
        click.lab.delete_attack(click.attack)
    except ValueError as error:
        raise Problem(sentence(str(error))) from error
    gone = click.attack == click.view.attack
    return View(view="grid") if gone else click.view


def _lock(click: Click) -> View:
    guess = click.number("number")
    if guess < 0:
        raise Problem("Choose a number first.")
    return click.view.but(guess=min(guess, click.measured().persons))


def _person(click: Click) -> View:
    typed = str(click.data.get("person") or "").strip()[:200]
    wanted = typed.casefold()
    everybody = click.people()
    exact = [p for p in everybody if p["subject"].casefold() == wanted]
    near = exact or [p for p in everybody if wanted and wanted in p["subject"].casefold()]
    if not near:
        return click.view.but(unknown=typed or "Nobody")
    return click.view.but(person=near[0]["id"], asked="")


def _surprise(click: Click) -> View:
    return click.view.but(person=surprise(click.people(), click.view.person), asked="")


def _ask(click: Click) -> View:
    text = str(click.data.get("text") or "")
    return click.view.but(asked=ask_live(click.lab, click.asker, click.measured(), click.view, text))


def _filter(click: Click) -> View:
    name, value = str(click.data.get("name") or "")[:20], click.value[:80]
    kept = dict(pair.partition("=")[::2] for pair in click.view.filters.split(";") if "=" in pair)
    kept = {k: v for k, v in (kept | {name: value.replace(";", "")}).items() if v}
    return click.view.but(filters=";".join(f"{k}={v}" for k, v in sorted(kept.items())), rows=1)


ACTIONS: dict[str, Callable[[Click], View]] = {
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
    "unlock": lambda click: click.view.but(guess=-1),
    "facts": lambda click: click.view.but(facts=click.number()),
    "defence": lambda click: click.view.but(defence=click.value),
    "control": lambda click: click.view.but(control=click.value),
    "person": _person,
    "surprise": _surprise,
    "ask": _ask,
    "forget": lambda click: click.view.but(asked=""),
    "open": lambda click: click.view.but(opened=click.value, which="", rows=1),
    "close": lambda click: click.view.but(opened="", which="", rows=1),
    "which": lambda click: click.view.but(which=click.value, rows=1),
    "page": lambda click: click.view.but(rows=max(1, click.number())),
    "filter": _filter,
}
