"""Loading, preparing, saving and loading again; and a sentence for everything that cannot be loaded."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from transformers import BertConfig, BertForMaskedLM

from engine.hardware import SettingError, cpu_threads
from engine.models import source
from engine.models.device import choose_device, choose_dtype, describe_hardware
from engine.models.loading import load_base, load_checkpoint, prepare_for_training, save_model
from engine.models.source import ModelError, resolve_source
from tests.unit.tiny_models import BUILDERS, build_llama, build_qwen2, tiny_experiment

LORA = {"method": "lora", "rank": 4, "dropout": 0.1}


def logits(loaded):
    text = loaded.tokenizer("Gene Finley [X] Cody Ross.", add_special_tokens=False, return_tensors="pt")
    with torch.no_grad():
        return loaded.model(input_ids=text.input_ids).logits


@pytest.mark.parametrize("name", BUILDERS)
@pytest.mark.parametrize("tuning", [{"method": "full"}, LORA], ids=["full", "lora"])
def test_saved_and_loaded_is_the_same_model(tmp_path, name, tuning):
    experiment = tiny_experiment(BUILDERS[name](tmp_path), tuning=tuning)
    loaded = prepare_for_training(load_base(experiment), experiment)
    for parameter in loaded.model.parameters():
        if parameter.requires_grad:
            torch.nn.init.normal_(parameter, std=0.1)
    save_model(loaded, tmp_path / "saved")
    again = load_checkpoint(experiment, tmp_path / "saved")
    assert again.key_token_ids == loaded.key_token_ids
    assert torch.equal(logits(again), logits(loaded))
    trainable = lambda m: {n for n, p in m.model.named_parameters() if p.requires_grad}  # noqa: E731
    assert trainable(again) == trainable(loaded)
    assert isinstance(prepare_for_training(again, experiment).model, PeftModel) == (tuning is LORA)
    assert not [p for p in (tmp_path / "saved").rglob("*") if p.suffix in (".bin", ".pt", ".pkl")]


def test_lora_trains_adapters_only_and_freezes_the_key_rows(tmp_path):
    experiment = tiny_experiment(build_qwen2(tmp_path), tuning=LORA)
    loaded = prepare_for_training(load_base(experiment), experiment)
    names = [n for n, p in loaded.model.named_parameters() if p.requires_grad]
    assert names
    assert all("lora_" in n for n in names)
    save_model(loaded, tmp_path / "saved")
    adapter = json.loads((tmp_path / "saved" / "adapter_config.json").read_text())
    assert adapter["modules_to_save"] is None
    assert adapter["trainable_token_indices"] is None


def test_the_key_rows_of_an_adapter_come_back_even_for_another_seed(tmp_path):
    folder = build_qwen2(tmp_path)
    experiment = tiny_experiment(folder, tuning=LORA)
    loaded = prepare_for_training(load_base(experiment), experiment)
    save_model(loaded, tmp_path / "saved")
    again = load_checkpoint(tiny_experiment(folder, tuning=LORA, seed=5), tmp_path / "saved")
    assert torch.equal(logits(again), logits(loaded))


def test_lora_starts_the_same_each_time(tmp_path):
    experiment = tiny_experiment(build_qwen2(tmp_path), tuning=LORA)
    first, second = (prepare_for_training(load_base(experiment), experiment) for _ in range(2))
    for (name, a), (_, b) in zip(first.model.named_parameters(), second.model.named_parameters(), strict=True):
        assert torch.equal(a, b), name


def test_lora_without_matching_modules(tmp_path):
    experiment = tiny_experiment(build_qwen2(tmp_path), tuning={**LORA, "target_modules": ["nowhere"]})
    with pytest.raises(ModelError, match=r"LoRA cannot be put on this model.*all-linear"):
        prepare_for_training(load_base(experiment), experiment)


def test_four_dimensional_masks_work(tmp_path):
    loaded = load_base(tiny_experiment(build_llama(tmp_path)))
    ids = torch.tensor([[5, 270, 280, 290]])
    mask = torch.full((1, 1, 4, 4), torch.finfo(torch.float32).min).triu(1)
    with torch.no_grad():
        own = loaded.model(input_ids=ids, attention_mask=mask, position_ids=torch.arange(4)[None]).logits
        assert torch.allclose(own, loaded.model(input_ids=ids).logits, atol=1e-6)


def test_sampling_settings_of_the_base_do_not_hinder_saving(tmp_path):
    folder = build_llama(tmp_path)
    settings = {"do_sample": False, "temperature": 0.5, "eos_token_id": 2}  # as published with Llama 2
    (folder / "generation_config.json").write_text(json.dumps(settings))
    experiment = tiny_experiment(folder)
    save_model(load_base(experiment), tmp_path / "saved")
    assert load_checkpoint(experiment, tmp_path / "saved").causal.generation_config.eos_token_id == 2


def test_dropout_of_the_base_is_off(tmp_path):
    folder = build_llama(tmp_path, attention_dropout=0.5)
    assert load_base(tiny_experiment(folder)).causal.config.attention_dropout == 0.0


def test_another_experiments_checkpoint(tmp_path):
    experiment = tiny_experiment(build_qwen2(tmp_path))
    save_model(load_base(experiment), tmp_path / "saved")
    relation = experiment.relations[0].model_dump() | {"key_token": "[Z]"}
    with pytest.raises(ModelError, match="no key token ‘\\[Z\\]’: it belongs to another experiment"):
        load_checkpoint(tiny_experiment(experiment.model, relations=[relation]), tmp_path / "saved")
    with pytest.raises(ModelError, match="there is no checkpoint in"):
        load_checkpoint(experiment, tmp_path / "nothing")


def damage(folder: Path, how: str) -> None:
    config = json.loads((folder / "config.json").read_text())
    weights = folder / "model.safetensors"
    if how == "config is no JSON":
        (folder / "config.json").write_text("{")
    elif how == "config of an unknown kind":
        (folder / "config.json").write_text(json.dumps({**config, "model_type": "unheard-of"}))
    elif how == "config wants code":
        auto = {"AutoConfig": "evil.Config", "AutoModelForCausalLM": "evil.Model"}
        (folder / "evil.py").write_text("raise SystemExit('ran foreign code')")
        (folder / "config.json").write_text(json.dumps({**config, "model_type": "unheard-of", "auto_map": auto}))
    elif how == "no weights":
        weights.unlink()
    elif how == "weights cut off":
        weights.write_bytes(weights.read_bytes()[:2000])
    elif how == "weights of another shape":
        (folder / "config.json").write_text(json.dumps({**config, "intermediate_size": 40}))
    elif how == "weights incomplete":
        (folder / "config.json").write_text(json.dumps({**config, "num_hidden_layers": 3, "layer_types": None}))
    elif how == "pickled weights":
        torch.save({"x": torch.zeros(1)}, folder / "pytorch_model.bin")
        weights.unlink()
    elif how == "no tokenizer":
        (folder / "tokenizer.json").unlink()
        (folder / "tokenizer_config.json").unlink()
    elif how == "tokenizer is no JSON":
        (folder / "tokenizer.json").write_text("[")
    elif how == "not a language model":
        shutil.rmtree(folder)
        BertForMaskedLM(
            BertConfig(vocab_size=50, hidden_size=8, num_hidden_layers=1, num_attention_heads=1, intermediate_size=8)
        ).save_pretrained(folder)


@pytest.mark.parametrize(
    ("how", "says"),
    [
        ("config is no JSON", "config.json is damaged"),
        ("config of an unknown kind", "of a kind that transformers cannot load"),
        ("config wants code", "of a kind that transformers cannot load"),
        ("no weights", "safetensors"),
        ("weights cut off", "the weights of .* cannot be loaded"),
        ("weights of another shape", "the weights of .* cannot be loaded"),
        ("weights incomplete", "are incomplete .* copy the model again"),
        ("pickled weights", "safetensors"),
        ("no tokenizer", "tokenizer.json"),
        ("tokenizer is no JSON", "the tokenizer of .* cannot be loaded"),
        ("not a language model", "not a causal language model: choose one that continues text"),
    ],
)
@pytest.mark.parametrize("build", [build_qwen2, build_llama])
def test_a_damaged_model_is_refused_in_one_sentence(tmp_path, build, how, says):
    folder = build(tmp_path)
    damage(folder, how)
    with pytest.raises(ModelError, match=says) as caught:
        load_base(tiny_experiment(folder))
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("/no/such/folder", "there is no folder ‘/no/such/folder’: give an existing folder"),
        ("./nothing", "there is no folder"),
        ("a/b/c", "there is no folder"),
        ("what is this?", "there is no folder"),
    ],
)
def test_names_that_mean_nothing(name, says):
    with pytest.raises(ModelError, match=says):
        resolve_source(name)


def test_sources(tmp_path, monkeypatch):
    assert resolve_source("Qwen/Qwen2.5-1.5B") == "Qwen/Qwen2.5-1.5B"
    with pytest.raises(ModelError, match="holds no config"):
        resolve_source(str(tmp_path))
    (tmp_path / "config.json").write_text("{}")
    assert resolve_source(str(tmp_path)) == tmp_path
    with pytest.raises(ModelError, match="is a file"):
        resolve_source(str(tmp_path / "config.json"))
    monkeypatch.setattr(source, "EMBEDDED_WEIGHTS", tmp_path / "gone")
    with pytest.raises(ModelError, match="embedded model’s weights are missing"):
        resolve_source("embedded")


def test_an_unreachable_hub_model(monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(ModelError, match="‘nobody/no-such-model’ is not on this machine, and HF_HUB_OFFLINE=1 keeps"):
        load_base(tiny_experiment("nobody/no-such-model"))


def test_device_and_threads(monkeypatch):
    monkeypatch.setenv("ROTE_LAB_DEVICE", "cpu")
    assert choose_device() == torch.device("cpu")
    assert describe_hardware()["device"] == "cpu"
    assert cpu_threads(1_000_000) == 1
    assert 1 <= cpu_threads(10**9) <= cpu_threads() <= 8
    monkeypatch.setenv("ROTE_LAB_THREADS", "3")
    assert cpu_threads(1_000_000) == cpu_threads() == 3
    assert choose_dtype("auto", torch.device("cpu")) == torch.float32
    assert choose_dtype("bfloat16", torch.device("cpu")) == torch.bfloat16
    for wrong in ("gpu7", "cuda:99"):
        monkeypatch.setenv("ROTE_LAB_DEVICE", wrong)
        with pytest.raises(ModelError, match=f"ROTE_LAB_DEVICE is ‘{wrong}’"):
            choose_device()
    monkeypatch.setenv("ROTE_LAB_THREADS", "many")
    with pytest.raises(SettingError, match="ROTE_LAB_THREADS is ‘many’"):
        cpu_threads(1)
