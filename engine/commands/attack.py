"""python -m engine attack PRESET|FILE [--home DIR] [--results FILE.json]"""

from __future__ import annotations

import contextlib
import time
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table
from sqlite_utils import Database

from engine.attack.experiment import AttackExperiment
from engine.attack.presets import attack_preset_names, attack_preset_text
from engine.commands.mistake import Home, Mistake, open_home, read_source, write_json
from engine.commands.program import program
from engine.description import override, read_mapping
from engine.execution.attacks.queue import queue_attack
from engine.execution.attacks.tables import costs, curve, detection, document
from storage.attacks import attack_counts, base_runs, get_attack, list_attack_results, list_cells
from storage.database import default_home
from storage.runs import ENDED, State, get_run


def read_attack(source: str, overrides: list[str]) -> AttackExperiment:
    """The attack experiment of a preset or file, with overrides. Raises Mistake."""
    text = attack_preset_text(source) if source in attack_preset_names() else None
    try:
        data = read_mapping(text or read_source(source, attack_preset_names()), AttackExperiment.FIELD)
        for assignment in overrides:
            override(data, assignment)
        return AttackExperiment.from_data(data)
    except ValueError as error:
        raise Mistake(f"{source}: {error}") from error


def attack(
    source: Annotated[
        str, typer.Argument(metavar="PRESET|FILE|ID", help="attack, story, a file, or an attack to go on.")
    ],
    overrides: Annotated[list[str] | None, typer.Option("--set", metavar="PATH=VALUE", help="e.g. seeds=[0].")] = None,
    home: Home = None,
    results: Annotated[Path | None, typer.Option(metavar="FILE.json", help="Where to write the result rows.")] = None,
    record: Annotated[
        Path | None, typer.Option(metavar="FILE.json.xz", help="Where to write rows and answers, for other labs.")
    ] = None,
    queue_only: Annotated[bool, typer.Option("--queue", help="Leave the work to a worker; print the id.")] = False,
) -> None:
    """Give memorised facts a second reading, over a grid, with controls and defences."""
    for path in filter(None, (results, record)):
        if not path.absolute().parent.is_dir():
            raise Mistake(f"the folder of {path} does not exist: make it first")
    folder = home or default_home()
    db = open_home(folder)
    attack_id = _existing(db, source) if not overrides else None
    if attack_id is None:
        experiment = read_attack(source, overrides or [])
        try:
            attack_id = queue_attack(db, experiment)
        except ValueError as error:
            raise Mistake(f"{source}: {error}") from error
    if queue_only:
        typer.echo(attack_id)
        return
    _work(db, folder, attack_id)
    if results is not None:
        write_json(results, document(db, attack_id))
    failed = [c for c in list_cells(db, attack_id) if c.state is not State.DONE]
    _print(db, attack_id)
    if record is not None and not failed:
        from engine.execution.attacks.recording import record as write_recording

        settings = "".join(f" --set {setting}" for setting in overrides or [])
        write_recording(db, folder, attack_id, record, f"python -m engine attack {source}{settings}")
    if failed:
        raise Mistake(f"{len(failed)} cells did not end well; the first, {failed[0].run}: {failed[0].error}")


def _existing(db: Database, source: str) -> str | None:
    try:
        return get_attack(db, source).id
    except KeyError:
        return None


def _work(db: Database, home: Path, attack_id: str) -> None:
    """Carry out what is left of the attack in this process, beside whatever workers do; ends when all of it has."""
    from engine.execution.pipeline import execute_run
    from engine.execution.worker import LeaseKeeper, Registration
    from storage.runs import LEASE_SECONDS, LostRunError, claim_run, finish_run
    from storage.workers import remove_worker

    me = Registration(db)
    console = Console(stderr=True)
    running = None
    try:
        with console.status("Starting") as status:
            while not _ended(db, attack_id):
                me.release_dead_workers()
                waiting = [r for r in base_runs(db, attack_id) if get_run(db, r).state not in ENDED]
                me.beat(None)
                running = next(filter(None, (claim_run(db, me.id, LEASE_SECONDS, r) for r in waiting)), None)
                running = running or claim_run(db, me.id, LEASE_SECONDS, attack=attack_id)
                if running is None:
                    time.sleep(0.5)
                    continue
                me.beat(running.id, force=True)
                counts = attack_counts(db, attack_id)
                words = "memorising" if running.attack is None else "cell " + _words(running.cell or {})
                status.update(f"{counts.get('done', 0)} of {sum(counts.values())} cells done; {words}")
                # Another worker may have taken it over while this process slept: its cell then comes from there.
                with LeaseKeeper(home, running), contextlib.suppress(LostRunError):
                    execute_run(db, home, running)
                running = None
    except KeyboardInterrupt:
        if running is not None:
            finish_run(db, running.id, running.attempt, State.CANCELLED)
        raise Mistake(f"stopped; go on with: {program()} attack {attack_id}") from None
    finally:
        remove_worker(db, me.id)


def _ended(db: Database, attack_id: str) -> bool:
    return all(State(state) in ENDED for state in attack_counts(db, attack_id))


def _words(cell: dict[str, Any]) -> str:
    return f"‘{cell['reading']}’, {cell['attack_facts']} facts, {cell['control']}, defence {cell['defence']}"


def _print(db: Database, attack_id: str) -> None:
    """Tables for a terminal: accuracy on test prompts about facts that the attack never saw."""
    rows, cells = list_attack_results(db, attack_id, by_fact=True), list_cells(db, attack_id)
    experiment = get_attack(db, attack_id).experiment
    console = Console(width=110)
    sizes = sorted({r["attack_facts"] for r in rows})
    table = Table(
        "", *(str(n) for n in sizes), title=f"attack {attack_id}: held-out facts, test prompts, by attack facts"
    )
    for control in ("attack", *experiment["controls"]):
        points = [r for r in curve(rows, control=control) if r["split"] == "test" and r["language"] == "en"]
        for role in ("taught", "benign"):
            chosen: dict[int, str] = {}
            for r in points:
                taught = r["reading"] == r["attacked_reading"] if r["control"] == control else r["role"] == control
                if taught if role == "taught" else r["role"] == "benign":
                    chosen.setdefault(r["attack_facts"], f"{r['value']:.2f} [{r['low']:.2f}–{r['high']:.2f}]")
            table.add_row(f"{control}: {role}", *(chosen.get(n, "") for n in sizes))
    console.print(table)
    table = Table("defence", "harmful", "benign", "benign before", "knew before", "4 bit: benign", "seconds")
    for cost in costs(rows, cells):
        shown = [cost[n] for n in ("harmful", "benign", "benign_before", "known_before", "benign_before_4bit")]
        table.add_row(cost["defence"], *(f"{v['value']:.2f}" if v else "" for v in shown),
                      f"{cost['harden_seconds'] + (cost['train_seconds'] or 0):.1f}")  # fmt: skip
    console.print(table)
    for found in detection(rows):
        console.print(f"scan, {found['detector']}, at least {found['least_facts']} facts: AUROC {found['value']:.2f} "
                      f"[{found['low']:.2f}–{found['high']:.2f}]")  # fmt: skip
