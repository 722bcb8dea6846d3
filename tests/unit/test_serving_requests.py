"""What requests to the embedded server say: texts as training reads them, what is no text, adapters and their names."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import torch
from safetensors.torch import load_file, save_file

from app.ask.api import saying
from engine.models.tokenise import tokenise_questions
from engine.serving.asking.ask import ask
from engine.serving.asking.tokens import Tokens
from engine.serving.client import Refused, ServerClient
from engine.serving.embedded import residents
from engine.serving.embedded.server import EmbeddedServer
from storage.askings import Question
from storage.folders import checkpoint_folder, run_folder
from tests.loops import run_apart
from tests.unit.serving_home import add_run, models_of, reference, serving
from tests.unit.tiny_models import SUBJECTS, build_llama, build_qwen2

HALF = "a\\ud800b"  # as it is written in JSON


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("home")
    add_run(home, "llll", build_llama(home / "models"))
    add_run(home, "bbbb", build_qwen2(home / "models"), "lora")
    return home


@pytest.fixture(scope="module")
def served(home: Path) -> Iterator[tuple[ServerClient, EmbeddedServer]]:
    with serving(home, "bbbb") as found:
        yield found


def said(client: ServerClient, name: str) -> list[int] | None:
    return client.complete(name, [[5, 6, 7]], max_tokens=8, temperature=0, return_token_ids=True).choices[0].token_ids


@pytest.mark.parametrize("run", ["llll", "bbbb"])
def test_texts_are_read_as_in_training_and_evaluation(served: Any, home: Path, run: str) -> None:
    client, name = served[0], f"{run}/generalised@4"
    tokenizer = reference(home, run, "base").tokenizer
    texts = [f"{subject} [X]" for subject in SUBJECTS] + [f"Who is the mother of {s}?" for s in SUBJECTS]
    asked = [ids for ids, _ in tokenise_questions(tokenizer, [(text, "Cody Ross") for text in texts])]
    settings: dict[str, Any] = {"max_tokens": 8, "temperature": 0, "return_token_ids": True}
    by_text, by_ids = (client.complete(name, prompts, **settings).choices for prompts in (texts, asked))
    assert [c.prompt_token_ids for c in by_text] == asked
    assert [c.token_ids for c in by_text] == [c.token_ids for c in by_ids]
    plain = client.complete(name, texts[0], add_special_tokens=False, **settings).choices[0]
    assert plain.prompt_token_ids == tokenizer.encode(texts[0], add_special_tokens=False)
    assert (plain.prompt_token_ids != asked[0]) == (run == "llll"), "Llama’s tokenizer has a beginning token"
    begun = client.complete(name, texts[0], add_special_tokens=True, **settings).choices[0].prompt_token_ids
    assert begun == tokenizer.encode(texts[0], add_special_tokens=True)
    assert begun == asked[0]


@pytest.mark.parametrize("run", ["llll", "bbbb"])
@pytest.mark.parametrize("text", ["Lena Vogt [X]", "Lena  Vogt ", " Lena\n", "東京は", "<s>Lena</s>"])
def test_a_text_comes_back_as_it_was_sent(served: Any, run: str, text: str) -> None:
    client, name = served[0], f"{run}/memorised@4"
    first, second = client.complete(name, [text, "A"], echo=True, max_tokens=2, temperature=0, n=2).choices[::2]
    only = client.complete(name, text, max_tokens=2, temperature=0).choices[0].text
    assert first.text == text + only and second.text.startswith("A")
    assert client.complete(name, text, echo=True, max_tokens=0).choices[0].text == text


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("completions", '{"prompt": "HALF"}'),
        ("completions", '{"prompt": ["A", "HALF"]}'),
        ("completions", '{"prompt": "A", "model": "HALF"}'),
        ("completions", '{"prompt": "A", "stop": "HALF"}'),
        ("completions", '{"prompt": "A", "stop": ["x", "\\udfff"]}'),
        ("completions", '{"prompt": "A", "user": "HALF", "stream": true}'),
        ("completions", '{"prompt": "A", "logit_bias": {"HALF": 1}}'),
        ("completions", '{"prompt": "A", "suffix": "HALF"}'),
        ("completions", '{"prompt": "A", "HALF": 1}'),
        ("completions", '{"messages": [{"role": "HALF", "content": "A"}]}'),
        ("score_options", '{"model": "HALF", "questions": [], "option_sets": []}'),
        ("load_lora_adapter", '{"lora_name": "HALF", "lora_path": "x"}'),
        ("load_lora_adapter", '{"lora_name": "x", "lora_path": "HALF"}'),
        ("unload_lora_adapter", '{"lora_name": "HALF"}'),
    ],
)
def test_half_a_surrogate_pair_is_refused_in_words(served: Any, path: str, body: str) -> None:
    content = body.replace("HALF", HALF).encode()
    reply = httpx.post(
        f"{served[0].base_url}/v1/{path}", content=content, headers={"Content-Type": "application/json"}, timeout=60
    )
    assert reply.status_code == 400 and "half of a surrogate pair" in reply.json()["error"]["message"]


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ('{"prompt": ' + "[" * 400 + "]" * 400 + "}", "too many lists into lists"),
        ('{"prompt": "A", "user": ' + '{"a":' * 400 + "1" + "}" * 400 + "}", "too many lists into lists"),
        ('{"prompt": [' + "9" * 5000 + "]}", "a number that is far too large"),
        ('{"prompt": "A", "n": ' + "9" * 4000 + "}", "n: should be less than"),
        ('{"prompt": "A", "logprobs": ' + "9" * 4000 + "}", "logprobs: should be less than"),
        ('{"prompt": "A", "temperature": NaN}', "temperature: should be a finite number"),
        ('{"prompt": "A", "temperature": 1e999}', "temperature: should be a finite number"),
        ('{"prompt": "A", "top_p": -Infinity}', "top_p: should be greater than 0"),
        ('{"prompt": "A", "seed": 1.5}', "seed: should be a valid integer"),
        ('{"prompt": "A", "stop": "' + "x" * 1001 + '"}', "16 stop texts of 1,000 characters"),
        ('{"prompt": [' + "-1," * 200_000 + "-1]}", "holds a negative number"),
        ('{"prompt": "A", "temperature": "' + "h" * 9000 + '"}', "temperature: should be a valid number"),
        ("[1]", "no JSON object"),
        ("", "not JSON"),
    ],
    ids=lambda text: text[:20],
)
def test_what_is_no_request_is_said_in_a_sentence(served: Any, body: str, words: str) -> None:
    reply = httpx.post(
        f"{served[0].base_url}/v1/completions", content=body.encode(), headers={"Content-Type": "application/json"}
    )
    assert reply.status_code == 400 and words in reply.json()["error"]["message"] and len(reply.content) < 500


def test_the_client_and_the_asking_functions_refuse_what_is_no_text(served: Any, home: Path) -> None:
    client, half = served[0], "a\ud800b"
    for prompts in (half, ["A", half]):
        with pytest.raises(Refused, match="half of a surrogate pair"):
            client.complete("base", prompts)
    for settings, words in (({"top_p": 0}, "top_p: should be"), ({"temperature": float("nan")}, "temperature: should")):
        with pytest.raises(Refused, match=words):
            client.complete("base", "A", **settings)
    with pytest.raises(Refused, match="holds a negative number"):
        client.complete("base", [[-1]])
    with pytest.raises(Refused, match="holds a negative number"):
        client.score_options("base", [([-1], 0)], [[[1]]])
    with pytest.raises(Refused, match="half of a surrogate pair"):
        client.load_adapter("mine", Path(half))
    model = models_of(home, "bbbb")["base"]
    for question in (Question(text=half), Question(text="A", object=half)):
        with pytest.raises(ValueError, match=r"‘.*’ holds half of a surrogate pair, which is no character: remove it"):
            ask(client, model, [question])
    assert Tokens.load(model.tokenizer).ids("東京は😀")


def test_functions_for_scripts_refuse_what_is_no_text() -> None:
    calls: list[Any] = []

    def ask(run: str, text: str = "", temperature: float = 0.0, limit: int = 3) -> None:
        calls.append((run, text, temperature, limit))

    function: Any = saying(ask)
    for bad in ("a\ud800b", "a\0b"):
        for arguments, named in (((bad,), {}), (("a", "b", 2.0), {"text": bad})):
            with pytest.raises(Exception, match="half of a surrogate pair or a null character"):
                run_apart(function(*arguments[: 1 if named else None], **named))
    wrong: list[tuple[tuple[Any, ...], str]] = [
        ((7,), "run"), (("a", None), "text"), (("a", "b", float("nan")), "temperature"),
        (("a", "b", 0, 1.5), "limit"), (("a", "b", 10**400), "temperature"),
    ]  # fmt: skip
    for values, place in wrong:
        with pytest.raises(Exception, match=f"(?i){place}: input should be"):
            run_apart(function(*values))
    run_apart(function("東京😀", text="\n"))
    assert calls == [("東京😀", "\n", 0.0, 3)]


def test_a_name_is_given_again_only_when_that_is_said(served: Any, home: Path) -> None:
    client, _ = served
    first, second = (checkpoint_folder(run_folder(home, "bbbb"), name) for name in ("memorised@4", "generalised@4"))
    client.load_adapter("mine", first)
    for folder in (first, second):
        with pytest.raises(Refused, match="an adapter ‘mine’ already: choose another name, unload it first, or"):
            client.load_adapter("mine", folder)
    assert said(client, "mine") == said(client, "bbbb/memorised@4") != said(client, "bbbb/generalised@4")
    body = {"lora_name": "mine", "lora_path": str(second), "load_inplace": False}
    assert httpx.post(f"{client.base_url}/v1/load_lora_adapter", json=body).status_code == 400
    client.load_adapter("mine", second, inplace=True)
    assert said(client, "mine") == said(client, "bbbb/generalised@4")
    damaged = shutil.copytree(first, home / "damaged")
    (damaged / "adapter_model.safetensors").write_bytes(b"no")
    with pytest.raises(Refused, match="incomplete or damaged"):
        client.load_adapter("mine", damaged, inplace=True)
    assert said(client, "mine") == said(client, "bbbb/generalised@4"), "what could not be replaced stays"
    client.load_adapter("new", first, inplace=True)
    client.unload_adapter("mine")
    client.unload_adapter("new")
    client.load_adapter("mine", first)
    assert said(client, "mine") == said(client, "bbbb/memorised@4")
    client.unload_adapter("mine")
    for name in ("mine", "", "bbbb/memorised@9", "x" * 9000):
        with pytest.raises(Refused, match="no adapter"):
            client.unload_adapter(name)


def test_names_and_folders_that_are_none_are_refused(served: Any, home: Path, tmp_path: Path) -> None:
    client, _ = served
    real = checkpoint_folder(run_folder(home, "bbbb"), "memorised@4")
    for name in ("", " ", " a", "a\nb", "a\0b", "a\u202eb", "x" * 201, "base"):
        with pytest.raises(Refused, match="cannot be the name of an adapter"):
            client.load_adapter(name, real)
    (home / "ring").symlink_to(home / "ring")
    for path in ("a\0b", "x" * 5000, f"{home}/{'x' * 5000}", f"{home}/ring", f"{home}/ring/x", str(real / "x"), ""):
        with pytest.raises(Refused, match=r"there is no adapter in|from inside the lab’s home only"):
            client.load_adapter("mine", Path(path) if path else tmp_path)
    pipes, outside = home / "pipes", home / "outside"
    for folder in (pipes, outside):
        shutil.copytree(real, folder, dirs_exist_ok=True)
        (folder / "adapter_model.safetensors").unlink()
    os.mkfifo(pipes / "adapter_model.safetensors")
    shutil.copy(real / "adapter_model.safetensors", tmp_path)
    (outside / "adapter_model.safetensors").symlink_to(tmp_path / "adapter_model.safetensors")
    with pytest.raises(Refused, match="incomplete or damaged"):
        client.load_adapter("mine", pipes)
    with pytest.raises(Refused, match="from inside the lab’s home only"):
        client.load_adapter("mine", outside)
    assert "mine" not in {card.id for card in client.models()}


@pytest.mark.parametrize("large", [False, True])
def test_an_adapter_that_fails_half_way_leaves_its_base_as_it_was(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, large: bool
) -> None:
    if large:
        monkeypatch.setattr(residents, "SMALL_MODEL_PARAMETERS", 0)
    real = checkpoint_folder(run_folder(home, "bbbb"), "memorised@4")
    bad = shutil.copytree(real, home / f"bad{large}")
    tensors = load_file(real / "adapter_model.safetensors")
    last = sorted(tensors)[-1]  # the ranks of one pair differ: the first layers are filled before that is found
    tensors[last] = torch.cat([tensors[last]] * 2, 1)
    save_file(tensors, bad / "adapter_model.safetensors")
    with serving(home, "bbbb") as (client, _):
        right = [said(client, name) for name in ("base",)]
        with pytest.raises(Refused, match="cannot be loaded"):
            client.load_adapter("mine", bad)
        assert [said(client, "base")] == right
        names = ("bbbb/memorised@4", "bbbb/generalised@4", "base")
        before = [said(client, name) for name in names]
        assert before[0] != before[1] != before[2] == right[0]
        with pytest.raises(Refused, match="cannot be loaded"):
            client.load_adapter("mine", bad)
        assert [said(client, name) for name in names] == before
