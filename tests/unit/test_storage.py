"""The shared database: states, leases, several processes at once, migrations."""

from __future__ import annotations

import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from engine.evaluation.answer import Answer
from engine.evaluation.hits import key_token_judge
from storage import answers, drafts, measurements, runs, workers
from storage.answer_search import Wanted, find_answers
from storage.database import DATABASE_NAME, open_database, write
from storage.deletion import delete_run
from storage.migrations import migrations
from storage.processes import ProcessName
from storage.runs import LostRunError, State


@pytest.fixture
def db(tmp_path: Path):
    database = open_database(tmp_path)
    yield database
    database.close()


def add(db, name: str = "a run") -> runs.Run:
    return runs.add_run(db, name=name, experiment={"name": name}, model="embedded", seed=3)


def claim(db, worker: str, seconds: float) -> runs.Run:
    claimed = runs.claim_run(db, worker, seconds)
    assert claimed is not None
    return claimed


def test_migrations_make_the_expected_tables(db) -> None:
    columns = {t: list(db.table(t).columns_dict) for t in db.table_names() if not t.startswith("_sqlite")}
    asked = {"askings", "asking_questions", "asking_columns", "asking_answers", "asking_alternatives"}
    served = {"servers", "devices"}
    assert set(columns) >= {"runs", "events", "measurements", "results", "drafts", "workers"} | asked | served
    assert columns["results"][:6] == ["run", "checkpoint", "facts", "split", "language", "metric"]
    assert columns["study_figures"][-2:] == ["seeds", "chance"]
    assert not migrations.pending(db)


def test_opening_again_keeps_everything(tmp_path: Path) -> None:
    first = open_database(tmp_path)
    run = add(first)
    first.close()
    assert runs.get_run(open_database(tmp_path), run.id) == run


def test_a_file_that_is_no_database_is_refused(tmp_path: Path) -> None:
    (tmp_path / DATABASE_NAME).write_bytes(b"this is not a database, and never was" * 100)
    with pytest.raises(Exception, match="not a database"):
        open_database(tmp_path)


def test_claim_takes_the_oldest_and_only_once(db) -> None:
    first, second = add(db, "first"), add(db, "second")
    assert claim(db, "w1", 60).id == first.id
    assert claim(db, "w2", 60).id == second.id
    assert runs.claim_run(db, "w3", 60) is None


def test_a_lapsed_lease_can_be_claimed_and_shuts_the_old_worker_out(db) -> None:
    run = add(db)
    old = claim(db, "w1", -1)
    new = claim(db, "w2", 60)
    assert (new.id, new.attempt) == (run.id, old.attempt + 1)
    for write_something in (
        lambda: runs.set_progress(db, run.id, old.attempt, {}),
        lambda: runs.renew_lease(db, run.id, old.attempt, 60),
        lambda: runs.finish_run(db, run.id, old.attempt, State.DONE),
    ):
        with pytest.raises(LostRunError):
            write_something()
    assert runs.get_run(db, run.id).state is State.RUNNING


def test_stop_reaches_the_worker_through_the_row(db) -> None:
    run = add(db)
    claimed = claim(db, "w", 60)
    assert runs.request_stop(db, run.id) is State.STOPPING
    assert runs.set_progress(db, run.id, claimed.attempt, {"step": 1}) is State.STOPPING
    runs.finish_run(db, run.id, claimed.attempt, State.CANCELLED)
    assert runs.retry_run(db, run.id) is State.QUEUED
    assert runs.get_run(db, run.id).progress == {"step": 1}


def test_a_queued_run_is_cancelled_at_once_and_an_ended_one_stays(db) -> None:
    run = add(db)
    assert runs.request_stop(db, run.id) is State.CANCELLED
    assert runs.request_stop(db, run.id) is State.CANCELLED
    assert runs.claim_run(db, "w", 60) is None


def test_deleting_takes_everything_along_but_not_while_it_runs(db) -> None:
    run = add(db)
    claimed = claim(db, "w", 60)
    with pytest.raises(ValueError, match="cancel it first"):
        delete_run(db, run.id)
    measurements.add_measurements(
        db, run.id, [{"stage": "stage1", "series": "loss", "step": 1, "epoch": 1, "value": 2}]
    )
    runs.finish_run(db, run.id, claimed.attempt, State.FAILED, error="A sentence.")
    delete_run(db, run.id)
    assert db.table("events").count == db.table("measurements").count == 0
    with pytest.raises(KeyError):
        runs.get_run(db, run.id)


def test_search_treats_wildcards_as_text(db) -> None:
    add(db, "100% sure"), add(db, "another")
    assert [r.name for r in runs.list_runs(db, search="%")] == ["100% sure"]
    assert runs.count_runs(db, search="_") == 0
    assert runs.count_runs(db, state="queued") == 2


def test_long_series_are_thinned_but_keep_their_ends_in_order(db) -> None:
    run = add(db)
    points = [{"stage": "stage1", "series": "loss", "step": i, "epoch": i / 10, "value": 1 / i} for i in range(1, 5001)]
    measurements.add_measurements(db, run.id, points)
    listed = measurements.list_measurements(db, run.id, "loss", limit=500)
    assert 400 <= len(listed) <= 500
    assert [p["step"] for p in listed] == sorted(p["step"] for p in listed)


