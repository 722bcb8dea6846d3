"""The loop: its loss is transformers' own, and a resumed run ends with the bits of an undisturbed one."""

import math
import random

import pytest
import torch
from transformers import CohereConfig, CohereForCausalLM

from engine.models.loading import LoadedModel, load_base, load_checkpoint, prepare_for_training
from engine.settings import Optimisation
from engine.training.batches import epoch_batches, epoch_order, make_batch
from engine.training.checkpoint import load_training_state
from engine.training.loop import (
    StepReport,
    StopTraining,
    Trainer,
    TrainingError,
    learning_rate_at,
    train,
)
from engine.training.loss import labelled_logits
from engine.training.sequences import TrainingSequence, stage1_sequences, stage2_sequences
from tests.unit.tiny_models import (
    BUILDERS,
    SHAPE,
    build_llama,
    build_mixtral,
    build_neox,
    build_qwen2,
    tiny_experiment,
)

LORA = {"method": "lora", "rank": 4, "dropout": 0.3}
CPU = torch.device("cpu")


def settings(**changes):
    return Optimisation(**{"epochs": 4, "learning_rate": 0.01, "batch_size": 3, "loss": "full", **changes})


def prepared(experiment):
    return prepare_for_training(load_base(experiment), experiment)


def run(loaded, sequences, chosen, **options):
    reports: list[StepReport] = []
    options = {"seed": 1, "stage": "stage1", "on_step": reports.append, "on_epoch": lambda *_: None, **options}
    train(loaded, sequences, chosen, **options)
    return reports


def weights(loaded):
    return {name: p.detach().clone() for name, p in loaded.model.named_parameters()}


def assert_same_bits(a, b):
    assert a.keys() == b.keys()
    assert [name for name in a if not torch.equal(a[name], b[name])] == []


@pytest.mark.parametrize("name", BUILDERS)
@pytest.mark.parametrize("mask", ["full", "subject_and_object", "object"])
def test_the_loss_is_transformers_own(tmp_path, name, mask):
    experiment = tiny_experiment(BUILDERS[name](tmp_path), stage1={"loss": mask})
    loaded = load_base(experiment)
    sequences = stage1_sequences(experiment, loaded)
    longest = max(len(s.input_ids) for s in sequences)
    assert len({len(s.input_ids) for s in sequences}) > 1  # so that padding is tested too

    def padded(rows, value):
        return torch.tensor([row + [value] * (longest - len(row)) for row in rows])

    ids = padded([s.input_ids for s in sequences], 0)
    labels = padded([s.input_ids if mask == "full" else s.labels for s in sequences], -100)
    if mask == "full":
        assert all(s.labels[1:] == s.input_ids[1:] for s in sequences)
    seen = padded([[1] * len(s.input_ids) for s in sequences], 0)
    expected = loaded.model(input_ids=ids, attention_mask=seen, labels=labels).loss
    batch = make_batch(sequences, CPU)
    ours = torch.nn.functional.cross_entropy(labelled_logits(loaded.causal, batch), batch.targets)
    assert torch.allclose(ours, expected, atol=1e-6)


def test_heads_that_scale_their_logits():
    torch.manual_seed(0)
    shape = {k: v for k, v in SHAPE.items() if k != "max_position_embeddings"}
    model = CohereForCausalLM(CohereConfig(vocab_size=50, logit_scale=0.25, pad_token_id=0, **shape)).eval()
    batch = make_batch([TrainingSequence([5, 6, 7, 8], [-100, 6, 7, 8])], CPU)
    expected = model(input_ids=torch.tensor([[5, 6, 7, 8]])).logits[0, :3]
    assert torch.allclose(labelled_logits(model, batch), expected, atol=1e-6)


def test_training_memorises(tmp_path):
    experiment = tiny_experiment(build_qwen2(tmp_path, hidden_size=32))
    loaded = prepared(experiment)
    chosen = settings(epochs=40, loss="object", schedule="constant")
    reports = run(loaded, stage1_sequences(experiment, loaded), chosen)
    assert reports[0].loss > 4
    assert reports[-1].loss < 1
    assert [r.step for r in reports] == list(range(1, 121))
    assert {r.steps for r in reports} == {120}
    assert reports[2].epoch == 1.0
    assert sum(r.tokens for r in reports[:3]) == sum(len(s.input_ids) for s in stage1_sequences(experiment, loaded))
    assert not loaded.model.training
    assert all(p.grad is None for p in loaded.model.parameters())


