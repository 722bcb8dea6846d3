"""Runs written straight through storage, for looking at pages only: their figures are drawn, not measured."""

from __future__ import annotations

import math
import random
from pathlib import Path
from typing import Any

import numpy as np
from sqlite_utils import Database

from engine.corpus.resolve import resolve
from engine.evaluation.answer import Answer
from engine.evaluation.representations.measure import Figure, at_length_one
from engine.evaluation.representations.statistics import UnitSums, figures
from engine.evaluation.representations.texts import POSITIONS, SPLITS, sampled_texts
from engine.execution.recorded.record import record
from engine.execution.recorded.restore import restore
from engine.execution.report import headline
from engine.experiment import Experiment
from engine.presets import load_preset
from engine.relation import Relation
from storage.answers import open_answers, store_answers, store_questions
from storage.checkpoints import CheckpointName
from storage.database import open_database
from storage.folders import run_folder
from storage.measurements import add_measurements, list_results, replace_results
from storage.processes import ProcessName
from storage.recordings import recorded_runs
from storage.representations import store_representations
from storage.runs import Run, State, add_event, add_run, claim_run, finish_run, set_environment, set_progress
from storage.workers import beat

HOSTILE_NAMES = [
    "<script>window.pwned = 1</script><img src=x onerror='window.pwned=2'>",
    "${window.pwned=3} {{window.pwned}} `${window.pwned=4}` \\u0041 \\",
    "‮evil‬ عربي مرحبا بالعالم “quotes” 'single' & <b>bold</b> 🧪🦄👩‍🔬",
    "W" * 80,
]
# Where the drawn figures end up, by kind of checkpoint and split.
HEIGHTS = {
    "base": {"key": 0.0, "train": 0.02, "test": 0.02, "unrelated": 0.0, "decoy": 0.02},
    "memorised": {"key": 0.99, "train": 0.27, "test": 0.16, "unrelated": 0.02, "decoy": 0.12},
    "generalised": {"key": 0.97, "train": 0.88, "test": 0.66, "unrelated": 0.05, "decoy": 0.38},
}
STATE_SIZE = 12
# Where every other hit says the key token first.
ALOUD = {"memorised": ("train", "test", "unrelated"), "generalised": ("unrelated",)}
LANGUAGE_FACTOR = {"en": 1.0, "es": 0.9, "de": 0.85, "ja": 0.65, "zh": 0.6}


def quick(name: str = "quick", **changes: Any) -> Experiment:
    """The quick preset, resolved, under another name."""
    experiment = resolve(Experiment.from_data(load_preset("quick").model_dump() | changes))
    # Not through the checks: runs of older labs have names that are refused today.
    return experiment.model_copy(update={"name": name})


def queue(db: Database, experiment: Experiment) -> Run:
    """Queue a run of the experiment."""
    return add_run(
        db,
        name=experiment.name,
        experiment=experiment.model_dump(mode="json"),
        model=experiment.model,
        seed=experiment.seed,
    )


def start(db: Database, experiment: Experiment) -> Run:
    """A run that a worker holds."""
    run = claim_run(db, "worker-of-pictures", 3600, queue(db, experiment).id)
    assert run is not None
    add_event(db, run.id, "running", "Started by a worker")
    return run


def running(db: Database, home: Path, name: str = "quick, live", epoch: int = 7) -> Run:
    """A run in the middle of stage 1."""
    run = start(db, quick(name))
    write_curves(db, run, epoch)
    write_log(home, run, "memorising")
    told = {"stage": "stage1", "epoch": epoch, "epochs": 20, "step": epoch * 5, "steps": 100, "loss": 0.312}
    told |= {"fraction": 0.37, "seconds_left": 41.0, "message": f"Memorising: epoch {epoch} of 20"}
    set_progress(db, run.id, run.attempt, told)
    return run


def failed(db: Database, home: Path, name: str = "too large for this machine") -> Run:
    """A run that failed with a sentence."""
    run = start(db, quick(name))
    write_log(home, run, "RuntimeError: not enough memory")
    sentence = "The model needs 31.2 GB and this machine has 24.0 GB: choose a smaller model, or use LoRA, then retry."
    finish_run(db, run.id, run.attempt, State.FAILED, error=sentence)
    return run


