"""The columns of an imported table: its header, and what stands where, found or asked."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace

from engine.checks import Problem, clean, shorten
from engine.corpus.import_choices import ROLES, ImportOption
from engine.corpus.import_table import COLUMN_NAMES, DELIMITERS, Table, roles_of, trimmed

_WORDS = """
    key value id no nr number index question questions query prompt input source from name names
    person people persons entity entities item items label title titel topic answer answers output response
    target to result completion text first second column mother father parent parents child children spouse
    husband wife sibling brother sister author writer composer director painter artist work works book song film
    movie capital country city state birthplace place genre language employer company founder school university
    profession occupation born author's frage antwort mutter vater kind autor autorin werk buch land hauptstadt
    stadt wert schlüssel begriff pregunta respuesta nombre madre padre obra libro país ciudad nom réponse mère
    père auteur œuvre livre pays ville subj obj subjects objects sujet objet sujeto objeto subjekt objekt вопрос
    ответ имя мать отец автор 问题 答案 姓名 名字 母亲 父亲 作者 作品 国家 首都 主语 宾语 質問 答え 回答 名前 母 父 著者
    国
"""
# Words that stand above columns. They make a question, never a decision: ‘Mother’ may be a band.
HEADINGS = frozenset(_WORDS.split())
_COMPARED_ROWS = 50
_ROWS_BEFORE_A_HEADER = 10


def find_columns(table: Table) -> None:
    """Fill in `positions`, `width` and `first`, the first record below the header; ask what is not clear."""
    asking, choices = table.asking, table.asking.choices
    start = table.first if choices.first_row is None else max(0, choices.first_row - 1)
    if start >= len(table.records):
        table.problems.append(Problem(f"there is no row {start + 1}: choose another first row"))
        start = table.first
    known = roles_of(table.records[start])
    if choices.first_row is None and choices.header is None and not known.keys() & {"subject", "object"}:
        start, known = _look_below(table, start)
    _leave_out_above(table, start)
    header = bool(known.keys() & {"subject", "object"})
    if choices.header is not None:
        header = choices.header
        known = known if header else {}
    elif not header:
        header = _ask_for_header(table, start)
    asking.take(first_row=start + 1, header=header)
    table.width = max(2, len(trimmed(table.records[start])) if header else table.usual_width)
    if choices.columns is not None:
        _take_columns(table, choices.columns)
    else:
        _place_columns(table, known if header else {}, header)
    asking.take(columns={role: place + 1 for role, place in table.positions.items()})
    if header:
        names = [clean(cell).casefold() for cell in table.records[start]]
        unused = [c for i, c in enumerate(names) if c and i not in table.positions.values() and c != "text"]
        if unused:
            table.notes.append("columns that are not used: " + ", ".join(f"‘{shorten(c)}’" for c in unused[:10]))
        table.first += 1
    elif choices.header is None:
        row = f"{table.quoted(start, 2)} in row {start + 1} was read as a fact"
        sign = DELIMITERS.get(asking.taken.delimiter or "", asking.taken.delimiter)
        table.notes.append(f"no header with ‘subject’ and ‘object’, so {row}, and the {sign} as the sign between cells")


def _look_below(table: Table, start: int) -> tuple[int, dict[str, int]]:
    """Where the header stands below titles, and its columns; otherwise the first row that has as many cells as most."""
    for row in range(start + 1, min(len(table.records), start + _ROWS_BEFORE_A_HEADER + 1)):
        known = roles_of(table.records[row])
        if {"subject", "object"} <= known.keys():
            return row, known
    if table.usual_width > 1:
        for row in range(start, min(len(table.records), start + _ROWS_BEFORE_A_HEADER)):
            if sum(bool(cell.strip()) for cell in table.records[row]) > 1:
                return row, {}
    return start, {}


def _leave_out_above(table: Table, start: int) -> None:
    """Say which rows above `start` are left out; ask when they could be facts."""
    above = [row for row in range(table.first, start) if trimmed(table.records[row])]
    choices = table.asking.choices
    table.first = start
    if not above:
        return
    said = "; ".join(table.quoted(row, 2) for row in above[:3])
    table.notes.append(f"above row {start + 1} this was left out: {said}{'; …' if len(above) > 3 else ''}")
    if choices.first_row is not None or choices.header is not None:
        return
    titles = all(sum(bool(cell.strip()) for cell in table.records[row]) < 2 for row in above)
    if titles and {"subject", "object"} <= roles_of(table.records[start]).keys():
        return
    taken = bool(roles_of(table.records[start]).keys() & {"subject", "object"})
    options = [
        ImportOption(f"row {start + 1} is the header", "here", replace(choices, first_row=start + 1, header=True)),
        ImportOption(f"row {start + 1} is the first fact", "fact", replace(choices, first_row=start + 1, header=False)),
        ImportOption(
            f"row {above[0] + 1} is the first fact", "top", replace(choices, first_row=above[0] + 1, header=False)
        ),
    ]
    sentence = f"the table seems to begin in row {start + 1}, {table.quoted(start)}: say what that row is"
    looks = taken or looks_like_heading(table, start)
    table.asking.ask("header", sentence, options, "here" if looks else "fact")


def _ask_for_header(table: Table, start: int) -> bool:
    """Whether the first row is taken for a header for now; asked where it looks like one."""
    already = next((q for q in table.asking.asked if q.kind == "header"), None)
    if already:
        return already.guess == "here"
    if not looks_like_heading(table, start):
        return False
    choices = replace(table.asking.choices, first_row=start + 1)
    cells = [f"‘{shorten(clean(cell))}’" for cell in trimmed(table.records[start])]
    options = []
    if len(cells) == 2 and table.asking.choices.columns is None:
        for value, (subject, object_) in (("header", (0, 1)), ("turned", (1, 0))):
            label = f"a header: {cells[subject]} is the subject, {cells[object_]} the object"
            columns = {"subject": subject + 1, "object": object_ + 1}
            options.append(ImportOption(label, value, replace(choices, header=True, columns=columns)))
    else:
        options.append(ImportOption("a header", "header", replace(choices, header=True)))
    options.append(ImportOption("a fact", "fact", replace(choices, header=False)))
    sentence = f"row {start + 1}, {table.quoted(start)}, may be a header or a fact: say which it is"
    table.asking.ask("header", sentence, options, "header")
    return True


def looks_like_heading(table: Table, start: int) -> bool:
    """Whether a row differs from those below it as headings do: known words, fewer words, other case, other signs."""
    first = [clean(cell) for cell in table.records[start][:6]]
    below = [[clean(c) for c in r[:6]] for r in table.records[start + 1 : start + 1 + _COMPARED_ROWS] if trimmed(r)]
    columns = [[r[i] for r in below if i < len(r) and r[i]] for i in range(min(2, len(first)))]
    for cell, column in zip(first, columns, strict=False):
        word = re.sub(r"^[\W_\d]+|[\W_\d]+$", "", cell.casefold())
        parts = {word, *(re.split(r"[\s_.\-]+", word) if "_" in cell else ())}
        known = parts & HEADINGS or any(parts & names for names in COLUMN_NAMES.values())
        alone = len(word) == 1 and column and all(len(c) > 1 for c in column)
        if (known or alone) and cell not in column:
            return True
    if len(below) < 2 or not all(columns) or not all(first[:2]):
        return False
    pairs = list(zip(first, columns, strict=False))
    fewer = all(len(cell.split()) < min(len(c.split()) for c in column) for cell, column in pairs)
    lower = any(cell.islower() and not any(c.islower() for c in column) for cell, column in pairs)
    upper = all(cell.isupper() and not any(c.isupper() for c in column) for cell, column in pairs)
    signs = any(re.search(r"[_:#]", cell) and not any(re.search(r"[_:#]", c) for c in column) for cell, column in pairs)
    return fewer or lower or upper or signs


def _take_columns(table: Table, columns: Mapping[str, int]) -> None:
    chosen = dict(columns)
    places = list(chosen.values())
    if not {"subject", "object"} <= chosen.keys() or not chosen.keys() <= set(ROLES):
        table.problems.append(Problem("choose a column for the subject and one for the object"))
    elif len(set(places)) < len(places) or any(place < 1 for place in places):
        table.problems.append(Problem("every column can be chosen once: choose another column for one of them"))
    elif max(places) > table.width:
        table.problems.append(Problem(f"there is no column {max(places)}: most rows have {table.width} cells"))
    else:
        table.positions = {role: place - 1 for role, place in chosen.items()}
        return
    table.positions = {"subject": 0, "object": 1}


def _place_columns(table: Table, known: dict[str, int], header: bool) -> None:
    """Known columns where the header names them, the rest from the left; asked where more than one way is open."""
    names = [clean(cell).casefold() for cell in table.records[table.first]] if header else []
    roles = [role for role in ROLES for name in names if name in COLUMN_NAMES[role]]
    doubled = [role for role in ("subject", "object", "alternatives", "relation") if roles.count(role) > 1]
    missing = [role for role in ("subject", "object") if role not in known]
    table.positions = dict(known)
    for role in missing:
        free = next(i for i in range(len(table.positions) + 1) if i not in table.positions.values())
        table.positions[role] = free
    if not header and table.usual_width < 2:
        message = "only one column was found: put a comma, semicolon or tab between subject and object"
        table.problems.append(Problem(message))
        return
    if len(missing) == 1:
        other = {"subject": "object", "object": "subject"}[missing[0]]
        place = table.positions[missing[0]]
        called = f"‘{shorten(names[place])}’" if place < len(names) and names[place] else f"column {place + 1}"
        table.notes.append(f"the header has ‘{other}’ but no ‘{missing[0]}’: {called} was read as the {missing[0]}")
    if doubled or (missing and table.width > 2):
        _ask_for_columns(table, names, header)


def _ask_for_columns(table: Table, names: Sequence[str], header: bool) -> None:
    shown = next((r for r in table.records[table.first + header :] if trimmed(r)), [])
    options = []
    for i in range(min(table.width, 50)):
        label = f"‘{shorten(names[i])}’" if i < len(names) and names[i] else f"column {i + 1}"
        sample = shorten(clean(shown[i])) if i < len(shown) else ""
        options.append(ImportOption(label, str(i + 1), table.asking.choices, sample))
    at = table.positions
    no_header = "" if header else " but no header"
    sentence = (
        f"there are {table.width} columns{no_header}: choose which one is the subject and which the object, "
        "or write ‘subject’ and ‘object’ (and ‘relation’) above the columns"
    )
    table.asking.ask("columns", sentence, options, f"{at['subject'] + 1}, {at['object'] + 1}")
