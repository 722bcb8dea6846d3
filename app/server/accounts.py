"""Signing in with an account of the lab's own: the page that asks for it, a person's own page, and who asks.

Plain forms and answers, without Gradio: they work where nothing else of the lab may be seen yet.
"""

from __future__ import annotations

import logging
import re
from urllib.parse import quote, urlsplit

from anyio import CapacityLimiter
from anyio.to_thread import run_sync
from fastapi import FastAPI, Request
from fastapi.responses import HTMLResponse, JSONResponse, PlainTextResponse, RedirectResponse, Response
from starlette.datastructures import Headers
from starlette.types import Receive, Scope, Send

from app.server.roles import account_of, is_short, may_see
from app.shared.frame import header
from app.shared.lab import Lab
from app.shared.render import browser_name, render
from engine.passwords import SHORTEST, USER, hash_password, is_password
from engine.serving.guard import LOCAL_HOSTS
from storage import accounts
from storage.accounts import User
from storage.acting import Role
from storage.audit import note

logger = logging.getLogger("app")

SIGN_IN, SIGN_OUT, ACCOUNT, PEOPLE = "/sign-in", "/sign-out", "/account", "/people"
# What somebody who is not signed in may ask for: that page, and how it looks.
OPEN = re.compile(r"/sign-in(/openid(/back)?)?|/theme\.css|/favicon\.ico|/lab/[a-z.-]+|/static/fonts/[A-Za-z0-9/.-]+")
WRONG = "This name and password do not belong together."
WAIT = "Too many wrong passwords: try again in {}."
NO_COOKIE = (
    "This browser keeps no sign-in for this page: open it by https (where a proxy stands in front of the lab, at the "
    "proxy's address), and let it keep cookies."
)
NO_TOKEN = "With a token nobody's account can be changed: sign in on the page."
ASKS = "X-Sign-In"  # of an answer that an open page gets when its session has ended: by it the page leads there
SIGNED_OUT = "You are not signed in: open the lab's page, or send a token of your account."
MOST_TOKENS, LONGEST_NAME = 50, 60
# Each takes 64 MiB and some of a processor for a moment.
AT_A_TIME = 2


