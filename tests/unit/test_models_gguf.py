"""GGUF files as models: what is read of a hostile one, what is written of a sound one."""

from __future__ import annotations

import errno
import os
import resource
import signal
import struct
from pathlib import Path

import pytest
import torch
from transformers import AutoTokenizer

from engine.models import gguf
from engine.models.around import around_of
from engine.models.files import experiment_problems, find_folder, located, model_shape
from engine.models.gguf import converted
from engine.models.gguf_header import gguf_architectures, read_header
from engine.models.loading import load_base, load_checkpoint, save_model
from engine.models.source import ModelError, resolve_source
from engine.models.tokenise import tokenise
from engine.settings import ModelText
from tests.unit.tiny_gguf import build_gguf
from tests.unit.tiny_models import tiny_experiment

pytestmark = pytest.mark.usefixtures("home")


def old(path: Path) -> Path:
    """As a file that was not written a moment ago, whose hash may be remembered."""
    os.utime(path, (1_700_000_000, 1_700_000_000))
    return path


def test_a_gguf_file_becomes_a_folder_that_begins_texts_as_the_file_says(tmp_path: Path, home: Path) -> None:
    path = build_gguf(tmp_path / "tiny.gguf")
    folder = converted(str(path))
    assert folder is not None and folder.parent == home / "models"
    tokenizer = AutoTokenizer.from_pretrained(folder)
    ids = tokenizer("in 1985 a").input_ids
    assert ids[0] == 1 == tokenizer.bos_token_id and 2 not in ids
    assert tokenizer.decode(ids, skip_special_tokens=True) == "in 1985 a"
    assert tokenizer.chat_template.startswith("{% for m in messages %}")
    for text in ("日本語、中文", "Ärger 🙂\n\n  zwei", "<unused7>"):
        assert tokenizer.decode(tokenizer(text, add_special_tokens=False).input_ids) == text
    assert (folder / "origin.json").is_file() and (folder / "checksums.json").is_file()


def test_a_file_that_adds_no_beginning_gets_none(tmp_path: Path) -> None:
    folder = converted(str(build_gguf(tmp_path / "tiny.gguf", beginning=False)))
    assert AutoTokenizer.from_pretrained(folder)("a").input_ids[0] != 1


@pytest.mark.parametrize(
    ("beginning", "last", "first"), [(None, "<0x0A>", 1), (False, "<0x0A>", None), (None, "x", None)]
)
def test_a_file_that_is_silent_of_its_beginning_has_that_of_its_family(
    tmp_path: Path, beginning: bool | None, last: str, first: int | None
) -> None:
    """Llama 3's files say nothing of it, since its own tokenizer's settings do not; llama.cpp adds one all the same."""
    path = build_gguf(tmp_path / "tiny.gguf", beginning=beginning, last=last)
    folder = converted(str(path))
    assert folder and around_of(folder, ModelText()).beginning == ((first,) if first is not None else ())
    ((ids, _),) = tokenise(load_base(tiny_experiment(path)).tokenizer, ["a"])
    assert (ids[0] == 1) == (first == 1)


def test_the_weights_are_the_files_own(tmp_path: Path) -> None:
    from gguf import GGUFReader

    path = build_gguf(tmp_path / "tiny.gguf")
    loaded = load_base(tiny_experiment(path))
    tensors = {t.name: torch.tensor(t.data) for t in GGUFReader(path).tensors}
    rows = loaded.causal.get_parameter("model.embed_tokens.weight")[: len(tensors["token_embd.weight"])]
    assert torch.equal(rows.detach().cpu(), tensors["token_embd.weight"])
    down = loaded.causal.get_parameter("model.layers.1.mlp.down_proj.weight").detach().cpu()
    assert torch.equal(down, tensors["blk.1.ffn_down.weight"])


def test_a_folder_with_one_gguf_file_is_a_model_and_is_converted_once(tmp_path: Path, home: Path) -> None:
    (tmp_path / "model").mkdir()
    path = build_gguf(tmp_path / "model" / "tiny.gguf")
    first = converted(str(tmp_path / "model"))
    assert first is not None
    written = (first / "model.safetensors").stat().st_mtime_ns
    assert converted(str(path)) == first and (first / "model.safetensors").stat().st_mtime_ns == written
    assert [p.name for p in (home / "models").iterdir() if not p.name.startswith(".")] == [first.name]


