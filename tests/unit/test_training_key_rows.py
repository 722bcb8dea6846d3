"""Key tokens' rows trained apart from their matrices: as with a gradient of the whole matrix, without its cost."""

import time

import pytest
import torch
from transformers import Gemma3ForCausalLM, Gemma3TextConfig, LlamaConfig, LlamaForCausalLM

from engine.models.device import bfloat16_gain
from engine.models.loading import load_base, load_checkpoint, prepare_for_training
from engine.settings import Optimisation
from engine.training.checkpoint import is_complete, load_training_state
from engine.training.loop import StepReport, StopTraining, Trainer, train
from engine.training.sequences import stage1_sequences
from tests.unit import tiny_models
from tests.unit.tiny_models import SHAPE, build_llama, build_qwen2, tiny_experiment


def build_gemma3(parent, **more):
    """A tied Gemma 3, whose embeddings are scaled, and whose logits are capped where `more` says so."""
    tokenizer = tiny_models.metaspace_tokenizer()
    torch.manual_seed(0)
    shape = {**SHAPE, "head_dim": 8, "vocab_size": tokenizer.get_vocab_size(), "sliding_window": 16, **more}
    model = Gemma3ForCausalLM(Gemma3TextConfig(**shape))
    special = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    return tiny_models._save(parent / "gemma3", model, tokenizer, **special)


def build_tied_llama(parent):
    tokenizer = tiny_models.metaspace_tokenizer()
    torch.manual_seed(0)
    config = LlamaConfig(vocab_size=tokenizer.get_vocab_size(), tie_word_embeddings=True, **SHAPE)
    return tiny_models._save(parent / "tied", LlamaForCausalLM(config), tokenizer, eos_token="</s>", unk_token="<unk>")


BUILDERS = {
    "llama": build_llama,
    "tied llama": build_tied_llama,
    "gemma3": build_gemma3,
    "capped": lambda parent: build_gemma3(parent, final_logit_softcapping=3.0),
    "qwen2": build_qwen2,
}


def settings(**chosen):
    return Optimisation(**{"epochs": 3, "learning_rate": 0.01, "batch_size": 3, "loss": "full", **chosen})


def prepared(experiment):
    return prepare_for_training(load_base(experiment), experiment)


def run(experiment, loaded, chosen, **options):
    reports: list[StepReport] = []
    given = {"on_step": reports.append, "on_epoch": lambda epoch, trainer: None, **options}
    train(loaded, stage1_sequences(experiment, loaded), chosen, seed=0, stage="stage1", **given)
    return [report.loss for report in reports]


def weights(loaded):
    return {name: p.detach().clone() for name, p in loaded.model.named_parameters()}


def large_from_now_on(monkeypatch):
    """Treat the tiny matrices as large ones, with a part of a few tokens at once."""
    monkeypatch.setattr("engine.training.layers.LARGE_MATRIX", 0)
    monkeypatch.setattr("engine.training.loss.LARGE_MATRIX", 0)
    monkeypatch.setattr("engine.training.loss.LOGITS_AT_ONCE", 5 * 512)


@pytest.mark.parametrize("name", BUILDERS)
@pytest.mark.parametrize("chosen", [{"embeddings": "key tokens"}, {"trained_weights": "mlp"}], ids=["all", "mlp"])
def test_equals_a_whole_gradient_of_which_the_rows_are_taken(tmp_path, monkeypatch, name, chosen):
    experiment = tiny_experiment(BUILDERS[name](tmp_path))
    with monkeypatch.context() as plainly:
        plainly.setattr("engine.training.layers.can_be_apart", lambda *_: False)
        expected = prepared(experiment)
        losses = run(experiment, expected, settings(**chosen))
    for large in (False, True):
        if large:
            large_from_now_on(monkeypatch)
        loaded = prepared(experiment)
        before = weights(loaded)
        assert run(experiment, loaded, settings(**chosen)) == pytest.approx(losses, rel=1e-4)
        after, wanted = weights(loaded), weights(expected)
        assert [n for n in after if not torch.allclose(after[n], wanted[n], atol=2e-4)] == []
        for embedding in ("model.embed_tokens.weight", "lm_head.weight"):
            if embedding in after:
                changed = {
                    i
                    for i in range(len(before[embedding]))
                    if not torch.equal(*(x[embedding][i] for x in (before, after)))
                }
                assert changed == set(loaded.key_token_ids.values())
        assert loaded.key_rows is None and all(p.requires_grad for p in loaded.model.parameters())


@pytest.mark.parametrize("name", ["llama", "gemma3"])
def test_nothing_of_the_size_of_the_matrix_is_made_for_it(tmp_path, monkeypatch, name):
    large_from_now_on(monkeypatch)
    experiment = tiny_experiment(BUILDERS[name](tmp_path))
    loaded = prepared(experiment)
    seen = []

    def look(optimizer, *_):
        seen.append({tuple(p.grad.shape) for group in optimizer.param_groups for p in group["params"]})
        assert all(p.grad is None for p in matrices)

    def keep(epoch, trainer: Trainer):
        states = trainer.optimizer.state.values()
        seen.append({tuple(value.shape) for state in states for value in state.values()})
        trainer.optimizer.register_step_pre_hook(look)

    matrices = [loaded.causal.get_input_embeddings().weight, loaded.causal.get_output_embeddings().weight]
    run(experiment, loaded, settings(embeddings="key tokens"), on_epoch=keep)
    assert len(seen) > 3
    assert not any(shape and shape[0] >= len(matrices[0]) for shapes in seen for shape in shapes)
    assert all((1, 16) in shapes for shapes in seen)


