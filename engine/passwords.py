"""Passwords of accounts: hashed with Argon2id by pwdlib, at its recommended costs: slow on purpose, 50 ms and more."""

from __future__ import annotations

import re
from functools import cache

from pwdlib import PasswordHash

SHORTEST, LONGEST = 10, 1000
# What an account, and a proxy's header, may name: account names and mail addresses, nothing that could be a list.
USER = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@+\\-]{0,127}", re.ASCII)

_hashes = PasswordHash.recommended()


@cache
def _nobodys() -> str:
    """Looked at where there is no such account, so that an answer takes as long as for one that there is."""
    return _hashes.hash("nobody's")


def check_name(name: str) -> None:
    """Raises ValueError for what cannot be the name of an account."""
    if not USER.fullmatch(name):
        raise ValueError(f"‘{name[:40]}’ is no name of an account: take letters, digits, and . _ @ + - between them")


def hash_password(password: str, name: str = "") -> str:
    """A new password as it is stored. Raises ValueError for one that is too short, too long, or the account's name."""
    if not SHORTEST <= len(password) <= LONGEST:
        raise ValueError(f"a password has {SHORTEST} to {LONGEST} characters")
    if password.casefold() == name.casefold():
        raise ValueError("the password is the name of the account: take another")
    return _hashes.hash(password)


def is_password(password: str, hashed: str) -> bool:
    """Whether it is the password of that hash; '', of an account without one or of none, takes as long and is wrong."""
    if len(password) > LONGEST:
        return False
    right: bool = _hashes.verify(password, hashed or _nobodys())
    return right and bool(hashed)