def test_a_file_that_changes_while_it_is_converted_gives_no_model(
    tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = build_gguf(tmp_path / "tiny.gguf")

    def convert_the_next(path: Path, target: Path, sha256: str) -> None:
        build_gguf(path, beginning=False)
        (target / "model.safetensors").write_bytes(b"of the next one")

    monkeypatch.setattr(gguf, "convert", convert_the_next)
    with pytest.raises(ModelError, match="changed while it was converted"):
        converted(str(path))
    assert not [p.name for p in (home / "models").iterdir() if not p.name.endswith(".lock")]


BESIDE = {
    "tokenizer_config.json": '{"tokenizer_class": "BertTokenizer", "bos_token": "<unused7>"}',
    "tokenizer.json": "{}",
    "adapter_config.json": '{"peft_type": "LORA", "base_model_name_or_path": "nobody/nothing", "target_modules": []}',
}


@pytest.mark.parametrize("name", BESIDE)
def test_what_lies_beside_a_file_is_not_read(tmp_path: Path, name: str) -> None:
    for folder in ("alone", "model", "first", "second"):
        (tmp_path / folder).mkdir()
    gguf.convert(build_gguf(tmp_path / "alone" / "tiny.gguf"), tmp_path / "first", "")
    (tmp_path / "model" / name).write_text(BESIDE[name])
    gguf.convert(build_gguf(tmp_path / "model" / "tiny.gguf"), tmp_path / "second", "")
    assert contents(tmp_path / "first") == contents(tmp_path / "second")


def test_nobody_is_asked_whether_code_beside_a_file_may_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "tokenizer_config.json").write_text('{"auto_map": {"AutoTokenizer": ["evil.Tokenizer", null]}}')
    (tmp_path / "evil.py").write_text("raise SystemExit('code of a model was run')")
    monkeypatch.setattr("builtins.input", lambda *_: "y")
    assert converted(str(build_gguf(tmp_path / "tiny.gguf")))


def test_a_full_disk_is_not_the_files_fault(tmp_path: Path, home: Path) -> None:
    """A limit on the size of files stands for the disk: both reach safetensors as a failed write."""
    path = build_gguf(tmp_path / "tiny.gguf")
    previous = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, previous[1]))
        with pytest.raises(OSError, match="large") as caught:
            converted(str(path))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, previous)
        signal.signal(signal.SIGXFSZ, ignored)
    assert caught.value.errno == errno.EFBIG
    assert not [p for p in (home / "models").iterdir() if not p.name.endswith(".lock")]


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_before_a_run_the_page_says_that_it_will_be_converted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = old(build_gguf(tmp_path / "tiny.gguf"))
    experiment = tiny_experiment(path)
    (problem,) = experiment_problems(experiment)
    assert problem.severity == "warning" and "will be converted (about 0.0 GB) when the run starts" in problem.message
    assert (shape := model_shape(str(path))) and shape.parameters == read_header(path).parameters
    monkeypatch.chdir(tmp_path)
    assert located(experiment.model_copy(update={"model": "tiny.gguf"})).model == str(path)


def test_a_converted_file_resolves_to_its_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engine.models.fingerprint.SAME_TIME_SECONDS", -10.0)
    path = build_gguf(tmp_path / "tiny.gguf")
    folder = converted(str(path))
    assert resolve_source(str(path)) == folder == find_folder(str(path))
    assert experiment_problems(tiny_experiment(path)) == []


def header_of(path: Path, *, entries: bytes = b"", counts: tuple[int, int] = (0, 0), version: int = 3) -> Path:
    path.write_bytes(b"GGUF" + struct.pack("<IQQ", version, *counts) + entries)
    return path


def text(value: str) -> bytes:
    return struct.pack("<Q", len(value.encode())) + value.encode()


def settings(path: Path, **values: int | float | str) -> Path:
    """A Llama of one tensor with these settings, in which `__` stands for a point."""
    kinds = {int: (4, "<I"), float: (6, "<f")}
    entries = text("general.architecture") + struct.pack("<I", 8) + text("llama")
    for name, value in values.items():
        entries += text(name.replace("__", "."))
        if isinstance(value, str):
            entries += struct.pack("<I", 8) + text(value)
        else:
            kind, packing = kinds[type(value)]
            entries += struct.pack("<I", kind) + struct.pack(packing, value)
    entries += text("w") + struct.pack("<IQIQ", 1, 32, 0, 0)
    return header_of(path, counts=(1, len(values) + 1), entries=entries + bytes(256))


