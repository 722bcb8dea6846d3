"""How long the parts of a run take: what must be computed, by what a machine like two plain cores computes in a second.

    seconds = part_seconds(work, shape, experiment, accelerator)       # {"stage 1": 120.0, …}

A rough guess (a factor of 3) until a run of the model was finished on the machine: then its parts tell how many times
as long each kind of work takes here (`Pace`), and the shape of the new run says the rest.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from engine.experiment import Experiment
from engine.models.files import ModelShape

LOADING, TRAINING, EVALUATION = "loading", "training", "evaluation"
# The parts of an estimate, in words, and the kind of work of each.
KINDS = {
    "loading": LOADING,
    "stage 1": TRAINING,
    "stage 2": TRAINING,
    "questions": EVALUATION,
    "multiple choice": EVALUATION,
}
# Operations a second that batches really reach, bytes a second of an optimizer's step and of files, and seconds of
# each operation on a layer, however small. Measured on two cores with the embedded model, SmolLM2 135M and Gemma 3 270M
# in float32; for an accelerator a cautious guess.
CPU_OPERATIONS, CPU_BYTES = 1.0e11, 1.0e10
ACCELERATOR_OPERATIONS, ACCELERATOR_BYTES = 3e13, 1e12
FILE_BYTES = 5e8
LAYER_SECONDS = 1.5e-3
# A row that decodes reads its cache and waits for others: so many times a plain token's work.
DECODING = 1.5
START_SECONDS = 6.0
# A training writes where it can go on from not more often than this, and for at most this share of its time.
SAVED_EVERY, SAVED_SHARE = 30.0, 0.05
# An answer that ends at its hit saves this share of what could follow, as far as anyone knows before.
SAVED_BY_HITS = 0.25
# AdamW reads and writes weights, gradients and both moments: passes over the trained weights in each step.
STEP_PASSES = 7


class Pace(NamedTuple):
    """How many times as long as guessed a finished run took, by kind of work."""

    loading: float = 1.0
    training: float = 1.0
    evaluation: float = 1.0


@dataclass(frozen=True)
class Work:
    """What a run computes, in tokens. `answers`: of the answers' tokens, those that are decoded one after another;
    `read`: of prompts with their objects; `logits`: those of them whose next token is looked at; `nodes`: of the
    options' trees, `choice_read` of the prompts before them. Stage 2's are those of all its branches."""

    tokens1: int
    steps1: int
    tokens2: int
    steps2: int
    probed: int
    read: int
    logits: int
    answers: float
    choice_read: int
    nodes: int


def weight_bytes(experiment: Experiment, accelerator: bool) -> int:
    """Bytes of one weight as it is kept, and read when the model is asked: only bfloat16 has two."""
    two = experiment.precision == "bfloat16" or (experiment.precision == "auto" and accelerator)
    return 2 if two else 4


def trained_bytes(experiment: Experiment, accelerator: bool) -> int:
    """Bytes of one weight as it is trained, and of its gradient: float32's but where bfloat16 is asked for, or, on an
    accelerator, an optimizer that rounds at random."""
    two = experiment.precision == "bfloat16" or (
        experiment.precision == "auto" and accelerator and experiment.tuning.optimizer == "adamw 8-bit"
    )
    return 2 if two else 4


def moment_bytes(experiment: Experiment, accelerator: bool) -> float:
    """Bytes of both moments of one weight. In 8 bits with a scale for each 256."""
    if experiment.tuning.optimizer == "adamw 8-bit":
        return 2 * (1 + 4 / 256)
    return 2 * trained_bytes(experiment, accelerator)


def trained_parameters(experiment: Experiment, shape: ModelShape) -> int:
    """How many weights a run trains."""
    if experiment.tuning.method == "full":
        both = {experiment.stage1.embeddings, experiment.stage2.embeddings}
        matrices = shape.vocabulary * shape.hidden * (1 if shape.tied else 2)
        return shape.parameters - (matrices if both == {"key tokens"} else 0)
    return int(experiment.tuning.rank * (shape.adapter_sizes or shape.parameters // 100))


def checkpoint_bytes(experiment: Experiment, shape: ModelShape, accelerator: bool) -> int:
    """Bytes of one kept checkpoint: the weights, frozen ones too."""
    full = experiment.tuning.method == "full"
    return (shape.parameters if full else trained_parameters(experiment, shape)) * weight_bytes(experiment, accelerator)


def state_bytes(experiment: Experiment, shape: ModelShape, accelerator: bool) -> int:
    """Bytes of what a training goes on from: a checkpoint, AdamW's two moments, and the weights where they are kept
    rounded."""
    width = trained_bytes(experiment, accelerator)
    rounded = width != weight_bytes(experiment, accelerator) and experiment.tuning.method != "lora"
    each = moment_bytes(experiment, accelerator) + (width if rounded else 0)
    return checkpoint_bytes(experiment, shape, accelerator) + int(each * trained_parameters(experiment, shape))


def part_seconds(work: Work, shape: ModelShape, experiment: Experiment, accelerator: bool) -> dict[str, float]:
    """The seconds of each of `KINDS` at a pace of 1.

    A token costs two operations a weight and pass, a pass back two more passes (Kaplan et al. 2020, arXiv:2001.08361);
    rows of the vocabulary only where its logits are looked at, input embeddings nothing.
    """
    speed, memory = (ACCELERATOR_OPERATIONS, ACCELERATOR_BYTES) if accelerator else (CPU_OPERATIONS, CPU_BYTES)
    head = shape.vocabulary * shape.hidden
    body = max(shape.parameters - head * (1 if shape.tied else 2), shape.parameters // 10)
    step = STEP_PASSES * trained_parameters(experiment, shape) * trained_bytes(experiment, accelerator) / memory
    step += LAYER_SECONDS * max(1, shape.layers)
    saving = checkpoint_bytes(experiment, shape, accelerator) / FILE_BYTES
    rolling = state_bytes(experiment, shape, accelerator) / FILE_BYTES

    def trained(tokens: int, steps: int, kept: int) -> float:
        seconds = 6 * tokens * (body + head) / speed + step * steps
        return seconds + saving * kept + min(rolling * seconds / SAVED_EVERY, SAVED_SHARE * seconds)

    def asked(read: float, logits: float, decoded: float) -> float:
        operations = 2 * (read * body + logits * head) + 2 * DECODING * decoded * (body + head)
        return operations / speed

    evaluations, branches = len(experiment.checkpoints), len(experiment.branch_epochs)
    loads = 1 + len(experiment.stage1.saved_epochs)
    read_bytes = shape.parameters * weight_bytes(experiment, accelerator)
    return {
        "loading": START_SECONDS + loads * read_bytes / FILE_BYTES,
        "stage 1": trained(work.tokens1, work.steps1, len(experiment.stage1.saved_epochs)) + asked(0, 0, work.probed),
        "stage 2": trained(work.tokens2, work.steps2, branches),
        "questions": asked(work.read, work.logits, work.answers) + evaluations * LAYER_SECONDS * 50,
        "multiple choice": asked(work.choice_read + work.nodes, work.nodes, 0),
    }


def pace_of(guessed: Mapping[str, float], took: Mapping[str, float]) -> Pace:
    """The pace of a finished run. took: its seconds by kind of work, or those of all its work as `all`."""
    whole = took["all"] / sum(guessed.values()) if "all" in took else 1.0
    paces = {}
    for kind in (LOADING, TRAINING, EVALUATION):
        expected = sum(seconds for part, seconds in guessed.items() if KINDS[part] == kind)
        paces[kind] = took[kind] / expected if expected and took.get(kind) else whole
    return Pace(**paces)
