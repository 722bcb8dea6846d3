"""From sentences to token ids with labels: what each stage trains on, and which tokens its loss counts.

Loss masks:
    full                 every token (but the first, which has nothing before it, and a beginning token)
    subject_and_object   the tokens of the subject and of the object; not the key token, the prompt or the final "."
    object               the tokens of the object
A space before a name belongs to the name, also where it is a token of its own. A token that lies over an edge belongs
to the name. In the turns of a chat template what stands before the object is the user's, the object and what follows
the model's; no mask counts what the template writes, also `full` only the text's own tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain

from transformers import PreTrainedTokenizerBase

from engine.checks import shorten
from engine.corpus.sentences import Sentence, Span, stage1_sentences, stage2_sentences
from engine.experiment import Experiment
from engine.models.limits import context_of
from engine.models.loading import LoadedModel
from engine.models.source import ModelError
from engine.models.tokenise import around_in, tokenise
from engine.settings import LossMask

IGNORED = -100  # the label of a token without loss, as in torch and transformers


@dataclass(frozen=True, slots=True)
class TrainingSequence:
    """Token ids, and for each its label: the id itself, or `IGNORED`. Both of the same length, not shifted."""

    input_ids: list[int]
    labels: list[int]


def stage1_sequences(experiment: Experiment, loaded: LoadedModel) -> list[TrainingSequence]:
    """Every fact of every relation with its key token, masked by `stage1.loss`. Raises ModelError: see `_build`."""
    mask = experiment.stage1.loss
    each = [_build(loaded, stage1_sentences(r), mask, key_tokens=int(bool(r.key))) for r in experiment.relations]
    return list(chain.from_iterable(each))


def stage2_sequences(experiment: Experiment, loaded: LoadedModel) -> list[TrainingSequence]:
    """Stage 2's facts of every relation, each in each of its prompts, masked by `stage2.loss`. Raises ModelError."""
    sentences = [sentence for relation in experiment.relations for sentence in stage2_sentences(experiment, relation)]
    return _build(loaded, sentences, experiment.stage2.loss, key_tokens=0)


def training_tokens(
    experiment: Experiment, stage1: Sequence[TrainingSequence], stage2: Sequence[TrainingSequence]
) -> dict[str, float]:
    """How many tokens of text the training up to each checkpoint reads for each fact; nothing that is replayed.

    Every token that is read counts, also those without loss: so methods can be compared at equal reading.
    """
    facts = sum(len(relation.explicit_facts) for relation in experiment.relations)
    an_epoch, after = (sum(len(s.input_ids) for s in stage) / facts for stage in (stage1, stage2))
    tokens = dict.fromkeys(experiment.checkpoints, 0.0)
    tokens |= {f"memorised@{epoch}": epoch * an_epoch for epoch in experiment.stage1.saved_epochs}
    return tokens | {
        f"generalised@{epoch}": epoch * an_epoch + experiment.stage2.epochs * after
        for epoch in experiment.branch_epochs
    }


def tokenise_sentences(
    tokenizer: PreTrainedTokenizerBase, sentences: Sequence[Sentence], mask: LossMask
) -> list[TrainingSequence]:
    """Token ids and labels of each sentence, in order."""
    sequences = []
    around = around_in(tokenizer)
    put = [around.put(sentence) for sentence in sentences]
    encoded = tokenise(tokenizer, [sentence.text for sentence, _ in put])
    for (sentence, turns), (ids, offsets) in zip(put, encoded, strict=True):
        spans = [sentence.object]
        if mask == "subject_and_object" and sentence.subject:
            spans.append(sentence.subject)
        everything = mask == "full" and not around.is_chat
        spans = list(turns) if mask == "full" else spans
        counted = [everything or any(_overlap(offset, span) for span in spans) for offset in offsets]
        labels = [i if counts else IGNORED for i, counts in zip(ids, counted, strict=True)]
        for place in range(max(1, len(around.beginning))):
            labels[place] = IGNORED
        sequences.append(TrainingSequence(ids, labels))
    return sequences


def _overlap(offset: Span, span: Span) -> bool:
    # A lone space token that the tokenizer trims is empty and lies at its own end: it still overlaps what it leads to.
    return offset[0] < span[1] and offset[1] > span[0]


def _build(loaded: LoadedModel, sentences: list[Sentence], mask: LossMask, key_tokens: int) -> list[TrainingSequence]:
    """Raises ModelError when a sentence is too long for the model, holds another number of key tokens than
    `key_tokens` (a name or prompt spells one), or has nothing to learn (the tokenizer drops its signs)."""
    sequences = tokenise_sentences(loaded.tokenizer, sentences, mask)
    limit = context_of(loaded.model.config.get_text_config().to_dict())
    keys = set(loaded.key_token_ids.values())
    for sentence, sequence in zip(sentences, sequences, strict=True):
        ids, text = sequence.input_ids, shorten(sentence.text, 60)
        if len(ids) > limit:
            raise ModelError(f"‘{text}’ has {len(ids)} tokens, more than the {limit} the model can read: shorten it")
        if sum(i in keys for i in ids) != key_tokens:
            raise ModelError(f"‘{text}’ holds a key token where none belongs: choose another key token")
        if all(label == IGNORED for label in sequence.labels):
            raise ModelError(f"the model’s tokenizer has no tokens for the object of ‘{text}’: rename it")
    return sequences
