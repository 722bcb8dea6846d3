"""What would make a planned run shorter: changes of a few settings, each with what it would then take."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from app.shared.render import duration
from engine.estimate import Estimate
from engine.experiment import Experiment
from engine.models.source import EMBEDDED
from engine.settings import Evaluation, Stage1

# Halves of held-out and trained facts, and enough prompts for those that stage 2 uses and some that it doesn't.
FACTS, PROMPTS, TOKENS = 24, 4, 16
# From how many seconds on, and from which share of them saved, it is worth a word.
WORTH_SECONDS, WORTH_SHARE = 120, 0.2
MOST = 2
# The values of the form's fields, by their paths.
Values = dict[str, Any]


@dataclass(frozen=True)
class Suggestion:
    """A change that the page offers: `name` for `values_of`, what it is in words, and the run's seconds with it."""

    name: str
    words: str
    seconds: float

    @property
    def time(self) -> str:
        """The seconds in words, as roughly as they are known."""
        return duration(float(f"{self.seconds:.1e}"))


def _sample(experiment: Experiment) -> tuple[str, Values, Experiment]:
    evaluation = Evaluation(**experiment.evaluation.model_dump() | {"facts": FACTS, "prompts": PROMPTS})
    changed = experiment.model_copy(update={"evaluation": evaluation})
    return f"ask {FACTS} facts and {PROMPTS} prompts", {
        "evaluation.facts": str(FACTS), "evaluation.prompts": str(PROMPTS),
    }, changed  # fmt: skip


def _answers(experiment: Experiment) -> tuple[str, Values, Experiment]:
    evaluation = Evaluation(**experiment.evaluation.model_dump() | {"max_new_tokens": TOKENS})
    changed = experiment.model_copy(update={"evaluation": evaluation})
    return f"let answers be {TOKENS} tokens long", {"evaluation.max_new_tokens": TOKENS}, changed


def _checkpoints(experiment: Experiment) -> tuple[str, Values, Experiment]:
    last = experiment.stage1.epochs
    stage1 = Stage1(**experiment.stage1.model_dump() | {"checkpoint_epochs": (last,)})
    stage2 = experiment.stage2.model_copy(update={"branch_epochs": None})
    changed = experiment.model_copy(update={"stage1": stage1, "stage2": stage2})
    values = {"stage1.checkpoint_epochs": str(last), "stage2.branch_epochs": ""}
    return f"keep only the checkpoint of epoch {last}", values, changed


_CHANGES: dict[str, Callable[[Experiment], tuple[str, Values, Experiment]]] = {
    "sample": _sample, "answers": _answers, "checkpoints": _checkpoints,
}  # fmt: skip


def suggestions(experiment: Experiment, now: Estimate, estimate: Callable[[Experiment], Estimate]) -> list[Suggestion]:
    """The changes that save most, at most two, of a resolved experiment; none where it is short already."""
    if not now.seconds or now.seconds[1] < WORTH_SECONDS:
        return []
    found = []
    for name in _CHANGES:
        if _fits(name, experiment):
            words, _, changed = _CHANGES[name](experiment)
            seconds = estimate(changed).seconds
            if seconds and seconds[1] < (1 - WORTH_SHARE) * now.seconds[1]:
                found.append(Suggestion(name, words, seconds[1]))
    return sorted(found, key=lambda s: s.seconds)[:MOST]


def values_of(name: str, experiment: Experiment) -> Values | None:
    """What a suggestion puts into the form; None where it does not apply."""
    return _CHANGES[name](experiment)[1] if name in _CHANGES and _fits(name, experiment) else None


def _fits(name: str, experiment: Experiment) -> bool:
    """Whether the change makes anything smaller, and leaves every object room to be said."""
    evaluation = experiment.evaluation
    if name == "sample":
        smaller = [n == "all" or n >= most for n, most in ((evaluation.facts, FACTS), (evaluation.prompts, PROMPTS))]
        return all(smaller)
    if name == "answers":
        longest = max(len(fact.object) for relation in experiment.relations for fact in relation.explicit_facts)
        return experiment.model != EMBEDDED and evaluation.max_new_tokens > TOKENS and longest <= 2 * TOKENS
    return len(experiment.stage1.saved_epochs) > 1
