"""What an experiment will cost, told before it starts: tokens, steps, questions, time and memory.

    estimate_experiment(resolve(experiment)).seconds

Without torch: tokens are counted by the model's tokenizer.json where it is on this machine, else guessed from
characters. Time comes from earlier runs of the same model where the caller knows some (`seconds_per_pass`), else from
a rough speed of the device, with a wide range.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from engine.corpus.sentences import stage1_sentences, stage2_sentences
from engine.evaluation.questions import count_choices, count_questions
from engine.experiment import Experiment
from engine.hardware import serving_device
from engine.models.files import ModelShape, load_tokenizer, model_shape, tokenizer_file

# What work costs, in passes of one token through the model; a run counts its progress in them too.
PASSES_PER_TRAINED_TOKEN = 3
PASSES_PER_QUESTION = 20
PASSES_PER_CHOICE = 60
# Floating-point operations a second that training and evaluation really reach, measured on two CPU cores with the
# embedded model; for an accelerator a cautious guess. Both only until a run of the same model was finished here.
CPU_OPERATIONS = 3e10
ACCELERATOR_OPERATIONS = 3e13
# However small the model, a pass costs at least this much: Python and kernel launches.
LEAST_SECONDS_PER_PASS = 1e-5
START_SECONDS = 8.0
CHARACTERS_PER_TOKEN = 3.5


@dataclass(frozen=True)
class Estimate:
    """Counts for one run. `stage2_tokens` and `stage2_steps` are for each of the `branches` of stage 2.

    `seconds`: (at best, most likely, at worst). `memory`: bytes at the peak of training, None when the model's size is
    unknown. `passes`: all work, in tokens through the model. `exact_tokens`: counted, not guessed.
    """

    stage1_tokens: int
    stage1_steps: int
    stage2_tokens: int
    stage2_steps: int
    branches: int
    questions: int
    choices: int
    passes: float
    exact_tokens: bool
    seconds: tuple[float, float, float] | None
    from_earlier_runs: bool
    memory: int | None
    parameters: int | None
    parameters_from: str


def estimate_experiment(
    experiment: Experiment, *, seconds_per_pass: Sequence[float] = (), accelerator: bool | None = None
) -> Estimate:
    """The estimate for a resolved experiment.

    `seconds_per_pass`: what earlier runs of the same model took for each pass (their time / `Estimate.passes`).
    `accelerator`: whether there is a GPU; None looks for one. Raises ValueError before it is resolved.
    """
    count, exact = token_counter(experiment)
    if accelerator is None:
        accelerator = not serving_device().startswith("cpu")
    shape = model_shape(experiment.model)
    first, second = experiment.stage1, experiment.stage2
    relations = experiment.relations
    sequences1 = [sentence.text for relation in relations for sentence in stage1_sentences(relation)]
    sequences2 = [sentence.text for relation in relations for sentence in stage2_sentences(experiment, relation)]
    tokens1, tokens2 = sum(count(sequences1)), sum(count(sequences2))
    questions = sum(count_questions(experiment, name) for name in experiment.checkpoints)
    choices = sum(count_choices(experiment, name) for name in experiment.checkpoints)
    branches = len(experiment.branch_epochs)
    passes = float(
        PASSES_PER_TRAINED_TOKEN * (tokens1 * first.epochs + tokens2 * second.epochs * branches)
        + PASSES_PER_QUESTION * questions
        + PASSES_PER_CHOICE * choices
    )
    longest = max(len(text) for text in (*sequences1, *sequences2))
    return Estimate(
        stage1_tokens=tokens1 * first.epochs,
        stage1_steps=math.ceil(len(sequences1) / first.batch_size) * first.epochs,
        stage2_tokens=tokens2 * second.epochs,
        stage2_steps=math.ceil(len(sequences2) / second.batch_size) * second.epochs,
        branches=branches,
        questions=questions,
        choices=choices,
        passes=passes,
        exact_tokens=exact,
        seconds=_seconds(passes, shape, seconds_per_pass, accelerator),
        from_earlier_runs=bool(seconds_per_pass),
        memory=training_memory(experiment, shape, longest, accelerator) if shape else None,
        parameters=shape.parameters if shape else None,
        parameters_from=shape.source if shape else "",
    )


def token_counter(experiment: Experiment) -> tuple[Callable[[list[str]], list[int]], bool]:
    """A function from texts to their numbers of tokens, and whether it counts (True) or guesses from characters."""
    file = tokenizer_file(experiment.model)
    if file:
        try:
            tokenizer = load_tokenizer(file)
        except (ValueError, OSError):
            file = None
    if not file:
        return lambda texts: [max(1, round(len(t) / CHARACTERS_PER_TOKEN)) for t in texts], False
    keys = [relation.key_token for relation in experiment.relations]

    def count(texts: list[str]) -> list[int]:
        # A key token is one token of its own; counting the text around it needs no change to the shared tokenizer.
        parts, owners = [], []
        totals = [0] * len(texts)
        for i, text in enumerate(texts):
            for key in keys:
                totals[i] += text.count(key)
                text = text.replace(key, "\0")
            pieces = [piece for piece in text.split("\0") if piece]
            parts += pieces
            owners += [i] * len(pieces)
        for i, encoding in zip(owners, tokenizer.encode_batch(parts, add_special_tokens=False), strict=True):
            totals[i] += len(encoding.ids)
        return totals

    return count, True


def training_memory(experiment: Experiment, shape: ModelShape, longest: int, accelerator: bool) -> int:
    """Bytes at the peak of training: weights, gradients, AdamW's two moments, activations and logits.

    `longest`: characters of the longest sequence. A guess to a factor of about 1.5; another process's share not
    included. Activations: some 16 values a token and layer of the hidden size (after Korthikanti et al. 2022).
    """
    width = 4 if experiment.precision == "float32" or (experiment.precision == "auto" and not accelerator) else 2
    if experiment.tuning.method == "full":
        fixed = shape.parameters * (width + width + 2 * width)
    else:
        trained = experiment.tuning.rank * (shape.adapter_sizes or shape.parameters // 100)
        fixed = shape.parameters * width + trained * 16
    tokens = max(experiment.stage1.batch_size, experiment.stage2.batch_size) * (longest / CHARACTERS_PER_TOKEN + 1)
    activations = tokens * (shape.hidden * shape.layers * 16 * width + shape.vocabulary * 12)
    return int(fixed + activations + 500e6)


def _seconds(
    passes: float, shape: ModelShape | None, seen: Sequence[float], accelerator: bool
) -> tuple[float, float, float] | None:
    if seen:
        middle = passes * sorted(seen)[len(seen) // 2]
        return (0.6 * passes * min(seen), middle, 1.6 * passes * max(seen))
    if shape is None:
        return None
    speed = ACCELERATOR_OPERATIONS if accelerator else CPU_OPERATIONS
    middle = passes * max(2 * shape.parameters / speed, LEAST_SECONDS_PER_PASS)
    return (START_SECONDS / 2 + middle / 3, START_SECONDS + middle, 2 * START_SECONDS + middle * 3)