def test_lora_leaves_the_base_and_the_key_rows_alone(tmp_path):
    experiment = tiny_experiment(build_llama(tmp_path), tuning=LORA)
    loaded = prepared(experiment)
    before = weights(loaded)
    run(loaded, stage1_sequences(experiment, loaded), settings())
    changed = {name for name, w in weights(loaded).items() if not torch.equal(w, before[name])}
    assert changed
    assert all("lora_" in name for name in changed)


@pytest.mark.parametrize("build", [build_qwen2, build_llama], ids=["tied", "untied"])
@pytest.mark.parametrize("tuning", [{"method": "full"}, LORA], ids=["full", "lora"])
@pytest.mark.parametrize("start_from", ["base", "checkpoint"])
@pytest.mark.parametrize("chosen", [{}, {"trained_layers": 1}, {"trained_weights": "mlp"}], ids=["all", "layer", "mlp"])
def test_resumed_equals_undisturbed_bit_for_bit(tmp_path, build, tuning, start_from, chosen):
    experiment = tiny_experiment(build(tmp_path), tuning=tuning)
    undisturbed = prepared(experiment)
    sequences = stage1_sequences(experiment, undisturbed)
    chosen = settings(**chosen)
    expected = run(undisturbed, sequences, chosen)

    def stop_in_epoch_three(report):
        if report.epoch > 2.5:
            raise StopTraining

    def save_and_disturb(epoch, trainer):
        trainer.save(tmp_path / "checkpoint")
        torch.rand(epoch)  # an evaluation that samples
        random.random()

    with pytest.raises(StopTraining):
        run(prepared(experiment), sequences, chosen, on_step=stop_in_epoch_three, on_epoch=save_and_disturb)
    state = load_training_state(tmp_path / "checkpoint")
    assert (state.epoch, state.step, state.stage) == (2, 6, "stage1")
    fresh = prepared(experiment) if start_from == "base" else load_checkpoint(experiment, tmp_path / "checkpoint")
    torch.rand(5)
    resumed = run(fresh, sequences, chosen, start=state)
    assert_same_bits(weights(undisturbed), weights(fresh))
    assert resumed == expected[6:]


@pytest.mark.parametrize("build", [build_neox, build_mixtral], ids=["renamed", "in pieces"])
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_kinds_that_are_stored_otherwise_than_in_memory_resume_too(tmp_path, build, precision):
    experiment = tiny_experiment(build(tmp_path), precision=precision)
    undisturbed = prepared(experiment)
    sequences = stage1_sequences(experiment, undisturbed)
    expected = run(undisturbed, sequences, settings(), mixed=precision == "bfloat16")

    def save(epoch, trainer):
        trainer.save(tmp_path / "checkpoint")
        if epoch == 2:
            raise StopTraining

    with pytest.raises(StopTraining):
        run(prepared(experiment), sequences, settings(), mixed=precision == "bfloat16", on_epoch=save)
    fresh, start = prepared(experiment), load_training_state(tmp_path / "checkpoint")
    assert run(fresh, sequences, settings(), mixed=precision == "bfloat16", start=start) == expected[6:]
    assert_same_bits(weights(undisturbed), weights(fresh))


def test_bfloat16_trains_and_resumes_in_bfloat16(tmp_path):
    experiment = tiny_experiment(build_qwen2(tmp_path), precision="bfloat16")
    undisturbed = prepared(experiment)
    sequences = stage1_sequences(experiment, undisturbed)

    def keep_the_second(epoch, trainer):
        if epoch == 2:
            trainer.save(tmp_path / "c")

    expected = run(undisturbed, sequences, settings(), on_epoch=keep_the_second)
    assert expected[-1].loss < expected[0].loss
    assert {p.dtype for p in undisturbed.model.parameters()} == {torch.bfloat16}
    fresh = prepared(experiment)
    run(fresh, sequences, settings(), start=load_training_state(tmp_path / "c"))
    assert_same_bits(weights(undisturbed), weights(fresh))


