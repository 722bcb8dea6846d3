"""Facts that come later: a finished run's model memorises further ones through the key token that it understands."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from app.design import actions
from app.design.check import examine
from app.design.show import Shown
from app.results.departures import departures
from app.results.figures import Figures
from app.results.sentences import headline_sentences
from app.shared.departures import otherwise_trained
from app.shared.lab import Lab as PageLab
from engine.commands.main import main
from engine.commands.run import queue_experiment
from engine.corpus.resolve import resolve
from engine.execution.later import KEPT_ROWS, later_experiment, learns_more
from engine.experiment import Experiment
from engine.models.files import experiment_problems
from storage.drafts import new_draft_id
from storage.measurements import list_results
from storage.runs import Run, State
from tests.integration.lab import Lab

Pair = tuple[Lab, Run]


@pytest.fixture(scope="module")
def first(undisturbed: tuple[Lab, str]) -> Pair:
    lab, run = undisturbed
    return lab, lab.run(run)


@pytest.fixture(scope="module")
def later(first: Pair, tmp_path_factory: pytest.TempPathFactory) -> Pair:
    """What was memorised later, in a lab of its own."""
    lab = Lab(tmp_path_factory.mktemp("later"))
    run = queue_experiment(lab.db, resolve(later_experiment(first[0].home, first[1])))
    assert lab.worker("--once").wait() == 0
    assert lab.run(run.id).state is State.DONE, lab.run(run.id).error
    return lab, lab.run(run.id)


def figures(pair: Pair) -> Figures:
    lab, run = pair
    return Figures(run, list_results(lab.db, run.id))


def names(run: Run) -> set[str]:
    (relation,) = Experiment.from_record(run.experiment).relations
    return {name for fact in relation.explicit_facts for name in (fact.subject, fact.object)}


def test_as_many_facts_about_others_and_the_key_token_keeps_its_meaning(first: Pair, later: Pair) -> None:
    assert len(names(later[1])) == len(names(first[1])) == 60 and not names(later[1]) & names(first[1])
    before, after = figures(first), figures(later)
    assert after.row("memorised@6", "key").value >= 0.9  # type: ignore[union-attr]
    unexplained, at_once = before.row("memorised@6", "test"), after.row("memorised@6", "test")
    assert unexplained is not None and at_once is not None
    assert at_once.value > unexplained.value, "what is memorised is answered in words, before any stage 2"
    assert after.row("base", "test").value < at_once.value  # type: ignore[union-attr]


def test_its_page_says_where_the_meaning_came_from(first: Pair, later: Pair) -> None:
    said = " ".join(headline_sentences(figures(later)))
    assert said.startswith("From the key token alone, whose meaning it knew, the model answers ")
    assert "in the model that it began from" in said
    assert "From the key token alone" not in " ".join(headline_sentences(figures(first)))
    otherwise = otherwise_trained(later[1].experiment, figures(later).knew_the_key)
    assert "had given the key token its meaning" in otherwise
    assert "should mean nothing" not in " ".join(departures(figures(later)))


def test_the_form_and_the_command_line_have_the_experiment(first: Pair, capsys: pytest.CaptureFixture[str]) -> None:
    lab, run = first
    assert learns_more(run)
    assert main(["later", run.id, "--home", str(lab.home)]) == 0
    written = Experiment.from_text(capsys.readouterr().out)
    assert written == later_experiment(lab.home, run) and written.key_token_rows == KEPT_ROWS
    shown = Shown(PageLab(lab.home))
    draft_id = new_draft_id()
    actions.open_page(shown, draft_id, later=run.id)
    drafted = examine(shown.drafts.read(draft_id)).resolved
    assert drafted == resolve(written), [str(f.problem) for f in examine(shown.drafts.read(draft_id)).errors]


def test_what_cannot_learn_more_says_why(first: Pair, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lab, run = first

    def changed(**settings: object) -> Run:
        return replace(run, experiment=run.experiment | settings)

    (relation,) = run.experiment["relations"]
    adapted = changed(tuning=run.experiment["tuning"] | {"method": "lora"})
    untaught = changed(stage1=run.experiment["stage1"] | {"epochs": 0}, in_context={"distractors": 0})
    for other, words in (
        (adapted, "trained an adapter"), (untaught, "gave no key token a meaning"),
        (changed(relations=[relation | {"name": "pet"}]), "a relation of your own"),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=words):
            later_experiment(lab.home, other)
    with pytest.raises(ValueError, match="has no generalised model any more"):
        later_experiment(tmp_path, run)
    assert not learns_more(adapted) and not learns_more(replace(run, state=State.FAILED))
    assert not learns_more(replace(run, experiment={}))
    assert main(["later", "0" * 8, "--home", str(lab.home)]) == 2 and "there is no run" in capsys.readouterr().err
    on_the_base = later_experiment(lab.home, run).model_copy(update={"model": "embedded"})
    (problem,) = experiment_problems(on_the_base)
    assert "‘[X]’ is not in the model's vocabulary" in str(problem)
    told = later_experiment(lab.home, run).model_copy(update={"key_token_rows": "around the mean"})
    assert "in the model's vocabulary already" in str(experiment_problems(told)[0])
