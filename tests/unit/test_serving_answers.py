"""The embedded server's numbers are those of transformers, whatever the model's kind and whoever asks beside it."""

from __future__ import annotations

import copy
import shutil
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, TaskType, get_peft_model

from engine.evaluation.evaluate import evaluate_checkpoint
from engine.evaluation.plain import log_probabilities
from engine.experiment import Experiment
from engine.models.limits import ENDLESS
from engine.models.loading import load_base
from engine.serving.asking.ask import Sampling, alternatives, ask
from engine.serving.asking.questions import facts_questions
from engine.serving.asking.ranking import Ranked, rank, walk
from engine.serving.client import Refused, ServerClient
from engine.serving.embedded import residents
from engine.serving.embedded.adapters import Adapters
from engine.serving.protocol import Choice, LogProbs
from engine.serving.served import served_models
from storage.askings import Question
from storage.folders import run_folder
from tests.questions import about_fact
from tests.unit.serving_home import add_run, models_of, reference, run_row, serving
from tests.unit.tiny_models import BUILDERS, OBJECTS, SUBJECTS, build_qwen2, tiny_experiment

RUNS = {f"{kind}{method}": (kind, method) for kind in BUILDERS for method in ("full", "lora")}
CHECKPOINTS = ("base", "memorised@4", "generalised@4")


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("home")
    for run, (kind, method) in RUNS.items():
        add_run(folder, run, BUILDERS[kind](folder / "models" / run), method)
    return folder


@pytest.fixture(scope="module")
def client(home: Path):
    with serving(home) as (found, _):
        yield found


def test_the_base_of_a_run_without_a_checkpoint_is_asked(tmp_path: Path) -> None:
    add_run(tmp_path, "aaaa", build_qwen2(tmp_path / "models"))
    run = run_row(tmp_path, "aaaa")
    run_folder(tmp_path, "aaaa").rename(tmp_path / "trained")
    (base,) = served_models(tmp_path, run)
    with serving(tmp_path) as (client, _):
        with pytest.raises(Refused, match="no run on it has begun: ask again once one has"):
            ask(client, base, [Question("Who?")])
        shutil.rmtree(tmp_path / "trained" / "checkpoints")
        (tmp_path / "trained").rename(run_folder(tmp_path, "aaaa"))
        (answer,) = ask(client, base, [Question("Who?")], Sampling(max_tokens=3))
    assert answer.tokens and base.tokenizer.is_file()


def prompts(home: Path, run: str) -> list[list[int]]:
    """Prompts of every length, as ids."""
    tokenizer = reference(home, run, "base").tokenizer
    texts = [f"{s} [X]" for s in SUBJECTS] + [f"Who is the mother of {s}?" for s in SUBJECTS] + ["A", "東京は"]
    return [tokenizer.encode(text, add_special_tokens=False) for text in texts]


def ids_of(choice: Choice) -> list[int]:
    """The answer's tokens, which were asked for."""
    assert choice.token_ids is not None
    return choice.token_ids


def logprobs_of(choice: Choice) -> LogProbs:
    """The log-probabilities of the answer's tokens, which were asked for."""
    assert choice.logprobs is not None
    return choice.logprobs


def greedy(loaded, prompt: list[int], count: int) -> tuple[list[int], list[float]]:
    """Transformers' own greedy answer, and the log-probability of each of its tokens."""
    with torch.inference_mode():
        out = loaded.causal.generate(
            torch.tensor([prompt]), max_new_tokens=count, do_sample=False,
            return_dict_in_generate=True, output_logits=True, pad_token_id=0,
        )  # fmt: skip
    tokens = out.sequences[0, len(prompt) :].tolist()
    scores = [x[0].float().log_softmax(-1)[t].item() for x, t in zip(out.logits, tokens, strict=True)]
    return tokens, scores


@pytest.mark.parametrize("run", RUNS)
def test_answers_and_log_probabilities_are_transformers_own(home: Path, client: ServerClient, run: str) -> None:
    check_answers(home, client, run)


@pytest.mark.parametrize("run", ["llamalora", "qwen2lora"])
def test_adapters_that_share_a_large_base_answer_the_same(
    home: Path, monkeypatch: pytest.MonkeyPatch, run: str
) -> None:
    monkeypatch.setattr(residents, "SMALL_MODEL_PARAMETERS", 0)
    with serving(home) as (client, server):
        check_answers(home, client, run)
        first, second = (server.residents.holding(f"{run}/{name}") for name in CHECKPOINTS[1:])
        with first as one, second as other:
            assert one.model is other.model and one.lock is other.lock


