"""Accounts: who may sign in, and by which secrets (of browsers, of scripts) they are known again.

A secret itself is never stored, only its SHA-256, which suffices for one that was drawn at random.
"""

from __future__ import annotations

import contextlib
import hashlib
import secrets
import sqlite3
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from sqlite_utils import Database

from storage.acting import Actor, Role
from storage.audit import note
from storage.database import now, write

SESSION_SECONDS, IDLE_SECONDS = 30 * 86400.0, 7 * 86400.0
USER = "u.id, u.name, u.created_at, u.subject, u.role, u.most_runs, u.most_bytes"
PROXY = "proxy "  # begins the subject of whom a proxy names
TOKEN_START = "rl_"  # so that scanners for leaked secrets can know one
# How exactly it is kept when a secret was last used: it is asked for with every request.
USED_SECONDS = 60.0
# After so many wrong passwords for a name each further one has to be waited for, twice as long as the one before; they
# are forgotten after an hour. Not by where they come from: behind a proxy that is one place for all.
WRONG_FOR_A_NAME = 5
LONGEST_WAIT, REMEMBERED_SECONDS = 900.0, 3600.0


@dataclass(frozen=True, slots=True)
class User:
    """One account. subject: as whom an OpenID provider, or the proxy in front, knows its owner, who has no password
    here then. most_runs: that may wait and run at a time; most_bytes: of all runs' folders; None for no limit."""

    id: str
    name: str
    created_at: str
    subject: str | None = None
    role: Role = Role.RUNNER
    most_runs: int | None = None
    most_bytes: int | None = None

    @property
    def by_proxy(self) -> bool:
        """Whether a proxy in front of the lab names them."""
        return self.subject is not None and self.subject.startswith(PROXY)

    @property
    def actor(self) -> Actor:
        """As whom its owner uses the lab."""
        return Actor(self.id, self.name, self.role)


def _user(row: Sequence[Any]) -> User:
    user = User(*row)
    return replace(user, role=Role(user.role))


@dataclass(frozen=True, slots=True)
class Secret:
    """A session or a token, without what makes it one. about: the browser, or the token's name; times in seconds since
    1970, 0 for never."""

    hash: str
    about: str
    created_at: str
    used_at: float
    ends_at: float | None


def add_user(db: Database, name: str, password: str, role: Role = Role.RUNNER, by: Actor | None = None) -> User:
    """Add an account; `password` is hashed already. by: who adds it. Raises ValueError when there is one of that
    name."""
    return _add(db, User(secrets.token_hex(6), name, now(), role=role), password, by)


def user_of_provider(db: Database, subject: str, name: str, role: Role = Role.RUNNER) -> User:
    """The account of whom an OpenID provider knows as `subject`, added under that name and role when there is none.

    Raises ValueError when another account has the name.
    """
    row = db.execute(f"select {USER} from users u where subject = ?", [subject]).fetchone()
    return _user(row) if row else _add(db, User(secrets.token_hex(6), name, now(), subject, role), "")


def user_of_proxy(db: Database, name: str, role: Role = Role.RUNNER) -> User:
    """The account of whom the proxy in front names, added in that role when there is none."""
    with contextlib.suppress(KeyError):
        return get_user(db, name)[0]
    with contextlib.suppress(ValueError):
        return _add(db, User(secrets.token_hex(6), name, now(), PROXY + name, role), "")
    return get_user(db, name)[0]  # another request of the same page came first


def _add(db: Database, user: User, password: str, by: Actor | None = None) -> User:
    try:
        with write(db):
            db.table("users").insert(asdict(user) | {"role": user.role.value, "password": password})
            note(db, "added", "account", user.id, f"{user.name}, {user.role}", by or user.actor)
    except sqlite3.IntegrityError as error:
        raise ValueError(f"there is an account ‘{user.name}’ already") from error
    return user


def names_of_users(db: Database) -> dict[str, str]:
    """What the owner of each account is called, by its id."""
    return dict(db.execute("select id, name from users").fetchall())


def list_users(db: Database) -> list[User]:
    """Every account, by name."""
    return [_user(row) for row in db.execute(f"select {USER} from users u order by name")]


def get_user(db: Database, name: str) -> tuple[User, str]:
    """The account of that name, in whatever letters' case, and its hashed password. Raises KeyError."""
    row = db.execute(f"select {USER}, password from users u where name = ?", [name]).fetchone()
    if row is None:
        raise KeyError(name)
    return _user(row[:-1]), row[-1]


def set_role(db: Database, user: User, role: Role, by: Actor) -> None:
    """Let an account do more, or less, from its next request on. Raises ValueError where it is the last admin's."""
    with write(db):
        _keep_an_admin(db, user, role is Role.ADMIN)
        db.execute("update users set role = ? where id = ?", [role.value, user.id])
        note(db, "gave a role", "account", user.id, f"{user.name}, {role}", by)


def set_quota(db: Database, user: User, most_runs: int | None, most_bytes: int | None, by: Actor) -> None:
    """Limit what an account may have in the lab, from its next start of a run on; None for no limit."""
    words = f"{user.name}: {'any number of runs' if most_runs is None else f'{most_runs} at a time'}, "
    words += "any size" if most_bytes is None else f"{most_bytes / 1e9:g} GB"
    with write(db):
        db.execute("update users set most_runs = ?, most_bytes = ? where id = ?", [most_runs, most_bytes, user.id])
        note(db, "gave a quota", "account", user.id, words, by)


def _keep_an_admin(db: Database, user: User, stays: bool) -> None:
    # As it is now: others may have changed roles since the account was read.
    admins = db.execute("select id from users where role = 'admin'").fetchall()
    if not stays and admins == [(user.id,)]:
        raise ValueError(f"{user.name} is the only admin: make somebody else one first")


