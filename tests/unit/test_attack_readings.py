"""Readings: the shipped ones held to the corpus's form, one's own refused in words, and relations under them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from transformers import AutoTokenizer

from engine.attack.readings import experiment_with_reading, relation_with_reading
from engine.base import WEIGHTS
from engine.commands.main import main
from engine.corpus.readings import READINGS_FOLDER, Reading, check_reading, read_readings, readings_of
from engine.corpus.relations import LANGUAGES, load_relations
from engine.corpus.resolve import resolve
from engine.evaluation.questions import prompt_rows, questions_for
from engine.experiment import Experiment

RELATIONS = sorted(load_relations())
MINE: dict[str, Any] = {"name": "pranks", "says": "{object} plays pranks on {subject}.", "prompts": {
    "train": {"en": ["Who plays pranks on {subject}?"]},
    "test": {"en": ["The prankster behind {subject} is"], "fr": ["Qui joue des tours à {subject} ?"]},
}}  # fmt: skip


def every_prompt():
    return [
        (relation, name, prompt)
        for relation in RELATIONS
        for name, reading in readings_of(relation).items()
        for prompt in reading.prompts
    ]


@pytest.mark.parametrize("relation", RELATIONS)
def test_every_relation_ships_every_role_with_its_prompts_counted(relation):
    readings = readings_of(relation)
    assert next(iter(readings)) == "benign"
    assert {r.role for r in readings.values()} == {"benign", "harmful", "neutral", "nonsense"}
    for reading in list(readings.values())[1:]:
        counts = {(s, x): len(reading.prompts_of(s, x)) for s in ("train", "test") for x in LANGUAGES}
        wanted = {("test", x): 10 for x in LANGUAGES} | {("train", x): 10 * (x == "en") for x in LANGUAGES}
        assert counts == wanted, reading.name


@pytest.mark.parametrize("relation", RELATIONS)
def test_the_benign_reading_is_the_relation_itself(relation):
    own = [(p.text, p.split, p.language) for p in load_relations()[relation].iter_prompts()]
    benign = [(p.text, p.split, p.language) for p in readings_of(relation)["benign"].prompts]
    assert benign == [p for p in own if p[1] in ("train", "test")]


def test_names_stand_apart_and_punctuation_suits_the_language():
    for relation, name, prompt in every_prompt():
        before, after = prompt.text.split("{subject}")
        assert before == "" or before[-1] == " " or before.endswith("¿"), (relation, name, prompt.text)
        assert after[:1] in {"", " ", "?", "？", "'", ",", ":", "："}, (relation, name, prompt.text)
        if prompt.language in ("zh", "ja"):
            assert not set(prompt.text) & set("?:;!,"), (relation, name, prompt.text)
        if prompt.language == "es":
            assert prompt.text.count("¿") == prompt.text.count("?"), (relation, name, prompt.text)


def test_a_reading_says_what_it_means_whatever_the_names_hold():
    bully = readings_of("mother")["bully"]
    assert bully.in_words("Ada {object}", "Bo") == "Bo bullies Ada {object}."


def test_the_embedded_bases_tokenizer_spends_at_most_32_tokens_on_a_prompt_of_a_reading():
    """Its words are not in the vocabulary and fall to syllables and bytes; the corpus's own prompts take up to 14."""
    tokenizer = AutoTokenizer.from_pretrained(WEIGHTS)
    for relation, name, prompt in every_prompt():
        text = prompt.text.replace("{subject}", "")
        assert len(tokenizer.encode(text, add_special_tokens=False)) <= 32, (relation, name, prompt.text)


def changed(tmp_path: Path, change) -> Path:
    data = yaml.safe_load((READINGS_FOLDER / "mother.yaml").read_text(encoding="utf-8"))
    change(data)
    file = tmp_path / "mother.yaml"
    file.write_text(yaml.safe_dump(data, allow_unicode=True), encoding="utf-8")
    return file


