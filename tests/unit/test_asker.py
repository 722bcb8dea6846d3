"""The threads that put waiting questions to models: what becomes of a question when a server says no, or goes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, cast

import pytest

from app.asking import asker as asker_module
from app.asking.asker import Asker
from app.asking.model_server import ModelServer
from app.asking.submit import ask_facts, ask_text
from app.shared.lab import Lab
from engine.corpus.resolve import resolve
from engine.presets import load_preset
from engine.serving.client import Refused, ServerClient, ServerUnreachable, TooSlow
from engine.serving.served import ServedModel
from storage.asking_queue import (
    TokenPlace,
    get_alternatives,
    release_column,
    store_answers,
    want_alternatives,
)
from storage.askings import DONE, WAITING, Answer, Question, Token, list_answers, list_columns, list_questions
from storage.runs import Run, add_run


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    return Lab(tmp_path)


@pytest.fixture
def run(lab: Lab) -> Run:
    experiment = resolve(load_preset("quick"))
    return add_run(lab.db, name="quick", experiment=experiment.model_dump(mode="json"), model="embedded", seed=1)


def test_what_waits_while_the_lab_is_stopped_waits_for_the_next_one(
    lab: Lab, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(asker_module, "NOT_READY_SECONDS", 0.0)
    server = ModelServer(lab.home, "embedded")
    asking = ask_text(lab, run, "Who?", columns=[f"{run.id}/base"])
    server.stop()
    asker = Asker(lab, server)
    for _ in range(asker_module.MOST_TRIES + 1):
        assert asker.turn(), "the threads go on until the process ends"
    (column,) = list_columns(lab.db, asking)
    assert (column.state, column.error) == (WAITING, None)


class PretendedServer:
    """What the asker needs of a `ModelServer`: vLLM, ready with all models but those of some runs."""

    def __init__(self, *starting: str) -> None:
        self.starting = starting

    def client_for(self, served: ServedModel) -> ServerClient | None:
        """Nobody is asked through it here."""
        return None if served.run in self.starting else ServerClient("http://127.0.0.1:9")

    def backend_of(self, client: ServerClient) -> str:
        """Which server it is."""
        return "vllm"


def test_an_adapter_that_had_to_make_room_is_asked_again(lab: Lab, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    refusals = [Refused("The model `r/generalised@1` does not exist.", 404)] * 2

    def ask(_: ServerClient, served: ServedModel, questions: Sequence[Question], *more: Any) -> Iterator[list[Answer]]:
        if refusals:
            raise refusals.pop()
        yield [Answer(question, served.name, "Ana") for question in questions]

    monkeypatch.setattr(asker_module, "NOT_READY_SECONDS", 0.0)
    monkeypatch.setattr(asker_module, "ask_in_steps", ask)
    asking = ask_text(lab, run, "Who?", columns=[f"{run.id}/base"])
    asker = Asker(lab, cast(ModelServer, PretendedServer()))
    while asker.turn():
        pass
    (column,) = list_columns(lab.db, asking)
    assert (column.state, column.error) == (DONE, None)
    assert [answer.text for answer in list_answers(lab.db, asking)] == ["Ana"]


def test_an_answer_of_which_only_the_rank_is_refused_stays(lab: Lab, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def ask(_: ServerClient, served: ServedModel, questions: Sequence[Question], *more: Any) -> Iterator[list[Answer]]:
        yield [Answer(q, served.name, "Ana", log_probability=-1.0, complete=False) for q in questions]
        raise Refused("prompt 1 with its longest option is longer than the 64 tokens the model reads: shorten it", 400)

    monkeypatch.setattr(asker_module, "ask_in_steps", ask)
    asking = ask_text(lab, run, "Who?", columns=[f"{run.id}/base"])
    assert Asker(lab, cast(ModelServer, PretendedServer())).turn()
    (answer,) = list_answers(lab.db, asking)
    assert (answer.text, answer.log_probability, answer.error, answer.complete) == ("Ana", -1.0, None, True)
    assert [column.state for column in list_columns(lab.db, asking)] == [DONE]


def test_tokens_of_a_model_that_is_on_its_way_hold_nobody_up(
    lab: Lab, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    token = Token(7, "Ana", -0.5)
    monkeypatch.setattr(asker_module, "NOT_READY_SECONDS", 0.0)
    monkeypatch.setattr(asker_module, "ask_in_steps", lambda _, served, questions, *more: iter(
        [[Answer(question, served.name, "Ana") for question in questions]]
    ))  # fmt: skip
    monkeypatch.setattr(asker_module, "alternatives", lambda *_: [token])
    other = add_run(lab.db, name="other", experiment=run.experiment, model="embedded", seed=2)
    asking = ask_text(lab, run, "Who?", columns=[f"{run.id}/base"])
    asked_before = ask_text(lab, other, "Who?", columns=[f"{other.id}/base"])
    for of, kept in ((run.id, asking), (other.id, asked_before)):
        (question,) = list_questions(lab.db, kept)
        store_answers(lab.db, kept, f"{of}/base", [Answer(question, "", "Ana", (token,) * 3, complete=False)])
    for place in range(3):
        want_alternatives(lab.db, TokenPlace(asked_before, f"{other.id}/base", 1, place))
    want_alternatives(lab.db, TokenPlace(asking, f"{run.id}/base", 1, 0))
    asker = Asker(lab, cast(ModelServer, PretendedServer(other.id)))
    for _ in range(8):
        asker.turn()
    assert [column.state for column in list_columns(lab.db, asking)] == [DONE]
    looked = get_alternatives(lab.db, TokenPlace(asking, f"{run.id}/base", 1, 0))
    assert looked is not None and (looked.state, looked.tokens) == (DONE, (token,))


def test_a_model_that_is_too_slow_for_so_many_questions_is_asked_fewer(
    lab: Lab, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []

    def ask(_: ServerClient, served: ServedModel, questions: Sequence[Question], *more: Any) -> Iterator[list[Answer]]:
        asked.append(len(questions))
        if len(questions) > 30:
            raise TooSlow("the model server at http://127.0.0.1:9 does not answer in time")
        yield [Answer(question, served.name, "Ana") for question in questions]

    monkeypatch.setattr(asker_module, "NOT_READY_SECONDS", 0.0)
    monkeypatch.setattr(asker_module, "ask_in_steps", ask)
    asking = ask_facts(lab, run, "", columns=[f"{run.id}/base"])
    asker = Asker(lab, cast(ModelServer, PretendedServer()))
    while asker.turn():
        pass
    (column,) = list_columns(lab.db, asking)
    assert (column.state, column.error, column.answered) == (DONE, None, 100)
    assert asked == [100, 50, 25, 25, 25, 25]


def test_a_token_that_ends_the_server_again_and_again_is_given_up(
    lab: Lab, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    def look(*_: Any) -> list[Token]:
        asked.append(1)
        raise ServerUnreachable("the model server ended in the middle of the answer")

    asked: list[int] = []
    monkeypatch.setattr(asker_module, "NOT_READY_SECONDS", 0.0)
    monkeypatch.setattr(asker_module, "alternatives", look)
    asking, model = ask_text(lab, run, "Who?", columns=[f"{run.id}/base"]), f"{run.id}/base"
    (question,) = list_questions(lab.db, asking)
    store_answers(lab.db, asking, model, [Answer(question, "", "Ana", (Token(7, "Ana", -0.5),))])
    release_column(lab.db, asking, model, "vllm")
    place = TokenPlace(asking, model, 1, 0)
    want_alternatives(lab.db, place)
    asker = Asker(lab, cast(ModelServer, PretendedServer()))
    for _ in range(10):
        asker.turn()
    looked = get_alternatives(lab.db, place)
    assert looked is not None and looked.error is not None and "(6 times in a row)" in looked.error
    assert len(asked) == 6
