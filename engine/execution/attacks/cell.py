"""One cell from start to end: load where it starts, teach the reading, ask everything, keep what is to be kept.

A cell is small: killed in the middle it is done again from its start, and on a CPU gives the same answers. Nothing of
it is visible before all of it is.
"""

from __future__ import annotations

import time
from functools import partial
from pathlib import Path
from typing import Any

from sqlite_utils import Database

from engine.attack.cards import card
from engine.attack.context import Context
from engine.attack.defences import defences
from engine.attack.experiment import NO_DEFENCE, AttackExperiment, Cell
from engine.attack.measure import result_rows
from engine.attack.quantise import quantise
from engine.attack.questions import Questionnaire
from engine.attack.resolve import asked_experiment
from engine.attack.starts import load_hardened, merged
from engine.evaluation.evaluate import answer_questions, check_lengths
from engine.execution.aside import usable_answers
from engine.execution.base_texts import kept_replay
from engine.execution.bringing import bring_model
from engine.execution.environment import describe_environment, kept_training
from engine.execution.failures import PlainError
from engine.execution.progress import Progress
from engine.execution.run_file import write_run_file
from engine.execution.sayable import refuse_unsayable_answers
from engine.experiment import Experiment
from engine.models.folders import replaced
from engine.models.loading import LoadedModel, prepare_for_training, save_model
from engine.settings import Optimisation
from engine.training.loop import StepReport, StopTraining, train
from storage.answers import store_answers, store_questions
from storage.attacks import get_attack, list_cells, replace_cell_results
from storage.folders import attack_folder, checkpoint_folder, run_folder
from storage.runs import Run, State, get_run, set_environment, set_progress

# Shares of the progress bar; training counts by steps, asking by questions.
TRAINED = 0.4


