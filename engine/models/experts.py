"""Mixtures of experts with LoRA on the experts: PEFT changes such a layer while it computes, so threads take turns."""

from __future__ import annotations

import threading
from typing import Any

from peft.tuners.lora.layer import ParamWrapper


class _Turns:
    """A model's calls one after the other, whichever thread they come from."""

    def __init__(self) -> None:
        self._lock = threading.RLock()

    def __deepcopy__(self, _: Any) -> _Turns:
        return _Turns()

    def begin(self, *_: Any) -> None:
        """Before the model computes."""
        self._lock.acquire()

    def end(self, *_: Any) -> None:
        """After it, also when it failed."""
        self._lock.release()


def compute_in_turns(model: Any) -> None:
    """Let calls of a model take turns where LoRA is on its experts; other models compute side by side as ever."""
    if any(isinstance(module, ParamWrapper) for module in model.modules()):
        turns = _Turns()
        model.register_forward_pre_hook(turns.begin)
        model.register_forward_hook(turns.end, always_call=True)
