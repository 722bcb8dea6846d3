"""The threads of the page's server that put waiting questions to the models; pages only read what they store.

What is asked waits in the database (storage/asking_queue.py), so nothing depends on the tab that asked, and what a
killed server left undone the next one takes up. Each turn asks a few questions of one column: many people's questions
advance together, and the answers of a long column are seen as they come.
"""

from __future__ import annotations

import logging
import sqlite3
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from http import HTTPStatus

from app.asking.model_server import ModelServer
from app.shared.lab import Lab
from app.shared.words import sentence
from engine.experiment import Experiment
from engine.serving.asking.ask import Sampling, alternatives, ask_in_steps
from engine.serving.asking.questions import with_options
from engine.serving.client import Refused, ServerClient, ServerUnreachable, ServingError, TooSlow
from engine.serving.served import NotServable, ServedModel, served_model
from storage import asking_queue as queue
from storage.asking_queue import TokenPlace
from storage.askings import Answer, Column, Question, get_answer, get_asking, list_columns

# The embedded server answers one request after another: more threads would only hold up each other's first answers.
THREADS = 3
# Questions of one turn: every prompt of a fact in five languages. Measured, smaller turns take longer on the whole
# (28 a turn: 1.8 times), and answers come before their ranks anyway.
TURN = 160
# A killed asker's questions are taken up by the next one after this time at most.
LEASE_SECONDS = 20.0
RENEW_SECONDS = 5.0
LOOK_LEASE_SECONDS = 120.0
POLL_SECONDS = 1.0
PAUSE_SECONDS = 5.0
NOT_READY_SECONDS = 0.25
MOST_TRIES = 6
ALTERNATIVES = 12

log = logging.getLogger(__name__)


