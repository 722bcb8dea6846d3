"""For whoever keeps a lab running: whether it is in health, and what it does, as Prometheus reads it.

/healthz answers everybody, also where the lab would refuse them: it says no more than that. /metrics answers whoever
may open the pages.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterable

from anyio.to_thread import run_sync
from fastapi import FastAPI, Response
from prometheus_client import CollectorRegistry, Counter, GCCollector, Histogram, ProcessCollector, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from prometheus_client.metrics_core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.shared.lab import Lab
from app.shared.words import STATES
from engine import __version__
from engine.hardware import gpu_memory
from storage.askings import count_waiting
from storage.database import DATABASE_NAME
from storage.runs import count_by_state
from storage.trouble import say_trouble

HEALTH, METRICS = "/healthz", "/metrics"
BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
# What an address is for, by its beginning; all else is a page.
KINDS = {
    "/gradio_api/queue/join": "function", "/gradio_api/run/": "function", "/gradio_api/call/": "function",
    "/gradio_api/api/": "function", "/gradio_api/upload": "upload", "/export/": "export", "/model-card": "export",
    "/static/": "file", "/assets/": "file", "/svelte/": "file", "/lab/": "file", "/gradio_api/": "file",
}  # fmt: skip
# They end when the page goes, or when what they wait for has come.
STREAMS = ("/gradio_api/queue/data", "/gradio_api/heartbeat/", "/gradio_api/upload_progress")


class Operation:
    """ASGI middleware outside of what refuses requests: answers /healthz, and takes the time of every other request."""

    def __init__(self, app: ASGIApp, lab: Lab, registry: CollectorRegistry) -> None:
        self.app, self.lab = app, lab
        self.seconds = Histogram(
            "rote_lab_request_seconds", "From a request to the begin of its answer.", ("kind",), buckets=BUCKETS,
            registry=registry,
        )  # fmt: skip
        self.requests = Counter("rote_lab_requests", "Requests answered.", ("kind", "status"), registry=registry)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, and count it once its answer begins."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
        elif scope["path"] == HEALTH:
            await (await run_sync(self._health))(scope, receive, send)
        else:
            kind, began = _kind(scope["path"]), time.perf_counter()

            async def counted(message: Message) -> None:
                if message["type"] == "http.response.start":
                    self.requests.labels(kind, str(message["status"])).inc()
                    if kind != "stream":
                        self.seconds.labels(kind).observe(time.perf_counter() - began)
                await send(message)

            await self.app(scope, receive, counted)

    def _health(self) -> Response:
        try:
            (self.lab.home / DATABASE_NAME).stat()  # what is open can be read on when the file is gone
            self.lab.db.execute("select count(*) from (select 1 from runs limit 1)").fetchone()
        except Exception as error:
            return JSONResponse({"status": "failing", "reason": say_trouble(error)}, 503)
        return JSONResponse({"status": "ok", "worker": self.lab.worker_state(), "version": __version__})


def _kind(path: str) -> str:
    if path.startswith(STREAMS):
        return "stream"
    return next((kind for beginning, kind in KINDS.items() if path.startswith(beginning)), "page")


class LabCollector(Collector):
    """What a lab's database and machine say at the moment that they are asked."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab

    def collect(self) -> Iterable[Metric]:
        """The figures, each with its unit in its name. Raises sqlite3.Error."""
        runs = GaugeMetricFamily("rote_lab_runs", "Runs by state.", labels=["state"])
        counts = count_by_state(self.lab.db)
        for state in STATES:
            runs.add_metric([state], counts.get(state, 0))
        yield runs
        workers = self.lab.workers_alive()
        yield GaugeMetricFamily("rote_lab_workers", "Workers that are alive.", len(workers))
        yield GaugeMetricFamily("rote_lab_workers_busy", "Of these, at work.", sum(bool(w.run) for w in workers))
        yield GaugeMetricFamily("rote_lab_answers_waiting", "Models asked that have not answered yet.",
                                count_waiting(self.lab.db))  # fmt: skip
        yield GaugeMetricFamily("rote_lab_disk_free_bytes", "Free where the lab keeps its data.",
                                shutil.disk_usage(self.lab.home).free)  # fmt: skip
        memory = GaugeMetricFamily("rote_lab_gpu_memory_bytes", "Of each GPU.", labels=["gpu", "what"])
        for gpu, used, total in gpu_memory():
            memory.add_metric([gpu, "used"], used)
            memory.add_metric([gpu, "total"], total)
        yield memory
        version = GaugeMetricFamily("rote_lab_info", "The lab's version.", labels=["version"])
        version.add_metric([__version__], 1)
        yield version


def operate(site: FastAPI, lab: Lab) -> CollectorRegistry:
    """Give the site its /metrics; returns what `Operation` counts into."""
    registry = CollectorRegistry()
    registry.register(LabCollector(lab))
    ProcessCollector(registry=registry)
    GCCollector(registry=registry)

    @site.get(METRICS)
    def metrics() -> Response:
        return Response(generate_latest(registry), media_type=CONTENT_TYPE_LATEST)

    return registry
