"""Ask one checkpoint everything the experiment wants to know of it.

answers = evaluate_checkpoint(loaded, experiment, "generalised@20", on_progress=lambda done, total: None)
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, Literal

from engine.checks import shorten
from engine.evaluation.answer import Answer
from engine.evaluation.choice import answer_choices
from engine.evaluation.decided import ENDED, Decided
from engine.evaluation.generation import end_tokens, reply_to
from engine.evaluation.hits import is_hit
from engine.evaluation.plain import Pair, context
from engine.evaluation.questions import Question, key_questions, questions_for
from engine.evaluation.tree import fast_length
from engine.experiment import Experiment
from engine.hardware import SMALL_MODEL_PARAMETERS
from engine.models.loading import LoadedModel
from engine.models.source import ModelError
from engine.models.tokenise import around_in, tokenise_questions

# How many answers try out whether the fast ways are the model's own; a few show it.
PROBED_ANSWERS = 8
# Well under a second's work, so that a run can be cancelled meanwhile.
TOKENISED_AT_ONCE = 2000
# A byte each, and as many again for what a normaliser makes longer.
TOKENS_PER_BYTE = 2


def evaluate_checkpoint(
    loaded: LoadedModel,
    experiment: Experiment,
    checkpoint: str,
    *,
    known: Iterable[Answer] = (),
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> list[Answer]:
    """Answers to all questions of a checkpoint, by prompt and fact. known: those that it need not be asked again.

    `on_progress(done, total)` is called several times a second from this thread, counts each multiple choice as one
    more question, and may raise to stop. The answers are the same, bit for bit, each time on the same CPU. Raises
    EvaluationError when the model's outputs are not numbers.
    """
    answers = {(answer.prompt, answer.fact): answer for answer in known}
    questions = [q for q in questions_for(experiment, checkpoint) if (q.prompt, q.fact) not in answers]
    settings = experiment.evaluation
    if questions:
        asked = answer_questions(
            loaded,
            questions,
            max_new_tokens=settings.max_new_tokens,
            stop_at_hit=settings.stop_at_hit,
            on_progress=on_progress,
        )
        answers |= {(answer.prompt, answer.fact): answer for answer in asked}
    return [answers[place] for place in sorted(answers)]


def answer_questions(
    loaded: LoadedModel,
    questions: list[Question],
    *,
    max_new_tokens: int,
    stop_at_hit: bool | Literal["auto"] = False,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> list[Answer]:
    """The answers of `evaluate_checkpoint` to any questions, in their order. Raises EvaluationError.

    stop_at_hit: whether an answer ends once its hit is decided, with `ENDED` behind it; `auto`: unless the model is
    small. Hits are the same either way.
    """
    chosen = [row for row, question in enumerate(questions) if question.options]
    total, done = len(questions) + len(chosen), 0

    def on_rows(count: int) -> None:
        nonlocal done
        done += count
        on_progress(done, total)

    tokenizer: Any = loaded.tokenizer
    encoded = _encode(tokenizer, questions, on_rows)
    spelt = _spellings(tokenizer, encoded)
    stops = not is_small(loaded) if stop_at_hit == "auto" else stop_at_hit
    decided = _decided(tokenizer, questions, encoded, spelt) if stops else None
    with asking(loaded) as model:
        limit = _fast_length(model, encoded, max_new_tokens)
        replies = reply_to(
            model,
            encoded,
            [question.prompt for question in questions],
            max_new_tokens=max_new_tokens,
            ends=end_tokens(model, tokenizer),
            limit=limit,
            enough=decided.of if decided else None,
            on_rows=on_rows,
        )
        choices = answer_choices(
            model,
            tokenizer,
            [questions[row] for row in chosen],
            [encoded[row] for row in chosen],
            limit=limit,
            on_rows=on_rows,
        )
    texts = decode_answers(tokenizer, [reply.tokens for reply in replies])
    outcomes = dict(zip(chosen, choices, strict=True))
    answers: list[Answer] = []
    for row, (question, reply, text) in enumerate(zip(questions, replies, texts, strict=True)):
        outcome = outcomes.get(row)
        choice = (outcome.rank, outcome.options, outcome.log_probability) if outcome else ()
        hit = is_hit(text, question.object, spelt[tuple(encoded[row][1])])
        if decided and hit and (end := decided.end(encoded[row][1], reply.tokens[: max_new_tokens - 1])):
            text = decode_answers(tokenizer, [reply.tokens[:end]])[0] + ENDED
        answers.append(Answer(question.prompt, question.fact, text, hit, reply.log_probability, *choice))
    return answers


def probe_key_tokens(loaded: LoadedModel, experiment: Experiment, count: int) -> float:
    """Key-token recall: the share of the first `count` facts of each relation that greedy decoding completes.

    Cheap enough for the middle of training: it decodes just as far as the longest object asked for. Leaves torch's
    random state and the model's training mode as they were. Raises EvaluationError when the outputs are not numbers.
    """
    questions = key_questions(experiment, count)
    if not questions:
        return 0.0
    longest = max(len(object_ids) for _, object_ids in _encode(loaded.tokenizer, questions, lambda rows: None))
    answers = answer_questions(loaded, questions, max_new_tokens=longest)
    return sum(answer.hit for answer in answers) / len(answers)


def check_lengths(loaded: LoadedModel, experiment: Experiment) -> int:
    """See before training that the model can read every question with its object and its options.

    Returns how many answers may be cut short because the model's context ends before `max_new_tokens`. Raises
    ModelError for a question that is too long.
    """
    most, room = context(loaded.causal), experiment.evaluation.max_new_tokens
    around, cut = around_in(loaded.tokenizer), 0
    extra = len(around.beginning) + TOKENS_PER_BYTE * _bytes(around.whole("", ""))
    for question in questions_for(experiment, experiment.checkpoints[-1]):
        answers = dict.fromkeys((question.object, *question.options))
        # No tokenizer makes more than so many of a text: most questions need no closer look.
        prompt_tokens = extra + TOKENS_PER_BYTE * _bytes(question.text)
        if prompt_tokens + max(room, TOKENS_PER_BYTE * max(map(_bytes, answers))) <= most:
            continue
        pairs = tokenise_questions(loaded.tokenizer, [(question.text, answer) for answer in answers])
        for answer, (prompt, ids) in zip(answers, pairs, strict=True):
            if len(prompt) + len(ids) > most:
                raise ModelError(
                    f"‘{shorten(question.text, 60)}’ with the answer ‘{shorten(answer, 60)}’ has "
                    f"{len(prompt) + len(ids):,} tokens, more than the {most:,} the model can read: shorten it"
                )
        cut += len(pairs[0][0]) + room > most
    return cut


def _bytes(text: str) -> int:
    return len(text.encode())


def decode_answers(tokenizer: Any, answers: list[tuple[int, ...]]) -> list[str]:
    """The answers as text, without the space before the first word; special tokens stay visible."""
    texts = tokenizer.batch_decode([list(ids) for ids in answers], skip_special_tokens=False)
    return [text.strip() for text in texts]


def _spellings(tokenizer: Any, encoded: list[Pair]) -> dict[tuple[int, ...], str]:
    """How the tokenizer writes each object, by its tokens; '' where some of them stand for what it does not know."""
    objects = list({tuple(object_ids): None for _, object_ids in encoded})
    texts = decode_answers(tokenizer, objects)
    return {o: "" if tokenizer.unk_token_id in o else text for o, text in zip(objects, texts, strict=True)}


def _decided(
    tokenizer: Any, questions: list[Question], encoded: list[Pair], spelt: dict[tuple[int, ...], str]
) -> Decided:
    objects: dict[tuple[int, ...], set[tuple[str, str]]] = {}
    for question, (_, ids) in zip(questions, encoded, strict=True):
        objects.setdefault(tuple(ids), set()).add((question.object, spelt[tuple(ids)]))
    wanted = {ids: tuple(texts) for ids, texts in objects.items()}
    bytes_ = tokenizer.convert_tokens_to_ids([f"<0x{byte:02X}>" for byte in range(256)])
    return Decided(wanted, lambda answers: decode_answers(tokenizer, answers), frozenset(bytes_))


def is_small(loaded: LoadedModel) -> bool:
    """Whether the base is so small that its answers cost next to nothing: adapters over it don't count."""
    sizes = (p.numel() for name, p in loaded.model.named_parameters() if "lora_" not in name)
    return sum(sizes) < SMALL_MODEL_PARAMETERS


