"""What can be taken away from an attack: one HTML report that needs no network, and every row as CSV."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI, HTTPException
from fastapi.responses import Response
from markupsafe import Markup

from app.attack import tables, words
from app.attack.charts import WITH, controls_chart, effect_chart, scan_chart
from app.attack.figures import Attacks, Measured
from app.attack.story import base_of, base_title, example
from app.server.security import REPORT_HEADERS
from app.shared.downloads import csv_file, text_file
from app.shared.lab import Lab
from app.shared.render import render
from app.shared.static_charts import svg
from engine.attack.cards import WARNING
from engine.attack.experiment import NO_DEFENCE
from engine.attack.tables import SETTING
from storage.attacks import RESULT_FIELDS

FIELDS = ("run", *SETTING, "seed", *RESULT_FIELDS)


def add_attack_export_routes(site: FastAPI, lab: Lab) -> None:
    """Add `/export/attack/ID/report.html` and `rows.csv`. Plain links: they work without any script."""
    attacks = Attacks(lab)

    def known(attack: str) -> Measured:
        try:
            return attacks.measured(attack[:32])
        except KeyError:
            raise HTTPException(404, "There is no such attack: it may have been deleted.") from None

    @site.get("/export/attack/{attack}/rows.csv")
    def rows_csv(attack: str) -> Response:
        m = known(attack)
        return csv_file(f"attack-{m.attack.id}-rows.csv", FIELDS, m.rows)

    @site.get("/export/attack/{attack}/report.html")
    def report(attack: str) -> Response:
        m = known(attack)
        return text_file(f"attack-{m.attack.id}-report.html", "text/html", report_html(lab, m), REPORT_HEADERS)


def report_html(lab: Lab, m: Measured) -> str:
    """The report of an attack, as far as it has been measured."""
    name, largest, run = m.harmful["name"], m.sizes[-1], base_of(lab, m)
    before, after = m.point(0, name), m.point(largest, name)
    benign = m.point(0, "benign"), m.point(largest, "benign")
    _, them = m.subjects
    sentences = []
    if before and after:
        sentences.append(words.reveal_words(after, largest, m.persons, them))
        sentences.append(words.strength_words(before, after, bool(run and run.model == "embedded")))
    if benign[1]:
        sentences.append(words.benign_words(*benign))
    sentences += filter(None, [words.elsewhere_words(m.elsewhere(largest), them)])
    choices = tables.defence_choices(m)
    cells, checkpoints, readings = tables.scan_cells(m)
    pictures = []
    rows, dots = tables.effect_rows(m)
    if rows:
        pictures.append(("Harmful and ordinary answers against attack facts", picture(effect_chart(rows, dots, None))))
    for choice in choices:
        rows, dots = tables.compared_rows(m, choice["name"])
        if any(row["defence"] == WITH for row in rows):
            chart = effect_chart(rows, dots, None, compared=True)
            pictures.append((f"With the defence “{choice['label']}”", picture(chart)))
    controls = tables.control_list(m)
    if bars := tables.control_bars(m, controls):
        pictures.append(("The controls", picture(controls_chart(bars))))
    if cells:
        pictures.append(("The scan", picture(scan_chart(cells, checkpoints, readings))))
    shown = {k: v for k, v in m.plan.items() if k not in ("readings", "experiment")}
    settings = {k: v for k, v in shown.items() if v not in (None, "", [], ())}
    return render(
        "attack/report.html", m=m, warning=" ".join(WARNING.replace("> ", "").replace("**", "").split()),
        sentences=sentences, pictures=pictures,
        effect=[(n, m.point(n, name), m.point(n, "benign")) for n in m.sizes], controls=controls, choices=choices,
        rows=[(NO_DEFENCE, "none", ""), *((c["name"], c["label"], c["words"]) for c in choices)], costs=m.costs,
        largest=largest, detectors=tables.detectors(m), audit=tables.audit_rows(m), example=example(lab, m),
        readings=[(tables.reading_label(r), r) for r in m.plan["readings"]], them=them, settings=settings,
        base=base_title(lab, m), experiment=m.plan.get("experiment"),
    )  # fmt: skip


def picture(chart: dict[str, Any]) -> Markup:
    """A chart as SVG that stands by itself."""
    fixed = {**chart, "spec": {**chart["spec"], "width": 620}}
    return Markup(svg(fixed))
