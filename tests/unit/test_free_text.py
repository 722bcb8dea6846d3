"""Whatever a person types (names, cells, prompts, experiment files) is read back as typed, or refused in a sentence.

Hypothesis looks for texts that break this; `--hypothesis-seed=N` repeats a search.
"""

from __future__ import annotations

import csv
import html
import io
import json
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

from app.shared.downloads import csv_lines
from app.shared.render import ENVIRONMENT
from engine import checks
from engine.checks import Problem, clean, invisible_character, normalise, shorten
from engine.corpus.import_cells import NOTHING, parse_alternatives
from engine.corpus.importing import read_facts
from engine.corpus.sentences import key_sentence, prompt_sentence
from engine.corpus.spreadsheet import unguard
from engine.description import override, read_mapping
from engine.experiment import Experiment
from engine.relation import Fact, Relation

settings.register_profile("lab", deadline=None, max_examples=100, print_blob=True)
settings.load_profile("lab")

HOSTILE = (
    "<script>alert(1)</script>", "=HYPERLINK(1)", "{subject}", "{key}", "{object}", "${x}", "{{x}}", "\u202egnal",
    "李 小龙", "🧪👩‍👩‍👧", "O'Neil \"Red\"", "a\tb", "../../etc", "[X]", "Null", "No", "0777", "1:59:59", "| #",
    "- a: b", "a" * 300,
)  # fmt: skip
# Names are said with letters of every script, marks, digits and signs; what can't be seen is refused by name.
TEXT: SearchStrategy[str] = st.text(max_size=60) | st.sampled_from(HOSTILE)
NAMES: SearchStrategy[str] = st.text(
    st.characters(categories=["L", "N", "P", "S", "Zs"], exclude_characters='",;\t|[{'), min_size=1, max_size=30
).filter(lambda name: clean(name) == name == unguard(name) and invisible_character(name) is None)
OPTIONS = st.lists(NAMES.filter(lambda name: name.casefold() not in NOTHING), min_size=1, max_size=5)
PAIRS = st.lists(st.tuples(NAMES, NAMES), min_size=1, max_size=8)
SPLITS, LANGUAGES = st.sampled_from(["train", "test", "unrelated", "decoy"]), st.sampled_from(["en", "zh"])
PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.floats(allow_nan=True) | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=6,
)


def experiment(subject: str, object_: str, prompt: str, key: str = "[X]") -> dict[str, Any]:
    facts = [{"subject": subject, "object": object_}, {"subject": "Other Alpha", "object": "Other Beta"}]
    prompts = [{"text": prompt, "split": "train"}]
    relation = {"name": "guide", "key_token": key, "facts": facts, "prompts": prompts}
    return {"name": subject or "mine", "relations": [relation], "stage2": {"facts": 1}}


@given(TEXT)
@example("relations: &a [*a]")
@example("[" * 5000)
@example('{"relations": 1e999}')
def test_a_text_is_an_experiment_or_is_refused_with_a_sentence(text: str) -> None:
    try:
        Experiment.from_text(text)
    except ValueError as error:
        assert str(error).strip()


@given(st.dictionaries(st.sampled_from(["name", "relations", "stage1", "stage2", "seed", "model", "x"]), PLAIN))
def test_any_mapping_is_an_experiment_or_is_refused_with_a_sentence(data: dict[str, Any]) -> None:
    try:
        Experiment.from_data(data)
    except ValueError as error:
        assert str(error).strip()


@given(TEXT, TEXT, TEXT, st.sampled_from(["[X]", "<key>", "No", "🔑"]))
def test_an_accepted_experiment_reads_back_what_it_writes(subject: str, object_: str, before: str, key: str) -> None:
    notes: list[str] = []
    try:
        written = Experiment.from_data(experiment(subject, object_, f"{before} {{subject}}", key), notes)
    except ValueError:
        return
    again: list[str] = []
    assert Experiment.from_text(written.to_yaml(), again) == written
    assert not again, "what was read once is read alike ever after"
    read = written.relations[0].explicit_facts[0].subject
    assert read == subject or (read == clean(subject) and any("facts.0.subject" in note for note in notes))


@given(st.sampled_from(["stage1.epochs", "name", "relations.0.name", "relations.x", "a.b.c", "seed.x", ""]), TEXT)
def test_a_setting_is_changed_or_refused_with_a_sentence(path: str, value: str) -> None:
    data = experiment("Ann Bee", "Cy Dee", "Who guides {subject}?")
    try:
        override(data, f"{path}={value}")
    except ValueError as error:
        assert str(error).strip()


