"""The owner of a queue whose machines answer late, or with what nobody can use: it goes on, and keeps its lab as it is.

Ray is played: a machine's answers are a list.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from sqlite_utils import Database

from engine.cluster import owner as owners
from engine.cluster.owner import Owner
from engine.cluster.parts import parts_of
from engine.cluster.versions import versions
from storage.answers import open_answers
from storage.database import open_database, write
from storage.folders import run_folder
from storage.runs import Run, State, add_run, claim_run, get_run, list_events
from storage.studies import NewRun, add_study, list_study_runs
from storage.workers import remove_worker
from tests.unit.tiny_models import tiny_experiment

ROW = {"state": "done", "stalls": 0, "error": None, "progress": {"fraction": 1.0}, "headline": {}, "environment": {}}
DONE: dict[str, Any] = {
    "over": True, "parts": [], "log": b"the machine's log\n",
    "letter": {"row": ROW, "measurements": [], "events": [], "results": [], "attack_results": []},
}  # fmt: skip


class Machine:
    """An actor of Ray: what it is asked is answered when somebody wants the answer."""

    def __init__(self, news: Callable[[str], dict[str, Any]]) -> None:
        self.run, self._news = "", news

    def __getattr__(self, name: str) -> Any:
        return SimpleNamespace(remote=lambda *given: _Asked(lambda: getattr(self, f"say_{name}")(*given)))

    def say_hello(self) -> dict[str, Any]:
        return {"versions": versions(), "host": "a machine", "node": "1"}

    def say_receive(self, parts: list[Any]) -> None:
        """Nothing is done with them."""

    def say_begin(self, rows: Any, run: str, environment: dict[str, str], owners_home: str) -> None:
        self.run = run

    def say_news(self, number: int, stop: bool) -> dict[str, Any]:
        return self._news(self.run)

    def say_close(self) -> None:
        """There is nothing to remove."""


class _Asked:
    def __init__(self, answer: Callable[[], Any]) -> None:
        self.answer = answer


class Ray:
    """As much of it as an owner uses, with one machine that has room for one run."""

    def __init__(self, news: Callable[[str], dict[str, Any]]) -> None:
        error = type("RayError", (Exception,), {})
        kinds = {name: type(name, (error,), {}) for name in ("RayActorError", "ActorUnavailableError")}
        self.exceptions = SimpleNamespace(RayError=error, **kinds)
        self._news = news

    def nodes(self) -> list[dict[str, Any]]:
        return [{"Alive": True, "NodeID": "1", "NodeName": "a machine", "Resources": {"CPU": 1}}]

    def available_resources(self) -> dict[str, float]:
        return {"CPU": 1.0}

    def remote(self, kind: type) -> Any:
        made = SimpleNamespace(remote=lambda: Machine(self._news))
        return SimpleNamespace(options=lambda **more: made)

    def wait(self, asked: list[Any], num_returns: int = 1, timeout: float = 0) -> tuple[list[Any], list[Any]]:
        return asked[:num_returns], asked[num_returns:]

    def get(self, asked: _Asked, timeout: float = 0) -> Any:
        return asked.answer()

    def kill(self, actor: Any) -> None:
        """It has no process."""

    def shutdown(self) -> None:
        """There is no connection."""


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "home"


@pytest.fixture
def db(home: Path) -> Iterator[Database]:
    opened = open_database(home)
    yield opened
    opened.close()


def queued(db: Database, experiment: dict[str, Any] | None = None) -> Run:
    record = tiny_experiment("embedded").model_dump(mode="json") if experiment is None else experiment
    return add_run(db, name="tiny", experiment=record, model="embedded", seed=1)


def work(db: Database, home: Path, monkeypatch: pytest.MonkeyPatch, news: Callable[[str], dict[str, Any]]) -> Owner:
    """Have an owner work until nothing waits."""
    monkeypatch.setattr(owners, "connect", lambda address: Ray(news))
    owner, end = Owner(home, "ray://nobody:1"), time.monotonic() + 20

    def ended() -> bool:
        assert time.monotonic() < end, "it never came to an end"
        return not db.execute("select count(*) from runs where state in ('queued', 'running')").fetchone()[0]

    owner.work(ended)
    return owner


def test_what_comes_of_a_run_that_another_holds_meanwhile_is_not_written(
    db: Database, home: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    run = queued(db)
    folder, unit = run_folder(home, run.id), f"runs/{run.id}/run.json"
    (tmp_path / unit).parent.mkdir(parents=True)
    (tmp_path / unit).write_text("of the first attempt")

    def late(run_id: str) -> dict[str, Any]:
        """As when the owner was halted for a minute, and its runs were given to another one."""
        for row in db.execute("select id from workers").fetchall():
            remove_worker(db, row[0])
        with write(db):
            db.execute("update runs set lease_until = 0")
        second = claim_run(db, "another", 30)
        assert second is not None and second.attempt == 2
        (folder / "run.json").write_text("of the second attempt")
        owner.stop.set()
        return DONE | {"parts": list(parts_of(tmp_path, unit))}

    monkeypatch.setattr(owners, "connect", lambda address: Ray(late))
    owner = Owner(home, "ray://nobody:1")
    owner.work()
    assert (folder / "run.json").read_text() == "of the second attempt"
    assert not (folder / "log.txt").exists() and not (folder / ".arriving").exists()
    assert (get_run(db, run.id).state, get_run(db, run.id).worker) == (State.RUNNING, "another")


def test_damaged_answers_are_set_aside_as_a_worker_does(
    db: Database, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, other = queued(db), queued(db)
    open_answers(run_folder(home, run.id)).close()
    (run_folder(home, run.id) / "answers.db").write_bytes(b"no database at all" * 1000)
    work(db, home, monkeypatch, lambda run_id: DONE)
    assert [get_run(db, one.id).state for one in (run, other)] == [State.DONE, State.DONE]
    assert (run_folder(home, run.id) / "damaged/answers.db").is_file()
    assert "damaged" in {event["kind"] for event in list_events(db, run.id)}


@pytest.mark.parametrize(
    "changes",
    [
        {"measurements": [{"stage": "stage1", "series": "loss", "step": 1, "epoch": 1.0, "value": None}]},
        {"measurements": [{"stage": "stage1", "series": "loss", "step": 1, "epoch": 1.0, "value": "much"}]},
        {"measurements": [{"stage": "stage1", "series": "loss", "step": 2**70, "epoch": 1.0, "value": 1.0}]},
        {"results": [{"checkpoint": "base"}]},
        {"results": ["base"]},
        {"events": None},
        {"row": ROW | {"progress": {"fraction": "most"}, "state": "asleep"}},
        {"row": ROW | {"headline": 3}},
        {"row": ROW | {"stalls": "many"}},
    ],
)
def test_a_machine_that_says_what_cannot_be_stored_ends_its_run_alone(
    db: Database, home: Path, monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any]
) -> None:
    run, other = queued(db), queued(db)
    wrong = DONE | {"letter": DONE["letter"] | changes}
    work(db, home, monkeypatch, lambda run_id: wrong if run_id == run.id else DONE)
    assert get_run(db, other.id).state is State.DONE
    failed = get_run(db, run.id)
    assert failed.state is State.FAILED and "could not go on, 5 times" in (failed.error or "")


def test_an_experiment_that_cannot_be_read_fails_alone(
    db: Database, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, other = queued(db, {"of": "an older lab"}), queued(db)
    work(db, home, monkeypatch, lambda run_id: DONE)
    assert get_run(db, other.id).state is State.DONE
    failed = get_run(db, run.id)
    assert failed.state is State.FAILED and failed.error and failed.error.endswith(".")


def test_damaged_answers_of_another_run_are_not_sent(db: Database, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    experiment = tiny_experiment("embedded").model_dump(mode="json")
    study = add_study(
        db, name="two", plan={}, runs=[NewRun("tiny", experiment, {"seed": seed}, "same", "same") for seed in (1, 2)]
    )
    first, second = (run.run for run in list_study_runs(db, study))
    with write(db):
        db.execute("update runs set state = 'done', finished_at = 'before' where id = ?", [first])
    open_answers(run_folder(home, first)).close()
    (run_folder(home, first) / "answers.db").write_bytes(b"no database at all" * 1000)
    work(db, home, monkeypatch, lambda run_id: DONE)
    assert get_run(db, second).state is State.DONE
    assert (run_folder(home, first) / "answers.db").is_file()
