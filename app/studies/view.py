"""What the Studies page shows: the study or attack, what is measured, and which axes are its rows and columns."""

from __future__ import annotations

from typing import Any, Self
from urllib.parse import unquote

from app.shared.view import PageView, an_id, one_of
from engine.execution.attacks.as_study import ATTACKED, SETTING
from engine.execution.attacks.as_study import FACTS as ATTACK_SIZE
from engine.execution.studies.kept import BASE_TEXT, GENERAL_KNOWLEDGE, is_kept
from engine.studies.study import DEPTH, METHOD
from storage.measurements import TRAINING_TOKENS
from storage.studies import StudyFigure, choice_of

# What a method ends with: what stage 2 made, or the base that is asked with the facts in the prompt.
AT_THE_END = ("generalised", "context")
# measure: (label, the checkpoint's kinds, the split)
MEASURES = {
    "test": ("Test prompts, after stage 2", AT_THE_END, "test"),
    "train": ("Train prompts, after stage 2", AT_THE_END, "train"),
    "key": ("Key token, after stage 1", ("memorised",), "key"),
    "before": ("Train prompts, before stage 2", ("memorised",), "train"),
    "unrelated": ("Unrelated prompts, after stage 2", AT_THE_END, "unrelated"),
    "decoy": ("Decoys, after stage 2", AT_THE_END, "decoy"),
    "base": ("Train prompts, base model", ("base",), "train"),
    "reversal": ("Reversal, after stage 2", AT_THE_END, "reversal"),
    "reversal choice": ("Reversal as multiple choice, after stage 2", AT_THE_END, choice_of("reversal")),
    "two_hop": ("2-hop, after stage 2", AT_THE_END, "two_hop"),
    "two_hop choice": ("2-hop as multiple choice, after stage 2", AT_THE_END, choice_of("two_hop")),
    "general": ("General questions, after stage 2", AT_THE_END, GENERAL_KNOWLEDGE),
    "general base": ("General questions, base model", ("base",), GENERAL_KNOWLEDGE),
    "base text": ("The base’s own text, after stage 2", AT_THE_END, BASE_TEXT),
}
# What an attack is measured in: the reading that was asked about by its part in the attack, and the prompts.
ATTACK_MEASURES = {
    "harmful": ("Harmful reading, test prompts", (ATTACKED,), "harmful test"),
    "harmful train": ("Harmful reading, train prompts", (ATTACKED,), "harmful train"),
    "benign": ("Benign reading, test prompts", (ATTACKED,), "benign test"),
    "benign train": ("Benign reading, train prompts", (ATTACKED,), "benign train"),
    "other harmful": ("Other harmful readings, test prompts", (ATTACKED,), "other harmful test"),
    "neutral": ("Neutral reading, test prompts", (ATTACKED,), "neutral test"),
    "nonsense": ("Nonsense reading, test prompts", (ATTACKED,), "nonsense test"),
    "key prompt": ("Key token", (ATTACKED,), "key"),
    "unrelated prompts": ("Unrelated prompts", (ATTACKED,), "unrelated"),
    "decoys": ("Decoys", (ATTACKED,), "decoy"),
    "own": ("What the base knew", (ATTACKED,), "own"),
}
# Beside each other, where what is asked is an axis of the table: measure: heading of its column.
ATTACK_ASKED = {"harmful": "Harmful", "other harmful": "Other harmful", "benign": "Benign", "neutral": "Neutral",
                "nonsense": "Nonsense", "own": "What the base knew"}  # fmt: skip
# Beside each other, where what is asked is an axis of the table: measure: heading of its column.
ASKED_MEASURES = {"train": "Train prompts", "test": "Test prompts", "unrelated": "Unrelated", "decoy": "Decoys"}
# The same, only where it was asked.
FURTHER_MEASURES = {
    "reversal": "Reversal",
    "reversal choice": "Reversal, choice",
    "two_hop": "2-hop",
    "two_hop choice": "2-hop, choice",
    "general": "General questions",
}
TOKENS = "Training tokens a fact"
ASKED = "asked"
FACTS = {"held_out": "Held out", "trained": "Trained", "all": "All"}
ATTACK_FACTS = {"held_out": "Held out", "trained": "Taught in words", "never_memorised": "Never memorised"}
AXES = {
    METHOD: "Method",
    ASKED: "What is asked",
    DEPTH: "Stage 1 epochs",
    "stage1.epochs": "Stage 1 epochs",
    "stage1.learning_rate": "Stage 1 learning rate",
    "stage1.batch_size": "Stage 1 batch",
    "stage2.facts": "Facts in stage 2 (k)",
    "stage2.prompts": "Prompts in stage 2",
    "stage2.epochs": "Stage 2 epochs",
    "stage2.learning_rate": "Stage 2 learning rate",
    "stage2.batch_size": "Stage 2 batch",
    "tuning.method": "Tuning",
    "model": "Model",
    "seed": "Seed",
    SETTING: "What is compared",
    ATTACK_SIZE: "Attack facts",
    "prompts": "Prompts of a fact",
    "epochs": "Epochs",
    "learning_rate": "Learning rate",
}


def axis_name(path: str) -> str:
    """An axis as it is called on the page."""
    return AXES.get(path, path)


def counted(figure: StudyFigure) -> tuple[str, str]:
    """What a figure's `n` and `n_facts` count."""
    if figure.split == BASE_TEXT:
        return "tokens", "texts"
    return "choices" if figure.chance is not None else "answers", "questions" if is_kept(figure.split) else "facts"


def comparable(figure: StudyFigure) -> bool:
    """Whether other settings can be held against a figure, fact by fact."""
    return figure.split != TRAINING_TOKENS and not is_kept(figure.split)


def value_name(value: Any) -> str:
    """A value of an axis as it is shown."""
    return f"{value:g}" if isinstance(value, float) else "none" if value is None else str(value)


class View(PageView):
    """The state of one page. rows, columns: paths of axes; fixed: `path=value` of the others, by `;`; against: the row
    and the column, by `|`, with which the others are compared; missing: a study that was asked for and is not there."""

    UNADDRESSED = ("missing",)
    study: str = ""
    measure: str = "test"
    facts: str = ""
    language: str = ""
    rows: str = ""
    columns: str = ""
    fixed: str = ""
    against: str = ""
    missing: str = ""

    def cleaned(self) -> Self:
        """The view without what cannot be."""
        return self.but(
            study=an_id(self.study),
            measure=one_of({**MEASURES, **ATTACK_MEASURES}, self.measure),
            facts=one_of(("", *FACTS, *ATTACK_FACTS), self.facts),
            language=self.language[:40],
            rows=self.rows[:100],
            columns=self.columns[:100],
            fixed=self.fixed[:2000],
            against=self.against[:401],
            missing=self.missing[:60],
        )

    @property
    def chosen(self) -> dict[str, str]:
        """The values of the axes that are neither rows nor columns, as they are shown."""
        pairs = (part.partition("=") for part in self.fixed.split(";") if "=" in part)
        return {path: unquote(value) for path, _, value in pairs}

    def with_chosen(self, path: str, value: str) -> Self:
        """The view with another value of such an axis."""
        chosen = {**self.chosen, path: value}
        # A name may hold what parts the pairs; all else stays readable in the address.
        return self.but(fixed=";".join(f"{p}={v.replace('%', '%25').replace(';', '%3B')}" for p, v in chosen.items()))
