"""Requests to the embedded model server: answered, or refused in words; no failure, no neighbour's answer lost."""

from __future__ import annotations

import json
import tempfile
from contextlib import ExitStack
from functools import cache
from pathlib import Path
from typing import Any

import httpx
from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

from tests.fuzz.target import Target, fed
from tests.fuzz.texts import ANYTHING, NUMBERS, TEXT, mostly
from tests.unit.serving_home import add_run, serving
from tests.unit.tiny_models import build_qwen2

LASTING = ExitStack()  # what stays open until the process ends
IDS = st.lists(st.integers(-1, 520), max_size=6)
GOOD = {
    "model": "aaaa/generalised@4",
    "prompt": [[5, 6, 7]],
    "max_tokens": 4,
    "temperature": 0,
    "return_token_ids": True,
}


@cache
def _address() -> str:
    home = Path(LASTING.enter_context(tempfile.TemporaryDirectory()))
    add_run(home, "aaaa", build_qwen2(home / "models"))
    client, _ = LASTING.enter_context(serving(home, "aaaa"))
    return str(client.base_url)


@cache
def _expected() -> Any:
    return _ask(GOOD).json()["choices"][0]["token_ids"]


def _ask(body: Any, path: str = "completions") -> httpx.Response:
    content = json.dumps(body) if not isinstance(body, bytes) else body
    return httpx.post(
        f"{_address()}/v1/{path}", content=content, headers={"content-type": "application/json"}, timeout=120
    )


def _sane(reply: httpx.Response) -> str:
    assert reply.status_code in (200, 400, 404, 413, 422, 429, 503), f"{reply.status_code}: {reply.text[:300]}"
    assert len(reply.content) < 20_000_000
    if reply.status_code == 200:
        return "accepted"
    message = reply.json()["error"]["message"]
    assert message.strip() and message.isprintable() and "Traceback" not in message
    return "refused"


PROMPTS = mostly(
    st.lists(st.lists(st.integers(0, 500), min_size=1, max_size=6), min_size=1, max_size=3) | st.just("Ann Bee"),
    TEXT | IDS | st.lists(IDS, max_size=3) | st.lists(TEXT, max_size=3) | ANYTHING,
)
REQUESTS: SearchStrategy[dict[str, Any]] = st.fixed_dictionaries(
    {
        "model": mostly(st.sampled_from(["aaaa/base", "aaaa/memorised@4", "aaaa/generalised@4"]), TEXT),
        "prompt": PROMPTS,
    },
    optional={
        "max_tokens": mostly(st.integers(0, 12), NUMBERS), "echo": st.booleans(), "ignore_eos": st.booleans(),
        "temperature": mostly(st.sampled_from([0, 1e-9, 1e-320, 1, 5, 1e300]), NUMBERS),
        "top_p": mostly(st.sampled_from([1, 0.5, 1e-40, 1e-46, 1e-320]), NUMBERS), "seed": mostly(st.just(1), NUMBERS),
        "logprobs": mostly(st.integers(0, 5), NUMBERS), "prompt_logprobs": mostly(st.integers(0, 5), NUMBERS),
        "logprob_token_ids": mostly(st.just([1, 2]), IDS), "stop": mostly(st.just("x"), TEXT | st.lists(TEXT)),
        "n": mostly(st.just(1), NUMBERS), "add_special_tokens": st.booleans(), "skip_special_tokens": st.booleans(),
        "return_tokens_as_token_ids": st.booleans(), "return_token_ids": st.booleans(), "x": ANYTHING,
        "score_answers": mostly(st.just([[1, 2]]), st.lists(IDS, max_size=3)),
        "stream": mostly(st.just(False), st.booleans()),
    },
)  # fmt: skip


@fed(REQUESTS)
def completions(body: dict[str, Any]) -> str:
    """A request with any values in its fields, and after it a plain one, which gets its usual answer."""
    outcome = _sane(_ask(body))
    assert _ask(GOOD).json()["choices"][0]["token_ids"] == _expected()
    return outcome


OTHER: SearchStrategy[tuple[str, Any]] = st.one_of(
    st.tuples(
        st.just("score_options"),
        st.fixed_dictionaries(
            {
                "model": st.just("aaaa/base") | TEXT,
                "questions": st.lists(st.fixed_dictionaries({"prompt": IDS, "options": NUMBERS}), max_size=3),
                "option_sets": st.lists(st.lists(IDS, max_size=3), max_size=2),
            }
        ),
    ),
    st.tuples(
        st.just("load_lora_adapter"),
        st.fixed_dictionaries({"lora_name": TEXT, "lora_path": TEXT}, optional={"load_inplace": ANYTHING}),
    ),
    st.tuples(st.just("unload_lora_adapter"), st.fixed_dictionaries({"lora_name": TEXT})),
    st.tuples(
        st.sampled_from(["completions", "score_options", "load_lora_adapter"]), ANYTHING | st.binary(max_size=80)
    ),
)


@fed(OTHER)
def other_requests(asked: tuple[str, Any]) -> str:
    """The server's other addresses, and bodies that are no requests at all."""
    path, body = asked
    return _sane(_ask(body, path))


TARGETS = (
    Target("completions at the model server", completions, 3, shrinks=False),
    Target("its other addresses", other_requests, 1, shrinks=False),
)
