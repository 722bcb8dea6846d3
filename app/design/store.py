"""Where drafts live between two visits: one row for each browser in the lab's database, and what can be undone.

Every change is one transaction on the stored draft, so that two tabs, a reload or a restart of the server lose
nothing.
"""

from __future__ import annotations

import copy
import json
import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from app.design.draft import Draft, new_draft
from app.shared.lab import Lab
from engine.experiment import Experiment
from storage.database import write
from storage.drafts import load_draft, save_draft
from storage.runs import Run, add_run, get_run

MAX_UNDO = 10
MAX_UNDO_CHARACTERS = 20_000_000
# A second press of the button, or a click that arrives twice, within this time is the same start.
SAME_START_SECONDS = 10


def new_draft_id() -> str:
    """An id that nobody guesses: whoever knows it can read the draft."""
    return secrets.token_urlsafe(16)


def valid_id(draft_id: Any) -> bool:
    """Whether a browser's stored id may be used as one."""
    return (
        isinstance(draft_id, str) and 16 <= len(draft_id) <= 64 and draft_id.replace("-", "").replace("_", "").isalnum()
    )


class DraftStore:
    """The drafts of one lab."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab

    def read(self, draft_id: str) -> Draft:
        """The stored draft, or a new one where there is none or an older version of the page left it."""
        stored = load_draft(self.lab.db, draft_id)
        return stored["draft"] if stored and stored.get("version") == 1 else new_draft()

    @contextmanager
    def change(self, draft_id: str) -> Iterator[Draft]:
        """The stored draft, to be changed in place; stored again when the block ends without an error."""
        with write(self.lab.db):
            draft = self.read(draft_id)
            before = copy.deepcopy(draft)
            yield draft
            if draft != before:
                save_draft(self.lab.db, draft_id, {"version": 1, "draft": draft})

    def remember(self, draft_id: str, label: str) -> None:
        """Keep the draft as it is now, so that what comes next can be undone."""
        with write(self.lab.db):
            steps = [*self._steps(draft_id), {"label": label, "draft": self.read(draft_id)}][-MAX_UNDO:]
            while len(steps) > 1 and len(json.dumps(steps)) > MAX_UNDO_CHARACTERS:
                steps.pop(0)
            save_draft(self.lab.db, f"{draft_id}/undo", {"steps": steps})

    def undo_label(self, draft_id: str) -> str | None:
        """What the last step that can be undone did, in words, or None."""
        steps = self._steps(draft_id)
        return steps[-1]["label"] if steps else None

    def undo(self, draft_id: str) -> bool:
        """Go back to the draft before the last remembered step; False when there is none."""
        with write(self.lab.db):
            steps = self._steps(draft_id)
            if not steps:
                return False
            last = steps.pop()
            save_draft(self.lab.db, draft_id, {"version": 1, "draft": last["draft"]})
            save_draft(self.lab.db, f"{draft_id}/undo", {"steps": steps})
        return True

    def _steps(self, draft_id: str) -> list[dict[str, Any]]:
        stored = load_draft(self.lab.db, f"{draft_id}/undo")
        return stored["steps"] if stored else []

    def start(self, draft_id: str, experiment: Experiment, cloned_from: str | None) -> Run:
        """Queue a run of the resolved experiment; a second call at once returns the same run."""
        body = experiment.model_dump(mode="json")
        with write(self.lab.db):
            last = load_draft(self.lab.db, f"{draft_id}/start")
            if last and time.time() - last["at"] < SAME_START_SECONDS:
                try:
                    run = get_run(self.lab.db, last["run"])
                except KeyError:
                    run = None
                if run and run.experiment == body:
                    return run
            run = add_run(
                self.lab.db,
                name=experiment.name,
                experiment=body,
                model=experiment.model,
                seed=experiment.seed,
                cloned_from=cloned_from,
            )
            save_draft(self.lab.db, f"{draft_id}/start", {"run": run.id, "at": time.time()})
        return run


def remembered(store: DraftStore, draft_id: str, label: str, change: Callable[[Draft], None]) -> None:
    """Apply a change that can be undone. When it raises, nothing is changed and nothing is remembered."""
    with write(store.lab.db):
        store.remember(draft_id, label)
        with store.change(draft_id) as draft:
            change(draft)