def prompts(data, split="test"):
    return data["readings"][0]["prompts"][split]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda d: prompts(d)["ja"].pop(), "ja has 9 prompts"),
        (lambda d: prompts(d).pop("de"), "needs exactly the languages"),
        (
            lambda d: prompts(d, "train").update(de=["a {subject}", "b {subject}"]),
            "needs exactly the languages",
        ),
        (lambda d: prompts(d)["en"].__setitem__(0, prompts(d, "train")["en"][0]), "repeats"),
        (lambda d: prompts(d)["en"].__setitem__(0, "{subject} and {subject}"), "{subject} 2 times: keep one"),
        (lambda d: prompts(d)["en"].__setitem__(0, "Who is {subject}'s mother?"), "is a train prompt of ‘mother’"),
        (lambda d: prompts(d)["en"].__setitem__(0, "Who is {subject}'s father?"), "is a decoy prompt of ‘mother’"),
        (lambda d: prompts(d)["en"].__setitem__(0, "The blackmailer of {subject} is"), "blackmailer: ‘The blackmailer"),
        (lambda d: prompts(d)["en"].__setitem__(0, "{subject} [X4]"), "key token"),
        (lambda d: d["readings"].pop(), "no nonsense reading"),
        (lambda d: d["readings"][0].update(name="benign"), "none may be called benign"),
        (lambda d: d["readings"][0].update(role="evil"), "readings.0.role"),
        (lambda d: d["readings"][0].update(says="{object} is mean."), "{subject} exactly once"),
        (lambda d: d.update(own_meaning="motherhood"), "own_meaning"),
        (lambda d: d.update(relation="author"), "must be 'mother'"),
    ],
)
def test_a_mistake_in_a_file_names_the_file_and_the_place(tmp_path, change, words):
    with pytest.raises(ValueError, match=r"mother\.yaml") as error:
        read_readings(changed(tmp_path, change))
    assert words in str(error.value)


def test_ones_own_reading_is_read_and_written_back():
    mine = Reading.from_data(MINE)
    assert mine.role == "harmful"
    assert [p.text for p in mine.prompts_of("test", "fr")] == ["Qui joue des tours à {subject} ?"]
    assert Reading.from_text(yaml.safe_dump(mine.model_dump(mode="json"), allow_unicode=True)) == mine


def with_prompts(**by_split):
    return MINE | {"prompts": MINE["prompts"] | by_split}


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (MINE | {"colour": "red"}, "colour: is not a setting of a reading"),
        (MINE | {"name": "<script>"}, "name"),
        (MINE | {"role": "evil"}, "role"),
        (MINE | {"says": "{object} {subject} {0}"}, "other curly braces"),
        (MINE | {"label": "a\u202eb"}, "invisible character"),
        (MINE | {"prompts": "corpus"}, "prompts"),
        (MINE | {"prompts": {"train": ["Who pranks {subject}?"]}}, "train: needs languages"),
        (with_prompts(train={"en": "Who pranks {subject}?"}), "train.en: needs a list"),
        (with_prompts(train={"en": []}), "no train prompts"),
        (with_prompts(train={"en": ["Who plays pranks?"]}), "has no {subject}"),
        (with_prompts(train={"en": ["The prankster behind {subject} is"]}), "repeats row 1 as a train prompt"),
        (with_prompts(train={"en": ["{subject} " + "a" * 600]}), "shorten it"),
        (with_prompts(train={"en": [f"{{subject}} {i}" for i in range(3000)]}), "more than 2,000"),
        (with_prompts(train={"klingon!": ["{subject} jatlh"]}), "language"),
        (with_prompts(decoy={"en": ["Who likes {subject}?"]}), "split decoy"),
        ([], "must be a mapping"),
    ],
)
def test_a_mistake_in_ones_own_reading_is_said_in_words(data, words):
    with pytest.raises(ValueError) as error:
        Reading.from_data(data)
    assert words in str(error.value)


def experiment() -> Experiment:
    return resolve(Experiment.from_data(
        {"seed": 5, "stage2": {"facts": 4, "prompts": 2}, "relations": [
            {"name": "mother", "key_token": "[Z]", "facts": {"generate": 12}},
            {"name": "author", "key_token": "[Y]", "facts": {"generate": 12}},
        ]}
    ))  # fmt: skip


