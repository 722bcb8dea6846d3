"""What stands between the pages and whoever asks: response headers, who may ask, and the refusal of other sites."""

from __future__ import annotations

from fastapi import FastAPI
from starlette.datastructures import MutableHeaders
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.server.sign_in import Access, Door, LetIn
from engine.serving.guard import Guard

# A file of 20 MB with what a browser wraps around it, or 10 MB of text whose every sign a browser escapes by another.
MOST_BYTES = 32 * 2**20
TOO_LONG = "This is over {} MiB: send less at once."

# Gradio's components and Vega compile templates and expressions in the page: they need inline script and eval.
POLICY = "; ".join(
    [
        "default-src 'self'",
        "script-src 'self' 'unsafe-inline' 'unsafe-eval'",
        "style-src 'self' 'unsafe-inline'",
        "img-src 'self' data: blob:",
        "font-src 'self' data:",
        "connect-src 'self'",
        "worker-src 'self' blob:",
        "object-src 'none'",
        "base-uri 'self'",
        "form-action 'self'",
        "frame-ancestors 'none'",
    ]
)
# Exported reports are shown on their own: no script at all.
REPORT_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; "
    "frame-ancestors 'none'"
}

HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), microphone=(), geolocation=(), usb=()",
}


class SecurityHeaders:
    """ASGI middleware that adds the headers to every answer, a refusal too."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, and its answer with the headers."""

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
                if "account" in scope:  # caches of proxies keep some files, by their ending, unless they are told
                    headers.setdefault("Cache-Control", "private")
            await send(message)

        await self.app(scope, receive, send_with_headers if scope["type"] == "http" else send)


def protect(site: FastAPI, access: Access, let_in: LetIn | None = None) -> None:
    """Put in front of everything, from the outside: who may ask, the guard, and that no other site may.

    Where Gradio finds Starlette's own middleware for other origins, it does not let in those that it would.
    """
    site.add_middleware(CORSMiddleware, allow_origins=())
    site.add_middleware(Guard, hosts=access.hosts, most_bytes=MOST_BYTES, refuse=_refusal, too_long=TOO_LONG)
    site.add_middleware(Door, access=access, let_in=let_in)


def _refusal(words: str, status: int) -> Response:
    """As Gradio's client in the browser shows it, where a person may cause it; else as plain text."""
    return JSONResponse({"error": words}, status) if status in (408, 413) else PlainTextResponse(words, status)
