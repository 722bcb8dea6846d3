"""The table of facts by itself: the page's own script, told the lab's answers in any order."""

from __future__ import annotations

from typing import Any

import pytest
from playwright.sync_api import Page, expect

from app.design.facts_table import SCRIPT, table_value
from app.design.tabs import Screen

pytestmark = pytest.mark.browser

# What Gradio gives a component's script.
HOST = """(script) => {
  document.body.innerHTML = '<div id="host"><div class="facts-table"></div></div>';
  window.props = {}; window.watched = {}; window.sent = [];
  new Function("element", "props", "watch", "trigger", script)(
    document.getElementById("host"), window.props,
    (name, heard) => { window.watched[name] = heard; },
    (name, data) => window.sent.push(structuredClone(data)));
}"""
TELL = "([name, told]) => { window.props[name] = told; window.watched[name](); }"


@pytest.fixture
def table(page: Page) -> Page:
    """A page with nothing but the table, which shows one row."""
    page.goto("about:blank")
    page.evaluate(HOST, SCRIPT.read_text(encoding="utf-8"))
    tell_rows(page, 1, 0, [[1, "Ann", ""]])
    return page


def tell_rows(page: Page, revision: int, taken: int, rows: list[list[Any]]) -> None:
    """The lab's answer with all rows, as of a revision of the draft and after so many of this tab's steps."""
    value = table_value("r", rows, {}) | {"taken": taken} | Screen("d", seen=revision).order
    page.evaluate(TELL, ["value", value])


def tell_marks(page: Page, revision: int, taken: int, words: str = "") -> None:
    """The lab's answer to this tab's own edit, which brings no rows."""
    rows = {"1": [["subject", "error", words]]} if words else {}
    page.evaluate(TELL, ["marks", {"taken": taken, "rows": rows} | Screen("d", seen=revision).order])


def shown(page: Page) -> list[str]:
    return [field.input_value() for field in page.locator("tbody input").all()]


def type_second(page: Page) -> int:
    """Type a second row; returns its number once it was sent."""
    page.get_by_label("Subject, row 2").fill("Cy")
    page.get_by_label("Subject, row 2").blur()
    page.wait_for_function("window.sent.length > 0")
    number: int = page.evaluate("window.sent.at(-1).steps.at(-1).cells[0][0]")
    return number


def test_rows_from_before_an_edit_that_was_confirmed_do_not_undo_it(table: Page) -> None:
    number = type_second(table)
    tell_marks(table, 3, 1)
    tell_rows(table, 2, 0, [[1, "Ann", "Bee"]])
    assert shown(table) == ["Ann", "Bee", "Cy", "", "", ""]
    tell_rows(table, 4, 1, [[1, "Ann", "Bee"], [number, "Cy", "Dee"]])
    assert shown(table) == ["Ann", "Bee", "Cy", "Dee", "", ""]
    table.get_by_label("Subject, row 1").fill("Flo")
    table.wait_for_function("window.sent.length > 1")
    assert table.evaluate("window.sent.at(-1).steps.map((step) => step.number)") == [2], "confirmed steps go once"


def test_rows_that_were_overtaken_by_later_ones_are_not_shown(table: Page) -> None:
    tell_rows(table, 5, 0, [[1, "Ann", "Bee"], [2, "Cy", ""]])
    tell_rows(table, 4, 0, [[1, "Ann", "Bee"]])
    assert shown(table) == ["Ann", "Bee", "Cy", "", "", ""]
    # Another draft counts for itself.
    value = table_value("r", [[1, "Hal", "Ivy"]], {}) | {"taken": 0} | Screen("e", seen=1).order
    table.evaluate(TELL, ["value", value])
    assert shown(table) == ["Hal", "Ivy", "", ""]


def test_remarks_that_were_overtaken_are_not_shown(table: Page) -> None:
    tell_marks(table, 3, 0, "the cell is empty")
    tell_marks(table, 2, 0)
    expect(table.locator("tr.problem")).to_contain_text("the cell is empty")
    tell_marks(table, 4, 0)
    expect(table.locator("tr.problem")).to_have_count(0)


def test_a_step_that_is_not_confirmed_is_sent_again(table: Page) -> None:
    type_second(table)
    table.get_by_label("Object, row 1").fill("Bee")
    table.wait_for_function("window.sent.length > 1")
    assert table.evaluate("window.sent.at(-1).steps.map((step) => step.number)") == [1, 2]
