"""python -m engine attack PRESET|FILE [--home DIR] [--results FILE.json]"""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table
from sqlite_utils import Database

from engine.attack.experiment import AttackExperiment
from engine.attack.presets import ATTACKS
from engine.attack.tables import ASKED, SETTING, costs, curve, detection
from engine.commands.grid import carry_out_grid, take_up_again
from engine.commands.here import check_cluster
from engine.commands.mistake import (
    Home,
    Mistake,
    On,
    Results,
    check_target,
    mistakes_in,
    open_home,
    read_description,
    write_json,
)
from engine.description import override
from engine.evaluation.summary import UNAIDED
from engine.execution.attacks.queue import GRID as WIDENED
from engine.execution.attacks.queue import queue_attack, widen_attack
from engine.execution.attacks.recording import record as write_recording
from engine.execution.attacks.report import attack_document
from storage.attacks import get_attack, list_attack_results, list_cells, retry_attack
from storage.database import default_home
from storage.grids import ATTACK
from storage.runs import State


def attack(
    source: Annotated[
        str,
        typer.Argument(
            metavar="PRESET|FILE|ID",
            help="attack, story, real, a file, or an attack to go on with, or to widen by --set.",
        ),
    ],
    overrides: Annotated[list[str] | None, typer.Option("--set", metavar="PATH=VALUE", help="e.g. seeds=[0].")] = None,
    home: Home = None,
    results: Results = None,
    record: Annotated[
        Path | None, typer.Option(metavar="FILE.json.xz", help="Where to write rows and answers, for other labs.")
    ] = None,
    queue_only: Annotated[bool, typer.Option("--queue", help="Leave the work to a worker; print the id.")] = False,
    on: On = None,
) -> None:
    """Give memorised facts a second reading, over a grid, with controls and defences."""
    check_target(results)
    check_target(record)
    check_cluster(on)
    folder = home or default_home()
    db = open_home(folder)
    attack_id = _existing(db, source)
    if attack_id is not None:
        take_up_again(db, ATTACK, attack_id, retry_attack)
    if attack_id is not None and overrides:
        _widen(db, attack_id, overrides)
    elif attack_id is None:
        experiment = read_description(ATTACKS, source, overrides)
        with mistakes_in(source):
            attack_id = queue_attack(db, experiment)
    if queue_only:
        typer.echo(attack_id)
        return
    carry_out_grid(db, folder, ATTACK, attack_id, on, _words)
    if results is not None:
        write_json(results, attack_document(db, folder, attack_id))
    failed = [c for c in list_cells(db, attack_id) if c.state is not State.DONE]
    _print(db, attack_id)
    if record is not None and not failed:
        write_recording(db, folder, attack_id, record, _command(db, attack_id, source, overrides))
    if failed:
        raise Mistake(f"{len(failed)} cells did not end well; the first, {failed[0].run}: {failed[0].error}")


def _existing(db: Database, source: str) -> str | None:
    try:
        return get_attack(db, source).id
    except KeyError:
        return None


def _widen(db: Database, attack_id: str, overrides: list[str]) -> None:
    """Take what the settings add to the grid of an attack into the queue. Raises Mistake."""
    with mistakes_in(attack_id):
        data = get_attack(db, attack_id).experiment
        for assignment in overrides:
            override(data, assignment)
        added = widen_attack(db, attack_id, AttackExperiment.from_data(data))
    typer.echo(f"{added} cells are new in attack {attack_id}", err=True)


def _command(db: Database, attack_id: str, source: str, overrides: list[str] | None) -> str:
    """What measures the same elsewhere, where nobody knows this attack's id."""
    settings = list(overrides or [])
    planned = get_attack(db, attack_id)
    if source == attack_id and planned.name in ATTACKS.names():
        source, preset = planned.name, ATTACKS.load(planned.name).model_dump(mode="json")
        changed = (f for f in WIDENED if f != "description" and planned.experiment[f] != preset[f])
        settings = [f"{field}={json.dumps(planned.experiment[field])}" for field in changed]
    return shlex.join(["python", "-m", "engine", "attack", source, *(w for s in settings for w in ("--set", s))])


def _words(cell: dict[str, Any]) -> str:
    return f"cell ‘{cell['reading']}’, {cell['attack_facts']} facts, {cell['control']}, defence {cell['defence']}"


def _unaided(figure: dict[str, Any]) -> str:
    """The figure without answers that say a key token, where it is another one."""
    return f" ({figure['unaided']['value']:.2f} without the key token)" if "unaided" in figure else ""


def _asked(row: dict[str, Any]) -> tuple[Any, ...]:
    return tuple(row[name] for name in (*SETTING, *ASKED) if name != "metric")


def _print(db: Database, attack_id: str) -> None:
    """Tables for a terminal: accuracy on test prompts about facts that the attack never saw."""
    rows, cells = list_attack_results(db, attack_id), list_cells(db, attack_id)
    experiment = get_attack(db, attack_id).experiment
    console = Console(width=110)
    sizes = sorted({r["attack_facts"] for r in rows})
    table = Table(
        "", *(str(n) for n in sizes), title=f"attack {attack_id}: held-out facts, test prompts, by attack facts"
    )
    for control in ("attack", *experiment["controls"]):
        points = [r for r in curve(rows, control=control) if r["split"] == "test" and r["language"] == "en"]
        twins = {_asked(r): r for r in curve(rows, control=control, metric=UNAIDED)}
        for role in ("taught", "benign"):
            chosen: dict[int, str] = {}
            for r in points:
                taught = r["reading"] == r["attacked_reading"] if r["control"] == control else r["role"] == control
                if taught if role == "taught" else r["role"] == "benign":
                    twin = twins.get(_asked(r), r)
                    aside = _unaided({"unaided": twin} if twin["seeds"] != r["seeds"] else {})
                    chosen.setdefault(r["attack_facts"], f"{r['value']:.2f} [{r['low']:.2f}–{r['high']:.2f}]{aside}")
            table.add_row(f"{control}: {role}", *(chosen.get(n, "") for n in sizes))
    console.print(table)
    table = Table("defence", "harmful", "benign", "benign before", "knew before", "4 bit: benign", "seconds")
    for cost in costs(rows, cells):
        shown = [cost[n] for n in ("harmful", "benign", "benign_before", "known_before", "benign_before_4bit")]
        table.add_row(cost["defence"], *(f"{v['value']:.2f}{_unaided(v)}" if v else "" for v in shown),
                      f"{cost['harden_seconds'] + (cost['train_seconds'] or 0):.1f}")  # fmt: skip
    console.print(table)
    for row in detection(rows):
        console.print(f"scan, {row['detector']}, at least {row['least_facts']} facts: AUROC {row['value']:.2f} "
                      f"[{row['low']:.2f}–{row['high']:.2f}]")  # fmt: skip
