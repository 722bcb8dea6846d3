"""The Design page in a real browser: from pasted facts to a queued run, and nothing typed ever lost."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

import pytest
from playwright.sync_api import BrowserContext, FilePayload, Locator, Page, Request, Route, expect
from sqlite_utils import Database

from engine.corpus.resolve import resolve
from engine.experiment import Experiment
from engine.presets import load_preset
from storage.runs import add_run, get_run, list_runs

pytestmark = pytest.mark.browser

FACTS = [("Ann Bee", "Cy Dee"), ("El Eff", "Gee Aitch"), ("Kay Ell", "Em En"), ("Oh Pee", "Qu Ar")]
PROMPTS = {
    "Train prompts": "{subject} works for\nThe employer of {subject} is",
    "Test prompts": "Who employs {subject}?",
    "Unrelated prompts": "{subject} was born in",
    "Decoys": "friend | The friend of {subject} is",
}


_under_way: dict[Page, set[Request]] = {}


def watch(page: Page) -> None:
    """Know of every answer that the page still waits for."""
    waiting = _under_way[page] = set()
    page.on("request", lambda r: waiting.add(r) if "/queue/" in r.url else None)
    page.on("requestfinished", lambda r: waiting.discard(r))
    page.on("requestfailed", lambda r: waiting.discard(r))


def settle(page: Page) -> None:
    """Wait until the server has answered everything: leaving earlier is an error in the browser's log."""
    # By the page's own clock, so that on a busy machine, too, what it was about to ask has been asked by then.
    page.evaluate("() => new Promise((done) => setTimeout(done, 400))")
    for _ in range(600):
        if not _under_way[page]:
            return
        page.wait_for_timeout(100)
    raise AssertionError(f"still under way after a minute: {[request.url for request in _under_way[page]]}")


def reload(page: Page) -> None:
    settle(page)
    page.reload()
    page.locator("#summary .state").wait_for()
    settle(page)


def open_design(page: Page, address: str, query: str = "") -> None:
    if page not in _under_way:
        watch(page)
    page.goto(f"{address}/design{query}")
    page.locator("#summary .state").wait_for()
    settle(page)  # the fields are filled one after the other: nobody types before they are


def field(page: Page, label: str) -> Locator:
    """The first field whose label begins so; the explanation below a field is part of its label."""
    return page.get_by_label(re.compile(r"^\s*" + re.escape(label).replace("\\ ", " "))).first


def paste(page: Page, text: str) -> None:
    """Paste into the focused element, as a person does."""
    page.evaluate("text => navigator.clipboard.writeText(text)", text)
    page.keyboard.press("Control+V")


def cells(page: Page) -> list[str]:
    return [field.input_value() for field in page.locator("#facts-table input").all()]


def own_relation(page: Page) -> None:
    """A relation of one's own, alone in the design."""
    page.get_by_role("button", name="Add my own").click()
    expect(page.get_by_label("Relation", exact=True)).to_have_value("relation 1")
    page.locator("#relations").get_by_text("mother").click()
    expect(page.get_by_label("Relation", exact=True)).to_have_value("mother")
    page.get_by_role("button", name="Remove this relation").click()
    expect(page.get_by_label("Relation", exact=True)).to_have_value("relation 1")


@pytest.fixture
def design(context: BrowserContext, page: Page, address: str, db: Database) -> Iterator[Page]:
    """The page of a first visitor, who may paste."""
    context.grant_permissions(["clipboard-read", "clipboard-write"], origin=address)
    open_design(page, address)
    yield page
    settle(page)


def test_an_empty_field_takes_no_words_before_it_is_filled(page: Page, address: str) -> None:
    held: list[Route] = []
    page.route("**/queue/join*", lambda route: held.append(route), times=1)
    page.goto(f"{address}/design")
    expect(page.locator(".design-columns")).to_have_js_property("inert", True)
    page.wait_for_timeout(500)
    epochs = field(page, "Epochs")
    epochs.focus()
    expect(epochs).not_to_be_focused()
    held.pop().continue_()
    page.locator("#summary .state").wait_for()
    expect(page.locator(".design-columns")).to_have_js_property("inert", False)
    epochs.focus()
    expect(epochs).to_be_focused()


