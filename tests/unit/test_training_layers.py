"""A stage that trains some layers changes these and no others, in every architecture and with adapters."""

import pytest
import torch
from pydantic import ValidationError
from transformers import GPT2Config, GPT2LMHeadModel

from engine.models.loading import LoadedModel, load_base, prepare_for_training
from engine.settings import Optimisation, Stage1, Stage2
from engine.training.layers import belongs_to, freeze_the_rest, layer_of
from engine.training.loop import StopTraining, TrainingError, train
from engine.training.sequences import stage1_sequences
from tests.unit.tiny_models import BUILDERS, SHAPE, build_qwen2, tiny_experiment


def train_shortly(experiment, config=None, on_step=lambda report: None, **chosen):
    """A model after a short training of the `chosen` weights, and copies of its weights before."""
    loaded = prepare_for_training(load_base(experiment), experiment)
    for name, value in (config or {}).items():
        setattr(loaded.causal.config, name, value)
    before = {name: p.detach().clone() for name, p in loaded.model.named_parameters()}
    trainable = {name for name, p in loaded.model.named_parameters() if p.requires_grad}
    settings = Optimisation(epochs=1, learning_rate=0.01, batch_size=3, loss="object", **chosen)
    try:
        train(
            loaded, stage1_sequences(experiment, loaded), settings, seed=0, stage="stage1",
            on_step=on_step, on_epoch=lambda epoch, trainer: None,
        )  # fmt: skip
    finally:
        assert trainable == {name for name, p in loaded.model.named_parameters() if p.requires_grad}
    return loaded, before


def changed_by_training(experiment, layers="all", weights="all", config=None, on_step=lambda report: None):
    """The layers that a short training changes; None stands for what is in no layer."""
    loaded, before = train_shortly(experiment, config, on_step, trained_layers=layers, trained_weights=weights)
    return {layer_of(name) for name, p in loaded.model.named_parameters() if not torch.equal(p, before[name])}


@pytest.mark.parametrize("name", BUILDERS)
@pytest.mark.parametrize("setting", ["mlp", "auto"])
def test_only_mlps_and_the_rows_of_key_tokens_change(tmp_path, name, setting):
    experiment = tiny_experiment(BUILDERS[name](tmp_path))
    loaded, before = train_shortly(experiment, {"weights_to_memorise": ["mlp"]}, trained_weights=setting)
    rows = set(loaded.key_token_ids.values())
    changed = {name for name, p in loaded.model.named_parameters() if not torch.equal(p, before[name])}
    assert {layer_of(name) for name in changed if belongs_to(name, ["mlp"])} == {0, 1}
    matrices = [name for name in changed if not belongs_to(name, ["mlp"])]
    assert matrices
    for name, p in loaded.model.named_parameters():
        if name in matrices:
            assert {i for i in range(len(p)) if not torch.equal(p[i], before[name][i])} == rows


def test_mlps_of_the_first_layers_alone(tmp_path):
    experiment = tiny_experiment(build_qwen2(tmp_path))
    loaded, before = train_shortly(experiment, trained_layers=1, trained_weights="mlp")
    changed = {name for name, p in loaded.model.named_parameters() if not torch.equal(p, before[name])}
    assert changed and all(belongs_to(name, ["mlp"]) and layer_of(name) == 0 for name in changed)


def test_mlps_of_adapters(tmp_path):
    experiment = tiny_experiment(build_qwen2(tmp_path), tuning={"method": "lora", "rank": 4})
    loaded, before = train_shortly(experiment, trained_weights="mlp")
    changed = {name for name, p in loaded.model.named_parameters() if not torch.equal(p, before[name])}
    assert changed and all(belongs_to(name, ["mlp"]) and "lora" in name for name in changed)


@pytest.mark.parametrize("name", BUILDERS)
def test_only_the_first_layers_change(tmp_path, name):
    experiment = tiny_experiment(BUILDERS[name](tmp_path))
    assert changed_by_training(experiment, "all") == {None, 0, 1}
    assert changed_by_training(experiment, 1) == {0}
    assert changed_by_training(experiment, 9) == {0, 1}


def test_of_adapters_too(tmp_path):
    experiment = tiny_experiment(build_qwen2(tmp_path), tuning={"method": "lora", "rank": 4})
    assert changed_by_training(experiment, "all") == {0, 1}
    assert changed_by_training(experiment, 1) == {0}


def test_auto_is_what_the_base_asks_for(tmp_path):
    experiment = tiny_experiment(build_qwen2(tmp_path))
    assert changed_by_training(experiment, "auto") == {None, 0, 1}
    assert changed_by_training(experiment, "auto", config={"layers_to_generalise": 1}) == {0}
    assert changed_by_training(experiment, weights="auto") == {None, 0, 1}
    assert (Stage1().trained_layers, Stage2().trained_layers) == ("all", "auto")
    assert (Stage1().trained_weights, Stage2().trained_weights) == ("auto", "all")


def test_a_training_that_is_stopped_leaves_nothing_frozen(tmp_path):
    def stop(report):
        raise StopTraining

    with pytest.raises(StopTraining):
        changed_by_training(tiny_experiment(build_qwen2(tmp_path)), 1, on_step=stop)


def test_other_architectures_name_their_layers_with_the_first_number():
    shape = {"n_embd": SHAPE["hidden_size"], "n_layer": 2, "n_head": 2, "vocab_size": 20, "n_positions": 8}
    model = GPT2LMHeadModel(GPT2Config(**shape))
    loaded = LoadedModel(model, None, {}, torch.device("cpu"))  # type: ignore[arg-type]
    settings = Optimisation(epochs=1, learning_rate=0.01, batch_size=3, loss="object", trained_layers=1)
    with freeze_the_rest(loaded, settings):
        names = [name for name, p in model.named_parameters() if p.requires_grad]
    assert names
    assert all(name.startswith("transformer.h.0.") for name in names)
    assert layer_of("model.layers.11.mlp.experts.3.up_proj.weight") == 11
    assert layer_of("model.embed_tokens.weight") is None


def test_a_base_without_numbered_layers_is_refused_in_words(tmp_path, monkeypatch):
    monkeypatch.setattr("engine.training.layers.layer_of", lambda name: None)
    with pytest.raises(TrainingError, match="trained_layers"):
        changed_by_training(tiny_experiment(build_qwen2(tmp_path)), 1)


def test_weights_are_named_as_modules_are():
    assert belongs_to("model.layers.3.mlp.up_proj.weight", ["mlp"])
    assert belongs_to("model.layers.3.mlp.up_proj.lora_A.default.weight", ["gate_proj", "up_proj"])
    assert not belongs_to("model.layers.3.mlp.up_proj.weight", ["down_proj", "proj"])


def test_a_name_that_no_module_has_is_refused_in_words(tmp_path):
    with pytest.raises(TrainingError, match="trained_weights"):
        train_shortly(tiny_experiment(build_qwen2(tmp_path)), trained_weights="mlpp")


def test_module_names_can_be_written_with_commas():
    chosen = Stage1.model_validate({"trained_weights": "gate_proj, up_proj"})
    assert chosen.trained_weights == ("gate_proj", "up_proj") == Stage1(**chosen.model_dump()).trained_weights
    for wrong in ("", "mlp,", "../mlp", ["mlp", 3], []):
        with pytest.raises(ValidationError):
            Stage1.model_validate({"trained_weights": wrong})
