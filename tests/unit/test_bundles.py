"""What a bundle brings stands beside what is there, which nothing in it can touch."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import pytest
from sqlite_utils import Database

from engine.backup import bundle
from engine.backup.archive import HEAD, new_archive, read_archive
from engine.backup.backup import BUNDLE
from engine.backup.bundle import make_bundle, open_bundle
from storage.attacks import add_attack
from storage.copies import copy_database
from storage.database import open_database, write
from storage.folders import attack_folder, run_folder
from storage.runs import add_event, add_run, get_run, list_events, request_stop, retry_run
from storage.studies import NewRun, add_study, delete_study, list_study_runs


@pytest.fixture
def there(tmp_path: Path) -> Path:
    return tmp_path / "there"


@pytest.fixture
def here(tmp_path: Path) -> Path:
    return tmp_path / "here"


def lab(home: Path) -> closing[Database]:
    return closing(open_database(home))


def ended_run(home: Path) -> str:
    with lab(home) as db:
        run = add_run(db, name="one", experiment={}, model="embedded", seed=1).id
        request_stop(db, run)
    run_folder(home, run).mkdir(parents=True)
    (run_folder(home, run) / "log.txt").write_text("its log")
    return run


def an_attack(home: Path) -> str:
    with lab(home) as db:
        attack = add_attack(db, name="one", experiment={}, cells=[])
    start = attack_folder(home, attack) / "tar-1"
    start.mkdir(parents=True)
    (start / "model.safetensors").write_text("as it was")
    return attack


def a_study(home: Path) -> tuple[str, list[str]]:
    new = [NewRun(f"seed {seed}", {"model": "embedded", "seed": seed}, {"seed": seed}, "one", "one") for seed in (1, 2)]
    with lab(home) as db:
        study = add_study(db, name="both", plan={}, runs=new)
        runs = [run.run for run in list_study_runs(db, study)]
        for run in runs:
            request_stop(db, run)
    return study, runs


def with_head(path: Path, tmp_path: Path, head: dict[str, str]) -> Path:
    """The same archive, which says something else of itself."""
    read_archive(path, tmp_path / "read")
    (tmp_path / "read" / HEAD).unlink()
    with new_archive(tmp_path / "forged.tar", {"holds": BUNDLE} | head) as archive:
        for file in sorted(one for one in (tmp_path / "read").rglob("*") if one.is_file()):
            archive.add(file.relative_to(tmp_path / "read").as_posix(), file)
    return tmp_path / "forged.tar"


@pytest.mark.parametrize("of", ["{outside}", "../../outside", "..", "", None])
def test_a_head_that_lies_leads_nowhere(there: Path, here: Path, tmp_path: Path, of: str | None) -> None:
    outside = tmp_path / "outside"
    for folder in (outside, here / "outside", tmp_path / "read", attack_folder(here, "abcd")):
        folder.mkdir(parents=True)
    (outside / "thesis.tex").write_text("precious")
    (attack_folder(here, "abcd") / "start").write_text("precious")
    run = ended_run(there)
    make_bundle(there, run, tmp_path / "run.tar")
    head = {} if of is None else {"of": of.format(outside=outside)}
    assert open_bundle(with_head(tmp_path / "run.tar", tmp_path, head), here).new == (run,)
    assert (outside / "thesis.tex").read_text() == (attack_folder(here, "abcd") / "start").read_text() == "precious"
    assert (run_folder(here, run) / "log.txt").read_text() == "its log"


def test_what_is_here_of_an_attack_stays_when_it_is_taken_in_again(there: Path, here: Path, tmp_path: Path) -> None:
    attack = an_attack(there)
    run = ended_run(there)
    with lab(there) as db, write(db):
        db.execute("update runs set attack = ?, cell = '{}' where id = ?", [attack, run])
    make_bundle(there, attack, tmp_path / "attack.tar")
    assert open_bundle(tmp_path / "attack.tar", here).new == (run,)
    start = attack_folder(here, attack) / "tar-1/model.safetensors"
    assert start.read_text() == "as it was"
    start.write_text("as it became here")
    assert open_bundle(tmp_path / "attack.tar", here).known == (run,)
    assert start.read_text() == "as it became here"


def test_nothing_is_added_to_a_run_that_is_here(there: Path, here: Path, tmp_path: Path) -> None:
    run = ended_run(there)
    make_bundle(there, run, tmp_path / "before.tar")
    with lab(there) as db, write(db):
        db.execute("insert into measurements values (?, 'stage1', 'loss', 1, 1.0, 0.5)", [run])
    make_bundle(there, run, tmp_path / "after.tar")
    open_bundle(tmp_path / "before.tar", here)
    with lab(here) as db:
        before = list_events(db, run)
        assert open_bundle(tmp_path / "after.tar", here).known == (run,)
        assert list_events(db, run) == before
        assert not db.execute("select count(*) from measurements").fetchone()[0]


def test_a_study_takes_up_its_runs_that_are_here(there: Path, here: Path, tmp_path: Path) -> None:
    study, runs = a_study(there)
    make_bundle(there, runs[1], tmp_path / "alone.tar")
    make_bundle(there, study, tmp_path / "study.tar")
    open_bundle(tmp_path / "alone.tar", here)
    with lab(there) as theirs, lab(here) as ours:
        assert get_run(ours, runs[1]).study is None
        taken = open_bundle(tmp_path / "study.tar", here)
        assert (taken.new, taken.known) == ((runs[0],), (runs[1],))
        assert list_study_runs(ours, study) == list_study_runs(theirs, study)
        delete_study(ours, study)
        assert open_bundle(tmp_path / "study.tar", here).known == tuple(runs)
        assert list_study_runs(ours, study) == list_study_runs(theirs, study)


def test_a_bundle_holds_its_runs_as_they_were_at_one_moment(
    there: Path, here: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study, runs = a_study(there)

    def copy_late(source: Path, target: Path) -> None:
        if source.parent == there:
            with lab(there) as db:
                retry_run(db, runs[1])
        copy_database(source, target)

    monkeypatch.setattr(bundle, "copy_database", copy_late)
    with pytest.raises(ValueError, match="have not ended"):
        make_bundle(there, study, tmp_path / "study.tar")
    assert not (tmp_path / "study.tar").exists()


def test_a_run_goes_without_who_it_was_of(there: Path, here: Path, tmp_path: Path) -> None:
    run = ended_run(there)
    with lab(there) as db, write(db):
        db.execute("insert into users (id, name, password, created_at) values ('u1', 'ann', 'x', 'today')")
        db.execute("update runs set owner = 'u1', cloned_from = 'gone', needs = 'gone'")
        add_event(db, run, "note", "of ann")
    make_bundle(there, run, tmp_path / "run.tar")
    open_bundle(tmp_path / "run.tar", here)
    with lab(here) as db:
        taken = get_run(db, run)
        assert (taken.owner, taken.needs, taken.cloned_from) == (None, None, "gone")
        assert not db.execute("select count(*) from users").fetchone()[0]
