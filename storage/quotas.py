"""Quotas: how many runs of a person's may wait or run, and how much room all of theirs may take."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sqlite_utils import Database

from storage.acting import NotAllowed, Role, actor
from storage.folders import attack_folder, run_folder


def check_runs(db: Database, runs: int) -> None:
    """Whether so many more runs of whoever acts may wait. Raises NotAllowed, with what they may and how to go on."""
    owner, most = _limit(db, "most_runs")
    if most is not None:
        _refuse_more(going_on(db, owner), runs, most)


@contextmanager
def no_more_than_may(db: Database) -> Iterator[None]:
    """Within a transaction: whether as many more runs of whoever acts may wait as begin to within the block. Raises
    NotAllowed as `check_runs`."""
    owner, most = _limit(db, "most_runs")
    before = 0 if most is None else going_on(db, owner)
    yield
    if most is not None and (more := going_on(db, owner) - before) > 0:
        _refuse_more(before, more, most)


def _refuse_more(going: int, more: int, most: int) -> None:
    if going + more > most:
        raise NotAllowed(
            f"at most {most} runs of yours may wait or run, {going} do, and this would be {more} more: wait for them, "
            "cancel some, or ask an admin of this lab for more"
        )


def check_room(db: Database) -> None:
    """Whether what whoever acts has on the disk leaves room for more. Raises NotAllowed as `check_runs`."""
    owner, most = _limit(db, "most_bytes")
    if most is not None and (used := used_bytes(db, owner)) >= most:
        raise NotAllowed(
            f"your runs take {used / 1e9:.1f} GB, and may take {most / 1e9:.1f} GB: delete some, or ask an admin of "
            "this lab for more"
        )


def _limit(db: Database, column: str) -> tuple[str, int | None]:
    """Who acts, and their limit; None where there is none."""
    who = actor()
    if who is None or who.role is Role.ADMIN:
        return "", None
    row = db.execute(f"select {column} from users where id = ?", [who.id]).fetchone()
    return who.id, row[0] if row else None


def going_on(db: Database, owner: str) -> int:
    """How many of an account's runs wait or run, those of its studies and attacks included."""
    sql = "select count(*) from runs where owner = ? and state in ('queued', 'running', 'stopping')"
    return int(db.execute(sql, [owner]).fetchone()[0])


def used_bytes(db: Database, owner: str) -> int:
    """The bytes that the folders of an account's runs and attacks take on the disk; what runs share counts once."""
    home = Path(db.execute("select file from pragma_database_list where name = 'main'").fetchone()[0]).parent
    folders = [run_folder(home, row[0]) for row in db.execute("select id from runs where owner = ?", [owner])]
    folders += [attack_folder(home, row[0]) for row in db.execute("select id from attacks where owner = ?", [owner])]
    seen: dict[tuple[int, int], int] = {}
    for folder in folders:
        for path in folder.rglob("*"):
            try:
                about = path.lstat()
            except FileNotFoundError:  # a worker writes there
                continue
            seen[about.st_dev, about.st_ino] = about.st_blocks * 512
    return sum(seen.values())
