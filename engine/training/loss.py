"""The logits and the loss at a batch's labelled tokens, and nowhere else.

With a large vocabulary the logits are most of the work and of the memory: of 300 labelled tokens and 262,144 rows they
and their gradients are three times 315 MB. Where the output matrix is frozen, `FrozenHead` computes loss and gradient
in parts.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn.functional import cross_entropy, kl_div
from transformers import PreTrainedModel

from engine.models.loading import LoadedModel
from engine.training.batches import Batch
from engine.training.layers import LARGE_MATRIX

# Architectures whose logits are `lm_head(hidden states)`, capped where the configuration says so, and nothing more
# (read in transformers 5.19). Of these only the labelled positions go through the head; others (scaled logits) are
# asked for all their logits.
PLAIN_HEADS = {
    "gemma", "gemma2", "gemma3_text", "llama", "mistral", "olmo2", "phi3", "qwen2", "qwen3", "smollm3",
}  # fmt: skip
# Logits that are computed at once: 64 MB in float32.
LOGITS_AT_ONCE = 2**24
NEVER = -1e4  # a logit whose probability is 0, and which can still be multiplied by it


def hidden_states(causal: PreTrainedModel, batch: Batch) -> torch.Tensor:
    """What the head reads at the labelled positions of a model of PLAIN_HEADS: (labelled tokens × hidden size)."""
    # A mask of ones masks nothing, but spares transformers its search for several texts packed into one sequence.
    mask = torch.ones_like(batch.input_ids)
    hidden = causal.base_model(input_ids=batch.input_ids, attention_mask=mask, use_cache=False).last_hidden_state
    return hidden.flatten(0, 1).index_select(0, batch.positions)


def labelled_logits(causal: PreTrainedModel, batch: Batch) -> torch.Tensor:
    """The logits (labelled tokens × vocabulary) that predict `batch.targets`."""
    if causal.config.model_type not in PLAIN_HEADS:
        logits = causal(input_ids=batch.input_ids, use_cache=False).logits
        return logits.flatten(0, 1).index_select(0, batch.positions)
    head: Any = causal.get_output_embeddings()
    logits = head(hidden_states(causal, batch))
    cap = getattr(causal.config, "final_logit_softcapping", None)
    return logits if cap is None else torch.tanh(logits / cap) * cap


@torch.no_grad()
def said_by(base: LoadedModel, batch: Batch) -> torch.Tensor:
    """What the base says at the labelled tokens (n), for a leash to it: the states before its head (n × hidden size)
    where that is large, else the log-probabilities of all tokens (n × vocabulary). It never says a key token."""
    if has_large_head(base.causal):
        return hidden_states(base.causal, batch)
    logits = labelled_logits(base.causal, batch).float()
    logits[:, list(base.key_token_ids.values())] = NEVER
    return logits.log_softmax(-1)


def has_large_head(causal: PreTrainedModel) -> bool:
    """Whether logits are a product with a large matrix and nothing more, so that `FrozenHead` can compute them."""
    head: Any = causal.get_output_embeddings()
    if causal.config.model_type not in PLAIN_HEADS or type(head) is not nn.Linear or head.bias is not None:
        return False
    return head.weight.numel() >= LARGE_MATRIX


def labelled_loss(
    loaded: LoadedModel, batch: Batch, head: FrozenHead | None, *, each: bool = False
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """The mean loss over the labelled tokens, in nats; by `head` where there is one.

    each: also the loss of each token (n), without a gradient; else None.
    """
    if head is not None:
        mean, single = head.loss(hidden_states(loaded.causal, batch), batch.targets, batch.of_base)
        return mean, single if each else None
    logits = labelled_logits(loaded.causal, batch).float()
    if not each and batch.of_base is None:
        return cross_entropy(logits, batch.targets), None
    losses = cross_entropy(logits, batch.targets, reduction="none")
    if batch.of_base is not None:
        moved = kl_div(logits[batch.learnt :].log_softmax(-1), batch.of_base, reduction="none", log_target=True)
        losses = torch.cat([losses[: batch.learnt], moved.sum(-1)])
    return losses.mean(), losses.detach() if each else None


@dataclass(frozen=True)
class FrozenHead:
    """A frozen output matrix, `weight` (vocabulary × hidden size), with the rows of the key tokens that are trained.

    ids: the key tokens' rows, None where there are none; rows: (key tokens × hidden size) in place of these where they
    are trained, or None; cap: `final_logit_softcapping`.
    """

    weight: torch.Tensor
    rows: torch.Tensor | None
    ids: torch.Tensor | None
    cap: float | None

    @classmethod
    def of(cls, loaded: LoadedModel, mixed: bool) -> FrozenHead | None:
        """The head of the model; None where it is small, trained, or more than a product with a matrix.

        mixed: the matrix is kept in bfloat16, as a copy.
        """
        causal, keys = loaded.causal, loaded.key_rows
        head: Any = causal.get_output_embeddings()
        if not has_large_head(causal) or head.weight.requires_grad:
            return None
        weight = head.weight.detach().to(torch.bfloat16) if mixed else head.weight.detach()
        cap = getattr(causal.config, "final_logit_softcapping", None)
        # Also where they are frozen: what the base said, they do not take part in.
        rows = sorted(loaded.key_token_ids.values())
        ids = torch.tensor(rows, device=weight.device) if rows else None
        return cls(weight, keys.output if keys else None, ids, cap)

    def loss(
        self, hidden: torch.Tensor, targets: torch.Tensor, of_base: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The mean loss of `targets` (n) after the `hidden` states (n × hidden size), in nats, and that of each (n)
        without a gradient. of_base: the base's states (m × hidden size) at the last m, which are held to them."""
        return _PartByPart.apply(hidden, self.rows, self, targets, of_base)

    def logits(self, states: torch.Tensor, keys: torch.Tensor | None) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Of some states, with `keys` in place of the rows `ids`; and what a cap's slope is made of."""
        logits = (states @ self.weight.T).float()
        if keys is not None:
            logits[:, self.ids] = (states @ keys.T).float()
        if self.cap is None:
            return logits, None
        squeezed = torch.tanh(logits / self.cap)
        return squeezed * self.cap, squeezed

    def of_base(self, states: torch.Tensor) -> torch.Tensor:
        """The base's log-probabilities from its states. Its rows of the key tokens are not kept: it never says one."""
        logits, _ = self.logits(states.to(self.weight.dtype), None)
        if self.ids is not None:
            logits[:, self.ids] = NEVER
        return logits.log_softmax(-1)


