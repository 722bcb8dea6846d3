"""What a click or a press of Enter on the Query page does: it writes questions, or changes what is shown."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from app.ask.plan import AskError, Settings, read_settings
from app.ask.submit import ask_fact, ask_facts, ask_text, put_to, run_to_ask
from app.ask.view import MODES, MOST_COLUMNS, ROWS, View, models_of, opened, shown_columns
from app.asking.asker import Asker
from app.shared.lab import Lab
from storage.asked import get_answer, get_asking, list_columns
from storage.asked_queue import forget_errors, want_alternatives

# The view afterwards, and the values the form is built again with (None: it stays as it is).
After = tuple[View, dict[str, Any] | None]
Told = dict[str, Any]


def act_on(lab: Lab, asker: Asker, view: View, told: Told) -> After:
    """Carry out what a part of the page told. Raises AskError; an unknown action changes nothing."""
    action = ACTIONS.get(str(told.get("act")))
    after = action(lab, view, told) if action else (view, None)
    asker.wake()
    return after


def _ask(lab: Lab, view: View, told: Told) -> After:
    run = run_to_ask(lab, str(told.get("run") or ""))
    mode = told.get("mode") if told.get("mode") in MODES else MODES[0]
    settings = _settings(told)
    relation = str(told.get("relation") or "")
    # The same models as before, if they were chosen on purpose and the run is the same.
    columns = view.columns if view.run == run.id else ()
    if mode == "text":
        asked = ask_text(lab, run, str(told.get("text") or ""), settings, columns)
    elif mode == "facts":
        asked = ask_facts(lab, run, str(told.get("prompt") or ""), relation, settings, columns)
    else:
        language = str(told.get("language") or "")
        languages = [language] if language else []
        asked = ask_fact(lab, run, str(told.get("subject") or ""), relation, languages, settings, columns)
    return View(run=run.id, asked=asked, mode=str(mode), columns=columns), None


def _settings(told: Told) -> Settings:
    names = ["max_tokens"] if told.get("decoding") != "sampled" else list(Settings.model_fields)
    return read_settings({name: told.get(name) for name in names})


def _choose_run(lab: Lab, view: View, told: Told) -> After:
    return View(run=str(told.get("value") or ""), mode=_mode(view, told)), {}


def _mode(view: View, told: Told) -> str:
    return str(told["mode"]) if told.get("mode") in MODES else view.mode


def _set_mode(lab: Lab, view: View, told: Told) -> After:
    return view.but(mode=_mode(view, told)), None


def _columns(lab: Lab, view: View) -> tuple[str, ...]:
    return shown_columns(view, list_columns(lab.db, view.asked))


def _add(lab: Lab, view: View, told: Told) -> After:
    model, columns = str(told.get("value") or ""), _columns(lab, view)
    if not model or model in columns:
        return view, None
    if len(columns) >= MOST_COLUMNS:
        raise AskError(f"{MOST_COLUMNS} columns are the most that fit: take one away first.")
    put_to(lab, _asked(lab, view), [model])
    return view.but(columns=(*columns, model)), None


def _remove(lab: Lab, view: View, told: Told) -> After:
    left = tuple(m for m in _columns(lab, view) if m != told.get("value"))
    if not left:
        raise AskError("The last column stays: add another model before you take this one away.")
    return view.but(columns=left), None


def _swap(kind: str) -> Callable[[Lab, View, Told], After]:
    def swap(lab: Lab, view: View, told: Told) -> After:
        models = models_of(lab, run_to_ask(lab, get_asking(lab.db, _asked(lab, view)).run))
        columns = models.epochs if kind == "epochs" else models.stages
        if not columns:
            raise AskError(models.problem or "This run has no models to ask.")
        put_to(lab, view.asked, columns)
        return view.but(columns=columns), None

    return swap


def _again(lab: Lab, view: View, told: Told) -> After:
    model = str(told.get("value") or "")
    put_to(lab, _asked(lab, view), [model])
    forget_errors(lab.db, view.asked, model)
    return view, None


def _open(lab: Lab, view: View, told: Told) -> After:
    place = str(told.get("value") or "")
    return view.but(answer=place if opened(place) else "", token=None), None


def _close(lab: Lab, view: View, told: Told) -> After:
    return view.but(answer="", token=None), None


def _token(lab: Lab, view: View, told: Told) -> After:
    text, place = str(told.get("value") or ""), opened(view.answer)
    if not place or not text.isdecimal() or len(text) > 4:
        return view, None
    row = get_answer(lab.db, view.asked, place[1], place[0])
    if row is None or int(text) >= len(row["tokens"]):
        return view, None
    want_alternatives(lab.db, view.asked, place[1], place[0], int(text))
    return view.but(token=int(text)), None


def _more(lab: Lab, view: View, told: Told) -> After:
    return view.but(rows=view.rows + 5 * ROWS), None


def _refill(mode: str) -> Callable[[Lab, View, Told], After]:
    """The form filled with the opened answer's question, to be asked in another way."""

    def refill(lab: Lab, view: View, told: Told) -> After:
        place = opened(view.answer)
        row = get_answer(lab.db, view.asked, place[1], place[0]) if place else None
        if row is None:
            return view, None
        asking = get_asking(lab.db, view.asked)
        filled = {"relation": asking.relation, "settings": asking.settings, "subject": row["subject"]}
        filled |= {"text": {"text": row["text"]}, "facts": {"prompt": row["prompt"]}}.get(mode, {})
        return view.but(mode=mode, answer="", token=None), filled

    return refill


def _asked(lab: Lab, view: View) -> str:
    try:
        return get_asking(lab.db, view.asked).id
    except KeyError:
        raise AskError("What was asked is not there any more: ask again.") from None


ACTIONS: dict[str, Callable[[Lab, View, Told], After]] = {
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