@pytest.mark.parametrize("name", ["llama", "gemma3"])
@pytest.mark.parametrize("mixed", [False, True], ids=["float32", "mixed"])
def test_resumed_equals_undisturbed_bit_for_bit(tmp_path, monkeypatch, name, mixed):
    large_from_now_on(monkeypatch)
    experiment, chosen = tiny_experiment(BUILDERS[name](tmp_path)), settings(embeddings="key tokens")
    undisturbed = prepared(experiment)
    expected = run(experiment, undisturbed, chosen, mixed=mixed)

    def stop_in_epoch_two(epoch, trainer):
        trainer.save(tmp_path / "checkpoint")
        raise StopTraining

    with pytest.raises(StopTraining):
        run(experiment, prepared(experiment), chosen, on_epoch=stop_in_epoch_two, mixed=mixed)
    state = load_training_state(tmp_path / "checkpoint")
    fresh = prepared(experiment)
    assert run(experiment, fresh, chosen, start=state, mixed=mixed) == expected[3:]
    found, wanted = weights(fresh), weights(undisturbed)
    assert [n for n in wanted if not torch.equal(found[n], wanted[n])] == []


def test_evaluation_between_epochs_is_the_saved_models_own(tmp_path):
    experiment = tiny_experiment(build_gemma3(tmp_path))
    loaded, ids, seen = prepared(experiment), torch.arange(8)[None], []

    def ask(epoch, trainer):
        trainer.save(tmp_path / "c")
        with torch.inference_mode():
            again = load_checkpoint(experiment, tmp_path / "c").model
            seen.append(torch.equal(loaded.model(ids).logits, again(ids).logits))

    ids[0, 3] = loaded.key_token_ids["[X]"]
    run(experiment, loaded, settings(embeddings="key tokens"), on_epoch=ask)
    assert seen == [True] * 3


def test_adapters_leave_the_embeddings_alone_anyway(tmp_path, monkeypatch):
    experiment = tiny_experiment(build_qwen2(tmp_path), tuning={"method": "lora", "rank": 4})
    plain, loaded = prepared(experiment), prepared(experiment)
    expected = run(experiment, plain, settings())
    large_from_now_on(monkeypatch)
    assert run(experiment, loaded, settings(embeddings="key tokens")) == pytest.approx(expected, rel=1e-4)
    before = weights(prepared(experiment))
    assert all("lora_" in name for name, w in weights(loaded).items() if not torch.equal(w, before[name]))


@pytest.mark.parametrize("name", ["llama", "gemma3", "qwen2"])
def test_mixed_precision_follows_the_loss_curve_of_float32(tmp_path, monkeypatch, name):
    experiment = tiny_experiment(BUILDERS[name](tmp_path))
    exact, again = prepared(experiment), prepared(experiment)
    expected = run(experiment, exact, settings(epochs=10))
    losses = run(experiment, again, settings(epochs=10), mixed=True)
    assert losses != expected
    assert losses == pytest.approx(expected, rel=0.05)
    assert expected[-1] < 0.8 * expected[0]
    assert {p.dtype for p in again.model.parameters()} == {torch.float32}
    large_from_now_on(monkeypatch)
    apart = prepared(experiment)
    by_rows = run(experiment, apart, settings(epochs=10, embeddings="key tokens"), mixed=True)
    exactly = run(experiment, prepared(experiment), settings(epochs=10, embeddings="key tokens"))
    assert by_rows == pytest.approx(exactly, rel=0.05)


def test_auto_takes_mixed_only_where_it_pays(monkeypatch):
    from engine.execution.environment import UNDECIDED, kept_training
    from engine.models import device

    cpu = torch.device("cpu")
    assert device.choose_training("auto", cpu, 1_000_000) == "float32"
    for gain, chosen in ((1.2, "float32"), (3.0, "mixed")):
        monkeypatch.setattr(device, "bfloat16_gain", lambda gain=gain: gain)
        assert device.choose_training("auto", cpu, 100_000_000) == chosen
        assert device.choose_training("float32", cpu, 100_000_000) == "float32"
    assert device.choose_training("mixed", cpu, 1000) == "mixed"
    assert device.choose_dtype("mixed", cpu) is torch.float32
    # Later attempts keep what the first one chose; runs of before computed in the format of their weights.
    assert kept_training({}) == UNDECIDED == kept_training({"training_in": UNDECIDED})
    assert kept_training({"training_in": "mixed"}) == "mixed"
    assert kept_training({"python": "3.11"}) not in ("mixed", UNDECIDED)


def test_a_measurement_of_this_processor_is_short():
    began = time.perf_counter()
    assert bfloat16_gain() >= 0
    assert time.perf_counter() - began < 20
    if not torch.ops.mkldnn._is_mkldnn_bf16_supported():
        assert bfloat16_gain() == 0


def test_what_is_kept_holds_no_large_optimizer_state(tmp_path, monkeypatch):
    monkeypatch.setattr("engine.training.loop.LARGE_STATE", 1000)
    experiment = tiny_experiment(build_qwen2(tmp_path))

    def save(epoch, trainer):
        assert not trainer.save(tmp_path / f"kept{epoch}", kept=True)
        assert trainer.save(tmp_path / f"rolling{epoch}")

    run(experiment, prepared(experiment), settings(), on_epoch=save)
    assert not load_training_state(tmp_path / "kept1").resumable
    assert load_training_state(tmp_path / "rolling1").resumable
    assert folder_size(tmp_path / "kept1") < 0.6 * folder_size(tmp_path / "rolling1")
    assert is_complete(tmp_path / "kept1") and is_complete(tmp_path / "rolling1")
    monkeypatch.setattr("engine.training.loop.LARGE_STATE", 1e9)
    run(experiment, prepared(experiment), settings(), on_epoch=lambda _, t: t.save(tmp_path / "small", kept=True))
    assert load_training_state(tmp_path / "small").resumable


def folder_size(folder):
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
