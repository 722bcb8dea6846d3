"""The last look at answers before anything is trained: with the loaded model's own tokenizer and configuration."""

from __future__ import annotations

from functools import partial
from typing import Any

from engine.evaluation.evaluate import decode_answers
from engine.evaluation.generation import end_tokens
from engine.evaluation.sayable import refuse_unsayable
from engine.experiment import Experiment
from engine.models.around import PROBE
from engine.models.loading import LoadedModel
from engine.models.spelling import Speller, context_of, special_ids, unknown_ids
from engine.models.tokenise import own_parts, tokenise_prompts


def refuse_unsayable_answers(experiment: Experiment, loaded: LoadedModel, max_new_tokens: int | None = None) -> None:
    """Raises ValueError when the model cannot say or tell apart what it is asked for: see `engine.evaluation.sayable`.

    The page and the command line said the same of a model whose tokenizer was on their machine.
    """
    refuse_unsayable(experiment, loaded_speller(loaded), max_new_tokens)


def loaded_speller(loaded: LoadedModel) -> Speller:
    """The speller of a loaded model."""
    tokenizer: Any = loaded.tokenizer
    unknown = unknown_ids(tokenizer.backend_tokenizer)
    special = special_ids(tokenizer.backend_tokenizer) - unknown | set(end_tokens(loaded.causal, tokenizer))
    context = context_of(loaded.causal.config.get_text_config().to_dict())
    extra = len(tokenise_prompts(tokenizer, [PROBE])[0]) - len(own_parts(tokenizer, [(PROBE, PROBE)])[0][0])
    return Speller(partial(own_parts, tokenizer), partial(decode_answers, tokenizer), unknown, special, context, extra)
