"""Accounts: who may sign in, and by which secrets (of browsers, of scripts) they are known again.

A secret itself is never stored, only its SHA-256, which suffices for one that was drawn at random.
"""

from __future__ import annotations

import hashlib
import secrets
import sqlite3
import time
from dataclasses import asdict, dataclass

from sqlite_utils import Database

from storage.database import now, write

SESSION_SECONDS, IDLE_SECONDS = 30 * 86400.0, 7 * 86400.0
USER = "u.id, u.name, u.created_at, u.subject"
TOKEN_START = "rl_"  # so that scanners for leaked secrets can know one
# How exactly it is kept when a secret was last used: it is asked for with every request.
USED_SECONDS = 60.0
# After so many wrong passwords for a name each further one has to be waited for, twice as long as the one before; they
# are forgotten after an hour. Not by where they come from: behind a proxy that is one place for all.
WRONG_FOR_A_NAME = 5
LONGEST_WAIT, REMEMBERED_SECONDS = 900.0, 3600.0


@dataclass(frozen=True, slots=True)
class User:
    """One account. subject: as whom an OpenID provider knows its owner, who has no password here then."""

    id: str
    name: str
    created_at: str
    subject: str | None = None


@dataclass(frozen=True, slots=True)
class Secret:
    """A session or a token, without what makes it one. about: the browser, or the token's name; times in seconds since
    1970, 0 for never."""

    hash: str
    about: str
    created_at: str
    used_at: float
    ends_at: float | None


def add_user(db: Database, name: str, password: str) -> User:
    """Add an account; `password` is hashed already. Raises ValueError when there is one of that name."""
    return _add(db, User(secrets.token_hex(6), name, now()), password)


def user_of_provider(db: Database, subject: str, name: str) -> User:
    """The account of whom an OpenID provider knows as `subject`, added under that name when there is none.

    Raises ValueError when another account has the name.
    """
    row = db.execute(f"select {USER} from users u where subject = ?", [subject]).fetchone()
    return User(*row) if row else _add(db, User(secrets.token_hex(6), name, now(), subject), "")


def _add(db: Database, user: User, password: str) -> User:
    try:
        with write(db):
            db.table("users").insert(asdict(user) | {"password": password})
    except sqlite3.IntegrityError as error:
        raise ValueError(f"there is an account ‘{user.name}’ already") from error
    return user


def list_users(db: Database) -> list[User]:
    """Every account, by name."""
    return [User(*row) for row in db.execute(f"select {USER} from users u order by name")]


def get_user(db: Database, name: str) -> tuple[User, str]:
    """The account of that name, in whatever letters' case, and its hashed password. Raises KeyError."""
    row = db.execute(f"select {USER}, password from users u where name = ?", [name]).fetchone()
    if row is None:
        raise KeyError(name)
    return User(*row[:-1]), row[-1]


def set_password(db: Database, user: str, password: str, but: str = "") -> None:
    """Give an account another password; all its sessions end, except that of the hash `but`."""
    with write(db):
        db.execute("update users set password = ? where id = ?", [password, user])
        db.execute("delete from sessions where user = ? and hash <> ?", [user, but])


def remove_user(db: Database, user: str) -> None:
    """Remove an account with its sessions and tokens. What it made stays."""
    with write(db):
        db.execute("delete from users where id = ?", [user])


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
    return User(*row[:-1])


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


def revoke_token(db: Database, user: str, hash: str) -> None:
    """Revoke a token of that account."""
    with write(db):
        db.execute("delete from tokens where user = ? and hash = ?", [user, hash])


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
