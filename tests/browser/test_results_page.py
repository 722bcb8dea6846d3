"""The Results page: the finding, charts and tables, the map, the answers and the exports."""

from __future__ import annotations

import csv
import io
import json
import re
import zipfile
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect
from sqlite_utils import Database

from storage.answers import open_answers
from storage.folders import run_folder
from storage.measurements import list_results, replace_results
from storage.runs import Run
from tests.browser import seeding

pytestmark = pytest.mark.browser


@pytest.fixture
def run(db: Database, lab_home: Path) -> Run:
    """A finished run with drawn figures."""
    return seeding.finished(db, lab_home)


def open_results(page: Page, address: str, run: Run, more: str = "") -> None:
    page.goto(f"{address}/results?run={run.id}{more}")
    page.locator(".finding").wait_for()


def test_the_finding_in_plain_words(page: Page, address: str, run: Run) -> None:
    open_results(page, address, run)
    said = page.locator(".finding")
    expect(said.locator(".main")).to_have_text(
        re.compile(r"After stage 2 the model answers \d+\s%\s\[\d+–\d+\] of the questions about 50 facts")
    )
    expect(said).to_contain_text("before stage 2")
    expect(said).to_contain_text("In other languages: Spanish")
    expect(page.get_by_role("link", name="model card")).to_have_attribute("href", "/model-card")


def test_charts_and_tables_follow_the_choosers_and_the_address(page: Page, address: str, run: Run) -> None:
    open_results(page, address, run)
    charts = page.locator(".chart[data-drawn]")
    expect(charts).to_have_count(5)
    expect(charts.first).to_have_attribute("aria-label", re.compile("^Generation accuracy"))
    page.get_by_text("The same as a table").first.click()
    table = page.locator("table").first
    expect(table.get_by_role("columnheader")).to_have_text(
        ["Prompts", "Language", "base model", "memorised at epoch 20", "generalised from epoch 20"]
    )
    page.get_by_role("radio", name="Multiple choice").check()
    expect(charts.first).to_have_attribute("aria-label", re.compile("^Multiple choice"))
    expect(page.get_by_text("Chance is 1 %")).to_be_visible()
    page.get_by_role("radio", name="Trained").check()
    expect(page).to_have_url(re.compile("metric=choice_accuracy.*facts=trained"))
    page.reload()
    expect(page.get_by_role("radio", name="Multiple choice")).to_be_checked()
    expect(page.get_by_role("radio", name="Trained")).to_be_checked()


def test_a_click_on_the_map_opens_the_answer_and_leads_to_its_kin(page: Page, address: str, run: Run) -> None:
    open_results(page, address, run)
    canvas = page.locator("canvas")
    canvas.wait_for()
    box = canvas.bounding_box()
    assert box
    answer = page.locator(".card.answer")
    for share in (0.5, 0.52, 0.54, 0.56):
        canvas.click(position={"x": box["width"] * 0.4, "y": box["height"] * share})
        page.wait_for_timeout(500)
        if answer.count():
            break
    expect(answer).to_contain_text("One answer, generalised from epoch 20")
    expect(answer.locator(".hit, .miss").first).to_be_visible()
    assert answer.locator("tbody tr").count() == 9, "one answer for each checkpoint"
    answer.get_by_role("button", name="All answers to this prompt").click()
    expect(page.locator(".notice")).to_contain_text("Only answers to")
    expect(page.locator("table.answers tbody tr")).to_have_count(25)
    page.get_by_role("button", name="Show all").click()
    expect(page.locator(".notice")).to_have_count(0)


def test_answers_can_be_searched_filtered_and_paged(page: Page, address: str, run: Run) -> None:
    open_results(page, address, run)
    rows = page.locator("table.answers tbody tr")
    expect(rows).to_have_count(25)
    fact = run.experiment["relations"][0]["facts"][3]
    page.get_by_role("searchbox").fill(fact["subject"])
    expect(rows.first).to_contain_text(fact["subject"])
    expect(page.locator(".pager")).to_contain_text(re.compile(r"1–25 of \d+"))
    page.get_by_label("Answer", exact=True).click()
    page.get_by_role("option", name="✕ Misses").click()
    expect(rows.locator(".hit")).to_have_count(0)
    page.get_by_role("searchbox").fill("")
    expect(page.locator(".pager")).to_contain_text(re.compile(r"of \d+\W\d{3}"))
    page.get_by_role("button", name="Next").click()
    expect(page.locator(".pager")).to_contain_text("Page 2 of")
    page.get_by_role("searchbox").fill("nothing says this")
    expect(page.locator(".empty")).to_contain_text("No answer matches")


