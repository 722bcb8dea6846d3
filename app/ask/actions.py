"""What a click or a press of Enter on the Ask page does: it writes questions, or changes what is shown."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from app.ask.form import filled_by
from app.ask.view import MODES, ROWS, View, opened, shown_columns
from app.asking.asker import Asker
from app.asking.columns import MOST_COLUMNS, models_of
from app.asking.submit import Settings, ask_fact, ask_facts, ask_text, put_to, read_settings, run_to_ask
from app.shared.lab import Lab
from engine.serving.asking.questions import AskError
from storage.asking_queue import forget_errors, want_alternatives
from storage.askings import Answer, Asking, get_answer, get_asking, list_columns


@dataclass(frozen=True)
class After:
    """The view afterwards; form: the values that the form is built again with (None: it stays as it is)."""

    view: View
    form: dict[str, Any] | None = None


@dataclass(frozen=True)
class Click:
    """One click, or the form sent off. fields: the data-* values of what was clicked, or the fields of the form."""

    lab: Lab
    view: View
    fields: dict[str, Any]

    def text(self, name: str = "value") -> str:
        """A field as text; empty where there is none."""
        return str(self.fields.get(name) or "")

    @property
    def mode(self) -> str:
        """The mode that was chosen, else the one that is shown."""
        return self.text("mode") if self.text("mode") in MODES else self.view.mode

    @property
    def asking(self) -> Asking:
        """The asking that is shown. Raises AskError."""
        try:
            return get_asking(self.lab.db, self.view.asked)
        except KeyError:
            raise AskError("What was asked is not there any more: ask again.") from None

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns that are shown."""
        return shown_columns(self.view, list_columns(self.lab.db, self.view.asked))

    @property
    def answer(self) -> Answer | None:
        """The opened answer."""
        place = opened(self.view.answer)
        return get_answer(self.lab.db, self.view.asked, place[1], place[0]) if place else None


def act_on(lab: Lab, asker: Asker, view: View, fields: dict[str, Any]) -> After:
    """Carry out a click on a part of the page. Raises AskError; an unknown action changes nothing."""
    click = Click(lab, view, fields)
    action = ACTIONS.get(click.text("act"))
    after = action(click) if action else After(view)
    asker.wake()
    return after


def _ask(click: Click) -> After:
    run = run_to_ask(click.lab, click.text("run"))
    sampled = click.text("decoding") == "sampled"
    settings = read_settings({n: click.fields.get(n) for n in (Settings.model_fields if sampled else ["max_tokens"])})
    # The same models as before, if they were chosen on purpose and the run is the same.
    columns = click.view.columns if click.view.run == run.id else ()
    if click.mode == "text":
        asking = ask_text(click.lab, run, click.text("text"), settings, columns)
    elif click.mode == "facts":
        asking = ask_facts(click.lab, run, click.text("prompt"), click.text("relation"), settings, columns)
    else:
        languages = [click.text("language")] if click.text("language") else []
        asking = ask_fact(click.lab, run, click.text("subject"), click.text("relation"), languages, settings, columns)
    return After(View(run=run.id, asked=asking, mode=click.mode, columns=columns))


def _add(click: Click) -> After:
    model, columns = click.text(), click.columns
    if not model or model in columns:
        return After(click.view)
    if len(columns) >= MOST_COLUMNS:
        raise AskError(f"{MOST_COLUMNS} columns are the most that fit: take one away first.")
    put_to(click.lab, click.asking.id, [model])
    return After(click.view.but(columns=(*columns, model)))


def _remove(click: Click) -> After:
    left = tuple(m for m in click.columns if m != click.text())
    if not left:
        raise AskError("The last column stays: add another model before you take this one away.")
    return After(click.view.but(columns=left))


def _swap(click: Click) -> After:
    asking = click.asking
    models = models_of(click.lab, run_to_ask(click.lab, asking.run))
    columns = models.epochs if click.text("act") == "epochs" else models.stages
    if not columns:
        raise AskError(models.problem or "This run has no models to ask.")
    put_to(click.lab, asking.id, columns)
    return After(click.view.but(columns=columns))


def _again(click: Click) -> After:
    put_to(click.lab, click.asking.id, [click.text()])
    forget_errors(click.lab.db, click.view.asked, click.text())
    return After(click.view)


def _token(click: Click) -> After:
    number, answer = click.text(), click.answer
    if answer is None or not number.isdecimal() or len(number) > 4 or int(number) >= len(answer.tokens):
        return After(click.view)
    view = click.view.but(token=int(number))
    if place := view.token_place():
        want_alternatives(click.lab.db, place)
    return After(view)


def _refill(mode: str) -> Callable[[Click], After]:
    """The form filled with the opened answer's question, to be asked in another way."""

    def refill(click: Click) -> After:
        answer = click.answer
        if answer is None:
            return After(click.view)
        view = click.view.but(mode=mode, answer="", token=None)
        return After(view, filled_by(click.asking, answer.question, mode))

    return refill


ACTIONS: dict[str, Callable[[Click], After]] = {
    "ask": _ask,
    "run": lambda click: After(View(run=click.text(), mode=click.mode), {}),
    "mode": lambda click: After(click.view.but(mode=click.mode)),
    "add": _add,
    "remove": _remove,
    "stages": _swap,
    "epochs": _swap,
    "again": _again,
    "open": lambda click: After(click.view.but(answer=click.text(), token=None).cleaned()),
    "close": lambda click: After(click.view.but(answer="", token=None)),
    "token": _token,
    "more": lambda click: After(click.view.but(rows=click.view.rows + 5 * ROWS)),
    "as-text": _refill("text"),
    "as-fact": _refill("fact"),
    "as-facts": _refill("facts"),
}
