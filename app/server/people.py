"""The pages of those who keep a lab: its accounts with their roles and quotas, and the audit of changes."""

from __future__ import annotations

import secrets

from anyio.to_thread import run_sync
from fastapi import FastAPI, Request
from fastapi.responses import HTMLResponse, PlainTextResponse, Response

from app.server.accounts import PEOPLE
from app.server.roles import account_of, is_short
from app.shared.frame import header
from app.shared.lab import Lab
from app.shared.render import render
from engine.passwords import check_name, hash_password
from storage import accounts
from storage.accounts import User
from storage.acting import Role
from storage.audit import count_entries, list_entries, note
from storage.quotas import going_on, used_bytes

AUDIT = "/audit"
PAGE_SIZE = 100
MOST_RUNS, MOST_GIGABYTES = 1_000_000, 1_000_000.0
ROLES = {
    Role.VIEWER: "looks at everything, starts and changes nothing",
    Role.RUNNER: "designs, starts and asks; changes what is their own",
    Role.ADMIN: "changes everything, and keeps the accounts",
}


def add_people(site: FastAPI, lab: Lab, passwords: bool) -> None:
    """Give the site the pages. `passwords`: whether accounts with a password may sign in, so that one can be added."""

    def shown(user: User, told: dict[str, str], status: int) -> HTMLResponse:
        rows = [(one, going_on(lab.db, one.id), used_bytes(lab.db, one.id)) for one in accounts.list_users(lab.db)]
        page = render(
            "server/people.html", header=header(PEOPLE, lab.worker_state(), user), rows=rows, roles=ROLES, me=user,
            passwords=passwords, **{"problem": "", "done": "", "password": "", "name": ""} | told,
        )  # fmt: skip
        return HTMLResponse(page, status, headers={"Cache-Control": "no-store"})

    @site.get(PEOPLE)
    def people(request: Request) -> Response:
        return shown(account_of(request), {}, 200)

    @site.post(PEOPLE)
    async def change(request: Request) -> Response:
        """What a form of the page asks for: its field `act` says what."""
        if not is_short(request.headers):
            return PlainTextResponse("This is too long for a form.", 413)
        form = await request.form(max_files=0)
        user = account_of(request)
        fields = {name: str(form.get(name, "")) for name in ("act", "id", "name", "role", "was", "runs", "gigabytes")}

        def carry_out() -> Response:
            try:
                return shown(user, _change(lab, user, fields, passwords), 200)
            except ValueError as error:
                words = str(error)
                return shown(
                    user, {"problem": f"{words[0].upper()}{words[1:].rstrip('.')}.", "name": fields["name"]}, 400
                )

        return await run_sync(carry_out)

    @site.get(AUDIT)
    def audit(request: Request, q: str = "", page: int = 1) -> Response:
        search = q[:200]
        total = count_entries(lab.db, search)
        pages = max(1, -(-total // PAGE_SIZE))
        number = min(max(1, page), pages)
        html = render(
            "server/audit.html", header=header(AUDIT, lab.worker_state(), account_of(request)), search=search,
            entries=list_entries(lab.db, PAGE_SIZE, (number - 1) * PAGE_SIZE, search), total=total, number=number,
            pages=pages,
        )  # fmt: skip
        return HTMLResponse(html, headers={"Cache-Control": "no-store"})


def _change(lab: Lab, user: User, fields: dict[str, str], passwords: bool) -> dict[str, str]:
    """Carry a form out; returns what the page says of it. Raises ValueError with a sentence."""
    if fields["act"] == "add" and passwords:
        name, password = fields["name"].strip(), secrets.token_urlsafe(12)
        check_name(name)
        accounts.add_user(lab.db, name, hash_password(password, name), _role(fields["role"]), user.actor)
        return {"password": password, "done": f"{name} has an account."}
    other = next((one for one in accounts.list_users(lab.db) if one.id == fields["id"]), None)
    if other is None:
        raise ValueError("this account is no longer there")
    if fields["act"] == "save":
        runs = _number(fields["runs"], MOST_RUNS, "runs")
        gigabytes = _number(fields["gigabytes"], MOST_GIGABYTES, "gigabytes")
        size = None if gigabytes is None else int(gigabytes * 1e9)
        role = _role(fields["role"])
        # Left as the page showed it, it is not to take back what another admin did meanwhile.
        if role is not other.role and role.value != fields["was"]:
            accounts.set_role(lab.db, other, role, user.actor)
        if (other.most_runs, other.most_bytes) != (runs and int(runs), size):
            accounts.set_quota(lab.db, other, None if runs is None else int(runs), size, user.actor)
        return {"done": f"Saved: {other.name}."}
    if fields["act"] == "remove":
        if len(accounts.list_users(lab.db)) == 1:
            raise ValueError(f"{other.name} is the only account: make somebody else an admin first")
        accounts.remove_user(lab.db, other, user.actor)
        # Who signs in elsewhere is known here by that place's word alone.
        again = (
            "has no account now, and gets a new one where they sign in" if other.subject else "may not sign in any more"
        )
        return {"done": f"{other.name} {again}. What they made stays, and is nobody’s."}
    if fields["act"] == "password" and passwords and other.subject is None:
        password = secrets.token_urlsafe(12)
        accounts.set_password(lab.db, other.id, hash_password(password, other.name))
        note(lab.db, "gave a password", "account", other.id, other.name, user.actor)
        return {
            "password": password,
            "done": f"{other.name} has a new password, is signed out everywhere, and has no tokens.",
        }
    raise ValueError("there is no such action")


def _role(text: str) -> Role:
    if text not in set(Role):
        raise ValueError("a role is one of viewer, runner and admin")
    return Role(text)


def _number(text: str, most: float, what: str) -> float | None:
    """A limit as it was typed; None for none. Raises ValueError."""
    if not text.strip():
        return None
    try:
        value = float(text.strip().replace(",", "."))
    except ValueError:
        value = -1.0
    if not 0 <= value <= most or (what == "runs" and value != int(value)):
        raise ValueError(f"the limit of {what} is a number from 0, or empty for none")
    return value
