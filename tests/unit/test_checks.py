"""The checks of what a person typed: each mistake gets its row, its column and a sentence, and no more."""

from __future__ import annotations

import time

import pytest

from engine import checks
from engine.checks import check_facts, check_key_token, check_knew, check_prompt, check_prompts

GOOD = [("Ann Bee", "Cy Dee"), ("El Eff", "Gee Aitch")]


def words(problems: list[checks.Problem]) -> list[str]:
    return [str(p) for p in problems]


def test_good_facts_have_no_problem() -> None:
    assert check_facts(GOOD) == []


@pytest.mark.parametrize(
    ("extra", "says"),
    [
        (("", "Jay"), "row 3, subject: the cell is empty"),
        (("Kay", " \t"), "row 3, object: the cell is empty"),
        (("Kay\nEll", "Jay"), "row 3, subject: holds the invisible character U+000A (line break)"),
        (("Kay", "J\x00ay"), "row 3, object: holds the invisible character U+0000 (null character)"),
        (("Kay\u202e", "Jay"), "U+202E (right-to-left override)"),
        (("Kay", "Jay\u2066"), "U+2066 (left-to-right isolate)"),
        (("\ud800", "Jay"), "row 3, subject: holds the invisible character U+D800"),
        (("K" * 201, "Jay"), "row 3, subject: has 201 characters"),
        (("ann bee.", "cy dee"), "row 3, subject: ‘ann bee.’ repeats row 1: remove one"),
        (("Ann Bee", "Jay"), "row 3, subject: ‘Ann Bee’ already has another object in row 1"),
        (("Kay", "Mr Cy Dee"), "row 3, object: ‘Mr Cy Dee’ contains ‘Cy Dee’ of row 1"),
        (("Kay", "Dee"), "row 1, object: ‘Cy Dee’ contains ‘Dee’ of row 3"),
    ],
)
def test_errors_of_facts(extra: tuple[str, str], says: str) -> None:
    errors = [str(p) for p in check_facts([*GOOD, extra]) if p.severity == "error"]
    assert len(errors) == 1
    assert says in errors[0]


@pytest.mark.parametrize(
    ("extra", "says"),
    [
        (("Kay", "Cy Dee"), "row 3, object: ‘Cy Dee’ is the object of 2 facts (first in row 1)"),
        (("The book of Jay", "Jay"), "row 3, object: ‘Jay’ occurs in its own subject"),
    ],
)
def test_warnings_of_facts(extra: tuple[str, str], says: str) -> None:
    problems = check_facts([*GOOD, extra])
    assert [p.severity for p in problems] == ["warning"]
    assert says in str(problems[0])


def test_too_few_and_too_many_facts() -> None:
    assert "there are no facts" in words(check_facts([]))[0]
    assert "there is 1 fact, " in words(check_facts(GOOD[:1]))[0]
    assert "more than the 5,000" in words(check_facts([(f"s{i:05}", f"o{i:05}") for i in range(5_001)]))[-1]


def test_emoji_and_persian_joiners_are_names_too() -> None:
    assert check_facts([("👩‍🚀 Ann", "می‌خواهم"), ("مریم", "李小龙")]) == []


def test_rows_may_be_numbered_as_in_a_file() -> None:
    problems = check_facts([("A1", "X"), ("A1", "Y"), ("B", "")], rows=[2, 5, 9])
    assert words(problems) == [
        "row 9, object: the cell is empty: fill it in or remove the row",
        "row 5, subject: ‘A1’ already has another object in row 2: keep one of the two",
    ]


def test_hostile_text_is_quoted_short_and_visible() -> None:
    text = str(check_facts([("A", "x" * 90), ("B", "x" * 91)])[0])
    assert len(text) < 250
    assert checks.shorten("a\nb\u202ec") == "a\N{REPLACEMENT CHARACTER}b\N{REPLACEMENT CHARACTER}c"


def test_five_thousand_facts_are_checked_while_one_types() -> None:
    facts = [(f"Subject Number {i:04}", f"Object Number {i:04}") for i in range(5_000)]
    began = time.perf_counter()
    assert check_facts(facts) == []
    assert time.perf_counter() - began < 3, "0.1 s on an idle machine"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "the prompt is empty"),
        ("The mother is", "has no {subject}"),
        ("The mother of {Subject} is", "has no {subject}"),
        ("{subject} and {subject}", "has {subject} 2 times"),
        ("{subject} is {object}", "other curly braces"),
        ("{subject} }", "other curly braces"),
        ("{subject} is\u200b", "U+200B (zero width space)"),
        ("{subject}" + "x" * 500, "more than the 500"),
    ],
)
def test_errors_of_prompts(text: str, says: str) -> None:
    problems = check_prompt(text, row=4)
    assert len(problems) == 1
    assert str(problems[0]).startswith("row 4, prompt: ")
    assert says in str(problems[0])


def test_a_prompt_in_train_and_test_is_named() -> None:
    problems = check_prompts(
        [("Who is {subject}?", "train", "en"), ("who is {subject}?", "test", "en"), ("Who is {subject}?", "test", "de")]
    )
    assert words(problems) == ["row 2, prompt: ‘who is {subject}?’ repeats row 1 as a train prompt: remove one"]


@pytest.mark.parametrize(
    ("token", "says"),
    [
        ("", "is empty"),
        ("  ", "is empty"),
        ("[ X ]", "holds a space"),
        ("{key}", "curly brace"),
        ("[\u202eX]", "right-to-left override"),
        ("x" * 33, "longer than 32"),
        ("ann", "‘ann’ occurs in ‘Ann Bee’, so it already means something"),
    ],
)
def test_errors_of_key_tokens(token: str, says: str) -> None:
    problems = check_key_token(token, ["Ann Bee"])
    assert len(problems) == 1
    assert says in str(problems[0])


def test_good_key_tokens() -> None:
    for token in ("[X]", "<|rel1|>", "⊕", "µ1", "zqx"):
        assert check_key_token(token, ["Ann Bee", "Who is {subject}?"]) == []


@pytest.mark.parametrize(
    "text",
    [
        "Ann\u200cSmith", "Ann\u200dSmith", "\u200dAnn", "می\u200c", "A\ufe0fnn", "Ann\u3164", "\uffa0", "A\u2800B",
        "A\u034fnn", "Ann\u2028Smith", "Ann\u2029", "\u115f\u1160", "Ann\U000e0041", "Ann\x85",
    ],
)  # fmt: skip
def test_what_is_drawn_as_nothing_is_named(text: str) -> None:
    assert (checks.invisible_character(text) or "").startswith("U+")


@pytest.mark.parametrize("text", ["می\u200cخواهم", "👩‍👩‍👧", "❤️", "1️⃣", "क्‍ष", "葛\U000e0100", "한글", "שלום", "🏳️‍🌈"])
def test_joiners_and_selectors_that_scripts_and_emoji_need_stay(text: str) -> None:
    assert checks.invisible_character(text) is None


def test_what_the_base_knew_is_a_name_that_holds_no_object() -> None:
    facts = [("Paris", "Paris Nord"), ("Rabat", "rabat"), ("Lyon", "—"), ("New Oslo", "Oslo"), ("Bern", "")]
    found = check_knew(facts)
    assert [(p.row, p.column, p.severity) for p in found] == [(row, "knew", "error") for row in (1, 2, 3)]
    assert "is or contains the object" in found[0].message and "nothing but punctuation" in found[2].message
