"""The paper beside ours: the rules behind each verdict, the data file, and the recording that comes with the lab."""

from __future__ import annotations

import csv
import io
import itertools
import json
import lzma
import re
import shlex
import shutil
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from app.paper.charts import paper_chart
from app.paper.exports import add_paper_export_routes
from app.paper.page import act_on, head, parts_of
from app.paper.sources import Sources
from app.paper.table import beside
from app.paper.view import View
from app.shared.lab import Lab
from engine.commands.main import main
from engine.execution.studies.queue import queue_once, queue_study
from engine.execution.studies.recording import (
    DAMAGE,
    SHIPPED,
    command_of,
    read_recording,
    record,
    shipped_recordings,
)
from engine.paper.beside import Ours
from engine.paper.claims import Verdict, ceiling, change, judge, level, order, published_words, steady
from engine.paper.representations import published_checkpoints
from engine.paper.tables import Claim, Published, Table, load_paper
from engine.studies.presets import STUDIES
from engine.studies.study import Study, set_axis
from storage.database import open_database
from storage.studies import StudyFigure, list_studies, list_study_runs
from tests.browser import study_seeding

EMBEDDED = SHIPPED / "paper-main-embedded.json.xz"
DEPTH = load_paper().tables["depth"]


@dataclass(frozen=True)
class Seen:
    """A figure with its interval."""

    value: float
    low: float
    high: float
    seeds: dict[int, dict[str, Any]] = field(default_factory=dict)


def seen(value: float, off: float = 0.02, *own: float) -> Seen:
    return Seen(value, value - off, value + off, {seed: {"value": one} for seed, one in enumerate(own)})


def figure(value: float, *, depth: int = 20, off: float = 0.02, kind: str = "generalised", split: str = "test",
           language: str = "en", at: dict[str, Any] | None = None) -> StudyFigure:  # fmt: skip
    place = {"stage2.facts": 50, "stage2.epochs": 1, **(at or {})}
    return StudyFigure(place, depth, kind, "held_out", split, language, value, value - off, value + off, value, 100,
                       10, {0: {"value": value}})  # fmt: skip


@pytest.mark.parametrize(
    ("first", "then", "published", "verdict"),
    [
        (seen(0.14), seen(0.92), [0.35, 0.98], Verdict.AGREES),
        (seen(0.14), seen(0.30), [0.35, 0.98], Verdict.WEAKER),
        (seen(0.10), seen(0.90), [0.35, 0.55], Verdict.STRONGER),
        (seen(0.92), seen(0.14), [0.35, 0.98], Verdict.CONTRADICTS),
        (seen(0.90), seen(0.10), [0.98, 0.35], Verdict.AGREES),
        (seen(0.50, 0.2), seen(0.80, 0.2), [0.35, 0.98], Verdict.UNDECIDED),
        (seen(0.30), seen(0.60), [0.3, None], Verdict.AGREES),
        (seen(0.60), seen(0.30), [0.3, None], Verdict.CONTRADICTS),
        (seen(0.00, 0.006), seen(0.00, 0.006), [0.0, 0.26], Verdict.ABSENT),
        (seen(0.30, 0.05), seen(0.34, 0.05), [0.1, 0.4], Verdict.ABSENT),
        (seen(0.30, 0.05), seen(0.36, 0.05), [0.1, 0.4], Verdict.UNDECIDED),
        (seen(0.34, 0.05), seen(0.30, 0.05), [0.4, 0.1], Verdict.ABSENT),
        (seen(0.30, 0.05), seen(0.34, 0.05), [0.1, None], Verdict.UNDECIDED),
        (seen(0.14, 0.02, 0.1, 0.2), seen(0.92, 0.02, 0.9, 0.94), [0.35, 0.98], Verdict.AGREES),
        (seen(0.14, 0.02, 0.0, 0.3), seen(0.92, 0.02, 1.0, 0.29), [0.35, 0.98], Verdict.UNDECIDED),
    ],
)
def test_a_change_has_a_direction_and_a_size(
    first: Seen, then: Seen, published: list[float | None], verdict: Verdict
) -> None:
    assert change([first, then], published)[0] is verdict


