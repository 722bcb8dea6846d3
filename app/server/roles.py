"""What plain routes know of whoever asks: the account, and which pages are not for everybody's role."""

from __future__ import annotations

from anyio.to_thread import run_sync
from fastapi import Request
from fastapi.responses import HTMLResponse, JSONResponse
from starlette.datastructures import Headers
from starlette.types import Receive, Scope, Send

from app.shared.frame import header
from app.shared.lab import Lab
from app.shared.render import render
from app.shared.words import sentence
from storage.accounts import User, user_of_proxy
from storage.acting import ONLY_LOOK, Role

LONGEST_FORM = 16_384
# Which roles may ask for it; for all else: every role.
PAGES = {
    "/design": (Role.RUNNER, Role.ADMIN),
    "/gradio_api/upload": (Role.RUNNER, Role.ADMIN),
    "/people": (Role.ADMIN,),
    "/audit": (Role.ADMIN,),
}


def account_of(request: Request) -> User:
    """Who asks for a page that only those see who are signed in."""
    user: User = request.scope["account"]
    return user


def is_short(headers: Headers) -> bool:
    """Whether a form tells its length, and it is no more than a form has: nobody is known yet who sends one."""
    length = headers.get("content-length", "")
    return length.isdecimal() and len(length) < 6 and int(length) <= LONGEST_FORM


async def may_see(user: User, scope: Scope, receive: Receive, send: Send) -> bool:
    """Whether an account may open the page that it asks for; if not, it is answered."""
    allowed = PAGES.get(scope["path"].rstrip("/"))
    if allowed is None or user.role in allowed:
        return True
    if scope["path"].startswith("/gradio_api"):
        await JSONResponse({"error": sentence(ONLY_LOOK)}, 403)(scope, receive, send)
        return False
    page = render(
        "server/not_allowed.html", header=header(scope["path"], "unknown", user), role=user.role.value,
        allowed=[role.value for role in allowed],
    )  # fmt: skip
    await HTMLResponse(page, 403)(scope, receive, send)
    return False


class NamedByProxy:
    """Lets in whom the proxy in front names, each with an account of that name: `Door` has checked the header."""

    def __init__(self, lab: Lab, user_header: str, role: Role) -> None:
        """`role`: of those who come for the first time."""
        self.lab, self.user_header, self.role = lab, user_header, role

    async def let_in(self, scope: Scope, receive: Receive, send: Send) -> bool:
        """Whether the request may go on; whose it is stands in `scope["account"]` then. Else it is answered."""
        name = Headers(scope=scope)[self.user_header]
        user = await run_sync(lambda: user_of_proxy(self.lab.db, name, self.role))
        scope["account"] = user
        return await may_see(user, scope, receive, send)
