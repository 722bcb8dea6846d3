"""Real vLLM on the CPU: what it serves is what transformers computes, it survives kills, and nothing is left behind.

The tests share two trained runs and, one after the other, the servers: each start of vLLM takes half a minute.
"""

from __future__ import annotations

import filecmp
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import psutil
import pytest
import torch

from engine.evaluation.choice import answer_choices
from engine.evaluation.evaluate import decode_answers
from engine.evaluation.generation import end_tokens, reply_to
from engine.evaluation.questions import Question
from engine.experiment import Experiment
from engine.exports.model import export_model
from engine.models.loading import LoadedModel
from engine.models.tokenise import tokenise_questions
from engine.serving.asking.ask import Sampling, ask
from engine.serving.client import Refused, ServerClient, ServingError
from engine.serving.listening import free_port
from engine.serving.processes.sessions import end_session
from engine.serving.processes.supervisor import Place, Supervisor
from engine.serving.served import ServedModel
from engine.serving.vllm import backend as vllm_backend
from storage.runs import Run
from storage.servers import list_servers
from tests.integration.lab import ROOT, Lab, wait_until
from tests.integration.serving import (
    lab_with_adapters,
    lab_with_server,
    models_by_name,
    server_processes,
    trained,
)
from tests.questions import about_fact
from tools.compare_servers import compare
from tools.compare_servers import reference as as_the_lab_loads_it
from tools.containers import compose

MISSING = vllm_backend.why_not()
pytestmark = [
    pytest.mark.skipif(MISSING is not None, reason=f"no vLLM here: {MISSING}"),
    pytest.mark.timeout(900),
]
TOLERANCE = 1e-4
QUESTIONS = 240


@dataclass
class Trained:
    """A lab with one LoRA run and one full fine-tune, both of the presets' own training."""

    lab: Lab
    lora: Run
    full: Run


@pytest.fixture(scope="module")
def ready(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Trained]:
    lab, lora = lab_with_adapters(tmp_path_factory, tmp_path_factory.mktemp("vllm"))
    yield Trained(lab, lora, trained(lab, "quick", "stage1.checkpoint_epochs=[3]", "stage1.epochs=3"))
    lab.close()
    assert server_processes(lab.home) == []


@pytest.fixture(scope="module")
def supervisor(ready: Trained) -> Iterator[Supervisor]:
    """Begins with what a killed lab left: its server of the LoRA run, which ends."""
    process, _ = lab_with_server(ready.lab, ready.lora, "vllm", "base", "memorised@20")
    assert len(list_servers(ready.lab.db)) == 1
    process.kill()
    process.wait()
    made = Supervisor(ready.lab.home, "auto", most_vllm=1)
    made.start()
    assert list_servers(ready.lab.db) == [] and server_processes(ready.lab.home) == [] and made.servers() == []
    yield made
    made.stop()
    assert list_servers(ready.lab.db) == []


def questions(run: Run, loaded: LoadedModel) -> list[list[int]]:
    """Prompts of every split and language about many facts, as token ids."""
    relation = Experiment.from_data(run.experiment).relations[0]
    templates = [relation.key_template.replace("{key}", relation.key_token).split("{object}")[0].rstrip()] * 20
    templates += [p.text for p in relation.explicit_prompts]
    pairs = [(t, f.subject) for t in templates for f in relation.explicit_facts]
    texts = [t.replace("{subject}", s) for t, s in random.Random(0).sample(pairs, QUESTIONS)]
    return [loaded.tokenizer.encode(text) for text in texts]


def check_equal(place: Place, run: Run, loaded: LoadedModel) -> None:
    """Greedy answers and all log-probabilities are those of transformers in float32."""
    assert loaded.causal.dtype == torch.float32
    compared = compare(place, loaded, questions(run, loaded))
    print(f"{place.model}: {compared}")
    assert (compared.prompts, compared.same) == (QUESTIONS, QUESTIONS), "another greedy answer"
    assert compared.furthest < TOLERANCE


