"""Signing in at an OpenID provider: a real one, on loopback, that shows its own page and redirects back."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest
from oidc_provider_mock import User, run_server_in_thread

from app.server.accounts import WRONG
from app.server.sign_in import Access, NotSafe, Provider, provider
from engine.commands.main import main
from engine.passwords import hash_password
from storage import accounts
from storage.accounts import add_user, list_users
from storage.database import open_database
from tests.integration.page import Here, served_here

PEOPLE = [
    User(sub="1", claims={"email": "Ada@lab.example", "email_verified": True}),
    User(sub="2", claims={"email": "bo@other.example", "email_verified": True}),
    User(sub="3", claims={"email": "cy@lab.example", "email_verified": False}),
    User(sub="4", claims={"email": "dee@lab.example"}),
    User(sub="5", claims={"preferred_username": "eff", "groups": ["staff", "lab"]}),
    User(sub="6", claims={"email": "own@lab.example", "email_verified": True}),
    User(sub="8", claims={"email": "boss@lab.example", "preferred_username": "gus", "groups": ["lab"]}),
    User(sub="9", claims={"email": "boss@lab.example", "email_verified": False, "groups": ["lab"]}),
    User(sub="7", claims={"email": "two, names@lab.example", "email_verified": True}),
]


@pytest.fixture(scope="module")
def issuer() -> Iterator[str]:
    with run_server_in_thread(user_claims=PEOPLE, require_nonce=True) as server:
        yield f"http://localhost:{server.server_port}"


@pytest.fixture(scope="module")
def here(issuer: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Here]:
    """A lab that lets in the provider's people of lab.example, and of a group; with one account of its own."""
    home = tmp_path_factory.mktemp("openid") / "home"
    add_user(open_database(home), "own@lab.example", hash_password("correct horse battery"))
    at = Provider(issuer, "rote-lab", "secret", ("*@lab.example", "group:lab"))
    with served_here(home, Access(accounts=True), at) as served:
        yield served


@contextmanager
def browser(here: Here) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=here.address, headers={"Accept": "text/html"}, timeout=60) as client:
        yield client


def at_provider(page: httpx.Client, sub: str, next: str = "/runs") -> str:
    """Go there, say who one is, and come back to this address."""
    there = page.get(f"/sign-in/openid?next={next}")
    assert there.status_code == 303, there.text
    address = there.headers["location"]
    asked = parse_qs(urlsplit(address).query)
    assert asked["code_challenge_method"] == ["S256"] and asked["nonce"] and asked["state"]
    assert "openid" in asked["scope"][0].split() and asked["response_type"] == ["code"]
    assert page.get(address).status_code == 200
    said = page.post(address, data={"sub": sub})
    assert said.status_code == 302, said.text
    return str(said.headers["location"])


def test_who_may_is_in_under_one_account_however_often(here: Here) -> None:
    for _ in range(2):
        with browser(here) as page:
            assert "Sign in at localhost" in page.get("/sign-in?next=/runs").text
            back = page.get(at_provider(page, "1"))
            assert back.status_code == 303 and "SameSite=lax" in back.headers["set-cookie"]
            assert page.get(back.headers["location"]).headers["location"] == "/runs"
            assert page.get("/runs").status_code == 200
            own = page.get("/account").text
            assert "Ada@lab.example" in own and "Old password" not in own and "12 hours" in own
    db = open_database(here.home)
    (ada,) = [user for user in list_users(db) if user.name == "Ada@lab.example"]
    assert ada.subject is not None and ada.subject.endswith(" 1")
    assert main(["users", "password", "ada@lab.example", "--generate", "--home", str(here.home)]) == 2, "it is there"
    assert all((one.ends_at or 0) - one.used_at <= 12 * 3600 for one in accounts.list_sessions(db, ada.id))


def test_a_group_may_too(here: Here) -> None:
    with browser(here) as page:
        assert page.get(at_provider(page, "5")).status_code == 303
        assert "eff" in page.get("/account").text


