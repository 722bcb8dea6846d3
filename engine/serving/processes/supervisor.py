"""The model servers of one lab: which there are, which to start or to end for a question; ends what a killed lab left.

    supervisor = Supervisor(home)              # whichever server can run here
    supervisor.start()                         # ends what a killed lab left; starts nothing
    place = supervisor.place(model)            # may take a minute: starts a server, loads the adapter
    ServerClient(place.url).complete(place.model, …)
    supervisor.stop()

Safe to call from any thread. Knows no torch.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

from engine.hardware import Gpu, free_gib, serving_gpus
from engine.models.checksums import check_intact
from engine.models.source import ModelError
from engine.serving.client import Refused, ServerClient, ServerUnreachable, ServingError
from engine.serving.processes.model_process import ModelProcess
from engine.serving.processes.neighbour import Neighbour
from engine.serving.processes.plans import Backend, CannotServe, Choice, Plan, choose, default_backend, plan_for
from engine.serving.processes.room import Room
from engine.serving.processes.sessions import end_left_session
from engine.serving.served import ServedModel
from engine.serving.vllm import backend as vllm_backend
from engine.serving.vllm.empty_adapter import empty_adapter
from storage.database import open_database
from storage.devices import run_on_device
from storage.servers import left_servers, remove_server

POLL_SECONDS = 0.05
# Where vLLM failed, `auto` tries it again after so long; at least ten times as long as it took to fail.
AFTER_FAILURE_SECONDS = 600.0
END_LEFT_SECONDS = 5.0


class DeviceBusy(ServingError):
    """Training has the device; the question can be asked again when the run has ended."""


class Stopping(ServingError):
    """The lab is being stopped; the question can be asked again in the next one."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a model can be asked: address without `/v1`, the model's name there, and which server it is and why.

    names: what the server calls it where that is another name than the lab's, for a `ServerClient`.
    """

    url: str
    model: str
    backend: str
    reason: str
    names: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _Failure:
    """Why vLLM does not serve a base or a full checkpoint, and until when it is not tried again."""

    reason: str
    until: float


class Supervisor:
    """Starts servers as questions need them, and ends them all in `stop`."""

    def __init__(
        self,
        home: Path,
        backend: Backend | None = None,
        *,
        port: int | None = None,
        most_vllm: int | None = None,
        run: str | None = None,
    ) -> None:
        """`backend`: None is `default_backend()`, which may raise CannotServe. `port`: of the first server, None takes
        a free one. `most_vllm`: vLLM processes at a time, None is what fits. `run`: whose models the embedded
        server lists from the start."""
        self.home, self.run, self.most_vllm = home.resolve(), run, most_vllm
        self.backend = backend or default_backend()
        self._port = port
        self._neighbour = Neighbour.named(self.home)
        self._servers: dict[tuple[str, str], ModelProcess] = {}
        self._failed: dict[str, _Failure] = {}
        self._gpus: Room[ModelProcess] = Room()
        self._lock = threading.RLock()
        self._stopped = False

    def start(self) -> None:
        """End what a lab that was killed left; its keepers do that too, unless they were killed or hang."""
        with closing(open_database(self.home)) as db:
            for row in left_servers(db):
                if row.keeper is not None:
                    # Also where the keeper itself is gone: its children are still in its session.
                    end_left_session(row.keeper, END_LEFT_SECONDS)
                remove_server(db, row.id)

    def place(self, model: ServedModel, timeout: float = 900) -> Place:
        """Where the model can be asked, once it can. Raises ServingError in words, DeviceBusy while a run trains."""
        end = time.monotonic() + timeout
        while time.monotonic() < end:
            if place := self.place_now(model):
                return place
            time.sleep(POLL_SECONDS)
        raise ServingError(f"no server had {model.name} ready within {timeout:.0f} s: see the logs in {self.home}")

    def place_now(self, model: ServedModel) -> Place | None:
        """Where the model can be asked, or None while it is on its way there; begins what is needed for it.

        Raises ServingError when it cannot be served (the next call tries again), DeviceBusy while a run trains,
        Stopping after `stop`.
        """
        if model.lost:
            raise ServingError(model.lost)
        if place := self._at_neighbour(model):
            return place
        try:
            choice = self._choose(model)
            plan = plan_for(choice, model, self._taken(model))
            plan = replace(plan, listed=self.run) if plan.folder is None else plan
        except (CannotServe, OSError) as error:
            raise ServingError(str(error)) from error
        if model.kind != "base" and not model.folder.is_dir():
            again = f"`rote-lab retry {model.run}` makes it again"
            raise ServingError(f"the checkpoint {model.name} is no longer on the disk: choose another one, or {again}")
        if model.kind != "base":
            try:
                check_intact(model.folder)
            except ModelError as error:
                raise ServingError(str(error)) from error
        server = self._server(plan, choice)
        if server is None:
            return None
        if server.state == "failed":
            self._give_up(server, plan)
            return None
        if server.state == "waiting":
            raise DeviceBusy(server.message)
        if server.state != "ready":
            return None
        if plan.backend != "vllm" or model.kind == "full":
            return Place(server.url, model.name, plan.backend, server.reason)
        try:
            return self._place_on_vllm(server, model, server.reason, base_as_adapter=vllm_backend.is_cpu_build())
        except ServerUnreachable:
            return None  # it ended a moment ago, and is started again

    def servers(self) -> list[ModelProcess]:
        """The servers as they are now; read their `state`, `message`, `plan` and `reason`."""
        return list(self._servers.values())

    def stop(self) -> None:
        """End every server with all its processes."""
        with self._lock:
            self._stopped = True
            servers = list(self._servers.values())
        with ThreadPoolExecutor() as pool:
            list(pool.map(ModelProcess.stop, servers))
        with self._lock:
            self._servers.clear()

    def _at_neighbour(self, model: ServedModel) -> Place | None:
        """At a vLLM that somebody else runs, if it serves the model's base and answers."""
        if self._neighbour is None or self.backend == "embedded" or model.kind == "full":
            return None
        if self._neighbour.serves() != model.base:
            return None
        reason = f"the vLLM at {self._neighbour.url} serves this base"
        try:  # whether it computes on processors is not known
            return self._place_on_vllm(self._neighbour, model, reason, base_as_adapter=True)
        except ServerUnreachable:
            return None

    def _choose(self, model: ServedModel) -> Choice:
        serves = model.name if model.kind == "full" else model.base
        failure = self._failed.get(serves)
        if failure is not None and time.monotonic() < failure.until:
            return Choice("embedded", failure.reason)
        running = self._servers.get(("vllm", serves))
        if running is not None and running.state != "failed" and self.backend == "auto":
            return Choice("vllm", running.reason)  # its own memory must not speak against it
        return choose(self.backend, model)

    def _taken(self, model: ServedModel) -> Callable[[Gpu], float]:
        """What other servers have of a GPU; all of it where a run trains, or waits to."""
        gpus = () if vllm_backend.is_cpu_build() else serving_gpus()
        if len(gpus) < 2:
            return lambda gpu: 0.0
        with closing(open_database(self.home)) as db:
            training = {gpu.uuid for gpu in gpus if run_on_device(db, gpu.uuid)}
        mine = model.name if model.kind == "full" else model.base
        others = [s for s in self.servers() if s.plan.backend == "vllm" and s.plan.serves != mine]
        return lambda gpu: 1.0 if gpu.uuid in training else sum(s.part for s in others if gpu.uuid in s.devices)

    def _server(self, plan: Plan, choice: Choice) -> ModelProcess | None:
        """The server of the plan, started if need be; None while there is no room for it."""
        with self._lock:
            if self._stopped:
                raise Stopping("the lab is being stopped")
            key = (plan.backend, plan.serves)
            server = self._servers.get(key)
            if server is not None and server.plan.rank is not None and (plan.rank or 0) > server.plan.rank:
                self._end(server)  # an adapter of a larger rank than the server was started for
                server = None
            if server is not None and server.state == "waiting" and set(server.devices) != set(plan.devices()):
                self._end(server)  # a run has its GPU, and another one is free
                server = None
            if server is None:
                if not self._has_room(plan):
                    return None
                port = None if any(s.port == self._port for s in self._servers.values()) else self._port
                # `auto` has another way: one failure is enough.
                tries = 1 if self.backend == "auto" and plan.backend == "vllm" else 3
                server = ModelProcess(self.home, plan, choice.reason, port, tries)
                server.start()
                self._servers[key] = server
            server.used = time.monotonic()
            return server

    def _has_room(self, plan: Plan) -> bool:
        """Whether the plan's server may start now. For it vLLM servers end that have had their turn, the longest
        unused first: on a processor where there are too many or too little memory is left, on a GPU by its ledger."""
        if plan.backend != "vllm":
            return True
        others = sorted((s for s in self._servers.values() if s.plan.backend == "vllm"), key=lambda s: s.used)
        if not vllm_backend.is_cpu_build():
            return self._gpus.make(plan.serves, plan.part, plan.devices(), others, self._end)
        most = self.most_vllm or vllm_backend.MOST_PROCESSES
        while others and (len(others) >= most or free_gib() < vllm_backend.PROCESS_GIB):
            leaving = next((server for server in others if self._gpus.may_leave(server)), None)
            if leaving is None:
                return False
            others.remove(leaving)
            self._end(leaving)
        return True

    def _end(self, server: ModelProcess) -> None:
        server.stop()
        del self._servers[server.plan.backend, server.plan.serves]

    def _give_up(self, server: ModelProcess, plan: Plan) -> None:
        """Forget a server that failed, so that the next question tries again; `auto` then takes the embedded one."""
        with self._lock:
            if self._servers.get((plan.backend, plan.serves)) is server:
                self._end(server)
                with closing(open_database(self.home)) as db:
                    remove_server(db, server.id)
        if plan.backend == "vllm" and self.backend == "auto":
            clock = time.monotonic()
            pause = max(AFTER_FAILURE_SECONDS, 10 * (clock - server.begun))
            words = f"vLLM did not start, and is tried again after {pause / 60:.0f} min: {server.message}"
            self._failed[plan.serves] = _Failure(words, clock + pause)
            return
        raise ServingError(server.message)

    def _place_on_vllm(
        self, server: ModelProcess | Neighbour, model: ServedModel, reason: str, *, base_as_adapter: bool
    ) -> Place:
        """Loads the adapter if there is one. base_as_adapter: the base is asked as one too, see empty_adapter.py."""
        if model.kind == "adapter":
            self._load_adapter(server, model.name, model.folder)
        if not base_as_adapter:
            return Place(server.url, model.name, "vllm", reason)
        base = f"base-{model.base}"
        names = {base: f"{base}-as-adapter"}
        if model.kind == "base":
            try:
                self._load_adapter(server, names[base], empty_adapter(model.folder))
            except ValueError as error:
                raise ServingError(str(error)) from error
        return Place(server.url, names.get(model.name, model.name), "vllm", reason, names)

    def _load_adapter(self, server: ModelProcess | Neighbour, name: str, folder: Path) -> None:
        """Offer the adapter, unless it is; over the limit the one that was not asked for longest goes."""
        written = (folder / "adapter_model.safetensors").stat().st_mtime_ns
        with server.lock, ServerClient(server.url) as client:
            known = server.adapters.pop(name, None)
            while len(server.adapters) >= vllm_backend.MAX_ADAPTERS:
                longest_unused, _ = server.adapters.popitem(last=False)
                self._forget(client, longest_unused)
            if known != written:
                # Trained again under the same name, or left at a neighbour by a lab before this one.
                self._forget(client, name)
                try:
                    client.load_adapter(name, folder)
                except Refused as error:
                    raise ServingError(f"{name} does not fit on its base: {error}") from error
            server.adapters[name] = written

    @staticmethod
    def _forget(client: ServerClient, name: str) -> None:
        with suppress(Refused):  # it is not there any more
            client.unload_adapter(name)
