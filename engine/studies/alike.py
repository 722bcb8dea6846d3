"""What of an experiment decides what stage 1 makes, and what a checkpoint answers: equal parts need computing once.

And which studies are the same."""

from __future__ import annotations

import re
from decimal import Decimal
from typing import Any

from engine.corpus.beginnings import held_out_beginnings, shown_subjects
from engine.experiment import Experiment

NUMBER = re.compile(r"-?\d+(\.\d+)?([eE][-+]?\d{1,4})?", re.ASCII)


def memorising(experiment: Experiment) -> dict[str, Any]:
    """What of an experiment decides what stage 1 makes; not which of its epochs are kept."""
    data = experiment.model_dump(mode="json", exclude={"name", "description", "stage2", "evaluation"})
    data["relations"] = [
        {k: r[k] for k in ("name", "key_token", "key_template")} | {"facts": [_pair(f) for f in r["facts"]]}
        for r in data["relations"]
    ]
    data["stage1"].pop("checkpoint_epochs")
    if experiment.stage1.replay:
        # The base's own text is about nobody of the experiment but whom stage 2 shows, where replay is about them, too;
        # in languages that nobody named it is in all asked.
        replay = experiment.stage1.replay
        data["replay"] = {
            "prompts": [[p.text for p in r.explicit_prompts] for r in experiment.relations],
            "languages": None if replay.languages else experiment.languages,
            "stage2": experiment.stage2.model_dump(mode="json", include={"language", "replay"}),
        }
        if replay.subjects == "trained":
            data["replay"]["shown"] = shown_subjects(experiment)
    return data


def beginning(experiment: Experiment) -> dict[str, Any]:
    """What of an experiment decides what the base answers, but for which questions."""
    return {k: v for k, v in memorising(experiment).items() if k not in ("stage1", "tuning", "replay", "in_context")}


def _pair(fact: dict[str, Any]) -> tuple[str, str]:
    return fact["subject"], fact["object"]


def answering(experiment: Experiment) -> dict[str, Any]:
    """What of an experiment decides how a checkpoint answers a question."""
    return experiment.evaluation.model_dump(mode="json", include={"max_new_tokens", "stop_at_hit"})


def knowing(experiment: Experiment) -> dict[str, Any]:
    """What of an experiment decides how it is measured what a checkpoint still knows of what the base did."""
    stages = (experiment.stage1, experiment.stage2)
    held_out = held_out_beginnings(experiment)
    return {
        "evaluation": experiment.evaluation.model_dump(mode="json", include={"base_text", "general"}),
        "replays": [stage.replay and stage.replay.model_dump(mode="json") for stage in stages],
        "languages": [experiment.stage2.language, *experiment.languages],
        # What comes near to a prompt is not among the texts that checkpoints are held against.
        "texts": held_out.texts if held_out else (),
    }


def as_meant(value: Any) -> Any:
    """Part of a study's plan, to be compared: `2.0e-4` in its text, and 0.0002 of the command line, mean the same."""
    if isinstance(value, dict):
        return {name: as_meant(own) for name, own in value.items()}
    if isinstance(value, (list, tuple)):
        return [as_meant(own) for own in value]
    if isinstance(value, (str, int, float)) and not isinstance(value, bool) and NUMBER.fullmatch(str(value)):
        return Decimal(str(value))  # exact: two long seeds are two
    return value
