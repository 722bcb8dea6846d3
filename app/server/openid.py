"""Signing in at an OpenID provider, such as a university's: Authlib asks it who somebody is."""

from __future__ import annotations

import logging
import secrets
import warnings
from typing import Any

from anyio.to_thread import run_sync
from fastapi import FastAPI, Request
from fastapi.responses import Response
from starlette.middleware.sessions import SessionMiddleware

from app.server.accounts import SIGN_IN, Accounts, is_local, next_of
from app.server.sign_in import Provider
from engine.passwords import USER

with warnings.catch_warnings():
    warnings.filterwarnings("ignore", category=DeprecationWarning)  # of the names of its own modules
    from authlib.integrations.starlette_client import OAuth

logger = logging.getLogger("app")

START, BACK = f"{SIGN_IN}/openid", f"{SIGN_IN}/openid/back"
# Whoever leaves there is out here on the next day.
SESSION_SECONDS = 12 * 3600.0
WAY_SECONDS = 600
FAILED = "Signing in at {} did not work: try again. If it goes on, whoever keeps this lab finds the reason in its log."
REFUSED = "{} signed you in as {}, who may not use this lab: ask whoever keeps it."
TAKEN = "There is another account of the name {} in this lab: ask whoever keeps it."
UNNAMED = "{} tells no name of yours that this lab can use."


def add_openid(site: FastAPI, people: Accounts, at: Provider, secure: bool) -> None:
    """Give the site the way to the provider and back. `secure`: whether people come by https."""
    oauth = OAuth()
    oauth.register(
        "provider",
        client_id=at.client,
        client_secret=at.secret,
        server_metadata_url=f"{at.issuer}/.well-known/openid-configuration",
        client_kwargs={"scope": "openid email profile", "code_challenge_method": "S256", "timeout": 20},
    )
    # Holds, for the way there and back, what binds the answer to this browser; by a key that nobody else has.
    site.add_middleware(
        SessionMiddleware, secret_key=secrets.token_urlsafe(32), session_cookie="rote-lab-openid",
        max_age=WAY_SECONDS, same_site="lax", https_only=secure, path=START,
    )  # fmt: skip

    def refused(request: Request, words: str) -> Response:
        request.session.clear()
        return people.sign_in_page(next="/", problem=words, status=403)

    @site.get(START)
    async def go(request: Request, next: str = "/") -> Response:
        scheme = "http" if is_local(request.headers) else "https"
        try:
            answer = await oauth.provider.authorize_redirect(
                request, f"{scheme}://{request.headers['host']}{BACK}", nonce=secrets.token_urlsafe(24)
            )
        except Exception:
            logger.exception("the provider %s does not answer", at.issuer)
            return refused(request, FAILED.format(at.name))
        request.session["next"] = next_of(next)
        return Response(status_code=303, headers={"location": answer.headers["location"]})

    @site.get(BACK)
    async def back(request: Request) -> Response:
        next = next_of(str(request.session.get("next", "/")))
        try:
            token = await oauth.provider.authorize_access_token(request)
            claims = dict(token["userinfo"])
            if not str(claims.get("sub", "")):
                raise ValueError("the provider names nobody")
        except Exception:
            logger.exception("no sign-in came back from %s", at.issuer)
            return refused(request, FAILED.format(at.name))
        name = _name_of(claims)
        if not at.lets_in(claims):
            return refused(request, REFUSED.format(at.name, str(claims.get("email") or name)[:128]))
        if not USER.fullmatch(name):
            return refused(request, UNNAMED.format(at.name))
        agent = request.headers.get("user-agent", "")
        secret = await run_sync(
            people.sign_in_by_provider, f"{at.issuer} {claims['sub']}", name, agent, SESSION_SECONDS
        )
        if not secret:
            return refused(request, TAKEN.format(name))
        request.session.clear()
        return people.signed_in(request, secret, next, SESSION_SECONDS)


def _name_of(claims: dict[str, Any]) -> str:
    """What an account is called. A mail address, by which others know somebody and give a role, only when the provider
    has verified that it is theirs."""
    mail = claims.get("email") if claims.get("email_verified") is True else ""
    return str(mail or claims.get("preferred_username") or claims["sub"])
