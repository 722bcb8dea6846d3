"""One model trained by several processes together, a part of every weight in each: FSDP2.

Each process holds its part of the float32 weights, their gradients and both moments; a layer's weights are gathered
for as long as it computes (Zhao et al. 2023, arXiv:2304.11277; ZeRO-3, Rajbhandari et al. 2020, arXiv:1910.02054). A
batch is shared out among them, so that the loss curve is that of one process, but for the order of its sums.

    init_process_group(…)                                          # as torchrun's processes do
    train(loaded, sequences, settings, …, trainer=ShardedTrainer)  # in every one of them, with the same arguments
"""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from types import MethodType
from typing import Any

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard, register_fsdp_forward_method
from torch.distributed.tensor import DTensor, Shard, distribute_tensor
from torch.nn.functional import cross_entropy

from engine.models.folders import replaced, whole
from engine.models.identity import note_base
from engine.models.loading import LoadedModel, save_model
from engine.models.whole_model import model_of
from engine.training.batches import Batch
from engine.training.checkpoint import SHARDS, DamagedCheckpoint, TrainingState, write_state
from engine.training.loop import Trainer, TrainingError
from engine.training.loss import PLAIN_HEADS, labelled_logits


class ShardedTrainer(Trainer):
    """One stage's training in this process, of those that train together. All methods are for all of them at once."""

    shards = True

    def __init__(self, loaded: LoadedModel, *arguments: Any, mixed: bool = False, **named: Any) -> None:
        self.kept_dtype = loaded.kept_dtype or loaded.causal.dtype
        shard(loaded, mixed)
        super().__init__(loaded, *arguments, mixed=mixed, **named)
        self.processes, self.rank = dist.get_world_size(), dist.get_rank()
        self._norm: torch.Tensor | None = None
        self._rows: dict[torch.nn.Parameter, torch.Tensor] = {}
        # Of a batch at once: this process's share.
        share = -(-self.settings.batch_size // self.processes)
        self.at_once = min(self.settings.micro_batch_size or share, share)

    def run(self, *arguments: Any) -> None:
        """Train the epochs that are left. Raises TrainingError for what several processes cannot do together."""
        if self.replay is not None or self.penalty is not None:
            raise TrainingError("several devices together cannot replay text yet: train on one, or leave replay out")
        parameters = dict(self.loaded.causal.named_parameters())
        self._rows = {parameters[name]: _mask(parameters[name], ids) for name, ids in self.rows_only.items()}
        super().run(*arguments)

    def save(self, folder: Path, *, kept: bool = False) -> bool:
        """Write a checkpoint in place of an older one; returns whether a training can go on from it.

        kept: the whole model, as any other checkpoint; else each process writes its part of weights and moments.
        """
        gather_no_more(self.loaded)
        weights = whole_weights(self.loaded, self.kept_dtype) if kept else {}
        with replaced(folder) if self.rank == 0 else nullcontext(folder) as mine:
            places: list[Any] = [mine]
            dist.broadcast_object_list(places)
            if not kept:
                _write_shards(places[0] / SHARDS, self._tensors())
            if self.rank == 0:
                if kept:
                    save_model(replace(self.loaded, model=model_of(self.loaded.causal, weights), kept_dtype=None), mine)
                else:
                    note_base(mine, self.loaded.base)
                write_state(mine, stage=self.stage, epoch=self.epoch, step=self.step)
        dist.barrier()
        return not kept

    def _restore(self, start: TrainingState) -> None:
        for parameter in self.parameters:
            moments = {name: torch.zeros_like(parameter) for name in ("exp_avg", "exp_avg_sq")}
            self.optimizer.state[parameter] = {"step": torch.zeros((), device=self.loaded.device), **moments}
        folder = (whole(start.folder) or start.folder) / SHARDS
        try:
            dcp.load(self._tensors(), checkpoint_id=folder)
        except CheckpointException as error:
            first = next(iter(error.failures.values()))[0]
            text = " ".join(str(first).split())[:160]
            words = f"the checkpoint {folder} does not fit or is damaged ({text}): train it again"
            raise DamagedCheckpoint(words) from error

    def _tensors(self) -> dict[str, Any]:
        """What training goes on from, by name: this process's parts of the weights and their moments."""
        names = {parameter: name for name, parameter in self.loaded.causal.named_parameters()}
        found: dict[str, Any] = {}
        for parameter in self.parameters:
            found[names[parameter]] = parameter
            found |= {f"{names[parameter]}.{key}": value for key, value in self.optimizer.state[parameter].items()}
        return found

    def _add_gradients(self, parts: list[Batch]) -> tuple[torch.Tensor, list[torch.Tensor]]:
        """Compute this process's parts of the batch, and with the others the gradients of the whole batch."""
        count, losses = sum(len(part.targets) for part in parts), []
        # Gathering takes all processes, so each computes as many parts; one too many counts nothing.
        for place in range(self.rank, -(-len(parts) // self.processes) * self.processes, self.processes):
            part = parts[place % len(parts)]
            counts = len(part.targets) / count if place < len(parts) else 0.0
            loss = cross_entropy(self._logits(part).float(), part.targets) * counts
            (loss * self.processes).backward()  # whose gradients are averaged over the processes
            losses.append(loss.detach())
        total = torch.stack(losses).sum()
        dist.all_reduce(total)
        for parameter, rows in self._rows.items():
            if parameter.grad is not None:
                parameter.grad.mul_(rows)
        return total, []

    def _logits(self, part: Batch) -> torch.Tensor:
        causal: Any = self.loaded.causal
        return (
            causal.labelled_logits(part) if causal.config.model_type in PLAIN_HEADS else labelled_logits(causal, part)
        )

    def _gradient_norm(self, gradients: list[torch.Tensor]) -> torch.Tensor:
        self._norm = torch.nn.utils.get_total_norm(gradients)
        return self._norm.full_tensor() if isinstance(self._norm, DTensor) else self._norm

    def _clip(self, norm: torch.Tensor) -> None:
        assert self._norm is not None
        super()._clip(self._norm)


def shard(loaded: LoadedModel, mixed: bool) -> None:
    """Keep only this process's part of every weight, in float32 where `mixed`; products are then bfloat16's.

    Layers are gathered one after another, embeddings and head for the whole pass.
    """
    causal: Any = loaded.causal
    mesh = init_device_mesh(loaded.device.type, (dist.get_world_size(),))
    policy = MixedPrecisionPolicy(param_dtype=torch.bfloat16 if mixed else None, reduce_dtype=torch.float32)
    for module in [m for m in causal.modules() if type(m).__name__ in (causal._no_split_modules or ())] + [causal]:
        if mixed:
            for parameter in module.parameters():
                parameter.data = parameter.data.float()
        fully_shard(module, mesh=mesh, mp_policy=policy)
    if causal.config.model_type in PLAIN_HEADS:
        # Body and head are called apart, past the hooks of the whole that gather embeddings and head.
        causal.labelled_logits = MethodType(labelled_logits, causal)
        register_fsdp_forward_method(causal, "labelled_logits")


def gather_no_more(loaded: LoadedModel) -> None:
    """Give back what the last pass gathered and no way back has given back: the parameters are the parts again."""
    for module in loaded.causal.modules():
        if isinstance(module, FSDPModule):
            module.reshard()


def whole_weights(loaded: LoadedModel, dtype: torch.dtype) -> dict[str, torch.Tensor]:
    """Every weight whole, by its name, on the CPU in the first process; {} in the others. One is gathered at a time."""
    causal, found = loaded.causal, {}
    with torch.no_grad():
        for name, parameter in causal.named_parameters():
            gathered = parameter.full_tensor() if isinstance(parameter, DTensor) else parameter
            if dist.get_rank() == 0:
                found[name] = gathered.detach().to("cpu", dtype if gathered.is_floating_point() else None, copy=True)
    return found


def _mask(matrix: Any, ids: list[int]) -> torch.Tensor:
    """1 in the rows of these numbers (rows × 1), shared out as the matrix is."""
    rows = torch.zeros(matrix.shape[0], 1, device=matrix.device)
    rows[ids] = 1
    return distribute_tensor(rows, matrix.device_mesh, [Shard(0)])


def _write_shards(folder: Path, tensors: dict[str, Any]) -> None:
    try:
        dcp.save(tensors, checkpoint_id=folder)
    except CheckpointException as error:  # a full disk, in its own words
        raise next(iter(error.failures.values()))[0] from error
