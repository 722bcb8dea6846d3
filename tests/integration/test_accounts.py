"""Signing in with the lab's own accounts: who gets what, what is refused and slowed down, what ends a sign-in."""

from __future__ import annotations

import io
import re
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from gradio_client import Client
from sqlite_utils import Database

from app.server.accounts import SIGNED_OUT, WRONG
from app.server.sign_in import BEYOND, ONE_WAY, Access, NotSafe, access
from engine.commands.main import main
from engine.serving.listening import free_port
from storage import accounts
from storage.accounts import list_users
from storage.audit import list_entries
from storage.database import open_database
from tests.integration.lab import ROOT
from tests.integration.page import Here, process, served_here
from tests.integration.test_routes import TABLE, requests_of, statuses

PASSWORD = "correct horse battery"
OPEN_TO_ALL = {"GET /sign-in": 200, "POST /sign-in": 401, "GET /theme.css": 200, "GET /favicon.ico": 200,
               "GET /lab/{name}": 404}  # fmt: skip


def add(home: Path, name: str, password: str = PASSWORD) -> None:
    """As a person does it at the command line."""
    command = [sys.executable, "-m", "engine", "users", "add", name, "--from-input", "--home", str(home)]
    done = subprocess.run(command, input=f"{password}\n", capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Here]:
    """A lab with two accounts."""
    home = tmp_path_factory.mktemp("accounts") / "home"
    for name in ("ada", "Bo@lab.example"):
        add(home, name)
    with served_here(home, Access(accounts=True)) as served:
        yield served


@pytest.fixture
def db(here: Here) -> Iterator[Database]:
    opened = open_database(here.home)
    yield opened
    opened.execute("delete from wrong_passwords")
    opened.conn.commit()
    opened.close()


@contextmanager
def browser(here: Here, name: str = "", password: str = PASSWORD) -> Iterator[httpx.Client]:
    """One that keeps cookies; signed in by the form, where a name is given."""
    headers = {"Accept": "text/html", "Sec-Fetch-Site": "same-origin", "User-Agent": "Firefox/150 Linux"}
    with httpx.Client(base_url=here.address, headers=headers, timeout=60) as client:
        if name:
            answer = client.post("/sign-in", data={"name": name, "password": password, "next": "/runs"})
            assert answer.status_code == 303, answer.text
        yield client


def test_nobody_gets_anything_but_the_page_that_asks_for_a_sign_in(here: Here) -> None:
    told = statuses(here, requests_of(here), None)
    expected = dict.fromkeys(told, 401) | OPEN_TO_ALL
    assert told == expected
    with browser(here) as page:
        answer = page.get("/results?run=3f9a1c2e&x=1")
        assert (answer.status_code, answer.headers["location"]) == (
            303, "/sign-in?next=/results%3Frun%3D3f9a1c2e%26x%3D1",
        )  # fmt: skip
        refused = page.get("/runs", headers={"Accept": "*/*"})
        assert (refused.status_code, refused.json()) == (401, {"error": SIGNED_OUT})
        assert page.get("/healthz").status_code == 200


def test_who_is_signed_in_gets_what_a_lab_without_accounts_gives(here: Here) -> None:
    with browser(here, "ADA") as page, browser(here, "ada") as ending:
        cookies = ["; ".join(f"{name}={value}" for name, value in one.cookies.items()) for one in (page, ending)]
        own = requests_of(here, Origin=here.address, Sec_Fetch_Site="same-origin", Cookie=cookies[0])
        for request in own:
            if request.path == "/sign-out":
                request.headers["Cookie"] = cookies[1]
        told = statuses(here, own, None)
    assert told == TABLE | {
        "GET /sign-in": 303, "POST /sign-in": 401, "GET /account": 200, "POST /account": 400, "POST /sign-out": 303,
        "GET /people": 200, "POST /people": 400, "GET /audit": 200,
    }  # fmt: skip


def test_a_sign_in_leads_on_and_is_not_for_others_to_read(here: Here) -> None:
    with browser(here) as page:
        asked = page.get("/sign-in?next=/runs")
        assert asked.headers["cache-control"] == "no-store"
        answer = page.post("/sign-in", data={"name": "ada", "password": PASSWORD, "next": "/results?run=a&b=c"})
        cookie = answer.headers["set-cookie"]
        assert "HttpOnly" in cookie and "SameSite=lax" in cookie and "Secure" not in cookie, "no https on this machine"
        followed = page.get(answer.headers["location"])
        assert (followed.status_code, followed.headers["location"]) == (303, "/results?run=a&b=c")
    for name in ("lab.example.org", "lab.example.org:8443"):
        answer = httpx.post(f"{here.address}/sign-in", headers={"Host": name}, data={"name": "ada"})
        assert answer.status_code == 403, "by another name the lab is not asked"


