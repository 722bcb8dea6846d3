"""What of Gradio the lab uses, and how much: routes, files, sessions. The rest is not there."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator
from datetime import datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import anyio.to_thread
import gradio as gr
from fastapi import FastAPI
from gradio.routes import App
from gradio.state_holder import SessionState, StateHolder
from starlette.routing import Mount, Route

from app.server.uploads import KEPT_SECONDS, empty_uploads
from app.shared.frame import account_behind
from engine.models.permitted import Permits, only
from storage.acting import Role, acting_as

# Sessions whose memory is kept: the ones used last. A page that comes back after its own went does as after a restart.
MOST_SESSIONS = 128
# Every page asks at least once a minute while it is open, also in a tab behind others.
LEFT_SECONDS, CLOSED_SECONDS = 600.0, 15.0
HOUSEKEEPING_SECONDS = 5.0
# Calls at work at a time, waiting ones included, which hold no thread; and those that queue for their turn.
MOST_AT_WORK, MOST_QUEUED = 128, 256
# By any of these Gradio would take a value for a file.
FILE_FIELDS = {"path", "url", "meta", "orig_name", "is_stream"}
SIGN_IN = "Sign in first, and open the page again."
NO_FILE = "This field takes no file: upload one where the page offers it."

_API = "/gradio_api"
# Pages call these, and gradio_client, and curl. The others read files, fetch addresses, record or sign in.
USED = {
    "/", "/config", "/static/{path:path}", "/assets/{path:path}", "/svelte/{path:path}", "/theme.css", "/favicon.ico",
    "/robots.txt", "/manifest.json", f"{_API}/theme.css", f"{_API}/info", f"{_API}/app_id", f"{_API}/queue/join",
    f"{_API}/queue/data", f"{_API}/cancel", f"{_API}/reset", f"{_API}/heartbeat/{{session_hash}}", f"{_API}/upload",
    f"{_API}/upload_progress", f"{_API}/run/{{api_name}}", f"{_API}/api/{{api_name}}", f"{_API}/call/{{api_name}}",
    f"{_API}/call/{{api_name}}/{{event_id}}", f"{_API}/call/v2/{{api_name}}",
    f"{_API}/call/v2/{{api_name}}/{{event_id}}",
}  # fmt: skip


class Pages(gr.Blocks):
    """Blocks that take a file only in a place for uploads, and only one that was uploaded."""

    def begin(self, name: str, path: str) -> None:
        """Within these Blocks, put what is built from here on onto a further page at the path.

        Gradio's `route` does so between two of their contexts, and makes the whole application anew after each.
        """
        self.pages.append((path, name, True))
        self.current_page = path

    models: Permits | None = None  # that runners may name; None: all
    people = False  # whether those who ask are told apart; if so, nothing is done for nobody

    async def process_api(
        self, block_fn: Any, inputs: list[Any], state: Any = None, request: Any = None, *given: Any, **named: Any
    ) -> dict[str, Any]:
        """Carry out a function for the person who asks, with what that person may. Raises gr.Error for nobody."""
        account = account_behind(request)
        if self.people and account is None:
            raise gr.Error(SIGN_IN, print_exception=False)
        limited = account is not None and account.role is not Role.ADMIN
        with acting_as(account.actor if account else None), only(self.models if limited else None):
            return await super().process_api(block_fn, inputs, state, request, *given, **named)

    async def preprocess_data(
        self, block_fn: Any, inputs: list[Any], state: Any, explicit_call: bool = False
    ) -> list[Any]:
        """What a function is given, from what was sent. Raises gr.Error for a file that was not uploaded."""
        for block, value in zip(block_fn.inputs, inputs, strict=False):
            folder = Path(block.GRADIO_CACHE) if isinstance(block, gr.UploadButton) else None
            if not _without_strange_files(value, folder):
                raise gr.Error(NO_FILE, print_exception=False)
        return await super().preprocess_data(block_fn, inputs, state, explicit_call)


class _KeptNothing(dict[int, Any]):
    """In place of all that a session sent and saw, which Gradio keeps for links that lead to it; the lab has none.

    It seems to have an empty entry for every component, into which Gradio puts nothing.
    """

    def __contains__(self, component: object) -> bool:
        return True

    def __getitem__(self, component: int) -> dict[str, Any]:
        return {}

    def __setitem__(self, component: int, value: Any) -> None:
        pass


class _Session(SessionState):
    """A session that does not begin with a description of every component of every page, which takes Gradio as long as
    all else that opens a page, and is kept for the same links."""

    def __init__(self, blocks: gr.Blocks) -> None:
        super().__init__(SimpleNamespace(default_config=blocks.default_config, blocks={}))  # type: ignore[arg-type]
        self.config_values = _KeptNothing()


class _Sessions(StateHolder):
    def __getitem__(self, session_id: str) -> SessionState:
        if session_id not in self.session_data:
            self.session_data[session_id] = _Session(self.blocks)
        return super().__getitem__(session_id)


def _without_strange_files(value: Any, folder: Path | None) -> bool:
    """Whether nothing in the value names a file, or, with a folder, nothing but files in it."""
    left = [value]
    while left:
        one = left.pop()
        if isinstance(one, dict) and FILE_FIELDS & one.keys():
            if folder is None or one.get("is_stream") or not _lies_in(one.get("path"), folder):
                return False
        elif isinstance(one, dict | list):
            left += one.values() if isinstance(one, dict) else one
    return True


def _lies_in(path: Any, folder: Path) -> bool:
    """Judged by its name first: whether there is such a file elsewhere is nobody's business."""
    if not isinstance(path, str) or ".." in Path(path).parts:
        return False
    real = folder.resolve()
    if not any(Path(path).is_relative_to(place) for place in (folder, real)):
        return False
    with contextlib.suppress(OSError, ValueError):
        return Path(path).is_file() and Path(path).resolve().is_relative_to(real)
    return False