class _PartByPart(torch.autograd.Function):
    """Cross entropy whose gradient, softmax minus one at the target, is formed beside it, a part of the tokens at once
    (as Liger Kernel does: Hsu et al. 2024, arXiv:2410.10989). On a leash the base's softmax stands for the one."""

    @staticmethod
    def forward(
        ctx: Any, hidden: Any, rows: Any, head: FrozenHead, targets: torch.Tensor, of_base: torch.Tensor | None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        weight, ids = head.weight, head.ids
        keys = None if rows is None else rows.detach().to(weight.dtype)
        each = torch.empty(len(targets), device=hidden.device)
        of_hidden = torch.empty_like(hidden)
        of_rows = None if rows is None else torch.zeros(rows.shape, device=rows.device)
        size = max(1, LOGITS_AT_ONCE // len(weight))
        learnt = len(targets) - (0 if of_base is None else len(of_base))
        places = torch.arange(len(targets), device=hidden.device)
        with torch.autocast(hidden.device.type, enabled=False):
            for part in filter(len, (*places[:learnt].split(size), *places[learnt:].split(size))):
                states, wanted = hidden[part].to(weight.dtype), targets[part, None]
                logits, squeezed = head.logits(states, keys)
                scale = logits.logsumexp(-1, keepdim=True)
                if of_base is not None and part[0] >= learnt:
                    base = head.of_base(of_base[part - learnt])
                    before = base.exp()
                    each[part] = (before * (base - logits + scale)).sum(-1)
                    gradient = logits.sub_(scale).exp_().sub_(before)
                else:
                    each[part] = (scale - logits.gather(-1, wanted))[:, 0]
                    gradient = logits.sub_(scale).exp_()
                    gradient.scatter_add_(-1, wanted, gradient.new_full(wanted.shape, -1.0))
                if squeezed is not None:
                    gradient *= 1 - squeezed.square_()
                gradient = gradient.to(weight.dtype)
                if keys is None:
                    of_hidden[part] = (gradient @ weight).to(hidden.dtype)
                    continue
                of_keys = gradient[:, ids]
                gradient[:, ids] = 0
                of_hidden[part] = (gradient @ weight + of_keys @ keys).to(hidden.dtype)
                of_rows += (of_keys.T @ states).float()
        count = len(targets)
        ctx.save_for_backward(of_hidden / count, None if of_rows is None else (of_rows / count).to(rows.dtype))
        ctx.mark_non_differentiable(each)
        return each.sum() / count, each

    @staticmethod
    def backward(ctx: Any, *given: Any) -> Any:
        of_hidden, of_rows = ctx.saved_tensors
        return of_hidden * given[0], None if of_rows is None else of_rows * given[0], None, None, None
