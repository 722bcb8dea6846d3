"""Askings written straight through storage, for looking at the Ask page: their answers are drawn, not given."""

from __future__ import annotations

import math
import random
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from sqlite_utils import Database

from engine.evaluation.questions import fact_rows
from engine.experiment import Experiment
from engine.serving.asking.questions import fact_questions, facts_questions, text_question
from storage.asking_queue import (
    TokenPlace,
    add_column,
    fail_column,
    store_alternatives,
    store_answers,
    want_alternatives,
)
from storage.askings import Answer, Question, Token, add_asking, get_answer, list_questions
from storage.checkpoints import CheckpointName
from storage.database import write
from storage.folders import checkpoint_folder, run_folder
from storage.runs import Run, get_run
from tests.browser.seeding import ALOUD, HEIGHTS, LANGUAGE_FACTOR

GREEDY = {"temperature": 0.0, "top_p": 1.0, "seed": 0, "max_tokens": 50}
STAGES = ("base", "memorised@20", "generalised@20")


def with_checkpoints(db: Database, home: Path, run: Run) -> Run:
    """The run with folders where its checkpoints would lie: enough to be offered, not to be asked."""
    experiment = Experiment.from_data(get_run(db, run.id).experiment)
    for epoch in experiment.stage1.saved_epochs:
        for kind in ("memorised", "generalised"):
            checkpoint_folder(run_folder(home, run.id), f"{kind}@{epoch}").mkdir(parents=True, exist_ok=True)
    return run


def fact_asked(db: Database, run: Run, subject: str = "", checkpoints: tuple[str, ...] = STAGES) -> str:
    """Every prompt about a held-out fact (or the subject), of some checkpoints, not yet answered."""
    run = get_run(db, run.id)
    experiment = Experiment.from_data(run.experiment)
    name = subject or next(f["subject"] for f in fact_rows(experiment) if not f["trained"])
    questions = fact_questions(experiment, name)
    return asked(db, run, "fact", f"{name}, mother", questions, checkpoints)


def text_asked(db: Database, run: Run, text: str, checkpoints: tuple[str, ...] = STAGES, **settings: Any) -> str:
    """A free text, not yet answered."""
    run = get_run(db, run.id)
    question = text_question(Experiment.from_data(run.experiment), text)
    return asked(db, run, "text", text[:300], [question], checkpoints, **settings)


def facts_asked(db: Database, run: Run, checkpoints: tuple[str, ...] = STAGES) -> str:
    """One prompt about all facts, not yet answered."""
    run = get_run(db, run.id)
    experiment = Experiment.from_data(run.experiment)
    questions = facts_questions(experiment, "Who is the mother of {subject}?")
    return asked(db, run, "facts", "Who is the mother of …?", questions, checkpoints)


def asked(
    db: Database, run: Run, kind: str, title: str, questions: list[Question], checkpoints: tuple[str, ...],
    **settings: Any,
) -> str:  # fmt: skip
    """An asking whose columns are in the hands of an asker that never comes back."""
    questions = [replace(q, relation="mother") for q in questions]
    asking = add_asking(db, kind, run.id, run.name, title, GREEDY | settings, questions)
    with write(db):  # at once: the server's asker must never see a column that waits
        for checkpoint in checkpoints:
            add_column(db, asking, run.id, run.name, checkpoint)
        # A lease of more than an hour counts as one that lapsed (the clock was set back), and would be claimed.
        lease = time.time() + 3500
        db.execute("update asking_columns set state = 'asking', lease_until = ? where asking = ?", [lease, asking])
    return asking


