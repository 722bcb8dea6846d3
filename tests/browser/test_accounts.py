"""A lab with accounts in a real browser: signing in, what one sees of it, and an open page whose sign-in has ended."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from oidc_provider_mock import User, run_server_in_thread
from playwright.sync_api import Browser, BrowserContext, Page, expect

from app.server.sign_in import Access, Provider
from engine.passwords import hash_password
from storage.accounts import add_user, list_users, remove_user
from storage.database import open_database
from tests.integration.page import Here, served_here

pytestmark = pytest.mark.browser

PASSWORD = "correct horse battery"


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Here]:
    """A lab with one account."""
    home: Path = tmp_path_factory.mktemp("guarded") / "home"
    db = open_database(home)
    add_user(db, "ada", hash_password(PASSWORD))
    with served_here(home, Access(accounts=True)) as here:
        yield here


@pytest.fixture
def person(chromium: Browser) -> Iterator[BrowserContext]:
    found = chromium.new_context(viewport={"width": 1280, "height": 900})
    yield found
    found.close()


def sign_in(page: Page, password: str = PASSWORD) -> None:
    page.get_by_label("Name").fill("ada")
    page.get_by_label("Password").fill(password)
    page.keyboard.press("Enter")


def test_signing_in_leads_to_where_one_was_going(guarded: Here, person: BrowserContext) -> None:
    page = person.new_page()
    missing: list[str] = []
    page.on("response", lambda r: missing.append(r.url) if r.status == 401 and r.request.method == "GET" else None)
    page.goto(f"{guarded.address}/runs?q=none")
    expect(page.get_by_label("Name")).to_be_focused()
    assert not missing, "the page has all that it is made of"
    sign_in(page, "wrong password")
    expect(page.get_by_role("alert")).to_contain_text("do not belong together")
    expect(page.get_by_label("Name")).to_have_value("ada")
    expect(page.get_by_label("Password")).to_be_focused()
    sign_in(page)
    expect(page).to_have_url(f"{guarded.address}/runs?q=none")
    expect(page.get_by_role("link", name="ada")).to_be_visible()
    page.get_by_role("link", name="ada").click()
    page.get_by_label("What it is for").fill("<img src=x onerror=alert(1)>")
    page.get_by_role("button", name="Make a token").click()
    expect(page.locator("pre")).to_have_text(re.compile(r"^rl_\S{40,}$"))
    expect(page.get_by_role("cell", name="<img src=x onerror=alert(1)>", exact=True)).to_be_visible()
    page.get_by_role("button", name="Revoke").click()
    expect(page.get_by_role("status")).to_have_text("The token is revoked.")
    page.get_by_role("button", name="Sign out").click()
    expect(page.get_by_role("heading", name="Sign in")).to_be_visible()
    page.goto(f"{guarded.address}/runs")
    expect(page.get_by_role("heading", name="Sign in")).to_be_visible()


def test_an_open_page_whose_sign_in_has_ended_leads_to_signing_in_and_back(
    guarded: Here, person: BrowserContext
) -> None:
    page = person.new_page()
    page.goto(f"{guarded.address}/runs")
    sign_in(page)
    expect(page.get_by_role("link", name="ada")).to_be_visible()
    db = open_database(guarded.home)
    (ada,) = list_users(db)
    remove_user(db, ada, ada.actor)
    add_user(db, "ada", hash_password(PASSWORD))
    # The header looks every few seconds how the worker is.
    expect(page.get_by_role("heading", name="Sign in")).to_be_visible(timeout=60_000)
    sign_in(page)
    expect(page).to_have_url(re.compile(r"/runs"))
    expect(page.get_by_role("link", name="ada")).to_be_visible()


def test_signing_in_at_a_provider_leads_there_and_back(person: BrowserContext, tmp_path: Path) -> None:
    ada = User(sub="ada's number", claims={"email": "ada@lab.example", "email_verified": True})
    with run_server_in_thread(user_claims=[ada]) as server:
        at = Provider(f"http://localhost:{server.server_port}", "rote-lab", "secret", ("*@lab.example",))
        with served_here(tmp_path / "home", Access(accounts=True), at) as here:
            page = person.new_page()
            page.goto(f"{here.address}/runs?q=none")
            expect(page.get_by_label("Password")).to_have_count(0)
            page.get_by_role("link", name="Sign in at localhost").click()
            page.get_by_role("button", name="ada's number").click()
            expect(page).to_have_url(f"{here.address}/runs?q=none")
            expect(page.get_by_role("link", name="ada@lab.example")).to_be_visible()
