"""The Attack page: the story told from start to end on a small attack that was really measured."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from app.server.first_start import MARK
from engine.attack.experiment import AttackExperiment
from engine.execution.attacks.queue import queue_attack
from storage.attacks import attack_counts, delete_attack, list_attack_results, list_attacks, stop_attack
from storage.database import open_database
from tests.browser import attack_seeding
from tests.browser.conftest import serving

pytestmark = pytest.mark.browser
# Prompts may hold no braces but those of a subject.
MARKUP = "<img src=x onerror='window.pwned=1'>"
HOSTILE = MARKUP + " ${window.pwned=2} {{window.pwned=3}}"


@pytest.fixture(scope="module")
def attack_home(tmp_path_factory: pytest.TempPathFactory, shared_attack: Path) -> Path:
    """A lab with one measured attack."""
    home = tmp_path_factory.mktemp("attacked")
    (home / MARK).write_text("Not the first start: this test's own attack is the only one.\n")
    attack_seeding.measured(shared_attack, home)
    return home


@pytest.fixture(scope="module")
def address(attack_home: Path) -> Iterator[str]:
    """The address of a server over it; its models answer with the embedded server."""
    with serving(attack_home, ROTE_LAB_SERVER="embedded") as found:
        yield found


@pytest.fixture
def attack(attack_home: Path) -> Iterator[str]:
    """The measured attack's id. Attacks that a test queued are deleted after it."""
    db = open_database(attack_home)
    found = next(a.id for a in list_attacks(db) if a.name == attack_seeding.SMALL["name"])
    yield found
    for other in list_attacks(db):
        if other.id != found:
            stop_attack(db, other.id)
            delete_attack(db, other.id)
    db.close()


def heading(page: Page, text: str) -> None:
    expect(page.locator(".lab.stage > h2")).to_have_text(text)


def forth(page: Page) -> None:
    page.get_by_role("button", name="Next").click()


def test_the_story_from_start_to_end(page: Page, address: str, attack: str) -> None:
    page.goto(f"{address}/attack")
    banner = page.get_by_text("All persons and works are fictional.")
    expect(banner).to_be_visible()
    heading(page, "The model learnt pairs of names by rote, through a sign without meaning")
    expect(page.locator(".line mark").first).to_have_text("[X]")
    expect(page.locator(".line.harmful")).to_contain_text("bullies")

    forth(page)
    expect(page.locator(".predict .question")).to_contain_text(
        "10 attack facts teach a second meaning. Of the other 15"
    )
    page.get_by_label("How many of 15").fill("7")
    page.get_by_role("button", name="Lock it in").click()
    expect(page.locator(".locked")).to_contain_text("7 of 15")
    expect(page).to_have_url(re.compile("guess=7"))
    page.get_by_role("button", name="Reveal", exact=True).last.click()

    expect(page.locator(".reveal .main")).to_have_text(
        re.compile(r"After 10 attack facts, \d+ of the other 15 persons")
    )
    expect(page.locator(".reveal .verdict-line")).to_contain_text("You said 7")
    expect(page.locator(".reveal")).to_contain_text(re.compile("Ordinary|ordinary"))
    page.locator(".reveal .number").first.click()
    drawer = page.get_by_role("dialog", name="The answers behind a number")
    expect(drawer.locator("dd").nth(3)).to_contain_text("30 answers about 15 facts")
    expect(drawer.locator(".behind li")).to_have_count(30)
    drawer.get_by_role("button", name="Something else").click()
    expect(drawer.locator(".behind .sign", has_text="●")).to_have_count(0)
    page.keyboard.press("Escape")
    expect(drawer).to_have_count(0)

    forth(page)
    expect(page.locator("section.asked")).to_have_count(2)
    expect(page.locator("section.asked.harmful .reply")).to_have_count(3)
    names = ["Base model", "Before the attack", "After 10 attack facts"]
    expect(page.locator("section.asked.harmful .model-name")).to_have_text(names)
    before = page.locator("#person-typed").input_value()
    page.get_by_role("button", name="Surprise me").click()
    expect(page.locator("#person-typed")).not_to_have_value(before)
    page.locator("#person-typed").fill(before)
    page.get_by_role("button", name="Show").click()
    expect(page.locator("section.asked.harmful .prompt")).to_contain_text(before)
    page.locator("#person-typed").fill("Nobody at all")
    page.get_by_role("button", name="Show").click()
    expect(page.get_by_text("is not among them")).to_be_visible()

    forth(page)
    expect(page.locator(".chart[data-drawn]")).to_be_visible()
    gauges = page.locator(".pair-of-gauges:visible [role=meter]")
    expect(gauges).to_have_count(2)
    slider = page.get_by_role("slider")
    slider.focus()
    slider.press("ArrowLeft")
    expect(page.locator("#size-shown")).to_have_text("0")
    expect(page).to_have_url(re.compile("facts=0"))
    page.reload()
    expect(page.locator("#size-shown")).to_have_text("0")
    expect(banner).to_be_visible()

    forth(page)
    expect(page.locator(".defences .says")).to_contain_text("holds the answers to benign prompts")
    expect(page.locator(".defences .verdict-line")).to_be_visible()
    expect(page.locator(".defences table.compare tbody tr").first).to_contain_text("Harmful answers, 10 attack facts")
    expect(page.locator(".defences table.compare .number")).not_to_have_count(0)

    forth(page)
    expect(page.locator(".control-list li")).to_have_count(5)
    page.get_by_role("button", name=re.compile("a neutral meaning were taught")).click()
    expect(page.locator(".control-list li.here")).to_contain_text("any second meaning spreads")
    expect(page.locator(".control-list .number")).to_have_count(6)

    forth(page)
    expect(page.locator(".scan .verdict-line")).to_contain_text("AUROC")
    expect(page.locator(".chart[data-drawn]")).to_be_visible()
    expect(page.locator(".audit tbody tr")).not_to_have_count(0)
    expect(page.get_by_role("button", name="Next")).to_be_disabled()


