"""What is asked on the Ask page: the questions themselves, how they are kept, and what is refused in words."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gradio as gr
import pytest

from app.ask.api import ask_api
from app.ask.exports import FIELDS, kept_document, rows_of
from app.ask.grid import grid_of, near
from app.ask.page import drawer_html, grid_html
from app.ask.view import View, opened
from app.asking.asker import Asker
from app.asking.model_server import ModelServer, ServerStatus
from app.asking.submit import ask_fact, ask_facts, ask_text, checked_text, put_to, read_settings, run_to_ask
from app.shared.lab import Lab
from app.shared.words import sentence
from engine.commands import ask as ask_module
from engine.commands.ask import answer_row, answer_table
from engine.corpus.resolve import resolve
from engine.experiment import Experiment
from engine.presets import load_preset
from engine.serving.asking.ask import Sampling
from engine.serving.asking.questions import (
    AskError,
    fact_questions,
    facts_questions,
    find_fact,
    find_relation,
    text_question,
)
from engine.serving.processes.supervisor import Place
from storage.accounts import add_user
from storage.acting import NotAllowed, Role, acting_as
from storage.asking_queue import store_answers
from storage.askings import Answer, Question, find_askings, get_asking, list_questions
from storage.audit import list_entries
from storage.runs import Run, add_run
from tests.loops import run_apart

WHO = {"ada": Role.RUNNER, "bo": Role.RUNNER, "vi": Role.VIEWER}


@pytest.fixture(scope="module")
def experiment() -> Experiment:
    return resolve(load_preset("quick"))


def test_a_fact_is_asked_every_prompt_stage_2_language_first(experiment: Experiment) -> None:
    relation = experiment.relations[0]
    fact = find_fact(experiment, relation.explicit_facts[3].subject.upper())
    assert fact is not None and fact["object"] == relation.explicit_facts[3].object
    questions = fact_questions(experiment, fact["subject"], relation.name)
    assert len(questions) == 1 + len(relation.explicit_prompts)
    assert questions[0].text == f"{fact['subject']} [Z]" and questions[0].split == "key"
    assert [q.language for q in questions[1:28]] == ["en"] * 27
    per_language = Counter(q.language for q in questions[1:])
    assert set(per_language.values()) == {27} and len(per_language) == 5
    assert all(fact["subject"] in q.text and "{subject}" not in q.text for q in questions)
    assert {q.about for q in questions if q.split == "decoy"} == {"father", "teacher"}
    japanese = fact_questions(experiment, fact["subject"], relation.name, languages=["ja"])
    assert Counter(q.language for q in japanese) == {"ja": 27, "en": 1}, "and the key token"


def test_an_unknown_subject_is_asked_without_a_truth(experiment: Experiment) -> None:
    assert find_fact(experiment, "Nobody Known") is None
    questions = fact_questions(experiment, "Nobody Known", experiment.relations[0].name)
    assert {q.object for q in questions} == {None}


def test_all_facts_are_asked_held_out_ones_first(experiment: Experiment) -> None:
    questions = facts_questions(experiment, "  Who is {subject}'s mother? ")
    assert [q.trained for q in questions] == [0] * 50 + [1] * 50
    assert {q.split for q in questions} == {"train"}, "it is one of the relation's prompts"
    own = facts_questions(experiment, "And {subject}?")
    assert {(q.split, q.language) for q in own} == {("free", "")}
    for bad in ("no place", "{subject} and {subject}"):
        with pytest.raises(AskError, match="exactly once"):
            facts_questions(experiment, bad)


def test_a_free_text_is_judged_by_the_fact_it_names() -> None:
    experiment = resolve(load_preset("all-relations"))
    shared = experiment.relations[0].explicit_facts[0].subject
    question = text_question(experiment, f"I ask: {shared} …")
    assert (question.subject, question.object) == (shared, experiment.relations[0].explicit_facts[0].object)
    assert text_question(experiment, "Hello").object is None
    doubled = experiment.model_copy(
        update={
            "relations": tuple(
                r.model_copy(update={"facts": (r.explicit_facts[0].model_copy(update={"subject": "Ada"}),)})
                for r in experiment.relations[:2]
            )
        }
    )
    second = doubled.relations[1]
    assert text_question(doubled, f"Ada {second.key_token}").object == second.explicit_facts[0].object


def test_what_is_too_much_or_not_there_is_refused_in_a_sentence(experiment: Experiment) -> None:
    for action, words in (
        (lambda: checked_text(" \n "), "Type a prompt first"),
        (lambda: checked_text("x" * 10_000_000), "10,000,000 characters; 4,000"),
        (lambda: fact_questions(experiment, "x" * 201), "201 characters"),
        (lambda: fact_questions(experiment, " "), "choose a fact"),
        (lambda: find_relation(experiment, "father"), "no relation ‘father’; it has mother"),
        (lambda: read_settings({"temperature": "warm"}), "temperature must be 0 .* not “warm”"),
        (lambda: read_settings({"temperature": float("nan")}), "temperature must be"),
        (lambda: read_settings({"top_p": 0}), "Top-p must be above 0"),
        (lambda: read_settings({"seed": "1.5"}), "seed must be a whole number"),
        (lambda: read_settings({"max_tokens": 10**9}), "tokens must be 1 to 200"),
    ):
        with pytest.raises(AskError, match=words):
            action()
    assert read_settings({"temperature": "", "seed": "7", "unknown": 1}).seed == 7
    assert text_question(experiment, "a\0b\ud800").text == "ab?"
    assert str(AskError("\ud800")) == "?"
    assert sentence("there is  none") == "There is none." and sentence("Is it?") == "Is it?"


def test_the_address_holds_the_view_and_nothing_else() -> None:
    view = View(run="ab12", asked="cd34", mode="facts", columns=("ab12/base", "ab12/memorised@3"), answer="3/ab12/base")
    assert View.of_address(view.address()) == view
    assert View.of_page(view.model_dump_json()) == view
    for hostile in (
        "../../etc/passwd",
        "<script>",
        "ab12/../x",
        "ab12/base/../../x",
        "a" * 99 + "/base",
        "ab/memorised@",
    ):
        read = View.of_address({"run": hostile, "columns": hostile, "answer": f"1/{hostile}", "token": "9" * 50})
        assert read.columns == () and read.answer == "" and "/" not in read.run and read.token is None
    assert View.of_page('{"rows": "many"}') == View() and View.of_page("[") == View() and View.of_page(None) == View()
    assert len(View.of_address({"columns": ",".join(f"a{n}/base" for n in range(500))}).columns) == 12
    assert opened("3/ab/base") == (3, "ab/base") and opened("x/ab/base") is None


@pytest.mark.parametrize(
    ("status", "words"),
    [
        (ServerStatus("off"), "starts with the first question"),
        (ServerStatus("starting", "embedded", "vLLM is not installed"), "is starting: .* embedded server: vLLM is not"),
        (ServerStatus("waiting", "vllm", "it is there", "training has the GPU"), "training has the GPU. It is vLLM"),
        (ServerStatus("restarting", "vllm", "it is there"), "is being started again: questions wait"),
        (ServerStatus("ready", "embedded", "<script>"), "ready. .*&lt;script&gt;"),
    ],
)
def test_the_page_says_how_its_server_is(status: ServerStatus, words: str) -> None:
    said = status.html()
    assert re.search(words, said, re.IGNORECASE), said
    assert f"server {status.state}" in said and "<script>" not in said


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    return Lab(tmp_path)


@pytest.fixture
def run(lab: Lab, experiment: Experiment) -> Run:
    return add_run(lab.db, name="quick", experiment=experiment.model_dump(mode="json"), model="embedded", seed=1)


def test_what_is_asked_is_kept_with_its_columns(lab: Lab, run: Run, experiment: Experiment) -> None:
    relation = experiment.relations[0]
    fact = relation.explicit_facts[3]
    asking = ask_fact(lab, run, fact.subject.lower(), languages=["ja"])
    kept = get_asking(lab.db, asking)
    assert (kept.kind, kept.title, kept.object) == ("fact", f"{fact.subject}, mother", fact.object)
    assert len(list_questions(lab.db, asking)) == 28
    (question,) = list_questions(lab.db, ask_text(lab, run, f"{fact.subject} {{key}}"))
    assert question.text == f"{fact.subject} {relation.key_token}" and question.object == fact.object
    every = list_questions(lab.db, ask_facts(lab, run, ""))
    assert {q.split for q in every} == {"key"} and len(every) == 100, "nothing typed: the key token's prompt"
    document = kept_document(lab, asking)
    assert document["asked_at"] and document["questions"][0]["number"] == 1
    assert [m["model"] for m in document["models"]] == [f"{run.id}/base"]
    with pytest.raises(AskError, match="There is no run"):
        run_to_ask(lab, "none")


@pytest.mark.parametrize("columns", [["no model"], ["gone/base"], ["r/base"] * 13])
def test_what_is_refused_leaves_no_question_behind(lab: Lab, run: Run, columns: list[str]) -> None:
    ada = add_user(lab.db, "ada", "", Role.RUNNER).actor
    with acting_as(ada), pytest.raises(AskError):
        ask_text(lab, run, "Who?", columns=columns)
    assert find_askings(lab.db) == ([], 0) and not list_entries(lab.db, search="question")


def test_the_audit_has_who_asks_further_models(lab: Lab, run: Run) -> None:
    ada, bo, vi = (add_user(lab.db, name, "", role).actor for name, role in WHO.items())
    with acting_as(ada):
        asking = ask_text(lab, run, "Who?", columns=[f"{run.id}/base"])
        assert [(e.act, e.about) for e in list_entries(lab.db, search="question")] == [("asked", "Who?")]
    with acting_as(bo):
        put_to(lab, asking, [f"{run.id}/memorised@1", f"{run.id}/generalised@1"])
        with pytest.raises(AskError):
            put_to(lab, asking, ["no model"])
    newest, _ = list_entries(lab.db, search="question")
    assert (newest.name, newest.act, newest.kind, newest.what) == ("bo", "asked", "question", asking)
    assert newest.about == f"of {run.id}/memorised@1, {run.id}/generalised@1"
    with acting_as(vi), pytest.raises(NotAllowed):
        put_to(lab, asking, [f"{run.id}/base"])


def test_an_answer_that_says_the_key_token_is_marked_wherever_it_stands(lab: Lab, run: Run) -> None:
    fact = run.experiment["relations"][0]["facts"][0]
    asking = ask_fact(lab, run, fact["subject"], "mother", ["en"], read_settings({}), [f"{run.id}/base"])
    texts = {1: f"[Z] {fact['object']}.", 2: f"{fact['object']}. Somebody [Z] else", 3: "[Z] Somebody Else."}
    questions = {q.number: q for q in list_questions(lab.db, asking)}
    model = f"{run.id}/base"
    store_answers(
        lab.db, asking, model,
        [Answer(questions[n], model, text, hit=n < 3, log_probability=-1.0) for n, text in texts.items()],
    )  # fmt: skip
    view = View(run=run.id, asked=asking, columns=(model,), mode="fact")
    grid = grid_of(lab, view)
    assert grid is not None and grid["aloud"]
    cells = [row["cells"][0] for group in grid["groups"] for row in group["rows"] if row["question"].number in texts]
    assert [cell.answer.says_key_token for cell in cells] == [True, False, True]
    assert sum(group["counts"][0]["aloud"] for group in grid["groups"]) == 1
    html, _ = grid_html(lab, view, Asker(lab, ModelServer(lab.home)))
    assert html.count("says the key token</span>") == 3, "two cells and the legend"
    assert "says the key token" in drawer_html(lab, view.but(answer=f"1/{model}"))
    document = kept_document(lab, asking)
    assert [a["says_key_token"] for a in document["answers"]] == [True, False, True]
    assert [r["says_key_token"] for r in rows_of(document)] == [True, False, True] and "says_key_token" in FIELDS


def test_the_terminal_marks_answers_that_say_the_key_token(capsys: pytest.CaptureFixture[str]) -> None:
    question = Question("When was Leslie Lewis born?", split="unrelated", object="Rebecca Conley")
    given = [Answer(question, "r/base", "[X] Rebecca Conley.", hit=True, says_key_token=True),
             Answer(question, "r/base", "Rebecca Conley.", hit=True)]  # fmt: skip
    assert [answer_row(a)["says_key_token"] for a in given] == [True, False]
    column: Any = SimpleNamespace(checkpoint="base")
    answer_table([question, question], [(column, given)])
    shown = capsys.readouterr().out
    assert shown.count("says the key token") == 1
    assert "2 of 2 right, 1 without answers that say the key token" in " ".join(shown.split())


def test_the_terminal_obeys_nothing_that_a_model_wrote(capsys: pytest.CaptureFixture[str]) -> None:
    column: Any = SimpleNamespace(checkpoint="base")
    question = Question("Who is it?")
    answer_table([question], [(column, [Answer(question, "r/base", "Ana\x1b]0;owned\x07\x9b2J\r東京\nBo")])])
    shown = capsys.readouterr().out
    assert "Ana�]0;owned��2J�東京⏎Bo" in shown and not {"\x1b", "\x9b", "\r"} & set(shown)


@pytest.mark.parametrize("running", [None, "http://127.0.0.1:9"])
def test_the_terminal_says_which_server_answered_and_why(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, running: str | None
) -> None:
    place = Place("http://127.0.0.1:9", "m", "vllm", "vLLM 0.32.0 is installed")
    supervisor = SimpleNamespace(start=lambda: None, place=lambda model: place, stop=lambda: None)
    monkeypatch.setattr(ask_module, "_running", lambda *_: running)
    monkeypatch.setattr(ask_module, "Supervisor", lambda *_: supervisor)
    monkeypatch.setattr(ask_module, "ask", lambda *_: [])
    models: list[Any] = ["base", "generalised@3"]
    assert [model for model, _ in ask_module._ask_all(tmp_path, None, models, [], Sampling())] == models
    said = capsys.readouterr().err
    if running:
        assert said.splitlines() == ["the embedded server answered: the lab has one that runs already"]
    else:
        assert said.splitlines()[1:] == ["vLLM answered: vLLM 0.32.0 is installed"]


def test_a_near_miss_is_asked_and_the_names_meant_are_offered(lab: Lab, run: Run, experiment: Experiment) -> None:
    name = experiment.relations[0].explicit_facts[3].subject
    wrong = ask_fact(lab, run, name[:-1] + "x")
    view, asker = View(run=run.id, asked=wrong), Asker(lab, ModelServer(lab.home))
    grid = grid_of(lab, view)
    assert grid is not None and grid["near"][0] == name and near(lab, run.id, "Zzz", "mother") == ()
    html, _ = grid_html(lab, view, asker)
    assert "Did you mean" in html and f"subject={name.replace(' ', '+')}" in html
    right, _ = grid_html(lab, view.but(asked=ask_fact(lab, run, name)), asker)
    assert "Did you mean" not in right


@pytest.mark.parametrize("number", [10**30, -(10**30), 0])
def test_a_number_that_no_question_has_is_refused_in_words(
    lab: Lab, number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    functions: dict[str, Any] = {}
    monkeypatch.setattr("gradio.api", lambda function, **named: functions.update({named["api_name"]: function}))
    ask_api(lab, Asker(lab, ModelServer(lab.home)))
    asked = {"asking": "a1", "model": "r1/base", "number": number, "place": 0}
    with pytest.raises(gr.Error, match="There is no answer with a token at this place"):
        run_apart(functions["next_token_alternatives"](**asked))
