"""How the checkpoints of one run represent its prompts, in the file of its answers: figures by layer and position, and
the states that a picture shows. A checkpoint's are all there or none is.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from sqlite_utils import Database

from storage.checkpoints import in_order
from storage.database import write


@dataclass(frozen=True)
class RepresentationFigure:
    """A figure of a checkpoint at a layer (0: the embeddings) and a position (last, subject or mean).

    low, high: its 95 % interval, None where there is none; n: prompts, n_facts: facts that it is made of.
    """

    checkpoint: str
    position: str
    layer: int
    measure: str
    prompts: str
    value: float
    low: float | None
    high: float | None
    n: int
    n_facts: int


FIGURE_FIELDS = tuple(field.name for field in fields(RepresentationFigure))
Vectors = Mapping[int, tuple[int, bytes]]  # by layer: numbers of a point, and all points' numbers as float16


@dataclass(frozen=True)
class Pictured:
    """A layer of a checkpoint: `points` (prompt, fact), and their states as float16, `size` numbers each."""

    checkpoint: str
    points: tuple[tuple[int, int], ...]
    size: int
    vectors: bytes


def store_representations(
    db: Database,
    checkpoint: str,
    sample: str,
    figures: Iterable[Any],
    points: Sequence[Sequence[int]],
    vectors: Vectors,
) -> None:
    """Store what a checkpoint showed, in place of anything older.

    figures: objects with the attributes `FIGURE_FIELDS` but the checkpoint, such as the engine's `Figure`.
    """
    rows = (
        {name: checkpoint if name == "checkpoint" else getattr(figure, name) for name in FIGURE_FIELDS}
        for figure in figures
    )
    with write(db):
        db.execute("delete from representations where checkpoint = ?", [checkpoint])
        db.execute("delete from represented where checkpoint = ?", [checkpoint])
        db.table("representations").insert_all(rows)
        told = {"checkpoint": checkpoint, "sample": sample, "points": json.dumps([list(point) for point in points])}
        db.table("represented").insert(told)
        db.table("pictured").insert_all(
            {"checkpoint": checkpoint, "layer": layer, "size": size, "vectors": held}
            for layer, (size, held) in vectors.items()
        )


def copy_representations(db: Database, other: Database, checkpoint: str, sample: str) -> bool:
    """Take over what another run's file has of a checkpoint, if that is of the same sample; whether it had it."""
    found = list(
        other.query("select points from represented where checkpoint = ? and sample = ?", [checkpoint, sample])
    )
    if not found:
        return False
    figures = [figure for figure in list_representations(other) if figure.checkpoint == checkpoint]
    layers = other.query("select layer, size, vectors from pictured where checkpoint = ?", [checkpoint])
    vectors = {row["layer"]: (row["size"], row["vectors"]) for row in layers}
    store_representations(db, checkpoint, sample, figures, json.loads(found[0]["points"]), vectors)
    return True


def list_representations(
    db: Database, position: str | None = None, layer: int | None = None
) -> list[RepresentationFigure]:
    """The figures, of one position and layer where these are named: base, memorised by epoch, generalised by epoch."""
    rows = db.query(
        f"select {', '.join(FIGURE_FIELDS)} from representations"
        " where (? is null or position = ?) and (? is null or layer = ?)",
        [position, position, layer, layer],
    )
    return sorted((RepresentationFigure(**row) for row in rows), key=lambda row: in_order(row.checkpoint))


def pictured_layers(db: Database) -> list[int]:
    """The layers of which there is a picture."""
    return [row["layer"] for row in db.query("select distinct layer from pictured order by layer")]


def list_pictured(db: Database, layer: int) -> list[Pictured]:
    """A layer's states at every checkpoint that has them, in the checkpoints' order."""
    rows = db.query(
        "select checkpoint, points, size, vectors from pictured join represented using (checkpoint) where layer = ?",
        [layer],
    )
    found = [
        Pictured(r["checkpoint"], tuple((p, f) for p, f in json.loads(r["points"])), r["size"], bytes(r["vectors"]))
        for r in rows
    ]
    return sorted(found, key=lambda row: in_order(row.checkpoint))
