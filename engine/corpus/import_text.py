"""From the bytes of a file that a person chose to text: encodings, and files that are no text at all.

UTF-8 and UTF-16 say of themselves what they are. Every other code page reads every other's bytes as some letters, so it
is asked and never guessed: a wrong one makes other names.
"""

from __future__ import annotations

import codecs
import unicodedata
from dataclasses import replace

from engine.checks import Problem, shorten
from engine.corpus.import_choices import Asking, ImportOption

MAX_IMPORT_BYTES = 10_000_000
CODE_PAGES = {
    "cp1252": "Western Europe (Windows-1252, Latin-1)",
    "cp1250": "Central Europe (Windows-1250)",
    "cp1251": "Cyrillic (Windows-1251)",
    "koi8_r": "Cyrillic (KOI8-R)",
    "cp1253": "Greek (Windows-1253)",
    "cp1254": "Turkish (Windows-1254)",
    "cp1255": "Hebrew (Windows-1255)",
    "cp1256": "Arabic (Windows-1256)",
    "cp1257": "Baltic (Windows-1257)",
    "cp932": "Japanese (Shift-JIS)",
    "gb18030": "Chinese, simplified (GBK, GB 18030)",
    "cp950": "Chinese, traditional (Big5)",
    "euc_jp": "Japanese (EUC-JP)",
    "cp949": "Korean (EUC-KR)",
    "cp874": "Thai (Windows-874)",
    "cp1258": "Vietnamese (Windows-1258)",
    "mac_roman": "old Macintosh (Mac Roman)",
    "cp850": "DOS (code page 850)",
}
_JUDGED_CHARACTERS = 2_000
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
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)


def decode(source: str | bytes, name: str, asking: Asking) -> tuple[str, list[str], Problem | None]:
    """The text of `source`, notes for the person, and the problem if it cannot be read (the text is then empty)."""
    called = f"‘{shorten(name)}’" if name else "the text"
    size = len(source) if isinstance(source, bytes) else len(source.encode("utf-8", "surrogatepass"))
    if size > MAX_IMPORT_BYTES:
        megabytes = f"{size / 1e6:.1f} MB, more than the {MAX_IMPORT_BYTES // 1_000_000} MB that can be read"
        return "", [], Problem(f"{called} is {megabytes}: split it into smaller files")
    notes: list[str] = []
    if isinstance(source, str):
        text = source
    else:
        for magic, kind in _MAGIC.items():
            if source.startswith(magic):
                return "", [], Problem(f"{called} is {kind}, not text: {_SAVE_AS}")
        try:
            text = _decode_bytes(source, asking, notes)
        except UnicodeDecodeError as error:
            line = source[: error.start].count(b"\n") + 1
            message = (
                f"{called} holds a byte in line {line} (0x{error.object[error.start]:02x}) that is no character in "
                f"{asking.taken.encoding}: choose another code page, or {_SAVE_AS}"
            )
            return "", [], Problem(message)
        except (LookupError, UnicodeError):
            return "", [], Problem(f"there is no code page ‘{shorten(str(asking.taken.encoding))}’: choose another")
    text = text.lstrip("\ufeff")
    if "\0" in text:
        return "", [], Problem(f"{called} holds null characters, so it is not a text file: {_SAVE_AS}")
    if text.lstrip()[:2] in ("[{", "[[", "{\n", '{"'):
        return "", [], Problem(f"{called} looks like JSON: give a table with one row for each fact, such as CSV")
    return text, notes, None


def _decode_bytes(source: bytes, asking: Asking, notes: list[str]) -> str:
    """The text. Raises UnicodeDecodeError when the code page that was chosen, or that it names, is not its own."""
    if asking.choices.encoding is not None:
        return source.decode(asking.choices.encoding)
    for mark, encoding in _MARKS:
        if source.startswith(mark):
            asking.take(encoding=encoding)
            return source.decode(encoding)
    if unmarked := _unmarked_utf16(source):
        asking.take(encoding=unmarked)
        notes.append("read as UTF-16, which the file does not say of itself")
        return source.decode(unmarked)
    asking.take(encoding="utf-8")
    try:
        return source.decode("utf-8")
    except UnicodeDecodeError as error:
        return _ask_for_code_page(source, source[: error.start].count(b"\n") + 1, asking)


def _ask_for_code_page(source: bytes, line: int, asking: Asking) -> str:
    """The text by the likeliest code page, and the question which one is right."""
    texts = {}
    for encoding in CODE_PAGES:
        try:
            texts[encoding] = source.decode(encoding)
        except UnicodeDecodeError:
            continue  # this one has no such character: it can't be the file's
    ranked = sorted(texts, key=lambda encoding: _oddness(texts[encoding]))
    options = [
        ImportOption(CODE_PAGES[e], e, replace(asking.choices, encoding=e), _letters_of(texts[e])) for e in ranked
    ]
    message = (
        f"the file is not UTF-8 (line {line}), and does not say which code page it is in: "
        "choose the one in which the names are right"
    )
    asking.take(encoding=ranked[0])
    asking.ask("encoding", message, options, ranked[0])
    return texts[ranked[0]]


def _oddness(text: str) -> float:
    """How unlike names the characters beyond ASCII are, as a share: signs, and changes of script or case in a word."""
    strange = [i for i, c in enumerate(text[:200_000]) if not c.isascii()][:_JUDGED_CHARACTERS]
    if not strange:
        return 0.0
    odd = 0
    for i in strange:
        character, before = text[i], text[i - 1] if i else " "
        letter = character.isalpha() or unicodedata.category(character) in ("Mn", "Mc", "Nd")
        case_changes = before.islower() and character.isupper()
        script_changes = before.isalpha() and _script(before) != _script(character)
        odd += 2 * (not letter) + (letter and (case_changes or script_changes)) + (_script(character) == "HALFWIDTH")
    return odd / len(strange)


def _script(letter: str) -> str:
    return unicodedata.name(letter, "none").split()[0]


def _letters_of(text: str) -> str:
    """The first words that hold more than ASCII, which is where code pages differ."""
    words = dict.fromkeys(
        word for word in text[:200_000].replace(",", " ").replace(";", " ").split() if not word.isascii()
    )
    return shorten(" ".join(list(words)[:8]), 80)


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


def mistaken_utf8(cell: str) -> str | None:
    """What a cell such as ‘MÃ¼ller’ was before UTF-8 was read as Windows-1252 and saved again, or None."""
    if cell.isascii():
        return None
    try:
        made = b"".join(c.encode("latin-1") if "\x80" <= c < "\xa0" else c.encode("cp1252") for c in cell)
        return made.decode("utf-8")
    except UnicodeError:
        return None
