"""Pre-training on a very small scale: samples, connectors, tied words, what is written; and the committed weights."""

import copy
import json
import time
from typing import Any

import pytest
import torch
import yaml
from transformers import AutoModelForCausalLM, AutoTokenizer

from engine.base import WEIGHTS
from engine.base.__main__ import main
from engine.base.phrasings import world_data
from engine.base.pretrain import (
    COMMON_SPREAD,
    START_SCALE,
    StartPairs,
    label_loss,
    learning_rate,
    new_model,
    pretrain,
)
from engine.base.samples import IGNORED, Sample, Sampler, collate
from engine.base.tokenizer import build_tokenizer
from engine.base.world import World, answer_text

CONFIG = yaml.safe_load((WEIGHTS.parent / "config.yaml").read_text(encoding="utf-8"))
STATED = CONFIG["training"] | {"unknown_share": 0.0, "burst_known_share": 1.0}
NO_TOKENS_WITHOUT_MEANING = {"connector_share": 0.0, "blank_share": 0.0}
TINY = {"hidden_size": 16, "layers": 1, "heads": 2, "intermediate_size": 16}


@pytest.fixture(scope="module")
def tokenizer():
    return build_tokenizer(**CONFIG["tokenizer"])


@pytest.fixture(scope="module")
def small_world():
    return World(**CONFIG["world"] | {"entities": 4, "answers": 8})


def test_samples_are_a_stated_fact_and_end_with_full_stop_and_end_of_text(tokenizer, small_world):
    training = STATED | NO_TOKENS_WITHOUT_MEANING | {"full_sequence_share": 0.0, "burst_share": 0.0}
    sampler = Sampler(small_world, tokenizer, training, first_connector=5000)
    stated = {
        text.format(subject=fact.subject) + answer_text(fact.object)
        for fact in small_world.facts
        for text in fact.phrasings
    }
    for _ in range(50):
        ids, labels = sampler.sample()
        assert tokenizer.decode(ids[:-1], skip_special_tokens=False) in stated
        assert ids[-1] == tokenizer.token_to_id("<eos>")
        counted = [label for label in labels if label != IGNORED]
        assert 2 < len(counted) < len(ids) and ids[-len(counted) :] == counted


def test_connectors_join_subject_and_object_and_change_their_meaning(tokenizer, small_world):
    training = STATED | {"connector_share": 1.0, "full_sequence_share": 1.0, "connectors": 200}
    training |= {"blank_share": 0.0, "burst_share": 0.0}
    sampler = Sampler(small_world, tokenizer, training, first_connector=5000)
    subjects = {fact.subject for fact in small_world.facts}
    for _ in range(50):
        ids, labels = sampler.sample()
        assert labels == ids
        connectors = [i for i, token in enumerate(ids) if token >= 5000]
        if connectors:  # a relation may have drawn none
            assert tokenizer.decode(ids[: connectors[0]]) in subjects
    emptied = sampler.empty_some()
    assert len(emptied) == 50 == len(set(emptied))


def test_blanks_join_a_subject_with_the_object_of_any_of_its_relations(tokenizer, small_world):
    training = STATED | {"blank_share": 1.0, "burst_share": 0.0}
    sampler = Sampler(small_world, tokenizer, training, first_connector=5000)
    assert not set(sampler.blanks) & set(sampler.connectors)
    objects: dict[str, set[str]] = {}
    for ids, _ in (sampler.sample() for _ in range(600)):
        place = next(i for i, token in enumerate(ids) if token in sampler.blanks)
        objects.setdefault(tokenizer.decode(ids[:place]), set()).add(tokenizer.decode(ids[place + 1 : -1]))
    assert {subject: len(said) > 3 for subject, said in objects.items()} == {
        fact.subject: True for fact in small_world.facts
    }
    for subject, said in objects.items():
        assert said <= {answer_text(fact.object) for fact in small_world.facts if fact.subject == subject}


def test_samples_about_passing_subjects_are_of_no_entity_of_the_world(tokenizer, small_world):
    training = STATED | NO_TOKENS_WITHOUT_MEANING | {"burst_share": 1.0}
    sampler = Sampler(small_world, tokenizer, training, first_connector=5000)
    subjects = {fact.subject for fact in small_world.facts}
    for _ in range(50):
        text = tokenizer.decode(sampler.sample().ids)
        assert not any(subject in text for subject in subjects)


def test_of_subjects_that_nobody_spoke_of_the_answer_is_that_it_is_not_known(tokenizer, small_world):
    sampler = Sampler(small_world, tokenizer, CONFIG["training"] | {"unknown_share": 1.0}, first_connector=5000)
    spoken_of = {fact.subject for fact in small_world.facts}
    answers = tuple(answer_text(words) for words in world_data()["unknown_answers"].values())
    texts = [tokenizer.decode(sampler.sample().ids[:-1]) for _ in range(300)]
    assert all(text.endswith(answers) for text in texts)
    assert all(any(text.endswith(answer) for text in texts) for answer in answers)
    assert not any(subject in text for subject in spoken_of for text in texts)


