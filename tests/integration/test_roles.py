"""Each role at each route, and at each click that changes something: sent as a browser does, past what pages show."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from gradio_client import Client
from gradio_client.exceptions import AppError
from sqlite_utils import Database

from app.server.sign_in import Access, Provider
from app.site import build_site
from engine.commands.main import main
from engine.corpus.resolve import resolve
from engine.execution.studies.queue import queue_study
from engine.passwords import hash_password
from engine.presets import load_preset
from engine.studies.study import Study
from storage import accounts
from storage.acting import ONLY_LOOK, Role, acting_as
from storage.askings import find_askings
from storage.attacks import get_attack, list_attacks
from storage.audit import list_entries
from storage.database import open_database
from storage.runs import add_run, get_run, list_runs, request_stop
from storage.studies import list_studies, study_counts
from tests.integration.page import Here, served_here
from tests.integration.test_accounts import OPEN_TO_ALL
from tests.integration.test_routes import TABLE, requests_of, routes_of, statuses
from tests.recordings import leave_out_recordings

PASSWORD = "correct horse battery"
ROLES = {"vi": Role.VIEWER, "ada": Role.RUNNER, "bo": Role.RUNNER, "root": Role.ADMIN}
# What the pages of accounts answer beside the others: nobody, viewer, runner, admin.
OF_ACCOUNTS = {
    "GET /account": (401, 200, 200, 200), "POST /account": (401, 400, 400, 400), "GET /sign-in": (200, 303, 303, 303),
    "POST /sign-in": (401, 401, 401, 401), "GET /people": (401, 403, 403, 200), "POST /people": (401, 403, 403, 400),
    "GET /audit": (401, 403, 403, 200),
}  # fmt: skip
NOT_FOR_VIEWERS = {"GET /design": 403, "GET /design/": 403, "POST /gradio_api/upload": 403}
GRID = "name: {}\nexperiment: quick\naxes: {{seed: [0]}}\n"
EXPERIMENT: dict[str, Any] = {"model": "embedded", "seed": 0, "relations": []}


@dataclass(frozen=True)
class Lab:
    """A served lab with an account in each role, and a token of each."""

    here: Here
    tokens: dict[str, str]

    def headers(self, who: str) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.tokens[who]}"}

    def get(self, who: str, path: str) -> httpx.Response:
        return httpx.get(self.here.address + path, headers=self.headers(who), timeout=120)

    def click(self, who: str, function: str, query: str = "", values: dict[int, Any] | None = None, **data: Any) -> str:
        """What the page is told when that function of a page is called, as by a click on what has these data-*."""
        found = next(f for f in self.here.pages.fns.values() if f.fn and f.fn.__qualname__ == function)
        given = [(values or {}).get(i) for i in range(len(found.inputs))]
        body = {"data": given, "fn_index": found._id, "session_hash": who, "event_data": data}
        address = f"{self.here.address}/gradio_api/run/predict?{query}"
        answer = httpx.post(address, json=body, headers=self.headers(who), timeout=120)
        return answer.text


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    home = tmp_path_factory.mktemp("roles") / "home"
    db = open_database(home)
    leave_out_recordings(home)
    users = {name: accounts.add_user(db, name, hash_password(PASSWORD), role) for name, role in ROLES.items()}
    tokens = {name: accounts.add_token(db, user.id, "test") for name, user in users.items()}
    db.close()
    with served_here(home, Access(accounts=True)) as here:
        yield Lab(here, tokens)


@pytest.fixture
def db(lab: Lab) -> Iterator[Database]:
    opened = open_database(lab.here.home)
    yield opened
    opened.close()


def as_user(db: Database, name: str) -> Any:
    return acting_as(accounts.get_user(db, name)[0].actor)


def signed_in(here: Here, name: str) -> str:
    """A browser's cookie."""
    form = {"name": name, "password": PASSWORD}
    answer = httpx.post(f"{here.address}/sign-in", data=form, headers={"Sec-Fetch-Site": "same-origin"}, timeout=60)
    return answer.headers["set-cookie"].split(";")[0]


