"""The section on how a run's checkpoints represent prompts: cosines by epoch beside the paper's, and a picture of the
states that is turned over from checkpoint to checkpoint."""

from __future__ import annotations

from typing import Any

import gradio as gr

from app.results import representation_figures as rep
from app.shared.frame import QUIET, html, offered, run_of
from app.shared.lab import Lab
from app.shared.render import part, render
from app.shared.vega import vega_chart
from app.shared.words import checkpoint_name
from engine.evaluation.representations.projection import umap_here
from engine.evaluation.representations.texts import POSITIONS
from storage.representations import RepresentationFigure, list_pictured, list_representations, pictured_layers
from storage.runs import Run

TICK_SECONDS = 2
ADDRESS = "(position, layer) => roteLab.setAddress({position, layer})"
MAPS = {"pca": "PCA", "umap": "UMAP"}
Shown = tuple[Any, ...]


def representations_section(lab: Lab) -> None:
    """Build the section. It stays away where a run stored nothing of the kind."""
    with gr.Column(visible=False, elem_id="representations") as whole:
        head = html()
        with gr.Row(elem_classes="choosers"):
            position = gr.Radio(
                [(name, key) for key, name in rep.POSITION_NAMES.items()], value="last", label="Where in the prompt",
                scale=2, min_width=340,
            )  # fmt: skip
            layer = offered(gr.Dropdown([], label="Layer", filterable=False, min_width=150))
        with gr.Row():
            with gr.Column(elem_classes="lab-panel", min_width=320) as groups_panel:
                groups = vega_chart()
            with gr.Column(elem_classes="lab-panel", min_width=320):
                keys = vega_chart()
        table = html()
        with gr.Column() as pictured:
            html(part("results/picture_head", umap=umap_here()))
            with gr.Row(elem_classes="choosers"):
                checkpoint = offered(gr.Radio([], label="Checkpoint", min_width=340, scale=4))
                shown_layer = offered(gr.Dropdown([], label="Layer of the picture", filterable=False, min_width=150))
                method = gr.Radio(
                    [(name, key) for key, name in MAPS.items()], value="pca", label="Projection", min_width=150,
                    visible=umap_here(),
                )  # fmt: skip
            with gr.Column(elem_classes="lab-panel"):
                note, picture = html(), vega_chart()
    drawn_of = gr.Number(0, visible="hidden", precision=0)
    timer = gr.Timer(TICK_SECONDS)
    parts = [whole, head, groups_panel, groups, keys, table]
    choosers = [position, layer, checkpoint, shown_layer, method]
    shown = [*parts, pictured, checkpoint, shown_layer, note, picture]

    def figures_at(position: str | None, layer: Any, request: gr.Request) -> Shown:
        run = run_of(lab, request)
        return drawn_figures(run, figures_of(lab, run), position, layer)

    def picture_at(checkpoint: str | None, layer: Any, method: str | None, request: gr.Request) -> Shown:
        run = run_of(lab, request)
        return drawn_picture(lab, run, checkpoint, layer, method) if run else ("", None)

    def open_page(request: gr.Request) -> Shown:
        run, address = run_of(lab, request), request.query_params
        figures = figures_of(lab, run)
        layers = sorted({f.layer for f in figures})
        position = address["position"] if address.get("position") in POSITIONS else "last"
        named = int(address["layer"]) if address.get("layer", "").isdecimal() else None
        chosen = named if named in layers else next(reversed(layers), None)
        layer = gr.Dropdown([(layer_name(x, layers), x) for x in layers], value=chosen)
        count, live = len({f.checkpoint for f in figures}), gr.Timer(active=run is not None and not run.ended)
        drawn = drawn_figures(run, figures, position, chosen)
        return position, layer, count, live, *drawn, *picture_parts(lab, run, None, None, "pca")

    def tick(
        position: str, layer: Any, checkpoint: Any, at: Any, method: str, count: int, request: gr.Request
    ) -> Shown:
        run = run_of(lab, request)
        live = gr.Timer(active=run is not None and not run.ended)
        if run is None or lab.read_answers(run.id, count_represented) in (None, count):
            return gr.skip(), gr.skip(), gr.skip(), live, *([gr.skip()] * len(shown))
        if not count:
            return open_page(request)
        figures = figures_of(lab, run)
        drawn = drawn_figures(run, figures, position, layer)
        found = len({f.checkpoint for f in figures})
        return gr.skip(), gr.skip(), found, live, *drawn, *picture_parts(lab, run, checkpoint, at, method)

    opened = [position, layer, drawn_of, timer, *shown]
    gr.on(None, open_page, outputs=opened, **QUIET)
    timer.tick(tick, [*choosers, drawn_of], opened, **QUIET)
    touched = [position.input, layer.input]
    gr.on(touched, figures_at, [position, layer], parts, **QUIET)
    gr.on(touched, None, [position, layer], js=ADDRESS, **QUIET)
    turned = [checkpoint.input, shown_layer.input, method.input]
    # UMAP takes seconds the first time.
    waited = {**QUIET, "show_progress": "minimal"}
    gr.on(turned, picture_at, [checkpoint, shown_layer, method], [note, picture], **waited)


