"""The threads of the page's server that put waiting questions to the models; pages only read what they store.

What is asked waits in the database (storage/asked_queue.py), so nothing depends on the tab that asked, and what a
killed server left undone the next one takes up. Each turn asks a few questions of one column: many people's questions
advance together, and the answers of a long column are seen as they come.
"""

from __future__ import annotations

import logging
import sqlite3
import threading
from collections.abc import Iterator, Sequence
from typing import Any

from app.ask.plan import FREE
from app.asking.model_server import ModelServer
from app.shared.lab import Lab
from app.shared.words import sentence
from engine.evaluation.questions import options_of
from engine.experiment import Experiment
from engine.serving.asking.ask import Answer, Query, Sampling, Token, alternatives, ask_in_steps
from engine.serving.client import Refused, ServerClient, ServerUnreachable, ServingError
from engine.serving.served import NotServable, ServedModel, served_model
from storage import asked
from storage import asked_queue as queue

# The embedded server answers one request after another: more threads would only hold up each other's first answers.
THREADS = 3
# Questions of one turn: every prompt of a fact in five languages. Measured, smaller turns take longer on the whole
# (28 a turn: 1.8 times), and answers come before their ranks anyway.
TURN = 160
# A killed asker's questions are taken up by the next one after this time at most.
LEASE_SECONDS = 20.0
RENEW_SECONDS = 5.0
WISH_SECONDS = 120.0
POLL_SECONDS = 1.0
PAUSE_SECONDS = 5.0
NOT_READY_SECONDS = 0.25
MOST_TRIES = 6
ALTERNATIVES = 12

log = logging.getLogger(__name__)
# The questions' numbers, their answers (or a text: why there is none), whether these are complete.
Step = tuple[list[int], Sequence[Answer | str], bool]


class Asker:
    """Asks what waits, until `stop`."""

    def __init__(self, lab: Lab, server: ModelServer) -> None:
        self.lab = lab
        self.server = server
        self._wake = threading.Condition()
        self._ending = threading.Event()
        self._threads: list[threading.Thread] = []
        self._held: set[tuple[str, str]] = set()

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
        """Ask one wish for alternatives or a few questions of one column; False when nothing waits."""
        db = self.lab.db
        if not queue.anything_waits(db):
            return False
        if wish := queue.claim_alternatives(db, WISH_SECONDS):
            self._alternatives(wish)
            return True
        column = queue.claim_column(db, LEASE_SECONDS)
        if column is None:
            return False
        place = (column.asking, column.model)
        self._held.add(place)
        try:
            self._column(column)
        finally:
            self._held.discard(place)
        return True

    def _column(self, column: asked.Column) -> None:
        place = (column.asking, column.model)
        try:
            self._ask(column)
        except (ServerUnreachable, _NotReady) as error:
            # Waiting for a server that starts is no failure; one that dies again and again is.
            died = isinstance(error, ServerUnreachable)
            if queue.give_back_column(self.lab.db, *place, counts=died) >= MOST_TRIES:
                queue.fail_column(self.lab.db, *place, sentence(f"{error} ({MOST_TRIES} times in a row)"))
            self._ending.wait(NOT_READY_SECONDS)
        except (ServingError, NotServable, _Impossible) as error:
            queue.fail_column(self.lab.db, *place, sentence(str(error)))
        except sqlite3.Error:
            raise
        except Exception as error:
            log.exception("a column could not be asked")
            queue.fail_column(self.lab.db, *place, sentence(f"this could not be asked: {error!r}"))

    def _ask(self, column: asked.Column) -> None:
        db = self.lab.db
        rows = queue.unanswered(db, column.asking, column.model, TURN)
        asking = asked.get_asking(db, column.asking)
        served = self._served(column)
        client = self._client(served)
        queries = to_queries(self._experiment(asking.run), asking.relation, rows)
        settings = asking.settings
        sampling = Sampling(
            max_tokens=settings["max_tokens"],
            temperature=settings["temperature"],
            top_p=settings["top_p"],
            seed=settings["seed"],
        )
        for numbers, answers, complete in each_step(client, served, rows, queries, sampling):
            stored = [to_row(n, a, complete) for n, a in zip(numbers, answers, strict=True)]
            queue.store_asked(db, column.asking, column.model, stored)
        queue.release_column(db, column.asking, column.model, self.server.backend_of(client))

    def _alternatives(self, wish: dict[str, Any]) -> None:
        db = self.lab.db
        try:
            row = asked.get_answer(db, wish["asking"], wish["model"], wish["number"])
            if row is None or row["error"]:
                raise _Impossible("there is no answer to look into")
            columns = asked.list_columns(db, wish["asking"])
            served = self._served(next(c for c in columns if c.model == wish["model"]))
            query = Query(text=row["text"], split=row["split"], subject=row["subject"])
            tokens = tuple(Token(t["id"], t["text"], t["log_probability"]) for t in row["tokens"])
            answer = Answer(query, served.name, row["answer"], tokens, "stop")
            found = alternatives(self._client(served), served, answer, wish["place"], ALTERNATIVES)
        except (_NotReady, ServerUnreachable):
            queue.give_back_alternatives(db, wish)
            self._ending.wait(NOT_READY_SECONDS)
        except (ServingError, NotServable, _Impossible, ValueError) as error:
            queue.store_alternatives(db, wish, [], sentence(str(error)))
        except sqlite3.Error:
            raise
        except Exception as error:
            log.exception("alternatives could not be asked for")
            queue.store_alternatives(db, wish, [], sentence(f"this could not be asked: {error!r}"))
        else:
            queue.store_alternatives(db, wish, [token_row(t) for t in found])

    def _served(self, column: asked.Column) -> ServedModel:
        run = self.lab.run(column.run)
        if run is None:
            raise _Impossible(f"the run {column.run} was deleted: what it had answered until then is kept")
        return served_model(self.lab.home, run, column.checkpoint)

    def _client(self, served: ServedModel) -> ServerClient:
        client = self.server.client_for(served)
        if client is None:
            raise _NotReady
        return client

    def _experiment(self, run_id: str) -> Experiment | None:
        run = self.lab.run(run_id)
        return Experiment.from_data(run.experiment) if run else None


