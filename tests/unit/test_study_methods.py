"""Methods on the page Studies: what is asked at the end of each, and what it read for that, beside each other."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from app.runs.page import runs_table
from app.shared.lab import Lab
from app.studies.charts import chart_of
from app.studies.grids import grid_of
from app.studies.latex import latex
from app.studies.page import act_on, parts_of, put_comparisons
from app.studies.report import report_html
from app.studies.shown import shown_of
from app.studies.view import ASKED, View
from engine.execution.studies.kept import BASE_TEXT, GENERAL_KNOWLEDGE, OF_NO_FACTS
from engine.execution.studies.queue import queue_study
from engine.execution.studies.report import _done, _signs
from engine.studies.study import DEPTH, SEED, Study
from storage.measurements import TRAINING_TOKENS
from storage.runs import State, add_run, count_runs, list_runs
from storage.studies import StudyFigure, choice_of, group_of, list_figures, list_study_runs, replace_figures

METHODS = {
    "rote": {},
    "taught": {"stage1.epochs": 0, "stage2.facts": 20},
    "in context": {"stage1.epochs": 0, "in_context.distractors": 0},
}
# Of each method: the kind of what it ends with, its depth, its figures of train and test prompts, its tokens.
ENDS = {"rote": ("generalised", 4, 0.9, 0.8, 30.0), "taught": ("generalised", 0, 0.7, 0.6, 1234.0),
        "in context": ("context", 0, 0.5, 0.4, 0.0)}  # fmt: skip


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    made = Lab(tmp_path)
    yield made
    made.db.close()


def measured(lab: Lab, methods: Mapping[str, Mapping[str, object]] = METHODS) -> str:
    experiment = {
        "relations": [{"name": "mother", "key_token": "[X]", "facts": {"generate": 20}}],
        "stage1": {"epochs": 4, "checkpoint_epochs": [2, 4]},
        "stage2": {"facts": 5},
        "evaluation": {"languages": ["en"]},
    }
    study = queue_study(lab.db, Study.from_data({"name": "m", "experiment": experiment, "methods": methods}))
    for run in list_study_runs(lab.db, study):
        lab.db.table("runs").update(run.run, {"state": State.DONE.value, "finished_at": "2026-03-01T10:00:00.000Z"})
    for group, members in _done(lab.db, study).items():
        (run,) = members
        kind, depth, train, test, tokens = ENDS.get(run.at["method"], ENDS["rote"])
        figures = []
        for at_depth in {depth, depth // 2}:
            for split, value in (("train", train), ("test", test), ("key", 1.0)):
                shown = value if at_depth == depth else value / 2
                place = (run.at, at_depth, kind if split != "key" else "memorised", "all", split, "en")
                seeds = {0: {"value": shown, "run": run.run}}
                figures.append(StudyFigure(*place, shown, shown, shown, shown, 20, 20, seeds))
            seeds = {0: {"value": tokens, "run": run.run}}
            figures.append(
                StudyFigure(
                    run.at, at_depth, kind, "all", TRAINING_TOKENS, "", tokens, tokens, tokens, tokens, 1, 1, seeds
                )
            )
        replace_figures(lab.db, study, group, _signs(members), figures)
    return study


def test_the_table_has_a_method_a_row_and_what_is_asked_beside_each_other(lab: Lab) -> None:
    study = measured(lab)
    parts, busy = parts_of(lab, View(study=study))
    assert not busy and "Training tokens a fact" in parts["table"] and "1 234" in parts["table"].replace("\u202f", " ")
    shown = shown_of(grid_of(lab, study), View(study=study))
    assert (shown.table.rows.path, shown.table.columns.path, shown.asked["facts"]) == ("method", ASKED, "all")
    values = {place: cell.figure.value for place, cell in shown.table.cells.items() if cell.figure}
    assert values == {
        ("rote", "Train prompts"): 0.9, ("rote", "Test prompts"): 0.8, ("rote", "Training tokens a fact"): 30.0,
        ("taught", "Train prompts"): 0.7, ("taught", "Test prompts"): 0.6, ("taught", "Training tokens a fact"): 1234.0,
        ("in context", "Train prompts"): 0.5, ("in context", "Test prompts"): 0.4,
        ("in context", "Training tokens a fact"): 0.0,
    }  # fmt: skip
    chart = chart_of(shown.table)
    assert chart is not None and {row["x"] for row in chart["data"]["rows"]} == {"Train prompts", "Test prompts"}
    text = latex(shown, View(study=study))
    assert r"taught & 0.70 [0.70, 0.70] & 0.60 [0.60, 0.60] & -- & -- & 1234 \\" in text
    twenty = "n = 20, 20 facts, seeds 0"
    assert f"% taught: {twenty} | {twenty} | nothing yet | nothing yet | seeds 0" in text
    report = report_html(grid_of(lab, study), View(study=study))
    assert "What is asked, after all training" in report and "1\u202f234" in report and "123400" not in report


def test_latex_reads_the_name_of_a_method_as_text(lab: Lab) -> None:
    study = measured(lab, {"[2em] rote": {}, "* k < 5 | k > 9": {"stage1.epochs": 6}})
    text = latex(shown_of(grid_of(lab, study), View(study=study)), View(study=study))
    # An unguarded [ or * belongs to the row before; < > | are other signs in LaTeX's usual encoding.
    assert "\n{}[2em] rote & " in text and "\n{}* k \\textless{} 5 \\textbar{} k \\textgreater{} 9 & " in text


def test_a_method_of_any_name_can_be_looked_at_and_compared_with(lab: Lab) -> None:
    hostile = "50 % | k = 5; a=b" + "; c" * 60
    study = measured(lab, {"rote": {}, hostile: {"stage1.epochs": 6}})
    view = act_on(lab, View(study=study, columns=ASKED, rows=DEPTH), {"act": "fix", "name": "method", "value": hostile})
    table = shown_of(grid_of(lab, study), View.of_address(view.address())).table
    assert [value for axis, value in table.others if axis.path == "method"] == [hostile]
    table = shown_of(grid_of(lab, study), View(study=study)).table
    first = table.against(f"{hostile}|Test prompts")
    assert first and first.at["method"] == hostile


def test_choices_are_told_as_choices_and_beside_what_guessing_would_reach(lab: Lab) -> None:
    study = measured(lab)
    (run, *_), (test, *_) = list_study_runs(lab.db, study), list_figures(lab.db, study, ["generalised"], split="test")
    choice = replace(test, split=choice_of("reversal"), value=0.25, chance=0.05)
    replace_figures(lab.db, study, group_of(test.at, SEED), _signs([run]), [test, choice])
    grid, view = grid_of(lab, study), View(study=study, rows="method", columns=DEPTH, measure="reversal choice")
    for asked, titles in (
        (view, {"Choices of the right answer", "Choices"}),
        (view.but(measure="test"), {"Answers with a hit", "Answers"}),
        (view.but(columns=ASKED), {"Answers with a hit, or right choices", "Answers or choices"}),
    ):
        chart = chart_of(shown_of(grid, asked).table)
        assert chart is not None
        text = json.dumps(chart["spec"])
        told = {"Answers with a hit", "Answers", "Choices of the right answer", "Choices",
                "Answers with a hit, or right choices", "Answers or choices"}  # fmt: skip
        assert {title for title in told if f'"title": "{title}"' in text} == titles
    report = report_html(grid, view)
    beside = report.split("<h2>Reversal as multiple choice, after stage 2</h2>")[1].split("<h2>")[0]
    assert "most probable of its options. Guessing would reach 5 %" in beside
    assert report.count("Guessing would reach") == 1, "not of answers"


def test_what_is_still_known_stands_beside_and_is_of_no_facts(lab: Lab) -> None:
    study = measured(lab)
    (run, *_), (test, *_) = list_study_runs(lab.db, study), list_figures(lab.db, study, ["generalised"], split="test")
    known = [
        replace(test, facts=OF_NO_FACTS, split=GENERAL_KNOWLEDGE, value=0.75, n=40, n_facts=40),
        replace(test, facts=OF_NO_FACTS, split=BASE_TEXT, value=0.5, n=300, n_facts=10),
    ]
    replace_figures(lab.db, study, group_of(test.at, SEED), _signs([run]), [test, *known])
    grid = grid_of(lab, study)
    table = shown_of(grid, View(study=study, facts="held_out")).table
    assert table.cell("rote", "General questions").figure == known[0], "whichever facts are looked at"
    for measure, told, title in (
        ("general", "n = 40 answers to 40 questions", "Answers with a hit"),
        ("base text", "n = 300 tokens in 10 texts", "Tokens as the base says them"),
    ):
        view = View(study=study, rows="method", columns=DEPTH, measure=measure)
        parts, _ = parts_of(lab, view)
        assert told in parts["table"] and "Compare the other figures" not in parts["table"]
        assert 'id="study-facts"' not in parts["choosers"] and f'"title": "{title}"' in json.dumps(
            parts["chart"]["spec"]
        )
        assert "facts held out" not in latex(shown_of(grid, view), view)
    parts, _ = parts_of(lab, View(study=study, rows="method", columns=DEPTH, measure="test"))
    assert "Compare the other figures" in parts["table"] and 'id="study-facts"' in parts["choosers"]


def test_what_has_no_stage_1_stands_at_every_depth(lab: Lab) -> None:
    view = View(study=measured(lab), columns=DEPTH)
    table = shown_of(grid_of(lab, view.study), view).table
    assert table.columns.values == (2, 4)
    values = {place: cell.figure.value for place, cell in table.cells.items() if cell.figure}
    assert values == {
        ("rote", "2"): 0.4, ("rote", "4"): 0.8, ("taught", "2"): 0.6, ("taught", "4"): 0.6,
        ("in context", "2"): 0.4, ("in context", "4"): 0.4,
    }  # fmt: skip


def test_measures_are_not_compared_with_each_other(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    study = measured(lab)
    table = shown_of(grid_of(lab, study), View(study=study)).table
    monkeypatch.setattr("app.studies.page.MOST_COMPARED", 0)
    assert put_comparisons(grid_of(lab, study), table, "rote|Test prompts") == 2, (
        "the other methods on the same prompts"
    )


def test_runs_of_a_study_are_listed_when_they_are_asked_for(lab: Lab) -> None:
    study = measured(lab)
    assert "of a study" in runs_table(lab, "", "", 1), "nothing else is there"
    alone = add_run(lab.db, name="alone", experiment={"relations": []}, model="embedded", seed=0)
    html = runs_table(lab, "", "", 1)
    assert "alone" in html and "of a study" not in html and "Runs of studies, too <b>3</b>" in html
    assert runs_table(lab, "", "", 1, studies=True).count(f'href="/studies?study={study}"') == 3
    assert "of a study" in runs_table(lab, "taught", "", 1), "what is looked for is found"
    assert [run.id for run in list_runs(lab.db, of_studies=False)] == [alone.id]
    assert (count_runs(lab.db), count_runs(lab.db, of_studies=False)) == (4, 1)


def test_a_language_that_only_the_last_checkpoint_was_asked_in_can_be_chosen(lab: Lab) -> None:
    study = measured(lab)
    (run, *_), (en, *_) = list_study_runs(lab.db, study), list_figures(lab.db, study, ["generalised"], split="test")
    german = replace(en, language="de", value=0.3)
    others = [figure for figure in list_figures(lab.db, study) if figure.at == en.at]
    replace_figures(lab.db, study, group_of(en.at, SEED), _signs([run]), [*others, german])
    asked = View(study=study, rows="method", columns=DEPTH, language="de", facts="all")
    shown = shown_of(grid_of(lab, study), asked)
    assert shown.languages == ["de", "en"] and shown.asked["language"] == "de"
    assert {cell.figure.value for cell in shown.table.cells.values() if cell.figure} == {0.3}
