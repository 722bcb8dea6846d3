"""Calls of the running app: its functions for scripts with any values, its pages' own handlers with hostile texts."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import httpx
from hypothesis import strategies as st

from storage.database import open_database
from storage.runs import add_run, claim_run
from tests.fuzz.target import Target, fed
from tests.fuzz.texts import ANYTHING, NUMBERS, TEXT, mostly
from tests.integration.lab import ROOT
from tests.unit.tiny_models import SUBJECTS, build_qwen2, tiny_experiment

LASTING = ExitStack()  # what stays open until the process ends
SESSION = "fuzzing00"


@dataclass(frozen=True)
class App:
    """A running lab: how to talk to it, its log, and the functions it says it has (those without a name by number)."""

    client: httpx.Client
    log: Path
    run: str  # of a run that can be asked
    named: tuple[tuple[str, tuple[str, ...]], ...]  # their names and those of their inputs

    def read_log(self) -> str:
        """All it has said."""
        return self.log.read_text(encoding="utf-8", errors="replace")


@cache
def _app() -> App:
    home = Path(LASTING.enter_context(tempfile.TemporaryDirectory()))
    experiment = tiny_experiment(build_qwen2(home / "models"))
    db = open_database(home)
    run = add_run(db, name="tiny", experiment=experiment.model_dump(mode="json"), model=experiment.model, seed=0)
    claim_run(db, "fuzzing", 1e6)
    log = home / "said.txt"
    with log.open("wb") as stream:
        command = [sys.executable, "-m", "app", "--no-worker", "--home", str(home)]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=stream, cwd=ROOT, text=True)
    LASTING.callback(process.wait)
    LASTING.callback(process.terminate)
    assert process.stdout is not None
    address = None
    for said in process.stdout:
        if address := re.search(r"http://[^ ]+", said):
            break
    assert address, log.read_text()
    client = LASTING.enter_context(httpx.Client(base_url=address[0], timeout=60))
    info = client.get("/gradio_api/info").json()["named_endpoints"]
    return App(
        client,
        log,
        run.id,
        tuple((name, tuple(p["parameter_name"] for p in what["parameters"])) for name, what in sorted(info.items())),
    )


def _call(name: str, data: list[Any]) -> str:
    app = _app()
    before = len(app.read_log())
    content, kind = json.dumps({"data": data}), {"content-type": "application/json"}
    started = app.client.post(f"/gradio_api/call{name}", content=content, headers=kind)
    assert started.status_code < 500, started.text[:300]
    outcome = "refused"
    if started.status_code == 200:
        events = app.client.get(f"/gradio_api/call{name}/{started.json()['event_id']}").text
        outcome = "accepted" if "event: complete" in events else "refused"
    said = app.read_log()[before:]
    assert "Traceback" not in said, f"{name} with {data!r}: {said[-1500:]}"
    return outcome


@fed(st.data())
def functions_for_scripts(data: st.DataObject) -> str:
    """Each function that scripts may call, with anything in its arguments."""
    name, inputs = data.draw(st.sampled_from(_app().named))
    usual: dict[str, Any] = {
        "run": _app().run, "relation": "mother", "subject": SUBJECTS[0], "prompt": "Who guides {subject}?",
        "text": "Ann Bee", "models": "", "languages": "", "model": f"{_app().run}/base", "asking": "", "temperature": 0,
        "top_p": 1, "seed": 0, "max_tokens": 5, "limit": 3, "number": 1, "place": 0,
    }  # fmt: skip
    # No model is asked here, so nothing is waited for.
    waits = st.sampled_from([0, -1, 0.01])
    return _call(
        name,
        [
            data.draw(waits if kind == "wait_seconds" else mostly(st.just(usual[kind]), TEXT | NUMBERS | ANYTHING))
            for kind in inputs
        ],
    )


ADDRESSES = (
    "/",
    "/design",
    "/runs",
    "/run",
    "/results",
    "/ask",
    "/attack",
    "/lab/",
    "/gradio_api/info",
    "/gradio_api/file=",
)


@fed(
    st.sampled_from(ADDRESSES), st.text("abc/.%\\:?#&= 0é", max_size=20) | TEXT,
    st.dictionaries(st.sampled_from(["draft", "run", "asked", "id", "relation", "x"]), TEXT, max_size=3),
)  # fmt: skip
def addresses(base: str, behind: str, query: dict[str, str]) -> str:
    """Addresses that nobody was given."""
    app = _app()
    before = len(app.read_log())
    try:
        reply = app.client.get(base + behind, params=query)
    except (httpx.InvalidURL, UnicodeEncodeError):
        return "no address"
    assert reply.status_code < 500, f"{base + behind!r} {query!r}: {reply.status_code} {reply.text[:300]}"
    assert "Traceback" not in app.read_log()[before:]
    return "accepted" if reply.status_code < 400 else "refused"


TARGETS = (
    Target("functions for scripts", functions_for_scripts, 3, shrinks=False),
    Target("addresses", addresses, 2, shrinks=False),
)