@pytest.mark.parametrize(
    ("value", "floor", "verdict"),
    [
        (seen(0.70), None, Verdict.AGREES),
        (seen(0.60, 0.2), seen(0.1), Verdict.AGREES),
        (seen(0.44), seen(0.26), Verdict.WEAKER),
        (seen(0.95), seen(0.26), Verdict.STRONGER),
        (seen(0.44, 0.1), seen(0.40, 0.1), Verdict.UNDECIDED),
        (seen(0.20), seen(0.40), Verdict.CONTRADICTS),
    ],
)
def test_a_level_is_near_the_papers_and_above_its_floor(value: Seen, floor: Seen | None, verdict: Verdict) -> None:
    assert level(value, 0.75, 0.1, floor, "before")[0] is verdict


def test_what_stays_and_what_is_near_nothing() -> None:
    assert steady([seen(0.50), seen(0.52)], 0.1)[0] is Verdict.AGREES
    assert steady([seen(0.50), seen(0.52)], 0.05)[0] is Verdict.UNDECIDED
    assert steady([seen(0.50), seen(0.80)], 0.1)[0] is Verdict.CONTRADICTS
    assert steady([seen(0.50, 0.1), seen(0.52, 0.1)], 0.1)[0] is Verdict.UNDECIDED
    assert ceiling(seen(0.03), 0.1)[0] is Verdict.AGREES
    assert ceiling(seen(0.30), 0.1)[0] is Verdict.CONTRADICTS
    assert ceiling(seen(0.10), 0.1)[0] is Verdict.UNDECIDED


def test_an_order_holds_until_two_are_told_apart_the_other_way_round() -> None:
    names = ["a", "b", "c"]
    assert order(names, [seen(0.9), seen(0.89), seen(0.4)]) == (
        Verdict.AGREES, "2 of 3 pairs are told apart in this order, none the other way round"
    )  # fmt: skip
    assert order(names, [seen(0.9), seen(0.4), seen(0.6)])[1].startswith("c comes before b;")
    assert order(names, [seen(0.9), seen(0.4), seen(0.6)])[0] is Verdict.CONTRADICTS
    assert order(names, [seen(0.5, 0.3)] * 3)[0] is Verdict.UNDECIDED


def test_a_claim_is_a_sentence_made_from_the_numbers() -> None:
    claim = next(c for c in DEPTH.claims if c.words.startswith("Deeper"))
    ours = Ours([figure(0.14, depth=3), figure(0.92), figure(0.5, split="train")])
    assert judge(DEPTH, claim, ours).sentence == (
        f"{claim.words}: 0.14 → 0.92 here, 0.35 → 0.98 there: agrees (on 1 seed alone)"
    )
    one = next(c for c in DEPTH.claims if c.rule == "level")
    at = {"stage2.facts": 1, "stage2.epochs": 8}
    found = judge(DEPTH, one, Ours([figure(0.44, at=at), figure(0.26, kind="memorised", at=at)]))
    weaker = "0.44 (0.26 before stage 2) here, 0.76 there: the same direction, weaker (on 1 seed alone)"
    assert found.sentence.endswith(weaker)
    for lacking in ([], [figure(0.44, at=at)], [figure(0.26, kind="memorised", at=at)]):
        missing = judge(DEPTH, one, Ours(lacking))
        assert (missing.verdict, missing.seen) == (Verdict.MISSING, "0.76 there")


def test_a_figure_that_could_be_several_is_none_and_further_rows_are_ours_alone() -> None:
    row = DEPTH.rows["k50e20"]
    assert Ours([figure(0.9)]).figure(DEPTH, row, "test").value == 0.9  # type: ignore[union-attr]
    rates = [figure(0.9, at={"stage1.learning_rate": rate}) for rate in (1e-5, 1e-4)]
    assert Ours(rates[:1]).figure(DEPTH, row, "test") is rates[0]
    assert Ours(rates).figure(DEPTH, row, "test") is None
    further = Ours([figure(0.9), figure(0.8, at={"stage2.facts": 10}), figure(0.7, language="de")]).further_rows(DEPTH)
    assert [row.where for row in further] == [
        {"stage1.checkpoint_epochs": "20", "stage2.facts": "10", "stage2.epochs": "1"}
    ]
    assert DEPTH.series_of(further[0]) == "k = 10, stage 2 epochs: 1"


