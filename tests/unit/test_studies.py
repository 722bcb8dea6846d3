"""A study's plan: which runs it makes, what they share, and how it is made wider."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from engine.commands.main import main
from engine.execution.studies.queue import queue_once, queue_study, widen_study
from engine.experiment import Experiment
from engine.studies.alike import as_meant, beginning, knowing, memorising
from engine.studies.plan import planned_runs
from engine.studies.presets import STUDIES
from engine.studies.study import DEPTH, Study
from storage import runs, studies
from storage.database import open_database
from storage.runs import State

BASE = {
    "relations": [{"name": "mother", "key_token": "[X]", "facts": {"generate": 20}}],
    "stage1": {"epochs": 4},
    "stage2": {"facts": 5},
    "evaluation": {"languages": ["en"]},
}
AXES: dict[str, Any] = {"stage2.facts": [2, 5], DEPTH: [2, 4], "seed": [0, 1], "stage2.epochs": [1, 2]}


@pytest.fixture
def db(tmp_path: Path):
    database = open_database(tmp_path)
    yield database
    database.close()


def study(**axes: Any) -> Study:
    return Study.from_data({"name": "small", "experiment": BASE, "axes": axes or AXES})


def test_every_combination_is_a_run_but_depths_are_looked_at_in_one() -> None:
    planned = planned_runs(study())
    assert len(planned) == 8
    assert {run.experiment.branch_epochs for run in planned} == {(2, 4)}
    assert [run.at["seed"] for run in planned] == [0] * 4 + [1] * 4, "a seed's table is whole before the next begins"
    assert [run.at for run in planned[:4]] == [
        {"seed": 0, "stage2.facts": k, "stage2.epochs": e} for k in (2, 5) for e in (1, 2)
    ]
    assert len({run.memorises for run in planned}) == 2, "one stage 1 a seed"
    assert all(run.experiment.is_resolved for run in planned)
    assert len({run.experiment.name for run in planned}) == 8


def test_combinations_are_left_out_by_values_of_some_axes() -> None:
    left_out = [{"stage2.facts": 5, "stage2.epochs": 2}, {"seed": 1, "method": "wide"}]
    grid = {"experiment": BASE, "axes": AXES, "methods": {"narrow": {}, "wide": {"stage2.prompts": 2}}}
    fewer = Study.from_data({**grid, "leave_out": left_out})
    planned = planned_runs(fewer)
    assert len(planned) == fewer.most_runs == 9 and Study.from_data(grid).most_runs == 16
    assert not [run for run in planned if run.at["stage2.facts"] == 5 and run.at["stage2.epochs"] == 2]
    assert {run.at["method"] for run in planned if run.at["seed"] == 1} == {"narrow"}
    for combination, words in (
        ({"stage2.prompts": 1}, "‘stage2.prompts’ is no axis of runs"), ({DEPTH: 2}, "is no axis of runs"),
        ({"stage2.facts": 7}, "stage2.facts is never 7: it is 2, 5"),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=words):
            Study.from_data({**grid, "leave_out": [combination]})
    written = Study.from_text(fewer.to_yaml())
    assert planned_runs(written)[-1].at == planned[-1].at and len(planned_runs(written)) == 9


def test_values_are_read_as_the_fields_are() -> None:
    text = "experiment: quick\naxes:\n  stage1.learning_rate: [1e-3, 0.002]\n  tuning.method: [full, lora]\n"
    planned = planned_runs(Study.from_text(text))
    assert [run.at for run in planned] == [
        {"stage1.learning_rate": rate, "tuning.method": method} for rate in (1e-3, 2e-3) for method in ("full", "lora")
    ]


def test_epochs_as_an_axis_are_trainings_of_their_own() -> None:
    planned = planned_runs(study(**{"stage1.epochs": [2, 3]}))
    assert [run.experiment.branch_epochs for run in planned] == [(2,), (3,)]
    assert len({run.memorises for run in planned}) == 2, "another number of epochs is another schedule"


def test_stage_1_goes_as_deep_as_it_is_looked_at() -> None:
    (deeper,) = planned_runs(study(**{DEPTH: [2, 9]}))
    assert (deeper.experiment.stage1.epochs, deeper.experiment.branch_epochs) == (9, (2, 9))
    (whole,) = planned_runs(study(**{DEPTH: [2]}))
    assert whole.experiment.stage1.epochs == 4, "and no less deep than it says"
    with pytest.raises(ValueError, match="lie beyond the last epoch, 4"):
        planned_runs(study(**{DEPTH: [2, 9], "stage1.epochs": [4]}))


def test_the_same_run_is_made_once() -> None:
    axes = {"relations.0.key_template": ["{subject} {key} {object}.", " {subject} {key}  {object}. "]}
    assert len(planned_runs(study(**axes))) == 1, "single spaces are all that is read"


def test_a_model_may_have_an_experiment_of_its_own() -> None:
    other = BASE | {"stage2": {"facts": 3}}
    described = {
        "experiment": BASE,
        "experiments": {"gemma-3-270m": other},
        "axes": {"model": ["embedded", "gemma-3-270m"]},
    }
    first, second = planned_runs(Study.from_data(described | {"experiment": BASE | {"stage2": {"facts": 6}}}))
    assert (first.experiment.stage2.facts, second.experiment.stage2.facts) == (6, 3)
    assert (first.experiment.model, second.experiment.model) == ("embedded", "gemma-3-270m")


METHODS: dict[str, Any] = {
    "rote": {},
    "taught": {"stage1.epochs": 0, "stage2.facts": 20, "stage2.prompts": 10},
    "in context": {"stage1.epochs": 0, "in_context.distractors": 3},
}


def test_methods_are_an_axis_and_what_one_sets_stays() -> None:
    axes = {"seed": [0], DEPTH: [2, 4], "stage2.facts": [2, 5]}
    planned = planned_runs(Study.from_data({"experiment": BASE, "axes": axes, "methods": METHODS}))
    at = [(run.at["method"], run.at["stage2.facts"], run.experiment.checkpoints) for run in planned]
    deep = ("base", "memorised@2", "memorised@4", "generalised@2", "generalised@4")
    assert sorted(at) == sorted([
        ("rote", 2, deep), ("rote", 5, deep), ("taught", 20, ("base", "generalised@0")),
        ("in context", 2, ("base", "context@0")), ("in context", 5, ("base", "context@0")),
    ])  # fmt: skip
    assert len({run.begins for run in planned}) == 1, "they begin with the same base"


def test_what_a_method_changes_of_an_axis_stays_with_its_own_runs() -> None:
    axes = {"seed": [1, 2], "stage1.replay": [{"share": 0.5}]}
    methods = {"half": {}, "little": {"stage1.replay.share": 0.2}}
    planned = planned_runs(Study.from_data({"experiment": BASE, "axes": axes, "methods": methods}))
    replays = {(run.at["seed"], run.at["method"]): run.experiment.stage1.replay for run in planned}
    shares = {at: replay.share for at, replay in replays.items() if replay}
    assert shares == {(1, "half"): 0.5, (1, "little"): 0.2, (2, "half"): 0.5, (2, "little"): 0.2}


@pytest.mark.parametrize(
    ("described", "words"),
    [
        ({}, "name at least one field"),
        ({"axes": {"method": ["a"]}, "methods": METHODS}, "describe them under methods"),
        ({"methods": {"a": {"evaluation.facts": 5}}}, "cannot be one"),
        ({"methods": {"a": {"in_context.distractors": 1}}}, "method=a: .*set stage1.epochs to 0"),
    ],
)
def test_mistakes_in_methods_are_said_in_words(described: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        planned_runs(Study.from_data({"experiment": BASE, **described}))


@pytest.mark.parametrize(
    ("axes", "words"),
    [
        ({"stage2.fact": [1]}, "with stage2.fact=1: .*check the spelling"),
        ({"stage2.facts": [5, 20]}, "with stage2.facts=20: .*at most 19"),
        ({DEPTH: ["deep"]}, "stage1.checkpoint_epochs.0: must be a whole number, not ‘deep’"),
        ({"evaluation.facts": [5]}, "cannot be one"),
        ({"evaluation": [{"facts": 4}, {"facts": 6}]}, "cannot be one"),
        ({"name": ["a"]}, "cannot be one"),
        ({"seed": [1, 1]}, "has a value twice"),
        ({"seed": []}, "at least one entry"),
        ({"seed": list(range(200)), "stage2.epochs": list(range(1, 41))}, "8,000 runs, more than 5,000"),
        ({"relations.3.key_token": ["[Q]"]}, "there is no ‘3’"),
    ],
)
def test_mistakes_are_said_in_words(axes: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        planned_runs(study(**axes))


def test_no_method_is_lost_that_differs_in_its_depths_alone() -> None:
    def planned(**methods: Any) -> list[Any]:
        return [run.at["method"] for run in planned_runs(Study.from_data({"experiment": BASE, "methods": methods}))]

    with pytest.raises(ValueError, match="method=deep: that is the run with method=shallow, looked at other epochs"):
        planned(shallow={DEPTH: [2]}, deep={DEPTH: [4]})
    assert planned(plain={}, same={"stage2.facts": 5}) == ["plain"], "the same run is run once"
    assert planned(shallow={DEPTH: [2]}, deep={DEPTH: [4], "stage2.facts": 4}) == ["shallow", "deep"]


def test_what_stage_2_does_changes_nothing_of_stage_1() -> None:
    one, other = (planned_runs(study(**{"stage2.facts": [k], "stage2.prompts": [p]}))[0] for k, p in ((2, 1), (5, 4)))
    assert memorising(one.experiment) == memorising(other.experiment)
    for axes in ({"seed": [7]}, {"stage1.learning_rate": [1e-5]}, {"tuning.method": ["lora"]}):
        assert planned_runs(study(**axes))[0].memorises != one.memorises
    rate = planned_runs(study(**{"stage1.learning_rate": [1e-5]}))[0]
    assert beginning(rate.experiment) == beginning(one.experiment), "the base is asked the same"
    assert planned_runs(study(seed=[7]))[0].begins != one.begins, "of other facts it is not"


def test_replayed_text_is_a_part_of_stage_1() -> None:
    replayed = BASE | {"stage1": {"epochs": 4, "replay": {"texts": 20}}}
    plans = [
        planned_runs(Study.from_data({"experiment": replayed | {"stage2": stage2}, "axes": {"seed": [0]}}))[0]
        for stage2 in ({"facts": 2}, {"facts": 3}, {"facts": 2, "replay": {"texts": 30}})
    ]
    assert plans[0].memorises == plans[1].memorises != plans[2].memorises


def test_replayed_text_about_the_facts_that_stage_2_shows_is_shared_with_the_same_facts_alone() -> None:
    def memorised(facts: list[int], **stage2: Any) -> list[str]:
        stage1 = {"epochs": 4, "replay": {"texts": 20, "subjects": "trained"}}
        about = BASE | {"stage1": stage1, "stage2": {"facts": 5} | stage2}
        grid = {"experiment": about, "axes": {"stage2.facts": facts}}
        return [run.memorises for run in planned_runs(Study.from_data(grid))]

    one, five = memorised([1, 5])
    assert one != five, "held-out facts are replayed in neither"
    assert memorised([5], epochs=8) == [five]


def test_what_the_base_knew_is_shared_where_it_is_held_against_the_same_texts() -> None:
    def asking(text: str) -> dict[str, Any]:
        asked = (("{subject} works for", "train"), (text, "test"))
        return {"relations.0.prompts": [{"text": text, "split": split} for text, split in asked]}

    prompts = {"one": "Who guides {subject}?", "other": "Who leads {subject}?", "near": "{subject} lives in"}
    methods = {name: asking(text) for name, text in prompts.items()}
    grid = {"experiment": BASE | {"evaluation": {"base_text": 30}}, "methods": methods}
    one, other, near = planned_runs(Study.from_data(grid))
    assert one.begins == other.begins == near.begins, "all are asked by the same base about the same facts"
    assert knowing(one.experiment) == knowing(other.experiment) != knowing(near.experiment)


def test_runs_wait_for_the_one_that_memorises_for_them(db) -> None:
    study_id = queue_study(db, study())
    stored = studies.list_study_runs(db, study_id)
    firsts = [run for run in stored if run.needs is None]
    assert [run.at["seed"] for run in firsts] == [0, 1]
    assert {run.needs for run in stored if run.needs} == {run.run for run in firsts}
    claimed = [runs.claim_run(db, "w", 30) for _ in range(3)]
    assert [run.id if run else None for run in claimed] == [firsts[0].run, firsts[1].run, None]
    assert claimed[0] is not None and claimed[0].study == study_id
    runs.finish_run(db, firsts[0].run, 1, State.DONE)
    following = runs.claim_run(db, "w", 30)
    assert following is not None and following.needs == firsts[0].run
    assert claimed[0].cell is not None
    memorises = claimed[0].cell["memorises"]
    assert studies.done_like(db, study_id, "memorises", memorises) == [firsts[0].run]
    assert not studies.done_like(db, study_id, "memorises", memorises, ["memorised@3"]), "it has nothing of that depth"
    assert studies.study_counts(db, study_id) == {"done": 1, "running": 2, "queued": 5}
    studies.stop_study(db, study_id)
    assert studies.study_counts(db, study_id) == {"done": 1, "stopping": 2, "cancelled": 5}
    studies.retry_study(db, study_id)
    assert studies.study_counts(db, study_id)["queued"] == 5
    studies.delete_study(db, study_id)
    assert studies.list_studies(db) == [] and runs.count_runs(db) == 8, "its runs stay, as runs of their own"


def test_a_study_is_made_wider_and_runs_only_what_is_new(db) -> None:
    study_id = queue_study(db, study())
    before = {run.run: (run.at, run.needs) for run in studies.list_study_runs(db, study_id)}
    wider = AXES | {"seed": [0, 1, 2], DEPTH: [2, 3, 4]}
    assert widen_study(db, study_id, study(**wider)) == 8 + 4
    stored = studies.list_study_runs(db, study_id)
    assert {run.run: (run.at, run.needs) for run in stored if run.run in before} == before
    added = [run for run in stored if run.run not in before]
    depths = {run.run: Experiment.from_record(runs.get_run(db, run.run).experiment).branch_epochs for run in stored}
    assert {depths[run.run] for run in added if run.at["seed"] < 2} == {(3,)}, "a depth more is looked at alone"
    assert {depths[run.run] for run in added if run.at["seed"] == 2} == {(2, 3, 4)}
    first, *others = [run for run in added if run.at["seed"] == 0]
    assert before[first.needs or ""] == ({"seed": 0, "stage2.facts": 2, "stage2.epochs": 1}, None), "after stage 1"
    assert others and {run.needs for run in others} == {first.run}, "it is made once"
    there = {run.run for run in stored}
    assert widen_study(db, study_id, study(**(wider | {"stage2.facts": [2, 5, 9]}))) == 3 * 2
    last = [run for run in studies.list_study_runs(db, study_id) if run.run not in there and run.at["seed"] == 0]
    assert {run.needs for run in last} == {first.run}, "which two have made between them"
    wider |= {"stage2.facts": [2, 5, 9]}
    stored = studies.list_study_runs(db, study_id)
    assert widen_study(db, study_id, study(**wider)) == 0, "nothing twice"
    with pytest.raises(ValueError, match="runs would no longer be part of it"):
        widen_study(db, study_id, study(**(wider | {"seed": [0, 2]})))
    with pytest.raises(ValueError, match="epoch 2, 3 of stage 1 would no longer be part of it"):
        widen_study(db, study_id, study(**(wider | {DEPTH: [4]})))
    with pytest.raises(ValueError, match="a stage 1 of 9 epochs is another training"):
        widen_study(db, study_id, study(**(wider | {DEPTH: [2, 3, 4, 9]})))
    assert len(studies.list_study_runs(db, study_id)) == len(stored)


def test_what_is_there_takes_its_place_on_an_axis_that_comes_later(db) -> None:
    study_id = queue_study(db, study(**AXES))
    there = {run.run for run in studies.list_study_runs(db, study_id)}
    usual = Experiment.from_record(runs.get_run(db, next(iter(there))).experiment).stage2.batch_size
    assert widen_study(db, study_id, study(**AXES, **{"stage2.batch_size": [usual, usual + 1]})) == len(there)
    stored = studies.list_study_runs(db, study_id)
    assert {run.at["stage2.batch_size"] for run in stored if run.run in there} == {usual}
    assert {run.at["stage2.batch_size"] for run in stored if run.run not in there} == {usual + 1}
    assert len({studies.group_of(run.at, "seed") for run in stored}) == len(stored) // len(AXES["seed"])


def test_runs_of_other_settings_use_the_stage_1_that_is_there(db) -> None:
    study_id = queue_study(db, study(**AXES))
    there = {run.run for run in studies.list_study_runs(db, study_id)}
    usual = Experiment.from_record(runs.get_run(db, next(iter(there))).experiment).stage2.batch_size
    widen_study(db, study_id, study(**AXES, **{"stage2.batch_size": [usual, usual + 1]}))
    added = [run for run in studies.list_study_runs(db, study_id) if run.run not in there]
    assert added and {run.needs for run in added} <= there


def test_records_and_numbers_of_facts_are_values_of_axes() -> None:
    axes = {"relations.0.facts.generate": [60, "80"], "stage1.replay": [None, {"share": "0.5"}], "tuning": [
        {"method": "full"}, {"method": "lora", "rank": 8}]}  # fmt: skip
    planned = planned_runs(Study.from_data({"axes": axes}))
    places = {path: list(dict.fromkeys(run.at[path] for run in planned)) for path in axes}
    assert places == {
        "relations.0.facts.generate": [60, 80],
        "stage1.replay": [None, "{share: 0.5}"],
        "tuning": ["{method: full}", "{method: lora, rank: 8}"],
    }
    assert {len(run.experiment.relations[0].explicit_facts) for run in planned} == {60, 80}


def test_parts_of_an_experiment_are_values_of_methods() -> None:
    methods = {"short": {"stage1": {"epochs": "2"}}, "usual": {"stage1": {}}}
    planned = planned_runs(Study.from_data({"experiment": BASE, "methods": methods}))
    assert planned[0].experiment.stage1.epochs == 2
    deep = planned_runs(Study.from_data({"experiment": BASE, "methods": methods, "axes": {DEPTH: [2, 4]}}))
    assert {run.experiment.stage1.epochs for run in deep if run.at["method"] == "short"} == {4}
    no_records: tuple[object, ...] = (1, [], "x")
    for wrong in no_records:
        with pytest.raises(ValueError, match="with stage1="):
            planned_runs(Study.from_data({"experiment": BASE, "axes": {"stage1": [wrong]}}))


def test_two_people_at_once_want_the_same_study_once(tmp_path: Path) -> None:
    open_database(tmp_path).close()

    def start(_: int) -> str:
        with closing(open_database(tmp_path)) as own:
            return queue_once(own, study())

    with ThreadPoolExecutor(4) as threads:
        found = set(threads.map(start, range(4)))
    with closing(open_database(tmp_path)) as db:
        assert len(found) == 1 and len(studies.list_studies(db)) == 1
        runs.claim_run(db, "w", 30.0)
        studies.stop_study(db, found.copy().pop())
        assert queue_once(db, study()) in found, "one that is stopping is under way"


def test_the_same_study_in_other_words_is_the_same(db) -> None:
    first = queue_once(db, study(**{"stage2.learning_rate": ["1.0e-4", "2e-5"], "seed": ["0", "1"]}))
    assert queue_once(db, study(**{"stage2.learning_rate": [0.0001, 0.00002], "seed": [0, 1]})) == first
    assert queue_once(db, study(**{"stage2.learning_rate": [0.0001, 0.00003], "seed": [0, 1]})) != first
    assert as_meant({"a": ["1e99999999999999999999", 2**53, True, None]}) != as_meant({"a": [1, 2**53 + 1, 1, 0]})
    assert as_meant([2**53]) != as_meant([2**53 + 1]) and as_meant(["10", "1e1", 10.0]) == as_meant([10, 10.0, "10"])


def test_where_stage_1_failed_one_of_those_that_wait_makes_it(db) -> None:
    queue_study(db, study(**(AXES | {"seed": [0]})))
    maker = runs.claim_run(db, "one", 30.0)
    assert maker is not None and runs.claim_run(db, "two", 30.0) is None
    runs.finish_run(db, maker.id, maker.attempt, State.FAILED, error="the disk is full")
    second = runs.claim_run(db, "one", 30.0)
    assert second is not None and runs.claim_run(db, "two", 30.0) is None, "not all of them at once"
    runs.finish_run(db, second.id, second.attempt, State.DONE)
    assert runs.claim_run(db, "two", 30.0) is not None


def test_the_shipped_studies_can_be_planned() -> None:
    assert STUDIES.names()[0] == "paper-main"
    planned = planned_runs(STUDIES.load("paper-main"))
    assert len(planned) == 3 * 3 * 2 and {run.experiment.branch_epochs for run in planned} == {(3, 6, 10, 20)}


def test_each_of_many_runs_has_a_key_of_its_own() -> None:
    planned = planned_runs(study(**{"seed": list(range(10)), "stage2.epochs": list(range(1, 11))}))
    assert len({run.differs for run in planned}) == 100 and len({run.memorises for run in planned}) == 10


def test_the_command_says_what_it_would_run_and_queues_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    home = ["--home", str(tmp_path)]
    assert main(["study", "paper-main", "--axis", "seed=[0, 1]", "--plan", *home]) == 0
    said = capsys.readouterr().out
    assert "12 runs, which memorise 2 times and generalise 48 times; 2 times a base is asked" in said
    few = ["--axis", "seed=[0]", "--axis", f"{DEPTH}=[3]", "--axis", "stage2.facts=10"]
    assert main(["study", "paper-main", *few, "--plan", *home]) == 0
    assert "2 runs, which memorise 1 times and generalise 2 times" in capsys.readouterr().out
    assert main(["study", "paper-main", "--axis", "seed", "--plan", *home]) == 2
    assert "‘seed’ is not of the form path.to.field=[values]" in capsys.readouterr().err
    assert main(["study", "paper-main", "--axis", "seed=[0]", "--queue", *home]) == 0
    study_id = capsys.readouterr().out.strip()
    assert main(["study", study_id, "--axis", "seed=[0, 1]", "--queue", *home]) == 0
    assert "6 runs are new in study" in capsys.readouterr().err
    assert main(["study", "nosuch", *home]) == 2
    assert "neither a preset nor a file" in capsys.readouterr().err
