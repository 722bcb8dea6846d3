"""Several tabs on one draft: what one person typed is never undone by what another tab still shows."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from app.design import actions
from app.design import fact_actions as facts
from app.design.check import examine
from app.design.draft import Draft, find_relation
from app.design.facts_table import FactsEdit, Step
from app.design.form import FORM_KEYS
from app.design.show import Shown
from app.design.tabs import Request, Screen
from app.shared.lab import Lab
from engine.corpus.importing import read_facts
from storage import drafts as storage
from storage.drafts import new_draft_id
from storage.merging import merge


class Tab:
    """What a browser does: it shows the answers, and sends all its fields as they are with each event."""

    def __init__(self, shown: Shown, draft_id: str) -> None:
        self.shown, self.steps, self.fields = shown, 0, dict.fromkeys(FORM_KEYS)
        self.editing, self.news = "", ""
        self.table: list[list[Any]] = []
        self.show(actions.open_page(shown, draft_id, ""))
        self.screen_id = draft_id

    def show(self, answer: dict[str, Any]) -> dict[str, Any]:
        self.editing = answer.get("editing", self.editing)
        self.fields |= {key: value for key, value in answer.items() if key in FORM_KEYS}
        self.news = answer.get("news", self.news)
        if "value" in answer.get("table", {}):
            self.table = [row[:3] for row in answer["table"]["value"]["rows"]]
        return answer

    def ask(self, **typed: Any) -> Request:
        """A request with the fields as they are, some of which a person changed just now."""
        self.fields |= {key.replace("__", "."): value for key, value in typed.items()}
        self.steps += 1
        screen = Screen.read(self.screen_id, self.editing)
        return Request(screen, [self.fields[key] for key in FORM_KEYS], self.steps)

    def do(self, action: Callable[..., dict[str, Any]], *own: Any, **typed: Any) -> dict[str, Any]:
        return self.show(action(self.shown, self.ask(**typed), *own))

    def type(self, **typed: Any) -> dict[str, Any]:
        return self.do(actions.edit, **typed)

    def rows(self, *cells: tuple[int, int | None, str | None, str | None], removed: tuple[int, ...] = ()) -> Any:
        step = Step(self.steps + 1, cells, removed)
        edit = FactsEdit(Screen.read("", self.editing).relation_id, (step,), "a row" if removed else "")
        return self.do(facts.table_rows, edit)

    @property
    def draft(self) -> Draft:
        return self.shown.drafts.read(self.screen_id)


@pytest.fixture
def open_tab(tmp_path: Path) -> Callable[[], Tab]:
    return partial(Tab, Shown(Lab(tmp_path)), new_draft_id())


@pytest.fixture
def own(open_tab: Callable[[], Tab]) -> Tab:
    """A tab with one relation of one's own."""
    tab = open_tab()
    tab.do(actions.remove)
    tab.do(actions.add_own)
    return tab


def upload(tab: Tab, text: str, name: str = "names.csv") -> dict[str, Any]:
    return tab.do(facts.take_file, read_facts(text.encode(), name), facts.Source("upload", name))


def numbered(count: int) -> str:
    return "subject,object\n" + "\n".join(f"Ann {i:02},Bee {i:02}" for i in range(count))


def test_each_tab_keeps_what_the_other_typed(open_tab: Callable[[], Tab]) -> None:
    one, two = open_tab(), open_tab()
    one.type(name="ours", seed=7)
    two.type(stage1__epochs=3, prompts__train="x")
    values = one.draft["values"]
    assert (values["name"], values["seed"], values["stage1.epochs"]) == ("ours", 7, 3)
    assert (two.fields["name"], two.fields["seed"]) == ("ours", 7)
    assert "Changed in another tab: Name, Seed" in two.news
    one.type(description="note")
    assert one.fields["stage1.epochs"] == 3
    assert "Epochs (stage 1)" in one.news


def test_of_two_edits_of_one_field_the_later_one_stays_and_both_are_told(open_tab: Callable[[], Tab]) -> None:
    one, two = open_tab(), open_tab()
    one.type(name="first")
    two.type(name="second")
    assert two.draft["values"]["name"] == "second"
    assert "Changed in both tabs: Name" in two.news
    one.type()
    assert one.fields["name"] == "second"
    assert "Changed in another tab: Name" in one.news
    two.type(seed=5)
    assert two.draft["values"]["name"] == "second"