def test_methods_are_found_by_their_names_and_those_of_ours_alone_stand_below() -> None:
    table = load_paper().tables["methods"]

    def of(method: str, value: float, kind: str = "generalised", split: str = "test") -> StudyFigure:
        language = "" if split == "training_tokens" else "en"
        low, high, seeds = value - 0.02, value + 0.02, {0: {"value": value}}
        return StudyFigure(
            {"method": method}, 20, kind, "all", split, language, value, low, high, value, 300, 300, seeds
        )

    ours = Ours([
        of("rote, 1 prompt", 0.8), of("rote, 1 prompt", 0.1, "memorised"), of("SFT, 1 prompt", 0.2),
        of("fact in the prompt", 0.9, "context"), of("fact in the prompt, among 9 others", 0.7, "context"),
        of("stage 2 alone", 0.3), of("rote, 1 prompt", 160, split="training_tokens"),
    ])  # fmt: skip
    found = beside(table, ours)
    values = [[cell.ours and cell.ours.value for cell in line.cells.values()] for line in found.lines]
    assert values == [[0.8, None, 160], [None] * 3, [0.2, None, None], [None] * 3, [None] * 3, [0.9, None, None]]
    assert [(line.x, line.series, line.cells["test"].ours.value) for line in found.further] == [
        ("fact in the prompt, among 9 others", "Other methods of ours", 0.7),
        ("stage 2 alone", "Other methods of ours", 0.3),
    ]
    assert [one.verdict for one in found.judged] == [Verdict.AGREES, Verdict.MISSING, Verdict.MISSING]
    drawn = paper_chart(found, "tokens", "embedded")
    assert drawn is not None and [row["value"] for row in drawn["data"]["ours"]] == [160]


@pytest.mark.parametrize(
    ("name", "column", "form", "counted"),
    [
        ("methods", "test", ".1%", "Answers"),
        ("methods", "tokens", ",.0f", "Runs"),
        ("representations", "delta", ",.3f", "Prompts"),
    ],
)
def test_a_chart_tells_tokens_and_cosines_as_what_they_are(name: str, column: str, form: str, counted: str) -> None:
    ours = Ours(shipped_recordings()[f"paper-{name}-embedded"].figures_of("embedded"))
    drawn = paper_chart(beside(load_paper().tables[name], ours), column, "embedded")
    assert drawn is not None
    (points,) = [layer for layer in drawn["spec"]["layer"] if layer["name"] == "our_points"]
    tips = {tip["field"]: tip for tip in points["encoding"]["tooltip"]}
    assert {tips[field]["format"] for field in ("value", "low", "high")} == {form}
    assert tips["n"]["title"] == counted


def test_representations_stand_at_their_checkpoint() -> None:
    table = load_paper().tables["representations"]

    def of(kind: str, depth: int, split: str, value: float) -> StudyFigure:
        seeds = {0: {"value": value}}
        return StudyFigure({}, depth, kind, "all", split, "", value, value - 0.01, value + 0.01, value, 900, 60, seeds)

    ours = Ours([
        of("base", 2, "delta_cosine natural", 0.31), of("base", 20, "delta_cosine natural", 0.31),
        of("memorised", 20, "delta_cosine natural", 0.40), of("generalised", 20, "delta_cosine natural", 0.50),
        of("generalised", 2, "delta_cosine natural", 0.45), of("generalised", 20, "key_cosine test", 0.8),
        of("memorised", 20, "delta_cosine key", 0.99),
    ])  # fmt: skip
    found = beside(table, ours)
    values = {line.x: [cell.ours and cell.ours.value for cell in line.cells.values()] for line in found.lines}
    assert values == {
        "Base model": [0.31, None, None, None], "Stage 1, epoch 2": [None] * 4,
        "Stage 1, epoch 20": [0.40, None, None, None], "After stage 2": [0.50, None, 0.8, None],
    }  # fmt: skip
    assert [(line.x, line.cells["delta"].ours.value) for line in found.further] == [("generalised@2", 0.45)]
    assert [one.verdict for one in found.judged] == [Verdict.AGREES, Verdict.AGREES, Verdict.MISSING, Verdict.MISSING]


def test_published_values_are_told_as_the_paper_gives_them() -> None:
    assert [published_words(Published(value=v), 3) for v in (0.5, 0.87, 0.058)] == ["0.50", "0.87", "0.058"]
    assert published_words(Published(value=0.9, about=True), 2) == "about 0.9"
    assert published_words(Published(words="below"), 2) == "below"


