"""Evaluation against the plain way of doing the same, on random models of several architectures."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from transformers import DynamicCache

from engine.evaluation import batches, captured, choice, evaluate, generation
from engine.evaluation.batches import EvaluationError, in_halves, log_probability_of
from engine.evaluation.choice import answer_choices, encode_options
from engine.evaluation.evaluate import evaluate_checkpoint, probe_key_tokens
from engine.evaluation.generation import end_tokens, reply_to
from engine.evaluation.plain import log_probabilities
from engine.evaluation.questions import questions_for
from engine.evaluation.tree import build_tree, honours_masks, score_tree
from engine.experiment import Experiment
from engine.models.limits import ENDLESS
from engine.models.loading import LoadedModel, load_base, prepare_for_training
from engine.models.tokenise import tokenise_questions
from engine.settings import Tuning
from tests.unit.tiny_models import BUILDERS, tiny_experiment


@pytest.fixture(scope="module", params=sorted(BUILDERS))
def lab(request, tmp_path_factory) -> tuple[LoadedModel, Experiment]:
    experiment = tiny_experiment(BUILDERS[request.param](tmp_path_factory.mktemp("models")))
    loaded = load_base(experiment)
    # Random models of this size are nearly uniform; sharper ones tell right from wrong.
    with torch.no_grad():
        for parameter in loaded.causal.parameters():
            parameter.mul_(6.0) if parameter.ndim > 1 else parameter
    return loaded, experiment


def encoded(lab, checkpoint="base"):
    loaded, experiment = lab
    questions = questions_for(experiment, checkpoint)
    return questions, tokenise_questions(loaded.tokenizer, [(q.text, q.object) for q in questions])


def naive_log_probability(model, prompt, answer) -> float:
    with torch.inference_mode():
        logits = model(torch.tensor([[*prompt, *answer]])).logits[0].double().log_softmax(-1)
    return float(sum(logits[len(prompt) - 1 + i, token] for i, token in enumerate(answer)))


@pytest.fixture(scope="module")
def greedy(lab) -> list[tuple[int, ...]]:
    """What `generate` answers to each question, 9 tokens without an end; the first tokens are the shorter answers."""
    model = lab[0].causal
    answers = []
    for prompt, _ in encoded(lab)[1]:
        ids = torch.tensor([prompt])
        whole = model.generate(
            ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=9,
            eos_token_id=[10**6], pad_token_id=0,
        )  # fmt: skip
        answers.append(tuple(whole[0, len(prompt) :].tolist()))
    return answers


@pytest.mark.parametrize("limit", [ENDLESS, 0])
def test_replies_are_those_of_generate(lab, greedy, limit):
    model = lab[0].causal
    questions, pairs = encoded(lab)
    groups = [q.prompt for q in questions]
    # Tokens that stand at different places of different answers end them at different steps.
    ends = {greedy[0][0], greedy[7][5], greedy[12][7]}
    free = reply_to(model, pairs, groups, max_new_tokens=9, ends=(), limit=limit)
    stopped = reply_to(model, pairs, groups, max_new_tokens=9, ends=ends, limit=limit)
    for (prompt, object_ids), expected, whole, cut in zip(pairs, greedy, free, stopped, strict=True):
        assert whole.tokens == expected
        assert cut.tokens == expected[: next((i for i, token in enumerate(expected) if token in ends), 9)]
        assert cut.log_probability == pytest.approx(naive_log_probability(model, prompt, object_ids), abs=1e-4)
    assert len({len(r.tokens) for r in stopped}) > 1


@pytest.mark.parametrize("known", [0, 1, 3])
@pytest.mark.parametrize("limit", [1, 2, 9])
def test_an_object_that_is_answered_in_part_changes_nothing(lab, greedy, known, limit):
    """Drafts that agree with greedy decoding for 0, 1, 2 … tokens, side by side with ones that do not."""
    model = lab[0].causal
    pairs = [
        (prompt, [*greedy[i][: known + i % 2], *object_ids][: 1 + i % 4])
        for i, (prompt, object_ids) in enumerate(encoded(lab)[1])
    ]
    replies = reply_to(model, pairs, [0] * len(pairs), max_new_tokens=limit, ends=())
    for (prompt, answer), expected, reply in zip(pairs, greedy, replies, strict=True):
        assert reply.tokens == expected[:limit]
        assert reply.log_probability == pytest.approx(naive_log_probability(model, prompt, answer), abs=1e-4)


@pytest.fixture
def as_on_a_gpu(monkeypatch):
    """Steps of one shape as a GPU takes them; a processor can record none, and takes each in its place."""
    taken = []

    def recorded(step):
        taken.append(step)
        return step

    monkeypatch.setattr(generation._Decoder, "_fixed", True)
    monkeypatch.setattr(captured, "recorded", recorded)
    yield taken
    assert not list(captured._not_recorded)


def test_steps_of_one_shape_answer_as_generate(lab, greedy, as_on_a_gpu):
    model = lab[0].causal
    questions, pairs = encoded(lab)
    ends = {greedy[0][0], greedy[7][5], greedy[12][7]}
    for known in (0, 2):  # what greedy decoding would have said is known at once
        pairs = [(p, [*greedy[i][: known + i % 2], *o][: 1 + i % 4]) for i, (p, o) in enumerate(pairs)]
        replies = reply_to(model, pairs, [q.prompt for q in questions], max_new_tokens=9, ends=ends)
        for expected, reply in zip(greedy, replies, strict=True):
            assert reply.tokens == expected[: next((i for i, token in enumerate(expected) if token in ends), 9)]
    assert as_on_a_gpu


@pytest.mark.parametrize("wrong", ["cannot", "differs"])
def test_what_cannot_be_recorded_is_computed_step_by_step(lab, greedy, as_on_a_gpu, monkeypatch, caplog, wrong):
    def recorded(step):
        if wrong == "cannot":
            raise RuntimeError("operation not permitted when stream is capturing")
        return lambda: step() + 1e6

    monkeypatch.setattr(captured, "recorded", recorded)
    model = lab[0].causal
    questions, pairs = encoded(lab)
    replies = reply_to(model, pairs, [q.prompt for q in questions], max_new_tokens=9, ends=())
    assert [reply.tokens for reply in replies] == greedy
    assert "they are computed one by one" in caplog.text and model in captured._not_recorded
    captured._not_recorded.clear()


def test_few_rows_at_a_time_give_the_same(lab, monkeypatch):
    model = lab[0].causal
    questions, pairs = encoded(lab)
    groups = [q.prompt for q in questions]
    expected = reply_to(model, pairs, groups, max_new_tokens=5, ends=())
    monkeypatch.setattr(batches, "CPU_ROWS", 3)
    monkeypatch.setattr(generation, "LEAST_TOGETHER", 5)
    found = reply_to(model, pairs, groups, max_new_tokens=5, ends=())
    assert [r.tokens for r in found] == [r.tokens for r in expected]
    assert [r.log_probability for r in found] == pytest.approx([r.log_probability for r in expected], abs=1e-4)


def test_tree_scores_are_those_of_single_sequences(lab):
    model, tokenizer, experiment = lab[0].causal, lab[0].tokenizer, lab[1]
    names = [*experiment.relations[0].options, "Cody", "Cody Rosso", "Ida", "東京", "a"]
    questions, pairs = encoded(lab)
    for question, (prompt, _) in list(zip(questions, pairs, strict=True))[::5]:
        options = [tuple(o) for _, o in tokenise_questions(tokenizer, [(question.text, name) for name in names])]
        scores = score_tree(model, [prompt, prompt], build_tree(options))
        expected = [naive_log_probability(model, prompt, option) for option in options]
        assert np.abs(scores - expected).max() < 1e-4
        assert np.abs(np.array(log_probabilities(model, [(prompt, o) for o in options])) - expected).max() < 1e-4
    assert honours_masks(model, prompt, options)


def test_choices_with_and_without_trees(lab):
    loaded = lab[0]
    questions, pairs = encoded(lab)
    chosen = [i for i, q in enumerate(questions) if q.options]
    asked, ids = [questions[i] for i in chosen], [pairs[i] for i in chosen]
    fast = answer_choices(loaded.causal, loaded.tokenizer, asked, ids)
    slow = answer_choices(loaded.causal, loaded.tokenizer, asked, ids, limit=0)
    for question, (prompt, _), one, other in zip(asked, ids, fast, slow, strict=True):
        options = tokenise_questions(loaded.tokenizer, [(question.text, o) for o in question.options])
        scores = [naive_log_probability(loaded.causal, prompt, o) for _, o in options]
        truth = scores[question.options.index(question.object)]
        assert (one.rank, one.options) == (other.rank, other.options) == (sum(s >= truth for s in scores), 8)
        assert one.log_probability == pytest.approx(truth - np.logaddexp.reduce(scores), abs=1e-4)


def test_a_model_that_ignores_masks_is_found_out_and_asked_plainly(lab, monkeypatch):
    loaded, experiment = lab
    model = loaded.causal
    expected = evaluate_checkpoint(loaded, experiment, "base")
    forward, refused = model.forward, []

    def forgetful(*args, **kwargs):
        refused.append(kwargs.pop("attention_mask", None))
        kwargs.pop("position_ids", None)
        return forward(*args, **kwargs)

    monkeypatch.setattr(model, "forward", forgetful)
    _, pairs = encoded(lab)
    assert not evaluate._fast_length(model, pairs, 6)
    refused.clear()
    monkeypatch.setattr(evaluate, "_fast_length", lambda *_: 0)
    rows = evaluate_checkpoint(loaded, experiment, "base")
    assert refused and all(mask is None or bool(mask.all()) for mask in refused)  # it hides nothing
    for found, wanted in zip(rows, expected, strict=True):
        assert found.log_probability == pytest.approx(wanted.log_probability, abs=1e-4)
        alike: dict[str, Any] = {"log_probability": 0.0, "log_probability_normalised": None}
        assert replace(found, **alike) == replace(wanted, **alike)


def test_rows_are_complete_and_repeat_bit_for_bit(lab, monkeypatch):
    loaded, experiment = lab
    calls: list[tuple[int, int]] = []
    rows = evaluate_checkpoint(loaded, experiment, "base", on_progress=lambda *x: calls.append(x))
    questions = questions_for(experiment, "base")
    assert [(r.prompt, r.fact) for r in rows] == [(q.prompt, q.fact) for q in questions]
    assert all(r.hit in (False, True) and r.log_probability < 0 for r in rows)
    for row, question in zip(rows, questions, strict=True):
        choice = (row.choice_rank, row.choice_options, row.log_probability_normalised)
        assert [value is None for value in choice] == [not question.options] * 3
    total = len(rows) + sum(bool(q.options) for q in questions)
    assert calls[0] == (0, total) and calls[-1] == (total, total) and calls == sorted(calls)
    before = torch.get_num_threads()
    for threads in ("1", "3"):
        monkeypatch.setenv("ROTE_LAB_THREADS", threads)
        assert evaluate_checkpoint(loaded, experiment, "base") == rows
    assert torch.get_num_threads() == before


def test_the_probe_leaves_no_trace(lab):
    loaded, experiment = lab
    loaded.model.train()
    next(loaded.model.children()).eval()
    modes = [m.training for m in loaded.model.modules()]
    state = torch.get_rng_state()
    recall = probe_key_tokens(loaded, experiment, 5)
    assert 0 <= recall <= 1 and recall * 5 == pytest.approx(round(recall * 5))
    assert torch.equal(torch.get_rng_state(), state)
    assert [m.training for m in loaded.model.modules()] == modes
    assert all(p.grad is None and not p.is_inference() for p in loaded.model.parameters())
    loaded.model.eval()


def test_on_progress_may_cancel(lab):
    loaded, experiment = lab

    class Cancelled(Exception):
        pass

    def cancel(done: int, total: int) -> None:
        if done:
            raise Cancelled

    with pytest.raises(Cancelled):
        evaluate_checkpoint(loaded, experiment, "base", on_progress=cancel)


def test_lora_is_asked_too(tmp_path):
    experiment = tiny_experiment(BUILDERS["qwen2"](tmp_path), tuning=Tuning(method="lora", rank=2))
    loaded = prepare_for_training(load_base(experiment), experiment)
    with torch.no_grad():
        for name, parameter in loaded.model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(0, 0.5)
    rows = evaluate_checkpoint(loaded, experiment, "base")
    _, pairs = encoded((loaded, experiment))
    expected = [naive_log_probability(loaded.model, p, o) for p, o in pairs]
    assert [r.log_probability for r in rows] == pytest.approx(expected, abs=1e-4)


def test_outputs_that_are_not_numbers_are_an_error_in_words(tmp_path):
    experiment = tiny_experiment(BUILDERS["llama"](tmp_path))
    loaded = load_base(experiment)
    causal: Any = loaded.causal
    with torch.no_grad():
        causal.get_input_embeddings().weight.fill_(float("nan"))
    with pytest.raises(EvaluationError, match="learning rate"):
        evaluate_checkpoint(loaded, experiment, "base")


def test_options_follow_the_end_of_the_prompt(tmp_path):
    """A tokenizer whose merges reach over the space: options must be split as in the whole text."""
    experiment = tiny_experiment(BUILDERS["llama"](tmp_path))
    loaded = load_base(experiment)
    questions = [q for q in questions_for(experiment, "base") if q.options]
    pairs = tokenise_questions(loaded.tokenizer, [(q.text, q.object) for q in questions])
    for question, found in zip(questions, encode_options(loaded.tokenizer, questions, pairs), strict=True):
        wanted = tokenise_questions(loaded.tokenizer, [(question.text, o) for o in question.options])
        assert [(list(p), list(o)) for p, o in found] == wanted


def test_a_prompt_that_depends_on_its_option_is_scored_plainly(lab, monkeypatch):
    loaded = lab[0]
    questions, pairs = encoded(lab)
    row = next(i for i, q in enumerate(questions) if q.options)
    prompt, _ = pairs[row]
    count = len(questions[row].options)
    # As if the prompt's last token had merged into some of the options.
    split = [(prompt[: len(prompt) - i % 2], [*prompt[len(prompt) - i % 2 :], 20 + i, 30]) for i in range(count)]
    monkeypatch.setattr(choice, "encode_options", lambda *_: [split])
    (outcome,) = answer_choices(loaded.causal, loaded.tokenizer, [questions[row]], [pairs[row]])
    scores = [naive_log_probability(loaded.causal, p, o) for p, o in split]
    truth = scores[questions[row].options.index(questions[row].object)]
    assert outcome.rank == sum(s >= truth for s in scores)
    assert outcome.log_probability == pytest.approx(truth - np.logaddexp.reduce(scores), abs=1e-4)


FULL = (torch.OutOfMemoryError("no"), RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED"))


@pytest.mark.parametrize("error", FULL, ids=["torch", "cublas"])
def test_out_of_memory_halves_the_work(error):
    sizes = []

    def work(items, most=3, mistake=error):
        sizes.append(len(items))
        if len(items) > most:
            raise mistake
        return [10 * x for x in items]

    assert in_halves(work, list(range(10))) == [10 * x for x in range(10)]
    assert max(sizes) == 10 and sizes[-1] <= 3
    for mistake, items in ((error, [1]), (RuntimeError("shapes do not fit"), [1, 2])):
        with pytest.raises(RuntimeError, match=str(mistake)):
            in_halves(partial(work, most=0, mistake=mistake), items)


def test_end_tokens_come_from_everywhere(lab):
    loaded = lab[0]
    assert loaded.tokenizer.eos_token_id in end_tokens(loaded.causal, loaded.tokenizer)


def test_room_in_the_cache_grows(lab):
    from engine.evaluation.cache import ROOM, as_cache, joined, roomy

    model = lab[0].causal
    ids = torch.tensor([[5, 6, 7, 8], [9, 10, 11, 12]])
    with torch.inference_mode():
        whole = model(ids, past_key_values=DynamicCache(), use_cache=True).past_key_values
        layers = joined([roomy(whole)], 4)
        for step in range(ROOM + 3):
            token = torch.full((2, 1), 20 + step)
            expected = model(token, past_key_values=whole, use_cache=True).logits
            found = model(token, past_key_values=as_cache(layers), use_cache=True).logits
            assert torch.allclose(expected, found, atol=1e-4)
    keys, ours = whole.layers[1].keys, layers[1].keys
    assert keys is not None and ours is not None and torch.equal(keys, ours)


def test_large_vocabularies_are_normalised_in_parts_to_the_same_answers(lab, monkeypatch):
    loaded, experiment = lab
    expected = evaluate_checkpoint(loaded, experiment, "generalised@4")
    for module in ("batches", "generation", "tree"):
        monkeypatch.setattr(f"engine.evaluation.{module}.LARGE_VOCABULARY", 0)
    monkeypatch.setattr("engine.evaluation.batches.NORMALISED_AT_ONCE", 3 * 600)
    monkeypatch.setattr("engine.evaluation.generation.LEAST_TOGETHER", 7)
    found = evaluate_checkpoint(loaded, experiment, "generalised@4")
    for new, old in zip(found, expected, strict=True):
        assert (new.answer, new.hit, new.choice_rank) == (old.answer, old.hit, old.choice_rank)
        assert new.log_probability == pytest.approx(old.log_probability, abs=1e-4)
    with torch.no_grad():
        logits = torch.randn(2, 5, 700)
        tokens = torch.randint(700, (2, 5))
        exact = logits.log_softmax(-1).gather(-1, tokens[..., None])[..., 0]
        assert torch.allclose(log_probability_of(logits, tokens), exact, atol=1e-5)
        logits[1, 3, 9] = math.nan
        with pytest.raises(EvaluationError, match="not numbers"):
            log_probability_of(logits, tokens)
