"""Two people on one draft, an import that needs a decision, and a large file beside somebody who types."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, BrowserContext, FilePayload, Page, expect
from sqlite_utils import Database

from tests.browser.test_design_page import cells, field, open_design, own_relation, paste, settle

pytestmark = pytest.mark.browser

PROMPTS = {"Train prompts": "{subject} works for", "Test prompts": "Who employs {subject}?"}


def give(page: Page, name: str, data: bytes) -> None:
    """Upload a file of facts."""
    with page.expect_file_chooser() as chooser:
        page.get_by_role("button", name="Upload CSV files").click()
    chooser.value.set_files(FilePayload(name=name, mimeType="text/csv", buffer=data))


@pytest.fixture
def design(context: BrowserContext, page: Page, address: str, db: Database) -> Iterator[Page]:
    """A design with one relation of one's own, with prompts."""
    context.grant_permissions(["clipboard-read", "clipboard-write"], origin=address)
    open_design(page, address)
    own_relation(page)
    for label, text in PROMPTS.items():
        field(page, label).fill(text)
    expect(page.locator("#summary")).not_to_contain_text("prompts: there are no prompts")
    yield page
    settle(page)


def test_two_tabs_on_one_draft(design: Page, context: BrowserContext, address: str) -> None:
    one, two = design, context.new_page()
    open_design(two, address)
    expect(two.get_by_label("Relation", exact=True)).to_have_value("relation 1")
    one.get_by_label("Name", exact=True).fill("named in the first")
    two.get_by_label("Seed").fill("7")
    expect(two.get_by_label("Name", exact=True)).to_have_value("named in the first")
    expect(two.locator("#news")).to_contain_text("Changed in another tab: Name")
    expect(one.get_by_label("Seed")).to_have_value("7")
    one.get_by_label("Subject, row 1").fill("Ann")
    expect(two.get_by_label("Subject, row 1", exact=True)).to_have_value("Ann")
    two.get_by_label("Object, row 1").fill("Bee")
    one.get_by_label("Subject, row 2").fill("Cy")
    expect(two.get_by_label("Subject, row 2")).to_have_value("Cy")
    expect(one.get_by_label("Object, row 1", exact=True)).to_have_value("Bee")
    assert cells(one)[:4] == ["Ann", "Bee", "Cy", ""]
    one.get_by_role("button", name="Remove this relation").click()
    expect(two.locator("#news")).to_contain_text("‘relation 1’ was removed in another tab")
    two.get_by_role("button", name="Undo removing").click()
    expect(two.get_by_label("Object, row 1", exact=True)).to_have_value("Bee")
    settle(two)
    two.close()


def test_an_import_with_errors_stops_the_start_until_it_is_decided(design: Page) -> None:
    page, start = design, design.locator("#start")
    wrong = "subject,object\nAnn Bee,Cy Dee\nJones, Eve,Flo Gee\nHal Ivy,Jo Kay\nLee May,Lou Oz\nPip, Quy,Rex Sue\n"
    give(page, "names.csv", wrong.encode())
    decide = page.locator(".import-problems")
    expect(decide).to_contain_text("Rows 2, 5: has 3 cells")
    expect(start).to_be_disabled()
    expect(page.locator("#facts-table tr.problem")).to_have_count(2)
    expect(page.locator("#facts-table tr.problem").first).to_contain_text("row 3 of ‘names.csv’")
    settle(page)
    page.reload()
    expect(decide).to_contain_text("Rows 2, 5: has 3 cells")
    page.get_by_role("button", name="Add my own").click()
    expect(page.get_by_label("Relation", exact=True)).to_have_value("relation 2")
    expect(start).to_be_disabled()
    expect(page.locator("#relations")).to_contain_text("relation 1 · 5 ✕")
    page.get_by_role("button", name="Remove this relation").click()
    expect(page.get_by_label("Relation", exact=True)).to_have_value("relation 1")
    page.get_by_role("button", name="Keep them as they are").click()
    expect(start).to_be_enabled()
    page.locator("#undo").click()
    expect(start).to_be_disabled()
    page.get_by_role("button", name="Leave these rows out").click()
    expect(start).to_be_enabled()
    expect(decide).to_be_hidden()
    assert cells(page)[:-2] == ["Ann Bee", "Cy Dee", "Hal Ivy", "Jo Kay", "Lee May", "Lou Oz"]