def test_the_papers_numbers_are_those_that_were_published() -> None:
    tables = load_paper().tables
    rows = [{n: v.value for n, v in row.published.items() if v.value is not None} for row in DEPTH.rows.values()]
    assert rows == [
        {"key": 0.48, "train": 0.38, "test": 0.35}, {"key": 1.0, "train": 0.94, "test": 0.89},
        {"key": 1.0, "train": 0.94, "test": 0.98}, {"key": 1.0, "train": 1.0, "test": 0.98},
        {"key": 1.0, "train": 1.0, "test": 0.75}, {"key": 1.0, "train": 1.0, "test": 0.76},
    ]  # fmt: skip
    assert [row.published["delta"].value for row in tables["representations"].rows.values()] == [
        0.058, 0.116, 0.191, 0.258
    ]  # fmt: skip
    at = {(row.epoch, row.after_stage2): (row.delta, row.train, row.test) for row in published_checkpoints()}
    assert at[2, False] == (0.116, None, None) and at[20, True] == (0.258, 0.90, 0.71), "Results shows the same"
    assert tables["reasoning"].rows["epoch20"].published["hops"].value == 0.36
    assert not any(v.value for row in tables["languages"].rows.values() for v in row.published.values())
    with pytest.raises(ValueError, match="no row nowhere"):
        Table(title="t", about="", model="m", columns=DEPTH.columns, rows=DEPTH.rows,
              claims=(Claim(rule="ceiling", words="w", column="test", at="nowhere"),))  # fmt: skip


def test_the_shipped_recording_is_of_the_shipped_weights_and_says_how_it_was_made() -> None:
    recording = shipped_recordings()["paper-main-embedded"]
    (model,) = recording.models
    assert (recording.name, model.name, model.here(), recording.runs) == ("paper-main", "embedded", "same", 18)
    assert recording.command == "python -m engine study paper-main"
    assert recording.study["axes"] == STUDIES.load("paper-main").model_dump(mode="json")["axes"]
    figures = recording.figures_of("embedded")
    assert len(figures) == 1680 and {len(f.seeds) for f in figures} == {3}
    assert not [own for f in figures for own in f.seeds.values() if "run" in own]
    assert EMBEDDED.stat().st_size < 200_000


def altered(folder: Path, **changes: Any) -> Path:
    document = json.loads(lzma.decompress(EMBEDDED.read_bytes())) | changes
    path = folder / "changed.json.xz"
    path.write_bytes(lzma.compress(json.dumps(document).encode(), preset=0))
    return path


def test_a_recording_of_other_weights_says_so_and_a_damaged_one_is_left_out(tmp_path: Path) -> None:
    (model,) = read_recording(EMBEDDED).models
    other = read_recording(altered(tmp_path, models=[model.model_dump(mode="json") | {"base": "0" * 12}]))
    assert other.models[0].here() == "other"
    gone = model.model_dump(mode="json")
    gone["experiment"]["model"] = "/no/such/folder"
    assert read_recording(altered(tmp_path, models=[gone])).models[0].here() == "absent"
    broken: list[dict[str, Any]] = [{"version": 9}, {"figures": [{"at": {}}]}, {"models": []}, {"more": 1}]
    for changes in broken:
        with pytest.raises(DAMAGE):
            read_recording(altered(tmp_path, **changes))
    (tmp_path / "changed.json.xz").write_bytes(EMBEDDED.read_bytes()[:900])
    shutil.copy(EMBEDDED, tmp_path)
    assert list(shipped_recordings(tmp_path)) == ["paper-main-embedded"]


