"""python -m engine users add|list|password|remove NAME: the accounts of a lab that `page --accounts` opens."""

from __future__ import annotations

import contextlib
import getpass
import secrets
import sys
from contextlib import closing
from typing import Annotated

import typer
from sqlite_utils import Database

from engine.commands.mistake import Home, Mistake, open_home
from engine.commands.program import program
from engine.passwords import LONGEST, check_name, hash_password
from storage.accounts import (
    User,
    add_user,
    get_user,
    list_users,
    remove_user,
    set_password,
    set_quota,
    set_role,
)
from storage.acting import Actor, Role
from storage.audit import note

users_app = typer.Typer(add_completion=False, help="The accounts of a lab that is opened with --accounts.")
Name = Annotated[str, typer.Argument(metavar="NAME", help="A name, or a mail address.")]
FromInput = Annotated[bool, typer.Option("--from-input", help="Read the password from the first line of the input.")]
Generate = Annotated[bool, typer.Option("--generate", help="Make a password up, and print it.")]


def _new_password(name: str, from_input: bool, generate: bool) -> str:
    """The hash of the password that was given. Raises Mistake."""
    if generate:
        password = secrets.token_urlsafe(16)
        typer.echo(f"password: {password}")
    elif from_input:
        password = sys.stdin.readline(LONGEST + 2).rstrip("\r\n")
    else:
        password = typer.prompt("Password", hide_input=True, confirmation_prompt="The same again", err=True)
    try:
        return hash_password(password, name)
    except ValueError as error:
        raise Mistake(str(error)) from error


def _me() -> Actor:
    """As whom the audit knows who sits at the command line."""
    with contextlib.suppress(KeyError, OSError):
        return Actor("", f"command line ({getpass.getuser()})", Role.ADMIN)
    return Actor("", "command line", Role.ADMIN)


def _user(db: Database, name: str) -> User:
    try:
        return get_user(db, name)[0]
    except KeyError as error:
        names = ", ".join(user.name for user in list_users(db))
        raise Mistake(f"there is no account ‘{name}’" + (f" (there are: {names})" if names else "")) from error


@users_app.command("add")
def add_command(
    name: Name,
    role: Annotated[Role | None, typer.Option(help="What it may do; the first account is an admin's.")] = None,
    from_input: FromInput = False,
    generate: Generate = False,
    home: Home = None,
) -> None:
    """Add an account; asks for its password."""
    with closing(open_home(home)) as db:
        try:
            check_name(name)
            users = list_users(db)
            role = role or (Role.RUNNER if users else Role.ADMIN)
            if name.lower() in {user.name.lower() for user in users}:
                raise ValueError(f"there is an account ‘{name}’ already: `{program()} users password {name}`")
            add_user(db, name, _new_password(name, from_input, generate), role, _me())
        except ValueError as error:
            raise Mistake(str(error)) from error
    typer.echo(f"{name}, {role}, may sign in where the lab is opened with --accounts")


@users_app.command("list")
def list_command(home: Home = None) -> None:
    """List the accounts."""
    with closing(open_home(home)) as db:
        for user in list_users(db):
            limits = [f"at most {user.most_runs} runs at a time"] if user.most_runs is not None else []
            limits += [f"at most {user.most_bytes / 1e9:g} GB"] if user.most_bytes is not None else []
            typer.echo(f"{user.name}  {', '.join([user.role, *limits])}  (since {user.created_at[:10]})")


@users_app.command("password")
def password_command(name: Name, from_input: FromInput = False, generate: Generate = False, home: Home = None) -> None:
    """Give an account another password; whoever is signed in by it is signed out, and its tokens end."""
    with closing(open_home(home)) as db:
        user = _user(db, name)
        if user.subject:
            raise Mistake(f"{user.name} signs in at {user.subject.split()[0]}: the password is there")
        set_password(db, user.id, _new_password(user.name, from_input, generate))
        note(db, "gave a password", "account", user.id, user.name, _me())
    typer.echo(f"{user.name} has a new password")


@users_app.command("role")
def role_command(
    name: Name, role: Annotated[Role, typer.Argument(help="viewer, runner or admin.")], home: Home = None
) -> None:
    """Say what an account may do: look (viewer), start and ask (runner), or everything (admin)."""
    with closing(open_home(home)) as db:
        user = _user(db, name)
        try:
            set_role(db, user, role, _me())
        except ValueError as error:
            raise Mistake(str(error)) from error
    typer.echo(f"{user.name} is {role} from now on")


@users_app.command("quota")
def quota_command(
    name: Name,
    runs: Annotated[int | None, typer.Option(min=0, help="How many may wait and run at a time; left out: any.")] = None,
    gigabytes: Annotated[float | None, typer.Option(min=0, help="Of all its runs' files; left out: any.")] = None,
    home: Home = None,
) -> None:
    """Limit what an account may have in the lab; without options, nothing is limited."""
    with closing(open_home(home)) as db:
        user = _user(db, name)
        set_quota(db, user, runs, None if gigabytes is None else int(gigabytes * 1e9), _me())
    typer.echo(
        f"{user.name} may have {'any number of' if runs is None else runs} runs at a time, "
        f"{'of any size' if gigabytes is None else f'{gigabytes:g} GB in all'}"
    )


@users_app.command("remove")
def remove_command(name: Name, home: Home = None) -> None:
    """Remove an account: its sessions and tokens end at once. Runs and all else that it made stay."""
    with closing(open_home(home)) as db:
        user = _user(db, name)
        try:
            remove_user(db, user, _me())
        except ValueError as error:
            raise Mistake(str(error)) from error
    typer.echo(f"{user.name} may not sign in any more")
