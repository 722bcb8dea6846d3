"""One file of many: nothing in it is longer than it says; what goes or changes meanwhile takes nothing else away."""

from __future__ import annotations

import os
import shutil
import sqlite3
import tarfile
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from io import BytesIO
from pathlib import Path

import pytest
from filelock import FileLock

from engine.backup import backup
from engine.backup.archive import HEAD, SUMS, new_archive, read_archive
from engine.backup.backup import back_up, restore
from engine.backup.disk import let_go
from engine.commands.main import main
from engine.exports.target import new_folder
from engine.models.folders import replaced
from storage.answers import open_answers
from storage.copies import copy_database
from storage.database import open_database
from storage.folders import checkpoint_folder, recordings_lock, run_folder
from storage.runs import add_run, request_stop


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A lab with a run that has answers, a checkpoint and a log, an installed model and a start of an attack."""
    home = tmp_path / "home"
    with closing(open_database(home)) as db:
        run = add_run(db, name="one", experiment={}, model="embedded", seed=1).id
    folder = run_folder(home, run)
    open_answers(folder).close()
    (folder / "log.txt").write_text("its log")
    for place in (checkpoint_folder(folder, "memorised@3"), home / "models/gemma", home / "attacks/abcd/tar-1"):
        with replaced(place) as new:
            (new / "a.json").write_text("{}")
            (new / "model.safetensors").write_bytes(b"weights")
    return home


def names(path: Path) -> set[str]:
    with tarfile.open(path) as archive:
        return {"/".join(name.split("/")[2:]) if name.startswith("runs/") else name for name in archive.getnames()}


ALL = {
    "answers.db", "log.txt", *(
        f"{place}/{name}" for place in ("checkpoints/memorised@3", "models/gemma", "attacks/abcd/tar-1")
        for name in ("a.json", "model.safetensors", "checksums.json")
    )
}  # fmt: skip


def test_what_was_moved_aside_is_in_it_and_what_is_half_written_is_not(home: Path, tmp_path: Path) -> None:
    (run,) = (home / "runs").iterdir()
    for place in (run / "checkpoints/memorised@3", home / "models/gemma", home / "attacks/abcd/tar-1"):
        place.rename(place.with_name(f".{place.name}.old"))
        shutil.copytree(place.with_name(f".{place.name}.old"), place.with_name(f".{place.name}.new"))
    (run / ".base_text.json.12.new").write_text("half")
    assert back_up(home, tmp_path / "lab.tar", models=True).flaws == ()
    assert names(tmp_path / "lab.tar") >= ALL
    assert not [name for name in names(tmp_path / "lab.tar") if "/." in name or name.startswith(".")]


@pytest.mark.parametrize("gone", ["answers.db", "base_text.json", "checkpoints"])
def test_what_goes_meanwhile_takes_nothing_else_of_its_run_away(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, gone: str
) -> None:
    (run,) = (home / "runs").iterdir()
    (run / "base_text.json").write_text("{}")
    listed = Path.iterdir

    def and_then_it_goes(parent: Path) -> Iterator[Path]:
        found = list(listed(parent))
        if parent == run and (run / gone).exists():
            shutil.rmtree(run / gone) if gone == "checkpoints" else (run / gone).unlink()
        return iter(found)

    monkeypatch.setattr(Path, "iterdir", and_then_it_goes)
    asked = Path.is_file
    monkeypatch.setattr(Path, "is_file", lambda path: path == run / gone != run / "checkpoints" or asked(path))
    assert back_up(home, tmp_path / "lab.tar", models=True).flaws == ()
    assert ALL - names(tmp_path / "lab.tar") == {name for name in ALL if name.startswith(gone)}


def test_a_model_that_is_removed_meanwhile_is_whole_in_it_or_not_at_all(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    added = backup.Writer._add

    def remove_after_the_first(self: backup.Writer, name: str, file: object) -> None:
        added(self, name, file)  # type: ignore[arg-type]
        if name == "models/gemma/a.json":
            shutil.rmtree(home / "models/gemma")

    monkeypatch.setattr(backup.Writer, "_add", remove_after_the_first)
    assert back_up(home, tmp_path / "lab.tar", models=True).flaws == ()
    assert names(tmp_path / "lab.tar") >= ALL


def test_a_damaged_model_and_a_damaged_start_are_told(home: Path, tmp_path: Path) -> None:
    for place in ("models/gemma", "attacks/abcd/tar-1"):
        (home / place / "model.safetensors").write_bytes(b"wEights")
    flaws = back_up(home, tmp_path / "lab.tar", models=True).flaws
    assert [flaw.split(" (")[0] for flaw in flaws] == ["attacks/abcd/tar-1 is damaged", "models/gemma is damaged"]


def test_answers_that_cannot_be_copied_for_another_reason_are_not_called_damaged(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(source: Path, target: Path) -> None:
        if source.name == "answers.db":
            raise sqlite3.OperationalError("database or disk is full")
        copy_database(source, target)

    monkeypatch.setattr(backup, "copy_database", full)
    with pytest.raises(sqlite3.OperationalError, match="disk is full"):
        back_up(home, tmp_path / "lab.tar")
    assert not (tmp_path / "lab.tar").exists()


def with_member(path: Path, member: bytes) -> Path:
    """An archive of the lab with one more member, by its raw header."""
    with tarfile.open(path, "w") as archive:
        head = tarfile.TarInfo(HEAD)
        head.size = len(text := b'{"format": 1}')
        archive.addfile(head, BytesIO(text))
    path.write_bytes(path.read_bytes()[:1024] + member + bytes(1024))
    return path


def longer_than_it_is() -> bytes:
    member = tarfile.TarInfo("model.safetensors")
    member.pax_headers = {"GNU.sparse.major": "0", "GNU.sparse.minor": "1"}
    member.pax_headers |= {"GNU.sparse.size": str(10**9), "GNU.sparse.map": "0,0"}
    return member.tobuf(tarfile.PAX_FORMAT)


def shorter_than_nothing() -> bytes:
    header = bytearray(tarfile.TarInfo("model.safetensors").tobuf(tarfile.GNU_FORMAT))
    header[124:136] = b"\xff" * 10 + b"\xfc\x00"
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header[:512])
    return bytes(header)


@pytest.mark.parametrize("member", [longer_than_it_is, shorter_than_nothing])
def test_a_file_that_lies_about_its_length_is_refused(tmp_path: Path, member: Callable[[], bytes]) -> None:
    path = with_member(tmp_path / "strange.tar", member())
    (tmp_path / "new").mkdir()
    with pytest.raises(ValueError, match=r"model.safetensors’ has no place in it"):
        read_archive(path, tmp_path / "new")
    assert sum(file.stat().st_size for file in (tmp_path / "new").iterdir()) < 1000


@pytest.mark.parametrize("member", [HEAD, SUMS])
def test_a_document_that_is_no_text_any_more_is_refused_by_the_name_of_the_file(
    home: Path, tmp_path: Path, member: str, capsys: pytest.CaptureFixture[str]
) -> None:
    back_up(home, path := tmp_path / "lab.tar")
    with tarfile.open(path) as archive:
        place = archive.getmember(member).offset_data + 4
    data = bytearray(path.read_bytes())
    data[place] ^= 0x80
    path.write_bytes(data)
    for words in (["verify", str(path)], ["restore", str(path), "--home", str(tmp_path / "new")]):
        assert main(words) == 2
        assert f"{path} is damaged, or no archive of the lab ({member}" in capsys.readouterr().err
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("newer", [True, False])
def test_a_database_that_this_version_cannot_use_is_said_of_the_archive(
    home: Path, tmp_path: Path, newer: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    with closing(open_database(home)) as db:
        (run,) = (row[0] for row in db.execute("select id from runs"))
        request_stop(db, run)
    copy_database(home / "lab.db", tmp_path / "lab.db")
    if newer:
        with closing(sqlite3.connect(tmp_path / "lab.db")) as there:
            there.execute("insert into _sqlite_migrations (migration_set, name) values ('lab', 'm999_later')")
            there.commit()
    else:
        (tmp_path / "lab.db").write_bytes(b"garbage" * 1000)
    said = "was written by a newer version of the lab" if newer else "holds a damaged database"
    for holds, words in (("backup", ["restore"]), ("bundle", ["bundle", "open"])):
        path = tmp_path / f"{holds}.tar"
        with new_archive(path, {"holds": holds, "of": run, "made_at": "", "runs": 1, "models": False}) as archive:
            archive.add("lab.db", tmp_path / "lab.db")
        assert main([*words, str(path), "--home", str(tmp_path / "new" if holds == "backup" else home)]) == 2
        assert capsys.readouterr().err.startswith(f"error: {path} {said}: ")
    assert not (tmp_path / "new").exists()


def test_a_bundle_whose_rows_refer_to_nothing_is_refused_by_its_name(
    home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copy_database(home / "lab.db", tmp_path / "lab.db")
    with closing(sqlite3.connect(tmp_path / "lab.db")) as there:
        there.execute("update runs set attack = 'abcd1234'")
        there.commit()
    path = tmp_path / "run.tar"
    with new_archive(path, {"holds": "bundle", "of": "one", "made_at": "", "runs": 1}) as archive:
        archive.add("lab.db", tmp_path / "lab.db")
    assert main(["bundle", "open", str(path), "--home", str(tmp_path / "other")]) == 2
    assert capsys.readouterr().err.startswith(f"error: {path} is no sound bundle (")
    with closing(open_database(tmp_path / "other")) as db:
        assert not db.execute("select count(*) from runs").fetchone()[0]


def test_where_files_have_one_name_each_those_of_two_are_copied(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "one").write_text("weights")
    (tmp_path / "other").hardlink_to(tmp_path / "one")
    with new_archive(tmp_path / "archive.tar", {}) as archive:
        archive.add("one", tmp_path / "one")
        archive.add("other", tmp_path / "other")

    def refuse(source: object, target: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    (tmp_path / "new").mkdir()
    read_archive(tmp_path / "archive.tar", tmp_path / "new")
    assert (tmp_path / "new/other").read_text() == "weights"


def test_what_a_killed_try_of_the_same_number_left_stops_no_other(home: Path, tmp_path: Path) -> None:
    back_up(home, tmp_path / "lab.tar")
    (tmp_path / f".new.{os.getpid()}").mkdir()  # in a container every process may have the same
    restore(tmp_path / "lab.tar", tmp_path / "new")
    assert (tmp_path / "new/lab.db").is_file()


def test_an_empty_folder_keeps_its_permissions_and_a_disk_is_refused_before_anything_is_read(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    back_up(home, tmp_path / "lab.tar")
    (tmp_path / "mine").mkdir(mode=0o700)
    restore(tmp_path / "lab.tar", tmp_path / "mine")
    assert (tmp_path / "mine").stat().st_mode & 0o777 == 0o700
    (tmp_path / "disk").mkdir()
    monkeypatch.setattr(Path, "is_mount", lambda path: path.name == "disk")
    with pytest.raises(ValueError, match="a disk of its own"), new_folder(tmp_path / "disk"):
        raise AssertionError("nothing may be written")


def test_what_may_go_is_not_deleted_while_a_recording_is_taken_in(home: Path) -> None:
    folder = run_folder(home, "abcd1234")
    open_answers(folder).close()  # its row comes behind it
    cleaning = threading.Thread(target=let_go, args=[home])
    with FileLock(recordings_lock(home)):
        cleaning.start()
        cleaning.join(0.5)
        assert (folder / "answers.db").is_file()
    cleaning.join()
    assert not folder.exists(), "nobody took it in"


@pytest.mark.parametrize("words", [["backup", "lab.tar"], ["verify"], ["bundle", "make", "a", "a.tar"], ["disk"]])
def test_of_a_wrong_name_no_lab_is_made(
    tmp_path: Path, words: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main([*words, "--home", "typo"]) == 2
    assert capsys.readouterr().err == "error: there is no lab in typo: name its folder with --home\n"
    assert not list(tmp_path.iterdir())