def reference(run: Run, model: ServedModel) -> LoadedModel:
    """The model as the lab itself loads it."""
    return as_the_lab_loads_it(Experiment.from_data(run.experiment), model)


def test_base_and_both_stages_together_equal_transformers(ready: Trained, supervisor: Supervisor) -> None:
    models = models_by_name(ready.lab, ready.lora)
    places = {name: supervisor.place(models[name]) for name in ("base", "memorised@20", "generalised@20")}
    assert len({place.url for place in places.values()}) == 1
    assert {(p.backend, "installed" in p.reason or "asked for" in p.reason) for p in places.values()} == {
        ("vllm", True)
    }
    for name, place in places.items():
        check_equal(place, ready.lora, reference(ready.lora, models[name]))


def test_models_that_are_asked_at_the_same_time_answer_as_they_do_alone(ready: Trained, supervisor: Supervisor) -> None:
    """vLLM's own code for processors puts an adapter on the base's questions when they share a batch with an adapter's.

    The base is asked as an adapter, and by its plain name too, which `engine.serving.vllm.adapters` answers for.
    """
    models = models_by_name(ready.lab, ready.lora)
    columns = [models[name] for name in ("base", "memorised@20", "generalised@20")]
    places = [supervisor.place(model) for model in columns]
    assert places[0].model.endswith("-as-adapter")
    places.append(replace(places[0], model=places[0].model.removesuffix("-as-adapter")))
    again = [model for model in columns if model.kind == "adapter"] * vllm_backend.MAX_ADAPTERS
    free = vllm_backend.MAX_ADAPTERS - len(columns)
    folders = {f"again{number}": model.folder for number, model in enumerate(again[:free])}  # every place is taken
    asked = questions(ready.lora, reference(ready.lora, columns[0]))

    def answer(place: Place) -> list[float]:
        with ServerClient(place.url) as client:
            reply = client.complete(place.model, asked, max_tokens=1, temperature=0, prompt_logprobs=0)
        return [score.logprob for c in reply.choices for at in c.prompt_logprobs or [] for score in (at or {}).values()]

    with ServerClient(places[0].url) as client:
        for name, folder in folders.items():
            client.load_adapter(name, folder)
        try:
            for name in folders:
                client.complete(name, [[5]], max_tokens=1)
            alone = [answer(place) for place in places]
            for _ in range(2):
                with ThreadPoolExecutor(len(places)) as pool:
                    together = list(pool.map(answer, places))
                assert alone[0] == pytest.approx(alone[-1], abs=TOLERANCE)
                for found, expected in zip(together, alone, strict=True):
                    assert found == pytest.approx(expected, abs=TOLERANCE)
        finally:
            for name in folders:
                client.unload_adapter(name)


def test_a_thousand_questions_in_one_request(ready: Trained, supervisor: Supervisor) -> None:
    model = models_by_name(ready.lab, ready.lora)["generalised@20"]
    place = supervisor.place(model)
    asked = [[5 + i % 4000, 7] for i in range(1000)]
    with ServerClient(place.url) as client:
        began = time.monotonic()
        reply = client.complete(place.model, asked, max_tokens=4, temperature=0)
        print(f"1000 questions: {time.monotonic() - began:.1f} s")
    assert [choice.index for choice in reply.choices] == list(range(1000))


def test_asking_gives_the_answers_and_ranks_of_evaluation(ready: Trained, supervisor: Supervisor) -> None:
    model = models_by_name(ready.lab, ready.lora)["generalised@20"]
    prompts = about_fact(Experiment.from_data(ready.lora.experiment), 4)[:28:3]
    place = supervisor.place(model)
    with ServerClient(place.url, names=place.names) as client:
        answers = ask(client, model, prompts, Sampling(max_tokens=12))
    loaded = reference(ready.lora, model)
    tokenizer, network = loaded.tokenizer, loaded.causal
    questions = [Question(q.prompt_id or 0, q.fact_id or 0, q.text, q.object or "", q.options) for q in prompts]
    pairs = tokenise_questions(tokenizer, [(q.text, q.object) for q in questions])
    ends = end_tokens(network, tokenizer)
    replies = reply_to(network, pairs, range(len(pairs)), max_new_tokens=12, ends=ends)
    texts = decode_answers(tokenizer, [reply.tokens for reply in replies])
    choices = answer_choices(network, tokenizer, questions, pairs)
    assert [a.text for a in answers] == texts and any(a.hit for a in answers)
    assert [a.rank for a in answers] == [choice.rank for choice in choices]
    expected = [reply.log_probability for reply in replies]
    assert [a.log_probability for a in answers] == pytest.approx(expected, abs=TOLERANCE)
    assert [tuple(t.id for t in a.tokens) for a in answers] == [reply.tokens for reply in replies]


