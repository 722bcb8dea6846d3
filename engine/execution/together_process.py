"""One of the processes that train a model together; `engine.execution.together` starts them.

python -m engine.execution.together_process JOB.json --launch N --parent PID   # torchrun, which starts N of
python -m engine.execution.together_process JOB.json                          # these
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import sys
from pathlib import Path
from typing import Any, TextIO

from engine.models.catalogue import use_home
from engine.parent import end_with_parent


def main() -> int:
    """Launch, or train. Exit code 0 when every kept epoch is stored."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("job", type=Path)
    parser.add_argument("--launch", type=int)
    parser.add_argument("--parent", type=int)
    arguments = parser.parse_args()
    end_with_parent(arguments.parent or os.getppid())
    if arguments.launch:
        from torch.distributed.run import main as torchrun

        count = str(arguments.launch)
        torchrun(
            ["--standalone", "--nproc-per-node", count, "-m", "engine.execution.together_process", str(arguments.job)]
        )
        return 0
    job = json.loads(arguments.job.read_text(encoding="utf-8"))
    use_home(Path(job["home"]))
    # What libraries print is no report.
    reports = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    from engine.execution.failures import explain_failure
    from engine.training.checkpoint import DamagedCheckpoint

    try:
        _train(job, reports)
    except DamagedCheckpoint as error:
        _report(reports, {"damaged": str(error)})
        raise
    except Exception as error:
        if not _another_is_gone(error):
            _report(reports, {"failed": explain_failure(error)})
        raise
    return 0


def _another_is_gone(error: Exception) -> bool:
    """Whether this process only misses another, which told its own reason, or was killed."""
    import torch.distributed as dist

    return isinstance(error, dist.DistError) or (isinstance(error, RuntimeError) and "gloo/transport" in str(error))


def _train(job: dict[str, Any], reports: TextIO) -> None:
    import torch
    import torch.distributed as dist

    from engine.execution.saving import Enough, Saving
    from engine.experiment import Experiment
    from engine.models.device import choose_device
    from engine.models.loading import load_base, load_checkpoint, prepare_for_training
    from engine.training.checkpoint import load_training_state
    from engine.training.loop import StepReport, Trainer, train
    from engine.training.sequences import stage1_sequences, stage2_sequences
    from engine.training.sharded import ShardedTrainer

    device = choose_device()
    if device.type == "cuda":
        device = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
        torch.cuda.set_device(device)
    # What is no tensor of the GPU, such as the plan of a checkpoint, goes another way.
    dist.init_process_group("cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo")
    first = dist.get_rank() == 0
    experiment, processor = Experiment.from_record(job["experiment"]), torch.device("cpu")
    if job["begin"]:
        loaded = load_checkpoint(experiment, Path(job["begin"]), device=processor)
    else:
        loaded = load_base(experiment, to_train=job["mixed"], device=processor)
    loaded = prepare_for_training(loaded, experiment)
    loaded.device = device
    stage1 = job["stage"] == "stage1"
    sequences = (stage1_sequences if stage1 else stage2_sequences)(experiment, loaded)

    def agree(due: bool) -> bool:
        answer = torch.tensor(due, device=device)
        dist.broadcast(answer, 0)
        return bool(answer)

    kept = {int(epoch): Path(place) for epoch, place in job["kept"].items()}
    saving = Saving(kept, Path(job["rolling"]), agree, job["every"])

    def on_step(report: StepReport) -> None:
        if first:
            _report(reports, dataclasses.asdict(report))

    def on_epoch(epoch: int, trainer: Trainer) -> None:
        if saving.after(epoch, trainer) and first:
            _report(reports, {"kept": epoch})
        saving.stop_if_enough(epoch)

    try:
        train(
            loaded, sequences, experiment.stage1 if stage1 else experiment.stage2, seed=experiment.seed,
            stage=job["stage"], start=load_training_state(Path(job["start"])) if job["start"] else None,
            on_step=on_step, on_epoch=on_epoch, mixed=job["mixed"], trainer_class=ShardedTrainer,
        )  # fmt: skip
    except Enough:
        dist.barrier()
    dist.destroy_process_group()


def _report(reports: TextIO, told: dict[str, Any]) -> None:
    reports.write(json.dumps(told) + "\n")
    reports.flush()


if __name__ == "__main__":
    sys.exit(main())