def bound(pages: Pages) -> None:
    """Set the bounds of pages that are about to be mounted."""
    # Gradio checks the paths of files only once it has launched by itself, which mounted pages never do.
    pages.has_launched = True
    pages.state_session_capacity = MOST_SESSIONS
    # Functions with a queue are reached through it alone.
    pages.api_open = False
    pages._queue.max_thread_count, pages._queue.max_size = MOST_AT_WORK, MOST_QUEUED
    # As often as Gradio looks for work on Windows; elsewhere it does a thousand times a second, also with no page open.
    pages._queue.sleep_when_free, pages._queue.progress_update_sleep_when_free = 0.05, 1.0


def keep_used_routes(site: FastAPI) -> None:
    """Take away each of Gradio's routes that the lab's pages do not use, and have sessions begin with little."""
    app = gradio_of(site)
    app.state_holder = _Sessions()
    app.state_holder.set_blocks(app.get_blocks())
    own = {f"/{name}" for name, *_ in app.get_blocks().pages if name}
    app.router.routes[:] = [
        route for route in app.routes if isinstance(route, Route) and (route.path.rstrip("/") or "/") in USED | own
    ]


def gradio_of(site: FastAPI) -> App:
    """Gradio's application inside the site."""
    return next(route.app for route in site.routes if isinstance(route, Mount) and isinstance(route.app, App))


@contextlib.asynccontextmanager
async def housekeeping(site: FastAPI) -> AsyncIterator[None]:
    """While the site is up, let go what pages that are gone have left."""
    task = asyncio.create_task(_keep_house(site))
    yield
    task.cancel()


async def _keep_house(site: FastAPI) -> None:
    app = gradio_of(site)
    while True:
        await asyncio.sleep(HOUSEKEEPING_SECONDS)
        try:
            forget_sessions(app, LEFT_SECONDS, CLOSED_SECONDS)
            # Later than Gradio deletes what it knows of: what a killed server left, and Gradio's spare files.
            await anyio.to_thread.run_sync(empty_uploads, Path(app.uploaded_file_dir), 2 * KEPT_SECONDS)
        except Exception:
            logging.getLogger(__name__).exception("what pages have left could not be let go; it is tried again")


def forget_sessions(app: App, left_seconds: float, closed_seconds: float) -> None:
    """Let go of each session that was not used for so long and waits for nothing: its page is gone."""
    holder, queue, now = app.state_holder, app.get_blocks()._queue, datetime.now()
    for session, used in list(holder.time_last_used.items()):
        state = holder.session_data.get(session)
        patience = closed_seconds if state is not None and state.is_closed else left_seconds
        working = any(event in queue.event_ids_to_events for event in queue.pending_event_ids_session.get(session, ()))
        if (now - used).total_seconds() > patience and not working:
            holder.session_data.pop(session, None)
            holder.time_last_used.pop(session, None)
            queue.pending_event_ids_session.pop(session, None)
            queue.pending_messages_per_session.pop(session, None)
