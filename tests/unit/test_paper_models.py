"""The paper's eight models: what is told of each before it is downloaded is counted, not guessed."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import pytest

from app.design.hub_models import CHOICES, hub_model
from engine.corpus.resolve import resolve
from engine.corpus.sentences import stage1_sentences, stage2_sentences
from engine.estimate import estimate_experiment, training_memory
from engine.experiment import Experiment
from engine.models.around import FAMILIES
from engine.models.files import model_shape, shape_from_config
from engine.models.paper_models import PAPER_MODELS, WEIGHT_BYTES
from engine.presets import load_preset
from engine.settings import Tuning

DOCUMENT = Path(__file__).parents[2] / "docs" / "models.md"
# Bytes that the index of the published weights says, where it could be read.
INDEXED = {"Qwen/Qwen2.5-7B": 15_231_233_024, "microsoft/phi-4": 29_319_014_400}


def test_they_are_the_papers() -> None:
    assert list(PAPER_MODELS) == [
        "Qwen/Qwen2.5-1.5B", "Qwen/Qwen2.5-1.5B-Instruct", "Qwen/Qwen2.5-7B", "Qwen/Qwen2.5-14B",
        "Qwen/Qwen2.5-14B-Instruct", "meta-llama/Llama-2-7b-hf", "meta-llama/Llama-3.2-1B", "microsoft/phi-4",
    ]  # fmt: skip
    assert [name for _, name in CHOICES] == list(PAPER_MODELS)
    assert {name for name, about in PAPER_MODELS.items() if about.gated} == {
        name for name in PAPER_MODELS if name.startswith("meta-llama/")
    }
    assert {name for name, about in PAPER_MODELS.items() if about.kind == "chat"} == {
        name for name in PAPER_MODELS if name.endswith("Instruct") or name.endswith("phi-4")
    }


@pytest.mark.parametrize("name", PAPER_MODELS)
def test_the_fields_of_the_config_count_as_many_parameters_as_are_stated(name: str) -> None:
    about = PAPER_MODELS[name]
    counted = shape_from_config(about.fields)
    assert counted is not None
    # As stated to four digits.
    assert about.parameters == pytest.approx(counted.parameters, rel=5e-4)
    if name in INDEXED:
        assert counted.parameters * WEIGHT_BYTES == INDEXED[name]
    shape = model_shape(name)
    assert shape is not None and (shape.parameters, shape.source) == (counted.parameters, "the lab’s list of models")
    known = [token for kind, token, _ in FAMILIES if kind == about.config.model_type]
    assert about.beginning in known if known else not about.beginning
    assert about.beginning is not None or any("beginning" in words for words in about.unconfirmed)


@cache
def paper_setting() -> Experiment:
    return resolve(load_preset("qwen2.5-1.5b"))


@cache
def longest() -> int:
    """Characters of the longest sequence, as the estimate counts them."""
    setting = paper_setting()
    sentences = [s for r in setting.relations for s in (*stage1_sentences(r), *stage2_sentences(setting, r))]
    return max(len(sentence.text) for sentence in sentences)


def memory(name: str, method: str, *, accelerator: bool) -> int:
    shape, tuning = model_shape(name), Tuning.model_validate({"method": method})
    assert shape is not None
    experiment = paper_setting().model_copy(update={"model": name, "tuning": tuning})
    return training_memory(experiment, shape, longest(), accelerator)


def row(name: str) -> str:
    """The model's line in the document."""
    about, shape = PAPER_MODELS[name], model_shape(name)
    assert shape is not None
    needs = [memory(name, method, accelerator=gpu) for gpu in (True, False) for method in ("full", "lora")]
    begins = "not known before" if about.beginning is None else f"`{about.beginning}`" if about.beginning else "none"
    begins = begins.replace("|", "\\|")
    cells = [
        f"`{name}`", f"[{about.licence.name}]({about.licence.link}){', gated' if about.gated else ''}",
        f"{shape.parameters:,}", f"{WEIGHT_BYTES * shape.parameters / 1e9:.1f} GB", begins,
        *(f"{need / 1e9:.0f} GB" for need in needs),
    ]  # fmt: skip
    return f"| {' | '.join(cells)} |"


def test_the_document_has_what_is_counted() -> None:
    text = DOCUMENT.read_text(encoding="utf-8")
    rows = [row(name) for name in PAPER_MODELS]
    assert [line for line in rows if line not in text] == []
    # That is what the page tells, too.
    told = estimate_experiment(paper_setting(), accelerator=True).memory
    assert told == memory("Qwen/Qwen2.5-1.5B", "full", accelerator=True)


def test_the_page_tells_them_before_anything_is_downloaded(monkeypatch: pytest.MonkeyPatch) -> None:
    llama = hub_model("meta-llama/Llama-3.2-1B", None)
    assert "1.24 billion parameters in 16 layers" in llama and "<b>Gated</b>" in llama
    assert "&lt;|begin_of_text|&gt;" in llama and "Every weight" not in llama
    assert "known once it is here" in hub_model("microsoft/phi-4", None)
    for other in ("someone/else-7b", "embedded", "<img src=x>", ""):
        assert hub_model(other, None) == ""
    monkeypatch.setattr("app.design.hub_models.device_gib", lambda device: 24.0)
    told = hub_model("Qwen/Qwen2.5-1.5B", paper_setting())
    full, lora = told.split("<li>")[1:]
    assert "Every weight" in full and ", <b>more than there is</b>" in full
    assert "LoRA adapters" in lora and "more than there is" not in lora