def test_from_pasted_facts_to_a_queued_run(design: Page, address: str, db: Database) -> None:
    page, summary = design, design.locator("#summary")
    own_relation(page)
    page.get_by_label("Relation", exact=True).fill("employer")
    expect(page.locator("#relations")).to_contain_text("employer · 0")
    expect(summary).to_contain_text("there are no facts")
    expect(page.locator("#start")).to_be_disabled()

    page.locator("#facts-table input").first.click()
    broken = [*FACTS[:3], ("Ann Bee", "Qu Ar")]
    paste(page, "\n".join(f"{s}\t{o}" for s, o in broken))
    expect(page.locator("#facts-table tr.problem")).to_contain_text("‘Ann Bee’ already has another object in row 1")
    expect(summary).to_contain_text("employer, facts, row 4, subject: ‘Ann Bee’ already has another object")
    page.get_by_label("Subject, row 4").fill("Oh Pee")
    expect(page.locator("#facts-table tr.problem")).to_have_count(0)

    for label, text in PROMPTS.items():
        field(page, label).fill(text.replace("{subject}", "{subjekt}", 1))
    expect(summary).to_contain_text("English, train prompts, line 1")
    for label, text in PROMPTS.items():
        field(page, label).fill(text)
    page.get_by_label("Name", exact=True).fill("my employers")
    expect(summary).to_contain_text("Ready to start")
    expect(page.get_by_label("Facts shown (k)")).to_have_value("2")
    expect(page.locator("#examples")).to_contain_text("4 facts: 2 shown in stage 2, 2 held out")
    expect(page.locator("#examples")).to_contain_text("Ann Bee [X1] Cy Dee.")
    expect(summary).to_contain_text("MB")

    reload(page)
    assert cells(page) == [c for pair in FACTS for c in pair] + ["", ""]
    assert [field(page, label).input_value() for label in PROMPTS] == list(PROMPTS.values())

    page.locator("#start").dblclick()
    page.wait_for_url("**/run?run=*")
    runs = list_runs(db)
    assert [run.name for run in runs] == ["my employers"], "a double click starts once"
    assert page.url.endswith(runs[0].id)
    experiment = Experiment.from_data(get_run(db, runs[0].id).experiment)
    assert experiment.is_resolved
    (relation,) = experiment.relations
    assert [(f.subject, f.object) for f in relation.explicit_facts] == FACTS
    assert relation.prompts_of("decoy", "en")[0].relation == "friend"
    assert experiment.stage2.facts == 2

    open_design(page, address)
    expect(page.get_by_label("Name", exact=True)).to_have_value("my employers")


def test_hostile_text_is_text(design: Page, db: Database) -> None:
    page = design
    page.on("dialog", lambda dialog: pytest.fail(f"a dialog opened: {dialog.message}"))
    own_relation(page)
    hostile = [
        ("<img src=x onerror=alert(1)>", "=HYPERLINK(1)"),
        ("${alert(2)}", "{{7*7}} @x"),
        ("</script><script>alert(3)</script>", "🧑‍🚀 name"),
        ("مريم", 'O\'Neil "Red"'),
    ]
    page.locator("#facts-table input").first.click()
    paste(page, "\n".join(f"{s}\t{o}" for s, o in hostile))
    expect(page.get_by_label("Subject, row 4")).to_have_value("مريم")
    page.get_by_label("Relation", exact=True).fill("<b onclick=alert(4)>${1}")
    field(page, "Train prompts").fill("<i>${alert(5)}</i> {subject}")
    page.get_by_label("Name", exact=True).fill("`${alert(6)}`<svg onload=alert(7)>")
    expect(page.locator("#summary")).to_contain_text("name: holds a sign that is not allowed here")
    expect(page.locator("#summary")).to_contain_text("<b onclick=alert(4)>${1}")
    reload(page)
    assert cells(page)[:-2] == [c for pair in hostile for c in pair]
    page.get_by_label("Relation", exact=True).fill("fine")
    page.get_by_label("Facts shown (k)").fill("2")
    expect(page.locator("#summary")).to_contain_text("other curly braces than {subject}")
    field(page, "Train prompts").fill("<i>${alert(5)</i> of {subject} is".replace("${", "$"))
    expect(page.locator("#examples")).to_contain_text("<i>$alert(5)</i> of")
    expect(page.locator("#examples")).to_contain_text("${alert(2)}")


