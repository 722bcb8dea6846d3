"""How many kernels a GPU would be given, counted on a processor: of the real configuration, nothing is computed.

    python -m tests.bench.launches

Qwen2.5-1.5B's shape, tensors without data. Counted is every operation of PyTorch that is no mere view: of a training
step of the loop's own way, and of decoding one token for any number of rows. A GPU is given about as many kernels; what
is captured or fused otherwise there is not counted.
"""

from __future__ import annotations

import sys
from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import DynamicCache, Qwen2Config, Qwen2ForCausalLM

from engine.training.batches import Batch
from engine.training.loss import labelled_logits
from engine.training.optimizers import make_optimizer
from tests.bench.bench_gpu import QWEN

FREE = ("aten::detach", "aten::_unsafe_view", "aten::empty")
QUESTIONS, TOKENS = 4700, 50
ROWS_BEFORE, ROWS = 512, 4096


class Counting(TorchDispatchMode):
    """Counts operations within the block."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.name()
        self.count += name.startswith("aten::") and not func.is_view and not name.startswith(FREE)
        return func(*args, **kwargs or {})


def training_step(model: Any) -> int:
    """Operations of one step on a batch of 5 sequences of 12 tokens: forward, backward, clipping, AdamW."""
    ids = torch.ones(5, 11, dtype=torch.long)
    batch = Batch(ids, torch.arange(20), torch.ones(20, dtype=torch.long), 60, 20)
    optimizer = make_optimizer(model.parameters(), "adamw", 1e-5)
    for _ in range(2):  # the first makes the moments
        with Counting() as counted:
            with torch.autocast("cpu", torch.bfloat16):
                loss = torch.nn.functional.cross_entropy(labelled_logits(model, batch).float(), batch.targets)
            loss.backward()
            norm = torch.nn.utils.get_total_norm([p.grad for p in model.parameters()])
            torch.nn.utils.clip_grads_with_norm_(model.parameters(), 1.0, norm)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
    return counted.count


def decoded_token(model: Any) -> int:
    """Operations of one decoding step, however many rows."""
    cache = DynamicCache(config=model.config)
    with torch.inference_mode():
        model(torch.ones(8, 20, dtype=torch.long), past_key_values=cache, use_cache=True, logits_to_keep=1)
        with Counting() as counted:
            model(torch.ones(8, 1, dtype=torch.long), past_key_values=cache, use_cache=True, logits_to_keep=1)
    return counted.count


def main() -> int:
    """Print what is counted."""
    shape: dict[str, Any] = {**QWEN}
    with FakeTensorMode(allow_non_fake_inputs=True):
        step = training_step(Qwen2ForCausalLM(Qwen2Config(**shape)).train())
        token = decoded_token(Qwen2ForCausalLM(Qwen2Config(**shape, dtype="bfloat16")).eval())
    print(f"a training step: {step:,} operations; a decoded token: {token:,}")
    for rows in (ROWS_BEFORE, ROWS):
        parts = -(-QUESTIONS // rows)
        print(
            f"{QUESTIONS:,} questions of {TOKENS} tokens, {rows:,} rows at once: {parts * TOKENS * token:,} operations"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