def test_adapters_of_a_small_base_compute_at_the_same_time(home: Path) -> None:
    with serving(home) as (client, server):
        names = [models_of(home, "qwen2lora")[c].name for c in CHECKPOINTS]
        for name in names:
            client.complete(name, [[5]], max_tokens=1)  # loads it
        meeting = threading.Barrier(len(names))

        def compute(name: str) -> None:
            with server.residents.holding(name) as resident, resident.asking():
                meeting.wait(30)  # raises when not all of them are here together

        with ThreadPoolExecutor(len(names)) as pool:
            list(pool.map(compute, names))


def test_an_adapted_output_layer_is_not_merged_into_the_embeddings_it_shares(tmp_path: Path) -> None:
    """Merging would change what the model reads, too; without a word, as transformers ties the two."""
    loaded = load_base(tiny_experiment(build_qwen2(tmp_path)))
    assert loaded.causal.config.tie_word_embeddings
    before = {name: weight.clone() for name, weight in loaded.causal.state_dict().items()}
    for targets, merges in ((["q_proj"], True), (["q_proj", "lm_head"], False)):
        folder = tmp_path / "-".join(targets)
        plain = LoraConfig(target_modules=targets, init_lora_weights=False, task_type=TaskType.CAUSAL_LM)
        made = get_peft_model(copy.deepcopy(loaded.causal), plain)
        made.save_pretrained(str(folder), save_embedding_layers=False)
        assert (Adapters(loaded.causal).merged(folder) is not None) == merges
    assert all(torch.equal(weight, before[name]) for name, weight in loaded.causal.state_dict().items())


def check_answers(home: Path, client: ServerClient, run: str) -> None:
    """Greedy answers and their log-probabilities, of base and both stages in turns, are transformers' own."""
    asked = prompts(home, run)
    models = models_of(home, run)
    # Twice, in turns: a model must not answer with what was left by the one before it.
    replies = [
        (c, client.complete(models[c].name, asked, max_tokens=9, temperature=0, logprobs=0, return_token_ids=True))
        for c in (*CHECKPOINTS, *reversed(CHECKPOINTS))
    ]
    answers = {}
    for checkpoint in CHECKPOINTS:
        loaded = reference(home, run, checkpoint)
        answers[checkpoint] = [greedy(loaded, prompt, 9) for prompt in asked]
    assert len({str(a) for a in answers.values()}) == 3, "the three models should differ"
    for checkpoint, reply in replies:
        for choice, (tokens, scores) in zip(reply.choices, answers[checkpoint], strict=True):
            assert choice.token_ids == tokens
            assert logprobs_of(choice).token_logprobs == pytest.approx(scores, abs=1e-4)


@pytest.mark.parametrize("run", ["llamalora", "qwen2full"])
def test_scores_of_answers_and_options(home: Path, client: ServerClient, run: str) -> None:
    loaded = reference(home, run, "generalised@4")
    name = f"{run}/generalised@4"
    answers = [tuple(loaded.tokenizer.encode(f" {o}", add_special_tokens=False)) for o in OBJECTS]
    pairs = [(p, a) for p in prompts(home, run) for a in answers[:3]]
    expected = log_probabilities(loaded.causal, pairs)
    assert client.score(name, pairs) == pytest.approx(expected, abs=1e-4)
    lines = client.score_options(name, [(p, 0) for p in prompts(home, run)], [answers[:3]])
    assert [s for line in lines for s in line] == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("run", ["phi3full", "qwen2lora"])
def test_asking_gives_what_evaluation_gives(home: Path, client: ServerClient, run: str) -> None:
    experiment = Experiment.from_data(run_row(home, run).experiment)
    served = models_of(home, run)["generalised@4"]
    loaded = reference(home, run, "generalised@4")
    rows = {(row.prompt, row.fact): row for row in evaluate_checkpoint(loaded, experiment, "generalised@4")}
    questions = [question for fact in range(1, 9) for question in about_fact(experiment, fact)]
    assert {(q.prompt_id, q.fact_id) for q in questions} == set(rows)
    ranked = 0
    for answer in ask(client, served, questions, Sampling(max_tokens=6)):
        assert answer.question.prompt_id is not None and answer.question.fact_id is not None
        row = rows[answer.question.prompt_id, answer.question.fact_id]
        assert (answer.text, answer.hit) == (row.answer, row.hit)
        assert answer.log_probability == pytest.approx(row.log_probability, abs=1e-4)
        if row.choice_rank is not None:
            ranked += 1
            assert (answer.rank, answer.options) == (row.choice_rank, row.choice_options)
    assert ranked > 10
    every = facts_questions(experiment, questions[1].prompt)
    assert sorted(q.fact_id or 0 for q in every) == list(range(1, 9))
    assert {q.prompt_id for q in every} == {questions[1].prompt_id}


