"""The Ask page's functions for scripts (`gradio_client`), with names and descriptions that a person understands."""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import Awaitable, Callable
from dataclasses import asdict
from functools import partial, wraps
from typing import Any, ParamSpec, TypeVar, cast

import gradio as gr
from anyio.to_thread import run_sync
from pydantic import ConfigDict, ValidationError, validate_call

from app.ask.exports import kept_document
from app.ask.grid import near
from app.asking.asker import Asker
from app.asking.columns import MODEL, key_of, models_of
from app.asking.submit import Settings, ask_fact, ask_facts, ask_text, put_to, read_settings, run_to_ask
from app.shared.lab import Lab
from app.shared.words import checkpoint_name, sentence
from engine.serving.asking.questions import AskError
from storage.asking_queue import Alternatives, TokenPlace, get_alternatives, want_alternatives
from storage.askings import DONE, FAILED, find_askings, get_answer, list_columns
from storage.database import storable
from storage.runs import list_runs

P = ParamSpec("P")
R = TypeVar("R")
LONGEST_WAIT_SECONDS = 600.0
# How often a caller's answers are looked for: at first, and later.
FIRST_LOOK_SECONDS, LAST_LOOK_SECONDS = 0.1, 1.0
LISTED = 200
NO_TEXT = "the text holds half of a surrogate pair or a null character, which is no part of a text: remove it"
# Callers at a time; further ones queue. They wait for models, not for each other.
TOGETHER = 64


def ask_api(lab: Lab, asker: Asker) -> None:
    """Add the functions to the current app."""

    def list_models_to_ask(run: str = "") -> list[dict[str, Any]]:
        """The models that can be asked: base, stage 1 (memorised@EPOCH) and stage 2 (generalised@EPOCH) of each run.

        run: only of the run of this id. Each entry: {model, run, run_name, description}; `model` is what the other
        functions take.
        """
        runs = (
            [run_to_ask(lab, run)]
            if run
            else [r for r in list_runs(lab.db, limit=LISTED, made_here=True) if r.started_at]
        )
        return [
            {
                "model": key_of(model), "run": full.id, "run_name": full.name,
                "description": checkpoint_name(model.checkpoint),
            }
            for full in (lab.run(r.id) for r in runs)
            if full
            for model in models_of(lab, full).own
        ]  # fmt: skip

    async def ask_about_fact(
        run: str, subject: str, relation: str = "", languages: str = "", models: str = "", temperature: float = 0.0,
        top_p: float = 1.0, seed: int = 0, max_tokens: int = 50, wait_seconds: float = 120.0,
    ) -> dict[str, Any]:  # fmt: skip
        """Ask every prompt of a relation (key token, train, test, unrelated, decoys, reversal, 2-hop; each language)
        about one subject.

        run: a run's id. subject: of one of its facts, or any other (did_you_mean then names near ones). relation:
        needed where the run has several. languages: such as "en, ja"; empty means all. models: such as "RUN/base,
        RUN/generalised@20"; empty means base, stage 1 and stage 2. temperature 0 is greedy. Waits for the answers, at
        most wait_seconds (and 600); later ones are read with read_answers. Returns {id, address, complete,
        did_you_mean, models, questions, answers, …}.
        """
        settings = chosen(temperature, top_p, seed, max_tokens)

        def ask() -> str:
            return ask_fact(lab, run_to_ask(lab, run), subject, relation, split(languages), settings, split(models))

        return await answered(lab, asker, ask, wait_seconds)

    async def ask_free_text(
        run: str, text: str, models: str = "", temperature: float = 0.0, top_p: float = 1.0, seed: int = 0,
        max_tokens: int = 50, wait_seconds: float = 120.0,
    ) -> dict[str, Any]:  # fmt: skip
        """Let the models of a run go on with any text, which may hold a key token; the rest as in ask_about_fact.

        {key} in it stands for the key token of the fact that it names, else of the first relation. An answer is judged
        by the fact whose subject the text names; without one it is neither hit nor miss.
        """
        settings = chosen(temperature, top_p, seed, max_tokens)

        def ask() -> str:
            return ask_text(lab, run_to_ask(lab, run), text, settings, split(models))

        return await answered(lab, asker, ask, wait_seconds)

    async def ask_all_facts(
        run: str, prompt: str, relation: str = "", models: str = "", temperature: float = 0.0, top_p: float = 1.0,
        seed: int = 0, max_tokens: int = 50, wait_seconds: float = 300.0,
    ) -> dict[str, Any]:  # fmt: skip
        """Ask one prompt with {subject} about every fact of a relation; the rest as in ask_about_fact."""
        settings = chosen(temperature, top_p, seed, max_tokens)

        def ask() -> str:
            return ask_facts(lab, run_to_ask(lab, run), prompt, relation, settings, split(models))

        return await answered(lab, asker, ask, wait_seconds)

    async def ask_another_model(asking: str, model: str, wait_seconds: float = 120.0) -> dict[str, Any]:
        """Put the questions of an earlier asking (its id) to one more model, such as "RUN/memorised@6"."""

        def ask() -> str:
            kept(lab, asking)
            put_to(lab, asking, [model.strip()])
            return asking

        return await answered(lab, asker, ask, wait_seconds)

    def read_answers(asking: str) -> dict[str, Any]:
        """Everything kept of an earlier asking (its id), without asking anything again."""
        return kept(lab, asking)

    def search_askings(text: str = "", limit: int = 20) -> list[dict[str, Any]]:
        """What was asked before, newest first: askings in whose question or answers the text occurs."""
        rows, _ = find_askings(lab.db, text[:200], max(1, min(int(limit), LISTED)))
        return [row | {"address": address(row["id"])} for row in rows]

    async def next_token_alternatives(
        asking: str, model: str, number: int, place: int, wait_seconds: float = 60.0
    ) -> list[dict[str, Any]]:
        """What a model might have written at a place of an answer: the likeliest tokens with their log-probability.

        asking: its id. number: the question's number in it. place: of the answer's tokens, 0 being the first.
        """
        token = TokenPlace(asking, model, int(number), int(place))

        def want() -> None:
            # SQLite takes no number of more than 64 bits.
            known = MODEL.fullmatch(model) and 0 < number < 2**31
            answer = get_answer(lab.db, asking, model, token.number) if known else None
            if answer is None or not 0 <= place < len(answer.tokens):
                raise AskError("There is no answer with a token at this place.")
            want_alternatives(lab.db, token)
            asker.wake()

        def looked() -> Alternatives | None:
            alternatives = get_alternatives(lab.db, token)
            return alternatives if alternatives and alternatives.state in (DONE, FAILED) else None

        await run_sync(want)
        await settled(lambda: looked() is not None, wait_seconds)
        if (alternatives := await run_sync(looked)) is None:
            raise AskError("The model did not answer in time: ask again.")
        if alternatives.error:
            raise AskError(alternatives.error)
        return [asdict(t) for t in alternatives.tokens]

    for function in (
        list_models_to_ask, ask_about_fact, ask_free_text, ask_all_facts, ask_another_model, read_answers,
        search_askings, next_token_alternatives,
    ):  # fmt: skip
        gr.api(
            saying(function),
            api_name=function.__name__,
            api_description=" ".join((function.__doc__ or "").split()),
            concurrency_id="scripts",
            concurrency_limit=TOGETHER,
        )


