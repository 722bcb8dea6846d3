"""Tables as Parquet. pyarrow writes it, which the lab does without otherwise."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

MISSING = "Parquet is written by pyarrow, which is not installed: make exports, or pip install pyarrow"


class NoParquet(ValueError):
    """pyarrow is not installed; the message says how to get it."""


def parquet(columns: Sequence[str], rows: Sequence[dict[str, Any]]) -> bytes:
    """The rows as a Parquet file (zstd), its columns in that order; a column of mixed types is written as text.

    Raises NoParquet.
    """
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError:
        raise NoParquet(MISSING) from None
    arrays = {}
    for column in columns:
        values = [row.get(column) for row in rows]
        kinds = {type(value) for value in values if value is not None}
        if len(kinds) > 1 and not kinds <= {int, float}:
            values = [None if value is None else str(value) for value in values]
        arrays[column] = pa.array(values)
    memory = io.BytesIO()
    pq.write_table(pa.table(arrays), memory, compression="zstd")
    return memory.getvalue()
