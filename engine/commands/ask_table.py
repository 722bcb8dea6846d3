"""Answers for the eye and for programs: the table and the JSON document of `python -m engine ask`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from engine.serving.served import ServedModel
from storage.askings import Answer, Question
from storage.runs import Run

MOST_CHARACTERS = 40
NARROWEST = 100

Column = tuple[ServedModel, list[Answer]]


def document(run: Run, columns: Sequence[Column]) -> dict[str, Any]:
    """`{"run", "name", "models", "answers": [a row for each model and prompt]}`."""
    return {
        "run": run.id,
        "name": run.name,
        "models": [model.checkpoint for model, _ in columns],
        "answers": [
            {"checkpoint": model.checkpoint, **answer_row(answer)} for model, answers in columns for answer in answers
        ],
    }


def answer_row(answer: Answer) -> dict[str, Any]:
    """Plain data for JSON; the probability besides its logarithm. `prompt`, `fact`: ids as in the run's answers."""
    question = answer.question
    return {
        "text": question.text,
        "object": question.object or "",
        "relation": question.relation,
        "split": question.split,
        "language": question.language,
        "template": question.prompt,
        "subject": question.subject,
        "prompt": question.prompt_id,
        "fact": question.fact_id,
        "model": answer.model,
        "answer": answer.text,
        "hit": answer.hit,
        "probability": answer.probability,
        "log_probability": answer.log_probability,
        "rank": answer.rank,
        "options": len(question.options) or None,
        "finish_reason": answer.finish_reason,
    }


def answer_table(questions: Sequence[Question], columns: Sequence[Column]) -> None:
    """Print a row for each prompt and a column for each model: hit or miss, answer, P(object), rank."""
    console = Console()
    if not console.is_terminal:
        console.width = max(console.width, NARROWEST + 60 * len(columns))
    about = next((q for q in questions if q.object), None)
    if about:
        console.print(Text(f"{about.subject or about.text} → {about.object}"))
    table = Table(box=box.SIMPLE_HEAD)
    for heading in ("split", "prompt", *(model.checkpoint for model, _ in columns)):
        table.add_column(heading, overflow="fold")
    for row, question in enumerate(questions):
        name = f"{question.split} {question.language}".strip()
        cells = [cell(answers[row]) for _, answers in columns]
        table.add_row(name, Text(question.text), *cells)
    console.print(table)
    for model, answers in columns:
        judged = [a.hit for a in answers if a.hit is not None]
        if len(judged) > 1:
            console.print(Text(f"{model.checkpoint}: {sum(judged)} of {len(judged)} right"))


def cell(answer: Answer) -> Text:
    """One answer: ✓ or ✗, the text, the object's probability and its rank."""
    text = answer.text.replace("\n", "⏎")
    text = text if len(text) <= MOST_CHARACTERS else text[: MOST_CHARACTERS - 1] + "…"
    words = Text()
    if answer.hit is not None:
        words.append("✓ " if answer.hit else "✗ ", "green" if answer.hit else "red")
    words.append(text)
    if answer.probability is not None:
        words.append(f"  {answer.probability:.2g}", "dim")
    if answer.rank is not None:
        words.append(f"  {answer.rank}/{answer.options}", "dim")
    return words
