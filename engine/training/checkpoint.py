"""Checkpoints: a folder with the model and, to resume from, the optimizer's state; whole or not there at all.

    config.json, model.safetensors …    with LoRA: adapter_config.json, adapter_model.safetensors, key_rows.safetensors
    tokenizer.json, tokenizer_config.json
    trained_on.json                     which base it began from
    training/optimizer.safetensors      `<parameter>.exp_avg`, `.exp_avg_sq`, `.step` of what is trained; of moments of
                                        8 bits `.exp_avg/codes` and so on
    training/masters.safetensors        what is trained, in float32, where the model holds it rounded
    training/shards/                    instead of these and of the model, where several processes train it together
    training/state.json                 stage, epoch, step
    checksums.json                      of every file, written last

The training state has a folder of its own, since vLLM takes every *.safetensors beside a config.json for weights.

Neither a learning-rate schedule nor random states are stored: the loop derives both from the step and from
(seed, stage, epoch), so that nothing that is run between two epochs can disturb what follows.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import torch
from peft import PeftModel, get_peft_model_state_dict, set_peft_model_state_dict
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file

from engine.models.checksums import CHECKSUMS, damage
from engine.models.folders import replaced, whole
from engine.models.identity import check_same_base, noted_base
from engine.models.key_tokens import set_key_rows
from engine.models.loading import AS_PUBLISHED, KEY_ROWS, LoadedModel, load_weights, save_model
from engine.models.source import ModelError
from engine.training.background import Writer, copied, copied_tensors
from engine.training.masters import as_kept
from engine.training.optimizers import flat_state, put_state

STATE = "training/state.json"
OPTIMIZER = "training/optimizer.safetensors"
MASTERS = "training/masters.safetensors"
SHARDS = "training/shards"
FORMAT = 2
SIZES_ONLY = 1  # the format of before there were checksums: the state knows the size of every file


class DamagedCheckpoint(ModelError):
    """A checkpoint whose tensors cannot be read, or are another model's."""


@dataclass(frozen=True)
class TrainingState:
    """Where a checkpoint stands: `epoch` epochs and `step` optimizer steps of `stage` are done.

    resumable: the optimizer's state is there too, so that training can go on from here.
    """

    folder: Path
    stage: str
    epoch: int
    step: int
    resumable: bool = True


def save_checkpoint(
    folder: Path,
    loaded: LoadedModel,
    optimizer: torch.optim.Optimizer | None,
    *,
    stage: str,
    epoch: int,
    step: int,
    writer: Writer | None = None,
) -> None:
    """Write a checkpoint in place of any older one. A process killed at any moment leaves the old or the new one whole.

    optimizer: None for a checkpoint that no training goes on from, a third of the size. writer: writes it after this
    call, from a copy. Raises OSError when it cannot be written (disk full); the old one is still there then.
    """
    tensors: dict[str, dict[str, torch.Tensor]] = {}
    if optimizer is not None:
        tensors[OPTIMIZER] = _optimizer_tensors(loaded, optimizer)
        if loaded.kept_dtype is not None:
            tensors[MASTERS] = {name: p.detach().contiguous() for name, p in _trainable(loaded).items()}
    if writer is None:
        with as_kept(loaded):
            _write(folder, loaded, tensors, stage, epoch, step)
        return
    writer.wait()  # before there are two copies
    model, beside = copied(loaded), {name: copied_tensors(found) for name, found in tensors.items()}
    writer.write(lambda: _write(folder, model, beside, stage, epoch, step))


def _write(
    folder: Path, loaded: LoadedModel, tensors: dict[str, dict[str, torch.Tensor]], stage: str, epoch: int, step: int
) -> None:
    with replaced(folder) as new:
        save_model(loaded, new)
        write_state(new, stage=stage, epoch=epoch, step=step)
        for name, found in tensors.items():
            save_file(found, new / name)


def write_state(folder: Path, *, stage: str, epoch: int, step: int) -> None:
    """Say where the checkpoint that is being written in `folder` stands. Raises OSError."""
    (folder / STATE).parent.mkdir(exist_ok=True)
    state = {"format": FORMAT, "stage": stage, "epoch": epoch, "step": step}
    (folder / STATE).write_text(json.dumps(state, indent=1) + "\n", encoding="utf-8")


def is_complete(folder: Path) -> bool:
    """Whether there is a checkpoint with every file as it was written."""
    found = whole(folder)
    return found is not None and not flaw(found)


def flaw(folder: Path) -> str:
    """What is wrong with the checkpoint in exactly this folder, in words; '' when it can be built on. Reads it all."""
    if problem := damage(folder):
        return problem
    try:
        state = _read(folder)
        if state["format"] != SIZES_ONLY:
            return "" if (folder / CHECKSUMS).is_file() else f"{CHECKSUMS} is missing"
        return next(
            (f"{n} has another size" for n, s in state["files"].items() if (folder / n).stat().st_size != s), ""
        )
    except OSError as error:
        return f"{Path(str(error.filename)).name} cannot be read: {error.strerror}"
    except (ModelError, KeyError, AttributeError):
        return f"{STATE} cannot be read"


def load_training_state(folder: Path) -> TrainingState:
    """Where the checkpoint stands; its tensors are read later, by `restore`. Raises ModelError when it is damaged."""
    found = whole(folder)
    if found is None:
        raise ModelError(f"there is no checkpoint in {folder}: train it again")
    state = _read(found)
    resumable = (found / OPTIMIZER).is_file() or (found / SHARDS).is_dir()
    return TrainingState(folder, state["stage"], state["epoch"], state["step"], resumable)