class _NotReady(Exception):
    """The model server is still on its way."""


class _Impossible(Exception):
    """What was asked cannot be answered any more; the text says why."""


def each_step(
    client: ServerClient, served: ServedModel, rows: Sequence[dict[str, Any]], queries: list[Query], sampling: Sampling
) -> Iterator[Step]:
    """(numbers, answers, whether these are complete) for each step.

    Where the server refuses the lot (one prompt is too long for the model), it is asked in halves, so that one bad
    question takes none of the others along; its answer is the refusal as text. Raises what the server says of the
    model itself.
    """
    numbers = [row["number"] for row in rows]
    try:
        if rows:
            yield from _steps(client, served, numbers, queries, sampling)
    except (Refused, ValueError) as error:
        if len(rows) == 1:
            yield numbers, [str(error)], True
            return
        if all(_refusal(client, served, query) == str(error) for query in (queries[0], queries[-1])):
            raise _Impossible(str(error)) from error
        half = len(rows) // 2
        yield from each_step(client, served, rows[:half], queries[:half], sampling)
        yield from each_step(client, served, rows[half:], queries[half:], sampling)


def _refusal(client: ServerClient, served: ServedModel, query: Query) -> str:
    """What the server says against one question; empty when it would answer."""
    try:
        next(ask_in_steps(client, served, [query], Sampling(max_tokens=1)), None)
    except (Refused, ValueError) as error:
        return str(error)
    return ""


def _steps(
    client: ServerClient, served: ServedModel, numbers: list[int], queries: list[Query], sampling: Sampling
) -> Iterator[Step]:
    """Each step of asking, with whether it is the last: known only when the next one does not come."""
    before: list[Answer] | None = None
    for answers in ask_in_steps(client, served, queries, sampling):
        if before is None:
            yield numbers, answers, False
        before = answers
    if before is not None:
        yield numbers, before, True


def to_queries(experiment: Experiment | None, relation: str, rows: Sequence[dict[str, Any]]) -> list[Query]:
    """Stored questions as the models are asked; ranked among the options of their relation while its run is there."""
    found = next((r for r in experiment.relations if r.name == relation), None) if experiment else None
    facts = {(f.subject, f.object): f for f in found.explicit_facts} if found else {}
    queries = []
    for row in rows:
        fact = facts.get((row["subject"], row["object"]))
        queries.append(
            Query(
                text=row["text"],
                object=row["object"] or "",
                options=options_of(found, fact) if found and fact else (),
                relation=relation,
                split=row["split"] or FREE,
                language=row["language"],
                template=row["prompt"],
                subject=row["subject"],
            )
        )
    return queries


def to_row(number: int, answer: Answer | str, complete: bool) -> dict[str, Any]:
    """An answer as it is stored; a text in its place is why there is none."""
    if isinstance(answer, str):
        empty = dict.fromkeys(("hit", "log_probability", "rank", "options"))
        return empty | {"number": number, "answer": "", "tokens": [], "complete": True, "error": sentence(answer)}
    finite = answer.log_probability is not None and answer.log_probability > -1e300
    return {
        "number": number,
        "answer": answer.text,
        "hit": None if answer.hit is None else int(answer.hit),
        "log_probability": answer.log_probability if finite else None,
        "rank": answer.rank,
        "options": answer.options,
        "tokens": [token_row(token) for token in answer.tokens],
        "complete": complete,
        "error": None,
    }


def token_row(token: Token) -> dict[str, Any]:
    """A token as it is stored."""
    return {"id": token.id, "text": token.text, "log_probability": token.log_probability}
