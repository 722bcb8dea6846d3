"""Whatever is sent to the embedded server gets an answer in words, and who asks beside it gets the usual one.

`FUZZ_EXAMPLES=5000` looks longer; `--hypothesis-seed=N` repeats a search.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

from engine.serving.embedded.limits import MOST_REPLY_BYTES
from engine.serving.protocol import CompletionRequest, LoadAdapterRequest, Message, OptionsRequest, UnloadAdapterRequest
from tests.unit.serving_home import add_run, serving
from tests.unit.tiny_models import build_llama, build_qwen2

EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", "80"))
MODELS = ["base", "aaaa/memorised@4", "llll/generalised@4", "bbbb/memorised@4"]
GOOD = {"prompt": [[5, 6, 7], [8]], "max_tokens": 5, "temperature": 0.9, "seed": 4, "return_token_ids": True}

texts = st.text(max_size=30) | st.sampled_from(["\ud800", "a\udfffb", "\0", "<s>", "[X]", "东", "A " * 200, "../x", ""])
numbers = (
    st.integers(-3, 70)
    | st.sampled_from([511, 512, 1001, 10_001, 2**31, 2**63 - 1, 2**63, -(2**63), 10**400])
    | st.floats()
    | st.sampled_from([1e-46, 5e-324, 1e-5, 1e308, 0.5, 1.0, 1e400])
)
scalars: SearchStrategy[Any] = st.none() | st.booleans() | numbers | texts
anything = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=3), max_leaves=6
)
ids = st.lists(st.integers(0, 511) | st.integers(-1, 600), max_size=70)
prompts = texts | ids | st.lists(texts, max_size=4) | st.lists(ids, max_size=4)
FITTING: dict[str, SearchStrategy[Any]] = {
    "prompt": prompts,
    "model": st.sampled_from(MODELS),
    "max_tokens": st.integers(0, 60) | numbers,
    "temperature": st.floats(0, 3) | numbers,
    "top_p": st.floats(0, 1) | numbers,
    "seed": st.integers(-(2**63), 2**63),
    "logprobs": st.integers(0, 6) | numbers,
    "prompt_logprobs": st.integers(0, 6) | numbers,
    "logprob_token_ids": ids,
    "stop": texts | st.lists(texts, max_size=18),
    "score_answers": st.lists(ids, max_size=4),
    "n": st.integers(1, 4) | numbers,
    **dict.fromkeys(
        ("echo", "stream", "ignore_eos", "add_special_tokens", "skip_special_tokens", "return_token_ids"), st.booleans()
    ),
    **dict.fromkeys(("top_k", "min_p", "frequency_penalty", "best_of", "repetition_penalty", "min_tokens"), numbers),
    "return_tokens_as_token_ids": st.booleans(),
    "logit_bias": st.dictionaries(texts, numbers, max_size=2),
    "lora_name": texts | st.sampled_from(MODELS),
    "lora_path": texts | st.sampled_from(["runs", "runs/bbbb/checkpoints/memorised@4", "/", "/etc", "/dev/null"]),
    "load_inplace": st.booleans(),
    "options": st.integers(-1, 3),
    "option_sets": st.lists(st.lists(ids, max_size=3), max_size=3),
    "questions": st.lists(st.fixed_dictionaries({"prompt": ids, "options": st.integers(-1, 3)}), max_size=3),
}
PATHS: dict[str, type[Message]] = {
    "completions": CompletionRequest,
    "score_options": OptionsRequest,
    "load_lora_adapter": LoadAdapterRequest,
    "unload_lora_adapter": UnloadAdapterRequest,
}


@st.composite
def requests(draw: st.DrawFn) -> tuple[str, bytes]:
    """A path, and a body that is right in most of its fields, in some of them, or in none."""
    path = draw(st.sampled_from(["completions"] * 6 + [*PATHS]))
    fields = list(PATHS[path].model_fields)
    others = ["top_k", "min_p", "logit_bias", "frequency_penalty", "best_of", "user", "messages", "suffix", "\ud800"]
    chosen = draw(st.lists(st.sampled_from([*fields, *others]), max_size=6, unique=True))
    needed = [name for name, field in PATHS[path].model_fields.items() if field.is_required()]
    if draw(st.integers(0, 9)):
        chosen = [*needed, "model", *chosen]
    odd = draw(st.sampled_from([0, 0, 0, 3, 10]))
    body = {
        name: draw(FITTING.get(name, anything) if draw(st.integers(0, 9)) >= odd else anything)
        for name in dict.fromkeys(chosen)
    }
    content = json.dumps(body).encode()
    if draw(st.integers(0, 19)) == 0:
        place = draw(st.integers(0, len(content)))
        content = content[:place] + draw(st.binary(max_size=3)) + content[place + draw(st.integers(0, 3)) :]
    return path, content


@pytest.fixture(scope="module")
def asked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, httpx.Client, ThreadPoolExecutor]]:
    home = tmp_path_factory.mktemp("home")
    add_run(home, "aaaa", build_qwen2(home / "models"))
    add_run(home, "bbbb", home / "models" / "qwen2", "lora")
    add_run(home, "llll", build_llama(home / "models"))
    with serving(home, "bbbb") as (client, _), httpx.Client(timeout=120) as http, ThreadPoolExecutor(3) as pool:
        yield client.base_url, http, pool


right: dict[str, Any] = {}


@settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck))
@given(requests(), st.sampled_from(MODELS[:2]))
def test_every_request_is_answered_in_words_and_harms_nobody(asked: Any, request: Any, model: str) -> None:
    url, http, pool = asked

    def post(path: str, content: bytes) -> httpx.Response:
        return http.post(f"{url}/v1/{path}", content=content, headers={"Content-Type": "application/json"})

    good = json.dumps({"model": model, **GOOD}).encode()
    before, reply, after = pool.map(lambda one: post(*one), [("completions", good), request, ("completions", good)])
    assert reply.status_code in (200, 400, 404), (request, reply.text)
    if reply.status_code == 200:
        assert len(reply.content) <= MOST_REPLY_BYTES
    else:
        words = reply.json()["error"]["message"]
        assert 5 < len(words) < 500 and "\n" not in words and "Error" not in words
    for beside in (before, after):
        choices = beside.json()["choices"]
        assert choices == right.setdefault(model, choices)