@pytest.mark.parametrize(("place", "who"), [(0, ""), (1, "vi"), (2, "ada"), (2, "bo"), (3, "root")])
def test_every_route_by_role(lab: Lab, place: int, who: str) -> None:
    headers = {"Origin": lab.here.address, "Sec_Fetch_Site": "same-origin"}
    if who:
        headers["Cookie"] = signed_in(lab.here, who)
    requests = requests_of(lab.here, **headers)
    for request in requests:
        if request.path == "/sign-out":
            request.headers["Cookie"] = signed_in(lab.here, "bo")
    told = statuses(lab.here, requests, None)
    own = {route: by_role[place] for route, by_role in OF_ACCOUNTS.items()} | {"POST /sign-out": 303}
    everybody = TABLE if who else dict.fromkeys(TABLE, 401) | OPEN_TO_ALL
    assert told == everybody | own | (NOT_FOR_VIEWERS if who == "vi" else {})


def test_every_route_from_another_site_by_somebody_who_is_signed_in(lab: Lab) -> None:
    cookie = signed_in(lab.here, "root")
    for origin in ("https://evil.example", "null", "http://127.0.0.1:1"):
        told = statuses(lab.here, requests_of(lab.here, Cookie=cookie, Origin=origin), None)
        assert set(told.values()) == {403}, [route for route, status in told.items() if status != 403]
    assert httpx.get(f"{lab.here.address}/account", headers={"Cookie": cookie}).status_code == 200


def test_a_provider_adds_no_route_that_is_not_in_a_table(tmp_path: Path) -> None:
    leave_out_recordings(tmp_path)
    at = Provider("http://127.0.0.1:1", "rote-lab", "secret", ("*",))
    site = build_site(tmp_path, Access(accounts=True), openid=at, passwords=True)
    own = {*TABLE, *OF_ACCOUNTS, "POST /sign-out", "GET /sign-in/openid", "GET /sign-in/openid/back"}
    assert set(routes_of(Here(site, tmp_path, 0))) == own


def test_pages_say_whom_they_are_for(lab: Lab) -> None:
    for who, path, words in (
        ("vi", "/design", "This page is for runners and admins"), ("vi", "/people", "This page is for admins"),
        ("ada", "/audit", "Your account is a runner’s"),
    ):  # fmt: skip
        shown = httpx.get(lab.here.address + path, headers={"Cookie": signed_in(lab.here, who)}, timeout=60).text
        assert words in shown
    assert 'href="/audit"' not in shown and 'href="/people"' not in shown, "the header leads where one may go"


def test_who_may_only_look_sees_every_page_as_others_do(lab: Lab, db: Database) -> None:
    """Drawing a page changes nothing that is not the lab's own doing."""
    with as_user(db, "ada"):
        queue_study(db, Study.from_text(GRID.format("seen")))
    for function in lab.here.pages.fns.values():
        if function.fn is None or function.fn.__qualname__.split(".")[-1] not in ("open_page", "draw", "tick", "look"):
            continue
        if function.fn.__module__.startswith("app.design"):
            continue
        body = {"data": [None] * len(function.inputs), "fn_index": function._id, "session_hash": "vi"}
        told = httpx.post(
            f"{lab.here.address}/gradio_api/run/predict", json=body, headers=lab.headers("vi"), timeout=120
        )
        assert told.status_code == 200, (function.fn.__module__, function.fn.__qualname__, told.text)


RUN_ACTS = [
    ("runs_page.<locals>.act", ""), ("run_page.<locals>.act", "run={run}"), ("results_page.<locals>.act", "run={run}"),
    ("home_page.<locals>.act", ""),
]  # fmt: skip


@pytest.mark.parametrize(("function", "query"), RUN_ACTS)
@pytest.mark.parametrize("act", ["cancel", "delete", "retry", "first", "priority"])
def test_clicks_on_runs(lab: Lab, db: Database, function: str, query: str, act: str) -> None:
    with as_user(db, "ada"):
        add_run(db, name="earlier", experiment=EXPERIMENT, model="embedded", seed=0)
        run = add_run(db, name="mine", experiment=EXPERIMENT, model="embedded", seed=0)
        if act == "retry":
            request_stop(db, run.id)
    before = get_run(db, run.id)

    def click(who: str) -> None:
        lab.click(who, function, query.format(run=run.id), act=act, run=run.id, value="1")

    for who in ("vi", "bo"):
        click(who)
        assert get_run(db, run.id) == before, who
    mine = "root" if act == "priority" else "ada"
    click(mine)
    assert (
        run.id not in {r.id for r in list_runs(db)} or get_run(db, run.id) != before or function.startswith("results")
    )


