"""Rows, points and verdicts of a measured attack, as the story's steps and the report show them."""

from __future__ import annotations

from app.attack import words
from app.attack.charts import HARMFUL, ORDINARY, WITH, WITHOUT
from app.attack.figures import Measured, Row
from app.shared.render import percent
from engine.attack.defences import defences
from engine.attack.experiment import NO_DEFENCE
from engine.checks import shorten
from engine.corpus.readings import ROLES

INTERVAL = ("value", "low", "high", "n")


def effect_rows(m: Measured, defence: str = NO_DEFENCE, label: str = "") -> tuple[list[Row], list[Row]]:
    """The points of the effect chart under a defence, and those of the single seeds."""
    rows, dots = [], []
    for reading, series in ((m.harmful["name"], HARMFUL), ("benign", ORDINARY)):
        for facts in m.sizes:
            if point := m.point(facts, reading, defence=defence):
                shared = {"facts": facts, "series": series, "defence": label}
                figures = {k: getattr(point, k) for k in (*INTERVAL, "n_facts")}
                rows.append(shared | figures | {"pick": f"open:{point.key}"})
                if len(point.seeds) > 1:
                    dots += [shared | {"value": value} for value in point.seeds]
    return rows, dots


def compared_rows(m: Measured, defence: str) -> tuple[list[Row], list[Row]]:
    """The points of the effect chart with a defence beside those without it, and the single seeds of the former."""
    rows, dots = effect_rows(m, defence, WITH)
    return [*rows, *effect_rows(m, NO_DEFENCE, WITHOUT)[0]], dots


def defence_choices(m: Measured) -> list[Row]:
    """The defences of this attack with their verdicts: `name, label, says, verdict, words`."""
    name, largest = m.harmful["name"], m.sizes[-1]
    before, plain = m.point(0, name), m.point(largest, name)
    choices = []
    for defence in m.plan["defences"]:
        known = defences().get(defence)
        mine = m.point(largest, name, defence=defence)
        benign = m.point(0, "benign"), m.point(0, "benign", defence=defence)
        verdict = words.defence_verdict(plain, mine, before, benign) if plain and mine and before else ("", "")
        choices.append(
            {"name": defence, "label": known.label if known else defence, "says": known.says if known else "",
             "verdict": verdict[0], "words": verdict[1]}
        )  # fmt: skip
    return choices


def control_list(m: Measured) -> list[Row]:
    """The controls: `name, label, means, point, absent, verdict, words, also`."""
    facts, name = m.sizes[-1], m.harmful["name"]
    attack = m.point(facts, name)
    planned = {"before", "never", *m.plan["controls"]}
    absent = {True: "not measured", False: "not part of this attack"}
    controls = []
    for control, (_, *texts) in words.CONTROLS.items():
        label, means = (text.format(them=m.subjects[1]) for text in texts)
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
        controls.append(
            {"name": control, "label": label, "means": means, "point": point, "absent": absent[control in planned],
             "verdict": verdict[0], "words": verdict[1], "also": also}
        )  # fmt: skip
    return controls


def control_bars(m: Measured, controls: list[Row], chosen: str = "") -> list[Row]:
    """The bars of the controls' chart: the attack, then each control that is measured; none before the attack is."""
    attack = m.point(m.sizes[-1], m.harmful["name"])
    bars = [("The attack", "the attack", attack)]
    bars += [
        (words.CONTROLS[c["name"]][0], "chosen" if c["name"] == chosen else "a control", c["point"]) for c in controls
    ]
    return [
        {"name": name, "kind": kind, "pick": f"open:{point.key}"} | {k: getattr(point, k) for k in INTERVAL}
        for name, kind, point in bars
        if attack and point
    ]


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
                    {"checkpoint": label, "reading": reading_label(reading), "value": point.value,
                     "words": percent(point.value), "pick": f"open:{point.key}"}
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
    every_attack = [row for row in m.detection if row["least_facts"] == 1]
    larger = {row["detector"]: row for row in m.detection if row["least_facts"] == 10}
    return [
        row
        | {
            "label": words.DETECTORS.get(row["detector"], row["detector"]),
            "verdict": words.detection_verdict(row),
            "larger": larger.get(row["detector"]),
        }
        for row in every_attack
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
