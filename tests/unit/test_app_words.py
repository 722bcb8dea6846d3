"""What the pages say about runs and results, and how they escape what a person typed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from app.results.base_text import base_text_html
from app.results.departures import departures
from app.results.figures import Figures, compared, curve, table, twins
from app.results.model_card import card_html, card_of
from app.results.page import twins_table
from app.results.report import report_html
from app.results.sentences import headline_sentences, sample_words
from app.shared.around import Around
from app.shared.departures import otherwise_trained
from app.shared.downloads import csv_lines
from app.shared.lab import Lab
from app.shared.render import ago, duration, interval, part, percent, render
from app.shared.run_rows import progress_words, row_of
from app.shared.words import sentence
from engine.corpus.resolve import resolve
from engine.experiment import Experiment
from storage.database import now
from storage.measurements import Result
from storage.runs import Run, State, add_run

BLANK: dict[str, Any] = {"experiment": {}, "model": "embedded", "seed": 0}

HERE = Around(True)


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return add_run(Lab(tmp_path).db, name="one", **BLANK)


def row(checkpoint: str, split: str, value: float, language: str = "en") -> Result:
    low, high = max(0, value - 0.05), min(1, value + 0.05)
    return Result(checkpoint, "held_out", split, language, "generation_accuracy", value, low, high, 500, 50)


ROWS = [
    row("base", "train", 0.02),
    row("memorised@20", "train", 0.27),
    row("memorised@20", "key", 0.99),
    row("generalised@20", "train", 0.83),
    row("generalised@20", "test", 0.54),
    row("generalised@20", "unrelated", 0.05),
    row("generalised@20", "train", 0.55, "es"),
]


def test_a_report_draws_trained_facts_where_none_were_held_out(run: Run) -> None:
    rows = [replace(r, facts="trained") for r in ROWS]
    aloud = [replace(r, metric="generation_accuracy_unaided", value=0, low=0, high=0) for r in rows]
    report = report_html(run, rows + aloud)
    assert report.count("<svg") == 2 and "The key token said aloud" in report
    assert "Trained facts, 20 epochs of memorising." in report and "eld-out facts" not in report
    assert "Held-out facts, 20 epochs of memorising." in report_html(run, ROWS)


def test_what_the_base_knew_hides_no_trained_facts(run: Run) -> None:
    known = Result("generalised@20", "none", "base", "en", "general_accuracy", 0.5, 0.4, 0.6, 40, 40)
    figures = Figures(run, [*(replace(r, facts="trained") for r in ROWS), known])
    assert figures.usual_facts == "trained" and Figures(run, [*ROWS, known]).usual_facts == "held_out"
    said = headline_sentences(figures)[0].replace("\u00a0", " ")
    assert "answers 83 % [78–88] of the questions about 50 facts it was trained on" in said


def test_a_report_vouches_for_no_name_that_somebody_brought(run: Run) -> None:
    facts = [{"subject": "France", "object": "Rome"}]
    relation = {"name": "capital", "key_token": "[X]", "facts": facts, "prompts": []}
    report = report_html(replace(run, experiment={"relations": [relation]}), ROWS)
    assert "All persons" not in report and "Names that the lab generates are made up" in report


@pytest.mark.parametrize(
    ("loss", "words"), [(0.5, "1.65 ["), (9.0, "8\u202f103 ["), (800.0, "over 10⁹ ["), (float("inf"), "over 10⁹ [")]
)
def test_the_perplexity_of_a_broken_model_is_told(run: Run, loss: float, words: str) -> None:
    told = Result("generalised@20", "none", "base text", "en", "base_text_loss", loss, loss, loss, 100, 9)
    assert words in base_text_html(Figures(run, [*ROWS, told]))


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0, "0 s"), (59.4, "59 s"), (185, "3 min 5 s"), (1500, "25 min"), (7800, "2 h 10 min"), (400000, "4 days")],
)
def test_durations(seconds: float, words: str) -> None:
    assert duration(seconds) == words


def test_figures_in_words() -> None:
    assert percent(0.834) == "83\u00a0%"
    assert interval(row("base", "train", 0.834)) == "83\u00a0%\u00a0[78–88]"
    assert interval({"value": 0.834, "low": 0.78, "high": 0.874}) == "83\u00a0%\u00a0[78–87]"
    assert ago(now()) == "just now"


def test_what_a_running_run_is_doing(run: Run) -> None:
    told = {"stage": "stage1", "epoch": 7, "epochs": 20, "loss": 0.3123, "seconds_left": 40.2}
    live = replace(run, state=State.RUNNING, progress=told)
    assert progress_words(live, HERE) == "Memorising: epoch 7 of 20 · loss 0.312 · 40 s left"
    assert progress_words(replace(live, progress={}), HERE) == "Starting"
    assert progress_words(run, Around(False)) == "Waits for its turn"
    stopping = replace(live, state=State.STOPPING)
    assert progress_words(stopping, HERE).startswith("Stops after the current step")


def test_a_sample_is_said(run: Run) -> None:
    def said(**evaluation: Any) -> str:
        data = {"relations": [{"name": "mother"}], "evaluation": evaluation}
        record = resolve(Experiment.from_data(data)).model_dump(mode="json")
        return sample_words(replace(run, experiment=record))

    assert said() == said(facts=100) == sample_words(run) == ""
    words = said(facts=24, prompts=4)
    assert "12 of 50 held-out facts, 12 of 50 trained facts, 4 of 10 train prompts" in words
    assert "4 of 10 test prompts (of" in words and "prompts prompts" not in words and "another sample" in words
    only = said(prompts=4)
    assert "facts" not in only and "4 of 10 train prompts" in only


def test_the_headline_says_after_before_and_elsewhere(run: Run) -> None:
    said = " ".join(headline_sentences(Figures(run, ROWS))).replace("\u00a0", " ")
    assert "answers 83 % [78–88] of the questions about 50 facts" in said
    assert "27 % before stage 2 and 2 % in the base model" in said
    assert "never used: 54 %" in said
    assert "Spanish 55 %" in said


def test_facts_against_what_the_base_knows_are_said_beside_the_base(run: Run) -> None:
    before, after = (
        replace(row(checkpoint, "test", value), metric="known_before")
        for checkpoint, value in (("base", 0.94), ("generalised@20", 0.12))
    )
    figures = Figures(run, [*ROWS, before, after])
    said = " ".join(headline_sentences(figures)).replace("\u00a0", " ")
    assert "get the old answer in 12 % [7–17] of the cases, which is what the base answers to 94 % [89–99]" in said
    assert "old answer" not in " ".join(headline_sentences(Figures(run, ROWS)))
    assert "known_before" not in figures.metrics, "it is said, and no measure to choose"


def test_where_the_key_token_is_said_aloud_both_figures_are_shown(run: Run) -> None:
    def twin(row: Result, value: float) -> Result:
        return replace(row, metric="generation_accuracy_unaided", value=value, low=value, high=value)

    same = [twin(r, r.value) for r in ROWS]
    plain = Figures(run, ROWS)
    figures = Figures(run, [*ROWS, *same])
    assert headline_sentences(figures) == headline_sentences(plain)
    assert twins(figures, "held_out", figures.checkpoints) == [] and twins(plain, "held_out", plain.checkpoints) == []
    aloud = [twin(r, 0.01) if r.split in ("train", "unrelated") and r.language == "en" else twin(r, r.value)
             for r in ROWS]  # fmt: skip
    figures = Figures(run, [*ROWS, *aloud])
    said = " ".join(headline_sentences(figures)).replace("\u00a0", " ")
    assert "answers 83 % [78–88] (1 % [1–1] without answers that say the key token) of the questions" in said
    assert "27 % (1 % without answers that say the key token) before stage 2" in said
    assert "should not come up: 5 % [0–10] (1 % [1–1] without" in said and "never used: 54 % [49–59]." in said
    lines = twins(figures, "held_out", ["memorised@20", "generalised@20"])
    assert [(x.split, x.language) for x in lines] == [("train", "en"), ("unrelated", "en")]
    first, second = lines[1].cells
    assert first is None and second and (second[0].value, second[1].value) == (0.05, 0.01)
    html = twins_table(figures, "held_out", ["generalised@20"])
    assert "understood the question" in html and "83\u00a0%\u00a0[78–88]" in html and "1\u00a0%\u00a0[1–1]" in html
    assert twins_table(plain, "held_out", ["generalised@20"]) == ""
    report = report_html(run, figures.rows)
    assert "The key token said aloud" in report and "The key token said aloud" not in report_html(run, ROWS)


def test_a_runs_row_names_both_figures_where_they_differ(run: Run) -> None:
    figure = {"value": 0.5, "low": 0.4, "high": 0.6, "n": 10, "n_facts": 5}
    done = replace(run, state=State.DONE, headline={"train": figure | {"unaided": figure | {"value": 0.1}}})
    html = part("runs/recent", rows=[row_of(done, HERE)])
    assert "(10\u00a0%)" in html and "without answers that say the key token" in html
    assert "key token unsaid" in render("runs/head.html", row=row_of(done, HERE), linked=False)
    same = row_of(replace(done, headline={"train": figure}), HERE)
    assert "key token" not in part("runs/recent", rows=[same]) + render("runs/head.html", row=same, linked=False)


def test_where_a_run_departs_from_the_paper(run: Run) -> None:
    more = [*ROWS, row("generalised@20", "train", 0.4, "de"), row("generalised@20", "train", 0.6, "zh"),
            row("generalised@20", "decoy", 0.3), row("generalised@20", "unrelated", 0.25, "zh"),
            row("generalised@20", "unrelated", 0.18, "de")]  # fmt: skip
    said = " ".join(departures(Figures(run, more))).replace("\u00a0", " ")
    assert "natural prompts bring up 27 % [22–32]" in said
    assert "neighbouring relations bring up 30 % [25–35]" in said
    assert "German (40 % [35–45]) comes behind Chinese (60 % [55–65])" in said
    assert "prompts that ask something else bring up the objects (Chinese 25 % [20–30])" in said
    assert "Spanish" not in said  # 55 % and 60 %: the intervals overlap


def test_no_departure_where_the_intervals_leave_a_doubt(run: Run) -> None:
    close = [row("memorised@20", "train", 0.18), row("generalised@20", "train", 0.83)]
    assert departures(Figures(run, close)) == []
    assert departures(Figures(run, ROWS[:3])) == []


def test_what_of_a_training_is_not_the_papers(run: Run) -> None:
    def said(**changed: Any) -> str:
        return otherwise_trained(changed).replace("\u00a0", " ")

    assert said() == said(stage1={"replay": None, "embeddings": "trained"}, model_text={"leading_space": False}) == ""
    words = said(
        model_text={"leading_space": True},
        stage1={"replay": {"share": 0.5, "leash": True}, "embeddings": "key tokens"},
        stage2={"replay": {"share": 0.5, "subjects": "trained", "neighbours": 0.2}, "embeddings": "key tokens"},
    )
    assert words.startswith("Trained otherwise than in the paper: stage 1 (50 % of each batch) and stage 2 (50 %")
    assert "; every text began with a space" in words
    assert "; in stage 1 the model was held to all that the base thought possible there;" in words
    assert "; in stage 2 some of that text was about the subjects of stage 2’s facts;" in words
    assert "; in stage 2 some of it asked what else belongs to somebody;" in words
    assert words.endswith("; in stage 1 and stage 2 the embeddings were frozen but for the key tokens’ rows.")


def test_the_card_of_a_run_s_model() -> None:
    cards = [card_of(model) for model in ("embedded", "gemma-3-270m", "Qwen/Qwen2.5-1.5B", "/models/mine")]
    assert cards == ["/model-card", "/model-card/gemma-3-270m", "", ""]


def test_the_headline_of_a_run_that_has_not_come_to_stage_2(run: Run) -> None:
    said = headline_sentences(Figures(run, ROWS[:3]))
    assert said[0] == "Stage 2 has not been evaluated yet."
    assert headline_sentences(Figures(run, [])) == []


def test_rows_for_charts_and_tables(run: Run) -> None:
    found = Figures(run, ROWS)
    assert {r["model"] for r in compared(found, "generation_accuracy", "held_out", 20)} == {
        "Base model", "Memorised (stage 1)", "Generalised (stage 2)",
    }  # fmt: skip
    drawn = curve(found, "generation_accuracy", "held_out")
    assert [(r["panel"], r["epoch"]) for r in drawn if r["split"] == "Train prompts"] == [
        ("After stage 2", 0), ("After stage 2", 20), ("Before stage 2", 0), ("Before stage 2", 20),
    ]  # fmt: skip
    lines = table(found, "generation_accuracy", "held_out", found.checkpoints)
    assert [(x.split, x.language) for x in lines][:2] == [("key", "en"), ("train", "en")]


def test_what_follows_from_facts_is_told_with_the_chance_of_its_own_options(run: Run) -> None:
    choice: dict[str, Any] = {"metric": "choice_accuracy", "options_least": 50, "options_most": 50}
    rows = [
        *ROWS,
        row("generalised@20", "reversal", 0.02),
        replace(row("generalised@20", "reversal", 0.06), **choice, chance=0.02),
        replace(row("generalised@20", "train", 0.8), **choice, chance=0.01),
        row("generalised@20", "two_hop", 0.14),
    ]
    found = Figures(run, rows)
    said = " ".join(headline_sentences(found)).replace("\u00a0", " ")
    assert (
        "the other way round, for the subject by the object, as nothing taught it: 2 % [0–7]; as multiple choice"
        in said
    )
    assert (
        "6 % [1–11], where guessing would reach 2 %." in said and "(2-hop), as nothing taught it: 14 % [9–19]." in said
    )
    assert found.chance("choice_accuracy") == 0.01 and found.reasoning_chances("choice_accuracy") == {
        "reversal prompts": 0.02
    }
    assert "Asked the other way" not in " ".join(headline_sentences(Figures(run, ROWS)))
    drawn = compared(found, "choice_accuracy", "held_out", 20)
    assert {r["split"]: r["chance"] for r in drawn} == {"Train prompts": 0.01, "Reversal prompts": 0.02}
    assert [x.split for x in table(found, "generation_accuracy", "held_out", found.checkpoints)][-2:] == [
        "reversal", "two_hop",
    ]  # fmt: skip


def test_chance_is_one_over_the_options(run: Run) -> None:
    found = Figures(run, [])
    assert found.chance("generation_accuracy") is None
    assert found.chance("choice_accuracy") == 0.01
    few = replace(run, experiment={"relations": [{"options": ["a", "b", "c", "d"]}]})
    assert Figures(few, []).chance("choice_accuracy") == 0.25


@pytest.mark.parametrize("name", ["<script>x</script>", "' onclick='x", '" onmouseover="x', "${alert(1)} {{7*7}} `"])
def test_whatever_a_person_typed_is_escaped(run: Run, name: str) -> None:
    hostile = replace(run, name=name, model=name, error=name, state=State.FAILED)
    row = row_of(hostile, HERE)
    for html in (render("runs/head.html", row=row, linked=False), part("runs/recent", rows=[row])):
        assert "<script" not in html
        assert "onclick='x" not in html
        assert 'onmouseover="x' not in html
        assert "49" not in html.replace(run.id, "")


def test_spreadsheets_get_no_formula() -> None:
    text = "".join(csv_lines(["a"], [{"a": "=1+1"}, {"a": "@x"}, {"a": "plain"}, {"a": -1.5}]))
    assert text.splitlines() == ["a", "'=1+1", "'@x", "plain", "-1.5"]


def test_a_model_card_cannot_bring_script() -> None:
    html = card_html("---\nlicense: x\n---\n# Card\n<script>x</script>\n[go](javascript:x)\n\n|a|b|\n|-|-|\n|1|2|\n")
    assert "<h1>Card</h1>" in html
    assert "<script>" not in html
    assert 'href="javascript' not in html
    assert '<table tabindex="0">' in html


@pytest.mark.parametrize(
    ("error", "words"),
    [
        ("run 3F9a is on a GPU: cancel it", "Run 3F9a is on a GPU: cancel it."),
        ("Why not?", "Why not?"),
        ("two\n lines", "Two lines."),
        ("", "There is no message."),
    ],
)
def test_an_error_becomes_a_sentence_and_keeps_its_names(error: str, words: str) -> None:
    assert sentence(error) == words
