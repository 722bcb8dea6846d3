"""A model's folder is somebody else's: what the loader refuses, the page refuses before, in the same sentence."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from engine.models.files import model_problems, model_shape
from engine.models.loading import load_base
from engine.models.source import ModelError
from tests.unit.model_folders import INDEX, PARTS, POINTER, edit, in_parts, rewrite
from tests.unit.tiny_models import tiny_experiment


def parts_and(change: Callable[[Path], object]) -> Callable[[Path], None]:
    def do(folder: Path) -> None:
        in_parts(folder)
        change(folder)

    return do


def replace_by(make: Callable[[Path], object], name: str) -> Callable[[Path], None]:
    def do(folder: Path) -> None:
        (folder / name).unlink(missing_ok=True)
        make(folder / name)

    return do


def leads_out(name: str) -> Callable[[Path], None]:
    def do(folder: Path) -> None:
        (folder / name).rename(folder.parent / "elsewhere")
        (folder / name).symlink_to(folder.parent / "elsewhere")

    return do


def text(name: str, content: str) -> Callable[[Path], object]:
    return lambda folder: (folder / name).write_text(content, encoding="utf-8")


def renamed(old: str, new: str) -> Callable[[Path], object]:
    return lambda folder: (folder / old).rename(folder / new)


def config(**changes: Any) -> Callable[[Path], object]:
    return lambda folder: edit(folder / "config.json", **changes)


def more_words(folder: Path) -> None:
    tokenizer = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    words = tokenizer["model"]["vocab"]
    words.update({f"word{i}": len(words) + i for i in range(60)})
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer), encoding="utf-8")


def added_far_behind(folder: Path) -> None:
    tokenizer = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    tokenizer["added_tokens"].append({**tokenizer["added_tokens"][0], "id": 900, "content": "<far>"})
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer), encoding="utf-8")


def without_head(folder: Path) -> None:
    rewrite(folder, lambda tensors: {n: t for n, t in tensors.items() if n != "lm_head.weight"})
    edit(folder / "config.json", tie_word_embeddings="-")  # transformers leaves out what is usual for the kind


def twice(folder: Path) -> None:
    in_parts(folder)
    first, second = (load_file(folder / part) for part in PARTS)
    save_file({**first, "norm": torch.zeros(1)}, folder / PARTS[0])
    save_file({**second, "norm": torch.zeros(1)}, folder / PARTS[1])


def only_adapter(folder: Path) -> None:
    (folder / "config.json").unlink()
    (folder / "model.safetensors").rename(folder / "adapter_model.safetensors")
    (folder / "adapter_config.json").write_text("{}")


DEEP = '{"a":' * 50_000 + "1" + "}" * 50_000
REFUSED: dict[str, tuple[Callable[[Path], object], str]] = {
    # an index that leads elsewhere, or nowhere
    "part pickled": (lambda f: in_parts(f, x="pytorch_model.bin"), "names ‘pytorch_model.bin’, but weights are read"),
    "part above": (lambda f: in_parts(f, x="../model.safetensors"), "beside it only"),
    "part absolute": (lambda f: in_parts(f, x="/data/model.safetensors"), "beside it only"),
    "part below": (lambda f: in_parts(f, x="sub/model.safetensors"), "beside it only"),
    "part invisible": (lambda f: in_parts(f, x="a\0.safetensors"), "beside it only"),
    "part no text": (lambda f: in_parts(f, x=["a.safetensors"]), "it names no files of weights"),
    "part missing": (parts_and(lambda f: (f / PARTS[1]).unlink()), "1 of 2 files missing, such as model-00002"),
    "part pipe": (parts_and(replace_by(os.mkfifo, PARTS[0])), "is no ordinary file"),
    "part outside": (parts_and(leads_out(PARTS[0])), "a link that leads out of the model’s folder"),
    "part pointer": (parts_and(text(PARTS[0], POINTER)), "git lfs pull"),
    "parts of all": (lambda f: in_parts(f, **{str(i): f"{i}.safetensors" for i in range(3000)}), "names 3,002 files"),
    "tensor twice": (twice, "holds the weights ‘norm’ twice"),
    "index deep": (parts_and(text(INDEX, DEEP)), "nested too deeply"),
    "index twice": (parts_and(text(INDEX, '{"weight_map":{},"weight_map":{}}')), "stands there twice"),
    # what no program should open, or follow
    **{
        f"{kind} {name}": (replace_by(make, name), "is no ordinary file: copy the model again")
        for kind, make in (("pipe", os.mkfifo), ("folder", Path.mkdir))
        for name in ("config.json", "tokenizer.json", "generation_config.json", "model.safetensors", "merges.txt",
                     "tokenizer_config.json", "chat_template.jinja")
    },
    "weights outside": (leads_out("model.safetensors"), "a link that leads out"),
    "config outside": (leads_out("config.json"), "a link that leads out"),
    "endless device": (replace_by(lambda p: p.symlink_to("/dev/zero"), "tokenizer.json"), "a link that leads out"),
    "link to nothing": (replace_by(lambda p: p.symlink_to("/no/such"), "model.safetensors"), "cannot be read"),
    "link to itself": (replace_by(lambda p: p.symlink_to(p.name), "config.json"), "cannot be read"),
    # settings that are none
    "config deep": (text("config.json", DEEP), "nested too deeply"),
    "config rather deep": (config(x=json.loads("[" * 90 + "]" * 90)), "nested too deeply"),
    "tokenizer config deep": (text("tokenizer_config.json", "[" * 99_999), "nested too deeply"),
    "config large": (text("config.json", '{"a":"' + "x" * 17_000_000 + '"}'), "larger than 16 MiB"),
    "config pointer": (text("config.json", POINTER), "git lfs pull"),
    "config a list": (text("generation_config.json", "[1]"), "is damaged"),
    "config long number": (text("config.json", '{"a":' + "9" * 9_999 + "}"), "is damaged"),
    "layers without end": (config(num_hidden_layers=10**9), "num_hidden_layers is 1000000000"),
    "layers in words": (config(num_hidden_layers="two"), "num_hidden_layers is two"),
    # weights that are none, or cut off
    "pickled": (renamed("model.safetensors", "pytorch_model.bin"), "none in safetensors format, only files that may"),
    "checkpoint": (renamed("model.safetensors", "consolidated.00.pth"), "none in safetensors format"),
    "gguf": (renamed("model.safetensors", "tiny.Q4_K_M.gguf"), "only GGUF files"),
    "adapter": (only_adapter, "but an adapter, which is no model by itself"),
    "adapter beside config": (renamed("model.safetensors", "adapter_model.safetensors"), "only an adapter’s"),
    "training arguments": (renamed("model.safetensors", "training_args.bin"), "no weights"),
    "other name": (renamed("model.safetensors", "weights.safetensors"), "there is no model.safetensors, nor"),
    "empty": (text("model.safetensors", ""), "model.safetensors is empty"),
    "pointer": (text("model.safetensors", POINTER), "git lfs pull"),
    "tokenizer pointer": (text("tokenizer.json", POINTER), "git lfs pull"),
    "cut off": (lambda f: os.truncate(f / "model.safetensors", 3000), "cut off or damaged"),
    "other bytes": (text("model.safetensors", "PK\3\4" + "x" * 999), "cut off or damaged"),
    "fewer layers": (config(num_hidden_layers=3), r"\(1 of 3 layers missing\)"),
    "fewer rows": (config(vocab_size=999), "rows for 480 tokens, config.json says 999"),
    "no head": (without_head, "the output matrix is missing"),
    # kinds that cannot be trained
    **{
        f"quantised {name}": (config(quantization_config={"quant_method": name}), rf"quantised \({name}\).*unquantised")
        for name in ("gptq", "awq", "bitsandbytes", "fp8", "compressed-tensors", "mxfp4")
    },
    "quantised weights": (
        lambda f: rewrite(f, lambda t: {**t, "model.layers.0.mlp.up_proj.qweight": torch.zeros(2, dtype=torch.int32)}),
        "choose the model’s unquantised version",
    ),
    "quantised floats": (
        lambda f: rewrite(f, lambda t: {**t, "lm_head.weight": t["lm_head.weight"].to(torch.float8_e4m3fn)}),
        "choose the model’s unquantised version",
    ),
    "quantised beside": (text("quantize_config.json", "{}"), "choose the model’s unquantised version"),
    "encoder and decoder": (config(model_type="t5", architectures=["T5ForConditionalGeneration"]), "is a T5For"),
    "encoder": (config(model_type="bert", architectures="-"), "is a bert, not a causal language model"),
    "headless": (config(architectures=["LlamaModel"]), "is a LlamaModel, not a causal language model"),
    "vision": (config(vision_config={"depth": 2}), "is a model with a vision_config, not a causal language model"),
    "unknown": (config(model_type="unheard-of"), "‘unheard-of’ is unknown"),
    "own code": (config(model_type="unheard-of", auto_map={"AutoConfig": "evil.C"}), "code of its own"),
    "no kind": (config(model_type="-"), "names no model_type"),
    # tokenizers
    "another's tokenizer": (more_words, "has 540 tokens, but the weights have rows for 480: it belongs to another"),
    "token misplaced": (added_far_behind, "gives ‘<far>’ the id 900, but it is read as 480"),
    "sentencepiece only": (renamed("tokenizer.json", "tokenizer.model"), "needs its tokenizer.json"),
}  # fmt: skip


@pytest.mark.parametrize("what", REFUSED)
def test_page_and_loader_refuse_the_same_in_one_sentence(folder: Path, what: str) -> None:
    change, words = REFUSED[what]
    change(folder)
    with pytest.raises(ModelError, match=words) as caught:
        load_base(tiny_experiment(folder))
    assert [p.message for p in model_problems(str(folder)) if p.severity == "error"] == [str(caught.value)]
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 600
    model_shape(str(folder))