def test_files_of_facts(design: Page) -> None:
    page = design
    own_relation(page)

    def give(name: str, data: bytes) -> None:
        with page.expect_file_chooser() as chooser:
            page.get_by_role("button", name="Upload CSV files").click()
        chooser.value.set_files(FilePayload(name=name, mimeType="text/csv", buffer=data))

    give("names.csv", "Subject;Object\nAnn;Böb\nCarl\nDora;Ed;x\n".encode("utf-16"))
    expect(page.get_by_label("Object, row 1")).to_have_value("Böb")
    expect(page.locator(".own-facts .problems")).to_contain_text("Row 3 has 3 cells, where 2 are expected")
    expect(page.locator("#facts-table tr.problem").first).to_contain_text("the cell is empty")
    give("book.xlsx", b"PK\x03\x04\x14\x00\x06\x00")
    expect(page.get_by_text("save it as CSV")).to_contain_text("‘book.xlsx’ is an Excel workbook")
    assert cells(page)[:2] == ["Ann", "Böb"], "what was there stays"
    page.get_by_role("button", name="Clear the table").click()
    expect(page.get_by_label("Object, row 1")).to_have_value("")
    page.get_by_role("button", name="Undo clearing the table").click()
    expect(page.get_by_label("Object, row 1")).to_have_value("Böb")

    with page.expect_file_chooser() as chooser:
        page.get_by_role("button", name="Upload CSV files").click()
    published = {"capital.csv": "Head,Fact,Alternate Facts\nOldland,Newtown,\"['Lowtown', 'Hightown']\"\n"}
    published |= {"genre.csv": "Head,Fact,Alternate Facts\nTune,Polka,\"['Waltz'\"\n<b>Song</b>,Jazz,[]\n"}
    files = [FilePayload(name=n, mimeType="text/csv", buffer=t.encode()) for n, t in published.items()]
    chooser.value.set_files(files)
    expect(page.locator("#relations")).to_contain_text("capital · 1")
    expect(page.locator("#relations")).to_contain_text("genre · 2")

    rows = "\n".join(f"Subject {i:04},Object {i:04}" for i in range(1, 4001))
    give("many.csv", f"subject,object\n{rows}\n".encode())
    expect(page.locator("#relations")).to_contain_text("relation 1 · 4,003", timeout=30_000)
    page.get_by_role("button", name="Next ›").click()
    expect(page.get_by_label("Subject, row 26")).to_have_value("Subject 0023")
    page.get_by_label("Subject, row 26").fill("")
    expect(page.locator("#facts-table tr.problem").first).to_contain_text("the cell is empty", timeout=30_000)


def test_paste_box_and_a_relation_column(design: Page) -> None:
    page = design
    page.get_by_text("My own", exact=True).first.click()
    page.get_by_role("button", name="Paste text …").click()
    box = page.get_by_label("One fact a line: subject, then object")
    box.fill("relation;subject;object\nmother;Ann;Bea\nauthor;Book One;Cy\nmother;Dee;Eve\nauthor;Book Two;Flo\n")
    page.get_by_role("button", name="Add to the table").click()
    expect(page.locator("#relations")).to_contain_text("author · 2")
    expect(page.get_by_label("Object, row 2")).to_have_value("Eve")
    expect(page.locator("#summary")).to_contain_text("author, prompts")


# From the second frame on in which the draft is shown: where the switch stands.
PLACES = """
window.places = [];
let frames = 0;
const look = () => {
  const label = [...document.querySelectorAll(".design-columns label")].find(l => l.textContent.trim() === "My own");
  if (document.querySelector("#summary .state") && ++frames > 2) window.places.push(label.getBoundingClientRect().y);
  requestAnimationFrame(look);
};
look();
"""


def test_nothing_moves_once_the_draft_is_shown(page: Page, address: str) -> None:
    page.add_init_script(PLACES)
    open_design(page, address)
    settle(page)
    places = page.evaluate("window.places")
    assert len(places) > 5 and set(places) == {places[0]}, "a click would miss what has moved"