def saying(function: Callable[P, R] | Callable[P, Awaitable[R]]) -> Callable[P, Awaitable[R]]:
    """The function, whose caller's mistakes (values of another kind too) are said to the caller as they are."""
    names = inspect.signature(function)
    checked: Callable[..., Any] = validate_call(config=ConfigDict(allow_inf_nan=False))(function)

    @wraps(function)
    async def said(*arguments: P.args, **named: P.kwargs) -> R:
        try:
            if any(isinstance(value, str) and value != storable(value) for value in (*arguments, *named.values())):
                raise AskError(NO_TEXT)
            call = partial(checked, **names.bind(*arguments, **named).arguments)
            return cast(R, await (call() if inspect.iscoroutinefunction(function) else run_sync(call)))
        except ValidationError as error:
            wrong = "; ".join(f"{item['loc'][0]}: {item['msg'][:200]}" for item in error.errors(include_url=False))
            raise gr.Error(sentence(wrong), print_exception=False) from error
        except AskError as error:
            raise gr.Error(sentence(str(error)), print_exception=False) from error

    return said


def split(names: str) -> list[str]:
    """Names that are separated by commas."""
    return [name.strip() for name in names.split(",") if name.strip()]


def chosen(temperature: float, top_p: float, seed: int, max_tokens: int) -> Settings:
    """How to decode. Raises AskError."""
    return read_settings({"temperature": temperature, "top_p": top_p, "seed": seed, "max_tokens": max_tokens})


def address(asking: str) -> str:
    """Where the page shows an asking, on this server."""
    return f"/ask?asked={asking}"


def kept(lab: Lab, asking: str) -> dict[str, Any]:
    """A kept asking as a document. Raises AskError."""
    try:
        document = kept_document(lab, asking)
    except KeyError:
        raise AskError("There is no asking of this id.") from None
    unknown = document["kind"] == "fact" and document["object"] is None
    return {
        "id": asking,
        "address": address(asking),
        "complete": complete(lab, asking),
        "did_you_mean": list(near(lab, document["run"], document["subject"], document["relation"])) if unknown else [],
    } | document


def complete(lab: Lab, asking: str) -> bool:
    """Whether no answer of the asking is still to come."""
    return not any(column.busy for column in list_columns(lab.db, asking))


async def answered(lab: Lab, asker: Asker, ask: Callable[[], str], wait_seconds: float) -> dict[str, Any]:
    """What is asked, once its answers are there, or as far as they have come after `wait_seconds`."""
    asking = await run_sync(ask)
    asker.wake()
    await settled(lambda: complete(lab, asking), wait_seconds)
    return await run_sync(kept, lab, asking)


async def settled(done: Callable[[], bool], seconds: float) -> None:
    """Return when it is done, or after that time. No thread is held meanwhile, so that pages have them."""
    deadline = time.monotonic() + min(seconds, LONGEST_WAIT_SECONDS)
    pause = FIRST_LOOK_SECONDS
    while time.monotonic() < deadline and not await run_sync(done):
        await asyncio.sleep(max(0.0, min(pause, deadline - time.monotonic())))
        pause = min(LAST_LOOK_SECONDS, pause * 1.5)