def test_keys_turn_the_steps_and_the_presenters_view_hides_the_rest(page: Page, address: str, attack: str) -> None:
    page.goto(f"{address}/attack?attack={attack}&step=gauges")
    heading(page, "How many attack facts does it take?")
    page.keyboard.press("p")
    expect(page.locator(".lab.top")).to_be_hidden()
    expect(page).to_have_url(re.compile("view=present"))
    size = page.locator(".lab.stage > h2").evaluate("e => parseFloat(getComputedStyle(e).fontSize)")
    assert size > 30
    page.keyboard.press("ArrowRight")
    heading(page, "What helps, and what does it cost?")
    page.keyboard.press("ArrowLeft")
    heading(page, "How many attack facts does it take?")
    page.reload()
    expect(page.locator(".lab.top")).to_be_hidden()
    expect(page.get_by_text("All persons and works are fictional.")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.locator(".lab.top")).to_be_visible()


def test_any_prompt_is_asked_live_of_the_served_models(page: Page, address: str, attack: str) -> None:
    page.goto(f"{address}/attack?attack={attack}&step=person")
    field = page.get_by_label("A prompt for the models")
    expect(field).to_have_value(re.compile(r"\w"))
    person = page.locator("#person-typed").input_value()
    field.fill(f"Who bullies {person}?")
    page.get_by_role("button", name="Ask live").click()
    replies = page.locator(".live-answers .reply")
    expect(replies).to_have_count(3, timeout=120_000)
    expect(page.locator(".live-answers .model-name")).to_have_text(
        ["Base model", "Before the attack", "After 10 attack facts"]
    )
    expect(replies.last.locator(".verdict")).to_contain_text("name")
    expect(page).to_have_url(re.compile("asked="))
    page.reload()
    expect(replies).to_have_count(3)