class Accounts:
    """Who asks, by a browser's cookie or a script's token."""

    def __init__(self, lab: Lab, passwords: bool = True, provider: str = "", role: Role = Role.RUNNER) -> None:
        """`passwords`: whether accounts with a password may sign in; `provider`: what people know one by that also
        signs them in; `role`: of those who come from there for the first time."""
        self.lab, self.passwords, self.provider, self.role = lab, passwords, provider, role
        self._hashing = CapacityLimiter(AT_A_TIME)

    async def let_in(self, scope: Scope, receive: Receive, send: Send) -> bool:
        """Whether the request may go on; whose it is stands in `scope["account"]` then. Else it is answered."""
        if OPEN.fullmatch(scope["path"]):
            return True
        headers = Headers(scope=scope)
        by_token = "authorization" in headers
        user = await run_sync(self._user_of_token if by_token else self._user_of_session, headers)
        if user is not None and by_token and scope["path"] in (ACCOUNT, SIGN_OUT, PEOPLE):
            await JSONResponse({"error": NO_TOKEN}, 403)(scope, receive, send)
            return False
        if user is not None:
            scope["account"] = user
            return await may_see(user, scope, receive, send)
        page = scope["method"] in ("GET", "HEAD") and "text/html" in headers.get("accept", "")
        there = quote(scope["path"] + (f"?{query}" if (query := scope["query_string"].decode("latin-1")) else ""))
        to_sign_in = RedirectResponse(f"{SIGN_IN}?next={there}", 303)
        answer = to_sign_in if page else JSONResponse({"error": SIGNED_OUT}, 401, headers={ASKS: SIGN_IN})
        await answer(scope, receive, send)
        return False

    def _user_of_token(self, headers: Headers) -> User | None:
        scheme, _, token = headers["authorization"].partition(" ")
        return accounts.user_of_token(self.lab.db, token.strip()) if scheme.lower() == "bearer" else None

    def _user_of_session(self, headers: Headers) -> User | None:
        secret = session_of(headers)
        return accounts.user_of_session(self.lab.db, secret) if secret else None

    async def sign_in(self, name: str, password: str, peer: str, agent: str) -> tuple[str, str]:
        """(the new session's secret, '') or ('', why not)."""
        return await run_sync(self._sign_in, name, password, peer, agent, limiter=self._hashing)

    def _sign_in(self, name: str, password: str, peer: str, agent: str) -> tuple[str, str]:
        db = self.lab.db
        if seconds := accounts.seconds_to_wait(db, name):
            return "", WAIT.format(f"{max(1, seconds):.0f} s")
        try:
            user, kept = accounts.get_user(db, name)
        except KeyError:
            user, kept = None, ""
        if not is_password(password, kept) or user is None:
            accounts.note_wrong_password(db, name)
            logger.warning("a wrong password for %s, from %s", name, peer)
            return "", WRONG
        accounts.forget_wrong_passwords(db, user.name)
        note(db, "signed in", "account", user.id, browser_name(agent), user.actor)
        return accounts.add_session(db, user.id, agent[:200]), ""

    def sign_in_by_provider(self, subject: str, name: str, agent: str, seconds: float) -> str:
        """The secret of a new session of whom a provider knows as `subject`; '' when another account has the name."""
        try:
            user = accounts.user_of_provider(self.lab.db, subject, name, self.role)
        except ValueError:
            return ""
        note(self.lab.db, "signed in", "account", user.id, browser_name(agent), user.actor)
        return accounts.add_session(self.lab.db, user.id, agent[:200], seconds)

    def sign_in_page(self, next: str, name: str = "", problem: str = "", status: int = 200) -> Response:
        """The page that asks for a sign-in."""
        page = render(
            "server/sign_in.html",
            next=next,
            name=name,
            problem=problem,
            passwords=self.passwords,
            provider=self.provider,
        )
        return HTMLResponse(page, status, headers={"Cache-Control": "no-store"})

    def signed_in(self, request: Request, secret: str, next: str, seconds: float) -> Response:
        """Where a sign-in leads: by way of its own page, which says so where the cookie was not kept."""
        answer = RedirectResponse(f"{SIGN_IN}?tried=1&next={quote(next)}", 303)
        answer.set_cookie(
            _cookie(request.headers), secret, max_age=int(seconds), httponly=True, samesite="lax",
            secure=not is_local(request.headers),
        )  # fmt: skip
        return answer

    async def change_password(self, user: User, old: str, new: str, secret: str) -> str:
        """Why not; '' when it is done. All sessions but that of `secret` end."""

        def change() -> str:
            db = self.lab.db
            if seconds := accounts.seconds_to_wait(db, user.name):
                return WAIT.format(f"{max(1, seconds):.0f} s")
            if not is_password(old, accounts.get_user(db, user.name)[1]):
                accounts.note_wrong_password(db, user.name)
                return "The old password is another one."
            try:
                kept = hash_password(new, user.name)
            except ValueError as error:
                return f"{str(error)[0].upper()}{str(error)[1:]}."
            accounts.set_password(db, user.id, kept, accounts.hashed(secret))
            note(db, "changed the password", "account", user.id, by=user.actor)
            return ""

        return await run_sync(change, limiter=self._hashing)


def is_local(headers: Headers) -> bool:
    """Whether the lab was called by a name of this machine, where there is no https."""
    return _called(headers)[0] in LOCAL_HOSTS


def _called(headers: Headers) -> tuple[str, int | None]:
    """By which name and port; by none for what is neither, which `Guard` refuses later."""
    try:
        place = urlsplit(f"//{headers.get('host', '')}")
        return place.hostname or "", place.port
    except ValueError:
        return "", None


def _cookie(headers: Headers) -> str:
    # A browser lets no other address set one of this name, and sends it by https alone. On this machine labs at several
    # ports share their cookies.
    name, port = _called(headers)
    return f"rote-lab-{port}" if name in LOCAL_HOSTS else "__Host-rote-lab"


def session_of(headers: Headers) -> str:
    """The secret of the session that a browser sends; '' when it sends none."""
    name = _cookie(headers)
    for part in headers.get("cookie", "").split(";"):
        key, _, value = part.strip().partition("=")
        if key == name:
            return value
    return ""


def next_of(text: str) -> str:
    """The address within the lab that a sign-in leads on to; the first page for anything else."""
    return text if re.fullmatch(r"/(?![/\\])[^\\\s]{0,2000}", text) and not text.startswith(SIGN_IN) else "/"


