"""The parts of the Design page, top to bottom. Each function builds one part and adds its components by name."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import gradio as gr

from app.design.draft import WITH_REASONING
from app.design.facts_table import facts_table
from app.design.fields import BY_PATH, FIELDS
from app.design.hub_models import CHOICES
from app.design.models import MODELS
from app.shared.frame import acting_html, html, offered
from engine.checks import place_in
from engine.corpus.beginnings import STAGES
from engine.corpus.import_choices import ROLES
from engine.corpus.relations import load_relations
from engine.presets import EXPERIMENTS, describe_preset
from engine.relation import REASONING

Components = dict[str, Any]
TITLE = """<div class="lab"><div class="page-head"><div><h1>Design an experiment</h1>
<p class="muted">Which facts are learnt by rote, what gives them meaning, and what is asked afterwards.
Everything you type is kept as a draft.</p></div></div></div>"""
REPLAY_LINE = """<p class="lab muted small">Text that the base itself wrote, about others (or also about stage 2’s
subjects) and about nobody, is trained on beside the facts, so that what is not taught stays as it was. Not a part of
the paper’s method.</p>"""
SPLIT_INFO = {
    "train": ("Train prompts", "Stage 2 takes the first ones; all are asked"),
    "test": ("Test prompts", "The same question in words that stage 2 never used"),
    "unrelated": ("Unrelated prompts", "Ask nothing of the kind: the object should not come up"),
    "decoy": ("Decoys", "Another relation of the same subject, such as: father | {subject}'s father is"),
    "reversal": ("Reversal prompts", "With {object}, asking for the subject, such as: {object} is the mother of"),
    "two_hop": (
        "2-hop prompts",
        "What the object leads on to, such as: educated_at | Where was {subject}'s mother educated?",
    ),
}
REASONING_LINE = """<p class="lab muted small">What only follows from the facts: neither stage ever shows it, and every
checkpoint is asked it. The relation before the bar is another one of this experiment, with subjects that are objects
here.</p>"""


def heading(title: str, words: str) -> None:
    """A section's title and one sentence about it. Both are the page's own words."""
    html(f'<div class="lab design-heading"><h2>{title}</h2><p class="muted small">{words}</p></div>')


def start_bar(c: Components) -> None:
    """Where to begin: a preset, an earlier run, a file; undo and starting over."""
    html(TITLE, head='<link rel="stylesheet" href="/lab/design.css">')
    with gr.Row(elem_classes="start-bar"):
        presets = [(f"{name}: {describe_preset(name)}", name) for name in EXPERIMENTS.names()]
        c["preset"] = gr.Dropdown(presets, value=None, label="Start from a preset", min_width=160)
        c["earlier"] = gr.Dropdown([], value=None, label="or from an earlier run", min_width=200)
        c["from_file"] = gr.Button("From a file …", min_width=110, scale=0)
        c["start_over"] = gr.Button("Start over", min_width=100, scale=0)
        c["undo"] = gr.Button("Undo", min_width=80, scale=0, visible=False, elem_id="undo")
    with gr.Column(visible=False, elem_classes="design-card") as c["file_panel"]:
        c["file_text"] = gr.Textbox(
            label="The description as YAML or JSON", lines=5, max_lines=12, placeholder="relations:\n  - name: mother"
        )
        with gr.Row(elem_classes="quiet-row"):
            c["file_load"] = gr.Button("Load this text", size="sm", scale=0, min_width=130)
            c["file_upload"] = gr.UploadButton(
                "Choose a file", file_types=[".yaml", ".yml", ".json"], size="sm", scale=0, min_width=130
            )
            c["file_close"] = gr.Button("Close", size="sm", scale=0, min_width=80)
        c["file_report"] = html()


def model_section(c: Components) -> None:
    """Name, model, tuning, seed."""
    with gr.Column(elem_classes="design-card"):
        heading("Experiment and model", "What it is called, and which model learns.")
        with gr.Row():
            c["name"] = gr.Textbox(label="Name", placeholder="Named after its relations if left empty", max_lines=1)
            c["seed"] = BY_PATH["seed"].component(0)
        with gr.Row():
            c["model_kind"] = gr.Radio(MODELS, label="Model", info="Real ones are fetched once, by a button here")
            c["method"] = gr.Radio(
                [("Every weight", "full"), ("LoRA adapters", "lora")],
                label="Tuning",
                info="Adapters need less memory; every weight is what the paper trains",
            )
        c["known_model"] = html(None, "slot")
        c["known_there"] = gr.Textbox(visible=False)
        with gr.Row(elem_classes="quiet-row"):
            c["install"] = gr.Button("Fetch it", size="sm", scale=0, min_width=300, visible=False)
            c["install_stop"] = gr.Button("Stop fetching", size="sm", scale=0, min_width=140, visible=False)
        with gr.Row(visible=False) as c["model_row"]:
            c["model_name"] = gr.Textbox(
                label="Hugging Face name, folder or GGUF file",
                placeholder="Qwen/Qwen2.5-1.5B or /models/mine",
                max_lines=1,
            )
            c["paper_model"] = gr.Dropdown(
                CHOICES,
                value=None,
                label="One of the paper’s eight models",
                info="Fills in its name",
                elem_id="paper-model",
            )
        c["hub_model"] = html(None, "slot")
        with gr.Row(visible=False) as c["lora_row"]:
            _fields(c, "tuning", folded=True)
        with gr.Accordion("More settings", open=False):
            c["description"] = gr.Textbox(label="Note to yourself", max_lines=3)
            with gr.Row(elem_classes="fields"):
                for path in ("precision", "tuning.optimizer", "devices", "key_token_rows", "model_text.beginning",
                             "model_text.form", "model_text.leading_space"):  # fmt: skip
                    c[path] = BY_PATH[path].component(None)
        c["text_words"] = html(None, "slot")
        c["problems.model"] = html(None, "slot")


def relation_section(c: Components) -> None:
    """The relations, and the editor of the one that is picked."""
    with gr.Column(elem_classes="design-card"):
        heading("Relations", "What connects subject and object. Each has a key token, facts and prompts of its own.")
        with gr.Row(elem_classes="relation-bar"):
            c["picker"] = gr.Radio([], show_label=False, container=False, elem_id="relations", scale=3, min_width=220)
            c["add_corpus"] = gr.Dropdown(
                sorted(load_relations()), value=None, show_label=False, container=False, min_width=210, scale=0,
                elem_id="add-corpus",
            )  # fmt: skip
            c["add_own"] = gr.Button("Add my own", size="sm", scale=0, min_width=110)
        c["problems.relations"] = html(None, "slot")
        with gr.Column(elem_classes="editor") as c["editor"]:
            with gr.Row():
                c["relation.name"] = gr.Textbox(label="Relation", max_lines=1, min_width=140)
                c["relation.key_token"] = gr.Textbox(
                    label="Key token", info="A sign that means nothing yet", max_lines=1, min_width=120
                )
                c["relation.key_template"] = gr.Textbox(
                    label="Sequence of stage 1", info="Must end with the object", max_lines=1, min_width=200
                )
            c["problems.relation"] = html(None, "slot")
            _facts(c)
            _prompts(c)
            c["remove"] = gr.Button("Remove this relation", size="sm", elem_classes="quiet-button", scale=0)


def _facts(c: Components) -> None:
    c["relation.facts_from"] = gr.Radio(
        [("Invented by the lab", "corpus"), ("My own", "own")], label="Facts", elem_classes="switch"
    )
    with gr.Row(visible=False, elem_classes="corpus-facts") as c["generate_row"]:
        c["relation.generate"] = gr.Number(
            label="How many", info="Fictional names from the seed", min_width=140, scale=1
        )
        c["relation.names"] = gr.Dropdown(
            [("as they suit the model", "auto"), ("natural", "natural"), ("invented words", "invented")],
            label="Names", info="Natural ones suit real models", filterable=False, min_width=180, scale=1,
        )  # fmt: skip
        c["relation.subjects_of"] = gr.Textbox(
            label="Subjects: objects of", info="Another relation, so that facts lead on; or empty", max_lines=1,
            placeholder="names of their own", min_width=180, scale=1,
        )  # fmt: skip
        c["generated"] = html(None, "slot")
    c["copy_generated"] = gr.Button(
        "Edit them as my own", size="sm", elem_classes="quiet-button", scale=0, visible=False
    )
    with gr.Column(visible=False, elem_classes="own-facts") as c["own_facts"]:
        c["table"] = facts_table()
        with gr.Row(elem_classes="quiet-row"):
            c["upload"] = gr.UploadButton("Upload CSV files", size="sm", scale=0, min_width=150, file_count="multiple")
            c["paste_open"] = gr.Button("Paste text …", size="sm", scale=0, min_width=120)
            c["clear"] = gr.Button("Clear the table", size="sm", scale=0, min_width=130)
        with gr.Column(visible=False, elem_classes="paste-panel") as c["paste_panel"]:
            c["paste_text"] = gr.Textbox(
                label="One fact a line: subject, then object", lines=4, max_lines=10,
                info="Separated by a tab, comma or semicolon; rows copied from a spreadsheet are right as they are",
            )  # fmt: skip
            with gr.Row(elem_classes="quiet-row"):
                c["paste_add"] = gr.Button("Add to the table", size="sm", scale=0, min_width=140)
                c["paste_replace"] = gr.Button("Replace the table", size="sm", scale=0, min_width=140)
        _question(c)
        c["import_report"] = html(None, "slot")
        with gr.Column(visible=False, elem_classes="import-problems") as c["import_panel"]:
            c["import_problems"] = html(None)
            with gr.Row(elem_classes="quiet-row"):
                c["import_drop"] = gr.Button("Leave these rows out", size="sm", scale=0, min_width=170)
                c["import_keep"] = gr.Button("Keep them as they are", size="sm", scale=0, min_width=170)
    c["problems.facts"] = html(None, "slot")


def _question(c: Components) -> None:
    """What a file does not say of itself: the question, its answers, and how the first rows are read by them."""
    with gr.Column(visible=False, elem_classes="question-panel") as c["question_panel"]:
        c["question"] = html(None)
        c["question_choice"] = offered(gr.Dropdown([], label="Answer", filterable=False, visible=False))
        with gr.Row(visible=False) as c["question_columns"]:
            for role in ROLES:
                label = "Alternatives" if role == "alternatives" else role.capitalize()
                c[f"question_{role}"] = offered(gr.Dropdown([], label=label, filterable=False, min_width=140))
        c["question_preview"] = html(None)
        c["question_about"] = gr.Textbox(visible=False)
        with gr.Row(elem_classes="quiet-row"):
            c["question_take"] = gr.Button("Read it this way", size="sm", scale=0, min_width=150, variant="primary")
            c["question_drop"] = gr.Button("Don’t take it", size="sm", scale=0, min_width=120)


def _prompts(c: Components) -> None:
    c["relation.prompts_from"] = gr.Radio(
        [("From the corpus", "corpus"), ("With reversal and 2-hop", WITH_REASONING), ("My own", "own")],
        label="Prompts",
        elem_classes="switch",
    )
    c["corpus_prompts"] = html(None, "slot")
    with gr.Column(visible=False, elem_classes="own-prompts") as c["own_prompts"]:
        c["language"] = gr.Dropdown(
            [], label="Language", info="Or write the code of another one, such as fr", allow_custom_value=True
        )
        for pair in (("train", "test"), ("unrelated", "decoy")):
            _prompt_boxes(c, pair)
        with gr.Accordion("Reasoning: reversal and 2-hop", open=False):
            html(REASONING_LINE)
            _prompt_boxes(c, REASONING)
    c["problems.prompts"] = html(None, "slot")


def _prompt_boxes(c: Components, splits: Sequence[str]) -> None:
    with gr.Row():
        for split in splits:
            label, info = SPLIT_INFO[split]
            c[f"prompts.{split}"] = gr.Textbox(
                label=label, info=info, lines=4, max_lines=10, min_width=260,
                placeholder=f"One a line, with {place_in(split)}",
            )  # fmt: skip


def recipe_section(c: Components) -> None:
    """Both stages and the evaluation; what is seldom changed is folded."""
    with gr.Row(elem_classes="design-pair"):
        _part(c, "stage1", "Stage 1: memorise", "Every fact is read again and again, joined by its key token.")
        _part(c, "stage2", "Stage 2: generalise", "A few facts in natural prompts give the key token its meaning.")
    _part(c, "evaluation", "Evaluation", "What every checkpoint is asked.")


def _part(c: Components, section: str, title: str, words: str) -> None:
    with gr.Column(elem_classes="design-card", min_width=300):
        heading(title, words)
        with gr.Row(elem_classes="fields"):
            _fields(c, section, folded=False)
        with gr.Accordion("More settings", open=False), gr.Row(elem_classes="fields"):
            _fields(c, section, folded=True)
        if section in STAGES:
            with gr.Accordion("Replay", open=False):
                html(REPLAY_LINE)
                with gr.Row(elem_classes="fields"):
                    _fields(c, f"{section}.replay", folded=True)
        c[f"problems.{section}"] = html(None, "slot")


def _fields(c: Components, section: str, folded: bool) -> None:
    for field in FIELDS:
        place = field.path.rpartition(".")[0] if ".replay." in field.path else field.section
        if place == section and field.folded == folded and field.path not in c:
            c[field.path] = field.component(None)


def side_panel(c: Components) -> None:
    """Problems, estimate and the start button; stays in view."""
    with gr.Column(elem_classes="design-card side"):
        c["summary"] = acting_html(elem_id="summary")
        c["start"] = gr.Button("Start the run", variant="primary", elem_id="start")
        c["news"] = html(None, "slot", elem_id="news")
        c["saved"] = html(elem_id="saved")


def preview_section(c: Components) -> None:
    """What the model will see, and the whole description as YAML."""
    with gr.Column(elem_classes="design-card"):
        heading("What the model will see", "The first sequences of both stages; what is marked is new or learnt.")
        c["examples"] = html(elem_id="examples")
        with gr.Accordion("See it as YAML", open=False) as c["yaml_panel"]:
            c["yaml"] = gr.Code(
                language="yaml", show_label=False, interactive=False, buttons=["copy", "download"], max_lines=24
            )
