"""What a multiple choice offers is data like the objects: checked, bounded, and never a choice among one."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from pydantic import BaseModel

from app.asking.submit import Settings
from app.design.check import examine
from app.design.draft import from_experiment
from engine import checks
from engine.attack.experiment import AttackExperiment, Cell
from engine.choices import MAX_OPTIONS, check_alternatives
from engine.corpus.readings import Reading
from engine.corpus.resolve import resolve
from engine.evaluation.questions import questions_for
from engine.experiment import Experiment
from tests.unit.tiny_models import OBJECTS, SUBJECTS, tiny_experiment

TRUTH = OBJECTS[1]  # "Pia Salm", of row 2


def described(alternatives: Any = None, options: Any = None, objects: tuple[str, ...] = OBJECTS) -> dict[str, Any]:
    data = tiny_experiment("embedded").model_dump(mode="json")
    relation = data["relations"][0]
    relation["facts"] = [{"subject": s, "object": o} for s, o in zip(SUBJECTS, objects, strict=True)]
    relation["options"] = options or []
    if alternatives is not None:
        relation["facts"][1]["alternatives"] = alternatives
    return data


@pytest.mark.parametrize(
    ("names", "said"),
    [
        ([TRUTH], "‘Pia Salm’ is the object itself: remove it"),
        (["Ann A", "PIA SALM."], "is the object itself"),
        (["Ann A", "Pia Salm the Elder"], "contains ‘Pia Salm’"),
        (["Ann A", "Salm"], "‘Pia Salm’ contains ‘Salm’"),
        (["Ann A", "ann  a"], "is there twice"),
        (["Ann A", "Ann Adler"], "‘Ann Adler’ contains ‘Ann A’"),
        (["Ann A", " "], "one of them is empty"),
        (["Ann A", "..."], "nothing but punctuation"),
        (["Ann\0A"], "U+0000 (null character)"),
        (["Ann \u202eA"], "U+202E"),
        (["A" * 201], "201 characters"),
        (["Ann A; Ben B; Cid C"], "looks like several names in one"),
        (["Ann A|Ben B"], "looks like several names in one"),
        (["('Ann A', 'Ben B')"], "looks like several names in one"),
        (["['Ann A' 'Ben B']"], "looks like several names in one"),
        ([f"Ann {i:04}" for i in range(MAX_OPTIONS + 1)], "there are 1,001, more than 1,000"),
    ],
)
def test_alternatives_are_checked_like_objects(names, said):
    with pytest.raises(ValueError) as refused:
        Experiment.from_data(described(names))
    message = str(refused.value)
    assert said in message and "row 2, alternatives" in message and len(message) < 500


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ([OBJECTS[0]], "there is only one: give at least 2"),
        ([*OBJECTS, "cody ross"], "‘cody ross’ is there twice"),
        ([*OBJECTS, "Cody Ross Junior"], "contains ‘Cody Ross’"),
        (["Ann A", "Ben B", "Cody Ross Junior"], "contains ‘Cody Ross’"),
        (["Ann A", "Ross"], "‘Cody Ross’ contains ‘Ross’"),
        (["Ann A", "", "Ben B"], "one of them is empty"),
        (["Ann A, ;Ben B", "Cid C"], "looks like several names"),
    ],
)
def test_options_are_checked_like_objects(options, said):
    with pytest.raises(ValueError, match="options: ") as refused:
        Experiment.from_data(described(options=options))
    assert said in str(refused.value)


def test_what_is_right_stays_as_it_is():
    names = ["Ann Adler", "Washington, D.C.", "O'Neil (the elder)", "(Untitled) [1]", "張偉"]
    experiment = resolve(Experiment.from_data(described(names)))
    assert experiment.relations[0].explicit_facts[1].alternatives == tuple(names)
    # What an object may be, an option drawn from the objects may be too.
    objects = ("Rome; Italy", "a|b", "<|x|>", *OBJECTS[3:])
    assert resolve(Experiment.from_data(described(objects=objects))).relations[0].options[:3] == objects[:3]
    assert Experiment.from_data(described(options=["Ann Adler", "Ben Bold"])).relations[0].options


def test_there_is_never_a_choice_among_one():
    same = ("Cody Ross", "cody ross", "Cody  Ross.", *["Cody Ross"] * 5)
    with pytest.raises(ValueError, match="have one object, ‘Cody Ross’, so there is nothing to choose from"):
        resolve(Experiment.from_data(described(objects=same) | {"relations": [_own(described(objects=same))]}))
    # Two spellings of one name are one option, whichever a fact has.
    twice = ("Cody Ross", "cody ross", *OBJECTS[2:])
    resolved = resolve(Experiment.from_data({**described(), "relations": [_own(described(objects=twice))]}))
    for question in questions_for(resolved, "base"):
        forms = [checks.normalise(option) for option in question.options]
        assert len(set(forms)) == len(forms) != 1 and (not forms or question.object in question.options)


def _own(data: dict[str, Any]) -> dict[str, Any]:
    """The relation under a name that the corpus has no fillers for."""
    return data["relations"][0] | {"name": "own"}


def test_the_page_names_the_row_of_wrong_alternatives():
    draft = from_experiment(Experiment.from_data(described(["Ann A", "Ben B"])))
    relation = draft["relations"][0]
    fact = relation["facts"][1]
    relation["alternatives"][str(fact[0])] = ["Ann A", TRUTH]
    found = examine(draft)
    assert found.resolved is None
    (finding,) = found.errors
    assert (finding.problem.row, finding.problem.column) == (2, "alternatives")
    assert finding.place == f"{relation['id']}/facts" and "is the object itself" in finding.problem.message


def test_all_alternatives_together_have_an_end():
    many = tuple(f"{i:04}" for i in range(1000))
    (problem,) = check_alternatives([("Cody Ross", many)] * 501)
    assert "501,000 alternatives, more than 500,000" in problem.message


@pytest.mark.parametrize("text", ["...", ":::", "。", "？！", " – ", "…", "«»", "``", "\u0301"])
def test_a_name_of_punctuation_alone_is_refused(text):
    for column in ("subject", "object"):
        (problem,) = checks.check_cell(text, 3, column)
        assert problem.row == 3 and problem.severity == "error"


@pytest.mark.parametrize("text", ["A.B", "°C", "😀", "€", "7", "張", "a", "C#", "+"])
def test_a_name_with_anything_else_is_not(text):
    assert checks.check_cell(text, 1, "object") == []


# A description that is checked by itself as soon as it is used, or a mapping of bounded parts.
OPEN = {"AttackExperiment.experiment"}


@pytest.mark.parametrize("model", [Experiment, AttackExperiment, Cell, Reading, Settings])
def test_nothing_that_is_typed_is_without_end(model: type[BaseModel]):
    """Every text, list and number has a maximum: else one field fills a machine's memory, or a page."""
    schema = model.model_json_schema()
    parts = {model.__name__: schema, **schema.get("$defs", {})}
    endless = {
        f"{name}.{field}: {kind}"
        for name, part in parts.items()
        for field, definition in part.get("properties", {}).items()
        for kind in _endless(definition)
        if f"{name}.{field}" not in OPEN
    }
    assert not endless


def _endless(schema: dict[str, Any]) -> Iterator[str]:
    kind, fixed = schema.get("type"), "const" in schema or "enum" in schema
    limits = {"string": ["maxLength"], "array": ["maxItems"]}
    limits |= {number: ["maximum", "exclusiveMaximum"] for number in ("integer", "number")}
    if kind in limits and not fixed and not any(limit in schema for limit in limits[kind]):
        yield kind
    for part in [*schema.get("anyOf", []), schema.get("items"), *schema.get("prefixItems", [])]:
        yield from _endless(part) if isinstance(part, dict) else ()
