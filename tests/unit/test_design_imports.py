"""Imports on the Design page: what is asked before facts are taken, and errors that stop a start until decided."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Any

import pytest

from app.design import actions
from app.design import fact_actions as facts
from app.design.check import examine
from app.design.lanes import FILES_AT_A_TIME, Lanes
from engine.corpus.import_choices import ROLES
from tests.loops import run_apart
from tests.unit.test_design_tabs import Tab, numbered, open_tab, own, upload

__all__ = ["open_tab", "own"]
WRONG = "subject,object\nAnn Bee,Cy Dee\nJones, Eve,Flo Gee\nHal Ivy,Jo Kay\nPip, Quy,Rex Sue\n"


def errors(tab: Tab) -> list[str]:
    """The errors of the import that stand in the way of a start."""
    found = [f for f in examine(tab.draft).errors if f.place.endswith("/import")]
    assert bool(examine(tab.draft).resolved) is False or not found
    return [f"{f.problem.row}: {f.problem.message[:11]}" for f in found]


@pytest.fixture
def wrong(own: Tab) -> Tab:
    """A tab that took a file in which two rows are wrong, among prompts that are right."""
    own.type(prompts__train="{subject} works for")
    upload(own, WRONG)
    assert errors(own) == ["2: has 3 cells", "4: has 3 cells"]
    return own


def test_errors_of_an_import_stay_with_the_draft(wrong: Tab, open_tab: Callable[[], Tab]) -> None:
    wrong.do(actions.add_corpus, "author")
    wrong.do(actions.start)
    assert wrong.draft["relations"][1]["name"] == "author", "nothing was started"
    other = open_tab()
    assert errors(other) == ["2: has 3 cells", "4: has 3 cells"]
    answer = other.type(seed=3)
    assert answer["start"]["interactive"] is False
    assert answer["import_panel"]["visible"]
    assert "rows 2, 4" in answer["summary"]
    assert set(answer["table"]["marks"]["rows"]) == {"2", "4"}


def test_each_error_is_mended_by_its_row(wrong: Tab) -> None:
    wrong.rows((2, None, "Jones, Eve", "Flo Gee"))
    assert errors(wrong) == ["4: has 3 cells"]
    wrong.rows((3, None, "Another row", None))
    assert errors(wrong) == ["4: has 3 cells"]
    wrong.rows(removed=(4,))
    assert errors(wrong) == []
    assert examine(wrong.draft).resolved
    wrong.do(actions.undo)
    assert errors(wrong) == ["4: has 3 cells"]


def test_they_are_set_aside_by_a_click_that_can_be_undone(wrong: Tab) -> None:
    wrong.do(facts.keep_rows)
    assert errors(wrong) == []
    assert len(wrong.draft["relations"][0]["facts"]) == 4
    wrong.do(actions.undo)
    assert len(errors(wrong)) == 2
    wrong.do(facts.leave_out_rows)
    assert errors(wrong) == []
    assert [row[1] for row in wrong.draft["relations"][0]["facts"]] == ["Ann Bee", "Hal Ivy"]


def test_another_import_adds_its_errors_and_a_cleared_table_has_none(wrong: Tab) -> None:
    upload(wrong, "subject,object\nOne Two,Three Four,Five\n", "second.csv")
    assert len(errors(wrong)) == 3
    wrong.do(facts.clear_facts)
    assert errors(wrong) == []


def test_more_wrong_rows_than_are_listed_are_all_left_out(own: Tab) -> None:
    upload(own, numbered(3) + "\n" + "\n".join(f"Jones {i}, Eve,Flo {i}" for i in range(60)))
    assert len(errors(own)) == 60
    own.do(facts.leave_out_rows)
    assert (len(own.draft["relations"][0]["facts"]), errors(own)) == (3, [])


def test_a_file_that_names_one_relation_goes_to_it_whatever_is_shown(open_tab: Callable[[], Tab]) -> None:
    tab = open_tab()
    answer = upload(tab, "subject,object,relation\nOld Ode,Ann Bee,author\nNew Ode,Cy Dee,author\n")
    mother, author = tab.draft["relations"]
    assert (mother["name"], mother["facts_from"], mother["facts"]) == ("mother", "corpus", [])
    assert (author["name"], [row[1:] for row in author["facts"]]) == (
        "author", [["Old Ode", "Ann Bee"], ["New Ode", "Cy Dee"]],
    )  # fmt: skip
    assert "2 facts read for ‘author’" in answer["import_report"]
    upload(tab, "subject,object,relation\nEl Eff,Gee Aitch,Mother\n")
    assert [row[1:] for row in tab.draft["relations"][0]["facts"]] == [["El Eff", "Gee Aitch"]]
    assert len(tab.draft["relations"]) == 2


def test_a_file_that_names_more_relations_than_an_experiment_has_is_not_taken(own: Tab) -> None:
    rows = "\n".join(f"Ann {i},Bee {i},rel {i}" for i in range(1_001))
    answer = upload(own, f"subject,object,relation\n{rows}\n")
    assert "names 1,001 relations, more than the 50 of an experiment" in answer["import_report"]
    assert len(own.draft["relations"]) == 1
    upload(own, "subject,object,relation\n" + "\n".join(rows.split("\n")[:3]))
    assert len(own.draft["relations"]) == 4


@pytest.mark.parametrize(
    ("text", "kinds", "taken"),
    [
        ("question,answer\nAnn Bee,Cy Dee\n", ["header"], [["Ann Bee", "Cy Dee"]]),
        ("The year 2024\n\nAnn Bee,Cy Dee\nEl Eff,Flo G\n", ["header"], [["Ann Bee", "Cy Dee"], ["El Eff", "Flo G"]]),
        ("Ann;Bee,Cy;Dee\nEl;Eff,Gee;Aitch\n", None, None),
        (numbered(2), [], [["Ann 00", "Bee 00"], ["Ann 01", "Bee 01"]]),
    ],
)  # fmt: skip
def test_what_is_asked_is_answered_one_after_the_other(
    own: Tab, text: str, kinds: list[str] | None, taken: list[list[str]] | None
) -> None:
    asked = []
    found, source = facts.read_paste(text, replace=False)
    while found.asked:
        assert own.draft["relations"][0]["facts"] == [], "nothing is taken before"
        answer = own.do(facts.take_file, found, source)
        asked.append(found.asked[0].kind)
        assert "<table>" in answer["question_preview"]
        about, choice = answer["question_about"], answer["question_choice"]["value"]
        found, source = facts.read_by_answers(about, "", text, choice, *[""] * len(ROLES))
        assert len(asked) < 5
    answer = own.do(facts.take_file, found, source)
    assert answer["question_panel"]["visible"] is False
    rows = [row[1:] for row in own.draft["relations"][0]["facts"]]
    assert kinds is None or asked == kinds
    assert taken is None or rows == taken
    assert rows


def test_columns_are_chosen(own: Tab) -> None:
    text = "Ann Bee,12,Cy Dee\nEl Eff,13,Gee Aitch\n"
    found, source = facts.read_paste(text, replace=False)
    assert [question.kind for question in found.asked] == ["columns"]
    answer = own.do(facts.take_file, found, source)
    assert [value for _, value in answer["question_subject"]["choices"]] == ["1", "2", "3"]
    found, source = facts.read_by_answers(answer["question_about"], "", text, None, "1", "3", "", "")
    assert found.asked == ()
    own.do(facts.take_file, found, source)
    assert [row[1:] for row in own.draft["relations"][0]["facts"]] == [["Ann Bee", "Cy Dee"], ["El Eff", "Gee Aitch"]]


@pytest.mark.parametrize(
    "about", ["", "x", "{}", '{"kind": "paste", "name": "", "replace": 1, "choices": "{"}', "[]", None]
)
def test_answers_that_were_never_offered_are_none(about: Any) -> None:
    found, _ = facts.read_by_answers(about, "/no/such/file", "a,b\n", "{", "x", "-1", "²", None)
    assert found.facts or found.reading


def test_a_file_that_is_read_holds_no_edit_and_one_draft_not_another() -> None:
    async def story() -> list[str]:
        lanes, done, gate = Lanes(), [], threading.Event()

        async def read(name: str) -> None:
            await lanes.read(gate.wait)
            done.append(name)

        async def edit(draft: str, name: str, wait: bool = False) -> None:
            await lanes.edit(draft, gate.wait if wait else lambda: None)
            done.append(name)

        files = [asyncio.create_task(read("file")) for _ in range(FILES_AT_A_TIME + 1)]
        slow = asyncio.create_task(edit("a", "first of a", wait=True))
        await asyncio.sleep(0)
        after = asyncio.create_task(edit("a", "second of a"))
        await asyncio.sleep(0)
        await asyncio.wait_for(edit("b", "of b"), 60)
        gate.set()
        await asyncio.gather(*files, slow, after)
        return done

    done = run_apart(story())
    assert done[0] == "of b"
    assert done.index("first of a") < done.index("second of a")
