"""Experiment and attack files, and single settings: read as written, or refused in a sentence."""

from __future__ import annotations

import json
from typing import Any

import yaml
from hypothesis import assume
from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

from engine import checks
from engine.attack.experiment import AttackExperiment
from engine.checks import invisible_character
from engine.corpus.readings import Reading
from engine.corpus.resolve import resolve
from engine.description import override, read_mapping
from engine.experiment import Experiment
from tests.fuzz.target import Target, fed, said_in_words
from tests.fuzz.texts import ANYTHING, NAMES, NUMBERS, PLAIN_NAMES, TEXT, cleaned, mostly

SPLITS = st.sampled_from(["train", "train", "test", "unrelated", "decoy", "reversal", "two_hop"])
LANGUAGES = mostly(st.just("en"), st.sampled_from(["zh", "fr", "sp", "EN", "no"]) | TEXT)
PROMPTS = mostly(
    st.tuples(PLAIN_NAMES, st.sampled_from(["subject", "subject", "object"])).map(lambda x: f"{x[0]} {{{x[1]}}}?"),
    st.tuples(TEXT, st.just("{subject}"), TEXT).map("".join),
)
FACTS = st.lists(
    st.fixed_dictionaries(
        {"subject": NAMES, "object": NAMES},
        optional={"alternatives": mostly(st.just([]), st.lists(NAMES, max_size=4))},
    ),
    min_size=3, max_size=6,
)  # fmt: skip
RELATIONS = st.fixed_dictionaries(
    {"name": mostly(st.sampled_from(["mother", "guide"]), TEXT), "facts": FACTS},
    optional={
        "key_token": mostly(st.sampled_from(["[X]", "<k>"]), TEXT),
        "key_template": mostly(st.sampled_from(["{subject} {key} {object}.", "{key} {subject} {object}"]), TEXT),
        "prompts": st.lists(
            st.fixed_dictionaries(
                {"text": PROMPTS, "split": SPLITS},
                optional={"language": LANGUAGES, "relation": mostly(st.sampled_from(["mother", "guide"]), TEXT)},
            ),
            min_size=1, max_size=5,
        ),
        "options": mostly(st.just([]), st.lists(NAMES, max_size=4)),
    },
)  # fmt: skip
COUNTS = mostly(st.integers(1, 30), NUMBERS)
SETTINGS: SearchStrategy[dict[str, Any]] = st.fixed_dictionaries(
    {"stage2": st.fixed_dictionaries({"facts": mostly(st.just(1), NUMBERS)}, optional={"language": LANGUAGES})},
    optional={
        "name": mostly(PLAIN_NAMES, TEXT), "description": TEXT, "model": mostly(st.just("embedded"), TEXT),
        "seed": COUNTS, "tuning": mostly(st.just({"method": "lora", "rank": 4}), ANYTHING),
        "stage1": st.fixed_dictionaries(
            {}, optional={"epochs": COUNTS, "learning_rate": mostly(st.just(1e-3), NUMBERS)}
        ),
        "evaluation": st.fixed_dictionaries(
            {}, optional={"languages": st.lists(LANGUAGES, max_size=3), "options": COUNTS, "max_new_tokens": COUNTS}
        ),
    },
)  # fmt: skip


def _kept(data: dict[str, Any], experiment: Experiment) -> None:
    """Every name and text that was accepted is the one that was typed, or its documented clean form."""
    assert len(experiment.relations) == len(data["relations"])
    for typed, relation in zip(data["relations"], experiment.relations, strict=True):
        assert cleaned(typed["name"]) == relation.name
        assert len(relation.explicit_facts) == len(typed["facts"])
        for fact, read in zip(typed["facts"], relation.explicit_facts, strict=True):
            assert cleaned(fact["subject"]) == read.subject
            assert cleaned(fact["object"]) == read.object
            assert [cleaned(x) for x in fact.get("alternatives", ())] == list(read.alternatives)
        if "prompts" in typed:
            assert [cleaned(p["text"]) for p in typed["prompts"]] == [p.text for p in relation.explicit_prompts]
        for text in (relation.name, relation.key_token, *(f.subject for f in relation.explicit_facts)):
            assert invisible_character(text) is None and len(text) <= checks.MAX_NAME_CHARACTERS


