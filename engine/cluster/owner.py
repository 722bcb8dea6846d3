"""The owner of the queue: gives its runs to the machines of a cluster, and alone writes what comes back of them.

    rote-lab worker --on ray://HOST:10001 --home DIR

It takes the place of a worker, holds as many runs as the cluster has room for, and renews the lease of each. When it is
killed, the machines end by themselves, and the runs are claimed again, as those of any worker.
"""

from __future__ import annotations

import logging
import sqlite3
import threading
import time
from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from functools import partial
from pathlib import Path
from typing import Any

from engine.cluster.carried import CarriedRun, OtherVersion
from engine.cluster.connection import ClusterError, connect, disconnect
from engine.cluster.needs import devices_of
from engine.cluster.nodes import Nodes
from engine.cluster.parts import RefusedFile
from engine.execution.studies.models import forget_models
from engine.execution.studies.report import update_figures
from engine.execution.worker import MAX_STALLS, POLL_SECONDS, PROGRESS_WORTH_A_RETRY, Registration
from engine.experiment import Experiment
from storage.database import open_database
from storage.runs import (
    LEASE_SECONDS,
    LostRunError,
    Run,
    State,
    add_event,
    claim_run,
    finish_run,
    get_run,
    record_stall,
    release_run,
    renew_lease,
)
from storage.workers import remove_worker

logger = logging.getLogger("engine.cluster")

RENEW_SECONDS = 2.0
OUT_OF_REACH_SECONDS = 30.0
CLOSE_SECONDS = 5.0
Claim = Callable[[str], Run | None]  # by the worker's id