def test_the_page_prefers_what_this_lab_has_measured_whole(tmp_path: Path) -> None:
    lab = Lab(tmp_path)
    parts = parts_of(lab, View())
    assert "recorded</span> on" in parts["depth_head"] and "Japanese comes before German" in parts["languages_head"]
    assert "gemma-3-270m" in parts["depth_head"], "a real model's figures come first, with what is not the paper's way"
    assert (
        "in 10 prompts. Trained otherwise than in the paper: stage 1 (50\u00a0% of each batch)" in parts["depth_head"]
    )
    embedded = parts_of(lab, View(sources="depth=paper-main-embedded"))["depth_head"]
    assert "each of its facts in 1 prompt." in embedded and "Trained otherwise" not in embedded
    assert "each of its facts" not in parts["methods_head"], "there the methods differ in it"
    methods = load_paper().tables["methods"]
    empty = beside(methods, Ours())
    assert "Not measured here yet" in head("methods", methods, empty, [], None, "test")
    assert "half of SFT" in parts["methods_table"]
    assert parts["depth_chart"]["data"]["ours"] and not paper_chart(empty, "test", "")["data"]["ours"]  # type: ignore[index]
    assert parts["attack_chart"] is None and "/attack" in parts["attack_head"]

    view, said = act_on(lab, View(), {"act": "start", "value": "paper-main"})
    act_on(lab, View(), {"act": "start", "value": "paper-main"})
    (stored,) = list_studies(lab.db, name="paper-main")
    assert view == View() and stored.id in said
    with pytest.raises(ValueError, match="no such study"):
        act_on(lab, View(), {"act": "start", "value": "<b>"})
    study_seeding.finish(lab.db, stored.id, 5)
    parts = parts_of(lab, View())
    assert "recorded</span> on" in parts["depth_head"] and "5 of 18 runs done" in parts["depth_head"]
    study_seeding.finish(lab.db, stored.id, 18)
    assert Sources(lab).chosen(DEPTH, "").study == stored.id  # type: ignore[union-attr]
    recorded, _ = act_on(lab, View(), {"act": "sources", "name": "depth", "value": "paper-main-embedded"})
    assert "recorded</span> on" in parts_of(lab, recorded)["depth_head"]
    assert stored.id in parts_of(lab, recorded)["languages_head"]
    here, table = Sources(lab).of(DEPTH), DEPTH
    for how, words in (("other", "recorded on other weights"), ("absent", "not on this machine")):
        measured = replace(next(m for m in here if m.id == "paper-main-embedded"), here=how)  # type: ignore[arg-type]
        assert words in head("depth", table, beside(table, Ours()), here, measured, "test")
        assert words not in embedded
    hostile = View(sources="depth=<script>;x;=;languages", columns="depth=__proto__").cleaned()
    assert "<script>" not in "".join(p for p in parts_of(lab, hostile).values() if isinstance(p, str))


def test_a_study_of_one_seed_or_of_other_settings_takes_nobodys_place(tmp_path: Path) -> None:
    lab = Lab(tmp_path)
    shipped = STUDIES.load("paper-main").model_dump()
    one = shipped | {"axes": shipped["axes"] | {"seed": [0]}}
    few = queue_study(lab.db, Study.from_data(one))
    again, _ = queue_once(lab.db, Study.from_data(one)), act_on(lab, View(), {"act": "start", "value": "paper-main"})
    assert again == few, "two clicks"
    assert len(list_studies(lab.db, name="paper-main")) == 2, "another study has its name"
    study_seeding.finish(lab.db, few, 6)
    chosen = Sources(lab).chosen(DEPTH, "")
    assert chosen is not None and not chosen.study and chosen.seeds >= 3
    assert Sources(lab).chosen(DEPTH, few).label.endswith(f"({few}), 1 seed")  # type: ignore[union-attr]


def test_a_study_that_lost_runs_takes_nobodys_place(tmp_path: Path) -> None:
    lab = Lab(tmp_path)
    stored = study_seeding.paper(lab.db)
    assert Sources(lab).chosen(DEPTH, "").study == stored  # type: ignore[union-attr]
    for run in list_study_runs(lab.db, stored)[:-6]:
        lab.db.execute("delete from runs where id = ?", [run.run])
    lab.db.conn.commit()
    study_seeding.finish(lab.db, stored, 6)
    chosen = Sources(lab).chosen(DEPTH, "")
    assert chosen is not None and not chosen.study


def test_what_is_shown_is_what_the_button_measures_again(tmp_path: Path) -> None:
    lab = Lab(tmp_path)
    button = re.compile(r'data-act="start" data-value="([^"]+)" data-confirm="[^"]*, (\d+) runs')
    for address, study, runs in (("", "real-main", "6"), ("depth=paper-main-embedded", "paper-main", "18")):
        assert button.findall(parts_of(lab, View(sources=address))["depth_table"]) == [(study, runs)]


def test_the_newest_study_comes_first_whichever_of_a_tables_it_is(tmp_path: Path) -> None:
    lab = Lab(tmp_path)
    studies = [study_seeding.paper(lab.db, name=name) for name in ("real-main", "paper-main", "real-main")]
    for place, study in enumerate(studies):
        lab.db.table("studies").update(study, {"created_at": f"2026-03-0{place + 1}T10:00:00.000Z"})
    found = Sources(lab)
    assert [measured.study for measured in found.of(DEPTH) if measured.study] == studies[::-1]
    assert found.chosen(DEPTH, "").study == studies[-1]  # type: ignore[union-attr]