def test_clicks_on_studies(lab: Lab, db: Database) -> None:
    with as_user(db, "ada"):
        study = queue_study(db, Study.from_text(GRID.format("grid")))
    view = {0: json.dumps({"study": study})}
    for act, state in (("stop", "cancelled"), ("retry", "queued")):
        before = study_counts(db, study)
        for who, words in (("vi", "may only look"), ("bo", "somebody else’s")):
            assert words in told_as_text(lab.click(who, "studies_page.<locals>.act", values=view, act=act)), (act, who)
            assert study_counts(db, study) == before
        lab.click("ada", "studies_page.<locals>.act", values=view, act=act)
        assert study_counts(db, study) == {state: 1}
    for who in ("vi", "bo", "root"):
        lab.click(who, "studies_page.<locals>.act", values=view, act="forget")
        assert (study in {one.id for one in list_studies(db)}) is (who != "root")


def told_as_text(answer: str) -> str:
    """What a page shows, without the marks of HTML in JSON."""
    return json.dumps(json.loads(answer), ensure_ascii=False) if answer.startswith("{") else answer


def test_starting_is_not_for_who_may_only_look(lab: Lab, db: Database) -> None:
    def everything() -> tuple[int, ...]:
        return tuple(db[table].count for table in ("runs", "studies", "attacks", "askings", "drafts", "audit"))

    before = everything()
    described = "name: x\nexperiment: quick\naxes: {seed: [0]}\n"
    clicks: list[tuple[str, dict[int, Any], dict[str, Any]]] = [
        ("studies_page.<locals>.start", {2: described}, {}),
        ("studies_page.<locals>.act", {}, {"act": "start", "value": "paper-methods"}),
        ("paper_page.<locals>.act", {}, {"act": "start", "value": "paper-methods"}),
        ("attack_page.<locals>.act", {}, {"act": "start", "value": "story"}),
    ]
    for function, values, data in clicks:
        answer = told_as_text(lab.click("vi", function, values=values, **data))
        assert "may only look" in answer, function
    token = {"Authorization": f"Bearer {lab.tokens['vi']}"}
    uploaded = httpx.post(f"{lab.here.address}/gradio_api/upload", files={"files": b"x"}, headers=token)
    assert (uploaded.status_code, uploaded.json()) == (403, {"error": f"{ONLY_LOOK[0].upper()}{ONLY_LOOK[1:]}."})
    assert everything() == before


def test_a_runner_starts_what_is_theirs(lab: Lab, db: Database) -> None:
    described = "name: by ada\nexperiment: quick\naxes: {seed: [0]}\n"
    lab.click("ada", "studies_page.<locals>.start", values={2: described})
    (study,) = [one for one in list_studies(db) if one.name == "by ada"]
    ada = accounts.get_user(db, "ada")[0]
    assert study.owner == ada.id
    assert (list_entries(db)[0].act, list_entries(db)[0].what) == ("started", study.id)
    lab.click("ada", "attack_page.<locals>.act", act="start", value="story")
    attack = list_attacks(db)[0]
    assert get_attack(db, attack.id).owner == ada.id
    for who in ("vi", "bo"):
        lab.click(who, "attack_page.<locals>.act", act="stop", attack=attack.id)
        assert {row["state"] for row in db.query("select state from runs where attack = ?", [attack.id])} == {"queued"}
    lab.click("ada", "attack_page.<locals>.act", act="stop", attack=attack.id)
    assert {row["state"] for row in db.query("select state from runs where attack = ?", [attack.id])} == {"cancelled"}
    for who in ("vi", "bo", "ada"):
        lab.click(who, "attack_page.<locals>.act", act="delete", attack=attack.id)
        assert (attack.id in {one.id for one in list_attacks(db)}) is (who != "ada")