@fed(
    SETTINGS,
    mostly(st.lists(RELATIONS, min_size=1, max_size=1), st.lists(RELATIONS, max_size=3)),
    st.sampled_from(["data", "yaml", "json"]),
)
def written_out(settings: dict[str, Any], relations: list[dict[str, Any]], form: str) -> str:
    """A description with hostile values in its fields, as plain data, YAML and JSON."""
    data = settings | {"relations": relations}

    def read() -> Experiment:
        if form == "data":
            return Experiment.from_data(data)
        try:
            text = json.dumps(data) if form == "json" else yaml.safe_dump(data, allow_unicode=True)
            text.encode()
        except (UnicodeEncodeError, ValueError):
            assume(False)
        return Experiment.from_text(text)

    with said_in_words() as outcome:
        experiment = read()
        _kept(data, experiment)
        again = resolve(experiment)
        assert Experiment.from_text(again.to_yaml()) == again
    return outcome.name


@fed(st.sampled_from(["name", "object", "key_token", "description", "prompt"]), TEXT)
def plain_scalar(field: str, value: str) -> str:
    """A value typed into a YAML file without quotation marks: it is that text, or is refused."""
    assume("\n" not in value and "\r" not in value)
    values = {
        "name": "mine",
        "object": "Cy Dee",
        "key_token": '"[X]"',
        "description": "none",
        "prompt": '"Who? {subject}"',
    }
    values[field] = value
    text = (
        f"name: {values['name']}\ndescription: {values['description']}\nstage2: {{facts: 1}}\n"
        "relations:\n- name: guide\n"
        f"  key_token: {values['key_token']}\n  facts:\n  - subject: Ann Bee\n    object: {values['object']}\n"
        f"  - {{subject: Other Alpha, object: Other Beta}}\n  prompts:\n  - {{split: train, text: 'Ask {{subject}}'}}\n"
        f"  - split: test\n    text: {values['prompt']}\n"
    )
    with said_in_words() as outcome:
        experiment = Experiment.from_text(text)
        relation = experiment.relations[0]
        read = {
            "name": experiment.name, "object": relation.explicit_facts[0].object, "key_token": relation.key_token,
            "description": experiment.description, "prompt": relation.explicit_prompts[-1].text,
        }[field]  # fmt: skip
        # A description may have lines, and keeps what is between its words.
        kept = cleaned(read) if field == "description" else read
        assert kept in _yaml_meanings(value), f"{value!r} was read as {read!r}"
    return outcome.name


def _yaml_meanings(value: str) -> set[str]:
    """What a plain scalar may stand for: itself, what stands before a comment, or between its quotation marks."""
    meanings = {value, value.split(" #")[0], ""} if value.strip()[:1] != "#" else {""}
    try:
        loaded = yaml.load(f"x: {value}", Loader=yaml.BaseLoader)
        if isinstance(loaded, dict) and isinstance(loaded.get("x"), str):
            meanings.add(loaded["x"])
    except yaml.YAMLError:
        pass
    return {cleaned(meaning) for meaning in meanings}


@fed(TEXT | st.text("&*!|>%@`{}[]:,#?-'\" \n\tab01", max_size=80))
def any_text(text: str) -> str:
    """Any text in place of a description."""
    with said_in_words() as outcome:
        read_mapping(text)
        Experiment.from_text(text)
    return outcome.name


@fed(st.dictionaries(st.sampled_from([*AttackExperiment.model_fields, "x"]), ANYTHING, max_size=4))
def attack_file(data: dict[str, Any]) -> str:
    """An attack's description with anything in its fields."""
    with said_in_words() as outcome:
        AttackExperiment.from_data(data)
    return outcome.name


@fed(st.dictionaries(st.sampled_from([*Reading.model_fields, "x"]), ANYTHING | TEXT, max_size=5))
def reading_file(data: dict[str, Any]) -> str:
    """A reading with anything in its fields."""
    with said_in_words() as outcome:
        Reading.model_validate(data)
    return outcome.name


PATHS = st.sampled_from(
    ["name", "seed", "stage1.epochs", "stage1.learning_rate", "relations.0.name", "relations.0.facts", "tuning.rank",
     "relations.0.key_token", "relations.9.x", "evaluation.languages", "a.b.c", ""]
)  # fmt: skip


@fed(PATHS, TEXT | NUMBERS.map(str))
def one_setting(path: str, value: str) -> str:
    """`--set path=value` with any value."""
    data: dict[str, Any] = {"relations": [{"name": "mother"}]}
    with said_in_words() as outcome:
        override(data, f"{path}={value}")
        Experiment.from_data(data)
    return outcome.name


TARGETS = (
    Target("descriptions written out", written_out, 5),
    Target("values without quotation marks in YAML", plain_scalar, 3),
    Target("any text as a description", any_text, 2),
    Target("attack files", attack_file, 1),
    Target("readings", reading_file, 1),
    Target("--set PATH=VALUE", one_setting, 1),
)
