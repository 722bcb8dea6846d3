"""The Studies page: from an empty lab to a grid that fills, asked in several ways."""

from __future__ import annotations

import csv
import io
import re
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from app.server.first_start import MARK
from engine.studies.presets import STUDIES
from engine.studies.study import Study
from storage.database import open_database
from storage.studies import delete_study, list_studies, study_counts
from tests.browser import study_seeding
from tests.browser.conftest import serving

pytestmark = pytest.mark.browser
HOSTILE = "<img src=x onerror='window.pwned=1'> ${window.pwned=2}"


@pytest.fixture(scope="module")
def studies_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A lab without a study, that is not opened for the first time."""
    home = tmp_path_factory.mktemp("studies")
    (home / MARK).write_text("Not the first start.\n")
    return home


@pytest.fixture(scope="module")
def address(studies_home: Path) -> Iterator[str]:
    """The address of a server over it, without a worker."""
    with serving(studies_home) as found:
        yield found


def choose(page: Page, label: str, option: str) -> None:
    page.get_by_label(label, exact=True).select_option(label=option)


def test_a_study_is_started_and_looked_at(page: Page, address: str, studies_home: Path) -> None:
    page.goto(f"{address}/studies")
    expect(page.get_by_role("heading", name="No studies yet")).to_be_visible()
    page.get_by_role("button", name="Look at “paper-main”").click()
    form = page.locator("#study-form")
    expect(form.get_by_label("Its description (YAML)")).to_have_value(STUDIES.text("paper-main"))
    expect(form.get_by_label("Begin with")).to_have_value("paper-main")
    expect(form.locator(".study-plan")).to_contain_text(re.compile(r"18 runs, .* [\d.]+ GB at most"))
    assert not list_studies(open_database(studies_home)), "looked at is not started"
    form.get_by_role("button", name="Start it in the background").click()
    expect(page.get_by_text("0 of 18 runs done")).to_be_visible()
    table = page.locator(".study-table table")
    expect(table.locator("tbody td")).to_have_text(["queued"] * 12)
    waits = table.locator("tbody td a").first.get_attribute("href") or ""
    assert re.fullmatch(r"/run\?run=[0-9a-f]{8}", waits), "a place without a figure opens what it waits for"
    expect(page.locator(".filling")).to_contain_text("Waits for a worker: none is running")
    assert "study=" in page.url

    db = open_database(studies_home)
    (study,) = list_studies(db)
    study_seeding.finish(db, study.id, 14)
    page.reload()
    expect(page.get_by_text("14 of 18 runs done")).to_be_visible()
    expect(table.locator("tbody tr").last).to_contain_text(re.compile(r"50.*\d+\s%\s*\[\d+–\d+\]", re.DOTALL))
    expect(page.locator(".chart svg, .chart canvas").first).to_be_visible()
    # What does not change is not drawn anew: a list that is open stays open while the study goes on.
    page.evaluate("document.querySelector('#study-measure').dataset.kept = 'yes'")
    study_seeding.finish(db, study.id, 15)
    expect(page.get_by_text("15 of 18 runs done")).to_be_visible()
    assert page.evaluate("document.querySelector('#study-measure').dataset.kept") == "yes"
    shown = table.inner_text()
    choose(page, "Measure", "Key token, after stage 1")
    expect(table).not_to_have_text(shown)
    expect(page).to_have_url(re.compile("measure=key"))
    choose(page, "Rows", "Stage 2 epochs")
    expect(table.locator("tbody th")).to_have_text(["1", "8"])
    choose(page, "Facts in stage 2 (k)", "1")
    expect(page).to_have_url(re.compile("fixed=stage2.facts"))
    here = table.inner_text()
    page.reload()
    expect(table).to_have_text(here, use_inner_text=True)
    seed = table.locator(".seeds a").first
    assert re.fullmatch(r"/results\?run=[0-9a-f]{8}", seed.get_attribute("href") or "")

    page.get_by_role("button", name="Stop", exact=True).click()
    page.get_by_role("button", name="Stop it").click()
    expect(page.get_by_role("button", name="Go on with the rest")).to_be_visible()
    assert study_counts(db, study.id) == {"done": 15, "cancelled": 3}
    page.get_by_role("button", name="Go on with the rest").click()
    expect(page.get_by_text("15 of 18 runs done")).to_be_visible()
    db.close()


def test_a_study_of_ones_own_is_told_before_it_is_started(page: Page, address: str, studies_home: Path) -> None:
    page.goto(f"{address}/studies")
    page.get_by_role("button", name="A study of my own").click()
    text = page.get_by_label("Its description (YAML)")
    tell = page.get_by_role("button", name="Say what it would run")
    tell.click()
    expect(page.locator(".study-plan")).to_contain_text(re.compile(r"9 runs, which memorise 3 times.*about \d+"))
    text.fill("experiment: quick\naxes: {stage2.fact: [1]}")
    tell.click()
    expect(page.get_by_role("alert")).to_contain_text("with stage2.fact=1")
    text.fill("experiment: quick\naxes: {stage2.fcts: [1]}")
    page.get_by_role("button", name="Start it in the background").click()
    # Other words than before: a click while the last one is under way counts for nothing.
    expect(page.get_by_role("alert")).to_contain_text("with stage2.fcts=1")
    page.wait_for_timeout(300)
    text.fill(f"name: mine\nexperiment: quick\naxes: {{stage2.facts: [2, 3]}}\ndescription: {HOSTILE!r}")
    page.get_by_role("button", name="Start it in the background").click()
    expect(page.get_by_role("heading", name="mine")).to_be_visible()
    expect(page.get_by_text("0 of 2 runs done")).to_be_visible()
    assert page.evaluate("window.pwned") is None
    db = open_database(studies_home)
    mine = list_studies(db)[0].id
    assert list_studies(db)[0].name == "mine"

    page.get_by_role("button", name="Make it wider").click()
    expect(page.get_by_role("button", name="Add what is new to “mine”")).to_be_in_viewport()
    expect(text).to_have_value(re.compile("stage2.facts:"))
    tell.click()
    expect(page.locator(".study-plan")).to_contain_text("Nothing of this is new in “mine”")
    described = text.input_value()
    wider = Study.from_text(described).model_dump(mode="json") | {"axes": {"stage2.facts": [2, 3, 4]}}
    text.fill(Study.from_data(wider).to_yaml())
    tell.click()
    expect(page.locator(".study-plan")).to_contain_text("1 run would be added to “mine”, whose 2 stay as they are")
    assert study_counts(db, mine) == {"queued": 2}
    page.get_by_role("button", name="Add what is new to “mine”").click()
    expect(page.get_by_text("0 of 3 runs done")).to_be_visible()
    expect(page.locator(".study-plan")).to_contain_text("1 run of “mine” now waits")
    text.fill(described)
    page.get_by_role("button", name="Add what is new to “mine”").click()
    expect(page.get_by_role("alert")).to_contain_text("1 run would no longer be part of it")
    assert study_counts(db, mine) == {"queued": 3} and page.evaluate("window.pwned") is None

    begun = page.get_by_label("Begin with")
    begun.click()
    page.get_by_role("option", name="paper-reasoning").click()
    expect(text).to_have_value(STUDIES.text("paper-reasoning"))
    expect(page.locator(".study-plan")).to_contain_text("12 runs")
    expect(page.get_by_role("button", name="Add what is new")).to_have_count(0)
    expect(page.get_by_role("button", name="A study of my own")).to_be_visible()
    delete_study(db, list_studies(db)[0].id)
    db.close()


def test_what_an_address_names_wrongly_is_said_and_names_are_only_text(
    page: Page, address: str, studies_home: Path
) -> None:
    db = open_database(studies_home)
    study = study_seeding.paper(db, done=14, name=HOSTILE)
    page.goto(f"{address}/studies?study=nosuch&rows=__proto__&columns=%3Cb%3E&measure=x&fixed=a%3Db%3Bc")
    expect(page.get_by_role("alert")).to_contain_text("There is no study “nosuch”")
    expect(page.get_by_role("heading", name="<img src=x")).to_be_visible()
    page.goto(f"{address}/studies?study={study}&measure=train&rows=stage2.epochs")
    expect(page.get_by_role("heading", name="<img src=x")).to_be_visible()
    assert page.evaluate("window.pwned") is None
    hrefs = [link.get_attribute("href") or "" for link in page.locator(".exports a").all()]
    texts = [href for href in hrefs if href.partition("?")[0].endswith((".csv", ".tex", ".yaml"))]
    table, tex, described = (page.request.get(address + href).text() for href in texts)
    rows = list(csv.DictReader(io.StringIO(table)))
    assert {row["stage2.epochs"] for row in rows} == {"1", "8"} and all(0 <= float(row["value"]) <= 1 for row in rows)
    assert r"Stage 2 epochs & 3 & 6 & 10 & 20 \\" in tex and tex.count(r"\hline") == 3 and "[" in tex
    assert tex.startswith("% <img src=x") and "train" in tex.splitlines()[0].lower()
    assert Study.from_text(described).name == HOSTILE
    delete_study(db, study)
    page.get_by_role("button", name="Stop", exact=True).click()
    page.get_by_role("button", name="Stop it").click()
    expect(page.locator("body")).to_contain_text("This study is no longer there")
    db.close()


def test_a_thousand_runs_open_at_once(page: Page, address: str, studies_home: Path) -> None:
    db = open_database(studies_home)
    study = study_seeding.large(db)
    started = time.perf_counter()
    page.goto(f"{address}/studies?study={study}")
    expect(page.locator(".study-table tbody tr")).to_have_count(200)
    print(f"\n1,000 runs were there after {time.perf_counter() - started:.2f} s")
    delete_study(db, study)
    db.close()