@pytest.mark.parametrize(("sub", "name"), [("8", "gus"), ("9", "9")])
def test_a_mail_address_that_is_not_verified_is_nobodys_name(here: Here, sub: str, name: str) -> None:
    with browser(here) as page:
        assert page.get(at_provider(page, sub)).status_code == 303
    names = {user.name for user in list_users(open_database(here.home))}
    assert name in names and "boss@lab.example" not in names


@pytest.mark.parametrize(
    ("sub", "words"),
    [
        ("2", "bo@other.example, who may not use this lab"),
        ("3", "cy@lab.example, who may not use this lab"),  # the provider has not verified that address
        ("4", "dee@lab.example, who may not use this lab"),  # nor says that it has
        ("6", "There is another account of the name own@lab.example"),
        ("7", "tells no name of yours that this lab can use"),
    ],
)
def test_who_may_not_is_told_so(here: Here, sub: str, words: str) -> None:
    with browser(here) as page:
        back = page.get(at_provider(page, sub))
        assert back.status_code == 403 and words in back.text
        assert page.get("/runs").status_code == 303, "and is not signed in"


def test_an_answer_is_for_the_browser_that_asked_and_for_once(here: Here) -> None:
    with browser(here) as victim, browser(here) as attacker:
        back = at_provider(attacker, "1")
        assert victim.get(back).status_code == 403, "a link to somebody else's sign-in does nothing"
        assert victim.get("/runs").status_code == 303
        assert attacker.get(back).status_code == 303
        assert attacker.get(back).status_code == 403
    with browser(here) as page:
        back = at_provider(page, "1")
        for wrong in (re.sub("state=[^&]+", "state=x", back), re.sub("code=[^&]+", "code=x", back),
                      "/sign-in/openid/back", "/sign-in/openid/back?error=access_denied"):  # fmt: skip
            assert page.get(wrong).status_code == 403


def test_passwords_are_not_for_accounts_of_the_provider(here: Here) -> None:
    with browser(here) as page:
        for name in ("own@lab.example", "Ada@lab.example"):
            answer = page.post("/sign-in", data={"name": name, "password": "correct horse battery"})
            assert answer.status_code == 401 and WRONG in answer.text, "the lab was started without --accounts"


def test_a_provider_that_does_not_answer_is_said(tmp_path: Path) -> None:
    at = Provider("http://127.0.0.1:9", "rote-lab", "secret", ("*",))
    with served_here(tmp_path / "home", Access(accounts=True), at) as here, browser(here) as page:
        answer = page.get("/sign-in/openid")
        assert answer.status_code == 403 and "Signing in at 127.0.0.1 did not work" in answer.text


def test_what_has_to_be_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ROTE_LAB_OPENID_SECRET", raising=False)
    assert provider("", "", ()) is None
    for issuer, client, allowed, words in (
        ("https://id.example", "", ("*",), "go together"),
        ("https://id.example", "lab", (), "go together"),
        ("http://id.example", "lab", ("*",), "takes the https address"),
        ("https://id.example", "lab", ("*",), "ROTE_LAB_OPENID_SECRET"),
    ):
        with pytest.raises(NotSafe, match=words):
            provider(issuer, client, allowed)
    monkeypatch.setenv("ROTE_LAB_OPENID_SECRET", "x")
    found = provider("https://id.example/", "lab", ("*@Lab.example",))
    assert found is not None and found.issuer == "https://id.example" and found.name == "id.example"
    assert found.lets_in({"email": "ADA@lab.example", "email_verified": True})
    for claims in (
        {"email": "ada@lab.example.evil", "email_verified": True},
        {"email": "ada@lab.example", "email_verified": "true"},
        {"email": "", "email_verified": True},
        {"groups": "*@lab.example"},
        {"groups": ["*@lab.example"]},
        {},
    ):
        assert not found.lets_in(claims), claims
