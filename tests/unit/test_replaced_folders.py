"""What is read while another version takes its place is of one version, or of the other."""

from __future__ import annotations

import random
import resource
import shutil
import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

import pytest

from engine.backup.archive import new_archive, read_archive
from engine.execution.recorded import record as recorded
from engine.models.folders import open_whole, replaced, whole
from storage.database import open_database
from storage.runs import add_run


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write(tmp_path / "memorised@3", b"old")
    return tmp_path / "memorised@3"


def write(folder: Path, data: bytes) -> None:
    with replaced(folder) as new:
        for name in ("a", "b", "c"):
            (new / name).write_bytes(data)


def moved_aside(folder: Path) -> Path:
    """As it is while a replacement is between its two renames."""
    return folder.rename(folder.with_name(f".{folder.name}.old"))


def once(monkeypatch: pytest.MonkeyPatch, method: str, when: Path, then: Callable[[], object]) -> None:
    """Have something happen right after the first call of a method of a path."""
    asked = getattr(Path, method)
    calls: list[Path] = []

    def call(self: Path, *args: object, **more: object) -> object:
        answer = asked(self, *args, **more)
        if self == when and not calls:
            calls.append(self)
            then()
        return answer

    monkeypatch.setattr(Path, method, call)


def test_one_that_takes_its_place_between_two_looks_is_found(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    old = moved_aside(folder)
    write(folder.with_name("new"), b"new")

    def go_on() -> None:
        folder.with_name("new").rename(folder)
        shutil.rmtree(old)

    once(monkeypatch, "is_dir", folder, go_on)
    assert whole(folder) == folder


@pytest.mark.parametrize("removed", [("a",), ("checksums.json", "b"), ("a", "b", "c", "checksums.json", "")])
def test_an_older_one_that_is_being_removed_is_never_read_in_part(
    folder: Path, monkeypatch: pytest.MonkeyPatch, removed: tuple[str, ...], tmp_path: Path
) -> None:
    old = moved_aside(folder)
    write(folder.with_name("new"), b"new")

    def go_on() -> None:
        folder.with_name("new").rename(folder)
        for name in removed:
            (old / name).unlink() if name else old.rmdir()

    once(monkeypatch, "stat", old, go_on)
    with new_archive(tmp_path / "archive.tar", {}) as archive:
        assert archive.add_folder("it", folder) == ""
    (tmp_path / "read").mkdir()
    read_archive(tmp_path / "archive.tar", tmp_path / "read")
    names = ["a", "b", "c", "checksums.json"]
    assert sorted(path.name for path in (tmp_path / "read/it").iterdir()) == names
    assert (tmp_path / "read/it/a").read_bytes() == b"new"


def test_what_was_opened_is_read_on_when_it_is_replaced(folder: Path) -> None:
    with ExitStack() as opened:
        files = open_whole(folder, opened)
        write(folder, b"new")
        assert {name: file.read() for name, file in files.items() if name != "checksums.json"} == dict.fromkeys(
            "abc", b"old"
        )


def test_one_that_is_not_there_has_no_files_and_an_empty_one_is_told(folder: Path, tmp_path: Path) -> None:
    with ExitStack() as opened:
        assert open_whole(tmp_path / "nothing", opened) == {}
    (tmp_path / "empty").mkdir()
    with new_archive(tmp_path / "archive.tar", {}) as archive:
        assert "has no files" in archive.add_folder("it", tmp_path / "empty")
        assert archive.add_folder("it", tmp_path / "nothing") == ""


def test_an_older_file_stays_where_the_disk_is_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recorded, "_check", lambda home, run: None)
    monkeypatch.setattr(recorded, "_run", lambda *given: {"text": random.randbytes(10_000).hex()})
    with closing(open_database(tmp_path)) as db:
        run = add_run(db, name="one", experiment={}, model="embedded", seed=1)
        out = tmp_path / "out/recording.json.xz"
        out.parent.mkdir()
        recorded.record(db, tmp_path, [run.id], out)
        before = out.read_bytes()
        with no_file_longer_than(1000), pytest.raises(OSError, match="too large"):
            recorded.record(db, tmp_path, [run.id], out)
    assert out.read_bytes() == before
    assert list(out.parent.iterdir()) == [out]


@contextmanager
def no_file_longer_than(size: int) -> Iterator[None]:
    """What a full disk does, in another error's name."""
    kept, handler = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, kept[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, kept)
        signal.signal(signal.SIGXFSZ, handler)