class CellExecution:
    """Carries out a claimed run that is a cell of an attack; as a pipeline's execution does, but on one device."""

    devices = 1
    gpus: tuple[str, ...] = ()

    def __init__(self, db: Database, folder: Path, run: Run) -> None:
        self.db, self.folder, self.run, self.home = db, folder, run, folder.parents[1]
        assert run.attack is not None and run.needs is not None
        self.attack = AttackExperiment.from_record(get_attack(db, run.attack).experiment)
        self.cell = Cell.model_validate(run.cell)
        self.base = Experiment.from_record(run.experiment)
        attacked = run_folder(self.home, run.needs)
        self.context = Context(self.attack, self.base, self.cell, partial(checkpoint_folder, attacked))
        self.progress = Progress(1.0, self._tell)

    def go(self) -> dict[str, Any]:
        """Do the cell; returns what it took in seconds."""
        self.progress.begin()
        self._check_base()
        environment = describe_environment()
        set_environment(self.db, self.run.id, self.run.attempt, environment)
        write_run_file(self.folder, self.run, environment)
        self._say("Loading the model", "loading")
        loaded, harden_seconds = load_hardened(self.context, attack_folder(self.home, self.run.attack or ""))
        asked = asked_experiment(self.attack, self.base)
        refuse_unsayable_answers(asked, loaded, self.attack.max_new_tokens)
        check_lengths(loaded, asked)
        if self.cell.kind == "audit":
            self._say("Auditing the model and its data", "evaluation")
            rows = [row for d in defences().values() if d.audit for row in d.audit(self.context, loaded)]
            replace_cell_results(self.db, self.run.id, rows)
            return {"harden_seconds": harden_seconds, "train_seconds": 0.0}
        started = time.monotonic()
        if self.cell.attack_facts:
            self._train(loaded)
        train_seconds = time.monotonic() - started
        name = f"attacked@{self.cell.attack_facts}"
        form = Questionnaire(self.attack, self.base, self.cell)
        rows = self._measure(loaded, form, name)
        self._keep(loaded, name)
        if not self.cell.attack_facts and self.cell.start != "base":
            quantise(loaded)
            rows += self._measure(loaded, form, f"{name}-4bit")
        replace_cell_results(self.db, self.run.id, rows)
        return {"harden_seconds": round(harden_seconds, 2), "train_seconds": round(train_seconds, 2)}

    def bring_model(self) -> None:
        """Have the base model on this machine, should it be gone since. Raises ModelError, OSError, StopTraining."""
        bring_model(self.base.model, self.progress)

    def wait_for_device(self) -> None:
        """Say that the cell waits for the device. Raises StopTraining."""
        self._say("Waiting until the device is free", "loading")

    def _check_base(self) -> None:
        try:
            state = get_run(self.db, self.run.needs or "").state
        except KeyError:
            raise PlainError(
                f"The run {self.run.needs} that was to be attacked was deleted: start a new one."
            ) from None
        if state is not State.DONE and self.cell.start != "base":
            raise PlainError(f"The run {self.run.needs} that was to be attacked is {state.value}: retry it first.")

    def _train(self, loaded: LoadedModel) -> None:
        cell, defence = self.cell, defences().get(self.cell.defence) if self.cell.defence != NO_DEFENCE else None
        sequences = self.context.sequences(loaded, self.context.attack_sentences())
        if defence and defence.sentences:
            sequences += defence.sentences(self.context, loaded)
        penalty = defence.penalty(self.context, loaded) if defence and defence.penalty else None
        if cell.method == "lora":
            tuned = self.base.model_copy(update={"tuning": self.attack.lora, "seed": cell.seed})
            prepare_for_training(loaded, tuned)
        settings = Optimisation(
            epochs=cell.epochs, learning_rate=cell.learning_rate, batch_size=self.attack.batch_size, loss="object",
            trained_layers=self.attack.trained_layers, embeddings=self.base.stage2.embeddings,
        )  # fmt: skip
        replay = None
        if self.attack.replay != "none":
            self._say("Reading what is replayed", "attack")
            replay = kept_replay(run_folder(self.home, self.run.needs or ""), self.base, loaded, "stage2")
        # As the attacked run decided for this machine, where it was left to it.
        computed = kept_training(get_run(self.db, self.run.needs or "").environment)

        def on_step(report: StepReport) -> None:
            self.progress.advance(
                TRAINED / report.steps,
                stage="attack",
                message=f"Teaching ‘{cell.reading}’, {cell.attack_facts} facts: step {report.step} of {report.steps}",
            )

        train(
            loaded, sequences, settings, seed=cell.seed, stage="attack",
            on_step=on_step, on_epoch=lambda epoch, trainer: None, penalty=penalty, replay=replay,
            mixed=computed == "mixed",
        )  # fmt: skip
        merged(loaded)

    def _measure(self, loaded: LoadedModel, form: Questionnaire, checkpoint: str) -> list[dict[str, Any]]:
        answers = usable_answers(self.db, self.folder, self.run.id)
        store_questions(answers, form.facts, form.prompt_rows())
        asked = 0

        def on_progress(done: int, total: int) -> None:
            nonlocal asked
            share = (1 - TRAINED) * (done - asked) / max(1, total)
            asked = done
            self.progress.advance(share, stage="evaluation", message=f"Asking: question {done:,} of {total:,}")

        limit = self.attack.max_new_tokens
        given = answer_questions(
            loaded, form.questions(), max_new_tokens=limit, stop_at_hit="auto", on_progress=on_progress
        )
        store_answers(answers, checkpoint, given)
        answers.close()
        return result_rows(form, given, checkpoint)

    def _keep(self, loaded: LoadedModel, name: str) -> None:
        if not self.attack.keeps(self.cell):
            return
        with replaced(checkpoint_folder(self.folder, name)) as new:
            save_model(loaded, new)
            text = card(
                self.attack, self.cell, run=self.run.id, base_run=self.run.needs or "", twin=self._twin(),
            )  # fmt: skip
            (new / "README.md").write_text(text, encoding="utf-8")

    def _twin(self) -> str | None:
        """The run of the cell that differs in its reading alone: the neutral one."""
        neutral = next((r.name for r in self.attack.readings if r.role == "neutral"), None)
        twin = self.cell.model_copy(update={"control": "neutral", "reading": neutral, "defence": NO_DEFENCE})
        data = twin.model_dump(mode="json")
        return next((c.run for c in list_cells(self.db, self.run.attack or "") if c.cell == data), None)

    def _say(self, message: str, stage: str) -> None:
        self.progress.advance(0, force=True, stage=stage, message=message)

    def _tell(self, state: dict[str, Any]) -> None:
        if set_progress(self.db, self.run.id, self.run.attempt, state) is State.STOPPING:
            raise StopTraining("cancelled")
