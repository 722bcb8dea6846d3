"""On whose behalf the lab is used: a person's, who may not do everything, or nobody's in particular.

The command line, workers, and pages of a lab without accounts act for nobody, and may do everything. Who acts is known
in the whole of one request, so that no page has to hand it on, or can forget to.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from enum import StrEnum


class Role(StrEnum):
    """What a person may do, the least first."""

    VIEWER = "viewer"  # look at everything
    RUNNER = "runner"  # design and start, and change what is their own
    ADMIN = "admin"  # change everything, and keep the accounts


class NotAllowed(ValueError):
    """Somebody may not do this; the message is one sentence that says who may."""


ONLY_LOOK = "your account may only look: an admin of this lab can make it a runner’s"
ONLY_ADMINS = "only an admin of this lab may do this"


@dataclass(frozen=True, slots=True)
class Actor:
    """Who acts: an account's id, its name, its role."""

    id: str
    name: str
    role: Role


_ACTOR: ContextVar[Actor | None] = ContextVar("actor", default=None)


def actor() -> Actor | None:
    """Who acts; None for nobody in particular, who may do everything."""
    return _ACTOR.get()


@contextmanager
def acting_as(who: Actor | None) -> Iterator[None]:
    """What is done within the block is done by that person, or (None) by the lab itself."""
    token = _ACTOR.set(who)
    try:
        yield
    finally:
        _ACTOR.reset(token)


def actor_id() -> str | None:
    """Whose is what is made now; None: nobody's in particular."""
    who = actor()
    return who.id if who else None


def may_run() -> bool:
    """Whether whoever acts may start and ask."""
    who = actor()
    return who is None or who.role is not Role.VIEWER


def may_change(owner: str | None) -> bool:
    """Whether whoever acts may change what is of that account (None: of nobody's)."""
    who = actor()
    return who is None or who.role is Role.ADMIN or (who.role is Role.RUNNER and owner == who.id)


def is_admin() -> bool:
    """Whether whoever acts may change everything."""
    who = actor()
    return who is None or who.role is Role.ADMIN


def check_may_run() -> None:
    """Raises NotAllowed for somebody who may only look."""
    if not may_run():
        raise NotAllowed(ONLY_LOOK)


def check_may_change(what: str, owner: str | None) -> None:
    """Raises NotAllowed where what is of that account (`what`: “this run”) is not for whoever acts to change."""
    check_may_run()
    if not may_change(owner):
        raise NotAllowed(f"{what} is somebody else’s: they or an admin of this lab can do this")


def check_is_admin() -> None:
    """Raises NotAllowed for somebody who is no admin."""
    if not is_admin():
        raise NotAllowed(ONLY_ADMINS)