class Owner:
    """Works like a worker, with many runs at a time. claim: what it takes of the queue, everything by default."""

    def __init__(self, home: Path, address: str, claim: Claim | None = None) -> None:
        self.home, self.db = home, open_database(home)
        self.ray = connect(address)
        self.nodes = Nodes(self.ray)
        self.me = Registration(self.db)
        self.stop = threading.Event()
        self.claim = claim or (lambda worker: claim_run(self.db, worker, LEASE_SECONDS))
        # What Ray was asked for a run, the run, and what goes on with the answer.
        self._asked: dict[Any, tuple[CarriedRun, Generator[Any, Any, None]]] = {}
        self._unreachable: dict[str, float] = {}
        self._renewed = time.monotonic()
        self._figures = ThreadPoolExecutor(1, "figures")

    def work(self, ended: Callable[[], bool] | None = None) -> None:
        """Work until `stop` is set, or until `ended` says so and nothing is under way. Raises ClusterError."""
        try:
            self.nodes.check()
            while not self.stop.is_set():
                try:
                    self._go_on()
                    if ended is not None and not self._asked and ended():
                        return
                except sqlite3.OperationalError:
                    logger.exception("the database cannot be written now; trying again")
                    self.stop.wait(5)
        finally:
            self._release_all()
            self._figures.shutdown()
            remove_worker(self.db, self.me.id)
            disconnect(self.ray)
            self.db.close()

    def _go_on(self) -> None:
        """One round: keep what is held, take what there is room for, hear what the machines say."""
        self.me.release_dead_workers()
        self.me.beat(next((run.run.id for run, _ in self._asked.values()), None))
        self._renew()
        self._take_more()
        if not self._asked:
            self.stop.wait(POLL_SECONDS)
            return
        ready, _ = self._cluster(lambda: self.ray.wait(list(self._asked), timeout=POLL_SECONDS))
        for answer in ready:
            self._hear(answer)

    def _cluster(self, call: Callable[[], Any]) -> Any:
        """What a call of Ray gives that asks the cluster as a whole. Raises ClusterError when that is gone."""
        try:
            return call()
        except (self.ray.exceptions.RayError, ConnectionError, RuntimeError) as error:
            text = " ".join(str(error).split())[:160]
            raise ClusterError(f"The cluster is out of reach ({text}): its runs wait in the queue again.") from error

    def _renew(self) -> None:
        if time.monotonic() - self._renewed < RENEW_SECONDS:
            return
        self._renewed = time.monotonic()
        for answer, (carried, _) in list(self._asked.items()):
            try:
                state = renew_lease(self.db, carried.run.id, carried.run.attempt, LEASE_SECONDS)
            except LostRunError:
                if carried.ended is None:
                    logger.warning("run %s is no longer this worker's", carried.run.id)
                    self._drop(answer)
                continue
            carried.stopping = state is State.STOPPING
            if carried.stopping and not carried.host:
                # It has no place yet, so nobody there could be told.
                finish_run(self.db, carried.run.id, carried.run.attempt, State.CANCELLED)
                self._drop(answer)

    def _take_more(self) -> None:
        while True:
            waiting = [run.devices for run, _ in self._asked.values() if not run.host]
            nodes = self._cluster(self.nodes.alive)
            if not self.nodes.has_room(waiting):
                return
            run = self.claim(self.me.id)
            if run is None:
                return
            self.me.beat(run.id, force=True)
            logger.info("run %s (%s), attempt %d", run.id, run.name, run.attempt)
            try:
                devices = devices_of(Experiment.from_record(run.experiment), nodes)
            except ValueError as error:  # of an older or a newer lab
                words = f"Its experiment cannot be read ({error}): copy it, mend that, and start the copy."
                finish_run(self.db, run.id, run.attempt, State.FAILED, error=words)
                continue
            actor = self._cluster(partial(self.nodes.place, devices))
            carried = CarriedRun(self.db, self.home, run, actor, devices)
            self._ask(carried, carried.steps(), lambda steps: next(steps))

    def _hear(self, answer: Any) -> None:
        """What a machine answered, or what kept it from that."""
        carried, steps = self._asked.pop(answer)
        try:
            said = self.ray.get(answer)
        except self.ray.exceptions.ActorUnavailableError as error:
            first = self._unreachable.setdefault(carried.run.id, time.monotonic())
            if not carried.can_ask_again or time.monotonic() - first > OUT_OF_REACH_SECONDS:
                return self._lost(carried, error)
            self.stop.wait(POLL_SECONDS)
            said = None
        except Exception as error:  # of the actor's code, or of Ray: the machine is lost to this run
            return self._lost(carried, error)
        else:
            self._unreachable.pop(carried.run.id, None)
            if not carried.host:
                self.nodes.took(carried.devices)
        self._ask(carried, steps, lambda steps: steps.send(said))

    def _ask(self, carried: CarriedRun, steps: Generator[Any, Any, None], go_on: Callable[[Any], Any]) -> None:
        """Let a run go on to its next question."""
        try:
            self._asked[go_on(steps)] = carried, steps
        except StopIteration:
            self._over(carried)
        except LostRunError:
            logger.warning("run %s is no longer this worker's", carried.run.id)
            self._end(carried)
        except OtherVersion as error:
            self.nodes.refuse(carried.node_id, str(error))
            add_event(self.db, carried.run.id, "refused", str(error))
            release_run(self.db, carried.run.id, carried.run.attempt)
            self._end(carried)
            self.nodes.raise_if_none_is_left()
        except sqlite3.Error:
            self._end(carried)  # its lease lapses, and it is claimed again
            raise
        except (RefusedFile, OSError, ValueError, KeyError, TypeError, self.ray.exceptions.RayError) as error:
            self._lost(carried, error)

    def _over(self, carried: CarriedRun) -> None:
        self._end(carried)
        if carried.ended is not None:
            logger.info("run %s: %s", carried.run.id, carried.ended.value)
        if carried.ended is State.DONE and carried.run.study:
            self._figures.submit(self._settle, carried.run.study)

    def _settle(self, study: str) -> None:
        """Make a study's figures, and remove the models that it does not keep: as a worker does after each run."""
        try:
            with closing(open_database(self.home)) as db:
                forget_models(db, self.home, study)
                update_figures(db, self.home, study)
        except Exception:  # of figures that are made again when somebody looks at them
            logger.exception("the study's figures could not be made")

    def _lost(self, carried: CarriedRun, error: Exception) -> None:
        """The machine can no longer be asked: go on elsewhere from the last checkpoint that came, or give up."""
        self._end(carried)
        if carried.ended is not None:
            return self._over(carried)
        with suppress(LostRunError, KeyError):
            run = get_run(self.db, carried.run.id)
            if run.state is State.STOPPING:
                return finish_run(self.db, run.id, carried.run.attempt, State.CANCELLED)
            advanced = run.progress.get("fraction", 0) - carried.began_at > PROGRESS_WORTH_A_RETRY
            stalls = 0 if advanced else run.stalls + 1
            text = " ".join(str(error).split())[:300]
            where = f"The machine {carried.host}" if carried.host else "A machine of the cluster"
            if stalls >= MAX_STALLS:
                words = f"{where} was lost, or could not go on, {MAX_STALLS} times ({type(error).__name__}: {text})."
                return finish_run(self.db, run.id, carried.run.attempt, State.FAILED, error=words)
            record_stall(self.db, run.id, carried.run.attempt, stalls)
            why = "was lost" if isinstance(error, self.ray.exceptions.RayActorError) else f"could not go on ({text})"
            words = f"{where} {why}; the run goes on from the last checkpoint that arrived"
            add_event(self.db, run.id, "interrupted", words)
            logger.warning("run %s: %s (%s)", run.id, words, text)
            release_run(self.db, run.id, carried.run.attempt)

    def _drop(self, answer: Any) -> None:
        carried, steps = self._asked.pop(answer)
        steps.close()
        self._end(carried)

    def _end(self, carried: CarriedRun) -> None:
        """End the actor of a run, if it is there still, and forget what has not arrived."""
        carried.forget()
        self._unreachable.pop(carried.run.id, None)
        with suppress(Exception):
            self.ray.kill(carried.actor)

    def _release_all(self) -> None:
        """Give everything back to the queue, and have the machines remove what they have of it."""
        closing_ = []
        for carried, _ in self._asked.values():
            with suppress(LostRunError, sqlite3.Error):
                if carried.ended is None:
                    release_run(self.db, carried.run.id, carried.run.attempt)
            with suppress(Exception):
                closing_.append(carried.actor.close.remote())
        with suppress(Exception):
            self.ray.wait(closing_, num_returns=len(closing_), timeout=CLOSE_SECONDS)
        for answer in list(self._asked):
            self._drop(answer)