class Asker:
    """Asks what waits, until `stop`."""

    def __init__(self, lab: Lab, server: ModelServer) -> None:
        self.lab = lab
        self.server = server
        self._wake = threading.Condition()
        self._ending = threading.Event()
        self._threads: list[threading.Thread] = []
        self._held: set[tuple[str, str]] = set()
        self._died: Counter[TokenPlace] = Counter()  # servers, each time that this was asked
        self._turns: dict[tuple[str, str], int] = {}  # of columns whose model is too slow for TURN

    def start(self) -> None:
        """Begin; returns at once."""
        self._threads = [
            threading.Thread(target=self._work, name=f"asker {n}", daemon=True) for n in range(1, THREADS + 1)
        ]
        self._threads.append(threading.Thread(target=self._renew, name="asker leases", daemon=True))
        for thread in self._threads:
            thread.start()

    def wake(self) -> None:
        """Say that something was put into the queue, so that nobody waits for the next look."""
        with self._wake:
            self._wake.notify_all()

    def stop(self) -> None:
        """Take up nothing more. A turn under way is asked again by the next server."""
        self._ending.set()
        self.wake()

    def _work(self) -> None:
        while not self._ending.is_set():
            busy = False
            try:
                busy = self.turn()
            except Exception:
                # The folder may be deleted or full while the lab runs, and it may come back: the threads live on.
                log.exception("the questions that wait could not be looked at")
                self._ending.wait(PAUSE_SECONDS)
            if not busy:
                with self._wake:
                    self._wake.wait(POLL_SECONDS)

    def _renew(self) -> None:
        while not self._ending.wait(RENEW_SECONDS):
            for place in list(self._held):
                try:
                    queue.renew_column(self.lab.db, *place, LEASE_SECONDS)
                except (sqlite3.Error, OSError):
                    log.exception("a lease could not be renewed")

    def turn(self) -> bool:
        """Ask for the alternatives of one token or a few questions of one column; False when nothing waits."""
        db = self.lab.db
        if not queue.anything_waits(db):
            return False
        token = queue.claim_alternatives(db, LOOK_LEASE_SECONDS)
        if token and self._alternatives(token):
            return True
        # Behind a token whose server is on its way, others' questions may have one.
        column = queue.claim_column(db, LEASE_SECONDS)
        if column is None:
            return token is not None
        place = (column.asking, column.model)
        self._held.add(place)
        try:
            self._column(column)
        finally:
            self._held.discard(place)
        return True

    def _column(self, column: Column) -> None:
        place = (column.asking, column.model)

        def give_back(error: Exception) -> None:
            # Waiting for a server that starts is no failure; one that dies again and again is.
            died = isinstance(error, ServerUnreachable) and not (isinstance(error, TooSlow) and self._halve(column))
            if queue.give_back_column(self.lab.db, *place, counts=died) >= MOST_TRIES:
                queue.fail_column(self.lab.db, *place, _again_and_again(error))

        self._attempt(lambda: self._ask(column), give_back, lambda words: queue.fail_column(self.lab.db, *place, words))

    def _turn_of(self, column: Column) -> int:
        """How many questions of a column are asked in one turn."""
        return min(self._turns.get((column.asking, column.model), TURN), column.questions - column.complete)

    def _halve(self, column: Column) -> bool:
        """Ask fewer questions a turn, where the model was too slow for so many; False where it was one."""
        asked = self._turn_of(column)
        self._turns[column.asking, column.model] = max(1, asked // 2)
        return asked > 1

    def _alternatives(self, place: TokenPlace) -> bool:
        def give_back(error: Exception) -> None:
            self._died[place] += isinstance(error, ServerUnreachable)
            if self._died[place] < MOST_TRIES:
                queue.give_back_alternatives(self.lab.db, place)
            else:
                fail(_again_and_again(error))

        def fail(words: str) -> None:
            del self._died[place]
            queue.store_alternatives(self.lab.db, place, (), words)

        return self._attempt(lambda: self._look(place), give_back, fail)

    def _attempt(
        self, ask: Callable[[], None], give_back: Callable[[Exception], None], fail: Callable[[str], None]
    ) -> bool:
        """Do what was claimed, or let it fail with a sentence; or give it back while no server answers (False)."""
        try:
            ask()
        except (ServerUnreachable, _NotReady) as error:
            give_back(error)
            self._ending.wait(NOT_READY_SECONDS)
            return False
        except (ServingError, NotServable, _Impossible) as error:
            fail(sentence(str(error)))
        except sqlite3.Error:
            raise
        except Exception as error:
            log.exception("what waited could not be asked")
            fail(sentence(f"this could not be asked: {error!r}"))
        return True

    def _ask(self, column: Column) -> None:
        db = self.lab.db
        asking = get_asking(db, column.asking)
        questions = queue.unanswered(db, column.asking, column.model, self._turn_of(column))
        served = self._served(column)
        client = self._client(served)
        if run := self.lab.run(asking.run):  # without its run a question is asked all the same, but not ranked
            questions = with_options(Experiment.from_record(run.experiment), asking.relation, questions)
        with self._asking(client):
            for answers in each_step(client, served, questions, Sampling(**asking.settings)):
                queue.store_answers(db, column.asking, column.model, answers)
        queue.release_column(db, column.asking, column.model, self.server.backend_of(client))

    def _look(self, place: TokenPlace) -> None:
        db = self.lab.db
        answer = get_answer(db, place.asking, place.model, place.number)
        if answer is None or answer.error:
            raise _Impossible("there is no answer to look into")
        served = self._served(next(c for c in list_columns(db, place.asking) if c.model == place.model))
        client = self._client(served)
        try:
            with self._asking(client):
                tokens = alternatives(client, served, answer, place.place, ALTERNATIVES)
        except ValueError as error:
            raise _Impossible(str(error)) from error
        del self._died[place]
        queue.store_alternatives(db, place, tokens)

    def _served(self, column: Column) -> ServedModel:
        run = self.lab.run(column.run)
        if run is None:
            raise _Impossible(f"the run {column.run} was deleted: what it had answered until then is kept")
        return served_model(self.lab.home, run, column.checkpoint)

    def _client(self, served: ServedModel) -> ServerClient:
        client = self.server.client_for(served)
        if client is None:
            raise _NotReady
        return client

    @contextmanager
    def _asking(self, client: ServerClient) -> Iterator[None]:
        """vLLM holds so many adapters: one that made room for another question's is loaded and asked again."""
        try:
            yield
        except Refused as error:
            if error.status == HTTPStatus.NOT_FOUND and self.server.backend_of(client) == "vllm":
                raise ServerUnreachable(str(error)) from error
            raise


def _again_and_again(error: Exception) -> str:
    return sentence(f"{error} ({MOST_TRIES} times in a row)")


class _NotReady(Exception):
    """The model server is still on its way."""


class _Impossible(Exception):
    """What was asked cannot be answered any more; the text says why."""


def each_step(
    client: ServerClient, served: ServedModel, questions: Sequence[Question], sampling: Sampling
) -> Iterator[list[Answer]]:
    """The answers of each step of asking.

    Where the server refuses the lot (one prompt is too long for the model), it is asked in halves, so that one bad
    question takes none of the others along; the refusal stands in place of its answer, or leaves it without its rank.
    Raises what the server says of the model itself.
    """
    answered: list[Answer] = []
    try:
        if questions:
            for answered in ask_in_steps(client, served, questions, sampling):
                yield answered
    except (Refused, ValueError) as error:
        if isinstance(error, Refused) and error.status == HTTPStatus.NOT_FOUND:
            raise
        if len(questions) == 1:
            kept = replace(answered[0], complete=True) if answered else None
            yield [kept or Answer(questions[0], served.name, error=sentence(str(error)))]
            return
        if all(_refusal(client, served, question) == str(error) for question in (questions[0], questions[-1])):
            raise _Impossible(str(error)) from error
        half = len(questions) // 2
        yield from each_step(client, served, questions[:half], sampling)
        yield from each_step(client, served, questions[half:], sampling)


def _refusal(client: ServerClient, served: ServedModel, question: Question) -> str:
    """What the server says against one question; empty when it would answer."""
    try:
        next(ask_in_steps(client, served, [question], Sampling(max_tokens=1)), None)
    except (Refused, ValueError) as error:
        return str(error)
    return ""