def test_a_table_as_csv_says_whose_each_figure_is(tmp_path: Path) -> None:
    site, lab = FastAPI(), Lab(tmp_path)
    add_paper_export_routes(site, lab)
    client = TestClient(site)
    depth = "/export/paper/depth/figures.csv"
    usual = csv.DictReader(io.StringIO(client.get(f"{depth}?source=x").text))
    assert {r["model"] for r in usual if r["value"]} == {"gemma-3-270m"}
    rows = list(csv.DictReader(io.StringIO(client.get(f"{depth}?source=paper-main-embedded").text)))
    first = next(
        r for r in rows if (r["x"], r["series"], r["column"]) == ("3", "k = 50, stage 2 epochs: 1", "Test prompts")
    )
    assert (first["published"], first["published_model"], first["published_in"]) == (
        "0.35", "Qwen2.5-1.5B", "arXiv 2507.21914"
    )  # fmt: skip
    assert (first["n"], first["n_facts"], first["model"]) == ("1500", "150", "embedded")
    assert first["command"].endswith("study paper-main") and json.loads(first["seeds"]).keys() == {"0", "1", "2"}
    assert [r for r in rows if r["series"].startswith("k = 10") and not r["published_model"]]
    address = "/export/paper/methods/figures.csv"
    real = list(csv.DictReader(io.StringIO(client.get(address).text)))
    tokens = [r for r in real if (r["x"], r["series"]) == ("10 prompts", "Standard SFT")]
    assert {r["model"] for r in real if r["value"]} == {"gemma-3-270m"} and all(r["value"] for r in tokens), "otherwise"
    methods = list(csv.DictReader(io.StringIO(client.get(f"{address}?source=paper-methods-embedded").text)))
    twice = next(r for r in methods if (r["x"], r["series"]) == ("10 prompts", "Standard SFT") and "tok" in r["column"])
    assert (twice["n"], twice["n_counts"], first["n_counts"]) == ("3", "runs", "answers")
    assert float(twice["value"]) > 300, "where a study has that, it is the one with twice the tokens"
    assert {r["model"] for r in methods if r["value"]} == {"embedded"} and "about" not in methods[1]["published"]
    assert {r["model"] for r in methods if not r["value"]} <= {""}, "nobody's where nothing was measured"
    for missing in ("attack", "nosuch", "%3Cb%3E"):
        assert client.get(f"/export/paper/{missing}/figures.csv").status_code == 404


def test_a_study_that_is_not_done_cannot_be_recorded(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    db = open_database(tmp_path)
    study = study_seeding.paper(db, done=5)
    with pytest.raises(ValueError, match=r"13 runs of .* are not done"):
        record(db, tmp_path, study, tmp_path / "out.json.xz")
    assert main(["study", study, "--home", str(tmp_path), "--record", str(tmp_path / "out.xz")]) == 2
    assert "does not end with .json.xz" in capsys.readouterr().err
    (stored,) = list_studies(db)
    assert command_of(stored) == "python -m engine study paper-main"
    plan = stored.plan | {"axes": stored.plan["axes"] | {"seed": ["0", "1"]}}
    wider = type(stored)(stored.id, stored.name, plan, stored.created_at)
    assert command_of(wider) == "python -m engine study paper-main --axis 'seed=[0, 1]'"
    odd = {"seed": [0, 1, 2], "relations.0.key_template": ["{subject} [X] {object}.", None, "no, thanks"]}
    said = command_of(type(stored)(stored.id, stored.name, stored.plan | {"axes": stored.plan["axes"] | odd}, ""))
    again: dict[str, Any] = {"axes": {}}
    for _, assignment in itertools.pairwise(shlex.split(said)[4:]):
        if assignment != "--axis":
            set_axis(again, assignment)
    assert again["axes"] == {"relations.0.key_template": odd["relations.0.key_template"]}
    on = stored.plan | {"axes": stored.plan["axes"] | {"model": ["gemma-3-270m"]}}
    assert command_of(type(stored)(stored.id, stored.name, on, "")).endswith("--model gemma-3-270m")
    own = type(stored)(stored.id, "mine", stored.plan, stored.created_at)
    assert command_of(own) == "python -m engine study FILE.yaml"
    db.close()