LONG = struct.pack("<Q", 2**62)
HOSTILE = {
    "no GGUF": (lambda p: p.write_bytes(b"PK\3\4 some archive"), "is no GGUF file"),
    "empty": (lambda p: p.write_bytes(b""), "is no GGUF file"),
    "another version": (lambda p: header_of(p, version=99), "of version 99"),
    "many tensors": (lambda p: header_of(p, counts=(2**60, 0)), "is a damaged GGUF file (it names"),
    "a name without end": (lambda p: header_of(p, counts=(0, 1), entries=LONG), "holds a text of"),
    "a list without end": (
        lambda p: header_of(p, counts=(0, 1), entries=text("x") + struct.pack("<IIQ", 9, 4, 2**40)),
        "holds a list of",
    ),
    "a list of lists": (
        lambda p: header_of(p, counts=(0, 1), entries=text("x") + struct.pack("<IIQ", 9, 9, 1)),
        "holds a list of",
    ),
    "an unknown kind": (lambda p: header_of(p, counts=(0, 1), entries=text("x") + b"\x63\0\0\0"), "unknown kind 99"),
    "cut in the header": (lambda p: header_of(p, counts=(0, 1), entries=text("x")), "it is cut off"),
    "parts": (lambda p: build_gguf(p, split=3), "is one of 3 parts"),
    "another kind": (lambda p: build_gguf(p, architecture="clip"), "holds a ‘clip’ model"),
    "a text for a list": (
        lambda p: settings(p, llama__embedding_length=1000, tokenizer__ggml__tokens="x\ny"),
        "ggml.tokens is x y",
    ),
    "a text for a width": (lambda p: settings(p, llama__attention__key_length="x"), "attention.key_length is x"),
    "a text for the alignment": (lambda p: settings(p, general__alignment="x"), "alignment is x"),
    "no number": (lambda p: settings(p, general__alignment=float("nan")), "alignment is nan"),
    "a text for parts": (lambda p: settings(p, split__count="x"), "count is x"),
    "wide rotations": (
        lambda p: settings(p, llama__rope__dimension_count=2**32 - 2),
        "rope.dimension_count is 4294967294",
    ),
    "many layers": (lambda p: build_gguf(p, block_count=10**9), "block_count is 1000000000"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_what_cannot_be_read_is_one_sentence_before_a_run(name: str, tmp_path: Path) -> None:
    make, words = HOSTILE[name]
    path = tmp_path / "x.gguf"
    make(path)
    with pytest.raises(ModelError) as error:
        read_header(path)
    assert words in str(error.value) and "\n" not in str(error.value)
    assert [p.severity for p in experiment_problems(tiny_experiment(path))] == ["error"]
    with pytest.raises(ModelError):
        converted(str(path))


def test_a_file_that_was_cut_off_is_told_by_its_size(tmp_path: Path) -> None:
    path = build_gguf(tmp_path / "x.gguf")
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ModelError, match="it ends after"):
        read_header(path)


def test_more_layers_than_weights_are_refused_before_they_are_made(tmp_path: Path, home: Path) -> None:
    with pytest.raises(ModelError, match="fewer than its settings say"):
        read_header(build_gguf(tmp_path / "many.gguf", block_count=1_500))
    with pytest.raises(ModelError, match="lacks weights"):
        converted(str(build_gguf(tmp_path / "x.gguf", block_count=3)))
    assert not [p for p in (home / "models").iterdir() if not p.name.endswith(".lock")]


def test_a_pipe_and_a_folder_of_several_are_told(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "x.gguf")
    (pipe,) = experiment_problems(tiny_experiment(tmp_path / "x.gguf"))
    assert "is no ordinary file" in pipe.message
    (tmp_path / "two").mkdir()
    for name in ("a.gguf", "b.gguf"):
        build_gguf(tmp_path / "two" / name)
    (several,) = experiment_problems(tiny_experiment(tmp_path / "two"))
    assert "several GGUF files" in several.message


def test_transformers_list_of_kinds_is_read_without_importing_it() -> None:
    from transformers.modeling_gguf_pytorch_utils import GGUF_SUPPORTED_ARCHITECTURES

    assert {"llama", "gemma3", "qwen2"} <= gguf_architectures()
    assert set(GGUF_SUPPORTED_ARCHITECTURES) - {"general", "tokenizer"} <= gguf_architectures()


def test_terms_travel_with_what_is_made_of_a_model(tmp_path: Path) -> None:
    path = build_gguf(tmp_path / "tiny.gguf")
    folder = converted(str(path))
    assert folder
    for name in ("LICENSE", "NOTICE", "GEMMA_TERMS.html"):
        (folder / name).write_text(f"terms in {name}")
    loaded = load_base(tiny_experiment(path))
    save_model(loaded, tmp_path / "first")
    for name in ("LICENSE", "NOTICE", "GEMMA_TERMS.html"):
        assert (tmp_path / "first" / name).read_text() == f"terms in {name}"
    again = load_checkpoint(tiny_experiment(path), tmp_path / "first")
    save_model(again, tmp_path / "second")
    assert (tmp_path / "second" / "NOTICE").is_file()