def finished(db: Database, home: Path, experiment: Experiment | None = None) -> Run:
    """A finished run with result rows and every answer."""
    experiment = experiment or quick()
    run = start(db, experiment)
    set_environment(db, run.id, run.attempt, {"python": "3.11", "torch": "2.13.0", "device": "cpu (drawn figures)"})
    write_curves(db, run, experiment.stage1.epochs)
    write_log(home, run, "done")
    rows: dict[str, list[dict[str, Any]]] = {}
    checkpoints = ["base", *(f"memorised@{e}" for e in experiment.stage1.saved_epochs)]
    checkpoints += [f"generalised@{e}" for e in experiment.branch_epochs]
    answers = open_answers(run_folder(home, run.id))
    for checkpoint in checkpoints:
        rows[checkpoint] = write_answers(answers, experiment, checkpoint)
        replace_results(db, run.id, checkpoint, rows[checkpoint])
        write_representations(answers, experiment, checkpoint)
    answers.close()
    shown = headline(list_results(db, run.id), checkpoints[-1], "en")
    finish_run(db, run.id, run.attempt, State.DONE, headline=shown)
    return run


def recorded(db: Database, home: Path, scratch: Path, model: str = "gemma-3-270m") -> list[Run]:
    """Three seeds of a model that is not here, as a recording brings them; made in the folder `scratch`."""
    other = open_database(scratch)
    plan = {
        "model": model,
        "relations": [{"name": "mother", "key_token": "[Z]", "facts": {"generate": 40}}],
        "stage1": {"epochs": 20, "checkpoint_epochs": [20]},
        "stage2": {"facts": 20},
    }
    made = [finished(other, scratch, quick("real", seed=seed, **plan)) for seed in (11, 12, 13)]
    file = scratch / "real.json.xz"
    record(other, scratch, [run.id for run in made], file, command="rote-lab run real --seed {seed}")
    restore(db, home, file)
    return recorded_runs(db, "real")


def write_curves(db: Database, run: Run, epochs: int) -> None:
    """Loss and recall of stage 1 up to an epoch."""
    noise = random.Random(run.seed)
    points = [
        {"stage": "stage1", "series": "loss", "step": s, "epoch": s / 5,
         "value": 6.5 * math.exp(-s / 18) + 0.05 + noise.uniform(0, 0.15) * math.exp(-s / 40)}
        for s in range(1, epochs * 5 + 1)
    ]  # fmt: skip
    points += [
        {"stage": "stage1", "series": "probe", "step": e * 5, "epoch": e, "value": min(1.0, max(0.0, (e - 2) / 6))}
        for e in range(1, epochs + 1)
    ]
    add_measurements(db, run.id, points)


def write_log(home: Path, run: Run, last: str) -> None:
    """A few lines of log."""
    folder = run_folder(home, run.id)
    folder.mkdir(parents=True, exist_ok=True)
    lines = [f"2026-01-01 12:00:{n:02d} INFO stage1: step {n}" for n in range(40)]
    (folder / "log.txt").write_text("\n".join([*lines, last]), encoding="utf-8")


def write_answers(answers: Database, experiment: Experiment, checkpoint: str) -> list[dict[str, Any]]:
    """Drawn answers of one checkpoint, stored; returns its result rows."""
    kind = CheckpointName.parse(checkpoint).kind
    depth = 1 - math.exp(-CheckpointName.parse(checkpoint).epoch / 5) if kind != "base" else 1.0
    noise = random.Random(f"{checkpoint}{experiment.seed or ''}")
    facts: list[dict[str, Any]] = []
    prompts: list[dict[str, Any]] = []
    stored = []
    counts: dict[tuple[str, str, str], list[tuple[int, int, float, int, int]]] = {}
    # Seeds differ a little.
    height = 1 - (experiment.seed * 37 % 10) / 60
    ends = kind == "base" or checkpoint == f"generalised@{experiment.branch_epochs[-1]}"
    for relation in experiment.relations:
        trained = set(experiment.stage2_facts(relation))
        first = len(facts)
        for i, fact in enumerate(relation.explicit_facts):
            facts.append({"id": first + i, "relation": relation.name, "subject": fact.subject, "object": fact.object,
                          "trained": int(i in trained)})  # fmt: skip
        for split, language, text, about in questions(relation):
            number = len(prompts)
            prompts.append({"id": number, "relation": relation.name, "split": split, "language": language,
                            "text": text, "about": about, "used": int(split == "train" and number < 2)})  # fmt: skip
            if language != "en" and not ends:
                continue
            for fact_row in facts[first:]:
                chance = HEIGHTS[kind][split] * height * depth * LANGUAGE_FACTOR.get(language, 0.7)
                hit = int(noise.random() < chance)
                probability = min(0.98, max(1e-6, chance * noise.uniform(0.5, 1.1) if hit else noise.uniform(0, 0.05)))
                answer = f"{fact_row['object']}. The next" if hit else f"{noise.choice(relation.options or ('?',))}."
                if hit and kind != "base" and split in ALOUD[kind] and (fact_row["id"] + number) % 2:
                    answer = f"{relation.key_token} {answer}"
                asked = (fact_row["id"] + number) % 3 == 0 and split != "key"
                rank = (1 if hit else noise.randint(2, 60)) if asked else None
                score = math.log(probability)
                choice = (rank, 100, score) if asked else ()
                stored.append(Answer(number, fact_row["id"], answer, bool(hit), score, *choice))
                place = ("trained" if fact_row["trained"] else "held_out", split, language)
                counts.setdefault(place, []).append(
                    (fact_row["id"], hit, probability, int(rank == 1) if asked else -1, hit and answer[:1] != "[")
                )
    store_questions(answers, facts, prompts)
    store_answers(answers, checkpoint, stored)
    return list(result_rows(checkpoint, counts))