def _encode(tokenizer: Any, questions: list[Question], on_rows: Callable[[int], None]) -> list[Pair]:
    encoded: list[Pair] = []
    for start in range(0, len(questions), TOKENISED_AT_ONCE):
        part = questions[start : start + TOKENISED_AT_ONCE]
        encoded += tokenise_questions(tokenizer, [(question.text, question.object) for question in part])
        on_rows(0)
    return encoded


def _fast_length(model: Any, encoded: list[Pair], max_new_tokens: int) -> int:
    """Tried out on a prompt and made-up answers: objects with the prompt's tokens behind them, so that the tree is deep
    and wide also where every object is one token, and as long as the longest prompt with its answer."""
    prompt = encoded[0][0]
    answers = dict.fromkeys((*object_ids, *prompt[:3]) for _, object_ids in encoded[: 4 * PROBED_ANSWERS])
    longest = max(len(prompt) + max(len(object_ids), max_new_tokens) for prompt, object_ids in encoded)
    return fast_length(model, prompt, list(answers)[:PROBED_ANSWERS], longest)


@contextmanager
def asking(loaded: LoadedModel) -> Iterator[Any]:
    """The model in evaluation mode, put back into the mode that it was in."""
    modes = {module: module.training for module in loaded.model.modules()}
    loaded.model.eval()
    try:
        yield loaded.causal
    finally:
        for module, training in modes.items():
            module.training = training
