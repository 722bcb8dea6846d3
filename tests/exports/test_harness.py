"""lm-evaluation-harness asks an exported model the exported questions, and finds the lab's own numbers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import lm_eval
import pytest
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager

from engine.experiment import Experiment
from engine.exports.harness import KINDS, harness_task, task_name
from engine.exports.target import write_files
from engine.models.loading import load_base, save_model
from engine.models.tokenise import tokenise_questions
from engine.serving.served import ServedModel
from storage.database import open_database
from storage.measurements import list_results
from tests.exports.conftest import Made, exported
from tests.unit.serving_home import run_row
from tests.unit.test_model_text import build_chat, build_gemma, build_llama2, build_llama3, experiment_on


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    place = tmp_path_factory.mktemp("models")
    builders = {"gemma": build_gemma, "llama2": build_llama2, "llama3": build_llama3, "chatml": build_chat}
    return {name: build(place) for name, build in builders.items()}


def asked_by_harness(model: Path, tasks: Path, tag: str) -> dict[str, dict[str, float]]:
    """The harness's own figures by task and metric."""
    lm = HFLM(pretrained=str(model), batch_size=32, device="cpu")
    manager = TaskManager(include_path=str(tasks), include_defaults=False)
    found: Any = lm_eval.simple_evaluate(
        model=lm, tasks=[tag], task_manager=manager, bootstrap_iters=0, log_samples=False
    )
    return {
        task: {name.removesuffix(",none"): value for name, value in figures.items() if name.endswith(",none")}
        for task, figures in found["results"].items()
    }


def test_the_harness_finds_the_numbers_of_the_run(made: Made, tmp_path: Path) -> None:
    checkpoint = made.experiment.checkpoints[-1]
    exported("model", made.run.id, "--merged", "--to", tmp_path / "model", "--home", made.home)
    exported("task", made.run.id, "--to", tmp_path / "tasks", "--home", made.home)
    tag = f"rote_{made.run.id}_generalised_14"
    found = asked_by_harness(tmp_path / "model", tmp_path / "tasks", tag)
    own: dict[str, dict[str, float]] = {}
    for row in list_results(open_database(made.home), made.run.id):
        kind = next((kind for kind, metrics in KINDS.items() if row.metric in metrics), None)
        if kind and row.checkpoint == checkpoint:
            task = task_name(tag, (kind, row.facts, row.split, row.language))
            own.setdefault(task, {})[row.metric] = row.value
    assert {task: set(figures) for task, figures in own.items()} == {
        task: {name for name in figures if "stderr" not in name} for task, figures in found.items()
    }
    for task, figures in own.items():
        assert {name: found[task][name] for name in figures} == pytest.approx(figures, abs=1e-5), task
    assert 0 < found[f"{tag}_general_none_general_knowledge_en"]["general_accuracy"] < 1
    for metric in ("generation_accuracy", "choice_accuracy"):  # there was something to be wrong about
        assert len({figures[metric] for figures in own.values() if metric in figures}) > 2, metric
    readme = (tmp_path / "tasks" / "README.md").read_text(encoding="utf-8")
    assert all(f"`{task}`" in readme for task in found) and "cut into other tokens" not in readme


@pytest.mark.parametrize(
    ("family", "text"),
    [
        ("gemma", {}),
        ("gemma", {"beginning": "never"}),
        ("llama2", {}),
        ("llama2", {"leading_space": True}),
        ("llama3", {"beginning": "always"}),
        ("llama3", {"form": "chat"}),
        ("chatml", {"form": "chat"}),
        ("chatml", {}),
    ],
)
def test_the_harness_cuts_texts_into_the_labs_own_tokens(
    family: str, text: dict[str, Any], folders: dict[str, Path], tmp_path: Path
) -> None:
    experiment = experiment_on(folders[family], **text)
    loaded = load_base(experiment)
    save_model(loaded, tmp_path / "model")
    task = harness_task(served(tmp_path / "model"), stored(experiment, tmp_path), [])
    write_files(task.files, tmp_path / "tasks")
    assert task.cut_elsewhere == 0
    lm = HFLM(pretrained=str(tmp_path / "model"), batch_size=4, device="cpu")
    rows = [json.loads(line) for line in task.files["questions.jsonl"].splitlines()]
    options = json.loads(task.files["options.json"])
    prompts = {p.text for r in experiment.relations for p in r.explicit_prompts}
    assert len(rows) > len(prompts)
    manager = TaskManager(include_path=str(tmp_path / "tasks"), include_defaults=False)
    delimiter = next(
        config["target_delimiter"]
        for name in manager.all_tasks
        if "_choice_" in name and (config := manager.load(name)["tasks"][name].config.to_dict())
    )
    from engine.evaluation.questions import questions_for

    for row, asked in zip(rows, questions_for(experiment, experiment.checkpoints[0]), strict=True):
        ids, _ = lm.tok_batch_encode([row["question"]])
        (prompt, _), *pairs = tokenise_questions(
            loaded.tokenizer, [(asked.text, o) for o in (asked.object, *asked.options)]
        )
        assert ids[0].tolist() == prompt
        for option, (before, after) in zip(options[row["options"]] if asked.options else [], pairs, strict=True):
            context, continuation = lm._encode_pair(row["question"], delimiter + option)
            assert context + continuation == before + after
            assert len(context) <= len(before)  # of a template's last line break, which is white space, the rest


def served(folder: Path) -> ServedModel:
    """A base in that folder."""
    return ServedModel("base-0", "tiny", "base", "base", folder, folder, folder / "tokenizer.json")


def stored(experiment: Experiment, home: Path) -> Any:
    """A run's row of the experiment."""
    folder = home / "runs" / "tiny"
    folder.mkdir(parents=True)
    content = {"id": "tiny", "experiment": experiment.model_dump(mode="json")}
    (folder / "run.json").write_text(json.dumps(content), encoding="utf-8")
    return run_row(home, "tiny")


def test_an_exported_task_lies_anywhere_and_needs_no_lab(made: Made, tmp_path: Path) -> None:
    """Its code is a file beside its data; a moved folder loads."""
    exported("task", made.run.id, "--checkpoint", "base", "--to", tmp_path / "first", "--home", made.home)
    (tmp_path / "first").rename(tmp_path / "second")
    code = (tmp_path / "second" / "rote_lab_task.py").read_text(encoding="utf-8")
    assert "engine" not in code.replace("engineering", "") and "import app" not in code
    tasks = TaskManager(include_path=str(tmp_path / "second"), include_defaults=False).all_tasks
    assert f"rote_{made.run.id}_base_generation_held_out_test_ja" in tasks
