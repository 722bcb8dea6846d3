"""A database that is damaged, of a newer lab, of another program, in use, on a full disk: one sentence everywhere."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import gradio as gr
import pytest
import typer
from fastapi import FastAPI
from fastapi.testclient import TestClient

from app.__main__ import main as start_page
from app.server.trouble import say_troubles
from engine.commands.main import main
from engine.execution.failures import explain_failure
from storage import database
from storage.answers import open_answers
from storage.database import DATABASE_NAME, check_whole, open_database
from storage.runs import add_run
from storage.trouble import UnusableDatabase, say_trouble
from tests.loops import run_apart


@pytest.fixture(scope="module")
def used(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home with a database of some pages and the folder of a run."""
    home = tmp_path_factory.mktemp("used")
    with closing(open_database(home)) as db:
        for number in range(40):
            add_run(db, name=f"run {number}", experiment={"text": "x" * 2000}, model="embedded", seed=1)
    (home / "runs" / "abc").mkdir(parents=True)
    return home


@pytest.fixture
def home(used: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(used, tmp_path / "home"))


def garbage(path: Path) -> None:
    path.write_bytes(b"this was a database, and is none any more" * 1000)


def halved(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def cut_in_its_head(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:50])


def emptied(path: Path) -> None:
    path.write_bytes(b"")


def a_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def a_page_overwritten(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[4096 : 2 * 4096] = b"\xa5" * 4096
    path.write_bytes(content)


def of_another_program(path: Path) -> None:
    path.unlink()
    with closing(sqlite3.connect(path)) as other:
        other.execute("create table recipes (name text)")
        other.commit()


def of_a_newer_lab(path: Path) -> None:
    with closing(sqlite3.connect(path)) as db:
        db.execute("insert into _sqlite_migrations (migration_set, name, applied_at) values ('lab', 'm099_next', '')")
        db.commit()


DAMAGES = [garbage, halved, cut_in_its_head, emptied, a_folder, a_page_overwritten, of_another_program, of_a_newer_lab]


@pytest.mark.parametrize("damage", DAMAGES)
def test_it_is_one_sentence_that_names_the_file_and_changes_nothing(
    home: Path, damage: Callable[[Path], None], capsys: pytest.CaptureFixture[str]
) -> None:
    path = home / DATABASE_NAME
    damage(path)
    before = path.read_bytes() if path.is_file() else b""
    with pytest.raises(UnusableDatabase) as refused:
        check_whole(home)
    said = str(refused.value)
    assert str(path) in said and len(said.splitlines()) == 1 and len(said) < 200 + len(str(path))
    assert ("newer version" in said) is (damage is of_a_newer_lab)
    with pytest.raises(typer.Exit) as ended:
        start_page(port=None, home=home, worker=False)
    page = capsys.readouterr().err
    assert ended.value.exit_code == 2 and len(page.splitlines()) == 1 and str(path) in page
    for command in (["runs"], ["queue", "quick"], ["worker", "--once"], ["cancel", "abc"]):
        code, error = main([*command, "--home", str(home)]), capsys.readouterr().err
        assert (code == 2 and len(error.splitlines()) == 1 and "database" in error) or "newer" in error, error
    assert (path.read_bytes() if path.is_file() else b"") == before, "it was written to"


def test_an_empty_file_without_runs_is_a_beginning(tmp_path: Path) -> None:
    (tmp_path / DATABASE_NAME).touch()
    check_whole(tmp_path)


def test_answers_of_a_newer_lab_are_refused_as_well(tmp_path: Path) -> None:
    with closing(open_answers(tmp_path)) as db, database.write(db):
        sql = "insert into _sqlite_migrations (migration_set, name, applied_at) values ('answers', 'm099_next', '')"
        db.conn.execute(sql)
    with pytest.raises(UnusableDatabase, match="newer version of the lab"):
        open_answers(tmp_path)


@pytest.mark.parametrize("command", [["queue", "quick"], ["cancel", "RUN"], ["retry", "RUN"], ["run", "quick"]])
def test_a_lock_that_another_program_holds(
    home: Path, command: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(database, "BUSY_SECONDS", 0.1)
    with closing(open_database(home)) as db:
        run = db.conn.execute("select id from runs").fetchone()[0]
    with closing(sqlite3.connect(home / DATABASE_NAME)) as holder:
        holder.execute("begin immediate")
        words = [run if word == "RUN" else word for word in command]
        assert main([*words, "--home", str(home)]) == 2
    error = capsys.readouterr().err
    assert len(error.splitlines()) == 1 and "held by another program" in error, error


@pytest.mark.parametrize("command", [["queue", "quick"], ["run", "quick"]])
def test_a_disk_that_is_full_before_a_run(
    home: Path, command: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    connect = database.connect

    def on_a_full_disk(path: Path):
        db = connect(path)
        db.conn.execute("pragma max_page_count = 1")  # no page more than there are
        return db

    monkeypatch.setattr(database, "connect", on_a_full_disk)
    assert main([*command, "--home", str(home)]) == 2
    error = capsys.readouterr().err
    assert len(error.splitlines()) == 1 and "the disk is full: free some space" in error, error


def readonly(home: Path) -> sqlite3.Error:
    with closing(sqlite3.connect(f"file:{home / DATABASE_NAME}?mode=ro", uri=True)) as db:
        try:
            db.execute("delete from runs")
        except sqlite3.Error as error:
            return error
    raise AssertionError


def test_a_file_that_may_not_be_written_is_named_so_also_in_a_run(home: Path) -> None:
    error = readonly(home)
    assert "mend the permissions" in say_trouble(error, home / DATABASE_NAME)
    assert explain_failure(error).startswith("The lab's database cannot be opened for writing")


def test_the_page_says_it_when_it_is_met_while_the_page_is_open(home: Path) -> None:
    error = readonly(home)

    def fail() -> None:
        raise error

    async def fail_waiting() -> None:
        raise error

    def broken() -> None:
        raise OSError(5, "another matter")

    with gr.Blocks() as pages:
        gr.Button().click(fail)
        gr.Button().click(fail_waiting)
        gr.Timer().tick(fail)
        gr.Button().click(broken)
    site = FastAPI()
    site.get("/export")(fail)
    say_troubles(site, pages)
    clicked, waited, ticked, other = (function.fn for function in pages.fns.values())
    for act, visible in ((clicked, True), (ticked, False)):
        with pytest.raises(gr.Error, match=r"The lab's database cannot be opened .* then retry\.") as said:
            act()
        assert said.value.visible is visible
    with pytest.raises(gr.Error, match="The lab's database"):
        run_apart(waited())
    with pytest.raises(OSError, match="another matter"):
        other()
    answer = TestClient(site).get("/export")
    assert answer.status_code == 503 and answer.text.startswith("The lab's database cannot be opened")
