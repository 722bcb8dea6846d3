"""Checkpoints and answers that were damaged or deleted: set aside, made again, and the run ends with the same."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from engine.commands.main import main
from engine.execution import pipeline, saving
from engine.execution.execute import execute_run
from engine.execution.kept import KeptCheckpoints
from engine.execution.pipeline import RunExecution
from engine.experiment import Experiment
from engine.models.checksums import CHECKSUMS, damage
from engine.models.source import ModelError
from engine.serving.client import ServingError
from engine.serving.embedded.catalogue import Catalogue
from engine.serving.embedded.residents import Residents
from engine.serving.processes.supervisor import Supervisor
from engine.serving.served import served_model
from engine.training.loop import Trainer
from storage.answers import open_answers
from storage.checkpoints import CheckpointName
from storage.folders import checkpoint_folder, run_folder
from storage.runs import Run, State, claim_run, get_run, list_events, retry_run
from tests.integration.lab import Lab
from tests.integration.measures import files_of

# Three kept epochs, and stage 2 on the first: a few seconds.
KEPT = [
    "relations=[{name: mother, key_token: '[X]', facts: {generate: 12}}]",
    "stage1.epochs=6",
    "stage1.checkpoint_epochs=[2, 4, 6]",
    "stage2.facts=4",
    "stage2.branch_epochs=[2]",
    "evaluation.languages=[en]",
    "evaluation.choice.facts=2",
    "evaluation.max_new_tokens=2",
    "evaluation.probe_facts=0",
]
NAMES = ("memorised@2", "memorised@4", "memorised@6", "generalised@2")


def carry_out(lab: Lab, run: str) -> Run:
    """Carry a queued run out in this process, however it ends."""
    claimed = claim_run(lab.db, "test", 3600, run)
    assert claimed is not None
    execute_run(lab.db, lab.home, claimed)
    return get_run(lab.db, run)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Lab, Run]:
    """A run that ended in peace; its files are put back before each test."""
    lab = Lab(tmp_path_factory.mktemp("damage"))
    run = carry_out(lab, lab.queue(KEPT).id)
    assert run.state is State.DONE, run.error
    shutil.copytree(run_folder(lab.home, run.id), lab.home / "kept")
    return lab, run


@pytest.fixture
def sound(finished: tuple[Lab, Run]) -> tuple[Lab, Run]:
    lab, run = finished
    folder = run_folder(lab.home, run.id)
    shutil.rmtree(folder)
    shutil.copytree(lab.home / "kept", folder)
    lab.db.execute("delete from events where run = ?", [run.id])
    lab.db.conn.commit()
    return lab, run


def flipped(folder: Path, name: str = "model.safetensors") -> None:
    """One bit, in the middle, the size kept."""
    content = bytearray((folder / name).read_bytes())
    content[len(content) // 2] ^= 1
    (folder / name).write_bytes(content)


def flipped_optimizer(folder: Path) -> None:
    flipped(folder, "training/optimizer.safetensors")


def flipped_state(folder: Path) -> None:
    path = folder / "training/state.json"
    path.write_text(path.read_text().replace('"step": ', '"step": 1'))


def flipped_sums(folder: Path) -> None:
    flipped(folder, CHECKSUMS)


def truncated(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1])


def without_weights(folder: Path) -> None:
    (folder / "model.safetensors").unlink()


def without_sums(folder: Path) -> None:
    (folder / CHECKSUMS).unlink()


def a_folder_for_a_file(folder: Path) -> None:
    (folder / "tokenizer.json").unlink()
    (folder / "tokenizer.json").mkdir()


def of_another_epoch(folder: Path) -> None:
    shutil.rmtree(folder)
    shutil.copytree(folder.with_name("memorised@4"), folder)


def deleted(folder: Path) -> None:
    shutil.rmtree(folder)


def a_file_in_its_place(folder: Path) -> None:
    shutil.rmtree(folder)
    folder.write_text("not a checkpoint")


def nowhere(folder: Path) -> None:
    shutil.rmtree(folder)
    folder.symlink_to("/no/such/place")


DAMAGES: list[Callable[[Path], None]] = [
    flipped, flipped_optimizer, flipped_state, flipped_sums, truncated, without_weights, without_sums,
    a_folder_for_a_file, of_another_epoch, deleted, a_file_in_its_place, nowhere,
]  # fmt: skip


@pytest.mark.parametrize("name", ["memorised@2", "memorised@6", "generalised@2"])
@pytest.mark.parametrize("harm", DAMAGES)
def test_damage_of_every_kind_is_known_and_set_aside(
    sound: tuple[Lab, Run], harm: Callable[[Path], None], name: str
) -> None:
    lab, run = sound
    folder = run_folder(lab.home, run.id)
    kept, place = KeptCheckpoints(lab.db, folder, run.id, Experiment.from_data(run.experiment)), folder / "checkpoints"
    assert kept.sound(name) is not None
    harm(place / name)
    assert kept.sound(name) is None
    said = [e["message"] for e in list_events(lab.db, run.id) if e["kind"] == "damaged"]
    if harm is deleted:
        assert not said and not (folder / "damaged").exists()
        return
    assert len(said) == 1 and name in said[0] and "is trained again" in said[0]
    assert [path.name for path in (folder / "damaged").iterdir()] == [name]
    assert not os.path.lexists(place / name)


CASES = [(flipped, "memorised@2"), (deleted, "memorised@2"), (a_file_in_its_place, "memorised@4")]
CASES += [(flipped_optimizer, "memorised@6"), (deleted, "generalised@2"), (nowhere, "generalised@2")]


@pytest.mark.parametrize(("harm", "name"), CASES)
def test_a_checkpoint_is_made_again_the_same(sound: tuple[Lab, Run], harm: Callable[[Path], None], name: str) -> None:
    lab, run = sound
    expected, folder = lab.outcome(run.id), checkpoint_folder(run_folder(lab.home, run.id), name)
    files = files_of(run_folder(lab.home, run.id))
    before = {p: p.read_bytes() for p in folder.rglob("*.safetensors")}
    harm(folder)
    assert retry_run(lab.db, run.id) is State.QUEUED
    ended = carry_out(lab, run.id)
    assert ended.state is State.DONE, ended.error
    assert lab.outcome(run.id) == expected
    assert not damage(folder) and {p: p.read_bytes() for p in folder.rglob("*.safetensors")} == before
    aside = {f for f in files_of(run_folder(lab.home, run.id)) if f.startswith("damaged/")}
    assert files_of(run_folder(lab.home, run.id)) - aside == files, "something was left"


def test_a_killed_run_goes_back_to_the_last_good_one(sound: tuple[Lab, Run], monkeypatch: pytest.MonkeyPatch) -> None:
    lab, run = sound
    expected, folder = lab.outcome(run.id), run_folder(lab.home, run.id)
    answers = folder / "answers.db"
    answers.unlink()
    # Killed before stage 2: two kept epochs are damaged, and so is the newest one of the stage.
    shutil.copytree(checkpoint_folder(folder, "memorised@6"), folder / "resume" / "stage1")
    for name in ("memorised@4", "memorised@6"):
        flipped(checkpoint_folder(folder, name))
    flipped(folder / "resume" / "stage1")
    shutil.rmtree(checkpoint_folder(folder, "generalised@2"))
    began: list[object] = []
    train = RunExecution._train

    def noted(self, loaded, begin, stage, words, sequences, kept, start):
        began.append((stage, start.epoch if start else None, sorted(kept)))
        train(self, loaded, begin, stage, words, sequences, kept, start)

    monkeypatch.setattr(RunExecution, "_train", noted)
    retry_run(lab.db, run.id)
    assert carry_out(lab, run.id).state is State.DONE
    assert began == [("stage1", 2, [4, 6]), ("stage2@2", None, [1])]
    assert lab.outcome(run.id) == expected
    assert {p.name for p in (folder / "damaged").iterdir()} == {"memorised@4", "memorised@6", "stage1"}


def test_a_done_run_says_what_it_trained_in_and_keeps_no_point_to_go_on_from(
    sound: tuple[Lab, Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    lab, run = sound
    folder = run_folder(lab.home, run.id)
    assert run.environment["training_in"] == "float32"
    assert not list(folder.glob("resume/*"))
    assert (saving.seconds_between_points(0.2), saving.seconds_between_points(10)) == (30, 10 / 0.03)
    monkeypatch.setattr(saving, "RESUME_EVERY_SECONDS", 0)
    monkeypatch.setattr("engine.training.loop.LARGE_STATE", 0)
    written = []
    keep = Trainer.save

    def noted(trainer: Trainer, place: Path, *, kept: bool = False) -> bool:
        written.append(place.parent.name)
        return keep(trainer, place, kept=kept)

    monkeypatch.setattr(Trainer, "save", noted)
    monkeypatch.setattr(pipeline, "choose_training", lambda *_: "mixed")  # a later attempt does not choose again
    for checkpoint in (folder / "checkpoints").iterdir():
        shutil.rmtree(checkpoint)
    retry_run(lab.db, run.id)
    done = carry_out(lab, run.id)
    assert (done.state, done.environment["training_in"]) == (State.DONE, "float32")
    assert "resume" in written and not list(folder.glob("resume/*"))
    assert not list(folder.glob("checkpoints/*/training/optimizer.safetensors"))


@pytest.mark.parametrize("accelerator", [False, True], ids=["processor", "as on an accelerator"])
@pytest.mark.parametrize("tuning", ["full", "lora"])
def test_stage_2_from_what_is_in_memory_is_that_from_what_was_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tuning: str, accelerator: bool
) -> None:
    # This processor computes what an accelerator with bfloat16 would.
    monkeypatch.setattr("engine.models.device._accelerates_bfloat16", lambda _: accelerator)
    with closing(Lab(tmp_path)) as lab:
        one = [*KEPT, "stage1.checkpoint_epochs=[6]", "stage2.branch_epochs=[6]", f"tuning.method={tuning}"]
        run = carry_out(lab, lab.queue([*one, "stage1.embeddings=key tokens", "stage2.embeddings=key tokens"]).id)
        generalised = checkpoint_folder(run_folder(lab.home, run.id), "generalised@6")
        expected = lab.outcome(run.id)
        trained = {path.name: path.read_bytes() for path in generalised.glob("*.safetensors")}
        assert run.environment["training_in"] == ("mixed" if accelerator else "float32")
        if tuning == "full":
            kinds = {tensor.dtype for tensor in load_file(generalised / "model.safetensors").values()}
            assert kinds == {torch.bfloat16 if accelerator else torch.float32}
        shutil.rmtree(generalised)
        retry_run(lab.db, run.id)
        assert carry_out(lab, run.id).state is State.DONE
        assert lab.outcome(run.id) == expected
        assert trained == {path.name: path.read_bytes() for path in generalised.glob("*.safetensors")}


def test_damaged_answers_are_asked_again(sound: tuple[Lab, Run]) -> None:
    lab, run = sound
    expected, answers = lab.outcome(run.id), run_folder(lab.home, run.id) / "answers.db"
    with closing(open_answers(answers.parent)) as db:
        db.conn.execute("pragma wal_checkpoint(truncate)")
    whole = answers.read_bytes()
    for content in (b"no database" * 1000, whole[: 3 * 4096]):
        answers.unlink()  # another file: this process may have the old one open
        answers.write_bytes(content)
        for rest in ("-wal", "-shm"):  # SQLite would mend it with these
            answers.with_name(answers.name + rest).unlink(missing_ok=True)
        retry_run(lab.db, run.id)
        assert carry_out(lab, run.id).state is State.DONE
        assert lab.outcome(run.id) == expected
    assert {p.name for p in (answers.parent / "damaged").iterdir()} == {"answers.db", "answers.db-2"}


def test_a_checkpoint_of_before_there_were_checksums(sound: tuple[Lab, Run]) -> None:
    lab, run = sound
    expected, folder = lab.outcome(run.id), run_folder(lab.home, run.id)
    for name in NAMES:
        kept = checkpoint_folder(folder, name)
        (kept / CHECKSUMS).unlink()
        parts, path = CheckpointName.parse(name), kept / "training" / "state.json"
        sizes = {p.relative_to(kept).as_posix(): p.stat().st_size for p in kept.rglob("*") if p.is_file() and p != path}
        stage, epoch = ("stage1", parts.epoch) if parts.kind == "memorised" else ("stage2@2", 1)
        step = {2: 6, 4: 12, 6: 18, 1: 1}[epoch]
        text = f'{{"format": 1, "stage": "{stage}", "epoch": {epoch}, "step": {step}, "files": {sizes}}}'
        path.write_text(text.replace("'", '"'))
    retry_run(lab.db, run.id)
    assert carry_out(lab, run.id).state is State.DONE, "they are good"
    assert not (folder / "damaged").exists()
    weights = checkpoint_folder(folder, "memorised@4") / "model.safetensors"
    weights.write_bytes(b"\xff" * weights.stat().st_size)
    shutil.rmtree(checkpoint_folder(folder, "memorised@6"))
    retry_run(lab.db, run.id)
    failed = carry_out(lab, run.id)
    assert failed.state is State.FAILED and (failed.error or "").endswith("retry trains it again.")
    retry_run(lab.db, run.id)
    ended = carry_out(lab, run.id)
    assert ended.state is State.DONE and lab.outcome(run.id) == expected, ended.error


def test_whoever_asks_a_damaged_one_is_told_what_to_do(
    sound: tuple[Lab, Run], capsys: pytest.CaptureFixture[str]
) -> None:
    lab, run = sound
    model = served_model(lab.home, run, "memorised@4")
    flipped(model.folder)
    sentence = f"the checkpoint memorised@4 of run {run.id} is damaged .*`rote-lab retry {run.id}`"
    with pytest.raises(ModelError, match=sentence), Residents(Catalogue(lab.home)).holding(model.name):
        pass
    supervisor = Supervisor(lab.home, "embedded")
    with pytest.raises(ServingError, match=sentence):
        supervisor.place_now(model)
    assert supervisor.servers() == []
    assert main(["retry", run.id, "--home", str(lab.home)]) == 0
    assert "queued" in capsys.readouterr().out
    assert carry_out(lab, run.id).state is State.DONE
    assert not damage(model.folder)
