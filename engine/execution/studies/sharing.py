"""What a run of a study need not compute, where another one has it: its stage 1, and what the base and that answer."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from contextlib import closing
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

from sqlite_utils import Database

from engine.corpus.general import GENERAL
from engine.evaluation.answer import Answer
from engine.evaluation.base_text import METRICS
from engine.evaluation.questions import Question, questions_for
from engine.evaluation.representations.texts import key_of, sampled_texts
from engine.execution.evaluations import Shared
from engine.experiment import Experiment
from engine.models.folders import linked_copy, whole
from engine.models.identity import base_key, noted_base
from engine.studies.alike import answering, knowing
from storage.answers import ANSWERS_NAME, all_answers, evaluated_checkpoints, open_answers
from storage.carrying import MOST_TRIED
from storage.checkpoints import BASE, CheckpointName
from storage.folders import checkpoint_folder
from storage.measurements import list_results
from storage.representations import copy_representations
from storage.runs import Run, add_event, get_run
from storage.studies import done_like


def link_memorised(db: Database, folder: Path, run: Run, experiment: Experiment) -> None:
    """Link the memorised checkpoints of done runs of the same study that memorised the same into this run's folder.

    What is there stays; a flaw in a linked one is found where it is used. The others' folders lie beside `folder`.
    """
    names = [f"memorised@{epoch}" for epoch in experiment.stage1.saved_epochs]
    for other in _others(db, run, "memorises", has=lambda other: _has_one(folder.with_name(other), names)):
        if linked := _link(folder, other, experiment):
            words = f"Stage 1 was done in run {other.id}, which memorised the same: epoch {', '.join(linked)}"
            add_event(db, run.id, "shared", words)


def _others(
    db: Database, run: Run, key: str, checkpoint: str | None = None, has: Callable[[str], bool] = lambda _: True
) -> list[Run]:
    """Some runs that are done, are alike in this, and have figures of the checkpoint and what `has` asks for."""
    if not run.study or not run.cell:
        return []
    found = done_like(db, run.study, key, run.cell[key], checkpoint and [checkpoint])
    return [get_run(db, other) for other in islice((x for x in found if x != run.id and has(x)), MOST_TRIED)]


def _has_one(folder: Path, checkpoints: Iterable[str]) -> bool:
    """Whether the models of one of the checkpoints are still there."""
    return any(whole(checkpoint_folder(folder, name)) for name in checkpoints)


def _link(folder: Path, other: Run, experiment: Experiment) -> list[str]:
    """The epochs that were linked."""
    key, linked = base_key(experiment), []
    for epoch in experiment.stage1.saved_epochs:
        target = checkpoint_folder(folder, f"memorised@{epoch}")
        source = whole(checkpoint_folder(folder.with_name(other.id), target.name))
        if source is None or os.path.lexists(target) or noted_base(source) != key:
            continue
        linked_copy(source, target)
        linked.append(str(epoch))
    return linked


def shared_answers(db: Database, folder: Path, run: Run, experiment: Experiment, checkpoint: str) -> Shared:
    """What runs of the same study that share the base, or that memorised the same, have of this one's checkpoint: the
    answers to its questions, and what is left there of what the base knew."""
    kind = CheckpointName.parse(checkpoint).kind
    if kind not in (BASE, "memorised"):
        return Shared()
    wanted = {(q.prompt, q.fact): q for q in questions_for(experiment, checkpoint)}
    answers: dict[tuple[int, int], Answer] = {}
    knew: list[dict[str, Any]] = []
    for other in _others(db, run, "begins" if kind == BASE else "memorises", checkpoint):
        theirs = Experiment.from_record(other.experiment)
        if knowing(theirs) == knowing(experiment) and not knew:
            rows = list_results(db, other.id)
            knew = [vars(r) for r in rows if r.checkpoint == checkpoint and r.metric in (*METRICS, GENERAL)]
        if answering(theirs) == answering(experiment):
            answers |= _answers(folder.with_name(other.id), theirs, checkpoint, wanted)
    return Shared(list(answers.values()), knew)


def take_represented(
    db: Database, answers: Database, folder: Path, run: Run, experiment: Experiment, checkpoint: str
) -> bool:
    """Copy into this run's `answers` how a run of the same study found a checkpoint that they share to represent the
    prompts, where it looked at the same ones; whether there was that."""
    kind, texts = CheckpointName.parse(checkpoint).kind, sampled_texts(experiment)
    if kind not in (BASE, "memorised") or not texts:
        return False
    for other in _others(db, run, "begins" if kind == BASE else "memorises", checkpoint):
        place = folder.with_name(other.id)
        if (place / ANSWERS_NAME).is_file():
            with closing(open_answers(place)) as theirs:
                if copy_representations(answers, theirs, checkpoint, key_of(texts)):
                    return True
    return False


def _answers(
    folder: Path, theirs: Experiment, checkpoint: str, wanted: dict[tuple[int, int], Question]
) -> dict[tuple[int, int], Answer]:
    """The answers of a run's checkpoint to questions that are wanted just as they were asked there."""
    if not (folder / ANSWERS_NAME).is_file():
        return {}
    with closing(open_answers(folder)) as asked:
        if checkpoint not in evaluated_checkpoints(asked):
            return {}
        same = {
            (q.prompt, q.fact) for q in questions_for(theirs, checkpoint) if _fits(q, wanted.get((q.prompt, q.fact)))
        }
        given = (Answer(**row) for row in all_answers(asked, checkpoint))
        found = {(a.prompt, a.fact): a for a in given if (a.prompt, a.fact) in same}
    return {place: a if wanted[place].options else _without_choice(a) for place, a in found.items()}


def _fits(question: Question, wanted: Question | None) -> bool:
    """Whether the answer to a question is the one to what is wanted, too. It may have been asked to choose besides."""
    if wanted is None:
        return False
    return replace(question, options=question.options if wanted.options else ()) == wanted


def _without_choice(answer: Answer) -> Answer:
    return replace(answer, choice_rank=None, choice_options=None, log_probability_normalised=None)