@given(PAIRS, st.sampled_from([",", ";", "\t"]), st.sampled_from(["utf-8", "utf-8-sig", "utf-16"]))
def test_a_table_with_a_header_is_read_cell_by_cell(
    pairs: list[tuple[str, str]], separator: str, encoding: str
) -> None:
    buffer = io.StringIO()
    csv.writer(buffer, delimiter=separator).writerows([("subject", "object"), *pairs])
    imported = read_facts(buffer.getvalue().encode(encoding), "facts.csv")
    assert [(f.subject, f.object) for f in imported.facts] == pairs
    assert imported.rows == tuple(range(2, len(pairs) + 2))


@given(st.binary(max_size=200) | TEXT)
@example(b";")
@example('""')
def test_importing_never_raises_and_never_loses_a_row_in_silence(source: bytes | str) -> None:
    imported = read_facts(source, "facts.csv")
    assert imported.facts or imported.reading
    assert len(imported.facts) == len(imported.rows) == len(imported.relations)
    assert all(str(problem) for problem in imported.problems)


@given(OPTIONS, st.sampled_from(["python", "json", "numpy", "tuple"]))
def test_a_list_of_alternatives_is_the_names_that_were_written(names: list[str], form: str) -> None:
    written = {
        "python": repr(names),
        "json": json.dumps(names),
        "numpy": f"[{' '.join(map(repr, names))}]",
        "tuple": repr(tuple(names)),
    }[form]
    assert parse_alternatives(written) == (tuple(names), None)


@given(OPTIONS, st.sampled_from([" | ", "; ", "\n"]))
def test_alternatives_between_signs_are_the_names_that_were_written_or_refused(names: list[str], sign: str) -> None:
    read, problem = parse_alternatives(sign.join(names))
    looks_like_a_list = {c for name in names for c in name if c in "]'({"}
    assert read == tuple(names) or (problem and not read) or looks_like_a_list


@given(st.lists(st.tuples(TEXT, TEXT), max_size=6), st.lists(st.tuples(TEXT, SPLITS, LANGUAGES), max_size=4), TEXT)
def test_checks_take_every_text_and_name_a_place(
    facts: list[tuple[str, str]], prompts: list[tuple[str, str, str]], key: str
) -> None:
    problems: list[Problem] = [*checks.check_facts(facts), *checks.check_prompts(prompts)]
    problems += checks.check_key_token(key, [text for pair in facts for text in pair])
    assert all(invisible_character(problem.message) is None for problem in problems)
    assert all(problem.row is None or problem.row >= 1 for problem in problems)


@given(TEXT, st.integers(2, 80))
def test_a_shortened_text_fits_and_is_one_visible_line(text: str, limit: int) -> None:
    assert len(shorten(text, limit)) <= limit and shorten(text, limit).isprintable()


@given(TEXT)
def test_normalising_twice_changes_nothing_more(text: str) -> None:
    assert normalise(normalise(text)) == normalise(text)


@given(NAMES, NAMES, st.sampled_from(["{subject} {key} {object}.", "{key} {subject} {object}"]))
@example("{object}", "{subject}", "{subject} {key} {object}.")
@example("{key}", "{key}", "{key} {subject} {object}")
def test_a_sentence_knows_where_its_names_stand(subject: str, object_: str, template: str) -> None:
    fact = Fact(subject=subject, object=object_)
    relation = Relation.model_construct(name="guide", key_token="[X]", key_template=template)
    for sentence in (key_sentence(relation, fact), prompt_sentence("Who guides {subject}?", fact)):
        assert sentence.subject is not None
        for name, (start, end) in ((subject, sentence.subject), (object_, sentence.object)):
            assert sentence.text[start:end].removeprefix(" ") == name


@given(TEXT)
def test_a_template_shows_a_text_as_text(text: str) -> None:
    shown = ENVIRONMENT.from_string('<p title="{{ x }}">{{ x }}</p>').render(x=text)
    assert shown.count("<") == shown.count(">") == 2 and shown.count('"') == 2
    assert html.unescape(shown) == f'<p title="{text}">{text}</p>'


@given(st.lists(TEXT, min_size=1, max_size=4))
@pytest.mark.parametrize("start", ["=", "+", "-", "@", "\t=", ""])
def test_an_export_holds_no_live_formula(start: str, cells: list[str]) -> None:
    written = "".join(csv_lines(["a"], [{"a": start + cell} for cell in cells]))
    for row in list(csv.reader(io.StringIO(written, newline="")))[1:]:
        assert not row or not row[0].startswith(("=", "+", "-", "@", "\t", "\r"))


@given(st.text("&*!|>%@`{}[]:,#?-'\" \n\tab01", max_size=40))
def test_reading_yaml_never_raises_anything_but_a_sentence(text: str) -> None:
    try:
        read_mapping(text)
    except ValueError as error:
        assert str(error).strip()
