"""People in several roles at the page, in a real browser: who keeps accounts, who may only look, whose turn it is."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from app.server.sign_in import Access
from engine.passwords import hash_password
from storage import accounts
from storage.acting import Role, acting_as
from storage.database import open_database
from storage.runs import add_run
from tests.integration.page import Here, served_here
from tests.recordings import leave_out_recordings

pytestmark = pytest.mark.browser

PASSWORD = "correct horse battery"


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Here]:
    """A lab of an admin and a runner, with runs of both that wait."""
    home: Path = tmp_path_factory.mktemp("shared") / "home"
    db = open_database(home)
    leave_out_recordings(home)
    hashed = hash_password(PASSWORD)
    ada = accounts.add_user(db, "ada", hashed, Role.ADMIN)
    bo = accounts.add_user(db, "bo", hashed, Role.RUNNER)
    for user, name in ((bo, "one of bo"), (bo, "two of bo"), (ada, "one of ada")):
        with acting_as(user.actor):
            add_run(db, name=name, experiment={"model": "embedded"}, model="embedded", seed=0)
    with served_here(home, Access(accounts=True)) as here:
        yield here


@contextmanager
def person(chromium: Browser, here: Here, name: str, path: str, password: str = PASSWORD) -> Iterator[Page]:
    """A page of somebody who has just signed in."""
    context = chromium.new_context(viewport={"width": 1280, "height": 900})
    page = context.new_page()
    page.goto(here.address + path)
    page.get_by_label("Name").fill(name)
    page.get_by_label("Password").fill(password)
    page.keyboard.press("Enter")
    yield page
    context.close()


def names(page: Page) -> list[str]:
    return page.locator(".runs .run .name").all_inner_texts()


def test_each_one_moves_their_own_runs_and_admins_all(shared: Here, chromium: Browser) -> None:
    with person(chromium, shared, "bo", "/runs?state=queued") as page:
        expect(page.locator(".runs .run")).to_have_count(3)
        assert names(page) == ["one of bo", "one of ada", "two of bo"]
        rows = {name: page.locator(".run", has_text=name) for name in ("one of ada", "two of bo")}
        expect(rows["one of ada"].get_by_role("button")).to_have_count(0)
        expect(rows["one of ada"].get_by_role("link", name="Clone")).to_be_visible()
        rows["two of bo"].get_by_role("button", name="Put first").click()
        expect(page.locator(".runs .run").first).to_contain_text("two of bo")
        expect(page.locator(".runs .run").first).to_contain_text("· bo")
    with person(chromium, shared, "ada", "/runs?state=queued") as page:
        page.locator(".run", has_text="one of bo").get_by_role("button", name="High priority").click()
        expect(page.locator(".runs .run").first).to_contain_text("one of bo")


def test_an_admin_lets_somebody_look_who_then_sees_no_button_that_does_nothing(shared: Here, chromium: Browser) -> None:
    with person(chromium, shared, "ada", "/people") as page:
        page.get_by_label("Name, or mail address").fill("vi@lab.example")
        form = page.locator("form", has=page.get_by_role("button", name="Add"))
        form.get_by_label("Role").select_option("viewer")
        page.get_by_role("button", name="Add").click()
        expect(page.get_by_role("status")).to_contain_text("vi@lab.example has an account.")
        password = page.locator("pre").inner_text()
        with person(chromium, shared, "vi@lab.example", "/runs", password) as other:
            expect(other.locator(".runs .run")).to_have_count(3)
            expect(other.get_by_role("link", name="vi@lab.example")).to_be_visible()
            for name in ("Design", "Design an experiment", "Clone"):
                expect(other.get_by_role("link", name=name, exact=True)).to_have_count(0)
            expect(other.get_by_role("button", name=re.compile("Cancel|Delete|Put first"))).to_have_count(0)
            other.goto(f"{shared.address}/design")
            expect(other.get_by_role("heading", name="This page is for runners and admins")).to_be_visible()
        card = page.locator(".people .card", has_text="vi@lab.example")
        card.get_by_label("Role").select_option("runner")
        card.get_by_label("Runs at a time").fill("1")
        card.get_by_role("button", name="Save").click()
        expect(page.get_by_role("status")).to_contain_text("Saved: vi@lab.example.")
        page.get_by_role("link", name="Audit of changes").click()
        expect(page.locator("tbody tr").first).to_contain_text("vi@lab.example: 1 at a time, any size")
        page.get_by_label("Search").fill("put first")
        page.keyboard.press("Enter")
        expect(page.locator("tbody tr").first).to_contain_text("bo")


def test_on_a_phone_the_audit_shows_what_was_done_and_the_header_stays_in_a_line(
    shared: Here, chromium: Browser
) -> None:
    name = "maximiliana.featherstonehaugh@department.of.linguistics.example"
    with closing(open_database(shared.home)) as db:
        accounts.add_user(db, name, hash_password(PASSWORD), Role.ADMIN)
    with person(chromium, shared, name, "/audit") as page:
        page.set_viewport_size({"width": 390, "height": 844})
        page.wait_for_load_state("load")
        expect(page.locator("tbody tr").first).to_be_visible()
        for row in page.locator("tbody tr").all():
            for cell in row.locator("td").all():
                box = cell.bounding_box()
                assert box and box["x"] >= 0 and box["x"] + box["width"] <= 390, (cell.inner_text(), box)
        page.goto(f"{shared.address}/people")
        card = page.locator(".people .card", has_text=name)
        card.locator("summary").click()
        for part in (card.locator(".sure p"), card.locator(".sure .button")):
            box = part.bounding_box()
            assert box and box["x"] >= 0 and box["x"] + box["width"] <= 390, box
        assert page.evaluate("document.documentElement.scrollWidth") == 390
        brand, theme = page.locator("header .brand").bounding_box(), page.locator("header .theme").bounding_box()
        assert brand and theme and abs(brand["y"] + brand["height"] / 2 - theme["y"] - theme["height"] / 2) < 3
