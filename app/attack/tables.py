"""Rows, points and verdicts of a measured attack, as the story's steps and the report show them."""

from __future__ import annotations

from app.attack import words
from app.attack.charts import HARMFUL, ORDINARY
from app.attack.figures import NO_DEFENCE, Measured, Row
from app.shared.render import percent
from engine.attack.defences import defences
from engine.checks import shorten

ROLES = ("harmful", "neutral", "nonsense")


def effect_rows(m: Measured, defence: str = NO_DEFENCE, label: str = "") -> tuple[list[Row], list[Row]]:
    """The points of the effect chart under a defence, and those of the single seeds."""
    rows, dots = [], []
    for reading, series in ((m.harmful["name"], HARMFUL), ("benign", ORDINARY)):
        for facts in m.sizes:
            if point := m.point(facts, reading, defence=defence):
                shared = {"facts": facts, "series": series, "defence": label}
                told = {k: point[k] for k in ("value", "low", "high", "n", "n_facts")}
                rows.append(shared | told | {"pick": f"open:{point['key']}"})
                if len(point["seeds"]) > 1:
                    dots += [shared | {"value": value} for value in point["seeds"]]
    return rows, dots


def defence_choices(m: Measured) -> list[Row]:
    """The defences of this attack with their verdicts: `name, label, says, verdict, words`."""
    name, largest = m.harmful["name"], m.sizes[-1]
    before, plain = m.point(0, name), m.point(largest, name)
    found = []
    for defence in m.defences:
        known = defences().get(defence)
        mine = m.point(largest, name, defence=defence)
        benign = m.point(0, "benign"), m.point(0, "benign", defence=defence)
        verdict = words.defence_verdict(plain, mine, before, benign) if plain and mine and before else ("", "")
        found.append(
            {"name": defence, "label": known.label if known else defence, "says": known.says if known else "",
             "verdict": verdict[0], "words": verdict[1]}
        )  # fmt: skip
    return found


def control_list(m: Measured) -> list[Row]:
    """The controls: `name, label, means, point, absent, verdict, words, also`."""
    facts, name = m.sizes[-1], m.harmful["name"]
    attack = m.point(facts, name)
    _, them = words.subjects(m.plan["relation"])
    planned = {"before", "never", *m.plan["controls"]}
    absent = {True: "not measured", False: "not part of this attack"}
    found = []
    for control, (label, means) in words.controls(them).items():
        also = None
        if control == "before":
            point = m.point(0, name)
        elif control == "never":
            point = m.point(facts, name, kind="never_memorised")
        elif control == "no_stage1":
            point = m.point(facts, name, control=control)
        else:
            taught = m.control_reading(control)
            point = m.point(facts, taught["name"], control=control) if taught else None
            if harm := m.point(facts, name, control=control):
                also = ("Harmful answers, which it was not taught:", harm)
        verdict = words.control_verdict(control, attack, point) if attack and point else ("", "")
        found.append(
            {"name": control, "label": label, "means": means, "point": point, "absent": absent[control in planned],
             "verdict": verdict[0], "words": verdict[1], "also": also}
        )  # fmt: skip
    return found


def drawn(point: Row) -> Row:
    """What a chart draws of a point, and what a click on it opens."""
    return {k: point[k] for k in ("value", "low", "high", "n")} | {"pick": f"open:{point['key']}"}


def scan_cells(m: Measured) -> tuple[list[Row], list[str], list[str]]:
    """The heat map's cells, its columns (the plain attack by size, then control fine-tunes) and its rows."""
    columns = [("attack", n, "before" if n == 0 else str(n)) for n in m.sizes]
    for control in ("neutral", "nonsense"):
        if control in m.plan["controls"]:
            columns.append((control, m.sizes[-1], control))
    readings = sorted(m.plan["readings"], key=lambda r: ("benign", *ROLES).index(r["role"]))
    cells = []
    for control, facts, label in columns:
        for reading in readings:
            if point := m.point(facts, reading["name"], control=control):
                cells.append(
                    {"checkpoint": label, "reading": reading_label(reading), "value": point["value"],
                     "words": percent(point["value"]), "pick": f"open:{point['key']}"}
                )  # fmt: skip
    present = {c["checkpoint"] for c in cells}
    return cells, [label for *_, label in columns if label in present], [reading_label(r) for r in readings]


def reading_label(reading: Row) -> str:
    """A reading as the scan calls it: its role, then what it asks, in two lines."""
    role = {"benign": "ordinary"}.get(reading["role"], reading["role"])
    asks = (reading.get("label") or reading["name"]).replace("|", " ").partition(" (")[0]
    return f"{role}|{shorten(asks, 40)}"


def detectors(m: Measured) -> list[Row]:
    """How well each way of scanning works: over all attacked models, and `larger`: over those of ten facts or more."""
    found = [row for row in m.detection if row["least_facts"] == 1]
    larger = {row["detector"]: row for row in m.detection if row["least_facts"] == 10}
    return [
        row
        | {
            "label": words.DETECTORS.get(row["detector"], row["detector"]),
            "verdict": words.detection_verdict(row),
            "larger": larger.get(row["detector"]),
        }
        for row in found
    ]


def audit_rows(m: Measured) -> list[Row]:
    """The audit's AUROC figures, of the model and of the training data, with words; `base`: the same of the base model,
    which memorised nothing."""
    rows = [row for row in m.audit if row["metric"].startswith("auroc_")]
    base = {row["metric"]: row for row in rows if row["checkpoint"] == "base"}
    return [
        {
            **row,
            "label": words.score_name(row["metric"]),
            "where": "the model" if row["checkpoint"] == "released" else row["checkpoint"],
            "base": base.get(row["metric"]) if row["checkpoint"] == "released" else None,
            "verdict": words.detection_verdict(row),
        }
        for row in rows
        if row["checkpoint"] != "base"
    ]
