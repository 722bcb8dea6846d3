"""Every setting of an experiment as one row: where it lives, how it is asked for, and what it does in plain words.

The page, the draft and the check read this table; a further setting is one more row.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import gradio as gr

from engine.corpus.relations import LANGUAGES
from engine.experiment import Experiment
from engine.relation import Relation

Kind = Literal["text", "number", "integer", "choice", "list", "tags"]
LOSSES = [("whole sequence", "full"), ("subject, object", "subject_and_object"), ("object only", "object")]
NAMED_LANGUAGES = tuple((name, code) for code, name in LANGUAGES.items())
WHERE_ALL_LANGUAGES = (
    ("the last checkpoint", "last"), ("the base and the last checkpoint", "ends"), ("every checkpoint", "every"),
)  # fmt: skip
PRECISIONS = [
    ("auto", "auto"), ("float32", "float32"), ("mixed: bfloat16 products", "mixed"), ("bfloat16", "bfloat16"),
]  # fmt: skip
OPTIMIZERS = (("AdamW", "adamw"), ("AdamW, moments of 8 bits", "adamw 8-bit"))
KEY_ROWS = ("around the mean", "around zero", "as they are")
PRECISION_LINE = "Auto measures whether bfloat16 is faster here"
EMBEDDINGS = [("whole matrix", "trained"), ("key tokens' rows", "key tokens")]
ENDS = (("at their hit, unless the model is small", "auto"), ("at their hit", "true"), ("by themselves", "false"))
SCHEDULES = [("falls to zero (cosine)", "cosine"), ("stays the same", "constant")]
BEGINNINGS = (("as the model needs it", "as the model's tokenizer does"), "always", "never")
HELD_TO = (("its words", "false"), ("all it might say", "true"))
KEPT = (("is kept", "false"), ("is computed again", "true"))
ABOUT = (("others", "others"), ("stage 2’s too", "trained"))
FORMS = (("as it is", "raw"), ("chat template", "chat"))
SPACES = (("as it is", "false"), ("with a space", "true"))


@dataclass(frozen=True)
class Field:
    """One setting. `path` is its place in the experiment, with dots; `folded` fields hide under “More settings”."""

    path: str
    label: str
    info: str
    kind: Kind
    choices: tuple[Any, ...] = ()
    folded: bool = False

    @property
    def section(self) -> str:
        """The part of the page it belongs to: `model`, `tuning`, `stage1`, `stage2` or `evaluation`."""
        first = self.path.split(".")[0].removesuffix("_text")
        return "model" if "." not in self.path else "evaluation" if first == "in_context" else first

    def component(self, value: Any) -> gr.components.Component:
        """The Gradio component that asks for it."""
        common: dict[str, Any] = {"label": self.label, "info": self.info or None, "value": value}
        if self.kind in ("number", "integer"):
            return gr.Number(min_width=120, **common)
        if self.kind == "choice":
            return gr.Dropdown(list(self.choices), filterable=False, min_width=120, **common)
        if self.kind == "tags":
            return gr.Dropdown(list(self.choices), multiselect=True, allow_custom_value=True, min_width=120, **common)
        return gr.Textbox(max_lines=1, min_width=120, **common)


def _training(stage: str, learn: str, batch: str) -> tuple[Field, ...]:
    return (
        Field(f"{stage}.epochs", "Epochs", learn, "integer"),
        Field(f"{stage}.learning_rate", "Learning rate", "Real models need 1e-4 to 1e-5", "number"),
        Field(f"{stage}.batch_size", "Batch size", batch, "integer"),
        Field(f"{stage}.loss", "Loss on", "The part that is learnt", "choice", tuple(LOSSES)),
    )


def _schedule(stage: str) -> tuple[Field, ...]:
    return (
        Field(f"{stage}.schedule", "Rate over time", "", "choice", tuple(SCHEDULES), True),
        Field(f"{stage}.warmup_steps", "Warm-up steps", "Steps until the full rate", "integer", (), True),
        Field(f"{stage}.max_gradient_norm", "Largest gradient", "Longer ones are cut to it", "number", (), True),
        Field(f"{stage}.trained_layers", "Layers trained", "all, auto, or how many first ones", "text", (), True),
        Field(f"{stage}.trained_weights", "Weights trained", "all, auto, or modules such as mlp", "list", (), True),
        Field(f"{stage}.embeddings", "Embeddings trained", "Rows alone save memory", "choice", tuple(EMBEDDINGS), True),
        Field(
            f"{stage}.micro_batch_size",
            "Sequences at once",
            "Of a batch; fewer save memory; 0: all",
            "integer",
            (),
            True,
        ),
        Field(
            f"{stage}.gradient_checkpointing",
            "What layers computed",
            "Again: slower, less memory",
            "choice",
            KEPT,
            True,
        ),
    )


def _replay(stage: str) -> tuple[Field, ...]:
    """The share comes first: without one nothing is replayed, whatever the others say."""
    base = f"{stage}.replay"
    return (
        Field(f"{base}.share", "Share of a batch", "Empty: no replay; 0.5: half of it", "number", (), True),
        Field(f"{base}.texts", "Texts replayed", "Empty: 240", "integer", (), True),
        Field(f"{base}.tokens", "Their length", "In tokens; empty: 12", "integer", (), True),
        Field(f"{base}.languages", "Their languages", "Empty: all that are asked", "tags", NAMED_LANGUAGES, True),
        Field(f"{base}.leash", "Held to", "What the base said there", "choice", HELD_TO, True),
        Field(f"{base}.subjects", "About", "Whose names are in them", "choice", ABOUT, True),
        Field(f"{base}.neighbours", "Neighbours", "Share: whose uncle, boss", "number", (), True),
    )


FIELDS = (
    Field("name", "Name", "", "text"),
    Field("description", "Note to yourself", "", "text"),
    Field("seed", "Seed", "Decides names, split and order", "integer"),
    Field("precision", "Precision", PRECISION_LINE, "choice", tuple(PRECISIONS), True),
    Field("tuning.optimizer", "Optimizer", "8 bits: less memory", "choice", OPTIMIZERS, True),
    Field("devices", "Devices", "That train one model together", "integer", (), True),
    Field("key_token_rows", "New rows", "Of key tokens, which begin so", "choice", KEY_ROWS, True),
    Field("model_text.beginning", "Beginning token", "Such as <bos>, before every text", "choice", BEGINNINGS, True),
    Field("model_text.form", "Form of a text", "Raw, or in the chat template’s turns", "choice", FORMS, True),
    Field("model_text.leading_space", "A raw text begins", "As Llama 2’s do, or not", "choice", SPACES, True),
    Field("tuning.rank", "Rank", "Size of the adapters", "integer", (), True),
    Field("tuning.alpha", "Alpha", "Weight of the adapters", "number", (), True),
    Field("tuning.dropout", "Dropout", "Share left out at random", "number", (), True),
    Field("tuning.target_modules", "Layers", "all-linear, or names with commas", "list", (), True),
    *_training("stage1", "How often each fact is read; 0: never", "Facts in one step"),
    Field(
        "stage1.checkpoint_epochs",
        "Keep checkpoints after epochs",
        "Empty: 3, 6, 10, 20 and the last",
        "list",
        (),
        True,
    ),
    *_schedule("stage1"),
    *_replay("stage1"),
    Field("stage2.facts", "Facts shown (k)", "The others test it", "integer"),
    Field("stage2.prompts", "Prompts for each", "The first train prompts", "integer"),
    *_training("stage2", "How often each is read", "Sequences in one step"),
    Field("stage2.language", "Language", "Of the prompts it trains on", "text", (), True),
    Field("stage2.branch_epochs", "Start from epochs", "Empty: every kept checkpoint", "list", (), True),
    *_schedule("stage2"),
    *_replay("stage2"),
    Field("evaluation.facts", "Facts asked", "Held out and trained; or all", "text"),
    Field("evaluation.prompts", "Prompts asked", "First of each split; or all", "text"),
    Field("evaluation.languages", "Languages", "Empty: all that have prompts", "tags", NAMED_LANGUAGES),
    Field("evaluation.every_language_at", "Ask all languages of", "", "choice", WHERE_ALL_LANGUAGES),
    Field("evaluation.choice.facts", "Choice facts", "Also as multiple choice; or all", "text"),
    Field("evaluation.choice.prompts", "Choice prompts", "Of each split; or all", "text"),
    Field("evaluation.trained_facts", "Trained facts asked", "At most, of the facts asked; or half", "text", (), True),
    Field("evaluation.options", "Options", "Answers to choose from", "integer", (), True),
    Field("evaluation.max_new_tokens", "Longest answer", "In tokens", "integer", (), True),
    Field("evaluation.stop_at_hit", "Answers end", "What follows can’t change a hit", "choice", ENDS, True),
    Field("evaluation.probe_facts", "Facts probed", "After each epoch of stage 1", "integer", (), True),
    Field("evaluation.base_text", "Base’s own texts", "To compare with; 0: none", "integer", (), True),
    Field("evaluation.general", "General questions", "What the base knew; 0: none", "integer", (), True),
    Field("in_context.distractors", "Facts in the prompt", "Beside its own; no training then", "integer", (), True),
    Field("evaluation.representations.facts", "Hidden states of", "Facts a relation; 0: none", "integer", (), True),
    Field("evaluation.representations.prompts", "Each in prompts", "First of each split", "integer", (), True),
)
# Numbers that may also be a word.
SAMPLES = {
    "evaluation.facts": "all",
    "evaluation.trained_facts": "half",
    "evaluation.prompts": "all",
    "evaluation.choice.facts": "all",
    "evaluation.choice.prompts": "all",
}
BY_PATH = {field.path: field for field in FIELDS}


def value_of(field: Field, data: dict[str, Any]) -> Any:
    """The field's value for its component, from an experiment as plain data."""
    value: Any = data
    for part in field.path.split("."):
        value = None if value is None else value[part]
    if field.kind == "list":
        return value if isinstance(value, str) else ", ".join(map(str, value or ()))
    if field.kind == "tags":
        return list(value or ())
    if isinstance(value, bool):
        return str(value).lower()
    return str(value) if field.kind == "text" else value


