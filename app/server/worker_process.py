"""Workers as child processes of the server: started with it, restarted when they die, ended with it.

There is one, or one for each GPU of several, which sees no other. For a cluster there is one, which gives it the runs.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from engine import CODE_ROOT
from engine.hardware import asked_device, visible_gpus

FIRST_PAUSE_SECONDS = 1.0
LONGEST_PAUSE_SECONDS = 60.0
STEADY_SECONDS = 60.0
START_SECONDS = 30.0
END_SECONDS = 15.0
LOG_BYTES = 5_000_000


class Workers:
    """Every worker of the lab."""

    def __init__(self, home: Path, environment: Mapping[str, str] | None = None, cluster: str | None = None) -> None:
        """environment: what the workers run with, but for the GPU of each; None for none. cluster: its address."""
        self._all: list[WorkerProcess] = []
        if environment is None:
            return
        if cluster is not None:
            self._all = [WorkerProcess(home, environment=environment, options=("--on", cluster))]
            return
        # The one device that somebody named is enough for one worker.
        gpus = () if asked_device() else visible_gpus()
        if len(gpus) < 2:
            self._all = [WorkerProcess(home, environment=environment)]
        else:
            environment = {**environment, "ROTE_LAB_GPUS": ",".join(gpu.uuid for gpu in gpus)}
            self._all = [
                WorkerProcess(
                    home, environment={**environment, "CUDA_VISIBLE_DEVICES": gpu.uuid}, name=f"worker-{place}"
                )
                for place, gpu in enumerate(gpus)
            ]

    def __iter__(self) -> Iterator[WorkerProcess]:
        return iter(self._all)

    def start(self) -> None:
        """Begin supervising them; returns at once."""
        for worker in self._all:
            worker.start()

    def starting(self) -> bool:
        """Whether one was started a moment ago, so that it may not have registered yet."""
        return any(worker.starting() for worker in self._all)

    def stop(self) -> None:
        """End them all, together."""
        if self._all:
            with ThreadPoolExecutor(len(self._all)) as pool:
                list(pool.map(WorkerProcess.stop, self._all))


class WorkerProcess:
    """Keeps one worker alive until `stop`. Its output goes to `home/logs/NAME.log`. environment: None is this one.

    After a quick death the next start waits 1, 2, 4 … 60 seconds; a worker that lived for a minute starts afresh.
    """

    def __init__(
        self,
        home: Path,
        command: list[str] | None = None,
        environment: Mapping[str, str] | None = None,
        name: str = "worker",
        options: tuple[str, ...] = (),
    ) -> None:
        self.home, self.environment, self.name = home, environment, name
        self.command = command or [
            sys.executable, "-m", "engine", "worker", "--home", str(home), "--parent", str(os.getpid()), *options
        ]  # fmt: skip
        self.starts = 0
        self._began = 0.0
        self._process: subprocess.Popen[bytes] | None = None
        self._lock = threading.Lock()
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._supervise, name="worker supervisor", daemon=True)

    def start(self) -> None:
        """Begin supervising; returns at once."""
        self._thread.start()

    def starting(self) -> bool:
        """Whether the worker was started a moment ago, so that it may not have registered yet."""
        process = self._process
        return process is not None and process.poll() is None and time.monotonic() - self._began < START_SECONDS

    def stop(self) -> None:
        """End the worker in an orderly way, or by force if it does not end in time."""
        self._ending.set()
        with self._lock:
            process = self._process
        if process is not None and process.poll() is None:
            process.terminate()
            try:
                process.wait(END_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        if self._thread.is_alive():
            self._thread.join(END_SECONDS)

    def _supervise(self) -> None:
        pause = FIRST_PAUSE_SECONDS
        while not self._ending.is_set():
            began = self._began = time.monotonic()
            code = self._run_once()
            if self._ending.is_set():
                return
            pause = FIRST_PAUSE_SECONDS if time.monotonic() - began > STEADY_SECONDS else pause
            self._note(f"the worker ended (exit status {code}); starting it again in {pause:.0f} s")
            self._ending.wait(pause)
            pause = min(LONGEST_PAUSE_SECONDS, pause * 2)

    def _run_once(self) -> int | None:
        with self._lock:
            if self._ending.is_set():
                return None
            with self._log() as log:
                self._process = subprocess.Popen(
                    self.command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
                    env=self.environment,
                    cwd=CODE_ROOT,  # not wherever the page was started: a folder `engine` there would be taken for ours
                )  # fmt: skip
            self.starts += 1
        return self._process.wait()

    def _log(self):
        path = self.home / "logs" / f"{self.name}.log"
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.exists() and path.stat().st_size > LOG_BYTES:
            path.replace(path.with_suffix(".old.log"))
        return path.open("ab")

    def _note(self, message: str) -> None:
        with contextlib.suppress(OSError), self._log() as log:
            log.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {message}\n".encode())
