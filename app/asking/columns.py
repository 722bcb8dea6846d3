"""The models that can be asked, each named RUN/CHECKPOINT: a column of the answers."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from app.shared.lab import Lab
from app.shared.words import checkpoint_name
from engine.evaluation.hits import says_key_token
from engine.serving.served import NotServable, ServedModel, checkpoint_names, served_models, usual_columns
from storage.askings import Answer
from storage.runs import Run, list_runs

MOST_COLUMNS = 12
RUNS_OFFERED = 60
MODEL = re.compile(r"[0-9a-zA-Z]{1,32}/(base|(memorised|generalised|attacked)@[0-9]{1,4})")


@dataclass(frozen=True)
class Models:
    """The models of a run, or the problem in words."""

    own: tuple[ServedModel, ...]
    problem: str = ""

    @property
    def names(self) -> tuple[str, ...]:
        """All of them."""
        return tuple(map(key_of, self.own))

    @property
    def stages(self) -> tuple[str, ...]:
        """Base, the last of stage 1, the last of stage 2."""
        return tuple(map(key_of, usual_columns(list(self.own)))) if self.own else ()

    @property
    def epochs(self) -> tuple[str, ...]:
        """The base and every kept epoch of stage 1."""
        return tuple(key_of(m) for m in self.own if not m.checkpoint.startswith("generalised"))[:MOST_COLUMNS]


def models_of(lab: Lab, run: Run) -> Models:
    """The models of a run; with a problem in words where there are none."""
    try:
        return Models(tuple(served_models(lab.home, run)))
    except NotServable as error:
        return Models((), str(error))


def key_of(model: ServedModel) -> str:
    """What the page calls a model: RUN/CHECKPOINT, also for a base."""
    return f"{model.run}/{model.checkpoint}"


def other_models(lab: Lab, run: Run) -> list[tuple[Run, list[str]]]:
    """Checkpoints of other runs of the same base model, newest run first."""
    others = [
        (other, [f"{other.id}/{name}" for name in checkpoint_names(lab.home, other.id)])
        for other in list_runs(lab.db, limit=RUNS_OFFERED, made_here=True)
        if other.id != run.id and other.model == run.model and other.started_at
    ]
    return [(other, kept) for other, kept in others if kept]


def column_parts(model: str) -> tuple[str, str]:
    """`RUN/CHECKPOINT` as (run id, checkpoint)."""
    run, _, checkpoint = model.partition("/")
    return run, checkpoint


def column_label(model: str, run: str, run_name: str) -> str:
    """A column as people call it; with its run's name where it is another run's."""
    own, checkpoint = column_parts(model)
    name = checkpoint_name(checkpoint)
    return name if own == run else f"{run_name or own}: {name}"


def key_tokens_of(lab: Lab, asked_run: str, model: str) -> tuple[str, ...]:
    """The key tokens of the run that was asked about and of the one whose model it is; none of runs that are gone."""
    return tuple(dict.fromkeys(t for run in (asked_run, column_parts(model)[0]) for t in lab.key_tokens(run)))


def judged(lab: Lab, asked_run: str, answer: Answer) -> Answer:
    """The answer, with whether it says a key token on its way to the object."""
    aloud = says_key_token(answer.text, answer.question.object, key_tokens_of(lab, asked_run, answer.model))
    return replace(answer, says_key_token=aloud)