def test_answers_that_say_the_key_token_are_marked_and_found(page: Page, address: str, run: Run) -> None:
    open_results(page, address, run)
    expect(page.locator(".twins")).to_contain_text("need not have understood the question")
    page.locator("#answers").scroll_into_view_if_needed()
    page.get_by_label("Answer", exact=True).click()
    page.get_by_role("option", name="Says the key token").click()
    rows = page.locator("table.answers tbody tr")
    expect(rows.first.locator(".aloud")).to_have_text("says the key token")
    expect(rows.filter(has_not=page.locator(".aloud"))).to_have_count(0)
    rows.first.locator("button.verdict").click()
    expect(page.locator(".card.answer .aloud").first).to_be_visible()
    page.locator(".lab-panel, .choosers").get_by_text("Key token unsaid").first.click()
    expect(page).to_have_url(re.compile("metric=generation_accuracy_unaided"))
    expect(page.locator(".chart[data-drawn]").first).to_be_visible()


def test_exports_hold_everything_and_no_formula(
    page: Page, address: str, run: Run, db: Database, lab_home: Path
) -> None:
    answers = open_answers(run_folder(lab_home, run.id))
    with answers.conn:
        answers.conn.execute("update answers set answer = '=HYPERLINK(\"http://evil\")' where checkpoint = 'base'")
    answers.close()
    base = f"{address}/export/{run.id}"
    rows = list(csv.DictReader(io.StringIO(page.request.get(f"{base}/results.csv").text())))
    assert len(rows) == len(list_results(db, run.id))
    written = list(csv.DictReader(io.StringIO(page.request.get(f"{base}/answers.csv").text())))
    assert {r["checkpoint"] for r in written} == {r["checkpoint"] for r in rows}
    assert not any(r["answer"].startswith("=") for r in written)
    assert {(r["says_key_token"], "[Z]" in r["answer"]) for r in written} == {("1", True), ("0", False)}
    document = json.loads(page.request.get(f"{base}/results.json").body())
    assert document["run"]["id"] == run.id
    assert document["experiment"] == run.experiment
    assert len(document["rows"]) == len(rows)
    assert page.request.get(f"{address}/export/nonsense/results.csv").status == 404
    facts = sum(len(relation["facts"]) for relation in run.experiment["relations"])
    with zipfile.ZipFile(io.BytesIO(page.request.get(f"{base}/dataset.zip").body())) as archive:
        held = [name for name in archive.namelist() if "/facts/" in name]
        assert sum(archive.read(name).count(b"\n") for name in held) == facts
    with zipfile.ZipFile(io.BytesIO(page.request.get(f"{base}/task.zip?checkpoint=base").body())) as archive:
        assert f"rote_{run.id}_base/rote_lab_task.py" in archive.namelist()
    missing = page.request.get(f"{base}/task.zip?checkpoint=..%2F..%2Fetc")
    assert missing.status == 404 and "has no checkpoint" in missing.text()


def test_the_report_stands_on_its_own(page: Page, chromium: Browser, address: str, run: Run, tmp_path: Path) -> None:
    open_results(page, address, run)
    with page.expect_download() as download:
        page.get_by_role("link", name="Report (HTML)").click()
    path = tmp_path / "report.html"
    download.value.save_as(path)
    context = chromium.new_context(java_script_enabled=False, offline=True)
    asked: list[str] = []
    reader = context.new_page()
    reader.on("request", lambda request: asked.append(request.url))
    reader.goto(path.as_uri())
    expect(reader.locator("svg")).to_have_count(2)
    expect(reader.locator(".main")).to_contain_text("After stage 2 the model answers")
    assert asked == [path.as_uri()]
    assert "<script" not in path.read_text(encoding="utf-8")
    context.close()


def test_a_running_run_shows_what_is_there_so_far(page: Page, address: str, db: Database, lab_home: Path) -> None:
    run = seeding.running(db, lab_home)
    page.goto(f"{address}/results?run={run.id}")
    expect(page.locator(".results-head")).to_contain_text("Memorising: epoch 7 of 20")
    expect(page.locator(".empty").first).to_contain_text("No results yet")
    answers = open_answers(run_folder(lab_home, run.id))
    for checkpoint in ("base", "memorised@3"):
        rows = seeding.write_answers(answers, seeding.quick(), checkpoint)
        replace_results(db, run.id, checkpoint, rows)
    answers.close()
    expect(page.locator(".finding")).to_contain_text("Stage 2 has not been evaluated yet")
    expect(page.locator(".chart[data-drawn]").first).to_be_visible()


def test_without_a_run_there_is_a_choice(page: Page, address: str, run: Run) -> None:
    page.goto(f"{address}/results")
    page.locator(f'a[href="/results?run={run.id}"]').click()
    expect(page.locator(".finding")).to_be_visible()
