"""A leash to the base: the loss of what is replayed is how far the model has moved from the base there."""

from dataclasses import replace

import pytest
import torch

from engine.corpus.beginnings import replayed_beginnings
from engine.evaluation.base_text import write_on
from engine.models.loading import load_base
from engine.settings import Replay
from engine.training.batches import make_batch
from engine.training.checkpoint import load_training_state
from engine.training.leash import AT_ONCE, with_leash
from engine.training.loop import StepReport, StopTraining, TrainingError, train
from engine.training.loss import labelled_logits
from engine.training.replay import LeashedText, replayed
from engine.training.sequences import stage1_sequences
from tests.unit.test_training_key_rows import BUILDERS, large_from_now_on, prepared, settings, weights
from tests.unit.tiny_models import build_llama, tiny_experiment

REPLAY = Replay(texts=AT_ONCE + 4, tokens=5, languages=("en",), leash=True)


def leashed(experiment):
    base = load_base(experiment)
    return with_leash(base, replayed(write_on(base, beginnings(experiment)), REPLAY))


def beginnings(experiment):
    stage = experiment.stage1.model_copy(update={"replay": REPLAY})
    found = replayed_beginnings(experiment.model_copy(update={"stage1": stage}), "stage1")
    assert found is not None
    return found


def run(experiment, loaded, chosen, texts, **options):
    reports: list[StepReport] = []
    given = {"on_step": reports.append, "on_epoch": lambda *_: None, "replay": texts, **options}
    train(loaded, stage1_sequences(experiment, loaded), chosen, seed=0, stage="stage1", **given)
    return [x for report in reports for x in (report.loss, report.replay_loss)]


@pytest.mark.parametrize("name", BUILDERS)
def test_of_a_large_matrix_it_is_the_same_part_by_part(tmp_path, monkeypatch, name):
    experiment, chosen = tiny_experiment(BUILDERS[name](tmp_path)), settings(embeddings="key tokens")
    plain = prepared(experiment)
    expected = run(experiment, plain, chosen, leashed(experiment))
    vocabulary = len(plain.causal.get_output_embeddings().weight)
    large_from_now_on(monkeypatch)
    texts, loaded = leashed(experiment), prepared(experiment)
    assert all(isinstance(t, LeashedText) and t.of_base.shape[1] < vocabulary for t in texts.sequences)
    assert run(experiment, loaded, chosen, texts) == pytest.approx(expected, rel=1e-3, abs=1e-5)
    found, wanted = weights(loaded), weights(plain)
    assert [n for n in found if not torch.allclose(found[n], wanted[n], atol=5e-4)] == []


@pytest.mark.parametrize("name", BUILDERS)
def test_the_base_never_says_a_key_token_where_its_row_is_frozen_either(tmp_path, monkeypatch, name):
    lora = tiny_experiment(BUILDERS[name](tmp_path), tuning={"method": "lora", "rank": 4})
    expected = run(lora, prepared(lora), settings(), leashed(lora))
    large_from_now_on(monkeypatch)
    assert run(lora, prepared(lora), settings(), leashed(lora)) == pytest.approx(expected, rel=1e-3, abs=1e-5)


def test_it_begins_at_nothing_and_holds_more_than_words_do():
    experiment, chosen = tiny_experiment("embedded"), settings(epochs=10, embeddings="key tokens", learning_rate=2e-3)
    base, texts = load_base(experiment), leashed(experiment)
    words = replace(texts, sequences=replayed(write_on(base, beginnings(experiment)), REPLAY).sequences)
    batch = make_batch(texts.sequences, base.device)
    moved = {}
    for name, beside in {"leash": texts, "words": words}.items():
        loaded = prepared(experiment)
        losses = run(experiment, loaded, chosen, beside)
        if name == "leash":
            assert losses[1] == pytest.approx(0, abs=1e-4) and max(losses[3::2]) > 1e-3
        with torch.no_grad():
            now, before = (labelled_logits(m.causal, batch).log_softmax(-1) for m in (loaded, base))
        moved[name] = float((before.exp() * (before - now)).sum(-1).mean())
    assert moved["leash"] < 0.5 * moved["words"], moved


@pytest.mark.parametrize("mixed", [False, True], ids=["float32", "mixed"])
def test_resumed_equals_undisturbed_bit_for_bit(tmp_path, monkeypatch, mixed):
    large_from_now_on(monkeypatch)
    experiment, chosen = tiny_experiment(build_llama(tmp_path)), settings(embeddings="key tokens")
    texts = leashed(experiment)
    expected = run(experiment, prepared(experiment), chosen, texts, mixed=mixed)

    def stop(epoch, trainer):
        trainer.save(tmp_path / "checkpoint")
        raise StopTraining

    with pytest.raises(StopTraining):
        run(experiment, prepared(experiment), chosen, texts, on_epoch=stop, mixed=mixed)
    state = load_training_state(tmp_path / "checkpoint")
    again = run(experiment, prepared(experiment), chosen, leashed(experiment), start=state, mixed=mixed)
    assert again == expected[-len(again) :]


def test_what_would_fill_the_memory_is_refused_in_a_sentence(tmp_path, monkeypatch):
    monkeypatch.setattr("engine.training.leash.MOST_BYTES", 1000)
    with pytest.raises(ValueError, match="replay fewer or shorter texts"):
        leashed(tiny_experiment(build_llama(tmp_path)))


def test_a_large_matrix_that_is_trained_is_refused_in_a_sentence(tmp_path, monkeypatch):
    large_from_now_on(monkeypatch)
    model = build_llama(tmp_path)
    lora = tiny_experiment(model, tuning={"method": "lora", "rank": 4})
    assert all(value < 100 for value in run(lora, prepared(lora), settings(), leashed(lora)))
    head = {"method": "lora", "rank": 4, "target_modules": ["lm_head"]}
    for experiment in (tiny_experiment(model), tiny_experiment(model, tuning=head)):
        with pytest.raises(TrainingError, match="set embeddings to ‘key tokens’"):
            run(experiment, prepared(experiment), settings(), leashed(experiment))
