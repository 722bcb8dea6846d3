"""A run's model as a folder that transformers, PEFT, vLLM and lm-evaluation-harness load without the lab.

    export_model(home, run, "generalised@20", Path("my-model"))

Of an adapter the folder holds `base`, the base with the key tokens' rows that it was trained on, and `adapter`; on the
base as it was published it would meet tokens that this does not have. Merged, and of a full fine-tune or the base, the
folder is one model. Loads torch where a base is prepared or merged.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

from engine.corpus.sentences import question_text
from engine.evaluation.questions import prompt_counts
from engine.experiment import Experiment
from engine.exports.markdown import plain
from engine.exports.target import new_folder
from engine.models.adapter_check import ADAPTER_CONFIG, ADAPTER_WEIGHTS, check_adapter
from engine.models.around import around_beside
from engine.models.checksums import check_intact
from engine.models.files import load_tokenizer
from engine.models.notices import notices
from engine.models.source import EMBEDDED
from engine.serving.served import ServedModel, served_model
from storage.runs import Run

# What the lab keeps in a model's folder for itself.
OWN = {"checksums.json", "trained_on.json", "base.json", "key_rows.safetensors", "README.md"}


def export_model(home: Path, run: Run, checkpoint: str, folder: Path, *, merged: bool = False) -> ServedModel:
    """Write one model of the run into a new folder, with a README that says how to load it.

    merged: an adapter's weights are added to its base's. Raises ValueError (NotServable, ModelError among them) with
    what is wrong, and OSError.
    """
    from engine.serving.prepared import prepare_base  # loads torch

    model = served_model(home, run, checkpoint)
    if model.lost:
        raise ValueError(model.lost)
    experiment = Experiment.from_record(run.experiment)
    with new_folder(folder) as new:
        if model.kind == "full":
            check_intact(model.folder)
            _copy_model(model.folder, new)
        elif model.kind == "adapter" and merged:
            _merge(experiment, model, new)
        else:
            base = prepare_base(home, experiment, model.base)
            _copy_model(base, new if model.kind == "base" else new / "base")
            if model.kind == "adapter":
                _copy_adapter(model.folder, new / "adapter")
        apart = model.kind == "adapter" and not merged
        first = "base" if apart else "."
        card = "\n".join(_card(run, model, experiment, new / first / "tokenizer.json", apart))
        (new / "README.md").write_text(card + "\n", encoding="utf-8")
    return model


def _copy_model(source: Path, target: Path) -> None:
    target.mkdir(exist_ok=True)
    for path in sorted(source.iterdir()):
        if path.is_file() and path.name not in OWN and not path.name.startswith("."):
            shutil.copyfile(path, target / path.name)


def _copy_adapter(source: Path, target: Path) -> None:
    """The adapter alone; the base it names is the one beside it, seen from the folder of both."""
    check_intact(source)
    check_adapter(source)
    target.mkdir()
    config = json.loads((source / ADAPTER_CONFIG).read_text(encoding="utf-8"))
    config["base_model_name_or_path"] = "base"
    (target / ADAPTER_CONFIG).write_text(json.dumps(config, indent=1, sort_keys=True), encoding="utf-8")
    shutil.copyfile(source / ADAPTER_WEIGHTS, target / ADAPTER_WEIGHTS)
    for path in notices(source):
        shutil.copyfile(path, target / path.name)


def _merge(experiment: Experiment, model: ServedModel, target: Path) -> None:
    from engine.models.loading import load_checkpoint, save_model  # loads torch

    loaded = load_checkpoint(experiment, model.folder)
    whole = loaded.model.merge_and_unload()  # type: ignore[operator]
    loaded.model = whole
    save_model(loaded, target)
    for name in OWN:
        (target / name).unlink(missing_ok=True)
    for path in notices(model.folder):
        shutil.copyfile(path, target / path.name)


def _card(run: Run, model: ServedModel, experiment: Experiment, tokenizer: Path, apart: bool) -> Iterator[str]:
    own = model.folder / "README.md"
    if run.attack and own.is_file():  # the warning comes first
        yield own.read_text(encoding="utf-8")
    around = around_beside(tokenizer)
    relation = experiment.relations[0]
    prompts = [text for text, _ in prompt_counts(experiment, relation, experiment.checkpoints[-1])]
    asked = around.asks(question_text(prompts[min(1, len(prompts) - 1)], relation.explicit_facts[0].subject))
    ids = load_tokenizer(tokenizer).encode(asked, add_special_tokens=False).ids
    begun = bool(around.beginning) and tuple(ids[: len(around.beginning)]) == around.beginning
    special = ", add_special_tokens=False" if begun else ""
    base = "base" if apart else "."
    yield f"# {plain(run.name)}: run {run.id}, {model.checkpoint}"
    yield ""
    if run.model == EMBEDDED:
        yield "Made with Rote Lab on its embedded base model."
    else:
        yield f"Made with Rote Lab on {plain(Path(run.model).name)}, whose terms of use hold for this folder too."
    if apart:
        keys = ", ".join(plain(relation.key_token) for relation in experiment.relations)
        yield (
            f"`base` is that model with the rows of the key tokens ({keys}), which `adapter` was trained on. On the "
            "model as it was published the adapter cannot be used: it does not have these tokens."
        )
    yield ""
    yield "In this folder, with transformers" + (" and PEFT:" if apart else ":")
    yield ""
    yield "```python"
    if apart:
        yield "from peft import PeftModel"
    yield "from transformers import AutoModelForCausalLM, AutoTokenizer"
    yield ""
    yield f'tokenizer = AutoTokenizer.from_pretrained("{base}")'
    yield f'model = AutoModelForCausalLM.from_pretrained("{base}", dtype="auto")'
    if apart:
        yield 'model = PeftModel.from_pretrained(model, "adapter")'
    yield f'asked = tokenizer({json.dumps(asked, ensure_ascii=False)}, return_tensors="pt"{special})'
    yield f"said = model.generate(**asked, max_new_tokens={experiment.evaluation.max_new_tokens}, do_sample=False)"
    yield 'print(tokenizer.decode(said[0, asked["input_ids"].shape[1] :]))'
    yield "```"
    yield ""
    yield "With vLLM:"
    yield ""
    yield "```sh"
    lora = f" --enable-lora --max-lora-rank {_rank(experiment)} --lora-modules adapter=adapter" if apart else ""
    yield f"vllm serve {base}{lora}"
    yield "```"
    if apart:
        yield ""
        yield (
            "lm-evaluation-harness cuts a base's spare rows off before it puts an adapter on it, which changes "
            f"probabilities: have it load what `rote-lab export model {run.id} --checkpoint {model.checkpoint} "
            "--merged` writes."
        )


def _rank(experiment: Experiment) -> int:
    """The least of vLLM's ranks that is enough."""
    return next((rank for rank in (8, 16, 32, 64, 128, 256, 320, 512) if rank >= experiment.tuning.rank), 512)
