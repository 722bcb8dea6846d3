"""Pictures of every page, light and dark, wide and narrow: python -m tests.browser.pictures OUT_DIR [--home DIR]

Runs are drawn; the attack, a small one, is really measured for them (half a minute).
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import Annotated

import typer
from playwright.sync_api import Browser, sync_playwright

from app.attack.view import STEPS
from storage.attacks import list_attacks
from storage.database import open_database
from storage.recordings import recorded_runs
from storage.runs import State, list_runs
from tests.browser import asking_seeding, attack_seeding, seeding, study_seeding
from tests.browser.conftest import CHROMIUM_ARGUMENTS, THEMES, Theme, serving

WIDTHS = (1280, 390)
SETTLE_MS = 2500


def main(
    out_dir: Path,
    home: Annotated[Path | None, typer.Option(help="A lab's folder; by default one with drawn runs.")] = None,
    only: Annotated[str, typer.Option(help="Only pages whose name contains this.")] = "",
) -> None:
    """Write one PNG for each page, theme and width into OUT_DIR."""
    out_dir.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        folder = home or Path(scratch) / "lab"
        if home is None:
            seed(folder, Path(scratch) / "small-attack")
        pages = {name: path for name, path in addresses(folder).items() if only in name}
        with serving(folder) as address, sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=CHROMIUM_ARGUMENTS)
            for name, path in pages.items():
                for theme in THEMES:
                    for width in WIDTHS:
                        take(browser, address + path, out_dir / f"{name}-{theme}-{width}.png", theme, width)


def take(browser: Browser, address: str, path: Path, theme: Theme, width: int) -> None:
    """One picture of the whole page."""
    page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=theme)
    page.goto(address)
    page.locator(".lab").first.wait_for(state="attached")
    page.wait_for_timeout(SETTLE_MS)
    page.screenshot(path=path, full_page=True)
    page.close()
    print(path, flush=True)


def seed(home: Path, shared_attack: Path) -> None:
    """Runs in every state, one with a hostile name; `shared_attack`: see `attack_seeding.measured`."""
    attack_seeding.measured(shared_attack, home)
    db = open_database(home)
    study_seeding.paper(db, done=14)  # first, so that the newest runs are the others
    (home / "first-start.txt").write_text("drawn runs")
    for name in seeding.HOSTILE_NAMES:
        seeding.queue(db, seeding.quick(name))
    seeding.failed(db, home)
    seeding.finished(db, home)
    seeding.recorded(db, home, home / "scratch")
    run = seeding.running(db, home)
    seeding.alive_worker(db, run)
    db.close()


def addresses(home: Path) -> dict[str, str]:
    """Every page worth a picture, by name."""
    db = open_database(home)
    pages = {
        "home": "/",
        "design": "/design",
        "runs": "/runs",
        "studies": "/studies",
        "paper": "/paper",
        "results-choose": "/results",
        "run-none": "/run?run=0",
    }
    pages |= {"missing": "/no-such-page", "model-card": "/model-card"}
    for state in (State.RUNNING, State.DONE, State.FAILED):
        for run in list_runs(db, limit=1, state=state.value, made_here=True):
            pages[f"run-{state.value}"] = f"/run?run={run.id}"
            pages[f"results-{state.value}"] = f"/results?run={run.id}"
            if state is State.DONE:
                pages |= asking_seeding.pages(db, home, run)
    for run in recorded_runs(db)[:1]:
        pages |= {"results-recorded": f"/results?run={run.id}", "ask-recorded": f"/ask?run={run.id}"}
    for attack in list_attacks(db, limit=1):
        story = f"/attack?attack={attack.id}"
        pages |= {f"attack-{step}": f"{story}&step={step}&guess=6" for step in STEPS}
        pages |= {f"attack-present-{step}": f"{story}&step={step}&guess=6&view=present" for step in STEPS}
        pages |= {"attack-grid": f"{story}&view=grid", "attack-none": "/attack?attack=0"}
        key = f"attack/none/{max(attack.experiment['facts'])}/{attack.experiment['reading']}/test/en/held_out"
        pages["attack-drawer"] = f"{story}&step=reveal&opened={key}"
    db.close()
    return pages


if __name__ == "__main__":
    typer.run(main)
