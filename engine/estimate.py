"""What an experiment will cost, told before it starts: tokens, steps, questions, time, memory and disk.

    estimate_experiment(resolve(experiment)).seconds

Without torch: tokens are counted by the model's tokenizer.json where it is on this machine, else guessed from
characters. Time is guessed from the model's shape (`engine.costs`), and corrected by how long earlier runs of the same
model took where the caller knows some (`paces`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from statistics import median

from engine.corpus.beginnings import STAGES, held_out_beginnings, replayed_beginnings
from engine.corpus.sentences import question_text, stage1_sentences, stage2_sentences
from engine.costs import (
    KINDS,
    SAVED_BY_HITS,
    Pace,
    Work,
    checkpoint_bytes,
    moment_bytes,
    part_seconds,
    state_bytes,
    trained_bytes,
    trained_parameters,
    weight_bytes,
)
from engine.evaluation.questions import (
    choice_counts,
    count_choices,
    count_questions,
    prompt_counts,
)
from engine.evaluation.representations.texts import sampled_texts
from engine.experiment import Experiment
from engine.hardware import SMALL_MODEL_PARAMETERS, serving_device
from engine.models.files import ModelShape, known_around, load_tokenizer, model_shape, tokenizer_file
from engine.models.source import EMBEDDED
from engine.settings import Optimisation

# What a run counts its progress in: passes of one token through the model.
PASSES_PER_TRAINED_TOKEN = 3
PASSES_PER_QUESTION = 20
CHARACTERS_PER_TOKEN = 3.5
# The embedded model ends its answers itself, about so many tokens behind the object.
TOKENS_BEHIND = 2
# Tokens of a general question and of what is decoded behind it, on average.
GENERAL_READ, GENERAL_SAID = 8, 4
# How far off a guess may be: without and with earlier runs of the model.
ROUGH, KNOWN = 3.0, 1.5


@dataclass(frozen=True)
class Estimate:
    """Counts for one run. `stage2_tokens` and `stage2_steps` are for each of the `branches` of stage 2.

    `seconds`: (at best, most likely, at worst); `parts`: the most likely ones of each part (`engine.costs.KINDS`);
    `guessed`: the same before earlier runs corrected them. `memory`: bytes at the peak of training, `disk`: of the kept
    checkpoints and the newest rolling one; None when the model's size is unknown. `exact_tokens`: counted, not guessed.
    """

    stage1_tokens: int
    stage1_steps: int
    stage2_tokens: int
    stage2_steps: int
    branches: int
    questions: int
    choices: int
    exact_tokens: bool
    seconds: tuple[float, float, float] | None
    from_earlier_runs: bool
    memory: int | None
    disk: int | None
    parameters: int | None
    parameters_from: str
    parts: dict[str, float] = field(default_factory=dict)
    guessed: dict[str, float] = field(default_factory=dict)


def estimate_experiment(
    experiment: Experiment, *, paces: Sequence[Pace] = (), accelerator: bool | None = None
) -> Estimate:
    """The estimate for a resolved experiment.

    `paces`: how earlier runs of the same model compare with their guesses (`engine.costs.pace_of`); their median
    counts, so that one on a busy machine does not. `accelerator`: whether there is a GPU; None looks for one. Raises
    ValueError before it is resolved.
    """
    count, exact = token_counter(experiment)
    if accelerator is None:
        accelerator = not serving_device().startswith("cpu")
    shape = model_shape(experiment.model)
    first, second = experiment.stage1, experiment.stage2
    sequences1 = [sentence.text for relation in experiment.relations for sentence in stage1_sentences(relation)]
    shown = () if experiment.in_context else experiment.relations
    sequences2 = [s.text for relation in shown for s in stage2_sentences(experiment, relation)]
    tokens1, tokens2 = sum(count(sequences1)) * first.epochs, sum(count(sequences2)) * second.epochs
    steps1 = math.ceil(len(sequences1) / first.batch_size) * first.epochs
    steps2 = math.ceil(len(sequences2) / second.batch_size) * second.epochs
    branches = len(experiment.branch_epochs)
    base_text = _base_text(experiment, count)
    tokens1 += round(base_text.beside["stage1"] * len(sequences1)) * first.epochs
    tokens2 += round(base_text.beside["stage2"] * len(sequences2)) * second.epochs
    guessed: dict[str, float] = {}
    if shape:
        trained = (tokens1, steps1, tokens2 * branches, steps2 * branches)
        guessed = part_seconds(_work(experiment, shape, trained, count, base_text), shape, experiment, accelerator)
    pace = Pace(*(median(values) for values in zip(*paces, strict=True))) if paces else Pace()
    parts = {part: seconds * getattr(pace, KINDS[part]) for part, seconds in guessed.items()}
    middle, off = sum(parts.values()), KNOWN if paces else ROUGH
    longest = max(len(text) for text in (*sequences1, *sequences2))
    return Estimate(
        stage1_tokens=tokens1,
        stage1_steps=steps1,
        stage2_tokens=tokens2,
        stage2_steps=steps2,
        branches=branches,
        questions=sum(count_questions(experiment, name) for name in experiment.checkpoints),
        choices=sum(count_choices(experiment, name) for name in experiment.checkpoints),
        exact_tokens=exact,
        seconds=(middle / off, middle, middle * off) if parts else None,
        from_earlier_runs=bool(paces),
        memory=training_memory(experiment, shape, longest, accelerator) if shape else None,
        disk=_disk(experiment, shape, accelerator) if shape else None,
        parameters=shape.parameters if shape else None,
        parameters_from=shape.source if shape else "",
        parts=parts,
        guessed=guessed,
    )


@dataclass(frozen=True)
class _BaseText:
    """Tokens of the base's own text: `read` and `decoded` by it or by checkpoints that are held against it; `beside`:
    how many go with each fact of a stage."""

    read: int
    decoded: int
    beside: dict[str, float]


def _base_text(experiment: Experiment, count: Callable[[list[str]], list[int]]) -> _BaseText:
    beginnings = {stage: replayed_beginnings(experiment, stage) for stage in STAGES}
    held_out = held_out_beginnings(experiment)
    sets = {b for b in (*beginnings.values(), held_out) if b}
    begun = {b: sum(count([text for _, text in b.texts])) for b in sets}
    decoded = {b: b.tokens * len(b.texts) for b in sets}
    beside = dict.fromkeys(STAGES, 0.0)
    for stage, b in beginnings.items():
        if b and (replay := getattr(experiment, stage).replay):
            beside[stage] = (begun[b] + decoded[b]) / len(b.texts) * replay.share / (1 - replay.share)
    compared = (begun[held_out] + decoded[held_out]) * len(experiment.checkpoints) if held_out else 0
    return _BaseText(sum(begun.values()) + compared, sum(decoded.values()), beside)


def _work(
    experiment: Experiment,
    shape: ModelShape,
    trained: tuple[int, int, int, int],
    count: Callable[[list[str]], list[int]],
    base_text: _BaseText,
) -> Work:
    """What evaluation reads and decodes, by one subject for all of a relation's prompts."""
    evaluation = experiment.evaluation
    logits = choice_read = nodes = probed = 0
    general = evaluation.general * len(experiment.checkpoints)
    read = base_text.read + general * GENERAL_READ
    read += sum(count([text.text for text in sampled_texts(experiment)])) * len(experiment.checkpoints)
    answers = float(base_text.decoded + general * GENERAL_SAID)
    for relation in experiment.relations:
        facts = relation.explicit_facts
        named = max(facts, key=lambda fact: len(fact.subject)) if len(facts) == 1 else facts[len(facts) // 2]
        objects = count([" " + fact.object for fact in facts[:50]])
        said = sum(objects) / len(objects)
        decoded = _answer_tokens(experiment, shape, said)
        probed += round(min(evaluation.probe_facts, len(facts)) * said * experiment.stage1.epochs)
        for checkpoint in experiment.checkpoints:
            asked = prompt_counts(experiment, relation, checkpoint)
            texts = [text for text, _ in asked]
            lengths = dict(zip(texts, count([question_text(t, named.subject) for t in texts]), strict=True))
            read += round(sum(about * (lengths[text] + said) for text, about in asked))
            logits += round(sum(about for _, about in asked) * (said + 1))
            answers += sum(about for _, about in asked) * decoded
            for text, about, options in choice_counts(experiment, relation, checkpoint):
                choice_read += about * lengths[text]
                nodes += round(about * options * max(0.2, said - 1))
    return Work(*trained, probed, read, logits, answers, choice_read, nodes)


def _answer_tokens(experiment: Experiment, shape: ModelShape, said: float) -> float:
    """How many tokens an answer has on average, as far as anyone knows before."""
    most = experiment.evaluation.max_new_tokens
    if experiment.model == EMBEDDED:
        return min(most, said + TOKENS_BEHIND)
    stops = experiment.evaluation.stop_at_hit
    stops = shape.parameters >= SMALL_MODEL_PARAMETERS if stops == "auto" else stops
    return most - SAVED_BY_HITS * max(0.0, most - said - 1) if stops else float(most)


def token_counter(experiment: Experiment) -> tuple[Callable[[list[str]], list[int]], bool]:
    """A function from texts to their numbers of tokens, and whether it counts (True) or guesses from characters.

    What the model needs around a text counts with each, where its files are on this machine.
    """
    file = tokenizer_file(experiment.model)
    if file:
        try:
            tokenizer, around = load_tokenizer(file), known_around(experiment.model, experiment.model_text)
        except (ValueError, OSError):
            file = None
    if not file:
        return lambda texts: [max(1, round(len(t) / CHARACTERS_PER_TOKEN)) for t in texts], False
    keys = list(experiment.key_tokens)
    turns = around.asks("") if around.is_chat else ""
    extra = len(around.begun(tokenizer.encode(turns, add_special_tokens=False).ids))

    def count(texts: list[str]) -> list[int]:
        # A key token is one token of its own; counting the text around it needs no change to the shared tokenizer.
        parts, owners = [], []
        totals = [extra] * len(texts)
        for i, text in enumerate(map(around.plain, texts)):
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


def _disk(experiment: Experiment, shape: ModelShape, accelerator: bool) -> int:
    """Bytes at most: the kept checkpoints, and twice what to go on from, whose new one is written beside the old."""
    if experiment.in_context:
        return 0
    kept = checkpoint_bytes(experiment, shape, accelerator) * (len(experiment.checkpoints) - 1)
    return kept + 2 * state_bytes(experiment, shape, accelerator)


def training_memory(experiment: Experiment, shape: ModelShape, longest: int, accelerator: bool) -> int:
    """Bytes at the peak of training, on each device: weights, gradients, AdamW's two moments, activations and logits.

    `longest`: characters of the longest sequence. A guess to a factor of about 1.5; another process's share not
    included. Activations: some 16 values a token and layer of the hidden size (after Korthikanti et al. 2022). Of a
    baseline that trains nothing: the weights.
    """
    width, trained = weight_bytes(experiment, accelerator), trained_parameters(experiment, shape)
    if experiment.in_context:
        return int(shape.parameters * width + 500e6)
    if experiment.tuning.method == "full":
        each = trained_bytes(experiment, accelerator)
        fixed = int((shape.parameters + trained) * each + trained * moment_bytes(experiment, accelerator))
    else:
        fixed = shape.parameters * width + trained * 16
    if experiment.devices > 1:
        # Its part, and what is gathered at a time: embeddings, head, and two of the layers.
        ends = shape.vocabulary * shape.hidden * (1 if shape.tied else 2)
        gathered = ends + 2 * max(0, shape.parameters - ends) / max(1, shape.layers)
        fixed = int(fixed / experiment.devices + 2 * gathered * width)
    return int(
        fixed + max(_activations(experiment, s, shape, longest, width) for s in (experiment.stage1, experiment.stage2))
        + 500e6
    )  # fmt: skip


def _activations(experiment: Experiment, stage: Optimisation, shape: ModelShape, longest: int, width: int) -> float:
    # What is replayed comes on top of a batch.
    replay = getattr(stage, "replay", None)
    batch = stage.batch_size / (1 - (replay.share if replay else 0)) / experiment.devices
    tokens = min(batch, stage.micro_batch_size or batch) * (longest / CHARACTERS_PER_TOKEN + 1)
    # Of a layer that computes again its input is kept, and all of one layer at a time.
    kept = shape.layers + 16 if stage.gradient_checkpointing else 16 * shape.layers
    return tokens * (shape.hidden * kept * width + shape.vocabulary * 12)