def put_value(field: Field, value: Any, data: dict[str, Any]) -> None:
    """Write what a person typed into plain data. What cannot be right is left for the experiment's check to refuse."""
    *parents, last = field.path.split(".")
    target = data
    for part in parents:
        target = target.setdefault(part, {})
        if target is None:  # nothing is replayed
            return
    if parents == ["in_context"] and value in (None, ""):
        data["in_context"] = None
        return
    if parents[-1:] == ["replay"] and value in (None, "", 0, []):
        # Without a share there is no replay; what else is empty is left to its default.
        if last == "share":
            data[parents[0]]["replay"] = None
        return
    target[last] = _parsed(field, value)


def _parsed(field: Field, value: Any) -> Any:
    if field.kind == "tags":
        return list(value or ()) or None
    if field.path.endswith(".trained_weights"):
        return str(value or "").strip()
    if field.kind == "list":
        parts = [part.strip() for part in str(value or "").split(",") if part.strip()]
        if field.path == "tuning.target_modules":
            return "all-linear" if parts in ([], ["all-linear"]) else parts
        return [int(part) if part.isdecimal() else part for part in parts] or None
    if field.path in SAMPLES or field.path.endswith(".trained_layers"):
        text = str(value or "").strip()
        return int(text) if text.isdecimal() else text
    return value


def default_values() -> dict[str, Any]:
    """Every field's value in a new experiment."""
    data: dict[str, Any] = Experiment(relations=(Relation(name="mother"),)).model_dump(mode="json")
    return {field.path: value_of(field, data) for field in FIELDS} | {"name": ""}


# What a draft that was stored before a field existed has in its place.
DEFAULTS = default_values()
