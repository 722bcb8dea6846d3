"""The script and the title of every page, in its document: what Gradio is given it adds by its own script, later.

That is too late: components call the script as soon as they are there. Where it came after them, over a slow
connection, buttons did nothing and charts stayed empty; on a busy machine a page had no title.
"""

from __future__ import annotations

from collections.abc import Collection

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

OPENING = b"<head>"


class PageScript:
    """ASGI middleware that writes `script`, as HTML, into the documents at the addresses `pages`, such as `/runs`."""

    def __init__(self, app: ASGIApp, script: str, pages: Collection[str]) -> None:
        self.app, self.script, self.pages = app, script.encode(), pages

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, and its answer with the script in it."""
        if scope["type"] != "http" or scope["path"] not in self.pages:
            await self.app(scope, receive, send)
            return
        start: Message = {}
        body = b""

        async def send_with_script(message: Message) -> None:
            nonlocal start, body
            if message["type"] == "http.response.start":
                start = message
                return
            body += message.get("body", b"")
            if message.get("more_body"):
                return
            if body and Headers(scope=start).get("content-type", "").startswith("text/html"):
                body = body.replace(OPENING, OPENING + self.script, 1)
                MutableHeaders(scope=start)["content-length"] = str(len(body))
            await send(start)
            await send({"type": "http.response.body", "body": body})

        await self.app(scope, receive, send_with_script)
