"""What each role may change, where it is changed; what the audit keeps of it; quotas; models for runners."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import gradio as gr
import pytest
from sqlite_utils import Database

from app.server.gradio_bounds import Pages
from engine.models import files
from engine.models.permitted import only, permits
from engine.models.source import ModelError, from_anywhere, local_path, resolve_source
from storage import accounts
from storage.acting import ONLY_ADMINS, ONLY_LOOK, Actor, NotAllowed, Role, acting_as
from storage.askings import Question, add_asking, get_asking
from storage.attacks import (
    add_attack,
    delete_attack,
    get_attack,
    list_cells,
    replan_attack,
    retry_attack,
    stop_attack,
)
from storage.audit import Entry, count_entries, list_entries
from storage.database import open_database, write
from storage.deletion import delete_run
from storage.drafts import DraftStore, new_draft_id
from storage.folders import run_folder
from storage.run_queue import move_first, set_priority
from storage.runs import State, add_run, get_run, request_stop, retry_run
from storage.studies import (
    KnownRun,
    NewRun,
    add_study,
    delete_study,
    get_study,
    list_study_runs,
    replan_study,
    retry_study,
    stop_study,
)

WHO = {"owner": Role.RUNNER, "other": Role.RUNNER, "viewer": Role.VIEWER, "admin": Role.ADMIN}
PLAN: dict[str, Any] = {"model": "m", "seed": 0}


@pytest.fixture
def db(tmp_path: Path) -> Iterator[Database]:
    with closing(open_database(tmp_path)) as opened:
        yield opened


@pytest.fixture
def people(db: Database) -> dict[str, Actor]:
    made = {name: accounts.add_user(db, name, "x", role).actor for name, role in WHO.items()}
    db.execute("delete from audit")
    db.conn.commit()
    return made


def run_of(db: Database) -> str:
    return add_run(db, name="one", experiment=PLAN, model="m", seed=0).id


def study_of(db: Database) -> str:
    return add_study(db, name="grid", plan={}, runs=[NewRun("cell", PLAN, {"seed": s}, f"{s}", "b") for s in (0, 1)])


def attack_of(db: Database) -> str:
    return add_attack(db, name="story", experiment={}, cells=[({"seed": 0, "kind": "attack"}, "gone", PLAN)])


def ended(db: Database, run: str) -> str:
    db.table("runs").update(run, {"state": "cancelled"})
    return run


def of_all_ended(db: Database, thing: str) -> str:
    db.execute("update runs set state = 'cancelled'")
    db.conn.commit()
    return thing


def wider(db: Database, study: str) -> int:
    there = [KnownRun(run.run, run.at) for run in list_study_runs(db, study)]
    return replan_study(db, study, {"name": "wider"}, [*there, NewRun("cell", PLAN, {"seed": 7}, "7", "b")])


def wider_attack(db: Database, attack: str) -> int:
    there = [cell.run for cell in list_cells(db, attack)]
    return replan_attack(db, attack, {"name": "wider"}, [*there, ({"seed": 7, "kind": "attack"}, "gone", PLAN)])


Make = Callable[[Database], str]
Act = Callable[[Database, str], Any]
# What can be done with what is somebody's: how it is made, what is done, how the audit calls it.
CHANGES: dict[str, tuple[Make, Act, str, str]] = {
    "cancel a run": (run_of, request_stop, "cancelled", "run"),
    "take a run up again": (lambda db: ended(db, run_of(db)), retry_run, "took up again", "run"),
    "delete a run": (run_of, delete_run, "deleted", "run"),
    "put a run first": (run_of, move_first, "put first", "run"),
    "stop a study": (study_of, stop_study, "stopped", "study"),
    "go on with a study": (lambda db: of_all_ended(db, study_of(db)), retry_study, "took up again", "study"),
    "forget a study": (study_of, delete_study, "forgot", "study"),
    "make a study wider": (study_of, lambda db, study: wider(db, study), "made wider", "study"),
    "make an attack wider": (attack_of, lambda db, attack: wider_attack(db, attack), "made wider", "attack"),
    "stop an attack": (attack_of, stop_attack, "stopped", "attack"),
    "go on with an attack": (lambda db: of_all_ended(db, attack_of(db)), retry_attack, "took up again", "attack"),
    "delete an attack": (lambda db: of_all_ended(db, attack_of(db)), delete_attack, "deleted", "attack"),
}  # fmt: skip
ADDITIONS: dict[str, tuple[Make, Callable[[Database, str], Any], str, str]] = {
    "start a run": (run_of, get_run, "started", "run"),
    "start a study": (study_of, get_study, "started", "study"),
    "start an attack": (attack_of, get_attack, "started", "attack"),
    "ask": (
        lambda db: add_asking(db, "text", "r", "run", "a text", {}, [Question("a text")]), get_asking, "asked",
        "question",
    ),
}  # fmt: skip


def all_of(db: Database) -> list[Any]:
    """Everything stored but the audit and what tells of time."""
    return [
        (table, sorted(map(str, db[table].rows))) for table in sorted(db.table_names())
        if table not in ("audit",)
    ]  # fmt: skip


@pytest.mark.parametrize("what", CHANGES)
@pytest.mark.parametrize("who", WHO)
def test_who_may_change_what_is_somebodys(db: Database, people: dict[str, Actor], what: str, who: str) -> None:
    make, act, name, kind = CHANGES[what]
    with acting_as(people["owner"]):
        thing = make(db)
    before, noted = all_of(db), count_entries(db)
    with acting_as(people[who]):
        if who in ("owner", "admin"):
            act(db, thing)
            assert all_of(db) != before
            newest = list_entries(db)[0]
            assert (newest.name, newest.act, newest.kind, newest.what) == (who, name, kind, thing)
            assert count_entries(db) == noted + 1, "one change, however much it entails"
        else:
            with pytest.raises(NotAllowed) as told:
                act(db, thing)
            words = ONLY_LOOK if who == "viewer" else f"this {kind} is somebody else’s"
            assert str(told.value).startswith(words)
            assert all_of(db) == before and count_entries(db) == noted


@pytest.mark.parametrize("what", ADDITIONS)
@pytest.mark.parametrize("who", WHO)
def test_who_may_start_and_whose_it_is(db: Database, people: dict[str, Actor], what: str, who: str) -> None:
    make, get, name, kind = ADDITIONS[what]
    before = all_of(db)
    with acting_as(people[who]):
        if who == "viewer":
            with pytest.raises(NotAllowed, match=ONLY_LOOK):
                make(db)
            assert all_of(db) == before and not count_entries(db)
            return
        thing = make(db)
    (entry,) = list_entries(db)
    assert (entry.name, entry.act, entry.kind, entry.what) == (who, name, kind, thing)
    table = {"run": "runs", "study": "studies", "attack": "attacks", "question": "askings"}[kind]
    owner = people[who].id
    assert get(db, thing) and db.table(table).get(thing)["owner"] == owner
    assert {row["owner"] for row in db["runs"].rows} <= {owner}, "its runs, too"


@pytest.mark.parametrize("what", [*CHANGES, *ADDITIONS])
def test_the_command_line_may_do_everything_and_is_not_noted(db: Database, people: dict[str, Actor], what: str) -> None:
    if what in ADDITIONS:
        ADDITIONS[what][0](db)
    else:
        with acting_as(people["owner"]):
            thing = CHANGES[what][0](db)
        db.execute("delete from audit")
        db.conn.commit()
        CHANGES[what][1](db, thing)
    assert not count_entries(db)


def test_what_is_nobodys_is_for_admins(db: Database, people: dict[str, Actor]) -> None:
    run = run_of(db)
    with acting_as(people["other"]), pytest.raises(NotAllowed, match="this run is somebody else’s"):
        request_stop(db, run)
    with acting_as(people["admin"]):
        assert request_stop(db, run) is State.CANCELLED


def test_plans_of_others_are_not_made_wider(db: Database, people: dict[str, Actor]) -> None:
    with acting_as(people["owner"]):
        study, attack = study_of(db), attack_of(db)
    with acting_as(people["other"]):
        with pytest.raises(NotAllowed, match="this study"):
            replan_study(db, study, {}, [])
        with pytest.raises(NotAllowed, match="this attack"):
            replan_attack(db, attack, {}, [])
    with acting_as(people["admin"]):
        assert replan_study(db, study, {}, [NewRun("cell", PLAN, {"seed": 7}, "7", "b")]) == 1
    assert {row["owner"] for row in db["runs"].rows} == {people["owner"].id}, "also what an admin adds to it"


def test_an_attack_that_is_taken_up_again_leaves_others_runs_alone(db: Database, people: dict[str, Actor]) -> None:
    with acting_as(people["owner"]):
        base = run_of(db)
    with acting_as(people["other"]):
        attack = add_attack(db, name="story", experiment={}, cells=[({"seed": 0, "kind": "attack"}, base, PLAN)])
    (cell,) = list_cells(db, attack)
    for who, state in (("other", State.CANCELLED), ("admin", State.QUEUED), (None, State.QUEUED)):
        of_all_ended(db, attack)
        with acting_as(people[who] if who else None):
            retry_attack(db, attack)
        assert (get_run(db, base).state, get_run(db, cell.run).state) == (state, State.QUEUED), who


def test_who_may_only_look_writes_nothing_at_all(db: Database, people: dict[str, Actor]) -> None:
    with acting_as(people["viewer"]):
        with pytest.raises(NotAllowed, match=ONLY_LOOK), write(db):
            db.execute("delete from runs")
        with pytest.raises(NotAllowed, match=ONLY_LOOK):
            run_of(db)
    with acting_as(people["owner"]), pytest.raises(NotAllowed, match=ONLY_ADMINS):
        set_priority(db, "any", 1)


def test_two_people_at_one_browser_have_each_their_draft(db: Database, people: dict[str, Actor]) -> None:
    store, draft = DraftStore(lambda: db, lambda: {"name": "new"}), new_draft_id()
    with acting_as(people["owner"]):
        with store.change(draft, "naming") as change:
            change.draft["name"] = "secret plan"
        assert store.latest(draft)[0] == 1 and store.undo_label(draft) == "naming"
    for who in (people["other"], None):
        with acting_as(who):
            assert store.read(draft) == {"name": "new"} and store.latest(draft)[0] == 0
            assert store.undo_label(draft) is None and not store.undo(draft)
    with acting_as(people["owner"]):
        assert store.read(draft) == {"name": "secret plan"}
        assert store.undo(draft) and store.read(draft) == {"name": "new"}


def test_a_quota_of_runs_counts_what_waits_and_runs(db: Database, people: dict[str, Actor]) -> None:
    (owner,) = [user for user in accounts.list_users(db) if user.name == "owner"]
    accounts.set_quota(db, owner, 2, None, people["admin"])
    with acting_as(people["owner"]):
        first = run_of(db)
        for start in (study_of, lambda db: [run_of(db), run_of(db)]):
            with pytest.raises(NotAllowed, match="at most 2 runs of yours may wait or run"):
                start(db)
        assert len(list(db["runs"].rows)) == 2, "one of the two fitted"
        request_stop(db, first)
        run_of(db)
    with acting_as(people["admin"]):
        study_of(db)
    with acting_as(people["other"]):
        study_of(db)
    accounts.set_quota(db, owner, None, None, people["admin"])
    with acting_as(people["owner"]):
        study_of(db)
    assert [e.about for e in list_entries(db, search="quota")] == [
        "owner: any number of runs, any size", "owner: 2 at a time, any size",
    ]  # fmt: skip


def test_what_is_taken_up_again_counts_as_well(db: Database, people: dict[str, Actor], tmp_path: Path) -> None:
    (owner,) = [user for user in accounts.list_users(db) if user.name == "owner"]
    accounts.set_quota(db, owner, 2, None, people["admin"])
    with acting_as(people["owner"]):
        study = study_of(db)
        stop_study(db, study)
        run = run_of(db)
        before, noted = all_of(db), count_entries(db)
        with pytest.raises(NotAllowed, match="at most 2 runs of yours may wait or run, 1 do, and this would be 2 more"):
            retry_study(db, study)
        assert all_of(db) == before and count_entries(db) == noted
        request_stop(db, run)
        retry_study(db, study)
        with pytest.raises(NotAllowed, match="2 do, and this would be 1 more"):
            retry_run(db, run)
        with pytest.raises(NotAllowed, match="2 do, and this would be 1 more"):
            wider(db, study)
        assert len(list_study_runs(db, study)) == 2
        stop_study(db, study)
        run_folder(tmp_path, run).mkdir(parents=True)
        (run_folder(tmp_path, run) / "weights").write_bytes(b"x" * 600_000)
    accounts.set_quota(db, owner, None, 500_000, people["admin"])
    with acting_as(people["owner"]), pytest.raises(NotAllowed, match="your runs take"):
        retry_run(db, run)
    with acting_as(people["admin"]):
        retry_run(db, run)
    accounts.set_quota(db, owner, 0, None, people["admin"])
    with acting_as(people["owner"]):
        assert request_stop(db, run) is State.CANCELLED, "who has more than they may by now can still cancel"


def test_a_quota_of_room_counts_what_runs_share_once(db: Database, people: dict[str, Actor], tmp_path: Path) -> None:
    (owner,) = [user for user in accounts.list_users(db) if user.name == "owner"]
    with acting_as(people["owner"]):
        one, two = run_of(db), run_of(db)
    for run in (one, two):
        run_folder(tmp_path, run).mkdir(parents=True)
    (run_folder(tmp_path, one) / "weights").write_bytes(b"x" * 600_000)
    (run_folder(tmp_path, two) / "weights").hardlink_to(run_folder(tmp_path, one) / "weights")
    accounts.set_quota(db, owner, None, 1_000_000, people["admin"])
    with acting_as(people["owner"]):
        run_of(db)
        (run_folder(tmp_path, two) / "more").write_bytes(b"x" * 600_000)
        with pytest.raises(NotAllowed, match=r"your runs take 0\.0 GB, and may take 0\.0 GB"):
            run_of(db)


def test_an_account_that_is_removed_leaves_what_it_made(db: Database, people: dict[str, Actor]) -> None:
    with acting_as(people["owner"]):
        run = run_of(db)
    (owner,) = [user for user in accounts.list_users(db) if user.name == "owner"]
    accounts.remove_user(db, owner, people["admin"])
    assert get_run(db, run).owner is None
    assert [(e.name, e.act) for e in list_entries(db, search=owner.id)] == [("admin", "removed")]
    assert list_entries(db, search="OWNER")[-1].name == "owner", "as it was called then"


def test_a_password_that_somebody_else_gives_ends_tokens_as_well(db: Database, people: dict[str, Actor]) -> None:
    owner, other = people["owner"].id, people["other"].id
    session, token = accounts.add_session(db, owner, "Firefox"), accounts.add_token(db, owner, "nightly")
    others = accounts.add_token(db, other, "nightly")
    accounts.set_password(db, owner, "y", accounts.hashed(session))
    assert accounts.user_of_session(db, session) and accounts.user_of_token(db, token), "one's own change"
    accounts.set_password(db, owner, "z")
    assert accounts.user_of_session(db, session) is accounts.user_of_token(db, token) is None
    assert accounts.user_of_token(db, others)


def test_there_is_always_an_admin(db: Database, people: dict[str, Actor]) -> None:
    by_name = {user.name: user for user in accounts.list_users(db)}
    for act in (
        lambda: accounts.set_role(db, by_name["admin"], Role.RUNNER, people["admin"]),
        lambda: accounts.remove_user(db, by_name["admin"], people["admin"]),
    ):
        with pytest.raises(ValueError, match="admin is the only admin"):
            act()
    accounts.set_role(db, by_name["other"], Role.ADMIN, people["admin"])
    accounts.set_role(db, by_name["admin"], Role.VIEWER, people["admin"])
    assert {user.name: user.role for user in accounts.list_users(db)} == {
        "admin": Role.VIEWER, "other": Role.ADMIN, "owner": Role.RUNNER, "viewer": Role.VIEWER,
    }  # fmt: skip
    with pytest.raises(ValueError, match="other is the only admin"):  # as which somebody else read it before
        accounts.set_role(db, by_name["other"], Role.VIEWER, people["admin"])


def test_the_audit_is_looked_through(db: Database, people: dict[str, Actor]) -> None:
    with acting_as(people["owner"]):
        runs = [run_of(db) for _ in range(3)]
        add_run(db, name="x" * 1000 + "\n\n<b>", experiment=PLAN, model="m", seed=0)
    assert [e.what for e in list_entries(db, 2, 1)] == [runs[2], runs[1]]
    assert count_entries(db, "  OWNER ") == 4 and count_entries(db, "%") == count_entries(db, "nobody") == 0
    newest: Entry = list_entries(db)[0]
    assert len(newest.about) <= 300 and "\n" not in newest.about


@pytest.mark.parametrize(
    ("model", "permitted"),
    [
        ("embedded", True), ("gemma-3-270m", True), ("Qwen/Qwen2.5-1.5B", True), ("Qwen/other", True), ("gpt2", False),
        ("{models}/one", True), ("{models}/../secret", False), ("{models}", False), ("{elsewhere}", False),
        ("{models}/link", False), ("~nobody-of-that-name/x", False), ("x" * 5000, False), ("a\0b", False), ("", False),
        ("Qwen/../{elsewhere}", False), ("/etc", False), (".", False),
    ],
)  # fmt: skip
def test_runners_name_models_of_a_list(tmp_path: Path, model: str, permitted: bool) -> None:
    models, elsewhere = tmp_path / "models", tmp_path / "secret"
    for folder in (models / "one", elsewhere):
        folder.mkdir(parents=True)
        (folder / "config.json").write_text("{}")
    (models / "link").symlink_to(elsewhere)
    name = model.format(models=models, elsewhere=elsewhere)
    with only(permits((f"{models}/*", "Qwen/*"))):
        if permitted:
            from_anywhere(name)
            if name.startswith("/"):
                assert resolve_source(name) == Path(name) == local_path(name)
        else:
            with pytest.raises(ModelError, match="not among the models that you may use"):
                resolve_source(name)
            assert local_path(name) is None and from_anywhere(name) == name, "nor does it tell what is there"


def test_a_hub_name_that_is_a_folder_here_is_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "Qwen" / "mine").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    with only(permits(("Qwen/*",))), pytest.raises(ModelError, match="not among the models"):
        resolve_source("Qwen/mine")


def test_what_the_hubs_cache_holds_of_others_models_is_not_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cached = tmp_path / "config.json"
    cached.write_text(json.dumps({"hidden_size": 64, "num_hidden_layers": 2, "intermediate_size": 128,
                                  "vocab_size": 500, "num_attention_heads": 4}))  # fmt: skip
    monkeypatch.setattr(files, "try_to_load_from_cache", lambda model, name: str(cached))
    shape = files.model_shape("lab/secret")
    assert shape is not None and shape.hidden == 64
    with only(permits(("Qwen/*",))):
        assert files.model_shape("lab/secret") is None and files.find_folder("Qwen/mine") == tmp_path


def test_where_people_are_told_apart_a_page_does_nothing_for_nobody() -> None:
    done = []
    with Pages() as pages:
        gr.Button().click(lambda: done.append("clicked"))
    (function,) = pages.fns.values()

    def click() -> Any:
        with ThreadPoolExecutor(1) as thread:  # a browser of another test may have a loop in this one
            return thread.submit(lambda: asyncio.run(pages.process_api(function, []))).result()

    click()
    pages.people = True
    with pytest.raises(gr.Error, match="Sign in first"):
        click()
    assert done == ["clicked"]
