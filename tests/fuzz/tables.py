"""Tables of facts, lists of alternatives, prompts and names: nothing is lost, joined or changed without a word."""

from __future__ import annotations

import csv
import io
import json
from typing import Any

from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

from app.shared.downloads import csv_lines
from engine import checks
from engine.checks import invisible_character
from engine.corpus.import_cells import parse_alternatives
from engine.corpus.importing import ImportedFacts, read_facts
from tests.fuzz.target import Target, fed
from tests.fuzz.texts import NAMES, PLAIN_NAMES, TEXT, cleaned, mostly

CELLS = NAMES.filter(lambda text: "\0" not in text and "\r" not in text)
ROWS = st.lists(st.tuples(CELLS, CELLS), min_size=2, max_size=6)
# What a spreadsheet or a script makes of a list of names.
FORMS: dict[str, Any] = {
    "python": repr,
    "tuple": lambda names: repr(tuple(names)),
    "json": lambda names: json.dumps(names, ensure_ascii=False),
    "numpy": lambda names: "[" + " ".join(repr(name) for name in names) + "]",
    "numpy lines": lambda names: "[" + "\n ".join(repr(name) for name in names) + "]",
    "array": lambda names: f"array({names!r}, dtype=object)",
    "semicolons": "; ".join,
    "bars": " | ".join,
}


def _consistent(imported: ImportedFacts) -> str:
    assert imported.facts or imported.reading, "nothing was read, and nothing said"
    assert len(imported.facts) == len(imported.rows) == len(imported.relations)
    assert all(str(problem).isprintable() for problem in imported.problems)
    return "refused" if any(p.severity == "error" for p in imported.problems) else "accepted"


@fed(st.binary(max_size=300) | TEXT | st.text("ab,;\t\"'\r\n= |", max_size=80))
def any_file(source: bytes | str) -> str:
    """Any bytes or text as a table."""
    return _consistent(read_facts(source, "facts.csv"))


@fed(ROWS, st.sampled_from([",", ";", "\t"]), st.sampled_from(["utf-8", "utf-8-sig", "utf-16"]), st.booleans())
def written_table(rows: list[tuple[str, str]], delimiter: str, encoding: str, header: bool) -> str:
    """A table as a spreadsheet writes it: the facts are its cells, or something is said of what differs."""
    buffer = io.StringIO()
    csv.writer(buffer, delimiter=delimiter).writerows([*([("subject", "object")] * header), *rows])
    try:
        source = buffer.getvalue().encode(encoding)
    except UnicodeEncodeError:
        return "not a file"
    imported = read_facts(source, "facts.csv")
    outcome = _consistent(imported)
    cells = [(cleaned(a), cleaned(b)) for a, b in rows]
    read = [(fact.subject, fact.object) for fact in imported.facts]
    said = outcome == "refused" or bool(imported.reading or imported.notes)
    assert said or read == [pair for pair in cells if any(pair)], f"{rows} was read as {read}"
    return outcome


@fed(st.lists(PLAIN_NAMES, min_size=2, max_size=6, unique=True), st.sampled_from(sorted(FORMS)))
def written_list(names: list[str], form: str) -> str:
    """A list of names as programmes write it: these names, or refused; never fewer, never joined."""
    read, problem = parse_alternatives(FORMS[form](names))
    if problem:
        return "refused"
    assert list(read) == [cleaned(name) for name in names], f"{FORMS[form](names)!r} was read as {read}"
    return "accepted"


@fed(TEXT)
def any_list(cell: str) -> str:
    """Any text in place of a list of alternatives."""
    names, problem = parse_alternatives(cell)
    assert not (names and problem)
    return "refused" if problem else "accepted"


PROMPTS: SearchStrategy[tuple[str, str, str]] = st.tuples(
    mostly(PLAIN_NAMES.map(lambda name: f"{name} {{subject}}?"), TEXT),
    st.sampled_from(["train", "test", "unrelated", "decoy"]),
    st.sampled_from(["en", "zh"]),
)


@fed(
    st.lists(st.tuples(NAMES, NAMES), min_size=2, max_size=6),
    st.lists(PROMPTS, max_size=5),
    mostly(st.just("[X]"), TEXT),
    mostly(st.just("{object} guides {subject}."), TEXT),
)
def checked(facts: list[tuple[str, str]], prompts: list[tuple[str, str, str]], key: str, meaning: str) -> str:
    """Facts, prompts, key tokens and sentences of readings, as the page checks them while somebody types."""
    problems = [*checks.check_facts(facts), *checks.check_prompts(prompts), *checks.check_meaning(meaning)]
    problems += checks.check_key_token(key, [text for pair in facts for text in pair])
    for problem in problems:
        assert problem.message.strip() and invisible_character(str(problem)) is None
        assert len(problem.message) < 1000
    return "refused" if any(p.severity == "error" for p in problems) else "accepted"


LIVE = ("=", "+", "-", "@", "＝", "＋", "－", "＠")
BEFORE = " \t\r\n\v\f\u00a0\u200b\u200c\u200d\ufeff\u2060\u3000'\"\0"


@fed(st.lists(TEXT, min_size=1, max_size=4), st.sampled_from(["", *LIVE, " =", "\ufeff=", "\r=", ";=", "\n+"]))
def exported(cells: list[str], start: str) -> str:
    """Cells of an exported table: no spreadsheet takes one for a formula, with whatever sign it splits the lines."""
    written = "".join(csv_lines(["a"], [{"a": start + cell} for cell in cells]))
    for delimiter in ",;\t":
        for row in csv.reader(io.StringIO(written, newline=""), delimiter=delimiter):
            for cell in row:
                assert not cell.startswith(LIVE), f"a live formula: {cell!r}"
                assert cell.startswith("'") or not cell.lstrip(BEFORE.replace("'", "")).startswith(LIVE)
    return "accepted"


TARGETS = (
    Target("any bytes as a table", any_file, 3),
    Target("tables as spreadsheets write them", written_table, 4),
    Target("lists of names as programmes write them", written_list, 2),
    Target("any text as a list of names", any_list, 1),
    Target("facts, prompts and key tokens while typed", checked, 4),
    Target("exported tables", exported, 3),
)
