"""The streams by which Gradio's answers reach a page: none stays open to which nothing comes.

Gradio's client opens a stream for an event whose answer it has had already, by the stream of another event, where the
answer overtakes the word that the event was queued. The server would hold it until the page goes.
"""

from __future__ import annotations

import orjson
from gradio.queueing import Queue
from gradio.server_messages import CloseStreamMessage
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

PATH = "/gradio_api/queue/data"
CLOSE = b"data: " + orjson.dumps(CloseStreamMessage().model_dump()) + b"\n\n"


class Streams:
    """ASGI middleware that ends at once each stream for which the pages' `queue` holds no event."""

    def __init__(self, app: ASGIApp, queue: Queue) -> None:
        self.app, self.queue = app, queue

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or close its stream. A session that the server does not know is left to Gradio."""
        answer: ASGIApp = self.app
        if scope["type"] == "http" and scope["path"] == PATH:
            session = Request(scope).query_params.get("session_hash", "")
            known = session in self.queue.pending_messages_per_session
            if known and not self.queue.pending_event_ids_session.get(session):
                answer = Response(CLOSE, media_type="text/event-stream")
        await answer(scope, receive, send)