@pytest.mark.parametrize("run", ["llamafull", "qwen2full"])
def test_ranks_by_walking_the_tree_are_those_of_the_whole_tree(home: Path, client: ServerClient, run: str) -> None:
    name, chance = f"{run}/memorised@4", torch.Generator().manual_seed(5)
    drawn = torch.randint(5, 60, (40, 3), generator=chance).tolist()
    # Options of several lengths, one that begins another, and two of the same tokens.
    options = (*dict.fromkeys(tuple(o[: 1 + i % 3]) for i, o in enumerate(drawn)), (7, 8), (7, 8, 9), (7, 8))
    asked = [p for p in prompts(home, run) if p]
    scores = client.score_options(name, [(p, 0) for p in asked], [options])
    questions, expected = [], []
    for number, (prompt, line) in enumerate(zip(asked, scores, strict=True)):
        # From the likeliest option to the least likely one.
        truth = sorted(range(len(options)), key=lambda i: -line[i])[number % len(options)]
        questions.append(Ranked(tuple(prompt), options, truth, client.score(name, [(prompt, options[truth])])[0]))
        expected.append(sum(s >= line[truth] for s in line))
    assert len(set(expected)) > 10
    assert rank(client, name, questions) == expected
    assert walk(client, name, options, questions) == expected


