"""Replay: texts that the base wrote, and batches in which they go beside the facts."""

import json
from itertools import pairwise
from typing import Any

import pytest
import torch

from engine.corpus.beginnings import Beginnings, replayed_beginnings
from engine.evaluation.base_text import measure_base_text, summarise_base_text, write_on
from engine.evaluation.intervals import wilson
from engine.execution.base_texts import base_texts
from engine.execution.failures import PlainError
from engine.experiment import Experiment
from engine.models.loading import load_base, load_checkpoint, prepare_for_training
from engine.settings import Optimisation, Replay
from engine.training.batches import epoch_batches, epoch_order, make_batch
from engine.training.checkpoint import load_training_state
from engine.training.loop import StepReport, StopTraining, train
from engine.training.loss import labelled_logits
from engine.training.replay import Replayed, replayed
from engine.training.sequences import IGNORED, TrainingSequence, stage1_sequences
from tests.unit.tiny_models import build_llama, build_phi3, build_qwen2, tiny_experiment

CPU = torch.device("cpu")
REPLAY = {"texts": 24, "tokens": 5, "languages": ["en"]}


def beginnings_of(experiment: Experiment) -> Beginnings:
    found = replayed_beginnings(experiment, "stage1")
    assert found is not None
    return found


def prepared(experiment):
    return prepare_for_training(load_base(experiment), experiment)


def tiny(folder, **changes):
    return tiny_experiment(
        folder, stage1={"epochs": 4, "batch_size": 3, "learning_rate": 0.01, "replay": REPLAY}, **changes
    )


def test_the_loss_is_on_what_the_base_wrote_alone(tmp_path):
    experiment = tiny(build_llama(tmp_path))
    loaded = load_base(experiment)
    beginnings = beginnings_of(experiment)
    texts = write_on(loaded, beginnings)
    causal: Any = loaded.causal
    assert texts and {(t.language, t.beginning) for t in texts} <= set(beginnings.texts)
    for text, sequence in zip(texts, replayed(texts, Replay()).sequences, strict=True):
        prompt = loaded.tokenizer(text.beginning).input_ids
        greedy = causal.generate(torch.tensor([prompt]), max_new_tokens=5, do_sample=False)[0].tolist()
        assert list(text.ids) == greedy and text.start == len(prompt)
        assert loaded.tokenizer.decode(greedy[text.start :]) == text.continuation
        assert sequence.input_ids == greedy
        assert sequence.labels == [IGNORED] * text.start + greedy[text.start :]


def some(count, first, length=4):
    return [TrainingSequence([n] * length, [IGNORED, IGNORED, n, n]) for n in range(first, first + count)]


def test_which_texts_go_beside_which_facts_is_decided_by_seed_stage_epoch_and_step():
    facts, texts = some(10, 10), Replayed(some(7, 50), 0.5)

    def ids(**changes):
        given = {"seed": 0, "stage": "stage1", "epoch": 1, **changes}
        return [b.input_ids[:, 0].tolist() for (b,) in epoch_batches(facts, 4, device=CPU, replay=texts, **given)]

    assert ids() == ids()
    assert [len(batch) for batch in ids()] == [8, 8, 4]
    order = [10 + place for place in epoch_order(10, 0, "stage1", 1)]
    assert [x for batch in ids() for x in batch if x < 50] == order  # the facts' order is that without replay
    replays = [[x for x in batch if x >= 50] for batch in ids()]
    assert all(len(set(batch)) == len(batch) for batch in replays)
    assert all(a != b for a, b in pairwise(replays))
    for other in ({"seed": 1}, {"stage": "stage2@3"}, {"epoch": 2}):
        assert [[x for x in batch if x >= 50] for batch in ids(**other)] != replays


@pytest.mark.parametrize(("share", "beside"), [(0.5, 8), (0.2, 2), (0.75, 24), (0.01, 1), (0.9, 72)])
def test_the_share_is_of_the_whole_batch(share, beside):
    texts = Replayed(some(5, 50), share)
    assert texts.beside(8) == beside == len(texts.pick(8, "any"))
    assert texts.tokens_beside(16, 8) == 2 * beside * 4