def set_password(db: Database, user: str, password: str, but: str = "") -> None:
    """Give an account another password; all its sessions end, except that of the hash `but`. Without one somebody else
    gives it, perhaps since others know the old one: then its tokens end as well."""
    with write(db):
        db.execute("update users set password = ? where id = ?", [password, user])
        db.execute("delete from sessions where user = ? and hash <> ?", [user, but])
        if not but:
            db.execute("delete from tokens where user = ?", [user])


def remove_user(db: Database, user: User, by: Actor) -> None:
    """Remove an account with its sessions and tokens. What it made stays, and is nobody's. Raises ValueError where it
    is the last admin's, and others have accounts."""
    with write(db):
        if db.execute("select count(*) from users").fetchone()[0] > 1:
            _keep_an_admin(db, user, False)
        db.execute("delete from users where id = ?", [user.id])
        note(db, "removed", "account", user.id, user.name, by)


def add_session(db: Database, user: str, agent: str, seconds: float = SESSION_SECONDS) -> str:
    """Begin a session, which ends after so many seconds at the latest; returns its secret."""
    secret, at = secrets.token_urlsafe(32), time.time()
    with write(db):
        db.execute(
            "insert into sessions (hash, user, agent, created_at, used_at, ends_at) values (?, ?, ?, ?, ?, ?)",
            [hashed(secret), user, agent, now(), at, at + seconds],
        )
    return secret


def add_token(db: Database, user: str, name: str) -> str:
    """Make a token that scripts sign in with; returns it, for the one time."""
    secret = TOKEN_START + secrets.token_urlsafe(32)
    with write(db):
        db.execute(
            "insert into tokens (hash, user, name, created_at, used_at) values (?, ?, ?, ?, 0)",
            [hashed(secret), user, name, now()],
        )
    return secret


def hashed(secret: str) -> str:
    """The SHA-256 of a secret."""
    return hashlib.sha256(secret.encode("utf-8", "replace")).hexdigest()


def user_of_session(db: Database, secret: str) -> User | None:
    """Whose session it is; None when it has ended, or was not used for a week."""
    return _user_of(db, "sessions", secret, "and used_at > :idle")


def user_of_token(db: Database, secret: str) -> User | None:
    """Whose token it is; None for one that was revoked."""
    return _user_of(db, "tokens", secret, "")


def _user_of(db: Database, table: str, secret: str, more: str) -> User | None:
    at = time.time()
    row = db.execute(
        f"select {USER}, s.used_at from {table} s join users u on u.id = s.user"
        f" where s.hash = :hash and (s.ends_at is null or s.ends_at > :at) {more}",
        {"hash": hashed(secret), "at": at, "idle": at - IDLE_SECONDS},
    ).fetchone()
    if row is None:
        return None
    if at - row[-1] > USED_SECONDS:
        with write(db):
            db.execute(f"update {table} set used_at = ? where hash = ?", [at, hashed(secret)])
    return _user(row[:-1])


def list_sessions(db: Database, user: str) -> list[Secret]:
    """The sessions of an account that have not ended, the last used first."""
    since = time.time() - IDLE_SECONDS
    return [
        one for one in _list(db, "sessions", "agent", user) if (one.ends_at or 0) > time.time() and one.used_at > since
    ]


def list_tokens(db: Database, user: str) -> list[Secret]:
    """The tokens of an account, the last used first."""
    return _list(db, "tokens", "name", user)


def _list(db: Database, table: str, about: str, user: str) -> list[Secret]:
    sql = f"select hash, {about}, created_at, used_at, ends_at from {table} where user = ? order by used_at desc"
    return [Secret(*row) for row in db.execute(sql, [user])]


def end_session(db: Database, secret: str) -> None:
    """End one session."""
    with write(db):
        db.execute("delete from sessions where hash = ?", [hashed(secret)])


def end_other_sessions(db: Database, user: str, but: str) -> None:
    """End all sessions of an account except that of the secret `but`."""
    with write(db):
        db.execute("delete from sessions where user = ? and hash <> ?", [user, hashed(but)])


def revoke_token(db: Database, user: User, hash: str) -> bool:
    """Revoke a token of that account, and note it; whether it had such a one."""
    with write(db):
        sql = "delete from tokens where user = ? and hash = ? returning name"
        for (name,) in db.execute(sql, [user.id, hash]).fetchall():
            note(db, "revoked a token", "account", user.id, name, user.actor)
            return True
    return False


def seconds_to_wait(db: Database, name: str) -> float:
    """How long from now no password is looked at for this name; 0 when one may be tried."""
    at = time.time()
    sql = "select count(*), max(at) from wrong_passwords where name = ? and at > ?"
    count, last = db.execute(sql, [name, at - REMEMBERED_SECONDS]).fetchone()
    if count < WRONG_FOR_A_NAME:
        return 0.0
    return max(0.0, float(last) + min(LONGEST_WAIT, 2.0 ** (count - WRONG_FOR_A_NAME)) - at)


def note_wrong_password(db: Database, name: str) -> None:
    """Remember a wrong password, or one for a name that nobody has."""
    at = time.time()
    with write(db):
        db.execute("delete from wrong_passwords where at < ?", [at - REMEMBERED_SECONDS])
        db.execute("insert into wrong_passwords (name, at) values (?, ?)", [name, at])


def forget_wrong_passwords(db: Database, name: str) -> None:
    """The right password was given."""
    with write(db):
        db.execute("delete from wrong_passwords where name = ?", [name])
        db.execute("delete from sessions where ends_at < ? or used_at < ?", [time.time(), time.time() - IDLE_SECONDS])
