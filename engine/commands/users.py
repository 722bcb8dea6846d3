"""python -m engine users add|list|password|remove NAME: the accounts of a lab that `page --accounts` opens."""

from __future__ import annotations

import secrets
import sys
from contextlib import closing
from typing import Annotated

import typer
from sqlite_utils import Database

from engine.commands.mistake import Home, Mistake, open_home
from engine.commands.program import program
from engine.passwords import LONGEST, check_name, hash_password
from storage.accounts import User, add_user, get_user, list_users, remove_user, set_password

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


def _user(db: Database, name: str) -> User:
    try:
        return get_user(db, name)[0]
    except KeyError as error:
        names = ", ".join(user.name for user in list_users(db))
        raise Mistake(f"there is no account ‘{name}’" + (f" (there are: {names})" if names else "")) from error


@users_app.command("add")
def add_command(name: Name, from_input: FromInput = False, generate: Generate = False, home: Home = None) -> None:
    """Add an account; asks for its password."""
    with closing(open_home(home)) as db:
        try:
            check_name(name)
            if name.lower() in {user.name.lower() for user in list_users(db)}:
                raise ValueError(f"there is an account ‘{name}’ already: `{program()} users password {name}`")
            add_user(db, name, _new_password(name, from_input, generate))
        except ValueError as error:
            raise Mistake(str(error)) from error
    typer.echo(f"{name} may sign in where the lab is opened with --accounts")


@users_app.command("list")
def list_command(home: Home = None) -> None:
    """List the accounts."""
    with closing(open_home(home)) as db:
        for user in list_users(db):
            typer.echo(f"{user.name}  (since {user.created_at[:10]})")


@users_app.command("password")
def password_command(name: Name, from_input: FromInput = False, generate: Generate = False, home: Home = None) -> None:
    """Give an account another password; whoever is signed in by it is signed out."""
    with closing(open_home(home)) as db:
        user = _user(db, name)
        if user.subject:
            raise Mistake(f"{user.name} signs in at {user.subject.split()[0]}: the password is there")
        set_password(db, user.id, _new_password(user.name, from_input, generate))
    typer.echo(f"{user.name} has a new password")


@users_app.command("remove")
def remove_command(name: Name, home: Home = None) -> None:
    """Remove an account: its sessions and tokens end at once. Runs and all else that it made stay."""
    with closing(open_home(home)) as db:
        user = _user(db, name)
        remove_user(db, user.id)
    typer.echo(f"{user.name} may not sign in any more")