def test_a_preset_that_the_address_asks_for(page: Page, address: str) -> None:
    open_design(page, address)
    field(page, "Name").fill("mine")
    settle(page)
    page.goto(address)
    page.get_by_role("link", name="real", exact=True).click()
    expect(field(page, "Name")).to_have_value("real")
    expect(page.locator("#summary")).to_contain_text("gemma-3-270m is not installed")
    settle(page)
    assert "preset" not in page.url, "a reload must not undo what is edited now"
    page.get_by_role("button", name="Undo loading ‘real’").click()
    expect(field(page, "Name")).to_have_value("mine")
    settle(page)
    open_design(page, address, "?preset=there-is-none")
    expect(field(page, "Name")).to_have_value("mine")
    settle(page)


def test_copies_of_runs_files_and_undo(context: BrowserContext, page: Page, address: str, db: Database) -> None:
    experiment = resolve(load_preset("quick"))
    body = experiment.model_dump(mode="json") | {"name": "the first one"}
    run = add_run(db, name="the first one", experiment=body, model="embedded", seed=0)
    open_design(page, address, f"?clone={run.id}")
    expect(page.get_by_label("Name", exact=True)).to_have_value("the first one")
    assert cells(page)[:2] == [
        experiment.relations[0].explicit_facts[0].subject,
        experiment.relations[0].explicit_facts[0].object,
    ]
    assert "clone" not in page.url, "a reload must not undo what is edited now"
    page.locator("#start").click()
    page.wait_for_url("**/run?run=*")
    copy = get_run(db, list_runs(db, limit=1)[0].id)
    assert (copy.cloned_from, copy.experiment) == (run.id, body)

    open_design(page, address)
    page.get_by_role("button", name="From a file …").click()
    text = page.get_by_label("The description as YAML or JSON")
    text.fill("relations: [{name: capital, key_tokn: '[Q]'}]")
    page.get_by_role("button", name="Load this text").click()
    expect(page.get_by_text("is not a setting of an experiment")).to_be_visible()
    text.fill(json.dumps({"name": "second", "relations": [{"name": "capital"}], "stage1": {"epochs": 7}}))
    page.get_by_role("button", name="Load this text").click()
    expect(page.get_by_label("Name", exact=True)).to_have_value("second")
    page.get_by_role("button", name="Start over").click()
    expect(page.get_by_label("Name", exact=True)).to_have_value("")
    page.locator("#undo").click()
    expect(page.get_by_label("Name", exact=True)).to_have_value("second")
    page.locator("#undo").click()
    expect(page.get_by_label("Name", exact=True)).to_have_value("the first one")
    page.get_by_label("Start from a preset").click()
    page.get_by_role("option", name=re.compile("^all-relations:")).click()
    expect(page.locator("#relations")).to_contain_text("educated_at · 100")
    settle(page)


@pytest.mark.parametrize(
    ("label", "value", "says"),
    [
        ("Epochs", "-1", "Epochs: must be at least 0"),
        ("Learning rate", "5", "Learning rate: must be at most 1"),
        ("Batch size", "", "Batch size: is empty: fill it in"),
        ("Facts shown (k)", "100", "stage 2 uses 100 facts of ‘mother’, which has 100"),
        ("Choice facts", "some", "Choice facts: must be a whole number or all"),
        ("Key token", "is", "‘is’ is in the model's vocabulary already"),
        ("How many", "999999", "must be at most 5000"),
    ],
)
def test_settings_say_what_they_must_be(design: Page, label: str, value: str, says: str) -> None:
    field(design, label).fill(value)
    expect(design.locator("#summary")).to_contain_text(says)
    expect(design.locator("#start")).to_be_disabled()


def test_yaml_reads_back(design: Page) -> None:
    design.get_by_label("Name", exact=True).fill("first: name")
    design.get_by_role("button", name="See it as YAML").click()
    editor = design.locator(".cm-content")
    expect(editor).to_contain_text("name: 'first: name'")
    design.get_by_label("Name", exact=True).fill("another name")
    expect(editor).to_contain_text("name: another name")
