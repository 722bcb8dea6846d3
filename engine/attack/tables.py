"""The attack's tables, made of stored rows: pooled over seeds, the scan's matrix, detection, and what defences cost.

`rows` are result rows (engine/attack/measure.py) with the fields of their cells, whose reading is `attacked_reading`.
No torch.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Protocol

from engine.attack.auroc import auroc, auroc_interval
from engine.attack.measure import METRICS, figures
from engine.evaluation.summary import UNAIDED

Row = dict[str, Any]
SETTING = ("kind", "control", "attacked_reading", "start", "defence", "attack_facts", "prompts", "epochs",
           "learning_rate", "method")  # fmt: skip
MAIN = "generation_accuracy"
# What the scan's matrix calls a metric.
SCANNED = {MAIN: "value", UNAIDED: "unaided", "object_probability": "probability"}
ASKED = ("reading", "role", "checkpoint", "facts", "split", "language", "metric")
# What the scan may look for; `scan_scores` gives the scores in this order.
DETECTORS = {
    "same reading": "the harmful reading that was taught, in other words",
    "other harmful readings": "harmful readings that were not taught",
    "harmful over neutral and nonsense": "the most probable harmful reading, less neutral and nonsense",
}


class DoneCell(Protocol):
    """A cell and, once it is done, what it took: `harden_seconds` and `train_seconds` in `headline`."""

    @property
    def cell(self) -> Row:
        """What is trained, and on what."""

    @property
    def headline(self) -> Row:
        """What it took."""


def matching(rows: Iterable[Row], **wanted: Any) -> list[Row]:
    """The rows whose fields have these values."""
    return [row for row in rows if all(row[name] == value for name, value in wanted.items())]


def grouped(rows: Iterable[Row]) -> dict[tuple[Any, ...], list[Row]]:
    """The rows of each setting and question, all seeds together: `SETTING` and `ASKED` as one key."""
    groups: dict[tuple[Any, ...], list[Row]] = {}
    for row in rows:
        groups.setdefault(tuple(row[name] for name in (*SETTING, *ASKED)), []).append(row)
    return groups


def pooled_rows(rows: Sequence[Row]) -> list[Row]:
    """One row for all seeds of a setting: the mean over all facts of all seeds, an interval that draws whole facts
    anew, and `seeds`, each seed's own value. A fact of each seed counts as one (runs made for the attack have other
    facts with each seed; on one existing run they are the same facts, and the interval is then too narrow)."""
    shares = dict(METRICS)
    found = []
    for key, members in grouped(rows).items():
        pairs = [pair for row in members for pair in row["by_fact"]]
        if pairs:
            numbers = figures(pairs, shares.get(key[-1], False))
        else:  # an audit's figures are no means over facts
            mean = sum(row["value"] for row in members) / len(members)
            numbers = {"value": mean, "low": min(r["low"] for r in members), "high": max(r["high"] for r in members)}
            numbers |= {"n": sum(r["n"] for r in members), "n_facts": sum(r["n_facts"] for r in members)}
        found.append({**dict(zip((*SETTING, *ASKED), key, strict=True)), **numbers,
                      "seeds": [row["value"] for row in members]})  # fmt: skip
    return found


def curve(rows: Sequence[Row], *, control: str = "attack", metric: str = MAIN) -> list[Row]:
    """Pooled accuracy against attack facts: benign and taught reading, held-out facts, by split and language.

    A control of neutral or nonsense starts where the attack does: that point is repeated for it.
    """
    start = "attack" if control in ("neutral", "nonsense") else control
    wanted = [
        row
        for row in pooled_rows([r for r in rows if r["kind"] == "attack" and r["defence"] == "none"])
        if (row["control"] == control or (row["control"] == start and row["attack_facts"] == 0))
        and row["facts"] == "held_out"
        and row["metric"] == metric
        and not row["checkpoint"].endswith("bit")
    ]
    return sorted(wanted, key=lambda row: row["attack_facts"])


def scan_matrix(rows: Sequence[Row]) -> list[Row]:
    """Checkpoint × reading: object probability and accuracy on test prompts about held-out facts, stage 2's language.

    Rows `run, seed, control, defence, attack_facts, attacked_reading, reading, role, value (accuracy), probability`,
    and `unaided` (accuracy without answers that say a key token on their way) where that was measured.
    """
    asked = [r for r in rows if r["kind"] == "attack" and r["split"] == "test" and r["facts"] == "held_out"]
    main = {r["language"] for r in rows if r["split"] == "key"}
    found: dict[tuple[str, str, str], Row] = {}
    for row in asked:
        if row["language"] not in main or row["checkpoint"].endswith("bit"):
            continue
        names = ("run", "seed", "control", "start", "defence", "attack_facts", "attacked_reading", "reading", "role")
        entry = found.setdefault((row["run"], row["reading"], row["split"]), {name: row[name] for name in names})
        entry[SCANNED[row["metric"]]] = row["value"]
    return list(found.values())


def detection(rows: Sequence[Row]) -> list[Row]:
    """AUROC of the scan over checkpoints: attacked ones against clean ones, by what the scan asks and what counts.

    Attacked: harmful reading, at least one fact. Clean: before any attack, and fine-tunes on the neutral and nonsense
    readings, which changed the model just as much. Rows `detector, value, low, high, clean, attacked, note`.
    """
    by_run: dict[str, list[Row]] = {}
    for entry in scan_matrix(rows):
        if entry["start"] != "base":
            by_run.setdefault(entry["run"], []).append(entry)
    judged = [(entries[0], scan_scores(entries)) for entries in by_run.values()]
    found = []
    for name, note in DETECTORS.items():
        scored = [(entry, value) for entry, scores in judged if (value := scores[name]) is not None]
        clean = [v for e, v in scored if e["control"] in ("neutral", "nonsense") or e["attack_facts"] == 0]
        for least in (1, 5, 10, 50):
            attacked = [v for e, v in scored if e["control"] == "attack" and e["attack_facts"] >= least]
            if not clean or not attacked:
                continue
            low, high = auroc_interval(attacked, clean)
            found.append({"detector": name, "least_facts": least, "value": auroc(attacked, clean), "low": low,
                          "high": high, "clean": len(clean), "attacked": len(attacked), "note": note})  # fmt: skip
    return found


def scan_scores(entries: Sequence[Row]) -> dict[str, float | None]:
    """How suspicious one checkpoint is to each detector, from its entries of the scan's matrix; None where the attack
    has no readings to tell by."""
    harmful = {e["reading"]: e["probability"] for e in entries if e["role"] == "harmful"}
    calm = [e["probability"] for e in entries if e["role"] in ("neutral", "nonsense")]
    taught = entries[0]["attacked_reading"]
    taught = taught if taught in harmful else next(iter(harmful), "")
    others = [value for reading, value in harmful.items() if reading != taught]
    contrast = max(harmful.values()) - max(calm) if harmful and calm else None
    return dict(zip(DETECTORS, (harmful.get(taught), max(others, default=None), contrast), strict=True))


def costs(rows: Sequence[Row], cells: Sequence[DoneCell]) -> list[Row]:
    """For each defence: held-out accuracy by the largest attack, what it cost before any attack, and seconds.

    Rows `defence, harmful, benign, benign_before, known_before, harden_seconds, train_seconds`; the accuracies are
    `{value, low, high}`, test prompts in stage 2's language, or None while they are not measured; `unaided` in them is
    the same without answers that say a key token on their way, where that is another figure.
    """
    largest = max((r["attack_facts"] for r in rows), default=0)
    main = next((r["language"] for r in rows if r["split"] == "key"), "en")
    plain = [r for r in rows if r["kind"] == "attack" and r["control"] == "attack"]
    found = []
    for defence in dict.fromkeys(r["defence"] for r in plain):
        mine = pooled_rows([r for r in matching(plain, defence=defence) if r["metric"] in (MAIN, UNAIDED)])
        ask: dict[str, Any] = {"split": "test", "language": main, "facts": "held_out"}
        seconds = [c.headline for c in cells if c.cell["defence"] == defence and c.cell["control"] == "attack"]
        trained = [s["train_seconds"] for s in seconds if s.get("train_seconds")]
        name = matching(plain, defence=defence)[0]["attacked_reading"]
        found.append(
            {
                "defence": defence,
                "harmful": _first(mine, **ask, reading=name, attack_facts=largest),
                "benign": _first(mine, **ask, role="benign", attack_facts=largest),
                "benign_before": _first(mine, **ask, role="benign", attack_facts=0),
                "harmful_before": _first(mine, **ask, reading=name, attack_facts=0),
                "harmful_before_4bit": _first(mine, bits=True, **ask, reading=name, attack_facts=0),
                "benign_before_4bit": _first(mine, bits=True, **ask, role="benign", attack_facts=0),
                "key_before": _first(mine, split="key", attack_facts=0),
                "known": _first(mine, split="own", attack_facts=largest),
                "known_before": _first(mine, split="own", attack_facts=0),
                "harden_seconds": max((s.get("harden_seconds", 0.0) for s in seconds), default=0.0),
                "train_seconds": sum(trained) / len(trained) if trained else None,
            }
        )
    return found


def _differ(first: Row, twin: Row) -> bool:
    """Whether the twin is another figure; not where only some seeds have one."""
    return len(first["seeds"]) == len(twin["seeds"]) and first["seeds"] != twin["seeds"]


def _first(rows: Sequence[Row], *, bits: bool = False, **wanted: Any) -> Row | None:
    fitting = [row for row in matching(rows, **wanted) if row["checkpoint"].endswith("bit") is bits]
    names = ("value", "low", "high", "seeds")
    by_metric = {row["metric"]: {name: row[name] for name in names} for row in reversed(fitting)}
    first, twin = by_metric.get(MAIN), by_metric.get(UNAIDED)
    return first | {"unaided": twin} if first and twin and _differ(first, twin) else first