def test_batches_hold_samples_of_similar_length(tokenizer, small_world):
    sampler = Sampler(small_world, tokenizer, CONFIG["training"], first_connector=5000)
    batches = sampler.batches(8)
    assert {len(batch) for batch in batches} == {8}
    padded = sum(8 * max(len(s.ids) for s in batch) for batch in batches)
    assert padded < 1.3 * sum(len(s.ids) for batch in batches for s in batch)


def test_collate_pads_on_the_right_without_loss():
    ids, labels = collate([Sample([5, 6, 7], [IGNORED, 6, 7]), Sample([8], [8])], pad_id=0)
    assert ids.tolist() == [[5, 6, 7], [8, 0, 0]]
    assert labels.tolist() == [[IGNORED, 6, 7], [8, IGNORED, IGNORED]]


def test_the_loss_counts_labelled_tokens_only(tokenizer):
    model = new_model(TINY, 40, tokenizer, seed=0).float()
    ids = torch.tensor([[3, 4, 5, 6]])
    labels = torch.tensor([[IGNORED, IGNORED, 5, 6]])
    logits = model(input_ids=ids).logits[0, 1:3]
    wanted = torch.nn.functional.cross_entropy(logits, torch.tensor([5, 6]))
    assert label_loss(model, ids, labels).item() == pytest.approx(wanted.item(), abs=0.02)  # bf16


def test_a_word_at_the_beginning_of_a_text_stays_tied():
    embedding = torch.nn.Parameter(torch.randn(6, 4))
    pairs = StartPairs(embedding, [(1, 4), (2, 5)])
    assert torch.equal(embedding[4], START_SCALE * embedding[1])
    embedding.grad = torch.ones(6, 4)
    pairs.share_gradient()
    assert embedding.grad[1].tolist() == [1 + START_SCALE] * 4
    assert embedding.grad[4].tolist() == [0.0] * 4


def test_the_rate_rises_stays_and_falls():
    training = CONFIG["training"]
    rates = [learning_rate(training, step, 1000) for step in (0, 150, 500, 800, 999)]
    assert rates[0] < rates[1] == rates[2] == training["learning_rate"] > rates[3] > rates[4] > 0


def test_a_tiny_pre_training_writes_a_loadable_model_with_spare_rows(tmp_path):
    config = copy.deepcopy(CONFIG)
    config["model"] = TINY
    config["world"] |= {"entities": 4, "answers": 8}
    config["training"] |= {"steps": 12, "batch_size": 4, "connector_lifetime": 5}
    lines: list[str] = []
    record = pretrain(config, tmp_path, log=lines.append)
    assert json.loads((tmp_path / "training.json").read_text()) == record
    assert record["tokens"] > 0 and lines[-1].startswith("step 12/12")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    model: Any = AutoModelForCausalLM.from_pretrained(tmp_path)
    rows = model.get_input_embeddings().weight.shape[0]
    assert rows % 64 == 0 and rows >= len(tokenizer) + 32
    assert model.get_output_embeddings().weight is model.get_input_embeddings().weight
    spare = model.get_input_embeddings().weight[len(tokenizer) :]
    assert model.config.new_rows_like_spare_rows
    assert torch.allclose(spare.std(0).mean(), torch.tensor(COMMON_SPREAD), rtol=0.2)


def test_the_committed_weights_are_small_fast_to_load_and_of_the_committed_recipe():
    started = time.perf_counter()
    model = AutoModelForCausalLM.from_pretrained(WEIGHTS, dtype=torch.float32)
    assert time.perf_counter() - started < 5  # a loaded machine; about 0.1 s on an idle one
    assert model.config.model_type == "qwen2"
    assert model.num_parameters() < 1.5e6
    assert (WEIGHTS / "model.safetensors").stat().st_size < 8e6
    assert json.loads((WEIGHTS / "training.json").read_text())["config"] == CONFIG


def test_the_command_line_trains_by_a_given_config(tmp_path, monkeypatch, capsys):
    config = CONFIG | {"model": TINY, "world": CONFIG["world"] | {"entities": 2, "answers": 4}}
    file = tmp_path / "tiny.yaml"
    file.write_text(yaml.safe_dump(config))
    out = tmp_path / "out"
    monkeypatch.setattr("sys.argv", ["base", "--out", str(out), "--config", str(file), "--steps", "2"])
    main()
    assert "step 2/2" in capsys.readouterr().out
    assert json.loads((out / "training.json").read_text())["config"]["training"]["steps"] == 2
