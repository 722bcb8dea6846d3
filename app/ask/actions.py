"""What a click or a press of Enter on the Ask page does: it writes questions, or changes what is shown."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from app.ask.view import MODES, ROWS, View, opened, shown_columns
from app.asking.asker import Asker
from app.asking.columns import MOST_COLUMNS, models_of
from app.asking.submit import Settings, ask_fact, ask_facts, ask_text, put_to, read_settings, run_to_ask
from app.shared.lab import Lab
from app.shared.view import one_of
from engine.serving.asking.questions import AskError
from storage.asking_queue import forget_errors, want_alternatives
from storage.askings import Answer, get_answer, get_asking, list_columns

# The view afterwards, and the values the form is built again with (None: it stays as it is).
After = tuple[View, dict[str, Any] | None]
# The data-* values of what was clicked, or the fields of the form.
Clicked = dict[str, Any]


def act_on(lab: Lab, asker: Asker, view: View, clicked: Clicked) -> After:
    """Carry out a click on a part of the page. Raises AskError; an unknown action changes nothing."""
    action = ACTIONS.get(str(clicked.get("act")))
    after = action(lab, view, clicked) if action else (view, None)
    asker.wake()
    return after


def _ask(lab: Lab, view: View, clicked: Clicked) -> After:
    run = run_to_ask(lab, str(clicked.get("run") or ""))
    mode = one_of(MODES, str(clicked.get("mode")))
    settings = _settings(clicked)
    relation = str(clicked.get("relation") or "")
    # The same models as before, if they were chosen on purpose and the run is the same.
    columns = view.columns if view.run == run.id else ()
    if mode == "text":
        asking = ask_text(lab, run, str(clicked.get("text") or ""), settings, columns)
    elif mode == "facts":
        asking = ask_facts(lab, run, str(clicked.get("prompt") or ""), relation, settings, columns)
    else:
        language = str(clicked.get("language") or "")
        languages = [language] if language else []
        asking = ask_fact(lab, run, str(clicked.get("subject") or ""), relation, languages, settings, columns)
    return View(run=run.id, asked=asking, mode=mode, columns=columns), None


def _settings(clicked: Clicked) -> Settings:
    names = ["max_tokens"] if clicked.get("decoding") != "sampled" else list(Settings.model_fields)
    return read_settings({name: clicked.get(name) for name in names})


def _choose_run(lab: Lab, view: View, clicked: Clicked) -> After:
    return View(run=str(clicked.get("value") or ""), mode=_mode(view, clicked)), {}


def _mode(view: View, clicked: Clicked) -> str:
    return str(clicked["mode"]) if clicked.get("mode") in MODES else view.mode


def _set_mode(lab: Lab, view: View, clicked: Clicked) -> After:
    return view.but(mode=_mode(view, clicked)), None


def _columns(lab: Lab, view: View) -> tuple[str, ...]:
    return shown_columns(view, list_columns(lab.db, view.asked))


def _add(lab: Lab, view: View, clicked: Clicked) -> After:
    model, columns = str(clicked.get("value") or ""), _columns(lab, view)
    if not model or model in columns:
        return view, None
    if len(columns) >= MOST_COLUMNS:
        raise AskError(f"{MOST_COLUMNS} columns are the most that fit: take one away first.")
    put_to(lab, _asking(lab, view), [model])
    return view.but(columns=(*columns, model)), None


def _remove(lab: Lab, view: View, clicked: Clicked) -> After:
    left = tuple(m for m in _columns(lab, view) if m != clicked.get("value"))
    if not left:
        raise AskError("The last column stays: add another model before you take this one away.")
    return view.but(columns=left), None


def _swap(kind: str) -> Callable[[Lab, View, Clicked], After]:
    def swap(lab: Lab, view: View, clicked: Clicked) -> After:
        models = models_of(lab, run_to_ask(lab, get_asking(lab.db, _asking(lab, view)).run))
        columns = models.epochs if kind == "epochs" else models.stages
        if not columns:
            raise AskError(models.problem or "This run has no models to ask.")
        put_to(lab, view.asked, columns)
        return view.but(columns=columns), None

    return swap


def _again(lab: Lab, view: View, clicked: Clicked) -> After:
    model = str(clicked.get("value") or "")
    put_to(lab, _asking(lab, view), [model])
    forget_errors(lab.db, view.asked, model)
    return view, None


def _open(lab: Lab, view: View, clicked: Clicked) -> After:
    place = str(clicked.get("value") or "")
    return view.but(answer=place if opened(place) else "", token=None), None


def _close(lab: Lab, view: View, clicked: Clicked) -> After:
    return view.but(answer="", token=None), None


def _token(lab: Lab, view: View, clicked: Clicked) -> After:
    text, answer = str(clicked.get("value") or ""), _answer(lab, view)
    if answer is None or not text.isdecimal() or len(text) > 4 or int(text) >= len(answer.tokens):
        return view, None
    view = view.but(token=int(text))
    if place := view.token_place():
        want_alternatives(lab.db, place)
    return view, None


def _answer(lab: Lab, view: View) -> Answer | None:
    """The opened answer."""
    place = opened(view.answer)
    return get_answer(lab.db, view.asked, place[1], place[0]) if place else None


def _more(lab: Lab, view: View, clicked: Clicked) -> After:
    return view.but(rows=view.rows + 5 * ROWS), None


def _refill(mode: str) -> Callable[[Lab, View, Clicked], After]:
    """The form filled with the opened answer's question, to be asked in another way."""

    def refill(lab: Lab, view: View, clicked: Clicked) -> After:
        answer = _answer(lab, view)
        if answer is None:
            return view, None
        asking, question = get_asking(lab.db, view.asked), answer.question
        filled = {"relation": asking.relation, "settings": asking.settings, "subject": question.subject}
        filled |= {"text": {"text": question.text}, "facts": {"prompt": question.prompt}}.get(mode, {})
        return view.but(mode=mode, answer="", token=None), filled

    return refill


def _asking(lab: Lab, view: View) -> str:
    try:
        return get_asking(lab.db, view.asked).id
    except KeyError:
        raise AskError("What was asked is not there any more: ask again.") from None


ACTIONS: dict[str, Callable[[Lab, View, Clicked], After]] = {
    "ask": _ask,
    "run": _choose_run,
    "mode": _set_mode,
    "add": _add,
    "remove": _remove,
    "stages": _swap("stages"),
    "epochs": _swap("epochs"),
    "again": _again,
    "open": _open,
    "close": _close,
    "token": _token,
    "more": _more,
    "as-text": _refill("text"),
    "as-fact": _refill("fact"),
    "as-facts": _refill("facts"),
}
