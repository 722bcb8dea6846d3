"""Many people at once: python -m tests.load.people --people 30 --minutes 10

Starts a lab with accounts on a fresh home, as `rote-lab page --accounts` does, waits for its first run, queues more,
and lets people open pages, look on, edit drafts, ask and download while a worker trains. Halfway the lab is backed up.
Prints how long what took, what failed, and the memory of the page's process; then restores the backup into an empty
folder and verifies it. Ends with 1 when anything failed, or the 95th percentile of opening a page is over 1 s.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import psutil

from engine.commands.run import queue_experiment, read_experiment
from engine.serving.listening import free_port
from storage import accounts
from storage.acting import Role, acting_as
from storage.database import check_whole, open_database
from storage.runs import count_by_state, get_run
from tests.integration.lab import ROOT, wait_until
from tests.load.visitor import Tab, Taken
from tests.recordings import leave_out_recordings

MOST_SECONDS = 1.0
PAGES = ("/", "/runs", "/runs?state=queued", "/run?run={run}", "/results?run={run}", "/design", "/ask?run={run}",
         "/studies", "/paper", "/attack")  # fmt: skip
EXPORTS = ("results.csv", "answers.csv", "results.json", "report.html", "dataset.zip")


def main() -> int:
    """Carry the load out and tell of it."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--people", type=int, default=30)
    arguments.add_argument("--minutes", type=float, default=10.0)
    arguments.add_argument("--runs", type=int, default=20, help="How many runs wait while they are there.")
    arguments.add_argument("--home", type=Path, help="An empty folder; by default one that is deleted afterwards.")
    given = arguments.parse_args()
    with tempfile.TemporaryDirectory() as spare:
        return load(given.home or Path(spare) / "home", given.people, given.minutes, given.runs)


def load(home: Path, people: int, minutes: float, runs: int) -> int:
    """Let so many people use a lab for so long; returns 0 when all was well."""
    db = open_database(home)
    leave_out_recordings(home)
    names = [f"person{n}" for n in range(people)]
    users = [accounts.add_user(db, name, "", Role.RUNNER if n else Role.ADMIN) for n, name in enumerate(names)]
    tokens = [accounts.add_token(db, user.id, "load") for user in users]
    first = queue_experiment(db, read_experiment("quick", [], 0)).id
    port = free_port()
    command = [sys.executable, "-m", "app", "--home", str(home), "--port", str(port), "--accounts"]
    page = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        wait_until(lambda: get_run(db, first).ended, "the first run")
        for n in range(runs):
            with acting_as(users[n % people].actor):
                queue_experiment(db, read_experiment("quick", [], n + 1))
        address = f"http://127.0.0.1:{port}"
        taken, memory = asyncio.run(visit(address, tokens, first, minutes * 60, page.pid, home))
        states = count_by_state(db)
    finally:
        page.terminate()
        page.wait(60)
    print(f"\n{people} people for {minutes:g} minutes; runs: {json.dumps(states)}\n")
    return tell(taken, memory, verified(home))


async def visit(
    address: str, tokens: list[str], run: str, seconds: float, page: int, home: Path
) -> tuple[Taken, list[int]]:
    """Everybody's visits, and the page's memory in bytes every ten seconds."""
    taken, memory = Taken(), list[int]()
    end = time.monotonic() + seconds
    everybody = [person(address, token, run, end, random.Random(n), taken) for n, token in enumerate(tokens)]

    async def look() -> None:
        while time.monotonic() < end:
            memory.append(psutil.Process(page).memory_info().rss)
            await asyncio.sleep(10)

    async def back_up() -> None:
        await asyncio.sleep(seconds / 2)
        command = [sys.executable, "-m", "engine", "backup", str(home.parent / "backup.tar.gz"), "--home", str(home)]
        done = await asyncio.create_subprocess_exec(*command, cwd=ROOT, stdout=asyncio.subprocess.PIPE)
        told, _ = await done.communicate()
        print(f"backup at the half, status {done.returncode}: {told.decode().strip()}")

    await asyncio.gather(look(), back_up(), *everybody)
    return taken, memory


