"""What the Query page shows: the run, the asking, its columns, and the opened answer. It lives in the address."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from app.shared.lab import Lab
from app.shared.words import checkpoint_name
from engine.serving.served import NotServable, ServedModel, checkpoint_names, served_models, usual_columns
from storage.asked import Column
from storage.checkpoints import in_order
from storage.runs import Run, list_runs

MOST_COLUMNS = 12
ROWS = 100
RUNS_OFFERED = 60
MODEL = re.compile(r"[0-9a-zA-Z]{1,32}/(base|(memorised|generalised|attacked)@[0-9]{1,4})")
MODES = ("fact", "text", "facts")


class View(BaseModel):
    """The state of one page. `answer`: NUMBER/RUN/CHECKPOINT of the opened answer; `token`: its place looked into."""

    model_config = ConfigDict(extra="ignore", frozen=True)
    run: str = ""
    asked: str = ""
    mode: str = "fact"
    columns: tuple[str, ...] = ()
    answer: str = ""
    token: int | None = None
    rows: int = ROWS

    def but(self, **changes: Any) -> View:
        """The same view with changes."""
        return self.model_copy(update=changes)

    def address(self) -> dict[str, str]:
        """The view as the parameters of the page's address; those that are empty are left out of it."""
        return {
            "run": self.run,
            "asked": self.asked,
            "mode": "" if self.mode == MODES[0] else self.mode,
            "columns": ",".join(self.columns) if self.asked else "",
            "answer": self.answer,
            "token": "" if self.token is None else str(self.token),
            "subject": "",
        }


def cleaned(view: View) -> View:
    """The view without what is no model, no mode, or too much."""
    columns = [m for m in dict.fromkeys(view.columns) if MODEL.fullmatch(m)]
    return view.but(
        run=view.run[:32] if view.run.isalnum() else "",
        asked=view.asked[:32] if view.asked.isalnum() else "",
        mode=view.mode if view.mode in MODES else MODES[0],
        columns=tuple(columns[:MOST_COLUMNS]),
        answer=view.answer if opened(view.answer) else "",
        rows=min(max(view.rows, ROWS), 10_000),
    )


def view_of_address(asked: Mapping[str, str]) -> View:
    """The view that an address names."""
    token = asked.get("token", "")
    return cleaned(
        View(
            run=asked.get("run", ""),
            asked=asked.get("asked", ""),
            mode=asked.get("mode", ""),
            columns=tuple(asked.get("columns", "").split(",")[:100]),
            answer=asked.get("answer", ""),
            token=int(token) if token.isdecimal() and len(token) < 5 else None,
        )
    )


def view_of_page(text: str | None) -> View:
    """The view that a page sends back; an empty one when it is not what the page was given."""
    try:
        return cleaned(View.model_validate_json(text or "{}"))
    except ValidationError:
        return View()


def opened(answer: str) -> tuple[int, str] | None:
    """`12/RUN/base` as (12, "RUN/base")."""
    number, _, model = answer.partition("/")
    return (int(number), model) if number.isdecimal() and len(number) < 7 and MODEL.fullmatch(model) else None


@dataclass(frozen=True)
class Models:
    """The models that a page can ask: those of its run, and of other runs of the same base."""

    run: Run
    own: tuple[ServedModel, ...]
    problem: str = ""

    @property
    def stages(self) -> tuple[str, ...]:
        """Base, the last of stage 1, the last of stage 2."""
        return tuple(key_of(m) for m in usual_columns(list(self.own))) if self.own else ()

    @property
    def epochs(self) -> tuple[str, ...]:
        """The base and every kept epoch of stage 1."""
        return tuple(key_of(m) for m in self.own if not m.checkpoint.startswith("generalised"))[:MOST_COLUMNS]


def models_of(lab: Lab, run: Run) -> Models:
    """The models of a run; with a problem in words where there are none."""
    try:
        return Models(run, tuple(served_models(lab.home, run)))
    except NotServable as error:
        return Models(run, (), str(error))


def key_of(model: ServedModel) -> str:
    """What the page calls a model: RUN/CHECKPOINT, also for a base."""
    return f"{model.run}/{model.checkpoint}"


def other_models(lab: Lab, run: Run) -> list[tuple[Run, list[str]]]:
    """Checkpoints of other runs of the same base model, newest run first."""
    found = []
    for other in list_runs(lab.db, limit=RUNS_OFFERED):
        if other.id == run.id or other.model != run.model or not other.started_at:
            continue
        kept = [f"{other.id}/{name}" for name in checkpoint_names(lab.home, other.id)]
        if kept:
            found.append((other, kept))
    return found


def column_parts(model: str) -> tuple[str, str]:
    """`RUN/CHECKPOINT` as (run id, checkpoint)."""
    run, _, checkpoint = model.partition("/")
    return run, checkpoint


def column_label(model: str, run: str, run_name: str) -> str:
    """A column as people call it; with its run's name where it is another run's."""
    own, checkpoint = column_parts(model)
    name = checkpoint_name(checkpoint)
    return name if own == run else f"{run_name or own}: {name}"


def shown_columns(view: View, kept: list[Column]) -> tuple[str, ...]:
    """The columns to show: those of the address, else all that were asked, base first and then by stage and epoch."""
    if view.columns:
        return view.columns
    order = sorted(kept, key=lambda c: (c.run != view.run, in_order(c.checkpoint), c.position))
    return tuple(c.model for c in order[:MOST_COLUMNS])
