"""The draft behind the Design page: it says exactly what an experiment says, and loses nothing on the way."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from app.design import draft as drafts
from app.design.check import examine
from app.design.draft_facts import edit_rows, set_facts
from app.design.fact_actions import copy_generated
from app.design.facts_table import Step
from app.design.form import FORM_KEYS, commit, form_values, given, language_code
from app.design.show import Shown, generated_sample
from app.design.tabs import Request, Screen
from app.shared.lab import Lab
from engine import checks
from engine.corpus.names import generate_facts
from engine.corpus.resolve import resolve
from engine.experiment import Experiment
from engine.models.source import EMBEDDED_WEIGHTS
from engine.presets import EXPERIMENTS, load_preset
from engine.relation import Fact
from engine.settings import Replay
from storage.drafts import DraftStore, save_draft, valid_id
from storage.runs import list_runs

ID = "a-draft-of-a-test"


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    return Lab(tmp_path)


@pytest.fixture
def store(lab: Lab) -> DraftStore:
    return DraftStore(lambda: lab.db, drafts.new_draft)


def type_into(draft: drafts.Draft, **changes: object) -> None:
    """Change fields as a person does."""
    commit(draft, "r1", "en", {key.replace("__", "."): value for key, value in changes.items()})


@pytest.mark.parametrize("name", EXPERIMENTS.names())
def test_an_experiment_comes_back_from_its_draft(name: str) -> None:
    for experiment in (load_preset(name), resolve(load_preset(name))):
        draft = drafts.from_experiment(experiment)
        assert Experiment.from_data(drafts.to_data(draft)) == experiment
        commit(draft, "r1", next(iter(draft["relations"][0]["prompts"]), "en"), {})
        assert Experiment.from_data(drafts.to_data(draft)) == experiment


def test_a_prompt_with_a_bar_stays_one() -> None:
    prompts = [
        {"text": "{subject} is", "split": "train"},
        {"text": "a | b {subject}", "split": "decoy"},
        {"text": "c | d {subject}", "split": "decoy", "relation": "father"},
        {"text": "e | f {subject}", "split": "test"},
    ]
    facts = [{"subject": "A", "object": "Bee"}, {"subject": "C", "object": "Dee", "alternatives": ["Eve"]}]
    data = {"relations": [{"name": "x", "facts": facts, "prompts": prompts}], "stage2": {"facts": 1}}
    experiment = Experiment.from_data(data)
    again = Experiment.from_data(drafts.to_data(drafts.from_experiment(experiment)))
    assert set(again.relations[0].explicit_prompts) == set(experiment.relations[0].explicit_prompts)
    assert again.relations[0].facts == experiment.relations[0].facts


def test_options_written_for_generated_facts_stay() -> None:
    relation = {"name": "mother", "facts": {"generate": 4}, "options": ["Bee Dee", "Eve Gee"]}
    experiment = Experiment.from_data({"relations": [relation], "stage2": {"facts": 1}})
    draft = drafts.from_experiment(experiment)
    assert Experiment.from_data(drafts.to_data(draft)) == experiment
    type_into(draft, relation__facts_from="own")
    assert "Bee Dee" not in str(drafts.to_data(draft))


def test_new_drafts_are_ready_and_k_fits_until_it_is_touched() -> None:
    draft = drafts.new_draft()
    assert examine(draft).errors == ()
    assert drafts.default_name(draft) == "mother"
    type_into(draft, relation__generate=30)
    assert drafts.adapt(draft)
    assert draft["values"]["stage2.facts"] == 15
    type_into(draft, stage2__facts=3)
    type_into(draft, relation__generate=80)
    assert not drafts.adapt(draft)
    assert draft["values"]["stage2.facts"] == 3


def test_names_follow_the_model_until_they_are_chosen_or_written_out(lab: Lab, store: DraftStore) -> None:
    draft = drafts.new_draft()
    relation = draft["relations"][0]
    assert "Invented words" in generated_sample(draft, relation) and "chance" not in generated_sample(draft, relation)
    del relation["names"]  # as in a draft of an older lab
    type_into(draft, model_kind="other", model_name="some/model")
    sample = generated_sample(draft, relation)
    natural = generate_facts("mother", 0, 3, "natural")
    assert all(name in sample for pair in natural for name in pair) and "made up" in sample
    assert form_values(draft, "r1", "en")["relation.names"] == "auto"
    type_into(draft, relation__names="invented")
    assert drafts.to_data(draft)["relations"][0]["facts"] == {"generate": 100, "names": "invented"}
    type_into(draft, relation__names="natural", model_kind="embedded")
    assert "Natural names" in generated_sample(draft, relation)
    type_into(draft, relation__names="lovely")
    assert [f.place for f in examine(draft).errors] == ["r1/facts"]
    type_into(draft, relation__names="auto", model_kind="other", relation__generate=10)
    with store.change(ID) as change:
        change.draft.update(draft)
    typed = [form_values(draft, "r1", "en")[key] for key in FORM_KEYS]
    copy_generated(Shown(lab), Request(Screen(ID, "tab", "r1", "en", given=given(draft, "r1", "en")), typed, 0))
    written = store.read(ID)["relations"][0]
    type_into(draft := store.read(ID), model_kind="embedded")
    assert [tuple(row[1:]) for row in written["facts"]] == generate_facts("mother", 0, 10, "natural")
    assert drafts.to_data(draft)["relations"][0]["facts"][0]["subject"] == natural[0][0]


def test_alternatives_stay_with_their_rows() -> None:
    relation = drafts.own_relation(draft := drafts.new_draft())
    set_facts(relation, [Fact(subject="A", object="B", alternatives=("X",)), Fact(subject="C", object="D")])
    cells = ((77, 2, "E", "F"), (1, None, None, "Bee"), (78, 1, "", ""))
    edit_rows(relation, [Step(1, cells)], 0)
    data = drafts.to_data(draft)["relations"][1]
    assert [(f["subject"], f["alternatives"]) for f in data["facts"]] == [("A", ["X"]), ("", []), ("C", []), ("E", [])]
    edit_rows(relation, [Step(2, removed=(1, 77, 78))], 1)
    assert relation["facts"] == [[2, "C", "D"]]
    assert relation["alternatives"] == {}


def test_what_the_base_knew_stays_with_its_row() -> None:
    facts = [{"subject": "A", "object": "Bee", "knew": "Cy"}, {"subject": "C", "object": "Dee"}]
    described = Experiment.from_data({"relations": [{"name": "mother", "facts": facts}], "stage2": {"facts": 1}})
    draft = drafts.from_experiment(described)
    assert Experiment.from_data(drafts.to_data(draft)).relations[0].facts == described.relations[0].facts
    relation = draft["relations"][0]
    edit_rows(relation, [Step(1, removed=(1,))], 0)
    assert relation["knew"] == {} and "knew" not in drafts.to_data(draft)["relations"][0]["facts"][0]
    del relation["knew"]  # a draft of before
    edit_rows(relation, [Step(2, ((9, 2, "E", "F"),))], 1)
    assert len(drafts.to_data(draft)["relations"][0]["facts"]) == 2


def test_own_prompts_begin_with_the_corpus() -> None:
    draft = drafts.new_draft()
    type_into(draft, relation__prompts_from="own")
    relation = draft["relations"][0]
    assert relation["prompts"]["en"]["train"].startswith("Who is {subject}'s mother?")
    resolved = examine(draft).resolved
    assert resolved is not None
    assert set(resolved.relations[0].explicit_prompts) == set(
        resolve(load_preset("quick")).relations[0].explicit_prompts
    )


def test_own_prompts_begin_with_the_corpus_s_reasoning_where_that_was_chosen() -> None:
    draft = drafts.from_experiment(load_preset("reasoning"))
    shown = examine(draft).resolved
    assert shown is not None and shown == resolve(load_preset("reasoning"))
    sample = generated_sample(draft, draft["relations"][1], shown)
    assert shown.relations[0].explicit_facts[0].object in sample, "about the mothers"
    assert "<li>" not in generated_sample(draft, draft["relations"][1]), "not known before"
    type_into(draft, relation__prompts_from="own")
    typed = draft["relations"][0]["prompts"]["en"]
    assert typed["reversal"].startswith("{object} is the mother of\n")
    assert typed["two_hop"].startswith("educated_at | Where was {subject}'s mother educated?\n")
    assert examine(draft).resolved == shown
    typed["two_hop"], typed["reversal"] = "Where was {subject}'s mother educated?", "{subject} is hers"
    errors = {f.problem.column: f for f in examine(draft).errors}
    assert {f.place for f in errors.values()} == {"r1/prompts"}
    assert "a bar before the prompt" in errors["English, 2-hop prompts, line 1"].problem.message
    assert "has no {object}" in errors["English, reversal prompts, line 1"].problem.message
    draft = drafts.from_experiment(load_preset("reasoning"))
    draft["relations"][1]["subjects_of"] = "father"
    assert [f.place for f in examine(draft).errors] == ["relations"]


@pytest.mark.parametrize(
    ("change", "place", "says"),
    [
        ({"stage1__epochs": None}, "stage1", "is empty"),
        ({"stage1__epochs": 2.5}, "stage1", "whole number"),
        ({"relation__generate": 2.5}, "r1/facts", "whole number"),
        ({"stage1__checkpoint_epochs": "3, x"}, "stage1", "whole numbers"),
        ({"stage1__checkpoint_epochs": "3, 99"}, "stage1", "beyond the last epoch"),
        ({"stage2__branch_epochs": "4"}, "stage2", "not among the kept"),
        ({"stage2__language": "fr"}, "stage2", "train prompts in ‘fr’"),
        ({"evaluation__languages": ["de", "??"]}, "evaluation", "no language code"),
        ({"evaluation__languages": ["de", "sp"]}, "evaluation", "no prompts: choose among en, de"),
        ({"evaluation__facts": "half"}, "evaluation", "whole number or all"),
        ({"evaluation__prompts": "0"}, "evaluation", "whole number or all"),
        ({"seed": -1}, "model", "at least 0"),
        ({"relation__name": "sister"}, "r1/relation", "the corpus has no relation of this name"),
        ({"relation__key_token": "[ X ]"}, "r1/relation", "holds a space"),
        ({"relation__key_template": "{object} {key} {subject}"}, "r1/relation", "must end with {object}"),
        ({"relation__generate": 4999}, "r1/facts", "at most"),
    ],
)
def test_mistakes_have_their_place(change: dict[str, Any], place: str, says: str) -> None:
    draft = drafts.new_draft()
    type_into(draft, **change)
    errors = examine(draft).errors
    assert [f.place for f in errors] == [place]
    assert says in errors[0].problem.message


def test_a_choice_of_more_than_is_asked_is_said() -> None:
    draft = drafts.new_draft()
    type_into(draft, evaluation__facts="10", evaluation__prompts="4")
    found = examine(draft)
    (said,) = found.warnings
    assert found.resolved is not None and said.place == "evaluation"
    assert said.problem.message == "is of 20 facts, and 10 are asked at all: it will be of these"


def test_a_draft_of_before_a_setting_has_its_default() -> None:
    draft = drafts.new_draft()
    for path in ("evaluation.facts", "evaluation.stop_at_hit"):
        del draft["values"][path]
    resolved = examine(draft).resolved
    assert resolved is not None and resolved.evaluation.facts == "all"
    assert form_values(draft, "", "en")["evaluation.stop_at_hit"] == "auto"


def test_an_edit_looks_through_the_facts_once_and_another_edit_not_again() -> None:
    relation = drafts.own_relation(draft := drafts.new_draft())
    draft["relations"] = [relation]
    set_facts(relation, [Fact(subject=f"Ann {i:02}", object=f"Bee {i:02}") for i in range(30)])
    drafts.adapt(draft)
    relation["prompts"] = drafts.corpus_prompts("mother")
    before = checks._fact_problems.cache_info().misses
    assert examine(draft).errors == ()
    assert checks._fact_problems.cache_info().misses == before + 1
    draft["values"]["seed"] = 7
    assert examine(draft).errors == ()
    assert checks._fact_problems.cache_info().misses == before + 1


def test_two_relations_need_two_key_tokens() -> None:
    draft = drafts.new_draft()
    drafts.corpus_relation(draft, "author")
    assert examine(draft).errors == ()
    draft["relations"][1]["key_token"] = "[X]"
    assert "used twice" in examine(draft).errors[0].problem.message


def test_steps_can_be_undone_and_a_failing_one_leaves_no_trace(store: DraftStore) -> None:
    with store.change(ID, "emptying") as change:
        change.draft["relations"] = []
    assert store.read(ID)["relations"] == []
    assert store.undo_label(ID) == "emptying"
    assert store.undo(ID)
    assert len(store.read(ID)["relations"]) == 1
    assert not store.undo(ID)
    with pytest.raises(ValueError, match="no"), store.change(ID, "failing") as change:
        change.draft["relations"] = []
        raise ValueError("no")
    assert store.undo_label(ID) is None
    assert len(store.read(ID)["relations"]) == 1


def test_a_relative_folder_is_absolute_in_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(EMBEDDED_WEIGHTS, tmp_path / "models" / "mine")
    monkeypatch.chdir(tmp_path)
    examination = examine(drafts.from_experiment(load_preset("quick").model_copy(update={"model": "models/mine"})))
    assert examination.resolved is not None
    assert examination.resolved.model == str(tmp_path / "models" / "mine")
    (tmp_path / "models" / "mine" / "model.safetensors").rename(tmp_path / "models" / "mine" / "pytorch_model.bin")
    refused = examine(drafts.from_experiment(examination.resolved))
    assert refused.resolved is None
    assert "none in safetensors format" in refused.at("model")[0].message


def test_two_presses_start_once_and_a_changed_plan_starts_again(store: DraftStore, lab: Lab) -> None:
    experiment = resolve(load_preset("quick")).model_dump(mode="json")
    first, second = store.start(ID, experiment, None), store.start(ID, experiment, None)
    assert first.id == second.id
    other = store.start(ID, experiment | {"seed": 1}, first.id)
    assert [r.id for r in list_runs(lab.db)] == [other.id, first.id]
    assert other.cloned_from == first.id


def test_a_draft_of_another_version_is_left_behind(store: DraftStore, lab: Lab) -> None:
    save_draft(lab.db, ID, {"version": 0, "draft": {}})
    assert store.read(ID) == drafts.new_draft()


def test_ids_and_languages() -> None:
    assert valid_id("StIfVoPo9oIxehY-xkhpAA")
    for wrong in (None, "", "short", 7, "x" * 65, "../../../../etc/passwd", "a-draft/undo-undo-undo"):
        assert not valid_id(wrong)
    assert [language_code(x) for x in ("fr", " pt-BR ", "german", "x", None, "<b>")] == [
        "fr",
        "pt-BR",
        "de",
        None,
        None,
        None,
    ]


def test_replay_is_off_until_a_share_is_typed_and_off_again_without_one() -> None:
    draft = drafts.new_draft()
    assert examine(draft).experiment is not None and examine(draft).experiment.stage1.replay is None  # type: ignore[union-attr]
    type_into(draft, stage1__replay__tokens=8, stage2__replay__share=0.25, stage2__replay__languages=["en", "zh"])
    read = Experiment.from_data(drafts.to_data(draft))
    assert read.stage1.replay is None and read.stage2.replay == Replay(share=0.25, languages=("en", "zh"))
    assert Experiment.from_data(drafts.to_data(drafts.from_experiment(read))) == read
    type_into(draft, stage1__replay__share=0.5, stage2__replay__share=None)
    read = Experiment.from_data(drafts.to_data(draft))
    assert read.stage1.replay == Replay(tokens=8) and read.stage2.replay is None
    for chosen, held in (("true", True), ("false", False)):
        type_into(draft, stage1__replay__leash=chosen)
        assert examine(draft).experiment.stage1.replay == Replay(tokens=8, leash=held)  # type: ignore[union-attr]
    type_into(draft, stage1__replay__subjects="trained", stage1__replay__neighbours=0.25)
    assert examine(draft).experiment.stage1.replay == Replay(tokens=8, subjects="trained", neighbours=0.25)  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("typed", "place", "words"),
    [
        ({"stage1__replay__share": 1}, "stage1", "must be at most 0.9"),
        ({"stage2__replay__share": 0.5, "stage2__replay__texts": 2.5}, "stage2", "whole number"),
        ({"stage1__replay__share": 0.5, "stage1__replay__languages": ["fr"]}, "stage1", "no beginnings in ‘fr’"),
    ],
)
def test_a_mistake_in_replay_stands_where_it_was_made(typed: dict[str, object], place: str, words: str) -> None:
    draft = drafts.new_draft()
    type_into(draft, **typed)
    found = examine(draft)
    assert [words in problem.message for problem in found.at(place)] == [True] and found.experiment is None