def count_represented(db: Any) -> int:
    """Of how many checkpoints something is stored."""
    return int(db.conn.execute("select count(*) from represented").fetchone()[0])


def figures_of(lab: Lab, run: Run | None) -> list[RepresentationFigure]:
    """All figures of a run; none where it looked at no hidden states."""
    return (lab.read_answers(run.id, list_representations) or []) if run else []


def layer_name(layer: int, layers: list[int]) -> str:
    """A layer as it is chosen."""
    return "Embeddings" if layer == 0 else f"{layer} (the last)" if layer == layers[-1] else str(layer)


def drawn_figures(run: Run | None, figures: list[RepresentationFigure], position: str | None, layer: Any) -> Shown:
    """Whether there is anything, the words, the two charts (the first one's panel, too), and the table."""
    chosen = [f for f in figures if f.position == position and f.layer == layer]
    if run is None or not figures:
        return gr.Column(visible=False), "", gr.Column(), None, None, ""
    several = any(f.measure == rep.DELTA for f in figures)
    facts = max((f.n_facts for f in chosen), default=0)
    columns, lines = rep.table_of(chosen)
    return (
        gr.Column(visible=True),
        part("results/representations_head", several=several, facts=facts),
        gr.Column(visible=several),
        rep.group_chart(chosen),
        rep.key_chart(chosen),
        render("results/representations.html", columns=columns, lines=lines, run=run, told=rep.TOLD),
    )


def picture_parts(lab: Lab, run: Run | None, checkpoint: str | None, layer: Any, method: str | None) -> Shown:
    """The part with the picture, its choosers with what there is, the note, and the picture."""
    layers = (lab.read_answers(run.id, pictured_layers) or []) if run else []
    if run is None or not layers:
        return gr.Column(visible=False), gr.Radio(), gr.Dropdown(), "", None
    layer = layer if layer in layers else layers[-1]
    there = rep.thinned(lab.read_answers(run.id, lambda db: list_pictured(db, layer)) or [])
    names = [row.checkpoint for row in there]
    checkpoint = checkpoint if checkpoint in names else names[-1]
    return (
        gr.Column(visible=True),
        gr.Radio([(checkpoint_name(name).capitalize(), name) for name in names], value=checkpoint),
        gr.Dropdown([(str(x), x) for x in layers], value=layer),
        *drawn_picture(lab, run, checkpoint, layer, method),
    )


def drawn_picture(lab: Lab, run: Run, checkpoint: str | None, layer: Any, method: str | None) -> Shown:
    """The words below the picture, and the picture at a checkpoint."""
    chosen = method if method == "umap" and umap_here() else "pca"
    picture = rep.picture_of(lab, run, layer, chosen) if isinstance(layer, int) else None
    if picture is None or checkpoint not in picture.checkpoints:
        return "", None
    place = picture.checkpoints.index(checkpoint) + 1
    words = f"{checkpoint_name(checkpoint).capitalize()} ({place} of {len(picture.checkpoints)}): {picture.said}."
    return part("results/picture_note", words=words), rep.drawn_picture(picture, checkpoint)
