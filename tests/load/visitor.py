"""A browser's share of the work, without a browser: it opens the lab's pages and calls their functions as Gradio's
client does, keeps what fields show, and notes how long each answer took.
"""

from __future__ import annotations

import asyncio
import json
import secrets
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx

API = "/gradio_api"


@dataclass
class Taken:
    """What a load saw: (what was asked for, seconds, what went wrong or '')."""

    rows: list[tuple[str, float, str]] = field(default_factory=list)

    @asynccontextmanager
    async def timed(self, kind: str) -> AsyncIterator[None]:
        """Note how long the block took, and the error that it ended with, which goes no further."""
        began, problem = time.perf_counter(), ""
        try:
            yield
        except (httpx.HTTPError, AssertionError, KeyError, ValueError) as error:
            problem = f"{type(error).__name__}: {error}"[:300]
        self.rows.append((kind, time.perf_counter() - began, problem))


class Tab:
    """One opened page of somebody's: what its fields hold, and its functions."""

    def __init__(self, client: httpx.AsyncClient, config: Mapping[str, Any], path: str, taken: Taken) -> None:
        self._client, self._taken, self._session = client, taken, secrets.token_hex(6)
        self.path, _, self._query = path.partition("?")
        own = set(config["page"][self.path.strip("/")]["dependencies"])
        self._functions = [d for d in config["dependencies"] if d["id"] in own and d["backend_fn"]]
        parts = {c["id"]: c for c in config["components"]}
        self.values: dict[int, Any] = {i: c["props"].get("value") for i, c in parts.items()}
        self._timers = {i: c["props"] for i, c in parts.items() if c["type"] == "timer"}
        self._steps = 0

    async def open(self) -> None:
        """Fetch the document, and all that it draws itself with."""
        async with self._taken.timed("page"):
            answer = await self._client.get(self.path, params=self._query, headers={"Accept": "text/html"})
            assert answer.status_code == 200, f"{self.path}: {answer.status_code}"
        for function in self._functions:
            if any(event == "load" for _, event in function["targets"]):
                await self.call("open", function)
                for later in self._functions:
                    if later.get("trigger_after") == function["id"]:
                        await self.call("open", later)

    async def stay(self, seconds: float) -> None:
        """Let the page's timers tick for so long."""
        end, due = time.monotonic() + seconds, dict.fromkeys(self._timers, 0.0)
        for timer, settings in self._timers.items():
            due[timer] = time.monotonic() + float(settings["value"])
        while time.monotonic() < end:
            await asyncio.sleep(0.2)
            for function in self._functions:
                for timer, event in function["targets"]:
                    settings = self._timers.get(timer)
                    if event == "tick" and settings and settings.get("active", True) and due[timer] < time.monotonic():
                        await self.call("tick", function)
                        due[timer] = time.monotonic() + float(self._timers[timer]["value"])

    def function(self, event: str, place: int = 0) -> dict[str, Any]:
        """The page's function of that event; of several the one at that place."""
        return [f for f in self._functions if any(e == event for _, e in f["targets"])][place]

    async def call(self, kind: str, function: Mapping[str, Any], **click: Any) -> None:
        """Call a function with what its fields hold, as by a click on what has these data-*; take over its answer."""
        async with self._taken.timed(kind):
            self._take(function, await self._answer(function, click))

    async def _answer(self, function: Mapping[str, Any], click: dict[str, Any]) -> list[Any]:
        self._steps += 1
        data = [self.values.get(i) for i in function["inputs"]]
        if data and isinstance(function.get("js"), str) and "designSteps" in function["js"]:
            data[-1] = self._steps
        body = {"data": data, "fn_index": function["id"], "session_hash": self._session, "event_data": click or None}
        if not function["queue"]:
            answer = await self._client.post(f"{API}/run/predict", params=self._query, json=body)
            assert answer.status_code == 200, f"{function['api_name']}: {answer.status_code} {answer.text[:200]}"
            return list(answer.json()["data"])
        joined = await self._client.post(f"{API}/queue/join", params=self._query, json=body)
        assert joined.status_code == 200, f"{function['api_name']}: {joined.status_code} {joined.text[:200]}"
        event = joined.json()["event_id"]
        where = {"session_hash": self._session}
        async with self._client.stream("GET", f"{API}/queue/data", params=where) as stream:
            async for line in stream.aiter_lines():
                told = json.loads(line[5:]) if line.startswith("data:") else {}
                if told.get("event_id") == event and told.get("msg") == "process_completed":
                    assert told["success"], f"{function['api_name']}: {told['output']}"
                    return list(told["output"]["data"])
        raise AssertionError(f"{function['api_name']}: the answer did not come")

    def _take(self, function: Mapping[str, Any], answer: list[Any]) -> None:
        for place, value in zip(function["outputs"], answer, strict=True):
            if isinstance(value, dict) and value.get("__type__") == "update":
                if place in self._timers:
                    self._timers[place] = {
                        **self._timers[place],
                        **{k: value[k] for k in ("value", "active") if k in value},
                    }
                if "value" in value:
                    self.values[place] = value["value"]
            else:
                self.values[place] = value

    async def fetch(self, path: str) -> None:
        """Download something."""
        async with self._taken.timed("export"):
            answer = await self._client.get(path)
            assert answer.status_code == 200, f"{path}: {answer.status_code} {answer.text[:200]}"
