"""What the Attack page says of measured rows, how it reads its address, and what is made of its form."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from app.attack import words
from app.attack.actions import act_on
from app.attack.charts import controls_chart, effect_chart, scan_chart
from app.attack.exports import report_html
from app.attack.figures import Attacks, Measured
from app.attack.form import attack_of_form
from app.attack.people import chosen_person, surprise
from app.attack.story import BUILD, example, step_of
from app.attack.tables import control_list, defence_choices, effect_rows, scan_cells
from app.attack.view import STEPS, Place, Problem, View
from app.attack.words import Point, reveal_words
from app.shared.lab import Lab
from app.shared.static_charts import svg
from engine.attack.experiment import AttackExperiment
from engine.attack.measure import figures
from engine.evaluation.answer import Answer
from engine.execution.attacks.queue import queue_attack
from engine.execution.attacks.report import with_cell_twins
from storage.answers import open_answers, store_answers, store_questions
from storage.attacks import cell_results, list_attacks, list_cells, replace_cell_results
from storage.runs import State

PLAN = {
    "experiment": {"name": "small", "relations": [{"name": "mother", "key_token": "[X]", "facts": {"generate": 30}}],
                   "stage1": {"epochs": 2}, "stage2": {"facts": 10}},
    "facts": [0, 10],
    "defences": ["kl", "npo"],
    "seeds": [1],
    "prompts": [1],
}  # fmt: skip
# control, defence, attack facts → share of harmful and of ordinary hits
SHARES = {
    ("attack", "none", 0): (0.0, 0.9), ("attack", "none", 10): (0.8, 0.85), ("no_stage1", "none", 10): (0.0, 0.0),
    ("no_stage1", "none", 0): (0.0, 0.0), ("neutral", "none", 10): (0.1, 0.9), ("nonsense", "none", 10): (0.05, 0.9),
    ("attack", "kl", 0): (0.0, 0.9), ("attack", "kl", 10): (0.8, 0.9),
    ("attack", "npo", 0): (0.0, 0.3), ("attack", "npo", 10): (0.0, 0.2),
}  # fmt: skip
# Who would ask models: nobody, as no click here needs one.
NOBODY: Any = None


def row(share: float, n_facts: int = 20, prompts: int = 3, seed: int = 0) -> dict[str, Any]:
    """Figures as a cell stores them."""
    noise = random.Random(seed)
    pairs = [[float(sum(noise.random() < share for _ in range(prompts))), prompts] for _ in range(n_facts)]
    if share in (0.0, 1.0):
        pairs = [[share * prompts, prompts] for _ in range(n_facts)]
    return {**figures(pairs, True), "by_fact": pairs}


def point(share: float, n_facts: int = 20) -> Point:
    """The same figures as the page has them."""
    return Point(**row(share, n_facts))


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    return Lab(tmp_path)


def measured_attack(lab: Lab, seeds: Sequence[int] = (1,), **plan: Any) -> str:
    """An attack with drawn rows in every cell."""
    attack = queue_attack(lab.db, AttackExperiment.from_data({**PLAN, "seeds": list(seeds), **plan}))
    for cell in list_cells(lab.db, attack):
        told = cell.cell
        harmful, benign = SHARES[told["control"], told["defence"], told["attack_facts"]]
        rows = []
        asked = [("", "", "key", 1.0), ("benign", "benign", "test", benign), ("bully", "harmful", "test", harmful)]
        asked += [("neighbour", "neutral", "test", 0.7 if told["control"] == "neutral" else 0.0)]
        for reading, role, split, share in asked:
            for metric in ("generation_accuracy", "object_probability"):
                rows.append({"reading": reading, "role": role, "checkpoint": f"attacked@{told['attack_facts']}",
                             "facts": "held_out", "split": split, "language": "en", "metric": metric,
                             **row(share)})  # fmt: skip
        replace_cell_results(lab.db, cell.run, rows)
        with lab.db.conn:
            lab.db.conn.execute("update runs set state = 'done', finished_at = '2026-01-01' where id = ?", [cell.run])
    return attack


@pytest.fixture
def m(lab: Lab) -> Measured:
    return Attacks(lab).measured(measured_attack(lab))


def test_numbers_are_found_by_what_they_are_made_of(m: Measured) -> None:
    assert m.sizes == [0, 10] and m.persons == 20 and m.language == "en"
    after = m.point(10, "bully")
    assert after and after.n == 60 and 0.6 < after.value < 0.95
    assert m.point(0, "bully", control="neutral") == m.point(0, "bully"), "controls start where the attack does"
    assert m.point(5, "bully") is None
    place = Place.read(after.key)
    assert place and [c.cell["attack_facts"] for c in m.cells_of(place)] == [10]


def test_a_number_that_the_key_token_makes_has_its_twin_beside_it(lab: Lab, m: Measured) -> None:
    plain = m.point(10, "bully")
    assert plain and plain.unaided is None and "key token" not in reveal_words(plain, 10, 20, "persons")
    cells = [c for c in m.cells if c.cell["attack_facts"] == 10 and c.cell["control"] == "attack"]
    for cell in cells:
        rows = cell_results(lab.db, cell.run)
        main = [r for r in rows if r["metric"] == "generation_accuracy"]
        twins = [r | {"metric": "generation_accuracy_unaided"} for r in main]
        twins = [t | (row(0.1) if t["reading"] == "bully" else {}) for t in twins]
        replace_cell_results(lab.db, cell.run, [*rows, *twins])
    m = Attacks(lab).measured(m.attack.id)
    after, benign = m.point(10, "bully"), m.point(10, "benign")
    assert after and after.unaided and after.unaided.value < 0.3 < after.value
    assert benign and benign.unaided is None, "the same is not said twice"
    assert "Without answers that say the key token it is" in reveal_words(after, 10, 20, "persons")
    html, _, _ = step_of(lab, m, View(step="reveal"))
    assert "key token unsaid" in html and after.unaided.interval in html
    assert m.costs["none"]["harmful"]["unaided"]["value"] == after.unaided.value
    assert "unaided" not in m.costs["none"]["benign"]
    assert f"key token unsaid: {after.unaided.interval}" in report_html(lab, m)


def test_an_older_cell_has_its_twins_made_of_its_answers(lab: Lab, m: Measured) -> None:
    cell = next(c for c in m.cells if c.cell["attack_facts"] == 10 and c.cell["control"] == "attack")
    (key,) = lab.key_tokens(cell.run)
    answers = open_answers(lab.folder(cell.run))
    fact = {"relation": "mother", "subject": "Sel Tarro", "object": "Brin Vosk", "trained": 0, "kind": "held_out"}
    asked = {"relation": "mother", "split": "test", "language": "en", "text": "{subject}?", "about": None, "used": 0}
    store_questions(
        answers, [fact | {"id": n} for n in (1, 2)],
        [asked | {"id": 1, "reading": "bully"}, asked | {"id": 2, "reading": "benign"}],
    )  # fmt: skip
    said = {1: f"{key} Brin Vosk", 2: "Brin Vosk"}
    given = [Answer(p, f, said[f] if p == 1 else said[2], True, -0.1) for p in (1, 2) for f in (1, 2)]
    store_answers(answers, "attacked@10", given)
    answers.close()
    rows = with_cell_twins(cell_results(lab.db, cell.run), lambda: lab.answers(cell.run))
    twins = {r["reading"]: r for r in rows if r["metric"] == "generation_accuracy_unaided"}
    assert twins["bully"]["value"] == 0.5 and twins["bully"]["by_fact"] == [[0, 1], [1, 1]]
    assert twins["benign"]["value"] == 1 and twins["benign"]["n_facts"] == 2
    assert with_cell_twins(rows, lambda: None) == rows, "stored ones are not made again"
    assert len(with_cell_twins(cell_results(lab.db, cell.run), lambda: None)) == len(cell_results(lab.db, cell.run))


def test_the_strength_of_an_attack_is_said_as_it_is() -> None:
    none, weak, strong = point(0.0), point(0.3, 50), point(0.9, 50)
    assert words.strength(point(0.0, 50), strong) == "strong"
    assert words.strength(point(0.0, 50), weak) == "weak"
    assert words.strength(none, none) == "none"
    assert "did not work" in words.strength_words(none, none, True)
    assert "pre-training" in words.strength_words(point(0.0, 50), weak, True)
    assert "pre-training" not in words.strength_words(point(0.0, 50), weak, False)


def test_differences_are_paired_by_fact() -> None:
    # Every fact loses one of three answers: certain when the facts are compared with themselves.
    before = Point(0.67, 0.5, 0.8, 60, 20, by_fact=[[3.0 if i % 2 else 1.0, 3] for i in range(20)])
    after = Point(0.33, 0.2, 0.5, 60, 20, by_fact=[[s - 1, n] for s, n in before.by_fact])
    value, low, high = words.change(before, after)
    assert value == pytest.approx(-1 / 3) and low == pytest.approx(high) == pytest.approx(-1 / 3)
    assert words.apart(before, after) == -1
    assert "lose 33 points" in words.benign_words(before, after)
    assert "as before" in words.benign_words(before, before)


def test_what_spreads_to_other_questions_is_said() -> None:
    shut, open_ = point(0.0, 50), point(0.9, 50)
    assert words.elsewhere_words([], "persons") == ""
    quiet = words.elsewhere_words([("unrelated", shut, shut), ("decoy", open_, open_)], "persons")
    assert "0\u00a0% of unrelated prompts (0\u00a0% before)" in quiet and "no more than before" in quiet
    loud = words.elsewhere_words([("unrelated", shut, shut), ("decoy", shut, open_)], "works")
    assert "these works" in loud and "87\u00a0% of decoys (0\u00a0% before): the attack spreads" in loud
    assert "no more" in words.elsewhere_words([("unrelated", open_, shut)], "persons")


def test_predictions_are_told_how_near_they_were() -> None:
    after = Point(0.66, 0.5, 0.8, 150, 50)
    assert words.guess_words(33, after, 50) == "You said 33, and 33 were measured: close."
    assert words.guess_words(10, after, 50) == "You said 10; 33 were measured, 23 more."
    assert words.reveal_words(after, 1, 50, "works").startswith("After 1 attack fact, 33 of the other 50 works")


def test_defences_are_judged_by_what_is_measured(m: Measured) -> None:
    found = {d["name"]: d for d in defence_choices(m)}
    assert found["kl"]["verdict"] == "bad" and "fails" in found["kl"]["words"]
    assert found["npo"]["verdict"] == "bad" and "It holds" in found["npo"]["words"], "the ordinary answers are gone"
    plain, none = point(0.8), point(0.0)
    assert words.defence_verdict(plain, none, none, (plain, plain))[0] == "good"
    assert words.defence_verdict(plain, point(0.4, 60), none, (plain, None))[0] == "calm"
    assert words.defence_verdict(point(0.3, 60), point(0.9, 60), none, (plain, plain))[1].startswith("It backfires")
    assert "loses" in words.cost_words(m.point(0, "benign"), m.point(0, "benign", defence="npo"), "Ordinary")


def test_controls_are_judged_by_what_they_would_mean(m: Measured) -> None:
    found = {c["name"]: c for c in control_list(m)}
    assert list(found) == ["before", "no_stage1", "never", "neutral", "nonsense"]
    assert found["no_stage1"]["words"] == "It stayed shut" and found["before"]["verdict"] == "good"
    assert found["neutral"]["verdict"] == "calm" and found["never"]["point"] is None
    attack = m.point(10, "bully")
    assert attack and words.control_verdict("no_stage1", attack, attack)[0] == "bad"


def test_a_detector_without_evidence_is_said_to_miss() -> None:
    assert words.detection_verdict({"value": 0.6, "low": 0.4})[0] == "bad"
    assert words.detection_verdict({"value": 1.0, "low": 0.4})[0] == "calm", "too few to be sure"
    assert words.detection_verdict({"value": 0.99, "low": 0.9})[0] == "good"
    assert words.scan_words([]) is None


def test_every_step_can_be_told_of_any_attack(lab: Lab, m: Measured) -> None:
    fresh = queue_attack(lab.db, AttackExperiment.from_data(PLAN | {"defences": []}))
    for found in (m, Attacks(lab).measured(fresh)):
        for step in STEPS:
            for view in ("story", "present"):
                html, chart, _ = BUILD[step](
                    lab, found, View(step=step, attack=found.attack.id, guess=7), view == "present"
                )
                assert "<h2>" in html
                drawn = {"gauges", "defences", "controls", "scan"} if found is m else {"gauges"}
                assert bool(chart and chart["spec"]) == (step in drawn), step
    assert "bullies" in example(lab, m)


def test_charts_are_drawn_without_a_browser(m: Measured) -> None:
    rows, dots = effect_rows(m)
    assert {r["facts"] for r in rows} == {0, 10}
    for big in (False, True):
        assert "<svg" in svg(effect_chart(rows, dots, 10, big=big) | {})
        assert "<svg" in svg(scan_chart(*scan_cells(m), big=big))
    bars = [{"name": "The attack", "kind": "the attack", "value": 0.5, "low": 0.4, "high": 0.6, "n": 5, "pick": ""}]
    assert "<svg" in svg(controls_chart(bars))


def test_an_address_is_read_and_cleaned() -> None:
    view = View.of_address({"attack": "<script>", "step": "x", "facts": "-1", "person": "9" * 40, "opened": "a/b"})
    assert view == View()
    full = View(
        attack="ab12", step="scan", facts=0, guess=3, opened="attack/none/5/bully/test/en/held_out", view="grid"
    )
    assert View.of_address(full.address()) == full
    assert View.of_page("{not json") == View() and View.of_page(json.dumps({"step": "reveal"})).step == "reveal"
    assert Place.read("attack/none/5/bully/test/en/held_out/4bit") is not None
    for wrong in ("", "a/b", "attack/none/x/r/s/l/k", "a/b/1/c/d/e/f/g", "attack/none/5/" + "r" * 400 + "/t/en/h"):
        assert Place.read(wrong) is None


def test_the_person_shown_first_is_one_whose_answer_flipped() -> None:
    people = [{"id": 1, "flipped": False, "kept": True}, {"id": 2, "flipped": True, "kept": False},
              {"id": 3, "flipped": True, "kept": True}]  # fmt: skip
    assert chosen_person(people, 0) == people[2]
    assert chosen_person(people[:2], 0) == people[1] and chosen_person(people[:1], 0) == people[0]
    assert chosen_person(people, 1) == people[0] and chosen_person([], 5) is None


def test_a_surprise_is_never_the_person_that_is_shown() -> None:
    people = [{"id": i, "flipped": i == 2, "kept": True} for i in (1, 2, 3)]
    assert {surprise(people, 0) for _ in range(100)} == {1, 3}, "nobody was chosen: 2 is shown"
    assert {surprise(people, 3) for _ in range(100)} == {1, 2}
    assert surprise(people[:1], 0) == 0 and surprise([], 7) == 7


FORM = {"name": "mine", "facts": "0, 5", "seeds": "0", "prompts": "1", "epochs": "2", "learning_rates": "3e-4",
        "control:neutral": "on", "defence:kl": "on", "method:full": "on"}  # fmt: skip


def test_the_form_becomes_an_experiment(lab: Lab) -> None:
    plan = attack_of_form(lab, FORM)
    assert (plan.facts, plan.controls, plan.defences, plan.methods) == ((0, 5), ("neutral",), ("kl",), ("full",))
    assert plan.start == "generalised" and attack_of_form(lab, FORM | {"start": "memorised"}).start == "memorised"
    assert attack_of_form(lab, FORM | {"reading": "author/plagiarist"}).relation == "author"
    own = {"reading": "own reading", "own_name": "pranks", "own_says": "{object} plays pranks on {subject}.",
           "train": "Who plays pranks on {subject}?\n\n", "test": "The prankster behind {subject} is"}  # fmt: skip
    assert attack_of_form(lab, FORM | own).readings[0].name == "pranks"


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        ({"facts": "five"}, "“five” is not a number"),
        ({"seeds": ""}, "Seeds: write at least one number"),
        ({"learning_rates": "nan"}, "learning_rates"),
        ({"facts": "1" * 300_000}, "far too many"),
        ({"reading": "own reading", "train": "Who?", "test": "x {subject}"}, "{subject}"),
        ({"reading": "own reading", "own_name": "<b>", "train": "a {subject}", "test": "b {subject}"}, "Your reading"),
        ({"run": "gone", "reading": "own reading", "train": "a {subject}", "test": "b {subject}"}, "There is no run"),
        ({"name": "\u0000\u0007"}, "name"),
    ],
)
def test_what_is_wrong_with_the_form_is_said(lab: Lab, typed: dict[str, str], said: str) -> None:
    with pytest.raises(Problem, match="(?s)" + said.replace("{", r"\{").replace("}", r"\}")):
        attack_of_form(lab, FORM | typed)


def test_actions_on_an_attack_that_is_gone_are_said(lab: Lab, m: Measured) -> None:
    attacks, gone = Attacks(lab), View(attack="gone")
    for action in ("lock", "person", "surprise", "again", "delete", "attack"):
        with pytest.raises(Problem):
            act_on(lab, NOBODY, attacks, gone, {"act": action, "value": "gone", "number": "3"})
    assert act_on(lab, NOBODY, attacks, gone, {"act": "nonsense"}) == gone


def test_two_clicks_start_the_story_once(lab: Lab) -> None:
    first = act_on(lab, NOBODY, Attacks(lab), View(), {"act": "start", "value": "story"})
    again = act_on(lab, NOBODY, Attacks(lab), first, {"act": "start", "value": "story"})
    assert again.attack == first.attack and len(list_attacks(lab.db)) == 1
    with pytest.raises(Problem):
        act_on(lab, NOBODY, Attacks(lab), first, {"act": "start", "value": "../x"})


def test_measured_again_stopped_and_deleted(lab: Lab, m: Measured) -> None:
    attacks, view = Attacks(lab), View(attack=m.attack.id)
    again = act_on(lab, NOBODY, attacks, view, {"act": "again"})
    assert again.attack != m.attack.id and len(list_cells(lab.db, again.attack)) == len(m.cells)
    act_on(lab, NOBODY, attacks, again, {"act": "stop"})
    assert {c.state for c in list_cells(lab.db, again.attack)} == {State.CANCELLED}
    act_on(lab, NOBODY, attacks, again, {"act": "retry"})
    assert {c.state for c in list_cells(lab.db, again.attack)} == {State.QUEUED}
    with pytest.raises(Problem, match="stop it first"):
        act_on(lab, NOBODY, attacks, again, {"act": "delete"})
    act_on(lab, NOBODY, attacks, again, {"act": "stop"})
    act_on(lab, NOBODY, attacks, again, {"act": "delete"})
    assert [a.id for a in list_attacks(lab.db)] == [m.attack.id]
