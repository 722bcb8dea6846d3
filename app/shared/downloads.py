"""Downloads: files that a browser keeps, and rows as CSV that no spreadsheet takes for formulas."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from typing import Any

from fastapi.responses import Response, StreamingResponse

from engine.corpus.spreadsheet import guard

NUMBERS = (int, float)
MOST_KEPT = 20_000


def csv_lines(fields: Iterable[str], rows: Iterable[dict[str, Any]]) -> Iterator[str]:
    """Rows as lines of CSV. Whatever a spreadsheet would calculate is text in it; numbers stay numbers."""
    names = list(fields)
    buffer = io.StringIO()
    writer = csv.writer(buffer)
    safe = lru_cache(maxsize=MOST_KEPT)(guard)  # names, prompts and languages come again and again
    writer.writerow(map(safe, names))
    for row in rows:
        cells = [row[name] for name in names]
        writer.writerow([v if v is None or isinstance(v, NUMBERS) else safe(str(v)) for v in cells])
        if buffer.tell() > 50_000:
            yield buffer.getvalue()
            buffer.seek(0)
            buffer.truncate()
    yield buffer.getvalue()


def csv_file(name: str, fields: Iterable[str], rows: Iterable[dict[str, Any]]) -> Response:
    """Rows as the file `rote-lab-NAME`, sent as it is made."""
    return StreamingResponse(csv_lines(fields, rows), media_type="text/csv; charset=utf-8", headers=_attachment(name))


def text_file(name: str, kind: str, text: str, headers: Mapping[str, str] | None = None) -> Response:
    """A text of that media type as the file `rote-lab-NAME`, with further headers."""
    # A name may hold half of a surrogate pair, which no encoding takes.
    body = text.encode("utf-8", "replace")
    return Response(body, media_type=f"{kind}; charset=utf-8", headers={**_attachment(name), **(headers or {})})


def bytes_file(name: str, kind: str, body: bytes) -> Response:
    """Bytes of that media type as the file `rote-lab-NAME`."""
    return Response(body, media_type=kind, headers=_attachment(name))


def _attachment(name: str) -> dict[str, str]:
    return {"Content-Disposition": f'attachment; filename="rote-lab-{name}"'}
