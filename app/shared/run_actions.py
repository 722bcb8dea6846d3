"""What can be done with a run wherever it is shown: cancelled, taken up again, deleted, moved in the queue."""

from __future__ import annotations

import gradio as gr

from app.shared.lab import Lab
from app.shared.words import sentence
from storage.run_queue import move_first, set_priority
from storage.runs import request_stop, retry_run


def carry_out(lab: Lab, action: str, run_id: str, value: str = "") -> None:
    """Cancel, retry or delete a run, or give it another place in the queue (`value`: its priority); a toast says when
    that was not possible. Other actions are none of a run's."""
    try:
        if action == "cancel":
            request_stop(lab.db, run_id)
        elif action == "retry":
            retry_run(lab.db, run_id)
        elif action == "delete":
            lab.delete(run_id)
        elif action == "first":
            move_first(lab.db, run_id)
        elif action == "priority" and value in ("-1", "0", "1"):
            set_priority(lab.db, run_id, int(value))
    except KeyError:
        gr.Warning("This run is no longer there.")
    except ValueError as error:
        gr.Warning(sentence(str(error)))