def test_the_loss_is_the_mean_over_both_and_is_told_apart(tmp_path):
    experiment = tiny(build_qwen2(tmp_path))
    loaded = prepared(experiment)
    facts = stage1_sequences(experiment, loaded)[:3]
    texts = replayed(write_on(loaded, beginnings_of(experiment)), Replay())
    batch = make_batch(facts, CPU, texts.pick(3, "1/stage1/1/0"))
    each = torch.nn.functional.cross_entropy(labelled_logits(loaded.causal, batch), batch.targets, reduction="none")
    assert batch.learnt == sum(label != IGNORED for s in facts for label in s.labels[1:])
    reports: list[StepReport] = []
    chosen = Optimisation(epochs=1, learning_rate=1e-3, batch_size=3, loss="object")
    train(loaded, facts, chosen, seed=1, stage="stage1", replay=texts, on_step=reports.append, on_epoch=lambda *_: None)
    assert reports[0].tokens == batch.tokens
    assert reports[0].loss == pytest.approx(each[: batch.learnt].mean().item(), rel=1e-5)
    assert reports[0].replay_loss == pytest.approx(each[batch.learnt :].mean().item(), rel=1e-5)


LORA = {"method": "lora", "rank": 4, "dropout": 0.3}
CASES = [({}, {}), ({}, {"trained_layers": 1}), (LORA, {}), (LORA, {"trained_weights": "mlp"})]


@pytest.mark.parametrize(("tuning", "chosen"), CASES, ids=["full", "full layer", "lora", "lora mlp"])
def test_a_stage_killed_in_its_middle_ends_with_the_same_bits(tmp_path, tuning, chosen):
    experiment = tiny(build_qwen2(tmp_path), tuning=tuning)
    undisturbed = prepared(experiment)
    texts = replayed(write_on(load_base(experiment), beginnings_of(experiment)), Replay(share=0.4))
    sequences = stage1_sequences(experiment, undisturbed)
    settings = Optimisation(epochs=4, learning_rate=0.01, batch_size=3, loss="full", **chosen)

    def run(loaded, **options):
        reports: list[StepReport] = []
        given: dict[str, Any] = {
            "seed": 1,
            "stage": "stage1",
            "on_step": reports.append,
            "on_epoch": lambda *_: None,
            "replay": texts,
        }
        train(loaded, sequences, settings, **(given | options))
        return reports

    def stop(report):
        if report.epoch > 2.5:
            raise StopTraining

    expected = run(undisturbed)
    with pytest.raises(StopTraining):
        run(prepared(experiment), on_step=stop, on_epoch=lambda epoch, trainer: trainer.save(tmp_path / "checkpoint"))
    resumed = load_checkpoint(experiment, tmp_path / "checkpoint")
    assert run(resumed, start=load_training_state(tmp_path / "checkpoint")) == expected[6:]
    same = zip(undisturbed.model.parameters(), resumed.model.parameters(), strict=True)
    assert all(torch.equal(a, b) for a, b in same)
    assert all(report.replay_loss is not None for report in expected)
    without = prepared(experiment)
    run(without, replay=None)
    assert not all(
        torch.equal(a, b) for a, b in zip(undisturbed.model.parameters(), without.model.parameters(), strict=True)
    )


def test_the_base_says_all_of_its_own_text_and_a_spoilt_one_less(tmp_path):
    experiment = tiny(build_qwen2(tmp_path))
    loaded = load_base(experiment)
    texts = write_on(loaded, beginnings_of(experiment))
    measured = measure_base_text(loaded, texts)
    for text, (loss, said, count) in zip(texts, measured, strict=True):
        logits = loaded.causal(torch.tensor([text.ids])).logits[0].log_softmax(-1)
        one_by_one = [-logits[place - 1, text.ids[place]].item() for place in range(text.start, len(text.ids))]
        assert loss == pytest.approx(sum(one_by_one), rel=1e-4)
        assert said == count == len(one_by_one)
    rows = list(summarise_base_text(measured, texts, "base", seed=0))
    assert [(r["metric"], r["language"], r["n_facts"]) for r in rows] == [
        ("base_text_loss", "en", len(texts)), ("base_text_agreement", "en", len(texts))
    ]  # fmt: skip
    assert rows[0]["low"] <= rows[0]["value"] <= rows[0]["high"] and rows[1]["value"] == 1
    assert (rows[1]["low"], rows[1]["high"]) == pytest.approx(wilson(1.0, len(texts))), "alike is not certain"
    with torch.no_grad():
        for weights in loaded.model.parameters():
            weights.add_(0.3 * torch.randn_like(weights))
    spoilt = list(summarise_base_text(measure_base_text(loaded, texts), texts, "base", seed=0))
    assert spoilt[0]["value"] > rows[0]["value"] and spoilt[1]["value"] < 0.9


