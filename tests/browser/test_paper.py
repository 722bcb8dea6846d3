"""The Paper page: recorded figures at once, a study of this lab in their place, whose they are said and chosen."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from app.server.first_start import MARK
from storage.database import open_database
from storage.studies import list_studies
from tests.browser import study_seeding
from tests.browser.conftest import serving

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def paper_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A lab in which nothing was measured, that is not opened for the first time."""
    home = tmp_path_factory.mktemp("paper")
    (home / MARK).write_text("Not the first start.\n")
    return home


@pytest.fixture(scope="module")
def address(paper_home: Path) -> Iterator[str]:
    """The address of a server over it, without a worker."""
    with serving(paper_home) as found:
        yield found


def test_recorded_figures_are_there_and_a_study_of_this_lab_takes_their_place(
    page: Page, address: str, paper_home: Path
) -> None:
    page.goto(f"{address}/studies")
    page.get_by_role("navigation", name="Pages").get_by_role("link", name="Paper").click()
    depth, languages = page.locator("#paper-depth"), page.locator("#paper-languages")
    expect(depth).to_contain_text(re.compile(r"recorded on gemma-3-270m, .*6 runs"))
    expect(depth).to_contain_text("Trained otherwise than in the paper")
    expect(depth.locator(".claims .verdict.agrees")).to_have_count(5)
    for place, name in enumerate(("depth", "languages")):
        page.get_by_label("Our figures").nth(place).select_option(value="paper-main-embedded")
        expect(page).to_have_url(re.compile(f"{name}%3Dpaper-main-embedded"))
    expect(depth).to_contain_text(re.compile(r"recorded on embedded, 20\d\d-\d\d-\d\d, .*18 runs"))
    expect(depth.locator(".claims li")).to_have_count(6)
    expect(depth.locator(".claims li").nth(1)).to_contain_text(
        re.compile(r"agrees.*0\.14 → 0\.92 here, 0\.35 → 0\.98 there")
    )
    expect(languages.locator(".verdict.contradicts")).to_be_visible()
    expect(page.locator("#paper-reasoning .verdict").filter(has_text="not seen here")).to_have_count(3)
    table = page.locator(".paper-table").first
    expect(table.locator("tbody tr", has_text="near 0")).to_contain_text(
        re.compile(r"0\.98\s*0\.92 \[0\.88–0\.95\]\s*n = 1.500")
    )
    expect(page.locator(".chart svg, .chart canvas").first).to_be_visible()
    page.get_by_label("In the chart").first.select_option(label="Key token, before stage 2")
    expect(page).to_have_url(re.compile("columns=depth%3Dkey"))
    expect(page.locator(".chart").first).to_have_attribute("aria-label", re.compile("Key token, before stage 2"))

    table.get_by_role("button", name="Run it again in this lab").click()
    page.get_by_role("button", name="Run it", exact=True).click()
    expect(page.get_by_text("“paper-main” is in the queue")).to_be_visible()
    expect(depth).to_contain_text("This lab measures it: 0 of 18 runs done")
    db = open_database(paper_home)
    (study,) = list_studies(db)
    study_seeding.finish(db, study.id, 18)
    db.close()
    page.goto(f"{address}/paper?columns=depth%3Dkey")
    expect(depth).to_contain_text(f"This lab’s study {study.id}")
    expect(page).to_have_url(re.compile("columns=depth%3Dkey"))
    page.get_by_label("Our figures").first.select_option(value="paper-main-embedded")
    expect(depth).to_contain_text("recorded on embedded")
    expect(languages).to_contain_text(study.id)
    page.get_by_role("link", name="watch it fill").or_(languages.get_by_role("link", name=study.id)).first.click()
    expect(page).to_have_url(re.compile(f"/studies\\?study={study.id}"))


def test_what_an_address_names_wrongly_is_as_usual(page: Page, address: str) -> None:
    page.goto(
        f"{address}/paper?sources=depth%3D%3Cimg%20src%3Dx%20onerror%3Dalert(1)%3E&columns=depth%3D__proto__%3B%3B%3D"
    )
    expect(page.locator("#paper-depth .claims li")).to_have_count(6)
    with page.expect_download() as told:
        page.locator(".paper-table").first.get_by_role("link", name="Figures (CSV)").click()
    assert told.value.path().read_text().startswith("table,series,x,column,published")