@pytest.mark.parametrize("count", [2, 60])
def test_an_upload_sets_what_nobody_touched(design: Page, count: int) -> None:
    rows = "\n".join(f"Ann {i:02},Bee {i:02}" for i in range(1, count + 1))
    give(design, "facts.csv", f"subject,object\n{rows}\n".encode())
    expect(design.get_by_label("Object, row 1", exact=True)).to_have_value("Bee 01")
    k, start = design.get_by_label("Facts shown (k)"), design.locator("#start")
    expect(k).to_have_value(str(count // 2))
    expect(start).to_be_enabled()
    # Events of the upload itself come after its answer.
    design.wait_for_timeout(1000)
    settle(design)
    expect(k).to_have_value(str(count // 2))
    expect(start).to_be_enabled()
    design.get_by_role("button", name="Clear the table").click()
    expect(design.get_by_label("Subject, row 1", exact=True)).to_have_value("")
    give(design, "facts.csv", "".join(f"Cy {i:02},Dee {i:02}\n" for i in range(20)).encode())
    expect(k).to_have_value("10")


def test_what_a_file_does_not_say_is_asked(design: Page) -> None:
    page, panel = design, design.locator(".question-panel")
    give(page, "namen.csv", "Jiří Beneš;Božena Čapková\nŽofie Malá;Šimon Dvořák\n".encode("cp1250"))
    expect(panel).to_contain_text("namen.csv")
    assert cells(page) == ["", ""], "nothing is taken before it is said how"
    page.get_by_label("Code page").click()
    page.get_by_role("option", name="Central Europe").click()
    expect(panel.locator(".preview")).to_contain_text("Božena Čapková")
    page.get_by_role("button", name="Read it this way").click()
    expect(page.get_by_label("Object, row 1", exact=True)).to_have_value("Božena Čapková")
    expect(panel).to_be_hidden()

    page.locator("#facts-table input").first.click()
    paste(page, "question\tanswer\nLou Oz\tPip Quy\n")
    expect(panel).to_contain_text("may be a header or a fact")
    page.get_by_role("button", name="Read it this way").click()
    expect(page.get_by_label("Object, row 3")).to_have_value("Pip Quy")
    expect(panel).to_be_hidden()

    give(page, "wide.csv", b"a,b,c\n1,Uma Vi,Wes Xu\n2,Yan Zoe,Abe Bo\n")
    expect(panel).to_be_visible()
    while panel.is_visible():
        if page.get_by_label("Object", exact=True).is_visible():
            page.get_by_label("Subject", exact=True).click()
            page.get_by_role("option", name="Uma Vi").click()
            page.get_by_label("Object", exact=True).click()
            page.get_by_role("option", name="Wes Xu").click()
            expect(panel.locator("th").nth(3)).to_have_text("object")
        page.get_by_role("button", name="Read it this way").click()
        settle(page)
    expect(page.get_by_label("Object, row 4")).to_have_value("Wes Xu")


def test_a_large_file_holds_nobody_elses_keystroke(design: Page, chromium: Browser, address: str) -> None:
    rows = "\n".join(f"Subject {i:07},Object {i:07}" for i in range(290_000))
    give(design, "many.csv", f"subject,object\n{rows}\n".encode())
    other = chromium.new_page()
    open_design(other, address)
    other.get_by_label("Name", exact=True).fill("a: name")
    other.get_by_role("button", name="See it as YAML").click()
    expect(other.locator(".cm-content")).to_contain_text("name: 'a: name'")
    refused = design.get_by_text("more than the table holds")
    assert not refused.is_visible(), "the other one was answered first"
    expect(refused).to_be_visible(timeout=120_000)
    settle(other)
    other.close()
