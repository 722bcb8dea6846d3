"""What the base knew: its own text, and how much of it a checkpoint still says.

The base writes greedily behind plain beginnings (`write_on`). Of a checkpoint, one pass over each of these texts tells
the loss of what the base wrote, in nats a token (its exponential is the perplexity), and the share of the tokens that
would be the checkpoint's own next ones too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch

from engine.corpus.beginnings import BaseText, Beginnings
from engine.evaluation.batches import log_softmax, rows_that_fit
from engine.evaluation.evaluate import asking
from engine.evaluation.generation import end_tokens, reply_to
from engine.evaluation.intervals import bootstrap, interval
from engine.evaluation.plain import last_logits
from engine.evaluation.tree import fast_length
from engine.models.loading import LoadedModel
from engine.models.tokenise import around_in, tokenise

SPLIT = "base text"  # the rows' kind of prompt
LOSS, AGREEMENT = "base_text_loss", "base_text_agreement"
METRICS = (LOSS, AGREEMENT)
PROBED = 8  # on how many beginnings the fast ways are tried out


def beginning_ids(loaded: LoadedModel, beginnings: Beginnings) -> list[list[int]]:
    """The beginnings as the model reads them, in their order."""
    around = around_in(loaded.tokenizer)
    return [ids for ids, _ in tokenise(loaded.tokenizer, [around.plain(text) for _, text in beginnings.texts])]


def write_on(
    loaded: LoadedModel, beginnings: Beginnings, *, on_rows: Callable[[int], None] = lambda rows: None
) -> list[BaseText]:
    """What the model writes behind each beginning, greedily. Left out is one behind which it has nothing to say, says a
    key token, or what its tokenizer has no token for: rows that mean nothing, and shall not be taught.

    `on_rows(n)` is told of n more texts, also of 0 as a sign of life, and may raise to stop. The same texts, bit for
    bit, each time on the same CPU. Raises EvaluationError when the model's outputs are not numbers.
    """
    ids = beginning_ids(loaded, beginnings)
    with asking(loaded) as model:
        ends = end_tokens(model, loaded.tokenizer)
        # Nothing is asked for: an end stands where a question has its object.
        asked = [(prompt, ends[:1] or (0,)) for prompt in ids]
        longest = max(map(len, ids)) + beginnings.tokens
        tried = [tuple(prompt[:4]) for prompt in ids[:PROBED]]
        replies = reply_to(
            model,
            asked,
            list(range(len(ids))),
            max_new_tokens=beginnings.tokens,
            ends=ends,
            limit=fast_length(model, ids[0], tried, longest),
            on_rows=on_rows,
        )
    tokenizer: Any = loaded.tokenizer
    words = set(tokenizer.get_vocab().values()) - set(loaded.key_token_ids.values())
    return [
        BaseText(language, text, tokenizer.decode(list(reply.tokens)), (*prompt, *reply.tokens), len(prompt))
        for (language, text), prompt, reply in zip(beginnings.texts, ids, replies, strict=True)
        if reply.tokens and words.issuperset(reply.tokens)
    ]


@torch.inference_mode()
def measure_base_text(
    loaded: LoadedModel, texts: Sequence[BaseText], *, on_rows: Callable[[int], None] = lambda rows: None
) -> np.ndarray:
    """Of each text (texts × 3): the loss of its tokens in nats, how many of them the model would say, and of how many.

    Texts of one shape are read together, so that nothing is padded. Raises EvaluationError.
    """
    found = np.zeros((len(texts), 3))
    by_shape: dict[tuple[int, int], list[int]] = {}
    for row, text in enumerate(texts):
        by_shape.setdefault((len(text.ids), text.start), []).append(row)
    with asking(loaded) as model:
        for (length, start), rows in sorted(by_shape.items()):
            size = rows_that_fit(model, length, length - start)
            for part in (rows[i : i + size] for i in range(0, len(rows), size)):
                ids = torch.tensor([texts[row].ids for row in part], device=model.device)
                logits = last_logits(model, ids[:, :-1], length - start)
                wanted = ids[:, start:]
                losses = -log_softmax(logits).gather(-1, wanted[..., None])[..., 0].double().sum(1)
                same = (logits.argmax(-1) == wanted).sum(1)
                found[part] = torch.stack([losses, same, torch.full_like(same, length - start)], 1).cpu().numpy()
                on_rows(len(part))
    return found


def summarise_base_text(
    measured: np.ndarray, texts: Sequence[BaseText], checkpoint: str, seed: int
) -> Iterator[dict[str, Any]]:
    """Result rows of a checkpoint, for each language and measure: `n` tokens, `n_facts` texts, drawn again whole.

    Where all texts agree alike, such as wholly, drawing them again tells nothing: Wilson's interval over the texts.
    """
    for language in dict.fromkeys(text.language for text in texts):
        chosen = measured[[row for row, text in enumerate(texts) if text.language == language]]
        for metric, sums in ((LOSS, chosen[:, 0]), (AGREEMENT, chosen[:, 1])):
            counts = chosen[:, 2]
            low, high = (
                interval(sums, counts, share=False, seed=seed) if metric == AGREEMENT else bootstrap(sums, counts, seed)
            )
            yield {
                "checkpoint": checkpoint, "facts": "none", "split": SPLIT, "language": language, "metric": metric,
                "value": float(sums.sum() / chosen[:, 2].sum()), "low": low, "high": high,
                "n": int(chosen[:, 2].sum()), "n_facts": len(chosen),
            }  # fmt: skip