def test_adapters_over_the_limit_push_out_the_longest_unused(
    ready: Trained, supervisor: Supervisor, monkeypatch: pytest.MonkeyPatch
) -> None:
    models = models_by_name(ready.lab, ready.lora)
    monkeypatch.setattr(vllm_backend, "MAX_ADAPTERS", 1)
    for name in ("memorised@20", "generalised@20", "memorised@20"):
        place = supervisor.place(models[name])
        with ServerClient(place.url) as client:
            assert client.complete(place.model, [[5]], max_tokens=1).choices
            adapters = [card.id for card in client.models() if card.parent]
        assert adapters == list(supervisor.servers()[0].adapters) == [place.model]


def test_what_cannot_be_asked_is_a_sentence_and_harms_nobody(ready: Trained, supervisor: Supervisor) -> None:
    place = supervisor.place(models_by_name(ready.lab, ready.lora)["memorised@20"])
    with ServerClient(place.url) as client:
        with pytest.raises(Refused, match="512"):
            client.complete(place.model, [[5] * 600], max_tokens=1)
        with pytest.raises(Refused, match="no-such"):
            client.complete("no-such/model", [[5]], max_tokens=1)
        with pytest.raises(Refused):
            client.load_adapter("stranger", ready.lab.home / "nowhere")
        assert client.complete(place.model, [[5]], max_tokens=1).choices


def test_an_exported_adapter_answers_as_the_runs_own(ready: Trained, supervisor: Supervisor, tmp_path: Path) -> None:
    """Its two halves: the base is the very one that is served, and the adapter is loaded on it by its folder."""
    model = models_by_name(ready.lab, ready.lora)["generalised@20"]
    place = supervisor.place(model)
    export_model(ready.lab.home, ready.lora, model.checkpoint, tmp_path / "out")
    for name in ("config.json", "model.safetensors", "tokenizer.json"):
        assert filecmp.cmp(tmp_path / "out" / "base" / name, model.prepared / name, shallow=False), name
    asked = questions(ready.lora, reference(ready.lora, model))[:40]
    with ServerClient(place.url) as client:
        client.load_adapter("exported", tmp_path / "out" / "adapter")
        replies = [client.complete(name, asked, max_tokens=8, temperature=0) for name in (place.model, "exported")]
        client.unload_adapter("exported")
    own, exported = ([choice.text for choice in reply.choices] for reply in replies)
    assert own == exported and len(set(own)) > 10


def test_only_the_loopback_address_listens(ready: Trained, supervisor: Supervisor) -> None:
    supervisor.place(models_by_name(ready.lab, ready.lora)["base"])
    port = supervisor.servers()[0].port
    listening = [
        c.laddr for c in psutil.net_connections("inet") if c.status == "LISTEN" and c.laddr and c.laddr.port == port
    ]
    assert {address.ip for address in listening} == {"127.0.0.1"}


