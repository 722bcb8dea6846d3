"""The relation files: counts, languages, and what pre-training of the embedded base model may and may not show."""

from pathlib import Path

import pytest
import yaml

from engine.base.phrasings import composed_phrasings, stated_phrasings
from engine.corpus.relations import LANGUAGES, RELATIONS_FOLDER, load_relation, load_relations, read_relation

NAMES = ["author", "capital", "educated_at", "genre", "mother"]


def write_changed(tmp_path: Path, change) -> Path:
    data = yaml.safe_load((RELATIONS_FOLDER / "mother.yaml").read_text(encoding="utf-8"))
    change(data)
    file = tmp_path / "mother.yaml"
    file.write_text(yaml.safe_dump(data, allow_unicode=True), encoding="utf-8")
    return file


def test_the_five_relations_have_distinct_key_tokens():
    relations = load_relations()
    assert list(relations) == NAMES
    assert len({relation.key_token for relation in relations.values()}) == 5


@pytest.mark.parametrize("name", NAMES)
def test_prompts_are_counted_by_split_and_language(name):
    prompts = list(load_relation(name).iter_prompts())
    for language in LANGUAGES:
        counts = {
            split: sum(p.split == split and p.language == language for p in prompts)
            for split in ("train", "test", "unrelated", "decoy")
        }
        assert counts == {"train": 10, "test": 10, "unrelated": 3, "decoy": 4}


@pytest.mark.parametrize("name", NAMES)
def test_pre_training_states_train_prompts_and_controls_but_no_test_prompt(name):
    for prompt in load_relation(name).iter_prompts():
        stated = stated_phrasings(name, prompt.language)
        if prompt.split == "train":
            assert prompt.text in stated
        elif prompt.split == "test":
            assert prompt.text not in stated
            assert prompt.text in composed_phrasings(name, prompt.language)  # known frame, known noun
        elif prompt.split == "decoy":
            assert prompt.text in stated_phrasings(prompt.about, prompt.language)
        else:
            assert prompt.text not in stated


@pytest.mark.parametrize("name", NAMES)
def test_a_name_is_surrounded_by_spaces_or_punctuation(name):
    """A name glued to a letter or to full-width punctuation would have other tokens than elsewhere."""
    for prompt in load_relation(name).iter_prompts():
        before, after = prompt.text.split("{subject}")
        assert before == "" or before.endswith(" "), prompt
        assert after[:1] in {"", " ", "?", "？", "'", ",", ":"}, prompt


@pytest.mark.parametrize("name", NAMES)
def test_punctuation_suits_the_language(name):
    for prompt in load_relation(name).iter_prompts():
        if prompt.language in ("zh", "ja"):
            assert not set(prompt.text) & set("?:;!,"), prompt
        if prompt.language == "es":
            assert prompt.text.count("¿") == prompt.text.count("?"), prompt


@pytest.mark.parametrize(
    ("change", "field"),
    [
        (lambda data: data["prompts"]["train"]["en"].pop(), "prompts.train"),
        (lambda data: data["prompts"]["test"].pop("ja"), "prompts.test"),
        (lambda data: data["prompts"]["unrelated"]["de"].__setitem__(0, "Wann?"), "prompts.unrelated"),
        (lambda data: data["decoys"][0]["prompts"]["zh"].append("{subject} 的"), "decoys.0.prompts"),
        (lambda data: data.update(colour="red"), "colour"),
        (lambda data: data.update(subject_kind="planet"), "subject_kind"),
        (lambda data: data.update(name="aunt"), "name"),
        (lambda data: data["prompts"]["test"]["en"].__setitem__(0, data["prompts"]["train"]["en"][0]), "twice"),
        (lambda data: data["prompts"]["train"]["es"].__setitem__(0, "¿{subject} y {object}?"), "prompts.train"),
    ],
)
def test_a_mistake_names_the_file_and_the_field(tmp_path, change, field):
    with pytest.raises(ValueError, match=r"mother\.yaml") as error:
        read_relation(write_changed(tmp_path, change))
    assert field in str(error.value)


def test_broken_yaml_names_the_file(tmp_path):
    file = tmp_path / "mother.yaml"
    file.write_text("prompts: [", encoding="utf-8")
    with pytest.raises(ValueError, match=r"mother\.yaml is not valid YAML"):
        read_relation(file)


def test_an_unknown_relation_says_which_there_are():
    with pytest.raises(ValueError, match="author, capital, educated_at, genre, mother"):
        load_relation("aunt")
