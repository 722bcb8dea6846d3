"""A lab as one file, while it trains; what is damaged is refused by name; runs that move; what may go from the disk."""

from __future__ import annotations

import shutil
import tarfile
from pathlib import Path

import pytest

from engine.backup.archive import HEAD, read_archive
from engine.backup.backup import back_up, restore
from engine.backup.bundle import make_bundle, open_bundle
from engine.backup.disk import UNKNOWN, usage
from engine.commands.main import main
from storage.database import open_database
from storage.folders import recordings_lock
from storage.runs import State, get_run, request_stop
from tests.integration.lab import SMALL, Lab, wait_until


@pytest.fixture(scope="module")
def backup(undisturbed: tuple[Lab, str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("backup") / "lab.tar"
    back_up(undisturbed[0].home, path)
    return path


def other_lab(home: Path) -> Lab:
    made = Lab(home)
    made.db.close()
    made.db = open_database(home)
    return made


def test_a_run_under_way_goes_on_in_the_restored_lab(lab: Lab, undisturbed: tuple[Lab, str], tmp_path: Path) -> None:
    run = lab.queue(SMALL)
    worker = lab.worker()
    resumes = lab.home / "runs" / run.id / "checkpoints"
    wait_until(lambda: list(resumes.glob("memorised@*")), "a checkpoint")
    written = back_up(lab.home, tmp_path / "lab.tar")
    assert lab.run(run.id).state is State.RUNNING, "the backup was taken while it ran"
    assert (written.runs, written.flaws) == (1, ())
    assert lab.wait_for_end(run.id).state is State.DONE, "it went on undisturbed"
    worker.terminate()

    restore(tmp_path / "lab.tar", tmp_path / "restored")
    restored = other_lab(tmp_path / "restored")
    assert restored.run(run.id).state is State.QUEUED
    assert not restored.db.execute("select count(*) from workers").fetchone()[0]
    assert restored.worker("--once").wait() == 0
    assert restored.outcome(run.id) == lab.outcome(run.id) == undisturbed[0].outcome(undisturbed[1])
    restored.close()


def test_what_is_restored_is_the_lab(undisturbed: tuple[Lab, str], backup: Path, tmp_path: Path) -> None:
    lab, run = undisturbed
    assert main(["restore", str(backup), "--home", str(tmp_path / "new")]) == 0
    restored = other_lab(tmp_path / "new")
    assert restored.run(run) == lab.run(run)
    assert restored.outcome(run) == lab.outcome(run)
    assert main(["verify", "--home", str(restored.home)]) == 0


def test_a_folder_with_something_in_it_is_left_alone(
    backup: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/notes.txt").write_text("mine")
    assert main(["restore", str(backup), "--home", str(tmp_path / "mine")]) == 2
    assert "is there already" in capsys.readouterr().err
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["notes.txt"]
    open_database(tmp_path / "other").close()
    assert main(["backup", str(backup), "--home", str(tmp_path / "other")]) == 2
    assert "is there already: name a new file" in capsys.readouterr().err


def flip(path: Path, place: int) -> None:
    with path.open("r+b") as file:
        file.seek(place)
        byte = file.read(1)
        file.seek(place)
        file.write(bytes([byte[0] ^ 1]))


@pytest.mark.parametrize("member", ["lab.db", "model.safetensors", "answers.db", HEAD, "checksums.json"])
def test_a_damaged_one_is_refused_by_name(
    backup: Path, tmp_path: Path, member: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "damaged.tar"
    shutil.copy(backup, path)
    with tarfile.open(path) as archive:
        found = next(one for one in reversed(archive.getmembers()) if one.isreg() and one.name.endswith(member))
    flip(path, found.offset_data + found.size // 2)
    assert main(["verify", str(path)]) == 2
    told = capsys.readouterr().err
    assert str(path) in told
    assert found.name in told or member == "checksums.json" or "damaged, or no archive" in told
    assert main(["restore", str(path), "--home", str(tmp_path / "new")]) == 2
    assert [one.name for one in tmp_path.iterdir()] == ["damaged.tar"], "nothing is left of what was tried"


@pytest.mark.parametrize("share", [0, 0.001, 0.5, 0.99])
def test_one_that_is_cut_off_is_refused(backup: Path, tmp_path: Path, share: float) -> None:
    path = tmp_path / "cut.tar"
    data = backup.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    with pytest.raises(ValueError, match=r"damaged|no archive"):
        read_archive(path)


@pytest.mark.parametrize("name", ["../outside", "/tmp/outside", "runs/../../outside", "link", "device"])
def test_nothing_is_written_outside(backup: Path, tmp_path: Path, name: str) -> None:
    path, new = tmp_path / "strange.tar", tmp_path / "a" / "new"
    with tarfile.open(backup) as archive, tarfile.open(path, "w") as strange:
        head = archive.getmember(HEAD)
        strange.addfile(head, archive.extractfile(head))
        member = tarfile.TarInfo(name)
        if name == "link":
            member.type, member.linkname = tarfile.SYMTYPE, "/etc/passwd"
        elif name == "device":
            member.type = tarfile.CHRTYPE
        strange.addfile(member)
    with pytest.raises(ValueError, match="has no place in it"):
        restore(path, new)
    assert [one.name for one in tmp_path.iterdir()] in (["strange.tar"], ["strange.tar", "a"], ["a", "strange.tar"])
    assert not any(tmp_path.glob("a/*"))


def test_a_run_moves_to_another_lab(
    undisturbed: tuple[Lab, str], lab: Lab, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first, run = undisturbed
    assert main(["bundle", "make", run, str(tmp_path / "run.tar"), "--home", str(first.home)]) == 0
    own = lab.queue(SMALL, seed=2)
    assert main(["bundle", "open", str(tmp_path / "run.tar"), "--home", str(lab.home)]) == 0
    assert "1 runs taken in; their base: embedded" in capsys.readouterr().out
    assert lab.run(run) == first.run(run)
    assert lab.outcome(run) == first.outcome(run)
    assert lab.run(own.id) == own
    kept = lab.db.execute("select kind, message from events where run = ? order by id", [run]).fetchall()
    assert kept == first.db.execute("select kind, message from events where run = ? order by id", [run]).fetchall()
    assert main(["verify", "--home", str(lab.home)]) == 0

    assert main(["bundle", "open", str(tmp_path / "run.tar"), "--home", str(lab.home)]) == 0
    assert "0 runs taken in, 1 were here already" in capsys.readouterr().out
    lab.db.execute("update runs set created_at = 'another' where id = ?", [run])
    lab.db.conn.commit()
    with pytest.raises(ValueError, match="is here already, and differs"):
        open_bundle(tmp_path / "run.tar", lab.home)
    assert sorted(path.name for path in (lab.home / "runs").iterdir()) == [run], "nothing is left of what was tried"


def test_what_is_no_bundle_is_said(undisturbed: tuple[Lab, str], lab: Lab, backup: Path, tmp_path: Path) -> None:
    queued = lab.queue(SMALL)
    with pytest.raises(ValueError, match="have not ended"):
        make_bundle(lab.home, queued.id, tmp_path / "run.tar")
    with pytest.raises(KeyError):
        make_bundle(lab.home, "nothing", tmp_path / "run.tar")
    with pytest.raises(ValueError, match="backup of a whole lab"):
        open_bundle(backup, lab.home)
    assert not (tmp_path / "run.tar").exists()
    request_stop(lab.db, queued.id)
    make_bundle(lab.home, queued.id, tmp_path / "run.tar")
    with pytest.raises(ValueError, match="is no backup, but a bundle"):
        restore(tmp_path / "run.tar", tmp_path / "new")


def test_what_may_go_goes_and_nothing_else(undisturbed: tuple[Lab, str], backup: Path, tmp_path: Path) -> None:
    _, run = undisturbed
    restore(backup, tmp_path / "lab")
    home = tmp_path / "lab"
    before = {path for path in home.rglob("*") if path.is_file()}
    for name in ("runs/gone1234/checkpoints/memorised@3", f"runs/{run}/resume/stage2", f"runs/{run}/damaged/one"):
        (home / name).mkdir(parents=True)
        (home / name / "model.safetensors").write_bytes(b"x" * 1_000_000)
    why = {part.what: part.bytes for part in usage(home).parts if part.why}
    assert sorted(why) == ["damaged checkpoints", "left behind", "points to resume from, of runs that are done"]
    assert all(1_000_000 <= size < 1_100_000 for size in why.values())
    assert main(["disk", "--clean", "--home", str(home)]) == 0
    left = {path for path in home.rglob("*") if path.is_file() and "lab.db-" not in path.name}
    assert left - {recordings_lock(home)} == {path for path in before if "lab.db-" not in path.name}
    db = open_database(home)
    assert get_run(db, run).state is State.DONE
    (home / "base_text").mkdir()
    (home / "base_text" / "key.json").write_text("[]")
    assert "what bases wrote" in {part.what for part in usage(home).parts if part.why}
    db.execute("update runs set state = 'running'")
    db.conn.commit()
    assert "what bases wrote" not in {part.what for part in usage(home).parts if part.why}, "a run may be writing there"


def test_where_the_database_was_lost_nothing_goes(backup: Path, undisturbed: tuple[Lab, str], tmp_path: Path) -> None:
    restore(backup, tmp_path / "lab")
    for path in (tmp_path / "lab").glob("lab.db*"):
        path.unlink()
    open_database(tmp_path / "lab").close()
    assert main(["disk", "--clean", "--home", str(tmp_path / "lab")]) == 0
    assert (tmp_path / "lab/runs" / undisturbed[1] / "checkpoints/memorised@6/model.safetensors").is_file()
    assert {part.what: part.why for part in usage(tmp_path / "lab").parts}[UNKNOWN] == ""


def test_damage_in_the_lab_is_found_and_told(
    backup: Path, undisturbed: tuple[Lab, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    restore(backup, tmp_path / "lab")
    (path,) = (tmp_path / "lab/runs" / undisturbed[1] / "checkpoints/memorised@6").glob("model.safetensors")
    flip(path, path.stat().st_size // 2)
    assert main(["verify", "--home", str(tmp_path / "lab")]) == 2
    assert "memorised@6 of run" in capsys.readouterr().out
    assert len(back_up(tmp_path / "lab", tmp_path / "again.tar").flaws) == 1, "a backup of it says so too"


def test_answers_that_cannot_be_read_keep_nothing_else_from_being_saved(backup: Path, tmp_path: Path) -> None:
    restore(backup, tmp_path / "lab")
    (answers,) = (tmp_path / "lab/runs").glob("*/answers.db")
    answers.write_bytes(b"not a database" * 1000)
    written = back_up(tmp_path / "lab", tmp_path / "again.tar")
    assert [flaw.split(" (")[0] for flaw in written.flaws] == [f"the answers of run {answers.parent.name} are damaged"]
    restore(tmp_path / "again.tar", tmp_path / "new")
    assert (tmp_path / "new/runs" / answers.parent.name / "answers.db").read_bytes() == answers.read_bytes()
    assert main(["verify", "--home", str(tmp_path / "new")]) == 2


def test_files_of_several_names_are_kept_once(undisturbed: tuple[Lab, str], tmp_path: Path) -> None:
    lab, run = undisturbed
    shutil.copytree(lab.home, tmp_path / "lab")
    folder = tmp_path / "lab/runs" / run / "checkpoints"
    shutil.copytree(folder / "memorised@6", folder / "memorised@5", copy_function=lambda a, b: Path(b).hardlink_to(a))
    written = back_up(tmp_path / "lab", tmp_path / "lab.tar")
    assert written.bytes < sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    restore(tmp_path / "lab.tar", tmp_path / "new")
    one, other = (tmp_path / f"new/runs/{run}/checkpoints/memorised@{n}/model.safetensors" for n in (5, 6))
    assert one.samefile(other)
    assert one.read_bytes() == (folder / "memorised@6/model.safetensors").read_bytes()