def test_killed_while_questions_run_it_is_back_with_its_adapters(ready: Trained, supervisor: Supervisor) -> None:
    model = models_by_name(ready.lab, ready.lora)["generalised@20"]
    place = supervisor.place(model)
    (row,) = list_servers(ready.lab.db)
    assert row.keeper is not None and row.start_seconds is not None
    server = next(p for p in psutil.Process(row.keeper.pid).children() if "api_server" in " ".join(p.cmdline()))
    outcomes: list[str] = []

    def ask() -> None:
        with ServerClient(place.url) as client:
            try:
                client.complete(place.model, [[5, i] for i in range(300)], max_tokens=100, ignore_eos=True)
                outcomes.append("answered")
            except ServingError as error:
                outcomes.append(str(error))

    with ThreadPoolExecutor(4) as pool:
        for _ in range(4):
            pool.submit(ask)
        time.sleep(0.5)
        server.send_signal(signal.SIGKILL)
        killed = time.monotonic()
    assert len(outcomes) == 4 and all(o == "answered" or "model server" in o for o in outcomes), outcomes
    wait_until(lambda: supervisor.servers()[0].state != "ready", "notice of the kill")
    place = supervisor.place(model)
    took = time.monotonic() - killed
    print(f"answers: {outcomes}; back after {took:.1f} s, first start {row.start_seconds:.1f} s")
    assert took < row.start_seconds * 1.5 + 10
    check_equal(place, ready.lora, reference(ready.lora, model))
    (after,) = list_servers(ready.lab.db)
    assert after.restarts == row.restarts + 1
    # The engine and its workers of before are gone with their web server.
    assert len([p for p in server_processes(ready.lab.home) if "EngineCore" in p]) == 1


def test_full_fine_tunes_are_swapped_by_a_restart_and_equal_transformers(
    ready: Trained, supervisor: Supervisor
) -> None:
    """Fails if weights are ever swapped by `reload_weights`: with tied embeddings it gives other numbers silently."""
    supervisor.backend = "vllm"
    models = models_by_name(ready.lab, ready.full)
    assert reference(ready.full, models["memorised@3"]).causal.config.tie_word_embeddings
    for name in ("memorised@3", "generalised@3"):
        place = supervisor.place(models[name])
        check_equal(place, ready.full, reference(ready.full, models[name]))
        # One process at a time was allowed: the one before is gone, its engine too.
        assert [s.plan.serves for s in supervisor.servers()] == [f"{ready.full.id}/{name}"]
        assert len([p for p in server_processes(ready.lab.home) if "EngineCore" in p]) == 1


def test_a_vllm_in_a_container_of_its_own_takes_the_adapters(ready: Trained, monkeypatch: pytest.MonkeyPatch) -> None:
    """As compose.yaml starts it beside the lab, but for the container: its command, on the lab's prepared base."""
    home, port = ready.lab.home, free_port()
    subprocess.run(
        [sys.executable, *compose()["services"]["prepare"]["command"][1:], "--home", str(home)], check=True, cwd=ROOT
    )
    service = compose()["services"]["vllm"]
    words = [str(word).replace("/data", str(home)) for word in service["command"]]
    words[words.index("0.0.0.0")], words[words.index("8000")] = "127.0.0.1", str(port)
    variables = {**vllm_backend.environment(home / "prepared" / "served", "cpu"), **service["environment"]}
    with (home / "neighbour.log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, *service["entrypoint"][1:], *words], stdout=log, stderr=log, env=variables,
            start_new_session=True,
        )  # fmt: skip
    monkeypatch.setenv("ROTE_LAB_VLLM_URL", f"http://127.0.0.1:{port}")
    lab = Supervisor(home, "auto")
    try:
        models = models_by_name(ready.lab, ready.lora)
        assert lab._at_neighbour(models["base"]) is None, "nobody answers there yet"
        base = wait_until(lambda: lab._at_neighbour(models["base"]), "the vLLM beside the lab")
        stage2 = lab.place(models["generalised@20"])
        assert {base.url, stage2.url} == {f"http://127.0.0.1:{port}"}
        assert "serves this base" in stage2.reason and lab.servers() == []
        with ServerClient(base.url, names=base.names) as client:
            reply = client.complete(models["base"].name, [[5]], max_tokens=1)
        assert reply.model == base.model == f"{models['base'].name}-as-adapter"
        check_equal(base, ready.lora, reference(ready.lora, models["base"]))
        check_equal(stage2, ready.lora, reference(ready.lora, models["generalised@20"]))
    finally:
        lab.stop()
        end_session(process.pid, 10)
        process.wait()