def add_accounts(
    site: FastAPI, lab: Lab, passwords: bool = True, provider: str = "", role: Role = Role.RUNNER
) -> Accounts:
    """Give the site the pages of accounts; returns who lets people in, made as `Accounts` is."""
    people = Accounts(lab, passwords, provider, role)

    @site.get(SIGN_IN)
    async def ask(request: Request, next: str = "/", tried: str = "") -> Response:
        if await run_sync(people._user_of_session, request.headers):
            return RedirectResponse(next_of(next), 303)
        return people.sign_in_page(next_of(next), problem=NO_COOKIE if tried else "")

    @site.post(SIGN_IN)
    async def sign_in(request: Request) -> Response:
        if not is_short(request.headers):
            return PlainTextResponse("This is too long for a name and a password.", 413)
        form = await request.form(max_files=0)
        name, password, next = (str(form.get(field, "")) for field in ("name", "password", "next"))
        peer = request.client.host if request.client else ""
        agent = request.headers.get("user-agent", "")
        secret, problem = ("", WRONG)
        if people.passwords and USER.fullmatch(name.strip()):
            secret, problem = await people.sign_in(name.strip(), password, peer, agent)
        if problem:
            return people.sign_in_page(next_of(next), name[:128], problem, 429 if problem.startswith("Too") else 401)
        return people.signed_in(request, secret, next_of(next), accounts.SESSION_SECONDS)

    @site.post(SIGN_OUT)
    async def sign_out(request: Request) -> Response:
        user, secret = account_of(request), session_of(request.headers)
        await run_sync(lambda: accounts.end_session(lab.db, secret))
        await run_sync(lambda: note(lab.db, "signed out", "account", user.id, by=user.actor))
        answer = RedirectResponse(SIGN_IN, 303)
        answer.delete_cookie(_cookie(request.headers), secure=not is_local(request.headers), httponly=True)
        return answer

    async def own_page(request: Request, status: int = 200, **told: str) -> Response:
        user = account_of(request)
        here = accounts.hashed(session_of(request.headers))

        def shown() -> str:
            return render(
                "server/account.html", header=header(ACCOUNT, lab.worker_state(), user), user=user, here=here,
                sessions=accounts.list_sessions(lab.db, user.id), tokens=accounts.list_tokens(lab.db, user.id),
                shortest=SHORTEST, address=str(request.base_url).rstrip("/"),
                **{"problem": "", "done": "", "token": ""} | told,
            )  # fmt: skip

        return HTMLResponse(await run_sync(shown), status, headers={"Cache-Control": "no-store"})

    @site.get(ACCOUNT)
    async def account(request: Request) -> Response:
        return await own_page(request)

    @site.post(ACCOUNT)
    async def change(request: Request) -> Response:
        """What a form of a person's own page asks for: its field `act` says what."""
        if not is_short(request.headers):
            return PlainTextResponse("This is too long for a form.", 413)
        user, form = account_of(request), await request.form(max_files=0)
        act, secret = form.get("act"), session_of(request.headers)

        def field(name: str) -> str:
            return str(form.get(name, ""))

        if act == "password":
            if field("new") != field("again"):
                return await own_page(request, 400, problem="The new password was not the same both times.")
            if problem := await people.change_password(user, field("old"), field("new"), secret):
                return await own_page(request, 400, problem=problem)
            return await own_page(request, done="The password is changed; other browsers are signed out.")
        if act == "sign out others":
            await run_sync(lambda: accounts.end_other_sessions(lab.db, user.id, secret))
            await run_sync(lambda: note(lab.db, "signed out elsewhere", "account", user.id, by=user.actor))
            return await own_page(request, done="Other browsers are signed out.")
        if act == "make token":
            name = " ".join(field("name").split())[:LONGEST_NAME]
            if not name or len(await run_sync(lambda: accounts.list_tokens(lab.db, user.id))) >= MOST_TOKENS:
                words = f"There are {MOST_TOKENS} tokens: revoke one first." if name else "Give the token a name."
                return await own_page(request, 400, problem=words)
            token = await run_sync(lambda: accounts.add_token(lab.db, user.id, name))
            await run_sync(lambda: note(lab.db, "made a token", "account", user.id, name, user.actor))
            return await own_page(request, token=token)
        if act == "revoke":
            if await run_sync(lambda: accounts.revoke_token(lab.db, user, field("hash"))):
                return await own_page(request, done="The token is revoked.")
            return await own_page(request, 400, problem="You have no such token any more.")
        return PlainTextResponse("There is no such action.", 400)

    return people
