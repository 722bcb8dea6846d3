"""Downloads: rows as CSV that no spreadsheet takes for formulas, and the headers that make an answer a file."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator
from typing import Any

from gradio.utils import sanitize_value_for_csv


def csv_lines(fields: Iterable[str], rows: Iterable[dict[str, Any]]) -> Iterator[str]:
    """Rows as lines of CSV. What a spreadsheet would take for a formula is neutralised."""
    names = list(fields)
    buffer = io.StringIO()
    writer = csv.writer(buffer)
    writer.writerow(names)
    for row in rows:
        writer.writerow([_neutral(row[name]) for name in names])
        if buffer.tell() > 50_000:
            yield buffer.getvalue()
            buffer.seek(0)
            buffer.truncate()
    yield buffer.getvalue()


def _neutral(value: Any) -> Any:
    return sanitize_value_for_csv(value) if isinstance(value, str) else value


def attachment(name: str) -> dict[str, str]:
    """The header that has a browser keep the answer as the file `rote-lab-NAME`."""
    return {"Content-Disposition": f'attachment; filename="rote-lab-{name}"'}
