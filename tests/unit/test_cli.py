"""The command line: one line for a mistake, exit code 2, and nothing left behind."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from sqlite_utils import Database

from app.command_line import main
from app.shared.render import ENVIRONMENT
from engine import __version__
from engine.commands.attack import _command
from engine.commands.program import program
from engine.commands.run import read_experiment
from storage.attacks import list_cells
from storage.database import open_database
from storage.grids import ATTACK, STUDY, Kind, grid_counts, stop_grid
from storage.runs import Run, State, count_runs, get_run
from storage.workers import list_workers


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["run", "nobody"], "neither a preset nor a file"),
        (["run", "quick", "--sed", "3"], "No such option"),
        (["frobnicate"], "No such command"),
        (["run", "quick", "--set", "stage1.epoch=3"], "check the spelling"),
        (["run", "quick", "--set", "stage2.facts=100"], "at most 99"),
        (["run", "quick", "--seed", "-4"], "seed"),
        (["run", "quick", "--results", "/no/such/folder/r.json"], "does not exist"),
        (["run", "quick", "--set", "model=/no/such/folder"], "there is no folder"),
        (["queue", "quick", "--set", "model=/etc"], "holds no config.json"),
        (["queue", "quick", "--set", f"model={'中' * 90}"], "neither a Hugging Face name"),
        (["attack", "attack", "--set", "experiment.model=/no/such"], "there is no folder"),
        (["queue", "a" + "\u0301" * 400], "neither a preset nor a file"),
        (["cancel", "nosuchrun"], "there is no run"),
        (["results", "../../etc/passwd"], "there is no run"),
        (["export", "task", "nosuchrun", "--to", "x"], "there is no run"),
        (["export", "model", "nosuchrun", "--to", "x"], "there is no run"),
        (["export", "dataset", "nobody", "--to", "x"], "neither a preset nor a file"),
        (["export", "dataset", "quick", "--to", "/no/such/folder"], "does not exist"),
        (["export", "dataset", "quick", "--to", "/etc"], "new or empty"),
        (["export", "study", "nosuchstudy", "--to", "x.csv"], "there is no study"),
        (["export", "study", "nosuchstudy", "--to", "x.doc"], "give the file one of these endings"),
        (["import", "/no/such/file.csv"], "cannot be read"),
        (["serve", "nosuchrun"], "there is no run"),
        (["serve", "nosuchrun", "--port", "70000"], "--port"),
        (["serve", "nosuchrun", "--backend", "gpu"], "--backend"),
        (["ask", "nosuchrun", "--subject", "x"], "there is no run"),
        (["ask", "nosuchrun", "--subject", "x", "--temperature", "-1"], "--temperature"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(
    arguments: list[str],
    words: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("ROTE_LAB_HOME", str(tmp_path / "home"))
    assert main(arguments) == 2
    printed = capsys.readouterr()
    assert words in printed.err and len(printed.err.strip().splitlines()) == 1
    assert printed.out == ""


def test_a_file_of_ones_own_is_queued(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["show", "quick", "--seed", "9"]) == 0
    shown = capsys.readouterr().out
    file = tmp_path / "mine.yaml"
    file.write_text(shown, encoding="utf-8")
    assert main(["queue", str(file), "--home", str(tmp_path / "home")]) == 0
    assert count_runs(open_database(tmp_path / "home")) == 1
    assert main(["runs", "--home", str(tmp_path / "home")]) == 0
    assert "queued" in capsys.readouterr().out


def test_files_that_cannot_be_read_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, content in {"binary.yaml": b"\xff\xfe\x00\x01", "list.yaml": b"- 1\n- 2\n", "empty.yaml": b""}.items():
        (tmp_path / name).write_bytes(content)
        assert main(["queue", str(tmp_path / name), "--home", str(tmp_path / "home")]) == 2
        assert name in capsys.readouterr().err


def test_a_home_that_is_a_file_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "home").write_text("not a folder")
    assert main(["runs", "--home", str(tmp_path / "home")]) == 2
    assert "cannot be used as the lab's home" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("command", "words"), [("run quick", "the Runs page can retry it"), ("attack story", "go on with: ")]
)
def test_what_a_person_stops_is_cancelled_and_leaves_no_worker(
    command: str, words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    carried: list[Run] = []

    def stopped(db: Database, home: Path, run: Run) -> State:
        carried.append(run)
        raise KeyboardInterrupt

    monkeypatch.setattr("engine.execution.execute.execute_run", stopped)
    assert main([*command.split(), "--home", str(tmp_path)]) == 2
    assert f"stopped; {words}" in capsys.readouterr().err
    db = open_database(tmp_path)
    assert [get_run(db, run.id).state for run in carried] == [State.CANCELLED] and not list_workers(db)


@pytest.mark.parametrize(
    ("started", "called"), [("/usr/bin/rote-lab", "rote-lab"), ("engine/__main__.py", "python -m engine")]
)
def test_an_error_names_the_command_that_was_used(
    started: str, called: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.argv", [started])
    monkeypatch.setattr(
        sys.modules["__main__"], "__package__", "engine" if "engine" in started else None, raising=False
    )
    assert main(["run", "quick", "--sed", "3"]) == 2
    assert f"(see {called} run --help)" in capsys.readouterr().err
    assert program() == called
    assert (
        ENVIRONMENT.from_string('{{ "python -m engine attack story" | as_called }}').render()
        == f"{called} attack story"
    )


def test_the_script_has_every_command_of_the_module_and_the_page(capsys: pytest.CaptureFixture[str]) -> None:
    from app import command_line

    assert command_line.main([]) == 0
    shown = capsys.readouterr().out
    assert {"page", "run", "worker", "serve", "ask", "attack", "readings"} <= {
        line.split()[0] for line in shown.splitlines() if line.strip()
    }
    assert command_line.main(["page", "--port", "0"]) == 2
    assert "'--port'" in capsys.readouterr().err
    assert command_line.main(["--version"]) == 0
    assert capsys.readouterr().out == f"rote-lab {__version__}\n"


def test_an_attack_is_widened_by_its_id(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    home = ["--home", str(tmp_path), "--queue"]
    assert main(["attack", "story", "--set", "facts=[0, 5]", *home]) == 0
    attack = capsys.readouterr().out.strip()
    db = open_database(tmp_path)
    planned = len(list_cells(db, attack))
    assert main(["attack", attack, "--set", "facts=[0, 5, 10]", "--set", "defences=[replay]", *home]) == 0
    told = capsys.readouterr()
    added = len(list_cells(db, attack)) - planned
    assert told.out.strip() == attack and f"{added} cells are new" in told.err and added > 0
    assert main(["attack", attack, "--set", "batch_size=9", *home]) == 2
    assert "batch_size: only the grid can be made wider" in capsys.readouterr().err
    assert main(["attack", attack, "--set", "facts=[0]", *home]) == 2
    assert "would no longer be part of it" in capsys.readouterr().err
    assert (
        _command(db, attack, attack, None)
        == "python -m engine attack story --set 'facts=[0, 5, 10]' --set 'defences=[\"replay\"]'"
    )
    assert _command(db, attack, "mine.yaml", ["seeds=[3]"]) == "python -m engine attack mine.yaml --set 'seeds=[3]'"


@pytest.mark.parametrize(("described", "kind"), [("study paper-main", STUDY), ("attack story", ATTACK)])
def test_what_was_stopped_goes_on_by_its_id(
    described: str, kind: Kind, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    home = ["--home", str(tmp_path), "--queue"]
    assert main([*described.split(), *home]) == 0
    grid = capsys.readouterr().out.strip()
    db = open_database(tmp_path)
    stop_grid(db, kind, grid)
    planned = grid_counts(db, kind, grid)
    assert planned.keys() == {"cancelled"}
    if kind is STUDY:
        assert main(["study", grid, "--plan", *home]) == 0
        assert grid_counts(db, kind, grid) == planned, "it only tells"
    capsys.readouterr()
    assert main([kind.name, grid, *home]) == 0
    assert f"{planned['cancelled']} {'runs' if kind is STUDY else 'cells'} that were stopped" in capsys.readouterr().err
    assert grid_counts(db, kind, grid) == {"queued": planned["cancelled"]}
    assert main([kind.name, grid, *home]) == 0
    assert "queued again" not in capsys.readouterr().err


def test_a_models_folder_is_found_from_wherever_a_worker_looks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine").mkdir()
    (tmp_path / "embedded").mkdir()
    assert read_experiment("quick", ["model=./mine"], None).model == str(tmp_path / "mine")
    assert read_experiment("quick", [], None).model == "embedded"
    assert read_experiment("quick", ["model=owner/name"], None).model == "owner/name"
    for odd in ("~nobody-of-that-name/x", "/" + "x" * 300):
        assert read_experiment("quick", [f"model={odd}"], None).model == odd
