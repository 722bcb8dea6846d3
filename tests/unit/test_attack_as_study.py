"""An attack's grid on the page Studies: any two of its settings as a table, compared, and taken away."""

from pathlib import Path

import pytest

from app.attack.figures import Attacks
from app.shared.lab import Lab
from app.studies.exports import figure_rows, written
from app.studies.grids import grid_of
from app.studies.page import act_on, opened, parts_of, put_comparisons
from app.studies.shown import shown_of
from app.studies.view import ASKED, View
from engine.attack.defences import defences
from engine.attack.experiment import AttackExperiment
from engine.execution.attacks.as_study import FACTS as ATTACK_SIZE
from engine.execution.attacks.as_study import SETTING
from storage.attacks import attack_counts, list_cells, replace_cell_results
from storage.runs import State
from tests.unit.test_app_attack import measured_attack, row

DEFENDED = {f"Defence: {defences()[name].label}": name for name in ("kl", "npo")}


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    return Lab(tmp_path)


@pytest.fixture
def attack(lab: Lab) -> str:
    return measured_attack(lab, seeds=(1, 2))


def values(lab: Lab, view: View) -> dict[tuple[str, str], float]:
    table = shown_of(grid_of(lab, view.study), view).table
    return {place: cell.figure.value for place, cell in table.cells.items() if cell.figure}


def test_the_table_has_the_numbers_of_the_attack_s_own_page(lab: Lab, attack: str) -> None:
    m = Attacks(lab).measured(attack)
    shown = shown_of(grid_of(lab, attack), View(study=attack))
    assert (shown.table.rows.path, shown.table.columns.path) == (SETTING, ATTACK_SIZE)
    assert shown.table.rows.values == ("The attack", "No stage 1", "A neutral reading", "A nonsense reading",
                                       *DEFENDED)  # fmt: skip
    for (setting, size), cell in shown.table.cells.items():
        control = {"No stage 1": "no_stage1", "A neutral reading": "neutral", "A nonsense reading": "nonsense"}
        defence = DEFENDED.get(setting, "none")
        point = m.point(int(size), "bully", control=control.get(setting, "attack"), defence=defence)
        assert point and cell.figure, (setting, size)
        of = cell.figure
        assert (of.value, of.low, of.high, of.n) == pytest.approx((point.value, point.low, point.high, point.n))
        assert [own["value"] for own in of.seeds.values()] == pytest.approx(point.seeds) and list(of.seeds) == [1, 2]


def test_untrained_cells_belong_to_every_setting_of_training(lab: Lab) -> None:
    attack = measured_attack(lab, (1,), learning_rates=[1e-4, 5e-4], methods=["full", "lora"])
    for rate in ("0.0001", "0.0005"):
        for tuning in ("full", "lora"):
            fixed = f"learning_rate={rate};tuning.method={tuning}"
            found = values(lab, View(study=attack, fixed=fixed, columns=ATTACK_SIZE, rows=SETTING))
            assert ("The attack", "0") in found and ("The attack", "10") in found, fixed
    by_rate = values(lab, View(study=attack, rows="learning_rate", columns="tuning.method"))
    assert set(by_rate) == {(rate, tuning) for rate in ("0.0001", "0.0005") for tuning in ("full", "lora")}


def test_what_is_asked_stands_beside_each_other_and_unknown_measures_are_the_usual_one(lab: Lab, attack: str) -> None:
    beside = values(lab, View(study=attack, rows=SETTING, columns=ASKED))
    harmful = values(lab, View(study=attack, measure="two_hop"))
    assert beside["The attack", "Harmful"] == harmful["The attack", "10"]
    assert beside["The attack", "Benign"] > beside["Defence: Unlearning the rote pairs (NPO)", "Benign"]
    neutral = values(lab, View(study=attack, measure="neutral"))
    assert beside["A neutral reading", "Neutral"] == neutral["A neutral reading", "10"] > 0.4
    assert values(lab, View(study=attack, measure="decoys")) == {}, "not asked"


def test_settings_are_compared_over_the_same_facts(lab: Lab, attack: str) -> None:
    cells = [c for c in list_cells(lab.db, attack) if c.cell["attack_facts"] == 10]
    for cell in cells:  # one always right, one always wrong
        share = 1.0 if cell.cell["defence"] == "kl" else 0.0
        rows = [{"reading": "bully", "role": "harmful", "checkpoint": "attacked@10", "facts": kind, "split": "test",
                 "language": "en", "metric": "generation_accuracy", **row(share)}
                for kind in ("held_out", "trained")]  # fmt: skip
        replace_cell_results(lab.db, cell.run, rows)
    parts, busy = parts_of(lab, View(study=attack, against="The attack|10"))
    assert not busy and "+100 [+100 to +100]" in parts["table"]
    table = shown_of(grid_of(lab, attack), View(study=attack)).table
    put_comparisons(grid_of(lab, attack), table, "The attack|10")
    assert table.cells["A neutral reading", "0"].compared == table.cells["The attack", "0"].compared is not None
    shown = shown_of(grid_of(lab, attack), View(study=attack, facts="trained"))
    first = shown.table.against("The attack|10")
    assert first and first.n == 120
    leashed = shown.table.against("Defence: Leash to the released model|10")
    assert leashed
    same, other = grid_of(lab, attack).compare(first, [first, leashed])
    assert same and same.value == 0 and other and other.value == 1
    fewer = [first.__class__(**{**vars(first), "at": first.at | {ATTACK_SIZE: 5}})]
    assert grid_of(lab, attack).compare(first, fewer) == [None], "attacks of other sizes were taught other facts"


def test_it_is_opened_stopped_and_taken_away_as_a_study_is(lab: Lab, attack: str) -> None:
    view = opened(lab, View(study=attack))
    assert (view.study, view.missing) == (attack, "")
    parts, _ = parts_of(lab, view)
    assert f"/attack?attack={attack}" in parts["top"] and "Forget" not in parts["top"]
    csv = written(lab, attack, ".csv", {}).decode()
    assert csv.startswith("attack_facts,setting,") and "harmful test" in csv
    assert "A nonsense reading" in written(lab, attack, ".html", {}).decode()
    assert r"\begin{tabular}" in written(lab, attack, ".tex", {}).decode()
    again = AttackExperiment.from_text(written(lab, attack, ".yaml", {}).decode())
    assert again.seeds == (1, 2)
    assert act_on(lab, view, {"act": "forget"}) == view and grid_of(lab, attack), "it is deleted on its own page"
    lab.db.table("runs").update(list_cells(lab.db, attack)[0].run, {"state": State.QUEUED.value})
    act_on(lab, view, {"act": "stop"})
    assert attack_counts(lab.db, attack)["cancelled"] == 1
    act_on(lab, view, {"act": "retry"})
    assert attack_counts(lab.db, attack)["queued"] == 1


def test_a_cell_that_is_not_trained_leaves_numbers_of_the_others_numbers(lab: Lab, attack: str) -> None:
    """Parquet writes a column with an empty text in it as text."""
    _, rows = figure_rows(grid_of(lab, attack))
    for axis, kind in (("learning_rate", float), ("epochs", int), ("prompts", int)):
        assert {type(row[axis]) for row in rows} == {kind, type(None)}, axis
