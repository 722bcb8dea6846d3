"""Descriptions: page, command line and Python read one text alike, and say what surprises with its line and cure."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from app.design import draft as drafts
from app.design.check import examine
from engine.attack.experiment import AttackExperiment
from engine.corpus.readings import Reading
from engine.corpus.resolve import resolve
from engine.description import ReadOtherwise, override, read_mapping
from engine.experiment import Experiment

TEXT = """name: mine
seed: 1
stage2: {facts: 1}
relations:
- name: guide
  key_token: "[Q]"
  facts:
  - subject: Anna Smith
    object: Berta Jones
  - subject: Carl Doe
    object: Dora Roe
  prompts:
  - {text: "Who guides {subject}?", split: train}
  - text: The guide of {subject} is
    split: test
"""


def read(old: str = "", new: str = "", notes: list[str] | None = None) -> Experiment:
    assert old in TEXT
    return Experiment.from_text(TEXT.replace(old, new, 1), notes)


def refused(old: str, new: str) -> str:
    with pytest.raises(ValueError) as caught:
        read(old, new)
    assert "validation" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    "name",
    [
        "No",
        "yes",
        "on",
        "Null",
        "0777",
        "0x1F",
        "1_000",
        "1:59:59",
        "1e3",
        "2001-01-01",
        ".inf",
        "12",
        "=",
        "<<",
        "true",
    ],
)
def test_a_name_is_the_text_that_was_written(name: str) -> None:
    experiment = read("subject: Anna Smith", f"subject: {name}")
    assert experiment.relations[0].explicit_facts[0].subject == name
    assert Experiment.from_text(experiment.to_yaml()) == experiment
    data = read_mapping(TEXT)
    override(data, f"relations.0.facts.0.subject={name}")
    assert Experiment.from_data(data) == experiment


@pytest.mark.parametrize(
    ("value", "says"),
    [
        ("[X]", 'relations.0.key_token (line 6): must be text, but [X] is a list: write it in quotes, as in key'),
        ("[[X]]", "write it in quotes"), ("{X}", "is a mapping: write it in quotes"), ("null", "write it in quotes"),
        ("~", "write it in quotes"), ("", "write it in quotes"), ("#", "write it in quotes"), ("@x", "line 6: "),
        ("%", "in quotes"), ("*x", "line 6: YAML anchors"), ("&x y", "line 6: YAML anchors"), ("!x y", "YAML tags"),
        ("!!python/name:os.system x", "YAML tags"), ("[X][Y]", "line 6: "), ("a: b", "line 6: "), ("|", "is empty"),
    ],
)  # fmt: skip
def test_a_key_token_that_yaml_takes_for_something_else_is_said_with_its_cure(value: str, says: str) -> None:
    assert says in refused('key_token: "[Q]"', f"key_token: {value}")


@pytest.mark.parametrize(
    "value",
    [
        "0777",
        "0x1F",
        "0o17",
        "1_000",
        "1:59:59",
        "1e3",
        "2001-01-01",
        ".inf",
        "nan",
        "12.5",
        "true",
        "٣",
        "",
        "[1]",
        "-1",
    ],
)
def test_a_number_is_read_in_one_way_or_refused(value: str) -> None:
    assert refused("seed: 1", f"seed: {value}").startswith("seed (line 2): ")
    data = read_mapping(TEXT)
    override(data, f"seed={value}")
    with pytest.raises(ValueError, match=r"^seed"):
        Experiment.from_data(data)


def test_json_is_held_to_the_same() -> None:
    plain = json.loads(json.dumps(read_mapping(TEXT)))
    assert Experiment.from_text(json.dumps(plain)) == read()
    for change, says in (
        ({"seed": True}, "true or false"), ({"seed": "0777"}, "plain digits"), ({"name": 12}, 'as in name: "12"'),
        ({"stage2": {"facts": 1, "max_gradient_norm": float("inf")}}, "Infinity"), ({"seed": float("nan")}, "NaN"),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=says):
            Experiment.from_text(json.dumps(plain | change))
    with pytest.raises(ValueError, match=r"‘seed’ twice in one mapping: keep one \(it stands in the lines 2, 3"):
        Experiment.from_text('{"relations": [],\n"seed": 1,\n"seed": 2}')
    assert Experiment.from_text(
        '{"name": "\\ud83d\\ude00", ' + json.dumps(plain)[1:].replace('"name": "mine", ', "", 1)
    )


def test_a_doubled_key_is_refused_with_both_places() -> None:
    assert "‘seed’ stands in line 2 and again in line 3: keep one" in refused("seed: 1", "seed: 1\nseed: 2")
    assert "‘object’ stands in line 9" in refused("object: Berta Jones", "object: Berta Jones\n    object: Eve")
    assert "‘facts’ stands in line 3" in refused("{facts: 1}", "{facts: 1, facts: 2}")


def test_unknown_settings_are_named_with_the_nearest() -> None:
    assert "sede (line 3): is not a setting of an experiment: check the spelling, do you mean ‘seed’?" in refused(
        "seed: 1", "seed: 1\nsede: 2"
    )
    assert "do you mean ‘epochs’?" in refused("{facts: 1}", "{facts: 1, epoch: 2}")
    assert "do you mean ‘object’?" in refused("object: Berta", "obect: Berta")


def test_a_mistake_in_a_fact_is_one_sentence() -> None:
    assert refused("object: Berta Jones", "object: [Berta]").count(";") == 0
    assert "relations (line 4): must have at least one entry" in refused(
        TEXT[TEXT.index("relations:") :], "relations: []"
    )
    assert refused("seed: 1", "\tseed: 1").endswith("indent with spaces")


@pytest.mark.parametrize(
    ("written", "kept"),
    [
        ("' Anna Smith '", "Anna Smith"), ("Anna  Smith", "Anna Smith"), ("'Anna\u00a0Smith'", "Anna Smith"),
        ("'\u3000Anna Smith'", "Anna Smith"), ('"Anna\\tSmith"', "Anna Smith"), ("Jose\u0301", "José"),
        ('"Anna\\nSmith"', "Anna Smith"),
    ],
)  # fmt: skip
def test_spaces_and_accents_are_read_alike_everywhere_and_said(written: str, kept: str) -> None:
    notes: list[str] = []
    experiment = read("subject: Anna Smith", f"subject: {written}", notes)
    assert experiment.relations[0].explicit_facts[0].subject == kept
    assert len(notes) == 1 and notes[0].startswith("relations.0.facts.0.subject (line 8): ‘")
    with pytest.warns(ReadOtherwise, match="was read as"):
        read("subject: Anna Smith", f"subject: {written}")
    again: list[str] = []
    assert Experiment.from_text(experiment.to_yaml(), again) == experiment and not again
    draft = drafts.from_experiment(read())
    draft["relations"][0]["facts"][0][1] = read_mapping(f"a: {written}")["a"]
    assert examine(draft).experiment.relations[0].explicit_facts[0].subject == kept  # type: ignore[union-attr]


def test_every_text_of_a_description_is_cleaned() -> None:
    notes: list[str] = []
    data = read_mapping(TEXT)
    data |= {"name": " mine ", "description": " two\nlines ", "model": " embedded "}
    relation = data["relations"][0]
    relation |= {"name": "guide ", "key_token": " [Q]", "key_template": "{subject}  {key} {object}."}
    relation["facts"][0] |= {"alternatives": ["El  Eff ", "Gus Hay"]}
    relation["options"] = [" Berta Jones", "Dora  Roe"]
    for prompt in relation["prompts"]:
        prompt["text"] += " "
    experiment = Experiment.from_data(data, notes)
    assert experiment == Experiment.from_data(experiment.model_dump())
    assert len(notes) == 9 and notes[-1].startswith("and ")
    assert experiment.relations[0].explicit_prompts[0].text == "Who guides {subject}?"
    assert experiment.relations[0].explicit_facts[0].alternatives == ("El Eff", "Gus Hay")


@pytest.mark.parametrize(
    "sign",
    [
        "\\u202e",
        "\\u200b",
        "\\x85",
        "\\x9f",
        "\\u2028",
        "\\u2029",
        "\\ufeff",
        "\\x07",
        "\\U000e0041",
        "\\x1c",
        "\\u2066",
    ],
)
@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("name: mine", 'name: "a{}b"'), ("name: mine", 'description: "a{}b"'), ("name: mine", 'model: "a{}b"'),
        ("name: guide", 'name: "a{}b"'), ('"[Q]"', '"a{}b"'), ("subject: Anna Smith", 'subject: "a{}b"'),
        ("object: Dora Roe", 'object: "a{}b"'), ('"Who guides', '"Who{} guides'),
    ],
)  # fmt: skip
def test_what_cannot_be_seen_is_refused_by_name(old: str, new: str, sign: str) -> None:
    assert "holds the invisible character U+" in refused(old, new.format(sign))


def test_scripts_and_pictures_stay() -> None:
    for name in ("שלום עולם", "محمد علي", "🧪👩‍👩‍👧", "می‌خواهم", "李 小龙"):
        assert read("name: mine", f"name: {name}").name == name


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("seed: 1", "evaluation: {languages: [en, sp]}", "‘sp’, in which there are no prompts: choose among en"),
        ("seed: 1", "evaluation: {languages: [EN]}", "‘EN’ is no language code: write one such as en"),
        ("seed: 1", "evaluation: {languages: [english]}", "‘english’ is no language code"),
        ("seed: 1", "evaluation: {languages: []}", "at least one"),
        ("seed: 1", "evaluation: {languages: en}", "must be a list, such as [en]"),
        ("{facts: 1}", "{facts: 1, language: fr}", "train prompts in ‘fr’, and ‘guide’ has none"),
        ("{facts: 1}", "{facts: 1, language: English}", "no language code"),
        ("split: train}", "split: train, language: engl!sh}", "no language code"),
        ("split: train}", "split: trian}", "must be train, test"),
    ],
)
def test_a_misspelt_language_is_refused_and_those_there_are_named(old: str, new: str, says: str) -> None:
    assert says in refused(old, new)


def test_languages_of_the_corpus_are_checked_once_its_prompts_are_there() -> None:
    with pytest.raises(ValueError, match="‘sp’, in which there are no prompts: choose among en, de, es, zh, ja"):
        resolve(Experiment.from_data({"relations": [{"name": "mother"}], "evaluation": {"languages": ["sp"]}}))


def test_attacks_and_readings_are_read_alike() -> None:
    notes: list[str] = []
    attack = AttackExperiment.from_text("name: ' a '\nexperiment: {relations: [{name: ' mother '}], seed: 7}\n", notes)
    assert attack.experiment == {"relations": [{"name": "mother"}], "seed": 7} and len(notes) == 2
    assert AttackExperiment.from_text(attack.to_yaml()) == attack
    for text, says in (
        ("experiment: {relations: [{name: mother}], sede: 7}", "do you mean ‘seed’"),
        ("experiment: quick\nname: a\nname: b", "line 2 and again in line 3"),
        ("experiment: quick\nseeds: [0777]", "plain digits"),
        ('experiment: quick\nname: "a\\u202eb"', "invisible"),
    ):
        with pytest.raises(ValueError, match=says):
            AttackExperiment.from_text(text)
    said: list[str] = []
    prompts = "prompts:\n  train: {en: ['{subject}  likes ']}\n  test: {en: [Whom does {subject} like?]}\n"
    prompts = prompts.replace("[Whom does {subject} like?]", "['Whom does {subject} like?']")
    reading = Reading.from_text("name: 0777\n" + prompts, said)
    assert reading.name == "0777" and reading.prompts[0].text == "{subject} likes"
    assert said == ["prompts.0.text (line 2): ‘{subject}  likes ’ was read as ‘{subject} likes’"]


def test_the_command_line_says_what_it_read_otherwise(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(TEXT.replace("Anna Smith", "'Anna  Smith '"), encoding="utf-8")
    shown = subprocess.run(
        [sys.executable, "-m", "engine", "show", str(file), "--set", "name=No"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert "relations.0.facts.0.subject (line 8): ‘Anna  Smith ’ was read as ‘Anna Smith’" in shown.stderr
    assert Experiment.from_text(shown.stdout).name == "No"
