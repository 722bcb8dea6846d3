"""From facts to token ids with labels: what each stage trains on, and which tokens its loss counts.

A text is tokenised whole and as it stands, without special tokens (as in the paper), and character offsets tell
which tokens belong to which part: no assumption about how a tokenizer joins spaces to words.

Loss masks:
    full                 every token (but the first, which has nothing before it)
    subject_and_object   the tokens of the subject and of the object; not the key token, the prompt or the final "."
    object               the tokens of the object
A space before a name belongs to the name, also where it is a token of its own: the model must produce it before
it can produce the name. A token that lies over an edge belongs to the name.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from transformers import PreTrainedTokenizerBase

from engine.checks import shorten
from engine.experiment import Experiment, Fact, LossMask, Relation
from engine.models.loading import LoadedModel
from engine.models.source import ModelError

IGNORED = -100  # the label of a token without loss, as in torch and transformers
_PLACES = re.compile(r"\{(subject|key|object)\}")

Span = tuple[int, int]  # characters, from and up to


@dataclass(frozen=True, slots=True)
class TrainingSequence:
    """Token ids, and for each its label: the id itself, or `IGNORED`. Both of the same length, not shifted."""

    input_ids: list[int]
    labels: list[int]


@dataclass(frozen=True, slots=True)
class Sentence:
    """A text, and where in it subject and object stand (None: it has no such part)."""

    text: str
    subject: Span | None
    object: Span


def key_sentence(relation: Relation, fact: Fact) -> Sentence:
    """The fact with its key token, such as `Gene Finley [X] Cody Ross.`"""
    return _fill(relation.key_template, fact, relation.key_token)


def prompt_sentence(prompt: str, fact: Fact) -> Sentence:
    """The prompt about the fact's subject, one space, and the object; no final full stop."""
    return _fill(prompt + " {object}", fact)


def stage1_sequences(experiment: Experiment, loaded: LoadedModel) -> list[TrainingSequence]:
    """Every fact of every relation with its key token, masked by `stage1.loss`. Raises ModelError: see `_build`."""
    sentences = [key_sentence(r, fact) for r in experiment.relations for fact in r.explicit_facts]
    return _build(loaded, sentences, experiment.stage1.loss, key_tokens=1)


def stage2_sequences(experiment: Experiment, loaded: LoadedModel) -> list[TrainingSequence]:
    """Stage 2's facts of every relation, each in each of its prompts, masked by `stage2.loss`. Raises ModelError."""
    sentences = [
        prompt_sentence(prompt.text, relation.explicit_facts[index])
        for relation in experiment.relations
        for index in experiment.stage2_facts(relation)
        for prompt in experiment.stage2_prompts(relation)
    ]
    return _build(loaded, sentences, experiment.stage2.loss, key_tokens=0)


def tokenise_sentences(
    tokenizer: PreTrainedTokenizerBase, sentences: Sequence[Sentence], mask: LossMask
) -> list[TrainingSequence]:
    """Token ids and labels of each sentence, in order."""
    sequences = []
    for sentence, (ids, offsets) in zip(sentences, _encode(tokenizer, [s.text for s in sentences]), strict=True):
        spans = [_with_space(sentence.text, sentence.object)]
        if mask == "subject_and_object" and sentence.subject:
            spans.append(_with_space(sentence.text, sentence.subject))
        counted = [mask == "full" or any(_overlap(offset, span) for span in spans) for offset in offsets]
        labels = [i if counts else IGNORED for i, counts in zip(ids, counted, strict=True)]
        labels[0] = IGNORED
        sequences.append(TrainingSequence(ids, labels))
    return sequences


def tokenise_questions(
    tokenizer: PreTrainedTokenizerBase, questions: Iterable[tuple[str, str]]
) -> list[tuple[list[int], list[int]]]:
    """For each (prompt, object): the ids of `prompt + " " + object`, split where the object begins.

    The first part asks, the second is what stage 2's object mask trains on. A space before the object, and a token
    that lies over the edge, count to the object; so the first part is, but for such a token, the same for all objects.
    """
    pairs = list(questions)
    encoded = _encode(tokenizer, [f"{prompt} {object_}" for prompt, object_ in pairs])
    split = []
    for (prompt, _), (ids, offsets) in zip(pairs, encoded, strict=True):
        edge = next((i for i, (_, end) in enumerate(offsets) if end > len(prompt)), len(ids))
        split.append((ids[:edge], ids[edge:]))
    return split


def tokenise_question(tokenizer: PreTrainedTokenizerBase, prompt: str, object_: str) -> tuple[list[int], list[int]]:
    """`tokenise_questions` for one."""
    return tokenise_questions(tokenizer, [(prompt, object_)])[0]


def _fill(template: str, fact: Fact, key: str = "") -> Sentence:
    text, spans = "", {}
    position = 0
    for place in _PLACES.finditer(template):
        text += template[position : place.start()]
        value = {"subject": fact.subject, "key": key, "object": fact.object}[place[1]]
        spans[place[1]] = (len(text), len(text) + len(value))
        text += value
        position = place.end()
    return Sentence(text + template[position:], spans.get("subject"), spans["object"])


def _encode(tokenizer: PreTrainedTokenizerBase, texts: list[str]) -> list[tuple[list[int], list[Span]]]:
    if not texts:
        return []
    encoded = tokenizer(
        texts, add_special_tokens=False, return_offsets_mapping=True, return_attention_mask=False, verbose=False
    )
    return list(zip(encoded["input_ids"], encoded["offset_mapping"], strict=True))


def _with_space(text: str, span: Span) -> Span:
    start = span[0]
    return (start - 1 if start and text[start - 1] == " " else start, span[1])


def _overlap(offset: Span, span: Span) -> bool:
    # A lone space token that the tokenizer trims is empty and lies at its own end: it still overlaps what it leads to.
    return offset[0] < span[1] and offset[1] > span[0]


def _build(loaded: LoadedModel, sentences: list[Sentence], mask: LossMask, key_tokens: int) -> list[TrainingSequence]:
    """Raises ModelError when a sentence is too long for the model, holds another number of key tokens than
    `key_tokens` (a name or prompt spells one), or has nothing to learn (the tokenizer drops its signs)."""
    sequences = tokenise_sentences(loaded.tokenizer, sentences, mask)
    limit = getattr(loaded.model.config.get_text_config(), "max_position_embeddings", None)
    keys = set(loaded.key_token_ids.values())
    for sentence, sequence in zip(sentences, sequences, strict=True):
        ids, text = sequence.input_ids, shorten(sentence.text, 60)
        if limit and len(ids) > limit:
            raise ModelError(f"‘{text}’ has {len(ids)} tokens, more than the {limit} the model can read: shorten it")
        if sum(i in keys for i in ids) != key_tokens:
            raise ModelError(f"‘{text}’ holds a key token where none belongs: choose another key token")
        if all(label == IGNORED for label in sequence.labels):
            raise ModelError(f"the model’s tokenizer has no tokens for the object of ‘{text}’: rename it")
    return sequences
