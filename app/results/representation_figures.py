"""What the Results page says and draws of how a run's checkpoints represent prompts."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from app.results.representation_charts import AFTER, BEFORE, cosine_chart, picture_chart
from app.shared.lab import Lab
from app.shared.words import checkpoint_name, split_name
from engine.corpus.sentences import question_text
from engine.evaluation.representations.statistics import BETWEEN, DELTA, GROUPS, KEY_CKA, KEY_COSINE, WITHIN
from engine.evaluation.representations.texts import SPLITS
from engine.paper.representations import PublishedCheckpoint, published_checkpoints, published_model
from storage.answers import list_facts, list_prompts
from storage.checkpoints import BASE, CheckpointName
from storage.representations import Pictured, RepresentationFigure, list_pictured
from storage.runs import Run

POSITION_NAMES = {
    "last": "Last token of the prompt",
    "subject": "Last token of the subject",
    "mean": "Mean over the prompt",
}
GROUP_NAMES = {"natural": "Natural prompts", "key": "Key-token prompts", "all": "Both"}
GROUP_COLOURS = {"natural": "$chart-train", "key": "$chart-decoy", "all": "$chart-base"}
TOLD = f"Published ({published_model()})"
MOST_PICTURED = 24  # checkpoints in one picture
KEPT_PICTURES = 8
COLUMNS = (
    (DELTA, "natural", "ΔCosSim, natural"), (DELTA, "key", "ΔCosSim, key"), (WITHIN, "natural", "Within, natural"),
    *((KEY_COSINE, split, f"cos, {split}") for split in SPLITS[1:]),
    *((KEY_CKA, split, f"CKA, {split}") for split in SPLITS[1:]),
)  # fmt: skip


def group_chart(figures: Sequence[RepresentationFigure]) -> dict[str, Any] | None:
    """ΔCosSim by epoch, with the paper's; None where there is none, as with one relation."""
    rows = [_row(f, GROUP_NAMES[f.prompts]) for f in figures if f.measure == DELTA]
    published = [
        _published(row, GROUP_NAMES["natural"], row.delta) for row in published_checkpoints() if row.delta is not None
    ]
    colours = {GROUP_NAMES[group]: GROUP_COLOURS[group] for group in ("natural", "key", "all")}
    return cosine_chart(rows, published, "ΔCosSim: within relations − between", colours, TOLD) if rows else None


def key_chart(figures: Sequence[RepresentationFigure]) -> dict[str, Any] | None:
    """The cosines of the key token with each split's prompts by epoch, with the paper's."""
    rows = [_row(f, split_name(f.prompts).capitalize()) for f in figures if f.measure == KEY_COSINE]
    published = [
        _published(row, split_name(split).capitalize(), value)
        for row in published_checkpoints()
        for split in SPLITS[1:]
        if (value := getattr(row, split)) is not None
    ]
    colours = {split_name(split).capitalize(): f"$chart-{split}" for split in SPLITS[1:]}
    return cosine_chart(rows, published, "Cosine of the key token with …", colours, TOLD) if rows else None


def _row(figure: RepresentationFigure, line: str) -> dict[str, Any]:
    name = CheckpointName.parse(figure.checkpoint)
    stage = AFTER if name.kind == "generalised" else BEFORE
    drawn = {"epoch": name.epoch, "stage": stage, "line": line, "checkpoint": checkpoint_name(figure.checkpoint)}
    low, high = (figure.value if end is None else end for end in (figure.low, figure.high))
    return drawn | {"value": figure.value, "low": low, "high": high, "n": figure.n, "n_facts": figure.n_facts}


def _published(row: PublishedCheckpoint, line: str, value: float) -> dict[str, Any]:
    return {"epoch": row.epoch, "stage": TOLD, "line": line, "value": value, "checkpoint": published_name(row)}


def published_name(row: PublishedCheckpoint) -> str:
    """The checkpoint of a row of the paper's table."""
    return checkpoint_name(
        BASE if not row.epoch else f"{'generalised' if row.after_stage2 else 'memorised'}@{row.epoch}"
    )


@dataclass(frozen=True)
class Line:
    """A row of the table: a figure (or the paper's number in its digits, or None) for each column."""

    name: str
    published: bool
    cells: list[RepresentationFigure | str | None]