def test_texts_are_shared_by_runs_that_are_alike_and_by_no_others(tmp_path, monkeypatch):
    written = []

    def counted(loaded, beginnings, **options):
        written.append(beginnings)
        return write_on(loaded, beginnings, **options)

    monkeypatch.setattr("engine.execution.base_texts.write_on", counted)
    folder, other = build_qwen2(tmp_path / "one"), build_phi3(tmp_path / "other")

    def texts(run, model=folder, **changes):
        experiment = tiny(model, **changes)
        place = tmp_path / "home" / "runs" / run
        place.mkdir(parents=True, exist_ok=True)
        return base_texts(place, experiment, load_base(experiment), lambda done, total: None), place

    first, place = texts("a")
    assert len(written) == 1 and set(first.stages) == {"stage1"} and not first.held_out
    assert texts("b", name="renamed", stage2={"facts": 3})[0] == first and len(written) == 1
    # Another seed, base, length, or way in which the tokenizer gives the model a text.
    assert texts("c", seed=1)[0] != first and len(written) == 2
    assert texts("d", other)[0] != first and len(written) == 3
    texts("e", evaluation={"base_text": 4, "options": 8, "max_new_tokens": 6})
    assert len(written) == 4
    monkeypatch.setattr("engine.execution.base_texts.beginning_ids", lambda *_: [[1]])
    texts("f")
    assert len(written) == 5
    monkeypatch.undo()
    # What the run keeps is enough; a shared file or a record that is no more is made again the same.
    record = place / "base_text.json"
    kept = record.read_text()
    for shared in (tmp_path / "home" / "base_text").iterdir():
        shared.write_text("{")
    assert texts("a")[0] == first
    record.write_text(kept[:100])
    assert texts("a")[0] == first and record.read_text() == kept
    uses = json.loads(kept)["uses"]
    count = len(first.stages["stage1"].sequences)
    assert uses["stage1"] | {"set": ""} == {"set": "", "asked": 24, "used": count, "beginnings_left_out": 1}


def test_writing_can_be_stopped_and_leaves_nothing_half_done(tmp_path):
    experiment, place = tiny(build_llama(tmp_path)), tmp_path / "home" / "runs" / "a"

    def stop(done, total):
        assert total == 24
        raise StopTraining

    with pytest.raises(StopTraining):
        base_texts(place, experiment, load_base(experiment), stop)
    assert not place.exists() and not (tmp_path / "home").exists()


def test_a_base_with_nothing_to_say_is_told_in_a_sentence(tmp_path, monkeypatch):
    monkeypatch.setattr("engine.execution.base_texts.write_on", lambda *_, **__: [])
    experiment = tiny(build_llama(tmp_path))
    with pytest.raises(PlainError, match="leave out the replay"):
        base_texts(tmp_path / "home" / "runs" / "a", experiment, load_base(experiment), lambda done, total: None)


def test_a_text_with_a_key_token_or_a_spare_row_in_it_is_left_out(tmp_path):
    experiment = tiny(build_qwen2(tmp_path))
    loaded = load_base(experiment)
    beginnings = beginnings_of(experiment)
    causal: Any = loaded.causal
    matrix = causal.get_input_embeddings().weight
    (key,) = loaded.key_token_ids.values()
    spare = matrix.shape[0] - 1
    plainly = len(write_on(loaded, beginnings))
    assert spare not in loaded.tokenizer.get_vocab().values()
    for row in (key, spare):
        with torch.no_grad():
            kept = matrix[row].clone()
            matrix[row] = 50 * matrix[7]
        said = write_on(loaded, beginnings)
        assert len(said) < plainly and not any(row in text.ids for text in said)
        with torch.no_grad():
            matrix[row] = kept
