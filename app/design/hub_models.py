"""The paper's models on the page: chosen from a list, and what can be told of one before it is downloaded."""

from __future__ import annotations

from dataclasses import dataclass

from app.shared.render import duration, part
from engine.estimate import estimate_experiment
from engine.experiment import Experiment
from engine.hardware import device_gib, serving_device
from engine.models.files import model_shape
from engine.models.paper_models import PAPER_MODELS, WEIGHT_BYTES
from engine.settings import Tuning

CHOICES = [(f"{about.title} ({name})", name) for name, about in PAPER_MODELS.items()]
METHODS = {"full": "Every weight", "lora": "LoRA adapters"}


@dataclass(frozen=True)
class Needs:
    """What the experiment takes with a way of tuning, on the device at hand. fits: None where the device is silent."""

    method: str
    memory: int
    time: str
    fits: bool | None


def hub_model(model: str, resolved: Experiment | None) -> str:
    """What can be told of one of the paper's models, as HTML; '' for another model.

    resolved: the experiment, where it is one: what it takes is told, too.
    """
    about, shape = PAPER_MODELS.get(model), model_shape(model)
    if about is None or shape is None:
        return ""
    needs = [_needs(resolved, method) for method in METHODS] if resolved and resolved.model == model else []
    return part(
        "design/hub_model", model=model, about=about, shape=shape, size=WEIGHT_BYTES * shape.parameters, needs=needs,
        device="this machine’s processor" if serving_device().startswith("cpu") else "the GPU",
    )  # fmt: skip


def _needs(resolved: Experiment, method: str) -> Needs:
    kept = resolved.tuning if resolved.tuning.method == method else Tuning.model_validate({"method": method})
    found = estimate_experiment(resolved.model_copy(update={"tuning": kept}))
    there, memory = device_gib(serving_device()) * 2**30, found.memory or 0
    time = duration(float(f"{found.seconds[1]:.1e}")) if found.seconds else ""
    return Needs(METHODS[method], memory, time, memory <= there if there else None)
