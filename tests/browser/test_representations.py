"""How a run represents prompts, on the page Results: charts beside the paper's figures, and the picture turned over."""

from __future__ import annotations

import csv
import io
import re
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page, expect
from sqlite_utils import Database

from storage.answers import open_answers
from storage.folders import run_folder
from tests.browser import seeding
from tests.browser.test_results_page import open_results

pytestmark = pytest.mark.browser
TWO: dict[str, Any] = {
    "relations": [
        {"name": name, "key_token": key, "facts": {"generate": 12}}
        for name, key in (("mother", "[Z]"), ("capital", "[Y]"))
    ],
    "stage1": {"epochs": 6},
    "stage2": {"facts": 4},
}


def test_the_figures_by_layer_and_the_picture_by_checkpoint(
    page: Page, address: str, db: Database, lab_home: Path
) -> None:
    run = seeding.finished(db, lab_home, seeding.quick("two <b>relations</b>", **TWO))
    open_results(page, address, run)
    section = page.locator("#representations")
    charts = section.locator(".chart[data-drawn]")
    expect(charts).to_have_count(3)
    expect(charts.first).to_have_attribute("aria-label", re.compile("^ΔCosSim.*by epochs of memorising"))
    expect(charts.first).to_contain_text("Published (Qwen2.5-1.5B)")
    expect(section).to_contain_text("Of 24 facts of all relations")

    section.get_by_text("The same as a table, with the paper’s figures").click()
    rows = section.locator("table tbody tr")
    expect(rows).to_have_count(5 + 4)
    expect(rows.last).to_contain_text("Published (Qwen2.5-1.5B)")
    expect(rows.last.locator("td")).to_have_text(["0.258", "–", "0.90", "0.71", "0.50", "–", "–", "–"])
    expect(rows.first.locator("td").first).to_have_text(re.compile(r"0\.\d{3} \[0\.\d{3}–0\.\d{3}\]"))

    section.get_by_role("radio", name="Last token of the subject").check()
    expect(page).to_have_url(re.compile("position=subject&layer=3"))
    page.reload()
    expect(section.get_by_role("radio", name="Last token of the subject")).to_be_checked()

    turned = section.get_by_role("radio", name="Generalised from epoch 6")
    expect(turned).to_be_checked()
    picture = charts.last
    expect(picture).to_have_attribute(
        "aria-label", re.compile(r"^144 prompts as points: generalised from epoch 6; .*variance")
    )
    marks = picture.locator("g.points > path, g.mark-symbol.role-mark path")
    expect(marks).to_have_count(144)
    places = "paths => paths.map(path => path.getAttribute('transform'))"
    before = marks.evaluate_all(places)
    section.get_by_role("radio", name="Base model").check()
    expect(section).to_contain_text("Base model (1 of 5)")
    expect(section.get_by_text("turn from one to the next")).to_be_visible()
    page.wait_for_function(
        "before => { const now = [...document.querySelectorAll('#representations .chart:last-of-type path')]"
        ".map(path => path.getAttribute('transform')).filter(Boolean); return now.length && !now.includes(before) }",
        arg=before[0],
    )
    exported = page.request.get(f"{address}/export/{run.id}/representations.csv").text()
    written = list(csv.DictReader(io.StringIO(exported)))
    assert {r["checkpoint"] for r in written} == {
        "base",
        "memorised@3",
        "memorised@6",
        "generalised@3",
        "generalised@6",
    }
    assert {r["layer"] for r in written} == {"0", "1", "2", "3"} and {r["measure"] for r in written} >= {"delta_cosine"}


def test_one_relation_has_no_delta_and_an_older_run_no_section(
    page: Page, address: str, db: Database, lab_home: Path
) -> None:
    run = seeding.finished(db, lab_home)
    open_results(page, address, run)
    section = page.locator("#representations")
    expect(section).to_contain_text("nothing lies between relations and there is no ΔCosSim")
    expect(section.locator(".chart[data-drawn]")).to_have_count(2)
    answers = open_answers(run_folder(lab_home, run.id))
    with answers.conn:
        answers.conn.execute("delete from representations")
        answers.conn.execute("delete from represented")
    answers.close()
    page.reload()
    page.locator(".finding").wait_for()
    expect(page.locator("table.answers tbody tr")).to_have_count(25)
    expect(section).to_have_count(0)