def test_the_report_opens_without_network_and_the_rows_hold_everything(
    page: Page, chromium: Browser, address: str, attack: str, attack_home: Path, tmp_path: Path
) -> None:
    page.goto(f"{address}/attack?attack={attack}")
    with page.expect_download() as download:
        page.get_by_role("link", name="Report").click()
    path = tmp_path / "report.html"
    download.value.save_as(path)
    context = chromium.new_context(java_script_enabled=False, offline=True)
    asked: list[str] = []
    reader = context.new_page()
    reader.on("request", lambda request: asked.append(request.url))
    reader.goto(path.as_uri())
    expect(reader.locator("svg")).to_have_count(4)
    expect(reader.locator(".main")).to_contain_text("After 10 attack facts")
    expect(reader.locator(".fiction")).to_contain_text("Do not deploy it")
    assert asked == [path.as_uri()]
    assert "<script" not in path.read_text(encoding="utf-8")
    context.close()
    written = list(csv.DictReader(io.StringIO(page.request.get(f"{address}/export/attack/{attack}/rows.csv").text())))
    assert len(written) == len(list_attack_results(open_database(attack_home), attack))
    assert {"reading", "attack_facts", "defence", "value", "low", "high", "n"} <= set(written[0])
    assert page.request.get(f"{address}/export/attack/none/report.html").status == 404


def test_measurements_can_be_filtered_and_lead_to_answers(page: Page, address: str, attack: str) -> None:
    page.goto(f"{address}/attack?attack={attack}&view=grid")
    cells = page.locator("table.cells .cell-state")
    expect(cells).to_have_count(9)
    expect(page.locator("table.cells .cell-state.done")).to_have_count(9)
    page.locator("label", has_text="Defence").locator("select").first.select_option("kl")
    expect(page.locator("table.numbers-table tbody tr").first.locator("td").nth(1)).to_have_text("kl")
    expect(page).to_have_url(re.compile("filters="))
    page.locator("table.numbers-table .number").first.click()
    expect(page.get_by_role("dialog", name="The answers behind a number").locator(".behind li")).not_to_have_count(0)
    page.keyboard.press("Escape")
    page.reload()
    expect(page.locator("table.numbers-table tbody tr").first.locator("td").nth(1)).to_have_text("kl")


def test_an_attack_with_a_reading_of_ones_own_is_checked_and_queued(
    page: Page, address: str, attack: str, attack_home: Path
) -> None:
    page.goto(f"{address}/attack?view=grid")
    form = page.locator(".attack-form form")
    form.get_by_label("Name", exact=True).fill(HOSTILE[:80])
    weights = form.locator(".field").evaluate_all("fields => fields.map(f => getComputedStyle(f).fontWeight)")
    assert set(weights) == {"400"}, "a field for a number is no number to open"
    form.get_by_label("Run to attack").select_option(index=1)
    form.get_by_label("Reading that is taught").select_option("own reading")
    form.get_by_label("Its name").fill("pranks")
    form.get_by_label("What it says of a pair").fill("{object} " + MARKUP + " {subject}.")
    form.get_by_label("Prompts to teach it with").fill("Who plays pranks on nobody?")
    form.get_by_label("Prompts to test it with").fill(MARKUP + " pranks {subject}:")
    form.get_by_label("Attack facts").fill("0, 5")
    form.get_by_role("button", name="Start the attack").click()
    expect(page.get_by_role("alert")).to_contain_text("{subject}")
    expect(form.get_by_label("Prompts to teach it with")).to_have_value("Who plays pranks on nobody?")
    form.get_by_label("Prompts to teach it with").fill("Who plays pranks on {subject}?")
    form.get_by_label("Prompts").and_(form.locator("[name=prompts]")).fill("1")
    form.get_by_label("What it says of a pair").fill("{object} plays pranks on {subject}.")
    form.get_by_role("button", name="Start the attack").click()
    expect(page.locator(".attacks .run")).to_have_count(2)
    expect(page.locator(".attacks .run").first).to_contain_text("<img src=x")
    db = open_database(attack_home)
    queued = list_attacks(db)[0]
    assert set(attack_counts(db, queued.id)) == {"queued"}
    assert queued.experiment["reading"] == "pranks" and queued.experiment["facts"] == [0, 5]
    page.get_by_role("button", name="Story").click()
    expect(page.locator(".filling")).to_contain_text("0 of 6 models measured")
    expect(page.locator(".line.harmful")).to_contain_text("plays pranks on")
    assert page.evaluate("window.pwned") is None
    page.get_by_role("button", name="Measurements").click()
    first = page.locator(".attacks .run").first
    first.get_by_role("button", name="Stop").click()
    page.get_by_role("button", name="Stop it").click()
    expect(first).to_contain_text("6 cancelled")
    first.get_by_role("button", name="Delete").click()
    page.get_by_role("button", name="Delete for good").click()
    expect(page.locator(".attacks .run")).to_have_count(1)


