"""Quotas: how many runs of a person's may wait or run, and how much room all of theirs may take."""

from __future__ import annotations

from pathlib import Path

from sqlite_utils import Database

from storage.acting import NotAllowed, actor, is_admin
from storage.folders import attack_folder, run_folder


def check_quota(db: Database, runs: int = 1) -> None:
    """Whether whoever acts may start so many more. Raises NotAllowed, with what they may and how to go on."""
    who = actor()
    if who is None or is_admin():
        return
    row = db.execute("select most_runs, most_bytes from users where id = ?", [who.id]).fetchone()
    most_runs, most_bytes = row or (None, None)
    if most_runs is not None and (going := going_on(db, who.id)) + runs > most_runs:
        raise NotAllowed(
            f"at most {most_runs} runs of yours may wait or run, {going} do, and this would be {runs} more: wait for "
            "them, cancel some, or ask an admin of this lab for more"
        )
    if most_bytes is not None and (used := used_bytes(db, who.id)) >= most_bytes:
        raise NotAllowed(
            f"your runs take {used / 1e9:.1f} GB, and may take {most_bytes / 1e9:.1f} GB: delete some, or ask an admin "
            "of this lab for more"
        )


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