def test_results_come_back_base_first_then_by_epoch(db) -> None:
    run = add(db)
    row: dict[str, Any] = {"facts": "held_out", "split": "train", "language": "en", "metric": "generation_accuracy"}
    row |= {"value": 0.5, "low": 0.4, "high": 0.6, "n": 10, "n_facts": 10}
    for checkpoint in ("generalised@3", "memorised@20", "base", "memorised@3"):
        measurements.replace_results(db, run.id, checkpoint, [{**row, "checkpoint": checkpoint}])
    order = [r.checkpoint for r in measurements.list_results(db, run.id)]
    assert order == ["base", "memorised@3", "memorised@20", "generalised@3"]


def test_drafts_keep_whatever_was_typed(db) -> None:
    body = {"facts": "<script>\u202e=1+1\U0001f600", "epochs": "not a number"}
    drafts.save_draft(db, "mine", body)
    assert drafts.load_draft(db, "mine") == body
    assert drafts.load_draft(db, "another") is None


def test_workers_are_known_by_their_last_beat(db) -> None:
    workers.beat(db, worker="w", process=ProcessName("h", 1, 2.0), run=None)
    assert workers.list_workers(db)[0].heartbeat == pytest.approx(time.time(), abs=5)
    workers.remove_worker(db, "w")
    assert workers.list_workers(db) == []


def test_a_failed_transaction_leaves_nothing(db) -> None:
    with pytest.raises(RuntimeError), write(db):
        add(db)
        raise RuntimeError("in the middle")
    assert runs.count_runs(db) == 0


CLAIMER = """
import sys
from pathlib import Path
from storage.database import open_database
from storage.processes import ProcessName
from storage.runs import State, claim_run, finish_run
db = open_database(Path(sys.argv[1]))
while run := claim_run(db, sys.argv[2], 60):
    print(run.id, flush=True)
    finish_run(db, run.id, run.attempt, State.DONE)
"""


def test_four_processes_share_a_queue_without_losing_or_doubling_a_run(tmp_path: Path) -> None:
    database = open_database(tmp_path)
    expected = {add(database, str(i)).id for i in range(120)}
    command = [sys.executable, "-c", CLAIMER, str(tmp_path)]
    root = Path(__file__).resolve().parents[2]
    processes = [
        subprocess.Popen([*command, f"w{i}"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=root)
        for i in range(4)
    ]
    outputs = [process.communicate(timeout=120) for process in processes]
    assert [err for _, err in outputs if err] == []
    taken = Counter(line for out, _ in outputs for line in out.split())
    assert set(taken) == expected and set(taken.values()) == {1}


def test_answers_are_all_there_or_none(tmp_path: Path) -> None:
    store = answers.open_answers(tmp_path)
    fact = {"id": 0, "relation": "mother", "subject": "Sel Tarro", "object": "Brin Vosk", "trained": 0}
    prompt = {"id": 0, "relation": "mother", "split": "train", "language": "en", "text": "Who is {subject}'s mother?"}
    answers.store_questions(store, [fact], [{**prompt, "about": None, "used": 1}])
    good = Answer(0, 0, "Brin Vosk.", True, -0.1, 2, 100, -0.2)

    def broken():
        yield good
        raise RuntimeError("killed")

    with pytest.raises(RuntimeError):
        answers.store_answers(store, "base", broken())
    assert answers.evaluated_checkpoints(store) == [] and answers.all_answers(store, "base") == []
    answers.store_answers(store, "base", [good])
    assert [Answer(**row) for row in answers.all_answers(store, "base")] == [good]
    (found,), total = find_answers(store, Wanted(search="VOSK"), 10)
    assert (total, found.choice_rank, found.before) == (1, 2, "Who is ")
    assert find_answers(store, Wanted(search="'; drop table answers; --"), 10) == ([], 0)
    assert find_answers(store, Wanted(hit=False), 10) == ([], 0)
    assert [find_answers(store, Wanted(relation=name), 10)[1] for name in ("mother", "father")] == [1, 0]


def test_answers_are_found_by_the_key_token_that_they_say_whatever_their_age(tmp_path: Path) -> None:
    store = answers.open_answers(tmp_path)
    fact = {"id": 0, "relation": "mother", "subject": "Sel Tarro", "object": "Brin Vosk", "trained": 0}
    prompt = {"relation": "mother", "split": "train", "language": "en", "text": "{subject}?", "about": None, "used": 1}
    answers.store_questions(store, [fact], [{**prompt, "id": n} for n in range(3)])
    texts = ("[X] Brin Vosk", "Brin Vosk [X]", "[X] Ann Oth")
    answers.store_answers(store, "base", [Answer(n, 0, t, "Brin" in t, -0.1) for n, t in enumerate(texts)])
    assert [a.says_key_token for a in find_answers(store, Wanted(), 10)[0]] == [0, 0, 0], "nobody said how to tell"
    store.close()
    store = answers.open_answers(tmp_path, key_token_judge(["[X]"]))
    assert [a.says_key_token for a in find_answers(store, Wanted(), 10)[0]] == [1, 0, 1]
    found, total = find_answers(store, Wanted(says_key_token=True, hit=True), 10)
    assert total == 1 and found[0].answer == "[X] Brin Vosk"
    store.close()
