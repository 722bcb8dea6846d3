"""The estimate before the start: exact where it counts, honest where it guesses, and never with torch."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import huggingface_hub
import numpy as np
import pytest
from safetensors.numpy import save_file
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers

from app.design.estimate import estimate_for, estimate_words
from app.design.hub_sizes import HubSizes
from app.shared.lab import Lab
from engine.corpus.beginnings import replayed_beginnings
from engine.corpus.resolve import resolve
from engine.corpus.sentences import stage1_sentences, stage2_sentences
from engine.costs import Pace, Work, pace_of, part_seconds, trained_parameters
from engine.estimate import estimate_experiment
from engine.evaluation.questions import questions_for
from engine.experiment import Experiment
from engine.models.files import (
    ModelShape,
    find_folder,
    load_tokenizer,
    model_problems,
    model_shape,
    shape_from_config,
    tokenizer_file,
    tokenizer_problems,
)
from engine.presets import load_preset

FACTS = [
    {"subject": "Ann Bee", "object": "Cy Dee"},
    {"subject": "El Eff", "object": "Gee"},
    {"subject": "Kay", "object": "Em"},
]
PROMPTS = [
    {"text": "Who employs {subject}?", "split": "train"},
    {"text": "{subject} works for", "split": "train"},
    {"text": "The employer of {subject} is", "split": "test"},
    {"text": "El jefe de {subject} es", "split": "test", "language": "es"},
]  # fmt: skip
QWEN = {
    "model_type": "qwen2", "hidden_size": 1536, "num_hidden_layers": 28, "intermediate_size": 8960,
    "vocab_size": 151936, "num_attention_heads": 12, "num_key_value_heads": 2, "tie_word_embeddings": True,
}  # fmt: skip
LLAMA = {
    "model_type": "llama", "hidden_size": 4096, "num_hidden_layers": 32, "intermediate_size": 11008,
    "vocab_size": 32000, "num_attention_heads": 32, "tie_word_embeddings": False,
}  # fmt: skip


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A folder with a tiny model's config and a tokenizer of single words."""
    words = [
        "Ann",
        "Bee",
        "Cy",
        "Dee",
        "El",
        "Eff",
        "Gee",
        "Kay",
        "Em",
        ".",
        "?",
        "Who",
        "employs",
        "works",
        "for",
        "<unk>",
    ]
    words += ["is", "[", "]", "X", "A", "B"]
    tokenizer = Tokenizer(models.WordLevel({w: i for i, w in enumerate(words)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    config = QWEN | {"hidden_size": 32, "num_hidden_layers": 2, "intermediate_size": 64, "vocab_size": 100}
    (tmp_path / "config.json").write_text(json.dumps(config))
    save_file({"a": np.zeros((100, 32)), "b": np.zeros((32, 64))}, tmp_path / "model.safetensors")
    return tmp_path


def experiment(model: str = "embedded", **changes: object) -> Experiment:
    relation = {"name": "employer", "facts": FACTS, "prompts": PROMPTS}
    data = {
        "model": model,
        "relations": [relation],
        "stage1": {"epochs": 6, "batch_size": 2},
        "stage2": {"facts": 2, "prompts": 2, "epochs": 3, "batch_size": 3},
    }
    return resolve(Experiment.from_data(data | changes))


def test_counts_by_the_models_tokenizer(model: Path) -> None:
    found = estimate_experiment(experiment(str(model)))
    assert found.exact_tokens
    # "Ann Bee [X] Cy Dee." is five words and the key token; "El Eff [X] Gee." and "Kay [X] Em." are shorter.
    assert found.stage1_tokens == 6 * (6 + 5 + 4)
    assert found.stage1_steps == 6 * 2
    assert found.branches == 2, "epochs 3 and 6 are kept"
    assert found.stage2_steps == 3 * 2
    assert (found.parameters, found.parameters_from) == (100 * 32 + 32 * 64, "its weights")
    assert not dict(estimate_words(found))["Stage 1"].startswith("about")


def test_guesses_say_so() -> None:
    found = estimate_experiment(experiment("nobody/unknown"))
    assert not found.exact_tokens
    assert found.seconds is None and found.memory is None
    told = dict(estimate_words(found))
    assert told["Stage 1"].startswith("about ")
    assert told["Time"].startswith("unknown")
    assert "Model" not in told


def test_questions_are_counted_as_they_will_be_asked() -> None:
    for choice in ({"facts": 2, "prompts": 1}, {"facts": "all", "prompts": "all"}, {"facts": 20, "prompts": 2}):
        for where, sample in (("ends", {}), ("last", {}), ("every", {}), ("every", {"facts": 2, "prompts": 1})):
            plan = experiment(evaluation={"choice": choice, "every_language_at": where, **sample})
            asked = [q for name in plan.checkpoints for q in questions_for(plan, name)]
            found = estimate_experiment(plan)
            assert found.questions == len(asked)
            assert found.choices == sum(bool(q.options) for q in asked)


def test_texts_are_what_is_trained_on() -> None:
    plan = experiment()
    (relation,) = plan.relations
    assert stage1_sentences(relation)[0].text == "Ann Bee [X] Cy Dee."
    pairs = [sentence.halves for sentence in stage2_sentences(plan, relation)]
    assert len(pairs) == 2 * 2
    assert all(prompt.endswith(("?", "for")) and object_.startswith(" ") for prompt, object_ in pairs)


def test_names_that_look_like_placeholders_are_names() -> None:
    facts = [{"subject": "{object}", "object": "{subject}"}, {"subject": "y", "object": "z"}]
    plan = experiment(relations=[{"name": "odd", "facts": facts, "prompts": PROMPTS}], stage2={"facts": 1})
    assert stage1_sentences(plan.relations[0])[0].text == "{object} [X] {subject}."


def test_earlier_runs_tell_the_time(model: Path) -> None:
    plan = experiment(str(model))
    rough = estimate_experiment(plan)
    slow, busy = Pace(2, 4, 3), Pace(50, 60, 70)
    known = estimate_experiment(plan, paces=[slow, slow, busy])
    assert known.seconds is not None and rough.seconds is not None
    low, middle, high = known.seconds
    assert (low, high) == (pytest.approx(middle / 1.5), pytest.approx(middle * 1.5))
    assert rough.seconds[2] == pytest.approx(rough.seconds[1] * 3)
    guess = rough.parts
    training, asking = guess["stage 1"] + guess["stage 2"], guess["questions"] + guess["multiple choice"]
    assert middle == pytest.approx(2 * guess["loading"] + 4 * training + 3 * asking), "one on a busy machine is none"
    assert "by earlier runs" in dict(estimate_words(known))["Time"]
    assert "rough guess" in dict(estimate_words(rough))["Time"]
    said = dict(estimate_words(replace(known, seconds=(0.2, 187.0, 7777.0))))["Time"]
    assert said == "about 3 min 10 s (1 s – 2 h 10 min), by earlier runs of this model"


def test_a_run_that_took_long_says_what_of_it(model: Path) -> None:
    guessed = estimate_experiment(experiment(str(model))).guessed
    took = {"loading": 3 * guessed["loading"], "training": 2 * (guessed["stage 1"] + guessed["stage 2"])}
    pace = pace_of(guessed, took)
    assert pace == (pytest.approx(3), pytest.approx(2), 1), "of what was not measured nothing is known"
    assert pace_of(guessed, {"all": 5 * sum(guessed.values())}) == pytest.approx((5, 5, 5)), "a run of before"


def test_more_takes_longer(model: Path) -> None:
    """Every setting that makes more work makes the estimate grow, in the part that it belongs to."""
    small = {"facts": 2, "prompts": 1, "max_new_tokens": 10, "choice": {"facts": 1, "prompts": 1}}
    plain = estimate_experiment(experiment(str(model), evaluation=small))
    more: dict[str, dict[str, Any]] = {
        "stage 1": {"stage1": {"epochs": 12, "batch_size": 2, "checkpoint_epochs": [3, 6]}},
        "stage 2": {"stage2": {"facts": 2, "prompts": 2, "epochs": 30, "batch_size": 3}},
        "multiple choice": {"evaluation": small | {"choice": {"facts": 2, "prompts": 1}}},
    }
    for part, changes in more.items():
        found = estimate_experiment(experiment(str(model), **({"evaluation": small} | changes)))
        assert {name for name, seconds in found.parts.items() if seconds > plain.parts[name]} == {part}
    for changed in ({"facts": 3}, {"prompts": 2}, {"max_new_tokens": 20}, {"every_language_at": "every"}):
        found = estimate_experiment(experiment(str(model), evaluation=small | changed))
        assert found.parts["questions"] > plain.parts["questions"]
    kept = experiment(str(model), stage1={"epochs": 6, "batch_size": 2, "checkpoint_epochs": [6]}, evaluation=small)
    assert plain.disk is not None and plain.disk > (estimate_experiment(kept).disk or 0) > 0


def test_a_large_model_on_a_cpu_takes_days_and_lora_less_memory(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(QWEN))
    full = estimate_experiment(experiment(str(tmp_path)), accelerator=True)
    lora = estimate_experiment(experiment(str(tmp_path), tuning={"method": "lora"}), accelerator=True)
    slow = estimate_experiment(experiment(str(tmp_path)), accelerator=False)
    assert full.parameters == pytest.approx(1.54e9, rel=0.01)
    assert full.memory is not None and lora.memory is not None and slow.memory is not None
    assert lora.memory < full.memory < slow.memory, "float32 on a CPU needs twice as much"
    assert full.seconds is not None and slow.seconds is not None
    for part in ("questions", "multiple choice"):  # files take their time on both
        assert slow.parts[part] > 20 * full.parts[part]
    assert slow.seconds[1] > 3 * full.seconds[1]


def test_shapes_of_known_models() -> None:
    for config, billions in ((QWEN, 1.543714304), (LLAMA, 6.738415616)):
        shape = shape_from_config(config)
        assert shape is not None
        assert shape.parameters == int(billions * 1e9)
    assert shape_from_config({"model_type": "mamba", "hidden_size": 8}) is None
    assert shape_from_config({"hidden_size": "x"}) is None


def test_size_by_name() -> None:
    for name, parameters in (
        ("Qwen/Qwen2-1.5B", 1.5e9),
        ("meta-llama/Llama-3.2-1B-Instruct", 1e9),
        ("me/tiny-42m", 42e6),
        ("mistralai/Mixtral-8x7B-v0.1", 56e9),
    ):
        shape = model_shape(name)
        assert shape is not None and shape.parameters == parameters
    assert model_shape("microsoft/phi-2") is None


@pytest.mark.parametrize(
    ("name", "says", "severity"),
    [
        ("", "is empty", "error"),
        ("/nowhere/at/all", "there is no folder", "error"),
        ("~/nowhere", "there is no folder", "error"),
        ("not a name!", "neither a Hugging Face name", "error"),
        ("<script>", "neither a Hugging Face name", "error"),
        ("a\u202eb", "invisible character", "error"),
        ("nobody/unknown-model", "will download it", "warning"),
    ],
)
def test_models_that_cannot_be(name: str, says: str, severity: str) -> None:
    (problem,) = model_problems(name)
    assert says in problem.message
    assert problem.severity == severity


def test_folders_that_hold_no_model(tmp_path: Path, model: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    assert "no config.json" in model_problems(str(empty))[0].message
    (empty / "config.json").write_text("{}")
    assert "no weights" in model_problems(str(empty))[0].message
    assert model_problems(str(model)) == []


def test_the_hub_cache_gives_what_its_main_branch_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    cached = tmp_path / "models--someone--model"
    for commit in ("a1", "b2"):
        (cached / "snapshots" / commit).mkdir(parents=True)
        (cached / "snapshots" / commit / "config.json").write_text("{}")
    assert find_folder("someone/model") is None
    (cached / "refs").mkdir()
    (cached / "refs" / "main").write_text("a1")
    assert find_folder("someone/model") == cached / "snapshots" / "a1"
    assert find_folder("someone/other") is None


def test_relative_folders_and_odd_names(tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(model.parent)
    assert find_folder(model.name) == Path(model.name)
    assert [find_folder(name) for name in ("", " ", "~nobody-at-all/x", "x" * 400, "\0", "a--b")] == [None] * 6


def test_weights_are_counted_whatever_their_format(tmp_path: Path) -> None:
    header = json.dumps({"a": {"dtype": "BF16", "shape": [3, 5], "data_offsets": [0, 30]}}).encode()
    file = tmp_path / "model.safetensors"
    file.write_bytes(len(header).to_bytes(8, "little") + header + bytes(30))
    shape = model_shape(str(tmp_path))
    assert shape is not None and shape.parameters == 15
    file.write_bytes(b"no tensors")
    assert model_shape(str(tmp_path)) is None


def test_a_baseline_with_the_facts_in_the_prompt_trains_and_keeps_nothing() -> None:
    tuned = estimate_experiment(experiment("Qwen/Qwen2.5-1.5B"), accelerator=True)
    asked = experiment("Qwen/Qwen2.5-1.5B", stage1={"epochs": 0}, in_context={})
    found = estimate_experiment(asked, accelerator=True)
    assert (found.stage2_tokens, found.stage2_steps, found.disk) == (0, 0, 0)
    assert found.parameters and tuned.memory and found.memory == int(2 * found.parameters + 500e6) < tuned.memory / 5


@pytest.mark.parametrize("tied", [True, False])
def test_both_embedding_matrices_are_frozen_where_there_are_two(tied: bool) -> None:
    shape = ModelShape(1000, "a test", hidden=4, layers=2, vocabulary=50, tied=tied)
    frozen = experiment(stage1={"embeddings": "key tokens"}, stage2={"facts": 2, "embeddings": "key tokens"})
    assert trained_parameters(frozen, shape) == 1000 - (200 if tied else 400)


def test_weights_that_no_loader_reads_do_not_count(tmp_path: Path) -> None:
    """Some publishers put the same weights beside them once more, in a format of their own."""
    header = json.dumps({"a": {"dtype": "BF16", "shape": [3, 5], "data_offsets": [0, 30]}}).encode()
    for name in ("model.safetensors", "consolidated.safetensors"):
        (tmp_path / name).write_bytes(len(header).to_bytes(8, "little") + header + bytes(30))
    shape = model_shape(str(tmp_path))
    assert shape is not None and shape.parameters == 15


def test_key_tokens_that_mean_something_already(model: Path) -> None:
    problems = tokenizer_problems(model / "tokenizer.json", ["[X]", "Bee", "⊕", ""])
    assert [str(p) for p in problems] == [
        "key token: ‘Bee’ is in the model's vocabulary already, so it means something: choose another"
    ]


def test_a_key_token_that_a_normaliser_would_change(model: Path) -> None:
    file = model / "tokenizer.json"
    tokenizer = Tokenizer.from_file(str(file))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.save(str(file))
    assert tokenizer_problems(file, ["[KEY]"]) == [], "added as it is, past the normaliser"


def test_a_broken_tokenizer_is_a_sentence(tmp_path: Path) -> None:
    file = tmp_path / "tokenizer.json"
    file.write_text("{}")
    assert "cannot be read as a tokenizer" in tokenizer_problems(file, ["[X]"])[0].message
    assert tokenizer_problems(tmp_path / "none.json", ["[X]"])


def test_needs_no_torch() -> None:
    code = "import sys, engine.estimate, app.design.page; print(sorted({'torch', 'transformers'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_what_is_replayed_is_counted_as_the_run_counts_it() -> None:
    def of(**changes: object) -> tuple[Experiment, int, float]:
        experiment = resolve(Experiment.from_data({"relations": [{"name": "mother"}], **changes}))
        found = estimate_experiment(experiment, accelerator=False)
        return experiment, found.stage1_tokens, sum(found.guessed.values())

    replay = {"replay": {"texts": 40, "tokens": 6, "share": 0.75}}
    _, plain, seconds = of()
    experiment, tokens, all_seconds = of(stage1=replay)
    beginnings = replayed_beginnings(experiment, "stage1")
    assert beginnings is not None
    lengths = [len(found) for found in encoded([text for _, text in beginnings.texts])]
    each = sum(lengths) / len(lengths) + 6
    assert tokens - plain == pytest.approx(20 * 3 * 100 * each, rel=1e-3)
    assert all_seconds > of(evaluation={"base_text": 10})[2] > seconds
    assert of(evaluation={"general": 40})[2] > seconds > of(evaluation={"representations": {"facts": 0}})[2]
    memory = [estimate_experiment(of(stage1=s)[0], accelerator=False).memory for s in ({}, replay)]
    assert memory[0] is not None and memory[1] is not None and memory[0] < memory[1]


def encoded(texts: list[str]) -> list[list[int]]:
    file = tokenizer_file("embedded")
    assert file is not None
    return [found.ids for found in load_tokenizer(file).encode_batch(texts, add_special_tokens=False)]


def test_a_first_guess_is_right_within_three() -> None:
    """Recorded on two quiet cores, SmolLM2 135M: a step of 8 facts, and 2,800 questions with 12 new tokens each."""
    shape = ModelShape(134_515_008, "its weights", 576, 30, 49_152, 0, True)
    plan = experiment("nobody/unknown", precision="float32", stage1={"epochs": 1})
    none = Work(0, 0, 0, 0, 0, 0, 0, 0, 0, 0)
    idle = part_seconds(none, shape, plan, accelerator=False)
    trained = part_seconds(replace(none, tokens1=130, steps1=1), shape, plan, accelerator=False)
    assert 1.05 / 3 < trained["stage 1"] - idle["stage 1"] < 1.05 * 3
    work = replace(none, read=2800 * 14, logits=2800 * 4, answers=2800 * 12)
    asked = part_seconds(work, shape, plan, accelerator=False)
    assert 265 / 3 < asked["questions"] - idle["questions"] < 265 * 3


@pytest.mark.parametrize(
    ("device", "gib", "words"),
    [
        ("cpu", 1000.0, r"about \d+\.\d GB of this machine’s 1073\.7 GB"),
        ("cuda", 80.0, r"about \d+\.\d GB of the GPU’s 85\.9 GB"),
        ("cuda", 16.0, r"more than the GPU’s 17\.2 GB: an optimizer of 8 bits would take about \d+\.\d GB"),
        ("cuda", 1.0, r"more than the GPU’s 1\.1 GB: choose a smaller model"),
        ("cuda", 0.0, r"about \d+\.\d GB$"),
    ],
)
def test_memory_is_held_against_the_device(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, device: str, gib: float, words: str
) -> None:
    monkeypatch.setattr("app.design.estimate.serving_device", lambda: device)
    monkeypatch.setattr("engine.estimate.serving_device", lambda: device)
    monkeypatch.setattr("app.design.estimate.device_gib", lambda _: gib)
    told = dict(estimate_for(Lab(tmp_path), resolve(load_preset("qwen2.5-1.5b")), HubSizes()).rows)
    assert re.search(words, told["Memory"]), told["Memory"]
