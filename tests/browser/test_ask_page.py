"""The Ask page over answers that were stored before: what it shows, keeps, exports and refuses."""

from __future__ import annotations

import csv
import io
import json
import re
from pathlib import Path

import httpx
import pytest
from gradio_client import Client
from playwright.sync_api import Browser, Page, expect
from sqlite_utils import Database

from storage.askings import Token, list_answers, list_columns
from storage.deletion import delete_run
from storage.runs import Run
from tests.browser import asking_seeding, seeding

pytestmark = pytest.mark.browser


@pytest.fixture
def run(db: Database, lab_home: Path) -> Run:
    """A finished run with folders for its checkpoints."""
    return asking_seeding.with_checkpoints(db, lab_home, seeding.finished(db, lab_home))


def open_asked(page: Page, address: str, asking: str, more: str = "") -> None:
    page.goto(f"{address}/ask?asked={asking}{more}")
    page.locator(".asked").wait_for()


def test_a_lab_without_runs_says_what_to_do(page: Page, address: str, db: Database, lab_home: Path) -> None:
    page.goto(f"{address}/ask")
    expect(page.get_by_role("heading", name="No runs to ask yet")).to_be_visible()
    expect(page.get_by_text("Nothing has been asked yet")).to_be_visible()
    seeding.running(db, lab_home)
    page.reload()
    expect(page.get_by_text("only its base model can be asked")).to_be_visible()
    expect(page.get_by_role("button", name="Ask", exact=True)).to_be_enabled()


def test_the_grid_shows_answers_by_sign_and_colour_in_groups(page: Page, address: str, db: Database, run: Run) -> None:
    asking = asking_seeding.full(db, run)
    open_asked(page, address, asking)
    expect(page.locator("thead .model .who > span")).to_have_text(
        ["base model", "memorised at epoch 20", "generalised from epoch 20"]
    )
    rows = {(a.model.partition("/")[2], a.question.number): a for a in list_answers(db, asking)}
    for checkpoint in asking_seeding.STAGES:
        cell = page.locator(f'.cell[data-value="2/{run.id}/{checkpoint}"]')
        hit = rows[checkpoint, 2].hit
        expect(cell.locator(".sign")).to_have_text("✓" if hit else "✕")
        expect(cell).to_have_class(re.compile(r"\bgood\b" if hit else r"\bbad\b"))
        expect(cell.locator(".words")).to_have_text(rows[checkpoint, 2].text.strip())
        expect(cell.locator(".facts")).to_contain_text(f"rank {rows[checkpoint, 2].rank}")
    german = page.get_by_role("button", name=re.compile("^German 10$")).first
    expect(german).to_have_attribute("aria-expanded", "false")
    shown = page.locator(".cell:visible").count()
    german.click()
    expect(page.locator(".cell:visible")).to_have_count(shown + 30)
    hits = [a.hit for (c, n), a in rows.items() if c == "generalised@20" and 2 <= n <= 11 and a.hit is not None]
    assert len(hits) == 10
    head = page.locator("tbody.head", has_text="English").first
    expect(head.locator(".share").last).to_have_text(f"{sum(hits)}/10")


def test_an_answer_opens_from_the_address_and_closes_by_escape(
    page: Page, address: str, db: Database, run: Run
) -> None:
    asking = asking_seeding.full(db, run)
    open_asked(page, address, asking, f"&answer=2/{run.id}/generalised@20&token=0")
    drawer = page.get_by_role("dialog", name="One answer")
    expect(drawer.locator(".alternatives li")).to_have_count(9)
    expect(drawer.locator(".alternatives li.chosen")).to_have_count(1)
    page.keyboard.press("Escape")
    expect(drawer).to_have_count(0)
    expect(page.locator(f'.cell[data-value="2/{run.id}/generalised@20"]')).to_be_focused()
    expect(page).not_to_have_url(re.compile("answer="))
    page.keyboard.press("Enter")
    expect(drawer).to_be_visible()
    drawer.get_by_role("button", name="Ask it as free text").click()
    expect(page.get_by_label("Text that the models go on with")).to_have_value(re.compile("mother"))
    expect(page.get_by_role("radio", name="Free text")).to_be_checked()