def test_a_runner_names_no_folder_of_the_machine(lab: Lab, db: Database, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    for model in (str(tmp_path), "/etc", "gpt2"):
        described = f"name: by ada\nexperiment: quick\naxes: {{seed: [0], model: ['{model}']}}\n"
        for function in ("studies_page.<locals>.start", "studies_page.<locals>.tell"):
            values = {2: described} if "start" in function else {0: described}
            answer = told_as_text(lab.click("ada", function, values=values))
            if "start" in function:
                assert "not among the models that you may use" in answer, answer[:500]
            assert "config.json" not in answer


def test_a_runner_teaches_a_model_of_the_lab_more(lab: Lab) -> None:
    permitted = lab.here.pages.models
    assert permitted is not None
    assert permitted(f"{lab.here.home}/runs/3f9a1c2e/checkpoints/generalised@20")
    for other in (f"{lab.here.home}/lab.db", f"{lab.here.home}/runs/../uploads/x", f"{lab.here.home}/runs"):
        assert not permitted(other)


def test_the_only_account_is_not_removed_on_a_page(tmp_path: Path) -> None:
    with closing(open_database(tmp_path)) as db:
        root = accounts.add_user(db, "root", hash_password(PASSWORD), Role.ADMIN)
        leave_out_recordings(tmp_path)
    with served_here(tmp_path, Access(accounts=True)) as here:
        headers = {"Cookie": signed_in(here, "root"), "Sec-Fetch-Site": "same-origin"}
        answer = httpx.post(f"{here.address}/people", data={"act": "remove", "id": root.id}, headers=headers)
        assert answer.status_code == 400 and "Root is the only account" in answer.text
        assert httpx.get(f"{here.address}/people", headers=headers).status_code == 200


def test_admins_keep_accounts_on_a_page(lab: Lab, db: Database) -> None:
    cookie = signed_in(lab.here, "root")
    client = httpx.Client(base_url=lab.here.address, headers={"Cookie": cookie, "Sec-Fetch-Site": "same-origin"})
    made = client.post("/people", data={"act": "add", "name": "cy@lab.example", "role": "viewer"})
    (password,) = re.findall(r"<pre>(\S+)</pre>", made.text)
    cy = accounts.get_user(db, "cy@lab.example")[0]
    assert cy.role is Role.VIEWER and password not in client.get("/people").text
    form = {"name": "cy@lab.example", "password": password}
    assert httpx.post(f"{lab.here.address}/sign-in", data=form).status_code == 303
    for data, words in (
        ({"act": "add", "name": "CY@lab.example", "role": "admin"}, "There is an account ‘CY@lab.example’ already"),
        ({"act": "add", "name": "<b>", "role": "admin"}, "is no name of an account"),
        ({"act": "add", "name": "dy", "role": "king"}, "A role is one of viewer, runner and admin."),
        ({"act": "save", "id": cy.id, "role": "runner", "runs": "-1"}, "The limit of runs is a number from 0"),
        ({"act": "save", "id": cy.id, "role": "runner", "gigabytes": "nan"}, "The limit of gigabytes is a number"),
        ({"act": "save", "id": "none", "role": "runner"}, "This account is no longer there."),
        ({"act": "fly"}, "This account is no longer there."),
        ({"act": "remove", "id": accounts.get_user(db, "root")[0].id}, "Root is the only admin"),
    ):
        answer = client.post("/people", data=data)
        assert answer.status_code == 400 and words in answer.text, (data, answer.text[-3000:])
    saved = client.post("/people", data={"act": "save", "id": cy.id, "role": "runner", "runs": "3", "gigabytes": "1,5"})
    assert "Saved: cy@lab.example." in saved.text
    cy = accounts.get_user(db, "cy@lab.example")[0]
    assert (cy.role, cy.most_runs, cy.most_bytes) == (Role.RUNNER, 3, 1_500_000_000)
    stale = {"act": "save", "id": cy.id, "role": "viewer", "was": "viewer", "runs": "3", "gigabytes": "1.5"}
    assert "Saved" in client.post("/people", data=stale).text
    assert accounts.get_user(db, "cy@lab.example")[0].role is Role.RUNNER, "a page that was open before takes none back"
    other = client.post("/people", data={"act": "password", "id": cy.id})
    assert "is signed out everywhere, and has no tokens" in other.text and password not in other.text
    assert "may not sign in any more" in client.post("/people", data={"act": "remove", "id": cy.id}).text
    acts = [(e.name, e.act) for e in list_entries(db, search=cy.id)]
    assert acts == [
        ("root", "removed"), ("root", "gave a password"), ("root", "gave a quota"), ("root", "gave a role"),
        ("cy@lab.example", "signed in"), ("root", "added"),
    ]  # fmt: skip
    shown = client.get("/audit", params={"q": cy.id}).text
    assert shown.count("<tr>") == 7 and "gave a quota" in shown
    assert "No change matches “<bdi>&lt;b&gt;</bdi>”" in client.get("/audit", params={"q": "<b>"}).text
    assert client.get("/audit", params={"page": "999"}).status_code == 200
    assert client.post("/people", data={"name": "x" * 20_000}).status_code == 413
    client.close()


def test_scripts_ask_as_their_account(lab: Lab, db: Database) -> None:
    with as_user(db, "ada"):
        run = add_run(db, name="asked", experiment=resolve(load_preset("quick")).model_dump(), model="embedded", seed=0)
    for who in ("vi", "bo"):
        client = Client(lab.here.address, headers=lab.headers(who), verbose=False)
        before = find_askings(db)[1]
        if who == "vi":
            with pytest.raises(AppError, match="Your account may only look"):
                client.predict(run=run.id, text="Who?", wait_seconds=0, api_name="/ask_free_text")
            assert find_askings(db)[1] == before
        else:
            told = client.predict(run=run.id, text="Who?", wait_seconds=0, api_name="/ask_free_text")
            assert db.table("askings").get(told["id"])["owner"] == accounts.get_user(db, "bo")[0].id
            assert list_entries(db)[0].act == "asked"


def test_a_role_counts_from_the_next_request_on(lab: Lab, db: Database) -> None:
    root = accounts.get_user(db, "root")[0]
    bo = accounts.get_user(db, "bo")[0]
    assert lab.get("bo", "/design").status_code == 200
    accounts.set_role(db, bo, Role.VIEWER, root.actor)
    assert lab.get("bo", "/design").status_code == 403
    accounts.set_role(db, accounts.get_user(db, "bo")[0], Role.RUNNER, root.actor)
    assert lab.get("bo", "/design").status_code == 200


def test_whom_a_proxy_names_has_an_account_and_its_role(tmp_path: Path) -> None:
    home = tmp_path / "home"
    access = Access(user_header="X-User", role=Role.VIEWER)
    with served_here(home, access) as here, closing(open_database(home)) as db:

        def get(path: str, name: str) -> int:
            return httpx.get(here.address + path, headers={"X-User": name}, timeout=60).status_code

        assert get("/runs", "ada@lab.example") == 200 and get("/design", "ada@lab.example") == 403
        assert get("/account", "ada@lab.example") == 404, "who signs in elsewhere has no page for it here"
        ada = accounts.get_user(db, "ADA@lab.example")[0]
        assert (ada.role, ada.by_proxy) == (Role.VIEWER, True)
        assert main(["users", "role", "ada@lab.example", "admin", "--home", str(home)]) == 0
        assert get("/people", "ada@lab.example") == 200 and get("/people", "bo@lab.example") == 403
        with ThreadPoolExecutor(8) as pool:
            assert set(pool.map(lambda _: get("/runs", "cy@lab.example"), range(8))) == {200}, "a page asks at once"
        assert [user.name for user in accounts.list_users(db)] == [f"{n}@lab.example" for n in ("ada", "bo", "cy")]
        admin = {"X-User": "ada@lab.example"}
        shown = httpx.get(f"{here.address}/people", headers=admin).text
        assert "Somebody new" not in shown and "To keep them out, let them in no more where they sign in" in shown
        form = {"act": "remove", "id": accounts.get_user(db, "cy@lab.example")[0].id}
        removed = httpx.post(f"{here.address}/people", headers=admin, data=form).text
        assert "has no account now, and gets a new one where they sign in" in removed


def test_the_command_line_gives_roles_and_quotas(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    home = ["--home", str(tmp_path)]
    for words in (["add", "ada", "--generate"], ["add", "bo", "--generate", "--role", "viewer"],
                  ["add", "cy", "--generate"], ["quota", "cy", "--runs", "4", "--gigabytes", "2.5"]):  # fmt: skip
        assert main(["users", *words, *home]) == 0
    capsys.readouterr()
    assert main(["users", "list", *home]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split("  (since")[0] for line in lines] == [
        "ada  admin", "bo  viewer", "cy  runner, at most 4 runs at a time, at most 2.5 GB",
    ]  # fmt: skip
    assert main(["users", "role", "ada", "runner", *home]) == 2
    assert "ada is the only admin" in capsys.readouterr().err
    assert main(["users", "role", "bo", "admin", *home]) == main(["users", "remove", "ada", *home]) == 0
    db = open_database(tmp_path)
    assert {entry.name.split()[0] for entry in list_entries(db)} == {"command"}
    assert main(["users", "remove", "cy", *home]) == main(["users", "remove", "bo", *home]) == 0, "the last one may go"