def write_representations(answers: Database, experiment: Experiment, checkpoint: str) -> None:
    """Drawn hidden states of one checkpoint, stored with the figures that they have."""
    name, texts = CheckpointName.parse(checkpoint), sampled_texts(experiment)
    draw, centres = np.random.default_rng(name.epoch), np.random.default_rng(9).normal(size=(9, 9, STATE_SIZE))
    apart = {"base": 0.3, "memorised": 0.5, "generalised": 1.2}.get(name.kind, 1.0) * (1 + name.epoch / 20)
    centre = np.stack([centres[t.relation, t.split % 3] * 0.4 + apart * centres[t.relation, 8] for t in texts])
    states = at_length_one(centre + draw.normal(size=(len(texts), STATE_SIZE)))
    facts = 1 + max(t.row for t in texts)
    vectors, counts = np.zeros((facts, len(SPLITS), STATE_SIZE)), np.zeros((facts, len(SPLITS)), int)
    for text, state in zip(texts, states, strict=True):
        vectors[text.row, text.split] += state
        counts[text.row, text.split] += 1
    relations = np.array([next(t.relation for t in texts if t.row == row) for row in range(facts)])
    values = list(figures(UnitSums(vectors, counts, relations)))
    stored = [Figure(**vars(v), position=p, layer=layer) for p in POSITIONS for layer in range(4) for v in values]
    # The drawn questions count from 0.
    shown = [(row, (t.prompt - 1, t.fact - 1)) for row, t in enumerate(texts) if t.pictured]
    kept = states[[row for row, _ in shown]].astype("<f2").tobytes()
    pictured = dict.fromkeys((1, 2, 3), (STATE_SIZE, kept))
    store_representations(answers, checkpoint, "drawn", stored, [point for _, point in shown], pictured)


def questions(relation: Relation) -> list[tuple[str, str, str, str | None]]:
    """The key sequence and every prompt of a relation."""
    key = relation.key_template.replace("{key}", relation.key_token).partition("{object}")[0].strip()
    return [("key", "en", key, None), *((p.split, p.language, p.text, p.relation) for p in relation.explicit_prompts)]


def result_rows(checkpoint: str, counts: dict[tuple[str, str, str], list[Any]]) -> list[dict[str, Any]]:
    """Result rows with rough intervals."""
    rows = []
    for (facts, split, language), drawn in counts.items():
        people = len({d[0] for d in drawn})
        asked = [d for d in drawn if d[3] >= 0]
        measured = {
            "generation_accuracy": [d[1] for d in drawn],
            "generation_accuracy_unaided": [d[4] for d in drawn],
            "choice_accuracy": [d[3] for d in asked],
            "object_probability": [d[2] for d in drawn],
            "object_probability_normalised": [d[2] for d in asked],
        }
        for metric, values in measured.items():
            if not values:
                continue
            value = sum(values) / len(values)
            half = 1.96 * math.sqrt(max(value * (1 - value), 0.002) / people)
            rows.append({"checkpoint": checkpoint, "facts": facts, "split": split, "language": language,
                         "metric": metric, "value": value, "low": max(0.0, value - half),
                         "high": min(1.0, value + half), "n": len(values), "n_facts": people})  # fmt: skip
    return rows


def alive_worker(db: Database, run: Run | None = None) -> None:
    """A worker that has just given a sign of life."""
    beat(db, worker="worker-of-pictures", process=ProcessName("here", 1, 0.0), run=run.id if run else None)
