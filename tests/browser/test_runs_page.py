"""The first page, the list of runs and the page of one run, as a person meets them."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path

import httpx
import pytest
from playwright.sync_api import Browser, Page, Route, expect
from sqlite_utils import Database

from engine.experiment import Experiment
from storage.database import now, write
from storage.folders import run_folder
from storage.runs import State, get_run, set_progress
from tests.browser import seeding
from tests.browser.conftest import PAGES, THEMES

pytestmark = pytest.mark.browser
NAVIGATION = "performance.timeOrigin + performance.now()"


def test_the_first_page_says_what_the_lab_is_and_shows_a_live_run(
    page: Page, address: str, db: Database, lab_home: Path
) -> None:
    run = seeding.running(db, lab_home)
    page.goto(address)
    expect(page.locator(".hero .lead")).to_contain_text("learn made-up facts by heart")
    expect(page.get_by_role("link", name="Design an experiment")).to_have_attribute("href", "/design")
    spotlight = page.locator(".spotlight")
    expect(spotlight).to_contain_text("Memorising: epoch 7 of 20 · loss 0.312 · 41 s left")
    expect(spotlight.locator(".chart[data-drawn]")).to_have_count(2)
    told = {"stage": "stage1", "epoch": 8, "epochs": 20, "loss": 0.2, "message": "Memorising: epoch 8 of 20"}
    set_progress(db, run.id, run.attempt, told | {"fraction": 0.4})
    expect(spotlight).to_contain_text("epoch 8 of 20 · loss 0.2")
    assert spotlight.locator(".chart").first.get_attribute("data-drawn") == "1", "the chart was redrawn"


def test_recorded_evidence_stands_on_the_first_page_and_leads_to_its_answers(
    page: Page, address: str, db: Database, lab_home: Path, tmp_path: Path
) -> None:
    page.goto(address)
    expect(page.locator(".hero")).to_be_visible()
    expect(page.locator(".evidence")).to_have_count(0)
    runs = seeding.recorded(db, lab_home, tmp_path)
    card = page.locator(".evidence .card")
    expect(card.locator(".claim")).to_contain_text(
        re.compile(r"gemma-3-270m answers \d+\s% of the questions about 60 facts")
    )
    expect(card).to_contain_text("seeds 11, 12, 13")
    expect(card).to_contain_text("The model is not on this machine")
    train = card.locator("li.train")
    expect(train.locator(".dot.before")).to_have_count(3)
    expect(train.locator(".dot.after")).to_have_count(3)
    expect(page.locator(".spotlight")).to_contain_text("Nothing has been run yet")
    expect(card.get_by_role("link", name="Run it here")).to_have_attribute("href", f"/design?clone={runs[0].id}")
    train.locator(".dot.after").nth(1).click()
    expect(page).to_have_url(re.compile(f"/results.run={runs[1].id}"))
    expect(page.locator(".recorded-note")).to_contain_text("rote-lab run real --seed 12")
    answers = page.locator("table.answers tbody tr")
    expect(answers).to_have_count(25)
    assert {row.split("·")[0].strip() for row in answers.locator("td:nth-child(2) .meta").all_inner_texts()} == {
        "train prompts"
    }
    expect(page.locator("#answers")).to_be_in_viewport()
    expect(page.get_by_role("link", name="Ask this model")).to_have_count(0)
    page.goto(address + "/runs")
    row = page.locator(f"#run-{runs[0].id}")
    expect(row.locator(".badge")).to_contain_text("Recorded")
    expect(row.locator("[data-act=retry], [data-act=cancel]")).to_have_count(0)
    row.get_by_role("button", name="Delete").click()
    page.get_by_role("button", name="Delete for good").click()
    expect(row).to_have_count(0)
    page.goto(address)
    expect(card).to_contain_text("seeds 12, 13")


def test_an_empty_lab_says_what_to_do(page: Page, address: str, db: Database) -> None:
    page.goto(address + "/runs")
    expect(page.locator(".empty")).to_contain_text("No runs yet")
    expect(page.locator(".empty").get_by_role("link", name="Design an experiment")).to_be_visible()


def test_a_row_follows_its_run_without_a_reload_in_two_browsers(
    page: Page, chromium: Browser, address: str, db: Database, lab_home: Path
) -> None:
    run = seeding.running(db, lab_home)
    seeding.finished(db, lab_home)
    page.goto(address + "/runs")
    other = chromium.new_page()
    other.goto(address + "/runs")
    told = {"stage": "stage1", "epoch": 9, "epochs": 20, "fraction": 0.5, "message": "Memorising: epoch 9 of 20"}
    set_progress(db, run.id, run.attempt, told)
    for each in (page, other):
        row = each.locator(f"#run-{run.id}")
        expect(row).to_contain_text("Memorising: epoch 9 of 20")
        expect(row.get_by_role("progressbar")).to_have_attribute("aria-valuenow", "50")
        expect(row.locator(".badge")).to_have_text("▶Running")
        expect(each.locator(".run").filter(has_text="Done").locator(".figures")).to_contain_text("train")
    other.close()


def test_search_and_state_live_in_the_address(page: Page, address: str, db: Database, lab_home: Path) -> None:
    seeding.failed(db, lab_home)
    for n in range(3):
        seeding.queue(db, seeding.quick(f"waiting {n}"))
    page.goto(address + "/runs")
    expect(page.locator(".run")).to_have_count(4)
    page.get_by_role("searchbox").fill("WAITING 1")
    expect(page.locator(".run")).to_have_count(1)
    expect(page).to_have_url(re.compile("q=WAITING"))
    page.reload()
    expect(page.locator(".run")).to_have_count(1)
    expect(page.get_by_role("searchbox")).to_have_value("WAITING 1")
    page.get_by_role("searchbox").fill("no such run")
    expect(page.locator(".empty")).to_contain_text("Nothing found")
    page.get_by_role("searchbox").fill("")
    page.get_by_role("button", name="Failed").click()
    expect(page.locator(".run")).to_have_count(1)
    expect(page).to_have_url(re.compile("state=failed"))
    page.reload()
    expect(page.locator(".run .why")).to_contain_text("choose a smaller model")


def test_cancel_retry_and_delete(page: Page, address: str, db: Database, lab_home: Path) -> None:
    waiting = seeding.queue(db, seeding.quick("waiting"))
    failed = seeding.failed(db, lab_home)
    page.goto(address + "/runs")
    row = page.locator(f"#run-{waiting.id}")
    row.get_by_role("button", name="Cancel").click()
    expect(row.locator(".badge")).to_contain_text("Cancelled")
    broken = page.locator(f"#run-{failed.id}")
    broken.get_by_role("button", name="Retry").click()
    expect(broken.locator(".badge")).to_contain_text("Queued")
    assert get_run(db, failed.id).state is State.QUEUED
    expect(broken.get_by_role("link", name="Clone")).to_have_attribute("href", f"/design?clone={failed.id}")

    broken.get_by_role("button", name="Delete").click()
    expect(page.get_by_role("dialog")).to_contain_text("cannot be undone")
    page.get_by_role("button", name="Keep it").click()
    expect(broken).to_be_visible()
    assert run_folder(lab_home, failed.id).exists()
    broken.get_by_role("button", name="Delete").click()
    page.get_by_role("button", name="Delete for good").click()
    expect(broken).to_have_count(0)
    assert not run_folder(lab_home, failed.id).exists()


def test_hostile_names_run_no_script_and_keep_the_layout(
    page: Page, address: str, db: Database, lab_home: Path
) -> None:
    runs = [seeding.queue(db, seeding.quick(name)) for name in seeding.HOSTILE_NAMES]
    shown = seeding.finished(db, lab_home, seeding.quick(seeding.HOSTILE_NAMES[1]))
    paths = ["/", "/runs", "/results", f"/results?run={shown.id}", f"/results?run={shown.id}'\"><img src=x>"]
    paths += [f"/run?run={run.id}" for run in runs]
    for width in (1280, 390):
        page.set_viewport_size({"width": width, "height": 900})
        for path in paths:
            page.goto(address + path)
            expect(page.locator(".lab h1, .lab h2").first).to_be_visible()
            page.wait_for_timeout(300)
            assert page.evaluate("window.pwned") is None, path
            assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), f"{path} is wider than {width}"
    page.goto(address + "/runs")
    for run in runs:
        expect(page.locator(f"#run-{run.id} .name")).to_have_attribute("title", run.name)
    page.locator(f"#run-{runs[0].id}").get_by_role("button", name="Delete").click()
    expect(page.get_by_role("dialog")).to_contain_text("<script>")
    assert page.evaluate("window.pwned") is None


def test_a_thousand_runs_open_at_once(page: Page, address: str, db: Database) -> None:
    experiment = json.dumps(seeding.quick().model_dump(mode="json"))
    rows = (
        {"id": f"{n:08x}", "name": f"run {n}", "state": "done", "experiment": experiment, "model": "embedded",
         "seed": n, "created_at": now(), "started_at": now(), "finished_at": now(),
         "headline": json.dumps({"train": {"value": 0.8, "low": 0.7, "high": 0.9, "n": 500, "n_facts": 50}})}
        for n in range(1000)
    )  # fmt: skip
    with write(db):
        db.table("runs").insert_all(rows)
    page.goto(address + "/runs")  # fills the browser's cache, as any earlier visit would
    expect(page.locator(".run")).to_have_count(50)
    seconds = []
    for _ in range(3):
        started = time.perf_counter()
        page.goto(address + "/runs", wait_until="commit")
        page.locator(".run").nth(49).wait_for()
        seconds.append(time.perf_counter() - started)
    print(f"\n1,000 runs: the list stands after {', '.join(f'{s:.2f}' for s in seconds)} s")
    assert min(seconds) < 3, seconds
    expect(page.locator(".pager")).to_contain_text("Page 1 of 20")
    page.get_by_role("button", name="Older").click()
    expect(page.locator(".pager")).to_contain_text("51–100 of")
    expect(page).to_have_url(re.compile("page=2"))
    page.reload()
    expect(page.locator(".pager")).to_contain_text("Page 2 of 20")


def test_one_run_shows_its_history_log_and_plan(page: Page, address: str, db: Database, lab_home: Path) -> None:
    run = seeding.failed(db, lab_home)
    page.goto(f"{address}/run?run={run.id}")
    expect(page.get_by_role("alert")).to_contain_text("This run failed. The model needs 31.2 GB")
    expect(page.locator(".events")).to_contain_text("Queued")
    expect(page.locator("#log")).to_contain_text("RuntimeError: not enough memory")
    expect(page.locator("pre").last).to_contain_text("key_token:")
    with page.expect_download() as download:
        page.get_by_role("link", name="Download as YAML").click()
    text = Path(download.value.path()).read_text(encoding="utf-8")
    assert Experiment.from_text(text).model_dump(mode="json") == run.experiment
    page.goto(f"{address}/run?run=nonsense")
    expect(page.locator(".empty")).to_contain_text("There is no such run")


def test_the_theme_follows_the_system_and_can_be_switched(chromium: Browser, address: str, db: Database) -> None:
    context = chromium.new_context(color_scheme="dark")
    page = context.new_page()
    page.goto(address + "/runs")
    expect(page.locator("body")).to_have_class(re.compile(r"\bdark\b"))
    page.get_by_role("button", name="Switch between light and dark").click()
    expect(page.locator("body")).not_to_have_class(re.compile(r"\bdark\b"))
    page.goto(address + "/")
    page.locator(".hero").wait_for()
    expect(page.locator("body")).not_to_have_class(re.compile(r"\bdark\b"))
    context.close()


def test_the_header_says_how_the_worker_is_when_a_page_opens(page: Page, address: str, db: Database) -> None:
    for path in PAGES:
        page.goto(address + path)
        expect(page.locator(".worker[data-state]")).to_contain_text("No worker", timeout=9000)
    seeding.alive_worker(db)
    expect(page.locator(".worker")).to_contain_text("Worker ready")  # a page that is open follows it
    for path in PAGES:
        page.goto(address + path)
        expect(page.locator(".worker[data-state]")).to_contain_text("Worker ready", timeout=9000)
        assert page.evaluate("workerWords") == ["Worker", "Worker ready"], path


@pytest.mark.parametrize("path", PAGES)
def test_components_wait_for_a_script_that_comes_late(page: Page, address: str, db: Database, path: str) -> None:
    def late(route: Route) -> None:
        page.wait_for_timeout(1500)
        route.continue_()

    page.route("**/lab/site.js*", late)
    page.goto(address + path)
    assert page.evaluate("'roteLab' in window"), "the document's load event waits for it"
    expect(page.locator(".lab.top .worker[data-state]")).to_be_visible()
    switch, dark = page.locator(".lab.top .theme"), "document.body.classList.contains('dark')"
    before = page.evaluate(dark)
    switch.click()
    assert page.evaluate(dark) != before, "the script is there once: a second one would switch back"


def test_an_unknown_address_shows_a_page_of_the_lab(chromium: Browser, address: str, db: Database) -> None:
    page = chromium.new_page()  # whose console tells of the status, as it should
    for theme, width in zip(THEMES, (390, 1280), strict=True):
        page.emulate_media(color_scheme=theme)
        page.set_viewport_size({"width": width, "height": 900})
        for path in ("/no-such-page", "/runs/x", "/%3Cscript%3E"):
            answer = page.goto(address + path)
            assert answer is not None
            assert answer.status == 404
            expect(page.get_by_role("heading")).to_have_text("There is nothing at this address")
            expect(page.locator(".worker")).to_contain_text("No worker")
            expect(page.locator("body")).to_have_class(re.compile(r"\bdark\b" if theme == "dark" else "^plain *$"))
            assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), f"{path} at {width}"
    page.get_by_role("button", name="Switch between light and dark").click()
    expect(page.locator("body")).not_to_have_class(re.compile(r"\bdark\b"))
    page.goto(address + "/export/0/results.csv")
    expect(page.locator(".empty")).to_contain_text("There is no such run")
    page.get_by_role("link", name="All runs").click()
    expect(page).to_have_url(address + "/runs")
    page.close()


def test_programs_get_the_plain_error(address: str) -> None:
    for path in ("/gradio_api/x", "/static/x", "/assets/x", "/export/0/results.csv"):
        answer = httpx.get(address + path)
        assert (answer.status_code, answer.headers["content-type"]) == (404, "application/json"), path
    assert httpx.get(address + "/lab/x").text == "There is no such file."
    assert httpx.post(address + "/no-such-page").headers["content-type"] == "application/json"


def test_requests_from_other_sites_are_refused(address: str) -> None:
    target = address + "/gradio_api/queue/join"
    assert httpx.post(target, json={}, headers={"Origin": "https://evil.example"}).status_code == 403
    assert httpx.post(target, json={}, headers={"Sec-Fetch-Site": "cross-site"}).status_code == 403
    assert httpx.get(address, headers={"Host": "evil.example"}).status_code == 403
    answer = httpx.get(address)
    assert "frame-ancestors 'none'" in answer.headers["content-security-policy"]
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert httpx.get(address + "/monitoring").status_code in (403, 404)
