"""From the bytes of a file that a person chose to text: encodings, and files that are no text at all."""

from __future__ import annotations

import codecs

from engine.checks import Problem, shorten

MAX_IMPORT_BYTES = 10_000_000
_SAVE_AS = "open it in the programme it comes from and save it as CSV (UTF-8)"
_MAGIC = {
    b"PK\x03\x04": "an Excel workbook or another zipped file",
    b"\xd0\xcf\x11\xe0": "an old Excel or Office file",
    b"\x89PNG": "a picture (PNG)",
    b"\xff\xd8\xff": "a picture (JPEG)",
    b"GIF8": "a picture (GIF)",
    b"%PDF": "a PDF document",
    b"\x1f\x8b": "a compressed file (gzip)",
    b"PAR1": "a Parquet file",
    b"SQLite format 3": "a SQLite database",
}
_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)


def decode(source: str | bytes, name: str = "") -> tuple[str, list[str], Problem | None]:
    """The text of `source`, notes for the person, and the problem if it cannot be read (the text is then empty)."""
    called = f"‘{shorten(name)}’" if name else "the text"
    size = len(source) if isinstance(source, bytes) else len(source.encode("utf-8", "surrogatepass"))
    if size > MAX_IMPORT_BYTES:
        megabytes = f"{size / 1e6:.1f} MB, more than the {MAX_IMPORT_BYTES // 1_000_000} MB that can be read"
        return "", [], Problem(f"{called} is {megabytes}: split it into smaller files")
    if isinstance(source, str):
        text = source.removeprefix("\ufeff")
        notes: list[str] = []
    else:
        for magic, kind in _MAGIC.items():
            if source.startswith(magic):
                return "", [], Problem(f"{called} is {kind}, not text: {_SAVE_AS}")
        text, notes = _decode_bytes(source)
    if "\0" in text:
        return "", [], Problem(f"{called} holds null characters, so it is not a text file: {_SAVE_AS}")
    if text.lstrip()[:2] in ("[{", "[[", "{\n", '{"'):
        return "", [], Problem(f"{called} looks like JSON: give a table with one row for each fact, such as CSV")
    return text, notes, None


def _decode_bytes(source: bytes) -> tuple[str, list[str]]:
    for mark, encoding in _MARKS:
        if source.startswith(mark):
            return source.decode(encoding, "replace"), _replaced(source, encoding)
    if unmarked := _unmarked_utf16(source):
        return source.decode(unmarked), ["read as UTF-16, which the file does not say of itself"]
    try:
        return source.decode("utf-8"), []
    except UnicodeDecodeError:
        note = "the file is not UTF-8 and was read as Latin-1 (Windows-1252): look whether the accents are right"
        return source.decode("cp1252", "replace"), [note]


def _replaced(source: bytes, encoding: str) -> list[str]:
    try:
        source.decode(encoding)
    except UnicodeDecodeError:
        return ["some characters could not be read and became \N{REPLACEMENT CHARACTER}: look through the table"]
    return []


def _unmarked_utf16(source: bytes) -> str | None:
    """`utf-16-le` or `-be` where every second byte of the beginning is mostly null, as in Western UTF-16 text."""
    sample = source[:2000]
    if len(sample) < 4 or len(source) % 2:
        return None
    for encoding, high in (("utf-16-le", sample[1::2]), ("utf-16-be", sample[0::2])):
        low = sample[0::2] if encoding == "utf-16-le" else sample[1::2]
        if high.count(0) > 0.7 * len(high) and low.count(0) == 0:
            try:
                source.decode(encoding)
            except UnicodeDecodeError:
                return None
            return encoding
    return None
