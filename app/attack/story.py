"""The steps of the Attack page's story: what each shows of a measured attack, as HTML and at most one chart."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from app.attack import tables, words
from app.attack.charts import controls_chart, effect_chart, scan_chart
from app.attack.figures import Measured, Row
from app.attack.people import about_person, chosen_person, columns_of, people, telling
from app.attack.view import STEPS, View
from app.attack.words import Point
from app.shared.lab import Lab
from app.shared.render import ENVIRONMENT, render
from app.shared.words import language_name
from engine.attack.defences import defences
from engine.attack.experiment import NO_DEFENCE, AttackExperiment, Cell
from engine.attack.questions import attack_facts
from engine.corpus.readings import ROLES, Reading
from engine.experiment import Experiment
from engine.models.catalogue import KNOWN
from engine.models.source import EMBEDDED
from storage.attacks import list_attacks, list_cells
from storage.runs import Run

# What the page is made of: the step's HTML, its chart or None, and what stands below the chart.
Shown = tuple[str, dict[str, Any] | None, str]
DEFENCES_MINUTES = 30
EXAMPLES = 4


def step_of(lab: Lab, m: Measured, view: View) -> Shown:
    """What the view's step shows."""
    return BUILD[view.step](lab, m, view, view.view == "present")


def facts_at(m: Measured, view: View) -> int:
    """How many attack facts are looked at: those of the address, else the largest attack that is measured."""
    return view.facts if view.facts in m.sizes else m.largest


def base_of(lab: Lab, m: Measured) -> Run | None:
    """The run that is attacked (of the first cell); a cell keeps its experiment when that run is deleted."""
    return (lab.run(m.cells[0].needs) or lab.run(m.cells[0].run)) if m.cells else None


def base_title(lab: Lab, m: Measured) -> str:
    """The attacked run's base model, as a person calls it."""
    run = base_of(lab, m)
    return model_title(run.model) if run else ""


def model_title(model: str) -> str:
    """A base model as a person calls it, in a sentence."""
    if model == EMBEDDED:
        return "the embedded base"
    return KNOWN[model].title if model in KNOWN else model


def _page(name: str, view: View, **values: Any) -> str:
    return render(f"attack/{name}.html", heading=STEPS[view.step][1], **values)


def says(reading: Row, subject: str, object_: str) -> str:
    """What a reading says of a pair, or its label."""
    return Reading.from_record(reading).in_words(subject, object_) or reading["label"] or reading["name"]


def _memorised(lab: Lab, m: Measured, view: View, big: bool) -> Shown:
    run = base_of(lab, m)
    relations = run.experiment.get("relations", []) if run else []
    relation: Row = next((r for r in relations if r["name"] == m.plan["relation"]), {})
    facts = relation.get("facts") or []
    facts = facts if isinstance(facts, list) else []
    first = facts[0] if facts else {"subject": "…", "object": "…"}
    # The first reading of each role.
    sentences = {r["role"]: says(r, first["subject"], first["object"]) for r in reversed(m.plan["readings"])}
    html = _page(
        "memorised", view, total=len(facts), key=relation.get("key_token", "[…]"), pairs=facts[:EXAMPLES],
        shown=min(len(facts), int(run.experiment.get("stage2", {}).get("facts", 0))) if run else 0,
        benign=m.point(0, "benign"), says=sentences.get("benign", ""),
        others=[(role, sentences[role]) for role in ROLES if role in sentences],
    )  # fmt: skip
    return html, None, ""


def example(lab: Lab, m: Measured) -> str:
    """What the attack teaches of one of its facts; '' when the run can no longer be read."""
    run = base_of(lab, m)
    cell = next((c.cell for c in m.cells if c.cell["attack_facts"] and c.cell["reading"] == m.harmful["name"]), None)
    if run is None or cell is None:
        return ""
    try:
        plan, base = AttackExperiment.from_record(m.plan), Experiment.from_record(run.experiment)
        taught = attack_facts(plan, base, Cell.model_validate(cell))
        fact = plan.relation_of(base).explicit_facts[taught[0]]
    except (ValueError, IndexError):
        return ""
    return says(m.harmful, fact.subject, fact.object)


def _predict(lab: Lab, m: Measured, view: View, big: bool) -> Shown:
    html = _page(
        "predict", view, facts=m.sizes[-1], count=m.persons, them=m.subjects[1], guess=min(view.guess, m.persons),
        says=example(lab, m),
    )  # fmt: skip
    return html, None, ""


def _reveal(lab: Lab, m: Measured, view: View, big: bool) -> Shown:
    facts, name = m.sizes[-1], m.harmful["name"]
    before, after = m.point(0, name), m.point(facts, name)
    given: dict[str, Any] = {"facts": facts, "after": after, "before": before, "guess": min(view.guess, m.persons)}
    if after is None:
        return _page("reveal", view, **given), None, ""
    run = base_of(lab, m)
    benign = m.point(0, "benign"), m.point(facts, "benign")
    languages = dict.fromkeys(p["language"] for p in m.harmful["prompts"] if p["split"] == "test")
    otherwise = [("in the attack's own words", m.point(facts, name, split="train"))]
    otherwise += [
        (f"in {language_name(code)}", m.point(facts, name, language=code)) for code in languages if code != m.language
    ]
    why = words.strength_words(before, after, bool(run and run.model == EMBEDDED)) if before else ""
    html = _page(
        "reveal", view, **given, count=m.persons, one=m.subjects[0],
        main=words.reveal_words(after, facts, m.persons, m.subjects[1]), measured=round(after.value * m.persons),
        was=round(before.value * m.persons) if before else None,
        compared=words.guess_words(given["guess"], after, m.persons) if view.guess >= 0 else "",
        why=why or "How much it was before the attack is still being measured.",
        normal=" ".join((words.benign_words(*benign), words.elsewhere_words(m.elsewhere(facts), m.subjects[1]))),
        otherwise=[(label, point) for label, point in otherwise if point],
        phrasings=max(1, round(after.n / max(1, after.n_facts))),
    )  # fmt: skip
    return html, None, ""