def test_half_of_a_surrogate_pair_loses_no_edit(own: Tab) -> None:
    own.type(name="cut off \ud83d", seed=4)
    own.rows((1, None, "Ann \ud83d", "Bee"))
    own.do(facts.take_file, *facts.read_paste("subject,object\nCy \udc00,Dee\n", False))
    values, relation = own.draft["values"], own.draft["relations"][0]
    assert (values["name"], values["seed"]) == ("cut off ?", 4)
    assert [row[1:] for row in relation["facts"]] == [["Ann ?", "Bee"], ["Cy ?", "Dee"]]
    assert own.fields["name"] == "cut off ?"


def test_a_clock_that_is_set_back_drops_nothing(open_tab: Callable[[], Tab], monkeypatch: pytest.MonkeyPatch) -> None:
    one = open_tab()
    one.type(name="before")
    monkeypatch.setattr(storage.time, "time", lambda: 0.0)
    monkeypatch.setattr(storage, "now", lambda: "1970-01-01T00:00:00.000Z")
    one.type(name="after")
    two = open_tab()
    assert two.fields["name"] == "after"
    two.type(name="later")
    assert one.draft["values"]["name"] == "later"


def test_requests_that_were_overtaken_change_nothing(open_tab: Callable[[], Tab]) -> None:
    tab = open_tab()
    older, newer = tab.ask(name="a"), tab.ask(name="ab")
    actions.edit(tab.shown, newer)
    actions.edit(tab.shown, older)
    assert tab.draft["values"]["name"] == "ab"


def test_typing_on_while_answers_are_under_way(open_tab: Callable[[], Tab]) -> None:
    one, two = open_tab(), open_tab()
    first, back = one.ask(seed=3), one.ask(seed=0)
    actions.edit(one.shown, first)
    actions.edit(one.shown, back)
    assert one.draft["values"]["seed"] == 0, "back at what the tab was given, before it heard of the step between"
    stale = one.ask(seed=4)
    actions.edit(one.shown, stale)
    two.type(seed=9)
    one.type(name="other field")
    assert one.draft["values"]["seed"] == 9, "sent, and overwritten since, though the tab does not know yet"