def answer(db: Database, run: Run, asking: str, checkpoint: str, share: float = 1.0, **changes: Any) -> None:
    """Draw the answers of a column, or the first of them; with all of them it is done."""
    questions = list_questions(db, asking)
    relation = get_run(db, run.id).experiment["relations"][0]
    options = relation["options"]
    noise = random.Random(f"{checkpoint}{len(questions)}")
    kind = CheckpointName.parse(checkpoint).kind
    model = f"{run.id}/{checkpoint}"
    answers = []
    for question in questions[: round(share * len(questions))]:
        split = question.split if question.split in HEIGHTS[kind] else "train"
        chance = HEIGHTS[kind][split] * LANGUAGE_FACTOR.get(question.language, 1.0)
        hit = noise.random() < chance
        said = (question.object or noise.choice(options)) if hit else noise.choice(options)
        words = f" {said}.".split(" ")[1:]
        if hit and kind in ALOUD and split in ALOUD[kind]:
            words.insert(0, relation["key_token"])
        probability = min(0.97, chance * noise.uniform(0.6, 1.1) if hit else noise.uniform(0, 0.04)) or 1e-6
        known = question.object is not None
        answer = Answer(
            question, model, " ".join(words),
            hit=hit if known else None,
            log_probability=math.log(probability + 1e-7) if known else None,
            rank=(1 if hit else noise.randint(2, 60)) if known else None,
            options=100 if known else None,
            tokens=tuple(Token(i, f" {w}", math.log(noise.uniform(0.3, 0.99))) for i, w in enumerate(words)),
        )  # fmt: skip
        answers.append(replace(answer, **changes))
    store_answers(db, asking, model, answers)
    if share == 1.0:
        with db.conn:
            db.conn.execute(
                "update asking_columns set state = 'done', backend = 'embedded' where asking = ? and model = ?",
                [asking, model],
            )


def full(db: Database, run: Run) -> str:
    """A fact with all answers, and the alternatives of one token."""
    asking = fact_asked(db, run)
    for checkpoint in STAGES:
        answer(db, run, asking, checkpoint)
    place = TokenPlace(asking, f"{run.id}/generalised@20", 2, 0)
    want_alternatives(db, place)
    said = get_answer(db, asking, place.model, 2)
    assert said is not None
    names = [said.tokens[0].text, " Ilvar", " Nariel", " Temon", " Besric", " the", "\n", " Tava", " Rolmia"]
    store_alternatives(db, place, [Token(i, text, math.log(0.6 / 2.6**i)) for i, text in enumerate(names)])
    return asking


def filling(db: Database, run: Run) -> str:
    """A fact whose answers are on their way."""
    asking = fact_asked(db, run)
    answer(db, run, asking, "base", 0.5)
    answer(db, run, asking, "memorised@20", 0.09, rank=None, complete=False)
    return asking


def failed(db: Database, run: Run) -> str:
    """A fact with one column that failed, and one with questions that failed."""
    asking = fact_asked(db, run)
    answer(db, run, asking, "base")
    answer(db, run, asking, "memorised@20", 0.05)
    error = "This prompt has 612 tokens, and the model's context is 512: shorten it."
    answer(db, run, asking, "generalised@20", error=error, text="", hit=None, rank=None, log_probability=None)
    fail_column(db, asking, f"{run.id}/memorised@20", "The model server ended in the middle of the answer (6 times).")
    return asking


def pages(db: Database, home: Path, run: Run) -> dict[str, str]:
    """Addresses of the Ask page in every state, by name."""
    with_checkpoints(db, home, run)
    asked_full = full(db, run)
    epochs = fact_asked(db, run, checkpoints=("base", "memorised@3", "memorised@6", "memorised@10", "memorised@20"))
    for checkpoint in ("base", "memorised@3", "memorised@6", "memorised@10", "memorised@20"):
        answer(db, run, epochs, checkpoint)
    text = text_asked(db, run, "Vurnia Virik [Z]", temperature=0.8, top_p=0.95, seed=4)
    facts = facts_asked(db, run)
    for asking in (text, facts):
        for checkpoint in STAGES:
            answer(db, run, asking, checkpoint)
    opened = f"/ask?asked={asked_full}&answer=2/{run.id}/generalised@20&token=0"
    return {
        "ask-new": f"/ask?run={run.id}",
        "ask-full": f"/ask?asked={asked_full}",
        "ask-opened": opened,
        "ask-filling": f"/ask?asked={filling(db, run)}",
        "ask-failed": f"/ask?asked={failed(db, run)}",
        "ask-epochs": f"/ask?asked={epochs}",
        "ask-text": f"/ask?asked={text}",
        "ask-facts": f"/ask?asked={facts}",
    }
