"""AdamW: PyTorch's; or torchao's, with moments of 8 bits, which rounds weights of 16 bits at random.

A step of the paper's rates is mostly smaller than the distance between two neighbouring numbers of bfloat16. Rounded to
the nearest it is lost; rounded up or down with the probability of how near each is, it is right in the mean. Moments in
blocks of 256 with a scale each (Dettmers et al. 2022, arXiv:2110.02861): 6 bytes a weight in all, where float32 weights
and moments take 16.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from contextlib import nullcontext
from typing import Any

import torch

from engine.settings import OptimizerName


class TrainingError(ValueError):
    """Training cannot go on; the message is one sentence that says what to do."""


BETAS = (0.9, 0.999)  # torch's and transformers' default, which the reference code of the paper leaves as it is


def make_optimizer(parameters: Iterable[torch.Tensor], name: OptimizerName, rate: float) -> torch.optim.Optimizer:
    """The optimizer of this name, without weight decay. Raises TrainingError where what it needs is not installed."""
    if name == "adamw":
        return torch.optim.AdamW(parameters, lr=rate, betas=BETAS, weight_decay=0.0, fused=True)
    # Kernels of other versions and machines, which it does not find, are of no use to it here.
    logging.getLogger("torchao").setLevel(logging.ERROR)
    try:
        from torchao.optim import AdamW8bit
    except ImportError as error:
        raise TrainingError(
            f"the optimizer ‘{name}’ needs torchao, which is not installed: ‘make torchao’ adds it"
        ) from error
    return AdamW8bit(parameters, lr=rate, betas=BETAS, weight_decay=0.0, bf16_stochastic_round=True)


def take_step(optimizer: torch.optim.Optimizer, rate: float, device: torch.device) -> None:
    """One step at this rate. What torchao would compile is computed as it stands on a processor, where a compiler may
    be missing."""
    for group in optimizer.param_groups:
        if isinstance(group["lr"], torch.Tensor):
            group["lr"].fill_(rate)
        else:
            group["lr"] = rate
    plainly = device.type == "cpu" and _is_torchao(optimizer)
    with torch.compiler.set_stance("force_eager") if plainly else nullcontext():
        optimizer.step()


def _is_torchao(optimizer: torch.optim.Optimizer) -> bool:
    return type(optimizer).__module__.startswith("torchao")


def flat_state(state: dict[str, Any]) -> dict[str, torch.Tensor]:
    """One parameter's state as plain tensors: of a moment of 8 bits its codes, scales and what they stand for."""
    found: dict[str, torch.Tensor] = {}
    for key, value in state.items():
        if hasattr(value, "codes"):
            found |= {f"{key}/{part}": getattr(value, part) for part in value.__tensor_flatten__()[0]}
        else:
            found[key] = value
    return found


def put_state(optimizer: torch.optim.Optimizer, parameter: torch.Tensor, tensors: dict[str, torch.Tensor]) -> None:
    """Give a parameter's state back, as `flat_state` gave it. Raises KeyError when it is another optimizer's."""
    quantised: dict[str, dict[str, torch.Tensor]] = {}
    state: dict[str, Any] = {}
    here = "cpu" if _is_torchao(optimizer) else parameter.device  # where it counts its steps
    for key, value in tensors.items():
        name, _, part = key.partition("/")
        if part:
            quantised.setdefault(name, {})[part] = value.to(parameter.device)
        else:
            state[name] = value.to(here if name == "step" else parameter.device)
    if quantised:
        from torchao.optim.subclass_8bit import OptimState8bit

        for name, parts in quantised.items():
            state[name] = OptimState8bit(
                parts["codes"], parts["scale"], parts["qmap"], name == "exp_avg", parameter.dtype
            )
    optimizer.state[parameter] = state