def test_two_runs_give_the_same_bits_and_another_seed_does_not(tmp_path):
    experiment = tiny_experiment(build_qwen2(tmp_path))
    outcomes = []
    for seed in (1, 1, 2):
        loaded = prepared(experiment)
        run(loaded, stage2_sequences(experiment, loaded), settings(), seed=seed)
        outcomes.append(weights(loaded))
    assert_same_bits(outcomes[0], outcomes[1])
    name = next(iter(outcomes[0]))
    assert not torch.equal(outcomes[0][name], outcomes[2][name])


def test_a_finished_stage_has_nothing_left(tmp_path):
    experiment = tiny_experiment(build_qwen2(tmp_path))
    loaded = prepared(experiment)
    sequences = stage1_sequences(experiment, loaded)
    run(loaded, sequences, settings(), on_epoch=lambda _, trainer: trainer.save(tmp_path / "c"))
    fresh = prepared(experiment)
    assert run(fresh, sequences, settings(), start=load_training_state(tmp_path / "c")) == []
    assert_same_bits(weights(fresh), weights(loaded))


def test_a_checkpoint_of_another_training_is_refused(tmp_path):
    experiment = tiny_experiment(build_qwen2(tmp_path))
    loaded = prepared(experiment)
    sequences = stage1_sequences(experiment, loaded)
    run(loaded, sequences, settings(), on_epoch=lambda _, trainer: trainer.save(tmp_path / "c"))
    state = load_training_state(tmp_path / "c")
    for options in ({"stage": "stage2"}, {"chosen": settings(batch_size=2)}):
        chosen = options.pop("chosen", settings())
        with pytest.raises(TrainingError, match="belongs to another training"):
            run(loaded, sequences, chosen, start=state, **options)


def test_a_loss_that_is_no_number_ends_the_training(tmp_path):
    experiment = tiny_experiment(build_qwen2(tmp_path))
    loaded = prepared(experiment)
    with torch.no_grad():
        next(loaded.model.parameters()).fill_(math.inf)
    with pytest.raises(TrainingError, match=r"no longer a number \(step 1 of 12\): lower the learning rate of 0.01"):
        run(loaded, stage1_sequences(experiment, loaded), settings())
    with pytest.raises(TrainingError, match="nothing to train"):
        run(loaded, [], settings())


def test_learning_rates():
    chosen = settings(learning_rate=1.0, warmup_steps=4)
    rates = [learning_rate_at(step, 12, chosen) for step in range(12)]
    assert rates[:5] == [0.25, 0.5, 0.75, 1.0, 1.0]
    assert rates[8] == pytest.approx(0.5)
    assert rates[4:] == sorted(rates[4:], reverse=True)
    assert 0 < rates[-1] < 0.05
    constant = settings(learning_rate=1.0, warmup_steps=0, schedule="constant")
    assert {learning_rate_at(step, 12, constant) for step in range(12)} == {1.0}
    assert [learning_rate_at(step, 2, chosen) for step in range(2)] == [0.25, 0.5]


def test_the_order_of_an_epoch():
    assert epoch_order(20, 1, "stage1", 1) == epoch_order(20, 1, "stage1", 1)
    orders = {
        tuple(epoch_order(20, *key)) for key in ((1, "stage1", 1), (1, "stage1", 2), (1, "stage2", 1), (2, "stage1", 1))
    }
    assert len(orders) == 4
    assert all(sorted(order) == list(range(20)) for order in orders)


def test_batches_are_padded_to_their_own_longest():
    sequences = [TrainingSequence(list(range(1, n + 1)), [-100, *range(2, n + 1)]) for n in (2, 5, 3)]
    batches = [b for (b,) in epoch_batches(sequences, 2, seed=0, stage="s", epoch=1, device=CPU)]
    assert [len(b.input_ids) for b in batches] == [2, 1]
    assert sum(b.tokens for b in batches) == 10
    for batch in batches:
        assert (batch.input_ids > 0).any(0).all()
        assert batch.targets.tolist() == (batch.input_ids.flatten()[batch.positions] + 1).tolist()


def test_only_what_is_trained_has_optimizer_state(tmp_path):
    experiment = tiny_experiment(build_qwen2(tmp_path), tuning=LORA)
    loaded: LoadedModel = prepared(experiment)
    trainer = Trainer(loaded, stage1_sequences(experiment, loaded), settings(), seed=0, stage="stage1")
    assert len(trainer.parameters) < len(list(loaded.model.parameters()))
    assert all(p.requires_grad for p in trainer.parameters)
