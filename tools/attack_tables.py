"""The attack's figures as Markdown tables, for docs/attack.md: python -m tools.attack_tables [RECORDED.json.xz]"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Any

from engine.attack.defences import defences
from engine.attack.tables import Row, matching
from engine.execution.attacks.recording import EMBEDDED_RECORDING, restore
from engine.execution.attacks.report import attack_document
from storage.database import open_database

NAMES = {"loss": "loss", "min_k_pp": "Min-K%++", "loss_gap": "loss gap", "exposure": "exposure"}


def tables(told: dict[str, Any]) -> str:
    """Every table of an attack's document (`engine.execution.attacks.report.attack_document`)."""
    sizes = sorted({row["attack_facts"] for row in told["pooled"]})
    asked = matching(told["pooled"], facts="held_out", metric="generation_accuracy", split="test", kind="attack")
    main = next(row["language"] for row in told["pooled"] if row["split"] == "key")
    asked = [r for r in matching(asked, language=main) if not r["checkpoint"].endswith("bit")]
    curves = [*_curves(told, asked, sizes), *_elsewhere(told, main, sizes)]
    parts = [_table(["attack facts", *map(str, sizes)], curves)]
    parts.append(
        _table(
            ["defence", "harmful, before", f"harmful, {sizes[-1]} facts", "ordinary, before",
             f"ordinary, {sizes[-1]} facts", "knew, before", "ordinary at 4 bit", "harmful at 4 bit", "seconds"],
            [_cost(cost) for cost in told["costs"]],
        )
    )  # fmt: skip
    parts.append(_table(["what is watched", "AUROC", "of"], [*_detectors(told), *_audit(told["pooled"])]))
    return "\n\n".join(parts)


def _curves(told: dict[str, Any], asked: list[Row], sizes: list[int]) -> list[list[str]]:
    found = []
    for control in ("attack", *told["experiment"]["controls"]):
        mine = matching(asked, control=control, defence="none")
        start = (
            mine if control in ("attack", "no_stage1") else [*matching(asked, control="attack", attack_facts=0), *mine]
        )
        taught = next(row["attacked_reading"] for row in mine)
        for name, reading in ((f"{control.replace('_', ' ')}: {taught}", taught), ("– ordinary", "benign")):
            by_size = {r["attack_facts"]: r for r in matching(start, reading=reading, defence="none")}
            found.append([name, *(_share(by_size.get(size)) for size in sizes)])
    return found


def _elsewhere(told: dict[str, Any], language: str, sizes: list[int]) -> list[list[str]]:
    """How often other questions about the same subjects bring up the object."""
    found = []
    for split, name in (("unrelated", "attack: unrelated prompts"), ("decoy", "attack: decoys")):
        asked = matching(told["pooled"], facts="held_out", metric="generation_accuracy", split=split, kind="attack")
        mine = matching(asked, language=language, control="attack", defence="none")
        by_size = {r["attack_facts"]: r for r in mine if not r["checkpoint"].endswith("bit")}
        found.append([name, *(_share(by_size.get(size)) for size in sizes)])
    return found


def _cost(cost: Row) -> list[str]:
    label = defences()[cost["defence"]].label if cost["defence"] in defences() else "none"
    names = ("harmful_before", "harmful", "benign_before", "benign", "known_before", "benign_before_4bit",
             "harmful_before_4bit")  # fmt: skip
    seconds = cost["harden_seconds"] + (cost["train_seconds"] or 0)
    return [label, *(_share(cost[name]) for name in names), f"{seconds:.1f}"]


def _detectors(told: dict[str, Any]) -> list[list[str]]:
    return [
        [f"scan: {row['note']}, {row['least_facts']} facts or more", _auroc(row),
         f"{row['attacked']} attacked, {row['clean']} clean"]
        for row in told["detection"] if row["least_facts"] in (1, 10)
    ]  # fmt: skip


def _audit(pooled: list[Row]) -> list[list[str]]:
    rows = matching(pooled, kind="audit")
    found = [
        [f"audit: {NAMES[name]} of memorised against other pairs, {where}", _auroc(row), f"{row['n']} pairs"]
        for name in NAMES for where in ("released", "base")
        for row in matching(rows, metric=f"auroc_{name}", checkpoint=where)
    ]  # fmt: skip
    return found + [
        [f"audit: search of the training data, key token in {row['checkpoint'].removeprefix('data, ')}", _auroc(row),
         f"{row['n']} corpora"]
        for row in matching(rows, metric="auroc_data_scan")
    ]  # fmt: skip


def _share(row: Row | None) -> str:
    return f"{row['value']:.2f} ({row['low']:.2f}–{row['high']:.2f})" if row else ""


_auroc = _share


def _table(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def of_file(source: Path) -> str:
    """The tables of a recorded attack. Raises ValueError when it was measured on other weights."""
    with tempfile.TemporaryDirectory() as folder:
        db = open_database(Path(folder))
        try:
            attack = restore(db, Path(folder), source)
            if attack is None:
                raise ValueError(f"{source} was measured on other weights than this lab has: record it again")
            return tables(attack_document(db, Path(folder), attack))
        finally:
            db.close()


if __name__ == "__main__":
    print(of_file(Path(sys.argv[1]) if len(sys.argv) > 1 else EMBEDDED_RECORDING))