@pytest.mark.parametrize(
    "next", ["//evil.example", "/\\evil.example", "https://evil.example", "javascript:alert(1)", "", "/sign-in", "/a b"]
)
def test_it_leads_nowhere_else(here: Here, next: str) -> None:
    with browser(here) as page:
        answer = page.post("/sign-in", data={"name": "ada", "password": PASSWORD, "next": next})
        assert page.get(answer.headers["location"]).headers["location"] == "/"


def test_where_the_cookie_is_not_kept_it_says_so(here: Here) -> None:
    with browser(here) as page:
        answer = page.post("/sign-in", data={"name": "ada", "password": PASSWORD, "next": "/"})
        page.cookies.clear()
        assert "keeps no sign-in" in page.get(answer.headers["location"]).text


@pytest.mark.parametrize(
    ("name", "password"),
    [("ada", "wrong password"), ("ada", ""), ("ada", PASSWORD + " "), ("nobody", PASSWORD), ("", ""),
     ("a'--", PASSWORD), ("ada\0", PASSWORD), ("<script>", PASSWORD), ("ada", "x" * 5_000), ("\u202eada", PASSWORD)],
)  # fmt: skip
def test_what_is_wrong_is_refused_in_the_same_words(here: Here, db: Database, name: str, password: str) -> None:
    with browser(here) as page:
        answer = page.post("/sign-in", data={"name": name, "password": password})
        assert answer.status_code == 401 and WRONG in answer.text and "set-cookie" not in answer.headers
        assert "<script>" not in answer.text.replace('<script src="/lab/site.js"></script>', "")


