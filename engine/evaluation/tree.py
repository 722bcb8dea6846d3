"""All options of a question scored as one tree in one forward pass.

Options that begin alike share their beginning, and all of them share the prompt. The tree's nodes are fed behind the
prompt as one sequence: a 4-D mask lets each node see the prompt, its ancestors and itself, and its position is its
depth. The last token of an option is only predicted, never fed. The log-probabilities are those of scoring each option
as a sequence of its own, at about a tenth of the work (tests/bench/bench_choice.py).
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from transformers import DynamicCache

from engine.evaluation.batches import LARGE_VOCABULARY, log_softmax, normalisers
from engine.evaluation.cache import roomy
from engine.evaluation.plain import known_length, log_probabilities
from engine.models.out_of_memory import is_out_of_memory

Ids = tuple[int, ...]


@dataclass(frozen=True)
class Tree:
    """The options of a question as a tree.

    tokens, depths: (nodes); sees: (nodes, nodes), whether a node is another's ancestor or itself;
    sources, targets, counted: (options, longest option): token `targets[o, i]` is predicted at place `sources[o, i]`,
    where 0 is the prompt's last token and 1 + n is node n; `counted` is False where an option is shorter.
    """

    tokens: torch.Tensor
    depths: torch.Tensor
    sees: torch.Tensor
    sources: torch.Tensor
    targets: torch.Tensor
    counted: torch.Tensor


def build_trees(options: Sequence[Ids], room: int) -> tuple[Tree, ...]:
    """As few trees of at most `room` nodes as the options, in their order, fill; one of at most that length each."""
    parts: list[list[Ids]] = [[]]
    nodes: set[Ids] = set()
    for option in options:
        more = {option[:place] for place in range(1, len(option))}
        if parts[-1] and len(nodes | more) > room:
            parts.append([])
            nodes = set()
        parts[-1].append(option)
        nodes |= more
    return tuple(build_tree(part) for part in parts)


def build_tree(options: Sequence[Ids]) -> Tree:
    """The tree of the options' token ids, each of at least one token."""
    node_of: dict[Ids, int] = {(): -1}
    tokens: list[int] = []
    parents: list[int] = []
    longest = max(len(o) for o in options)
    sources = torch.zeros(len(options), longest, dtype=torch.long)
    targets = torch.zeros(len(options), longest, dtype=torch.long)
    counted = torch.zeros(len(options), longest, dtype=torch.bool)
    for number, option in enumerate(options):
        for place, token in enumerate(option):
            path = option[:place]
            if path not in node_of:
                node_of[path] = len(tokens)
                tokens.append(path[-1])
                parents.append(node_of[path[:-1]])
            sources[number, place] = node_of[path] + 1
            targets[number, place] = token
            counted[number, place] = True
    sees = torch.eye(len(tokens), dtype=torch.bool)
    depths = torch.zeros(len(tokens), dtype=torch.long)
    for node, parent in enumerate(parents):
        if parent >= 0:
            sees[node] |= sees[parent]
            depths[node] = depths[parent] + 1
    return Tree(torch.tensor(tokens, dtype=torch.long), depths, sees, sources, targets, counted)


@torch.inference_mode()
def score_tree(model: Any, prompts: Sequence[Sequence[int]], tree: Tree) -> np.ndarray:
    """ln P(option | prompt) for prompts (token ids) of equal length: float64, (prompts, options).

    Raises EvaluationError on logits that are not numbers.
    """
    device, length, nodes = model.device, len(prompts[0]), len(tree.tokens)
    asked = torch.tensor([list(p) for p in prompts])
    fed = torch.cat([asked, tree.tokens.expand(len(prompts), -1)], 1).to(device)
    positions = torch.cat([torch.arange(length), length + tree.depths])[None].to(device)
    sees = torch.ones(length + nodes, length + nodes, dtype=torch.bool).tril()
    sees[length:, length:] = tree.sees
    mask = torch.where(sees, 0.0, torch.finfo(model.dtype).min).to(device, model.dtype)[None, None]
    places = torch.arange(length - 1, length + nodes, device=device)
    logits = model(fed, attention_mask=mask, position_ids=positions, use_cache=False, logits_to_keep=places).logits
    sources, targets, counted = (x.to(device) for x in (tree.sources, tree.targets, tree.counted))
    if logits.shape[-1] < LARGE_VOCABULARY:
        found = log_softmax(logits)[:, sources, targets]
    else:
        found = logits[:, sources, targets].float() - normalisers(logits)[:, sources]
    return (found.double() * counted).sum(-1).cpu().numpy()


@torch.inference_mode()
def fast_length(model: Any, prompt: Sequence[int], options: Sequence[Ids], longest: int) -> int:
    """Up to how many tokens, fed or kept, the fast ways (trees, rows decoded together) are the model's own; 0: never.

    By its configuration no window and no end of the context may lie within; and it is tried out, with the options and
    one that makes the prompt `longest` tokens long. Raises EvaluationError on logits that are not numbers.
    """
    limit = known_length(model)
    room = (limit - len(prompt)) // (len(options) + 1)
    if room < 1:
        return 0
    behind = max(1, min(longest, limit - len(options) * room) - len(prompt))
    deep = tuple(itertools.islice(itertools.cycle(prompt), behind))
    # Of rather short windows the whole probe must stay within.
    tried = [*dict.fromkeys(option[:room] for option in options), deep]
    return limit if honours_masks(model, prompt, tried) and _keeps_keys(model, prompt) else 0


def _keeps_keys(model: Any, prompt: Sequence[int]) -> bool:
    """Whether all that the model keeps of what it has read are keys and values, a column for each token."""
    cache = DynamicCache()
    try:
        model(torch.tensor([list(prompt)], device=model.device), past_key_values=cache, use_cache=True)
        kept = [layer.keys for layer in roomy(cache)]
        return bool(kept) and all(keys is not None and keys.shape[2] == len(prompt) for keys in kept)
    except (RuntimeError, TypeError, ValueError, AttributeError, IndexError) as error:
        if is_out_of_memory(error):
            raise
        return False


@torch.inference_mode()
def honours_masks(model: Any, prompt: Sequence[int], options: Sequence[Ids]) -> bool:
    """Whether the model gives options in one tree the log-probabilities that it gives them as plain sequences.

    That needs a model that respects 4-D masks and `position_ids`; the tolerance leaves room for the number format's
    rounding only. Raises EvaluationError on logits that are not numbers.
    """
    plain = np.array(log_probabilities(model, [(prompt, option) for option in options]))
    try:
        difference = np.abs(score_tree(model, [prompt], build_tree(options))[0] - plain)
    except (RuntimeError, TypeError, ValueError, IndexError, AttributeError) as error:
        if is_out_of_memory(error):
            raise
        return False
    # The last, long option must not make the others' rounding seem larger.
    size = np.maximum(np.abs(plain), np.abs(plain[:-1]).max(initial=0))
    return bool((difference <= 1e-3 + 4 * torch.finfo(model.dtype).eps * size).all())