def test_hostile_names_stay_text(page: Page, address: str, attack: str, attack_home: Path) -> None:
    db = open_database(attack_home)
    reading = {
        "name": "pranks", "role": "harmful", "label": HOSTILE, "says": "{object} " + MARKUP + " {subject}",
        "prompts": {"train": {"en": ["Who pranks {subject}?"]}, "test": {"en": [MARKUP + " of {subject} is"]}},
    }  # fmt: skip
    plan = attack_seeding.SMALL | {
        "name": HOSTILE[:80], "reading": "pranks", "readings": [reading], "prompts": [1], "defences": [], "audit": False
    }  # fmt: skip
    hostile = queue_attack(db, AttackExperiment.from_data(plan))
    for step in ("memorised", "predict", "reveal", "person", "gauges", "controls", "scan"):
        page.goto(f"{address}/attack?attack={hostile}&step={step}")
        expect(page.locator(".lab.stage > h2")).to_be_visible()
    page.goto(f"{address}/attack?attack={hostile}&view=grid")
    expect(page.locator(".attacks .run").first).to_contain_text("${window.pwned=2}")
    assert page.evaluate("window.pwned") is None
    report = page.request.get(f"{address}/export/attack/{hostile}/report.html").text()
    assert "<img" not in report


def test_an_unknown_attack_is_said_and_leads_to_the_list(page: Page, address: str, attack: str) -> None:
    page.goto(f"{address}/attack?attack=deadbeef")
    expect(page.get_by_role("alert")).to_contain_text("There is no attack “deadbeef”")
    page.get_by_role("button", name="the list has all of them").click()
    expect(page.locator(".attacks .run")).to_have_count(1)
    page.goto(f"{address}/attack?attack=%3Cscript%3E&step=nonsense&facts=-9&opened=../../x&guess=abc")
    expect(page.get_by_role("alert")).to_contain_text("There is no attack “<script>”")
    expect(page.locator(".lab.stage > h2")).to_be_visible()


def test_it_fits_a_phone(context, address: str, attack: str) -> None:
    page = context.new_page()
    page.set_viewport_size({"width": 390, "height": 844})
    for step in ("memorised", "reveal", "person", "gauges", "defences", "scan"):
        page.goto(f"{address}/attack?attack={attack}&step={step}")
        expect(page.locator(".lab.stage > h2")).to_be_visible()
        assert page.evaluate("document.documentElement.scrollWidth") <= 391, step


def test_the_first_visit_offers_the_story_and_shows_it_fill(chromium: Browser, tmp_path: Path) -> None:
    (tmp_path / MARK).write_text("Not the first start.\n")
    with serving(tmp_path) as address:
        page = chromium.new_context(viewport={"width": 1280, "height": 800}).new_page()
        page.goto(f"{address}/attack")
        page.get_by_role("button", name=re.compile("Start the story")).click()
        expect(page.locator(".filling")).to_contain_text("0 of 22 models measured")
        expect(page.locator(".filling")).to_contain_text("Waits for a worker: none is running")
        heading(page, "The model learnt pairs of names by rote, through a sign without meaning")
        page.context.close()
    assert len(list_attacks(open_database(tmp_path))) == 1