@pytest.mark.parametrize("count", [2, 4, 30, 60])
def test_the_event_of_an_upload_undoes_nothing(own: Tab, count: int) -> None:
    stale = own.ask()
    upload(own, numbered(count))
    fitting = min(50, count // 2)
    assert own.fields["stage2.facts"] == fitting
    own.show(actions.edit(own.shown, Request(stale.screen, stale.typed, own.steps + 1)))
    own.steps += 1
    assert own.draft["values"]["stage2.facts"] == own.fields["stage2.facts"] == fitting
    assert "stage2.facts" not in own.draft["touched"]


@pytest.mark.parametrize(
    "act",
    [
        lambda tab: tab.do(actions.load_preset, "quick-lora"),
        lambda tab: tab.do(actions.add_corpus, "author"),
        lambda tab: tab.do(actions.pick, tab.draft["relations"][-1]["id"]),
        lambda tab: tab.do(actions.pick_language, "de"),
        lambda tab: tab.do(actions.undo),
        lambda tab: tab.do(actions.start_over),
        lambda tab: tab.do(actions.remove),
    ],
)
def test_fields_read_before_the_server_set_them_are_no_edit(
    open_tab: Callable[[], Tab], act: Callable[[Tab], Any]
) -> None:
    tab = open_tab()
    tab.do(actions.add_corpus, "capital")
    tab.do(actions.load_preset, "all-relations")
    stale = tab.ask()
    act(tab)
    before = tab.draft
    tab.show(actions.edit(tab.shown, Request(stale.screen, stale.typed, tab.steps + 1)))
    assert tab.draft == before
    assert not tab.news, "one's own doing is no news"


def test_rows_of_two_tabs_are_all_kept(own: Tab, open_tab: Callable[[], Tab]) -> None:
    upload(own, numbered(3))
    two = open_tab()
    own.rows((101, 3, "Cy", "Dee"), (1, None, "Ann", None))
    two.rows((202, 3, "El", "Eff"), (1, None, None, "Bee"), (2, None, "X", None))
    own.rows(removed=(3,))
    relation = find_relation(own.draft, own.draft["relations"][0]["id"])
    assert relation is not None
    assert relation["facts"] == [[1, "Ann", "Bee"], [2, "X", "Bee 01"], [202, "El", "Eff"], [101, "Cy", "Dee"]]
    two.type()
    assert two.table == relation["facts"]
    assert "the facts" in two.news
    two.rows((2, None, "Y", None))
    assert len(own.draft["relations"][0]["facts"]) == 4


def test_what_is_typed_into_a_row_that_is_gone_changes_no_other(own: Tab, open_tab: Callable[[], Tab]) -> None:
    upload(own, numbered(3))
    other = open_tab()
    own.do(facts.take_file, *facts.read_paste("subject,object\nNew A,New B\nNew C,New D\n", True))
    other.rows((2, 1, None, "Typed"))
    assert [row[1:] for row in own.draft["relations"][0]["facts"]] == [
        ["New A", "New B"], ["New C", "New D"], ["", "Typed"],
    ]  # fmt: skip
    own.do(facts.clear_facts)
    upload(own, numbered(1))
    assert len({row[0] for row in (*other.table, *own.table)}) == len(other.table) + 1


def test_a_row_takes_no_remark_of_one_that_was_removed(own: Tab) -> None:
    upload(own, "subject,object,alternatives\nAnn A,Bo B,\"['x', 'y']\"\nCy C,Di D,\"['x', ...]\"\n")
    assert [f.problem.row for f in examine(own.draft).errors if f.place.endswith("/import")] == [2]
    own.rows(removed=(2,))
    upload(own, "subject,object\nEv E,Fi F\n")
    assert not [f for f in examine(own.draft).findings if f.place.endswith("/import")]


def test_steps_of_the_table_that_come_late_or_twice_are_taken_once(own: Tab) -> None:
    first, second = Step(1, ((11, None, "A", "B"),)), Step(2, ((11, None, "Ab", None), (12, 11, "C", "D")))
    relation = own.draft["relations"][0]["id"]
    own.do(facts.table_rows, FactsEdit(relation, (first, second)))
    own.do(facts.table_rows, FactsEdit(relation, (first,)))
    own.do(facts.table_rows, FactsEdit(relation, (first, second)))
    assert own.draft["relations"][0]["facts"] == [[11, "Ab", "B"], [12, "C", "D"]]


def test_a_relation_that_another_tab_removed_is_told_and_comes_back(open_tab: Callable[[], Tab]) -> None:
    one = open_tab()
    one.do(actions.add_corpus, "author")
    two = open_tab()
    two.do(actions.pick, one.draft["relations"][1]["id"])
    one.do(actions.remove)
    two.type(name="still typing", relation__key_token="[Q]")
    assert "‘author’ was removed in another tab" in two.news
    assert (two.fields["relation.name"], two.fields["name"]) == ("mother", "still typing")
    assert one.draft["relations"][0]["key_token"] == "[X]", "what was meant for the other relation"
    two.do(actions.undo)
    assert [r["name"] for r in one.draft["relations"]] == ["mother", "author"]
    assert one.draft["values"]["name"] == "still typing"


def test_a_preset_in_another_tab_takes_no_field_of_the_older_design(open_tab: Callable[[], Tab]) -> None:
    one, two = open_tab(), open_tab()
    one.do(actions.load_preset, "all-relations")
    two.type(relation__name="of the older design")
    assert "of the older design" not in [r["name"] for r in one.draft["relations"]]
    assert two.fields["relation.name"] == one.fields["relation.name"]


def test_undoing_takes_back_ones_own_step_and_nothing_else(own: Tab, open_tab: Callable[[], Tab]) -> None:
    upload(own, numbered(6))
    two = open_tab()
    own.rows(removed=(2,))
    two.rows(removed=(5,))
    two.type(name="typed since")
    assert own.do(actions.undo)["undo"]["value"] == "Undo the import"
    assert [row[0] for row in own.draft["relations"][0]["facts"]] == [1, 2, 3, 4, 6]
    assert own.draft["values"]["name"] == "typed since"
    two.do(actions.undo)
    assert [row[0] for row in own.draft["relations"][0]["facts"]] == [1, 2, 3, 4, 5, 6]


def test_undoing_takes_all_of_ones_own_step_back(own: Tab) -> None:
    upload(own, numbered(3))
    own.rows((2, None, "changed since", None))
    own.type(name="typed since")
    own.do(actions.undo)
    assert own.draft["relations"][0]["facts"] == []
    own.do(actions.load_preset, "quick")
    own.type(relation__key_token="[Q]")
    own.do(actions.undo)
    assert [r["name"] for r in own.draft["relations"]] == ["relation 1"]
    assert own.draft["values"]["name"] == "typed since"


def test_only_another_tab_makes_a_tab_look(open_tab: Callable[[], Tab]) -> None:
    one, two = open_tab(), open_tab()
    one.type(name="x")
    assert actions.look(one.shown, one.screen_id, one.editing) is None
    assert actions.look(two.shown, two.screen_id, two.editing) is not None
    two.type()
    assert actions.look(two.shown, two.screen_id, two.editing) is None


@pytest.mark.parametrize(
    ("base", "mine", "theirs", "merged"),
    [
        ({"a": 1, "b": 1}, {"a": 2, "b": 1}, {"a": 1, "b": 3}, {"a": 2, "b": 3}),
        ({"a": 1}, {"a": 2}, {"a": 3}, {"a": 2}),
        ({"a": 1, "b": 1}, {"b": 1}, {"a": 1, "b": 2, "c": 3}, {"b": 2, "c": 3}),
        ({"a": 1}, {}, {"a": 2}, {"a": 2}),
        ([[1, "a", "b"]], [[1, "x", "b"], [2, "c"]], [[1, "a", "y"], [3, "e"]], [[1, "x", "y"], [2, "c"], [3, "e"]]),
        ([], [[2, "c", "d"], [1, "a", "b"]], [[3, "e", "f"]], [[2, "c", "d"], [1, "a", "b"], [3, "e", "f"]]),
        (["x"], ["x", "y"], ["x", "z"], ["x", "y", "z"]),
        ([{"id": "r1", "n": 1}], [], [{"id": "r1", "n": 1}, {"id": "r2", "n": 2}], [{"id": "r2", "n": 2}]),
        ([[1], [1]], [[2]], [[3]], [[2], [3]]),
    ],
)  # fmt: skip
def test_merging(base: Any, mine: Any, theirs: Any, merged: Any) -> None:
    assert merge(base, mine, theirs) == merged


def test_what_makes_a_run_shorter_is_one_press_away_and_can_be_undone(open_tab: Callable[[], Tab]) -> None:
    mine = open_tab()
    assert "shorten" not in mine.type()["summary"], "the embedded model needs none"
    long = mine.type(model_kind="other", model_name="someone/large-1.5b")["summary"]
    offered = re.findall(r'data-act="shorten" data-value="(\w+)">([^<]+)<', long)
    assert 0 < len(offered) <= 2 and dict(offered)["sample"] == "ask 24 facts and 4 prompts"
    told = mine.do(actions.make_shorter, "sample")
    assert (mine.fields["evaluation.facts"], mine.fields["evaluation.prompts"]) == ("24", "4")
    assert 'data-value="sample"' not in told["summary"]
    assert mine.do(actions.make_shorter, "no such thing")["summary"] == told["summary"]
    mine.do(actions.undo)
    assert (mine.fields["evaluation.facts"], mine.fields["evaluation.prompts"]) == ("all", "all")
    mine.do(actions.make_shorter, "checkpoints")
    assert mine.fields["stage1.checkpoint_epochs"] == "20"


def test_one_of_the_papers_models_is_chosen_and_told(open_tab: Callable[[], Tab]) -> None:
    mine = open_tab()
    answer = mine.do(actions.pick_paper_model, "meta-llama/Llama-3.2-1B", name="kept")
    assert (mine.draft["model_kind"], mine.draft["model_name"]) == ("other", "meta-llama/Llama-3.2-1B")
    assert mine.draft["values"]["name"] == "kept" and answer["paper_model"] is None
    assert "1.24 billion parameters" in answer["hub_model"] and "LoRA adapters</b>: about" in answer["hub_model"]
    assert mine.do(actions.pick_paper_model, "<b>") == {} == mine.do(actions.pick_paper_model, None)
    assert mine.type(model_name="someone/large-7b")["hub_model"] == ""
    assert mine.type(model_kind="embedded")["hub_model"] == ""
