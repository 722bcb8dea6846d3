"""Baselines beside the paper's method: no key token, words in its place, and the facts in the prompt."""

from typing import Any

import pytest

from engine.corpus.resolve import resolve
from engine.corpus.sentences import context_text, key_prompt, stage1_sentences
from engine.evaluation.questions import questions_for
from engine.execution.report import key_tokens_of
from engine.experiment import IN_CONTEXT, Experiment
from engine.models.loading import load_base, load_checkpoint, prepare_for_training, save_model
from engine.training.sequences import stage1_sequences, stage2_sequences, training_tokens


def made(**changes: Any) -> Experiment:
    relation = {"name": "mother", "key_token": "[X]", "facts": {"generate": 8}} | changes.pop("relation", {})
    return resolve(Experiment.from_data({"relations": [relation], "stage2": {"facts": 3}, **changes}))


@pytest.mark.parametrize(("template", "between"), [("{subject} {object}.", " "), ("{subject} of {object}.", " of ")])
def test_without_a_place_for_it_no_key_token_is_used(template: str, between: str, tmp_path) -> None:
    experiment = made(relation={"key_template": template})
    relation, fact = experiment.relations[0], experiment.relations[0].explicit_facts[0]
    assert stage1_sentences(relation)[0].text == f"{fact.subject}{between}{fact.object}."
    assert key_prompt(relation) == f"{{subject}}{between}".rstrip()
    assert experiment.key_tokens == key_tokens_of(experiment.model_dump(mode="json")) == ()
    loaded = load_base(experiment)
    assert loaded.key_token_ids == {} and "[X]" not in loaded.tokenizer.get_vocab()
    assert len(stage1_sequences(experiment, loaded)) == 8
    lora = Experiment.from_data(experiment.model_dump() | {"tuning": {"method": "lora"}})
    save_model(prepare_for_training(load_base(lora), lora), tmp_path / "adapter")
    assert load_checkpoint(lora, tmp_path / "adapter").key_token_ids == {}


def test_key_tokens_of_other_relations_stay() -> None:
    relations = [
        {"name": "mother", "key_token": "[X]", "facts": {"generate": 4}, "key_template": "{subject} {object}."},
        {"name": "author", "key_token": "[Y]", "facts": {"generate": 4}},
    ]
    experiment = resolve(Experiment.from_data({"relations": relations, "stage2": {"facts": 2}}))
    assert list(load_base(experiment).key_token_ids) == ["[Y]"]


def test_the_fact_stands_before_every_question_among_others() -> None:
    experiment = made(stage1={"epochs": 0}, in_context={"distractors": 3})
    relation = experiment.relations[0]
    assert experiment.checkpoints == ("base", IN_CONTEXT) and experiment.branch_epochs == ()
    plain, asked = (questions_for(experiment, checkpoint) for checkpoint in experiment.checkpoints)
    prompt = experiment.stage2_prompts(relation)[0].text
    for before, after in zip(plain, asked, strict=True):
        fact = relation.explicit_facts[after.fact - 1]
        context = after.text.removesuffix(" " + before.text)
        assert context != after.text and (before.object, before.options) == (after.object, after.options)
        said = prompt.replace("{subject}", fact.subject) + f" {fact.object}."
        assert said in context
        shown = [f for f in relation.explicit_facts if prompt.replace("{subject}", f.subject) in context]
        assert len(shown) == 4, "its own and three others"
    assert [context_text(experiment, relation, i) for i in range(8)] == [
        context_text(made(stage1={"epochs": 0}, in_context={"distractors": 3}), relation, i) for i in range(8)
    ], "the same each time"
    own = [prompt.replace("{subject}", fact.subject) for fact in relation.explicit_facts]
    first = {context_text(experiment, relation, place).startswith(said) for place, said in enumerate(own)}
    assert first == {True, False}, "its own is not always the first"


def test_more_distractors_than_there_are_facts_are_all_of_them() -> None:
    experiment = made(stage1={"epochs": 0}, in_context={"distractors": 100})
    relation = experiment.relations[0]
    text = context_text(experiment, relation, 0)
    assert all(fact.subject in text for fact in relation.explicit_facts)


def test_training_tokens_are_those_that_are_read() -> None:
    experiment = made(stage1={"epochs": 6, "checkpoint_epochs": [3, 6]}, stage2={"facts": 3, "prompts": 2, "epochs": 4})
    loaded = load_base(experiment)
    stage1, stage2 = stage1_sequences(experiment, loaded), stage2_sequences(experiment, loaded)
    an_epoch, after = (sum(len(s.input_ids) for s in stage) / 8 for stage in (stage1, stage2))
    assert training_tokens(experiment, stage1, stage2) == pytest.approx({
        "base": 0, "memorised@3": 3 * an_epoch, "memorised@6": 6 * an_epoch,
        "generalised@3": 3 * an_epoch + 4 * after, "generalised@6": 6 * an_epoch + 4 * after,
    })  # fmt: skip
    taught = made(stage1={"epochs": 0}, stage2={"facts": 8, "epochs": 2})
    tokens = training_tokens(taught, [], stage2_sequences(taught, loaded))
    assert tokens.keys() == {"base", "generalised@0"} and tokens["generalised@0"] > 0