def restore(state: TrainingState, loaded: LoadedModel, optimizer: torch.optim.Optimizer) -> None:
    """Put the checkpoint's weights into the model and its optimizer state into the (fresh) optimizer, in place.

    Raises DamagedCheckpoint when the files are damaged or belong to another model.
    """
    folder = whole(state.folder) or state.folder
    try:
        _restore_weights(folder, loaded)
        if loaded.key_rows is not None:
            loaded.key_rows.read()
        if (folder / MASTERS).is_file() and loaded.kept_dtype is not None:
            _restore_masters(load_file(folder / MASTERS), loaded)
        _restore_optimizer(load_file(folder / OPTIMIZER), loaded, optimizer)
    except (OSError, SafetensorError, KeyError, RuntimeError) as error:
        text = " ".join(str(error).split())[:160]
        words = f"the checkpoint {folder} does not fit or is damaged ({text}): train it again"
        raise DamagedCheckpoint(words) from error


def _read(folder: Path) -> dict:
    try:
        state = json.loads((folder / STATE).read_text(encoding="utf-8"))
        if state["format"] in (FORMAT, SIZES_ONLY):
            return {**state, "stage": str(state["stage"]), "epoch": int(state["epoch"]), "step": int(state["step"])}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ModelError(f"the checkpoint {folder} is damaged: train it again") from error
    raise ModelError(f"the checkpoint {folder} was written by another version of the lab: train it again")


def _trainable(loaded: LoadedModel) -> dict[str, torch.nn.Parameter]:
    apart = loaded.key_rows.parameters if loaded.key_rows is not None else {}
    return {**{name: p for name, p in loaded.model.named_parameters() if p.requires_grad}, **apart}


def _optimizer_tensors(loaded: LoadedModel, optimizer: torch.optim.Optimizer) -> dict[str, torch.Tensor]:
    states = {name: flat_state(optimizer.state.get(p, {})) for name, p in _trainable(loaded).items()}
    return {f"{name}.{key}": value.contiguous() for name, state in states.items() for key, value in state.items()}


def _restore_optimizer(tensors: dict[str, torch.Tensor], loaded: LoadedModel, optimizer: torch.optim.Optimizer) -> None:
    parameters = _trainable(loaded)
    states: dict[str, dict[str, torch.Tensor]] = {}
    for key, value in tensors.items():
        name, _, kind = key.rpartition(".")
        states.setdefault(name, {})[kind] = value
    if states.keys() != parameters.keys():
        raise KeyError(f"{len(parameters.keys() ^ states.keys())} parameters have no stored state")
    for name, parameter in parameters.items():
        put_state(optimizer, parameter, states[name])


@torch.no_grad()
def _restore_masters(tensors: dict[str, torch.Tensor], loaded: LoadedModel) -> None:
    for name, parameter in _trainable(loaded).items():
        parameter.copy_(tensors[name])
    if loaded.key_rows is not None:
        loaded.key_rows.write()


def _restore_weights(folder: Path, loaded: LoadedModel) -> None:
    if isinstance(loaded.model, PeftModel):
        check_same_base(folder, loaded.base, loaded.former)
        adapter = load_file(folder / "adapter_model.safetensors")
        if adapter.keys() != get_peft_model_state_dict(loaded.model, save_embedding_layers=False).keys():
            raise KeyError("the adapter has other layers")
        set_key_rows(loaded.causal, loaded.key_token_ids.values(), load_file(folder / KEY_ROWS))
        set_peft_model_state_dict(loaded.model, adapter)
        return
    exact = _more_exact(folder, loaded)
    loaded.base = noted_base(folder)
    weights = loaded.model.state_dict()
    missing = {name for name, _ in loaded.model.named_parameters()}
    for path in sorted(folder.glob("model*.safetensors")):
        with safe_open(path, "pt") as file, torch.no_grad():
            if not weights.keys() >= set(file.keys()):
                return _restore_renamed(folder, loaded, exact)
            # One tensor at a time: a second copy of a large model may not fit beside the first.
            for name in file.keys():  # noqa: SIM118 (no mapping)
                if name not in exact:
                    weights[name].copy_(file.get_tensor(name))
                missing.discard(name)
    if missing:
        raise KeyError(f"{len(missing)} weights are not stored")


def _more_exact(folder: Path, loaded: LoadedModel) -> set[str]:
    """The frozen weights that the model has from its base in more digits than the checkpoint, which holds them rounded:
    with these an undisturbed training goes on. Masters are stored of what is trained alone."""
    if not (folder / MASTERS).is_file() or loaded.kept_dtype is None or noted_base(folder) != loaded.base:
        return set()
    return {name for name, p in loaded.model.named_parameters(remove_duplicate=False) if not p.requires_grad}


@torch.no_grad()
def _restore_renamed(folder: Path, loaded: LoadedModel, exact: set[str]) -> None:
    """Of a kind that transformers stores by other names, or in other pieces, than it has in memory, such as GPT-NeoX
    and mixtures of experts: only loading it knows how they go together, which takes a second copy."""
    try:
        stored = load_weights(folder, AS_PUBLISHED, torch.device("cpu")).causal.state_dict()
    except ModelError as error:
        raise KeyError(str(error)) from error
    for name, weight in loaded.model.state_dict().items():
        if name not in exact:
            weight.copy_(stored[name])