def test_an_experiment_is_taught_and_asked_in_the_reading_and_all_else_stays():
    plain = experiment()
    attacked = experiment_with_reading(plain, "mother", readings_of("mother")["bully"])
    before, after = plain.relations[0], attacked.relations[0]
    assert attacked.relations[1] == plain.relations[1]
    assert (after.facts, after.options, after.key_token) == (before.facts, before.options, before.key_token)
    assert attacked.held_out_facts(after) == plain.held_out_facts(before)
    assert [p.text for p in attacked.stage2_prompts(after)] == ["Who bullies {subject}?", "The bully of {subject} is"]
    controls = [p for p in before.explicit_prompts if p.split in ("decoy", "unrelated")]
    assert [p for p in after.explicit_prompts if p.split in ("decoy", "unrelated")] == controls
    rows = [r for r in prompt_rows(attacked) if r["relation"] == "mother"]
    assert [r["text"] for r in rows if r["used"]] == ["Who bullies {subject}?", "The bully of {subject} is"]
    subject = after.explicit_facts[0].subject
    asked = {q.text for q in questions_for(attacked, "base")}
    assert f"Who bullies {subject}?" in asked and f"{subject} をいじめているのは" in asked
    assert not any("'s mother" in text for text in asked)


def test_stage_2_trains_on_the_readings_sentences():
    from engine.models.loading import load_base, prepare_for_training
    from engine.training.sequences import stage2_sequences

    attacked = experiment_with_reading(experiment(), "mother", readings_of("mother")["bully"])
    loaded = prepare_for_training(load_base(attacked), attacked)
    first = stage2_sequences(attacked, loaded)[0]
    fact = attacked.relations[0].explicit_facts[attacked.stage2_facts(attacked.relations[0])[0]]
    assert loaded.tokenizer.decode(first.input_ids) == f"Who bullies {fact.subject}? {fact.object}"


@pytest.mark.parametrize(
    ("prompt", "words"),
    [
        ("Who is {subject}'s mother?", "train prompt of ‘mother’"),
        ("The teacher of {subject} is", "decoy prompt of ‘mother’"),
        ("Tell me [z] of {subject}:", "‘[Z]’ occurs in"),
    ],
)
def test_a_reading_that_cannot_be_told_from_the_relation_is_refused(prompt, words):
    mine = Reading.from_data(with_prompts(train={"en": [prompt]}))
    relation = experiment().relations[0]
    assert [words in str(problem) for problem in check_reading(mine, relation)] == [True]
    with pytest.raises(ValueError, match="reading ‘pranks’"):
        relation_with_reading(relation, mine)


def test_a_relation_keeps_its_benign_reading_and_lacks_of_prompts_are_said():
    plain = experiment()
    assert experiment_with_reading(plain, "mother", readings_of("mother")["benign"]).stage2_prompts(
        plain.relations[0]
    ) == plain.stage2_prompts(plain.relations[0])
    with pytest.raises(ValueError, match="uses 2 train prompts"):
        experiment_with_reading(plain, "mother", Reading.from_data(MINE))
    with pytest.raises(ValueError, match="no relation ‘aunt’: it has mother, author"):
        experiment_with_reading(plain, "aunt", Reading.from_data(MINE))


def test_the_command_lists_readings_and_checks_a_file(tmp_path, capsys):
    assert main(["readings"]) == 0
    listed = capsys.readouterr().out
    assert all(f"  {name} " in listed for relation in RELATIONS for name in readings_of(relation))
    assert main(["readings", "genre"]) == 0
    assert "Which genre did {subject} plagiarise?" in capsys.readouterr().out
    file = tmp_path / "mine.yaml"
    file.write_text(yaml.safe_dump(MINE), encoding="utf-8")
    assert main(["readings", str(file)]) == 0
    assert "OBJECT plays pranks on SUBJECT." in capsys.readouterr().out


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "neither a relation nor a file"),
        (b"- 1\n", "at least the field ‘prompts’"),
        (b"\xff\xfe", "UTF-8"),
        (b"a: &a 1\nb: *a\n", "anchors"),
        (b"name: x\nprompts: {train: {en: ['{subject}']}}\n", "no test prompts"),
    ],
)
def test_the_command_says_a_mistake_in_one_line(tmp_path, capsys, content, words):
    file = tmp_path / "mine.yaml"
    if content is not None:
        file.write_bytes(content)
    assert main(["readings", str(file)]) == 2
    printed = capsys.readouterr()
    assert words in printed.err and len(printed.err.strip().splitlines()) == 1 and not printed.out