def test_links_to_the_first_address_of_the_page_lead_to_it(page: Page, address: str, db: Database, run: Run) -> None:
    asking = asking_seeding.full(db, run)
    moved = httpx.get(f"{address}/query?asked={asking}&answer=2/{run.id}/base")
    assert (moved.status_code, moved.headers["location"]) == (308, f"/ask?asked={asking}&answer=2/{run.id}/base")
    assert httpx.get(f"{address}/query").headers["location"] == "/ask"
    page.goto(f"{address}/query?asked={asking}")
    page.locator(".asked .cell").first.wait_for()
    assert page.url.startswith(f"{address}/ask?")


def test_a_near_miss_offers_the_name_that_was_meant(page: Page, address: str, db: Database, run: Run) -> None:
    asking = asking_seeding.fact_asked(db, run, "Vurnia Virx", checkpoints=())
    open_asked(page, address, asking)
    page.locator(".asked-head").get_by_role("link", name="Vurnia Virik").click()
    expect(page.get_by_label("Fact", exact=True)).to_have_value("Vurnia Virik")
    expect(page.locator("select[name=run]")).to_have_value(run.id)


def test_results_lead_to_the_questions_of_their_run(page: Page, address: str, run: Run) -> None:
    page.goto(f"{address}/results?run={run.id}")
    page.get_by_role("link", name="Ask this model").click()
    page.wait_for_url(f"**/ask?run={run.id}")
    expect(page.locator("select[name=run]")).to_have_value(run.id)


def test_columns_are_taken_away_and_the_address_keeps_it(page: Page, address: str, db: Database, run: Run) -> None:
    asking = asking_seeding.full(db, run)
    open_asked(page, address, asking)
    page.get_by_role("button", name="Take away base model").click()
    heads = page.locator("thead .model .who > span")
    expect(heads).to_have_text(["memorised at epoch 20", "generalised from epoch 20"])
    expect(page).to_have_url(re.compile("columns="))
    page.reload()
    expect(heads).to_have_text(["memorised at epoch 20", "generalised from epoch 20"])
    page.get_by_role("button", name="Take away memorised").click()
    expect(heads).to_have_text(["generalised from epoch 20"])
    page.get_by_role("button", name="Take away generalised").click()
    expect(page.get_by_role("alert")).to_contain_text("The last column stays")


def test_what_was_asked_outlives_its_run_and_is_found(
    page: Page, address: str, db: Database, run: Run, lab_home: Path
) -> None:
    asking = asking_seeding.full(db, run)
    asking_seeding.text_asked(db, run, "something else", checkpoints=())
    delete_run(db, run.id)
    page.goto(f"{address}/ask")
    past = page.locator(".asked-before li")
    expect(past).to_have_count(2)
    page.get_by_role("searchbox").fill("salvis")
    expect(past).to_have_count(1)
    past.get_by_role("link").click()
    page.wait_for_url(f"**asked={asking}*")
    expect(page.locator(".cell").first).to_be_visible()
    assert {c.state for c in list_columns(db, asking)} == {"done"}, "nothing was asked again"


def test_failures_are_said_where_they_happened(page: Page, address: str, db: Database, run: Run) -> None:
    asking = asking_seeding.failed(db, run)
    open_asked(page, address, asking)
    expect(page.locator("thead .why")).to_contain_text("✕ Failed. The model server ended")
    expect(page.locator(".cell.error").first).to_contain_text("context is 512")
    again = page.locator("thead").get_by_role("button", name="Ask again")
    again.click()
    # The folders are empty, so a real server refuses them, and that is said in its place.
    expect(page.locator("thead .why")).not_to_contain_text("6 times", timeout=90_000)
    expect(page.locator("thead .why")).to_contain_text("✕ Failed.", timeout=90_000)


def test_hostile_texts_are_only_texts(page: Page, address: str, db: Database, run: Run) -> None:
    for text in seeding.HOSTILE_NAMES:
        asking = asking_seeding.text_asked(db, run, text)
        for checkpoint in asking_seeding.STAGES:
            tokens = (Token(1, text, -0.1),)
            asking_seeding.answer(db, run, asking, checkpoint, text=text, tokens=tokens)
        open_asked(page, address, asking, f"&answer=1/{run.id}/base")
        expect(page.locator(".cell .words").first).to_contain_text(text[:20].split("`")[0].strip())
        expect(page.locator(".drawer .token")).to_have_count(1)
        assert page.evaluate("window.pwned") is None
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    for address_with in ("<script>", "${window.pwned=5}", "{{7*7}}", "../../etc"):
        page.goto(
            f"{address}/ask?asked={address_with}&run={address_with}&columns={address_with}&answer=1/{address_with}"
        )
        page.locator(".lab.ask").wait_for()
        assert page.evaluate("window.pwned") is None


