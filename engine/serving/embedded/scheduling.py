"""Who computes when: questions to one model that wait together are answered together, and all askers take turns.

A request becomes a `Job`. Jobs for the same model that have not begun form one `Group`; a group's work is cut into
small pieces, and the groups take turns piece by piece: a thousand questions do not keep one question waiting. A job
that is cancelled (its client has gone) is dropped at the next piece; a failure ends the job that provoked it only.
"""

from __future__ import annotations

import logging
import threading
import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import ExitStack
from typing import Any

import torch

from engine.models.out_of_memory import is_out_of_memory
from engine.serving.embedded.decoding import Continuation, Wish, decode
from engine.serving.embedded.residents import Resident, Residents

logger = logging.getLogger("engine.serving")
# Rows that join one group; more than decode together would only wait inside it instead of taking turns.
MOST_ROWS = 512
# How long a group computes before it is another one's turn; switching between adapters takes a millisecond or two.
TURN_SECONDS = 0.02


class Gone(Exception):
    """The client no longer waits for the answer."""


class Job:
    """One request. `future` gets its result, or the exception that ended it.

    rows: how many texts it continues, 0 for what is computed by itself; size: about how many bytes its reply takes.
    """

    rows = 0
    size = 0

    def __init__(self, model: str) -> None:
        self.model = model
        self.future: Future[Any] = Future()
        self.cancelled = False  # once it is True, what is not computed yet is dropped

    def fail(self, error: BaseException) -> None:
        """End with an error, unless it has ended already."""
        if not self.future.done():
            self.future.set_exception(error)


class Alone(Job, ABC):
    """A job that is computed by itself."""

    @abstractmethod
    def work(self, resident: Resident) -> Iterator[None]:
        """Compute piece by piece and set the future."""


class Completion(Job, ABC):
    """Prompts to be continued, together with those of other jobs.

    `wishes(resident)` reads the request, and may refuse it by raising.
    """

    @abstractmethod
    def wishes(self, resident: Resident) -> list[Wish]:
        """One wish for each choice of the reply."""

    @abstractmethod
    def finish(self, resident: Resident, texts: list[Continuation]) -> Any:
        """The reply, of the future's result: the model that answered, and what came of each wish."""


class Group:
    """Jobs for one model that are computed together: completions, or one job alone."""

    def __init__(self, job: Job) -> None:
        self.jobs = [job]
        self._work: Iterator[None] | None = None
        self._resident: Resident | None = None
        self._held = ExitStack()

    def takes(self, job: Job) -> bool:
        """Whether a job may still join."""
        first = self.jobs[0]
        if self._work is not None or job.model != first.model or not job.rows or not first.rows:
            return False
        return sum(j.rows for j in self.jobs) + job.rows <= MOST_ROWS

    def advance(self, residents: Residents) -> bool:
        """Compute a few pieces; returns whether there is more to do. Raises what went wrong."""
        if all(job.cancelled for job in self.jobs):
            raise Gone
        if self._work is None or self._resident is None:
            self._resident = self._held.enter_context(residents.holding(self.jobs[0].model))
            first = self.jobs[0]
            self._work = first.work(self._resident) if isinstance(first, Alone) else self._complete()
        end = time.monotonic() + TURN_SECONDS
        with self._resident.asking():
            while time.monotonic() < end:
                if next(self._work, self) is self:
                    return False
        return True

    def end(self, error: BaseException | None = None) -> None:
        """Let the model go; jobs without a result fail."""
        self._held.close()
        for job in self.jobs:
            job.fail(error or Gone())

    def _complete(self) -> Iterator[None]:
        assert self._resident is not None
        asked: list[tuple[Completion, list[Wish]]] = []
        for job in self.jobs:
            assert isinstance(job, Completion)
            try:
                asked.append((job, job.wishes(self._resident)))
            except Exception as error:
                job.fail(error)
        yield from self._answer(asked)

    def _answer(self, asked: list[tuple[Completion, list[Wish]]]) -> Iterator[None]:
        """Compute jobs together. When that fails, halves are tried apart: who is at fault fails, and nobody beside."""
        try:
            yield from self._decode(asked)
            return
        except Exception as raised:
            error = raised.with_traceback(None)  # which would keep the tensors of what failed
        left = [(job, wishes) for job, wishes in asked if not job.future.done()]
        if is_out_of_memory(error):
            torch.cuda.empty_cache()
        if len(left) == 1:
            left[0][0].fail(error)
            return
        for half in (left[: len(left) // 2], left[len(left) // 2 :]):
            if half:
                yield from self._answer(half)

    def _decode(self, asked: list[tuple[Completion, list[Wish]]]) -> Iterator[None]:
        resident = self._resident
        assert resident is not None
        parts = [(job, [Continuation(wish) for wish in wishes]) for job, wishes in asked]
        texts = [text for _, part in parts for text in part]
        owner = [job for job, part in parts for _ in part]
        left = {job: len(part) for job, part in parts}
        wanted: Callable[[int], bool] = lambda row: not owner[row].cancelled  # noqa: E731
        for ended in decode(resident.model, texts, limit=resident.limit, wanted=wanted):
            for row in ended:
                left[owner[row]] -= 1
            for job, part in parts:
                if not left[job] and not job.future.done():
                    job.future.set_result((resident, part))
            yield


class Scheduler:
    """Threads that compute jobs. Several on a CPU, where models are small; one on an accelerator."""

    def __init__(self, residents: Residents, threads: int) -> None:
        self.residents = residents
        self._groups: deque[Group] = deque()
        self._ready = threading.Condition()
        self._ended = False
        self._threads = [threading.Thread(target=self._run, name=f"answers {i}", daemon=True) for i in range(threads)]
        for thread in self._threads:
            thread.start()

    def submit(self, job: Job) -> None:
        """Put a job in the queue."""
        with self._ready:
            if self._ended:
                job.fail(RuntimeError("the server is ending"))
                return
            for group in self._groups:
                if group.takes(job):
                    group.jobs.append(job)
                    return
            self._groups.append(Group(job))
            self._ready.notify()

    def waiting(self) -> int:
        """How many groups wait for their turn, without those that a thread is at."""
        return len(self._groups)

    def stop(self) -> None:
        """End the threads after the piece they are at; jobs that are not answered fail."""
        with self._ready:
            self._ended = True
            self._ready.notify_all()
        for thread in self._threads:
            thread.join(10)
        for group in self._groups:
            group.end(RuntimeError("the server is ending"))

    def _run(self) -> None:
        while True:
            with self._ready:
                while not self._groups and not self._ended:
                    self._ready.wait()
                if self._ended:
                    return
                group = self._groups.popleft()
            error: BaseException | None = None
            more = False
            try:
                more = group.advance(self.residents)
            except BaseException as raised:
                error = raised
                if is_out_of_memory(raised):
                    torch.cuda.empty_cache()
            if more:
                with self._ready:
                    self._groups.append(group)
                    self._ready.notify()
            else:
                group.end(error)