def test_a_model_that_does_not_honour_masks_is_answered_all_the_same(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    experiment = Experiment.from_data(run_row(home, "phi3lora").experiment)
    questions = [question for fact in range(1, 9) for question in about_fact(experiment, fact)]
    found = []
    for limit in (ENDLESS, 0):
        monkeypatch.setattr(residents, "fast_length", lambda *_, limit=limit: limit)
        with serving(home) as (client, server):
            served = models_of(home, "phi3lora")["generalised@4"]
            found.append(ask(client, served, questions, Sampling(max_tokens=6)))
            with server.residents.holding(served.name) as resident:
                assert resident.limit == limit
    for usual, plain in zip(*found, strict=True):
        assert (usual.text, usual.hit, usual.rank) == (plain.text, plain.hit, plain.rank)
        assert usual.log_probability == pytest.approx(plain.log_probability, abs=1e-4)


def test_alternatives_are_the_likeliest_next_tokens(home: Path, client: ServerClient) -> None:
    experiment = Experiment.from_data(run_row(home, "qwen2full").experiment)
    served = models_of(home, "qwen2full")["memorised@4"]
    loaded = reference(home, "qwen2full", "memorised@4")
    answer = ask(client, served, about_fact(experiment, 3)[:1], Sampling(max_tokens=4))[0]
    prompt = loaded.tokenizer.encode(answer.question.text, add_special_tokens=False)
    for place in (0, 2, len(answer.tokens)):
        fed = [*prompt, *(t.id for t in answer.tokens[:place])]
        with torch.inference_mode():
            scores = loaded.causal(torch.tensor([fed])).logits[0, -1].log_softmax(-1)
        found = alternatives(client, served, answer, place, 5)
        assert [t.id for t in found] == scores.topk(5).indices.tolist()
        assert [t.log_probability for t in found] == pytest.approx(scores.topk(5).values.tolist(), abs=1e-4)
    with pytest.raises(ValueError, match="no place"):
        alternatives(client, served, answer, 99)


def test_many_clients_at_once_get_their_own_answers(home: Path, client: ServerClient) -> None:
    names = [models_of(home, run)[c].name for run in RUNS for c in CHECKPOINTS]
    asked = {name: prompts(home, run)[:6] for run in RUNS for name in names if name.startswith(run) or "base" in name}
    settings = {"max_tokens": 8, "temperature": 0, "return_token_ids": True}
    alone = {n: [c.token_ids for c in client.complete(n, asked[n], **settings).choices] for n in names}
    barrier = threading.Barrier(12)

    def one(number: int) -> bool:
        barrier.wait()
        order = names[number:] + names[:number]
        return all([c.token_ids for c in client.complete(n, asked[n], **settings).choices] == alone[n] for n in order)

    with ThreadPoolExecutor(12) as pool:
        assert all(pool.map(one, range(12)))


def test_sampling_is_repeated_by_its_seed_and_kept_inside_top_p(home: Path, client: ServerClient) -> None:
    loaded = reference(home, "qwen2full", "generalised@4")
    prompt = prompts(home, "qwen2full")[0]
    settings = {"max_tokens": 5, "temperature": 1.3, "return_token_ids": True}
    once, again, other = (
        [c.token_ids for c in client.complete("qwen2full/generalised@4", [prompt] * 3, seed=s, **settings).choices]
        for s in (1, 1, 2)
    )
    assert once == again and once[0] == once[1] and once != other
    with torch.inference_mode():
        scores = loaded.causal(torch.tensor([prompt])).logits[0, -1]
    shares, order = (scores / 1.3).softmax(-1).sort(descending=True)
    inside = int((shares.cumsum(-1) < 0.4).sum()) + 1
    settings |= {"max_tokens": 1, "top_p": 0.4}
    drawn = [ids_of(c)[0] for c in client.complete("qwen2full/generalised@4", [prompt] * 2000, **settings).choices]
    counts = torch.tensor([drawn.count(t) for t in order[:inside].tolist()]) / len(drawn)
    assert set(drawn) <= set(order[:inside].tolist())
    # Five standard deviations of a share among 2,000.
    assert torch.allclose(counts, shares[:inside] / shares[:inside].sum(), atol=0.056)


def test_the_rest_of_the_protocol(home: Path, client: ServerClient) -> None:
    name, tokenizer = "qwen2full/memorised@4", reference(home, "qwen2full", "base").tokenizer
    text = "Who is the mother of Gene Finley?"
    ids = tokenizer.encode(text)
    both = [
        client.complete(name, p, max_tokens=6, temperature=0, return_token_ids=True).choices[0] for p in (text, ids)
    ]
    assert both[0].token_ids == both[1].token_ids and both[0].prompt_token_ids == ids
    assert both[0].text == tokenizer.decode(ids + both[0].token_ids)[len(text) :]
    echoed = client.complete(name, text, max_tokens=2, temperature=0, echo=True, logprobs=1)
    assert echoed.choices[0].text.startswith(text) and len(logprobs_of(echoed.choices[0]).tokens) == len(ids) + 2
    assert logprobs_of(echoed.choices[0]).token_logprobs[0] is None
    only = client.complete(name, text, max_tokens=0, echo=True, logprobs=0).choices[0]
    assert len(logprobs_of(only).tokens) == len(ids) and only.text == text
    settings = {"logprobs": 2, "logprob_token_ids": [5, 6], "return_tokens_as_token_ids": True}
    watched = logprobs_of(client.complete(name, text, max_tokens=2, temperature=0, **settings).choices[0])
    assert all(top is not None and {"token_id:5", "token_id:6"} <= set(top) for top in watched.top_logprobs)
    assert watched.tokens[0].startswith("token_id:")
    copies = client.complete(name, [text, "A"], max_tokens=3, temperature=1, seed=4, n=2).choices
    assert [c.index for c in copies] == [0, 1, 2, 3]
    full = client.complete(name, text, max_tokens=6, temperature=0).choices[0].text
    stopped = client.complete(name, text, max_tokens=6, temperature=0, stop=[full[3:5]]).choices[0]
    assert (stopped.text, stopped.finish_reason, stopped.stop_reason) == (full[:3], "stop", full[3:5])
    usage = client.complete(name, [text, "A"], max_tokens=3, temperature=0, ignore_eos=True).usage
    assert usage.completion_tokens == 6 and usage.total_tokens == usage.prompt_tokens + 6


def test_a_prompt_longer_than_the_context_is_told_in_words(home: Path, client: ServerClient) -> None:
    name = "qwen2full/memorised@4"
    with pytest.raises(Refused, match=r"prompt 2 has 64 tokens.*at most 64 with its answer: shorten it"):
        client.complete(name, [[5], [5] * 64], max_tokens=3)
    assert client.complete(name, [[5] * 63], max_tokens=3).choices[0].finish_reason == "length"
    experiment = Experiment.from_data(run_row(home, "qwen2full").experiment)
    question = about_fact(experiment, 1)[0]
    with pytest.raises(ValueError, match="the model reads at most 64"):
        ask(client, models_of(home, "qwen2full")["memorised@4"], [replace(question, text="Ana " * 200)])
