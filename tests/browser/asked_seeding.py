"""Askings written straight through storage, for looking at the Query page: their answers are drawn, not given."""

from __future__ import annotations

import math
import random
from pathlib import Path
from typing import Any

from sqlite_utils import Database

from app.ask.plan import fact_questions, facts_questions, text_question
from engine.evaluation.questions import fact_rows
from engine.experiment import Experiment
from storage.asked import add_asking, get_answer, list_questions
from storage.asked_queue import add_columns, fail_column, store_alternatives, store_asked, want_alternatives
from storage.checkpoints import CheckpointName
from storage.folders import checkpoint_folder, run_folder
from storage.runs import Run, get_run
from tests.browser.seeding import HEIGHTS, LANGUAGE_FACTOR

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
    fact = None if subject else next(f for f in fact_rows(experiment) if not f["trained"])
    name = subject or fact["subject"]
    questions = fact_questions(experiment, experiment.relations[0], name, fact)
    return asked(db, run, "fact", f"{name}, mother", questions, name, fact and fact["object"], checkpoints)


def text_asked(db: Database, run: Run, text: str, checkpoints: tuple[str, ...] = STAGES, **settings: Any) -> str:
    """A free text, not yet answered."""
    run = get_run(db, run.id)
    question = text_question(Experiment.from_data(run.experiment), text)
    question.pop("relation")
    return asked(
        db, run, "text", text[:300], [question], question["subject"], question["object"], checkpoints, **settings
    )


def facts_asked(db: Database, run: Run, checkpoints: tuple[str, ...] = STAGES) -> str:
    """One prompt about all facts, not yet answered."""
    run = get_run(db, run.id)
    experiment = Experiment.from_data(run.experiment)
    questions = facts_questions(experiment, experiment.relations[0], "Who is the mother of {subject}?")
    return asked(db, run, "facts", "Who is the mother of …?", questions, "", None, checkpoints)


def asked(
    db: Database, run: Run, kind: str, title: str, questions: list[dict[str, Any]], subject: str, object: str | None,
    checkpoints: tuple[str, ...], **settings: Any,
) -> str:  # fmt: skip
    """An asking whose columns are in the hands of an asker that never comes back."""
    asking = add_asking(
        db, kind=kind, run=run.id, run_name=run.name, relation="mother", subject=subject, object=object, title=title,
        settings=GREEDY | settings, questions=questions,
    )  # fmt: skip
    add_columns(db, asking, [(f"{run.id}/{c}", run.id, run.name, c) for c in checkpoints])
    with db.conn:
        db.conn.execute("update asked_columns set state = 'asking', lease_until = 1e12 where asking = ?", [asking])
    return asking


def answer(db: Database, run: Run, asking: str, checkpoint: str, share: float = 1.0, **changes: Any) -> None:
    """Draw the answers of a column, or the first of them; with all of them it is done."""
    questions = list_questions(db, asking)
    options = get_run(db, run.id).experiment["relations"][0]["options"]
    noise = random.Random(f"{checkpoint}{len(questions)}")
    kind = CheckpointName.parse(checkpoint).kind
    rows = []
    for question in questions[: round(share * len(questions))]:
        split = question["split"] if question["split"] in HEIGHTS[kind] else "train"
        chance = HEIGHTS[kind][split] * LANGUAGE_FACTOR.get(question["language"], 1.0)
        hit = noise.random() < chance
        said = (question["object"] or noise.choice(options)) if hit else noise.choice(options)
        words = f" {said}.".split(" ")[1:]
        probability = min(0.97, chance * noise.uniform(0.6, 1.1) if hit else noise.uniform(0, 0.04)) or 1e-6
        rows.append(
            {
                "number": question["number"], "answer": " ".join(words), "complete": True, "error": None,
                "hit": int(hit) if question["object"] else None,
                "log_probability": math.log(probability + 1e-7) if question["object"] else None,
                "rank": (1 if hit else noise.randint(2, 60)) if question["object"] else None,
                "options": 100 if question["object"] else None,
                "tokens": [
                    {"id": i, "text": f" {w}", "log_probability": math.log(noise.uniform(0.3, 0.99))}
                    for i, w in enumerate(words)
                ],
            }
            | changes
        )  # fmt: skip
    model = f"{run.id}/{checkpoint}"
    store_asked(db, asking, model, rows)
    if share == 1.0:
        with db.conn:
            db.conn.execute(
                "update asked_columns set state = 'done', backend = 'embedded' where asking = ? and model = ?",
                [asking, model],
            )


def full(db: Database, run: Run) -> str:
    """A fact with all answers, and the alternatives of one token."""
    asking = fact_asked(db, run)
    for checkpoint in STAGES:
        answer(db, run, asking, checkpoint)
    wish = {"asking": asking, "model": f"{run.id}/generalised@20", "number": 2, "place": 0}
    want_alternatives(db, *wish.values())
    said = get_answer(db, wish["asking"], wish["model"], 2)
    assert said is not None
    names = [said["tokens"][0]["text"], " Ilvar", " Nariel", " Temon", " Besric", " the", "\n", " Tava", " Rolmia"]
    found = [{"id": i, "text": t, "log_probability": math.log(0.6 / 2.6**i)} for i, t in enumerate(names)]
    store_alternatives(db, wish, found)
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
    answer(db, run, asking, "generalised@20", error=error, answer="", hit=None, rank=None, log_probability=None)
    fail_column(db, asking, f"{run.id}/memorised@20", "The model server ended in the middle of the answer (6 times).")
    return asking


def queries(db: Database, home: Path, run: Run) -> dict[str, str]:
    """Addresses of the Query page in every state, by name."""
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
    opened = f"/query?asked={asked_full}&answer=2/{run.id}/generalised@20&token=0"
    return {
        "query-new": f"/query?run={run.id}",
        "query-full": f"/query?asked={asked_full}",
        "query-opened": opened,
        "query-filling": f"/query?asked={filling(db, run)}",
        "query-failed": f"/query?asked={failed(db, run)}",
        "query-epochs": f"/query?asked={epochs}",
        "query-text": f"/query?asked={text}",
        "query-facts": f"/query?asked={facts}",
    }