def table_of(figures: Sequence[RepresentationFigure]) -> tuple[list[str], list[Line]]:
    """The columns' names and the lines: of each checkpoint, then the paper's."""
    known = {(f.checkpoint, f.measure, f.prompts): f for f in figures}
    there = {(f.measure, f.prompts) for f in figures}
    # What is within a relation says something by itself only where there is nothing between.
    columns = [c for c in COLUMNS if c[:2] in there and not (c[0] == WITHIN and (BETWEEN, "natural") in there)]
    lines = [
        Line(checkpoint_name(name), False, [known.get((name, measure, prompts)) for measure, prompts, _ in columns])
        for name in dict.fromkeys(f.checkpoint for f in figures)
    ]
    for row in published_checkpoints():
        theirs = {} if row.delta is None else {(DELTA, "natural"): f"{row.delta:.3f}"}
        theirs |= {(KEY_COSINE, s): f"{value:.2f}" for s in SPLITS[1:] if (value := getattr(row, s)) is not None}
        cells = [theirs.get(column[:2]) for column in columns]
        if any(cell is not None for cell in cells):
            lines.append(Line(published_name(row), True, list(cells)))
    return [name for _, _, name in columns], lines


def relations_of(figures: Sequence[RepresentationFigure]) -> bool:
    """Whether there are several, so that something lies between them."""
    return any(f.measure == DELTA and f.prompts in GROUPS for f in figures)


@dataclass(frozen=True)
class Picture:
    """Of each checkpoint its points' places; said: what the axes are."""

    checkpoints: list[str]
    places: dict[str, list[dict[str, Any]]]
    extent: tuple[float, ...]
    said: str


_pictures: OrderedDict[tuple[Any, ...], Picture] = OrderedDict()
_projecting = threading.Lock()


def picture_of(lab: Lab, run: Run, layer: int, method: str) -> Picture | None:
    """A layer's states at all checkpoints in one projection, `pca` or `umap`; None where none are stored.

    Kept for the next look. At most `MOST_PICTURED` checkpoints, evenly spread, with the first and the last.
    """
    stored = lab.read_answers(run.id, lambda db: list_pictured(db, layer)) or []
    # Of one sample, since points are followed from one checkpoint to the next.
    stored = thinned([row for row in stored if row.points == stored[-1].points and row.points])
    if not stored:
        return None
    key = (run.id, layer, method, tuple((row.checkpoint, hash(row.vectors)) for row in stored))
    with _projecting:
        if key not in _pictures:
            _pictures[key] = _project(lab, run, stored, method)
            while len(_pictures) > KEPT_PICTURES:
                _pictures.popitem(last=False)
        return _pictures[key]


def thinned(rows: list[Pictured]) -> list[Pictured]:
    """Evenly spread ones, the first and the last among them, where there are too many for one picture."""
    if len(rows) <= MOST_PICTURED:
        return rows
    step = (len(rows) - 1) / (MOST_PICTURED - 1)
    return [rows[round(place * step)] for place in range(MOST_PICTURED)]


def _project(lab: Lab, run: Run, stored: list[Pictured], method: str) -> Picture:
    import numpy as np

    from engine.evaluation.representations.projection import joint_pca, joint_umap

    states = [np.frombuffer(row.vectors, "<f2").reshape(len(row.points), row.size) for row in stored]
    if method == "umap":
        places, said = joint_umap(states), "UMAP of all checkpoints together, by cosine; only nearness means something"
    else:
        places, shares = joint_pca(states)
        first, second = (f"{100 * share:.0f} %" for share in [*shares, 0.0][:2])
        said = f"across, the first principal component of all checkpoints together ({first} of the variance); up, the "
        said += f"second ({second})"
    told = lab.read_answers(run.id, lambda db: (list_facts(db), list_prompts(db))) or ([], [])
    facts, prompts = ({row["id"]: row for row in rows} for rows in told)
    points = [_point(facts.get(fact, {}), prompts.get(prompt, {})) for prompt, fact in stored[-1].points]
    every = np.concatenate(places)
    ends = (*every.min(0), *every.max(0))
    return Picture(
        [row.checkpoint for row in stored],
        {
            row.checkpoint: [
                {"x": round(float(x), 4), "y": round(float(y), 4), **point}
                for (x, y), point in zip(at, points, strict=True)
            ]
            for row, at in zip(stored, places, strict=True)
        },
        tuple(round(float(end), 4) for end in (ends[0], ends[2], ends[1], ends[3])),
        said,
    )


def _point(fact: dict[str, Any], prompt: dict[str, Any]) -> dict[str, Any]:
    text = question_text(str(prompt.get("text", "")), str(fact.get("subject", "")))
    split = split_name(str(prompt.get("split", ""))).capitalize()
    return {"relation": str(prompt.get("relation", "")), "prompts": split, "text": text}


def drawn_picture(picture: Picture, checkpoint: str) -> dict[str, Any] | None:
    """The picture at one of its checkpoints."""
    rows = picture.places.get(checkpoint)
    if not rows:
        return None
    relations = list(dict.fromkeys(row["relation"] for row in rows))
    order = [split_name(split).capitalize() for split in SPLITS]
    there = {row["prompts"] for row in rows}
    splits = [split for split in order if split in there]
    axes = f"{checkpoint_name(checkpoint)}; {picture.said}"
    return picture_chart(rows, picture.extent, relations, splits, axes)