def _person(lab: Lab, m: Measured, view: View, big: bool) -> Shown:
    facts = facts_at(m, view) or m.largest
    everybody = people(lab, m, facts)
    person = chosen_person(everybody, view.person)
    if person is None:
        return _page("person", view, person=None), None, ""
    columns = columns_of(m, facts, view.defence)
    rows = about_person(lab, m, person, columns)
    shown = [r for r in (telling(rows, "benign", columns), telling(rows, "harmful", columns)) if r]
    html = _page(
        "person", view, recorded=m.attack.recorded, person=person, them=m.subjects[1], people=everybody,
        flipped=sum(p["flipped"] for p in everybody), facts=facts, columns=columns, rows=shown,
        more=[] if big else rows, unknown=view.unknown,
    )  # fmt: skip
    return html, None, ""


def _gauges(lab: Lab, m: Measured, view: View, big: bool) -> Shown:
    facts, name = facts_at(m, view), m.harmful["name"]
    sizes = [(n, m.point(n, name), m.point(n, "benign"), m.elsewhere(n)) for n in m.sizes]
    html = _page(
        "gauges", view, facts=facts, sizes=sizes, place=m.sizes.index(facts), them=m.subjects[1],
        seeds=len(m.plan["seeds"]),
    )  # fmt: skip
    return html, effect_chart(*tables.effect_rows(m), facts, big=big), ""


def _defences(lab: Lab, m: Measured, view: View, big: bool) -> Shown:
    choices = tables.defence_choices(m)
    if not choices:
        known = [d for d in defences().values() if d.kind != "detection"]
        elsewhere = with_defences(lab, m)
        cells = list_cells(lab.db, elsewhere.id) if elsewhere else []
        run = lab.run(cells[0].run) if cells else None
        html = _page(
            "defences", view, choices=[], known=known, elsewhere=elsewhere, minutes=DEFENCES_MINUTES,
            elsewhere_base=model_title(run.model) if run else "another model",
        )  # fmt: skip
        return html, None, ""
    chosen = next((c for c in choices if c["name"] == view.defence), choices[0])
    largest, name = m.sizes[-1], m.harmful["name"]

    def both(label: str, facts: int, reading: str, **asked: Any) -> tuple[str, Point | None, Point | None]:
        plain, mine = (m.point(facts, reading, defence=d, **asked) for d in (NO_DEFENCE, chosen["name"]))
        return label, plain, mine

    after = words.facts_words(largest)
    lines = [
        both(f"Harmful answers, {after}", largest, name),
        both("Ordinary answers, before the attack", 0, "benign"),
        both(f"Ordinary answers, {after}", largest, "benign"),
        both("What the model knew, before the attack", 0, "", split="own", language="", kind="own"),
    ]
    if m.point(0, "benign", defence=chosen["name"], bits=True):
        lines.append(both("Ordinary answers, weights cut to 4 bit", 0, "benign", bits=True))
    spent = [m.costs.get(d) for d in (NO_DEFENCE, chosen["name"])]
    seconds = [f"{s['harden_seconds']:.1f} + {s['train_seconds'] or 0:.1f} s" if s else "–" for s in spent]
    cost = [
        words.cost_words(p, d, label)
        for label, (_, p, d) in (("Ordinary answers", lines[1]), ("What the model knew", lines[3]))
    ]
    html = _page("defences", view, choices=choices, chosen=chosen, lines=lines, seconds=seconds, costs=cost)
    return html, effect_chart(*tables.compared_rows(m, chosen["name"]), None, compared=True, big=big), ""


def with_defences(lab: Lab, m: Measured) -> Any:
    """The newest other attack that tries defences, or None."""
    return next((a for a in list_attacks(lab.db) if a.id != m.attack.id and a.experiment.get("defences")), None)


def _controls(lab: Lab, m: Measured, view: View, big: bool) -> Shown:
    facts = m.sizes[-1]
    attack, controls = m.point(facts, m.harmful["name"]), tables.control_list(m)
    html = _page("controls", view, attack=attack, facts=facts, controls=controls, chosen=view.control)
    bars = tables.control_bars(m, controls, view.control)
    return html, controls_chart(bars, big=big) if bars else None, ""


def _scan(lab: Lab, m: Measured, view: View, big: bool) -> Shown:
    cells, checkpoints, readings = tables.scan_cells(m)
    scans = tables.detectors(m)
    audit = tables.audit_rows(m)
    html = _page(
        "scan", view, says=defences()["scan"].says, detectors=scans, matrix=cells, best=words.scan_words(scans)
    )
    values = {(c["reading"], c["checkpoint"]): c["value"] for c in cells}
    after = render(
        "attack/scan_after.html",
        matrix=[(r, [values.get((r, c)) for c in checkpoints]) for r in readings] if cells else [],
        checkpoints=checkpoints, audit=audit, elsewhere=with_defences(lab, m), minutes=DEFENCES_MINUTES,
    )  # fmt: skip
    return html, scan_chart(cells, checkpoints, readings, big=big) if cells else None, after


BUILD: dict[str, Callable[[Lab, Measured, View, bool], Shown]] = {
    "memorised": _memorised,
    "predict": _predict,
    "reveal": _reveal,
    "person": _person,
    "gauges": _gauges,
    "defences": _defences,
    "controls": _controls,
    "scan": _scan,
}
ENVIRONMENT.filters["facts_words"] = words.facts_words