def test_wrong_passwords_are_slowed_down_and_the_right_one_too(
    here: Here, db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    with browser(here) as page:
        for _ in range(accounts.WRONG_FOR_A_NAME):
            assert page.post("/sign-in", data={"name": "ada", "password": "wrong"}).status_code == 401
        slow = page.post("/sign-in", data={"name": "Ada", "password": PASSWORD})
        assert slow.status_code == 429 and "Too many wrong passwords: try again in" in slow.text
        assert page.post("/sign-in", data={"name": "bo@lab.example", "password": PASSWORD}).status_code == 303
        at = time.time()
        monkeypatch.setattr(accounts.time, "time", lambda: at + 2)
        assert page.post("/sign-in", data={"name": "ada", "password": "wrong"}).status_code == 401
        assert 1 < accounts.seconds_to_wait(db, "ada") <= 2, "twice as long as before"
        monkeypatch.setattr(accounts.time, "time", lambda: at + 5)
        assert page.post("/sign-in", data={"name": "ada", "password": PASSWORD}).status_code == 303
        assert accounts.seconds_to_wait(db, "ada") == 0, "then they are forgotten"


def test_many_at_once_are_slowed_down_as_well(here: Here, db: Database) -> None:
    with ThreadPoolExecutor(20) as pool, browser(here) as page:
        told = list(pool.map(lambda _: page.post("/sign-in", data={"name": "ada", "password": "wrong"}), range(20)))
    looked_at = [answer for answer in told if answer.status_code == 401]
    assert len(looked_at) <= accounts.WRONG_FOR_A_NAME + 2, "two are looked at at a time"
    assert {answer.status_code for answer in told} == {401, 429}


def test_forms_are_short(here: Here) -> None:
    with browser(here) as page:
        assert page.post("/sign-in", data={"name": "x" * 20_000}).status_code == 413
        assert page.post("/sign-in", content=iter([b"name=ada&password=", b"x"])).status_code == 413, "no length told"


def test_names_that_nobody_has_take_as_long(here: Here, db: Database) -> None:
    def seconds(name: str) -> float:
        began = time.perf_counter()
        with browser(here) as page:
            page.post("/sign-in", data={"name": name, "password": "wrong"})
        return time.perf_counter() - began

    known, unknown = (sorted(seconds(name) for _ in range(4))[1] for name in ("ada", "nobody"))
    assert 0.4 < unknown / known < 2.5, "both are hashed"


def test_a_sign_in_ends(here: Here, db: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    def is_in(page: httpx.Client) -> bool:
        return page.get("/runs").status_code == 200

    with browser(here, "ada") as one, browser(here, "ada") as other:
        secret = next(iter(one.cookies.values()))
        assert is_in(one) and is_in(other)
        one.post("/sign-out")
        assert not is_in(one) and is_in(other)
        with httpx.Client(base_url=here.address, headers={"Cookie": f"{next(iter(other.cookies))}={secret}"}) as stolen:
            assert stolen.get("/runs").status_code == 401, "the cookie is worth nothing any more"
        now = time.time()
        for days, inside in ((6.9, True), (13.8, True), (20.9, False)):  # used on the 6th and the 13th day
            monkeypatch.setattr(accounts.time, "time", lambda days=days: now + days * 86400)
            assert is_in(other) is inside, days
    monkeypatch.undo()
    with browser(here, "ada") as page:
        monkeypatch.setattr(accounts.time, "time", lambda: time.monotonic() * 0 + now + 31 * 86400)
        assert not is_in(page)


def test_another_password_ends_other_sign_ins(here: Here, db: Database) -> None:
    add(here.home, "cy")
    new = "another long password"
    with browser(here, "cy") as page, browser(here, "cy") as other:
        form = {"act": "password", "old": PASSWORD, "new": new, "again": new}
        for wrong, words in (
            ({"old": "wrong"}, "The old password is another one."),
            ({"again": "different one"}, "not the same both times"),
            ({"new": "short", "again": "short"}, "10 to 1000 characters"),
        ):
            answer = page.post("/account", data=form | wrong)
            assert answer.status_code == 400 and words in answer.text
        assert "password is changed" in page.post("/account", data=form).text
        assert page.get("/runs").status_code == 200 and other.get("/runs").status_code == 303
    with browser(here) as page:
        assert page.post("/sign-in", data={"name": "cy", "password": PASSWORD}).status_code == 401
    assert main(["users", "remove", "cy", "--home", str(here.home)]) == 0
    with browser(here) as page:
        assert page.post("/sign-in", data={"name": "cy", "password": new}).status_code == 401
    assert [user.name for user in list_users(db)] == ["ada", "Bo@lab.example"]


def test_scripts_sign_in_with_a_token_until_it_is_revoked(here: Here, db: Database) -> None:
    with browser(here, "ada") as page:
        made = page.post("/account", data={"act": "make token", "name": "<b>nightly</b>  runs"})
        (token,) = re.findall(r"<pre>(rl_\S+)</pre>", made.text)
        assert "&lt;b&gt;nightly&lt;/b&gt; runs" in made.text and token not in page.get("/account").text
        assert token not in str(db.execute("select * from tokens").fetchall())
        bearer = {"Authorization": f"Bearer {token}"}
        client = Client(here.address, headers=bearer, verbose=False)
        assert client.predict(run="", api_name="/list_models_to_ask") == []
        assert httpx.get(f"{here.address}/export/none/results.csv", headers=bearer).status_code == 404
        for method, path in (("GET", "/account"), ("POST", "/account"), ("POST", "/sign-out"), ("POST", "/people")):
            assert httpx.request(method, here.address + path, headers=bearer).status_code == 403
        for wrong in ("Bearer", "Bearer x", f"Basic {token}", f"Bearer {token}x", f"bearer  {token[:-1]}"):
            assert httpx.get(f"{here.address}/runs", headers={"Authorization": wrong}).status_code == 401
        (kept,) = accounts.list_tokens(db, list_users(db)[0].id)
        with browser(here, "bo@lab.example") as other:
            refused = other.post("/account", data={"act": "revoke", "hash": kept.hash})
            assert refused.status_code == 400 and "You have no such token any more." in refused.text
        assert not [entry for entry in list_entries(db) if entry.act == "revoked a token"]
        assert httpx.get(f"{here.address}/runs", headers=bearer).status_code == 200, "nobody else revokes it"
        assert "is revoked" in page.post("/account", data={"act": "revoke", "hash": kept.hash}).text
        assert httpx.get(f"{here.address}/runs", headers=bearer).status_code == 401
        page.post("/account", data={"act": "sign out others"})
        page.post("/sign-out")
    acts = [(entry.name, entry.act, entry.about) for entry in list_entries(db, limit=3)]
    assert acts == [
        ("ada", "signed out", ""),
        ("ada", "signed out elsewhere", ""),
        ("ada", "revoked a token", "<b>nightly</b> runs"),
    ]


def test_no_cache_on_the_way_keeps_what_is_for_those_who_are_signed_in(here: Here) -> None:
    with browser(here, "ada") as page:
        for path in ("/runs", "/export/none/results.csv", "/export/paper/none/figures.csv", "/config", "/metrics"):
            assert page.get(path).headers["cache-control"].startswith("private"), path
        assert page.get("/account").headers["cache-control"] == "no-store"
        assert page.get("/lab/style.css?1").headers["cache-control"].startswith("public"), "the sign-in page has it too"


def test_other_sites_can_neither_sign_anybody_in_nor_act(here: Here) -> None:
    with browser(here, "ada") as page:
        for headers in ({"Origin": "https://evil.example"}, {"Sec-Fetch-Site": "cross-site"}):
            for path in ("/sign-in", "/sign-out", "/account"):
                assert page.post(path, headers=headers).status_code == 403
        assert page.get("/runs").status_code == 200


def test_a_lab_beyond_this_machine_wants_one_way_of_signing_in() -> None:
    with pytest.raises(NotSafe, match=re.escape(BEYOND)):
        access("0.0.0.0")
    with pytest.raises(NotSafe, match=re.escape(BEYOND)):
        access("0.0.0.0", accounts=True)
    with pytest.raises(NotSafe, match=re.escape(ONE_WAY)):
        access("0.0.0.0", "", "X-User", ("10.0.0.5",), ("lab.example.org",), accounts=True)
    allowed = access("0.0.0.0", "0.0.0.0", allowed_hosts=("lab.example.org",), accounts=True)
    assert allowed.accounts and "lab.example.org" in allowed.hosts and not allowed.peers


def test_without_an_account_the_lab_does_not_start(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "app", "--accounts", "--home", str(tmp_path / "home"), "--no-worker"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=120)
    assert done.returncode == 2 and "Nobody has an account" in done.stderr and "rote-lab users add NAME" in done.stderr


def certified(folder: Path, name: str) -> tuple[Path, Path]:
    """A certificate of that name that nobody else signed, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject, now = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]), datetime.now(UTC)
    made = x509.CertificateBuilder().subject_name(subject).issuer_name(subject).public_key(key.public_key())
    made = made.serial_number(x509.random_serial_number()).not_valid_before(now - timedelta(hours=1))
    made = made.not_valid_after(now + timedelta(days=1))
    made = made.add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
    files = folder / "lab.pem", folder / "lab.key"
    plain = serialization.NoEncryption()
    files[0].write_bytes(made.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM))
    files[1].write_bytes(key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, plain))
    return files


def test_by_https_the_cookie_goes_by_https_alone(tmp_path: Path) -> None:
    home, port = tmp_path / "home", free_port()
    add(home, "ada")
    certificate, key = certified(tmp_path, "localhost")
    options = ["--accounts", "--allowed-host", "lab.example.org", "--certificate", str(certificate), "--key", str(key)]
    trusted = ssl.create_default_context(cafile=certificate)
    with (
        process(home, port, *options),
        httpx.Client(base_url=f"https://localhost:{port}", verify=trusted, timeout=60) as page,
    ):
        assert page.get("/healthz").status_code == 200
        form = {"name": "ada", "password": PASSWORD}
        answer = page.post("/sign-in", data=form, headers={"Host": "lab.example.org"})
        assert answer.status_code == 303
        assert re.match(
            r"__Host-rote-lab=\S+;.* HttpOnly;.* Path=/;.* SameSite=lax; Secure$", answer.headers["set-cookie"]
        )
        with pytest.raises(httpx.HTTPError):
            httpx.get(f"http://localhost:{port}/healthz")
    other = tmp_path / "other"
    other.mkdir()
    for files, words in (
        ([certificate, certified(other, "x")[1]], "cannot be used"),
        ([certificate, tmp_path / "none"], "cannot be used"),
    ):
        command = [sys.executable, "-m", "app", "--home", str(home), "--no-worker"]
        command += ["--certificate", str(files[0]), "--key", str(files[1])]
        done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=120)
        assert done.returncode == 2 and words in done.stderr


def test_the_command_line_keeps_accounts(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    home = ["--home", str(tmp_path / "home")]
    assert main(["users", "add", "ada", "--generate", *home]) == 0
    (password,) = re.findall(r"password: (\S+)", capsys.readouterr().out)
    assert len(password) >= 16
    monkeypatch.setattr("sys.stdin", io.StringIO("too short\n"))
    for words, told in (
        (["add", "ADA", "--generate"], "there is an account ‘ADA’ already"),
        (["add", "a b", "--generate"], "is no name of an account"),
        (["add", "bo", "--from-input"], "10 to 1000 characters"),
        (["remove", "cy"], "there is no account ‘cy’ (there are: ada)"),
    ):
        assert main(["users", *words, *home]) == 2
        assert told in capsys.readouterr().err
    assert main(["users", "list", *home]) == 0
    assert capsys.readouterr().out.startswith("ada  admin  (since 20")