async def person(address: str, token: str, run: str, end: float, chance: random.Random, taken: Taken) -> None:
    """One person: opens one page after another, stays a while, and does there what one does."""
    headers = {"Authorization": f"Bearer {token}"}
    # A browser asks again where a connection was closed just as it was to be used once more; this client does not.
    limits = httpx.Limits(keepalive_expiry=2.0)
    async with httpx.AsyncClient(base_url=address, headers=headers, timeout=60, limits=limits) as client:
        await asyncio.sleep(chance.uniform(0, 20))
        config = (await client.get("/config")).json()
        while time.monotonic() < end:
            path = chance.choice(PAGES).format(run=run)
            tab = Tab(client, config, path, taken)
            await tab.open()
            await tab.stay(chance.uniform(3, 12))
            await act(tab, run, chance)
            await tab.stay(chance.uniform(3, 12))


async def act(tab: Tab, run: str, chance: random.Random) -> None:
    """What somebody does on a page: edits, asks, downloads, turns to another list."""
    if tab.path == "/design":
        for _ in range(chance.randint(2, 6)):
            await tab.call("edit", tab.function("typed"))
            await tab.stay(chance.uniform(1, 2))
    elif tab.path == "/ask":
        question = {"act": "ask", "run": run, "mode": "text", "text": f"Question {chance.random():.6f}: who is that?"}
        await tab.call("question", tab.function("act"), **question, max_tokens="8")
    elif tab.path in ("/results", "/run"):
        await tab.fetch(f"/export/{run}/{chance.choice(EXPORTS)}")
    elif tab.path == "/runs":
        await tab.call("click", tab.function("act"), act="state", value=chance.choice(["", "done", "running"]))


def verified(home: Path) -> str:
    """What is wrong with the backup, restored into an empty folder; '' when nothing is."""
    backup, restored = home.parent / "backup.tar.gz", home.parent / "restored"
    for words in (["verify", str(backup)], ["restore", str(backup), "--home", str(restored)]):
        done = subprocess.run([sys.executable, "-m", "engine", *words], cwd=ROOT, capture_output=True, text=True)
        if done.returncode:
            return f"{' '.join(words)}: {done.stderr.strip() or done.stdout.strip()}"
    check_whole(restored)
    with closing(open_database(restored)) as there, closing(open_database(home)) as here:
        known = {row[0] for row in here.execute("select id from runs")}
        lost = known ^ {row[0] for row in there.execute("select id from runs")}
    return f"runs {lost} are not in both" if lost else ""


def tell(taken: Taken, memory: list[int], flaw: str) -> int:
    """Print the table; returns 0 when all was well."""
    print(f"{'':10}{'n':>8}{'median':>10}{'95 %':>10}{'longest':>10}{'errors':>8}   (seconds)")
    slow = 0.0
    for kind in dict.fromkeys(sorted(row[0] for row in taken.rows)):
        of: list[Any] = [row for row in taken.rows if row[0] == kind]
        times = sorted(row[1] for row in of)
        most = times[min(len(times) - 1, int(0.95 * len(times)))]
        slow = max(slow, most) if kind in ("page", "open") else slow
        wrong = sum(bool(row[2]) for row in of)
        print(f"{kind:10}{len(of):8}{statistics.median(times):10.3f}{most:10.3f}{times[-1]:10.3f}{wrong:8}")
    problems = [row[2] for row in taken.rows if row[2]]
    for words in dict.fromkeys(problems[:20]):
        print(f"  {words}")
    quarters = [memory[min(len(memory) - 1, len(memory) * n // 4)] // 10**6 for n in range(5)]
    print(f"\nmemory of the page's process in MB, at first and after each quarter of the time: {quarters}")
    print(f"the backup: {flaw or 'verified, and restored into an empty folder: whole, with the same runs'}")
    return int(bool(problems) or slow > MOST_SECONDS or bool(flaw))


if __name__ == "__main__":
    sys.exit(main())