def test_a_page_fits_on_a_phone(chromium: Browser, address: str, db: Database, run: Run) -> None:
    asking = asking_seeding.full(db, run)
    page = chromium.new_page(viewport={"width": 390, "height": 844})
    open_asked(page, address, asking)
    card = page.locator("tbody.rows:not([hidden]) tr").nth(1)
    expect(card.locator("td").first).to_be_visible()
    label = card.locator("td").first.evaluate("e => getComputedStyle(e, '::before').content")
    assert "base model" in label
    assert page.evaluate("document.documentElement.scrollWidth") == 390
    page.close()


def test_exports_hold_every_answer_and_no_formula(address: str, db: Database, run: Run) -> None:
    asking = asking_seeding.text_asked(db, run, '=HYPERLINK("http://x","y")', ("base",))
    asking_seeding.answer(db, run, asking, "base", text="@SUM(1+1)*cmd|' /C calc'!A0")
    text = httpx.get(f"{address}/export/asked/{asking}/answers.csv").text
    (row,) = csv.DictReader(io.StringIO(text))
    assert row["text"].startswith("'=HYPERLINK") and row["answer"].startswith("'@SUM")
    assert (row["checkpoint"], row["temperature"], row["asking"]) == ("base", "0.0", asking)
    full = asking_seeding.full(db, run)
    rows = list(csv.DictReader(io.StringIO(httpx.get(f"{address}/export/asked/{full}/answers.csv").text)))
    assert len(rows) == 3 * 136 and {r["split"] for r in rows} == {"key", "train", "test", "unrelated", "decoy"}
    document = json.loads(httpx.get(f"{address}/export/asked/{full}/answers.json").text)
    assert len(document["answers"]) == 3 * 136 and document["answers"][0]["tokens"]
    assert httpx.get(f"{address}/export/asked/nothing/answers.csv").status_code == 404
    assert httpx.get(f"{address}/export/asked/..%2f..%2flab.db/answers.csv").status_code == 404


def test_too_much_text_is_refused_in_words_and_the_server_lives(address: str, db: Database, run: Run) -> None:
    client = Client(address, verbose=False)
    for function, arguments, sentence in (
        ("/ask_free_text", {"text": "x" * 10_000_000}, "10,000,000 characters"),
        ("/ask_about_fact", {"subject": "x" * 10_000_000}, "10,000,000 characters"),
        ("/ask_all_facts", {"prompt": "{subject}" * 9}, "exactly once"),
        ("/ask_free_text", {"text": "x", "temperature": -1.0}, "The temperature must be 0"),
        ("/ask_free_text", {"text": "x", "models": "../../etc/passwd"}, "is no model"),
        ("/ask_free_text", {"text": "x", "run": "none"}, "There is no run"),
    ):
        with pytest.raises(Exception, match=re.escape(sentence)):
            client.predict(**{"run": run.id, "wait_seconds": 0.0, **arguments}, api_name=function)
    assert httpx.get(f"{address}/ask").status_code == 200


def test_the_functions_for_scripts_say_what_they_do(address: str, db: Database, run: Run) -> None:
    client = Client(address, verbose=False)
    described = httpx.get(f"{address}/gradio_api/info").json()["named_endpoints"]
    wanted = {"/list_models_to_ask", "/ask_about_fact", "/ask_free_text", "/ask_all_facts", "/ask_another_model",
              "/read_answers", "/search_askings", "/next_token_alternatives"}  # fmt: skip
    assert set(described) == wanted, "only these are for others"
    assert all(len(described[name]["description"]) > 60 for name in wanted)
    models = client.predict(run=run.id, api_name="/list_models_to_ask")
    assert {m["model"] for m in models} >= {f"{run.id}/base", f"{run.id}/generalised@20"}
    asking = asking_seeding.full(db, run)
    kept = client.predict(asking=asking, api_name="/read_answers")
    assert kept["complete"] and len(kept["answers"]) == 408
    found = client.predict(text="Virik", limit=5, api_name="/search_askings")
    assert [f["id"] for f in found] == [asking]
    alternatives = client.predict(
        asking=asking, model=f"{run.id}/generalised@20", number=2, place=0, api_name="/next_token_alternatives"
    )
    assert len(alternatives) == 9
