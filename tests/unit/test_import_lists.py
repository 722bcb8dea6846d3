"""Lists of alternatives: read as they were meant or refused with their row, never joined into one name."""

from __future__ import annotations

import time

import pytest

from engine.corpus.import_cells import parse_alternatives
from engine.corpus.importing import read_facts

TWO = ("Ann A", "Ben B")


@pytest.mark.parametrize(
    "cell",
    [
        "['Ann A' 'Ben B']", "['Ann A'\n 'Ben B']", "['Ann A', 'Ben B',]", '["Ann A", "Ben B"]', "('Ann A', 'Ben B')",
        "('Ann A' 'Ben B')", "array(['Ann A', 'Ben B'], dtype=object)", "np.array(['Ann A',\n 'Ben B'], dtype='<U5')",
        "[np.str_('Ann A'), np.str_('Ben B')]", "Index(['Ann A', 'Ben B'], dtype='object')", "'Ann A', 'Ben B'",
        '"Ann A"; "Ben B"', "Ann A; Ben B", "Ann A;Ben B;", "Ann A | Ben B", "Ann A\nBen B", "- Ann A\n- Ben B",
        "Ann A\tBen B", "Ann A, Ben B", "Ann A，Ben B", "[None, 'Ann A', 'Ben B', nan]", "['Ann A', ' Ben  B', '']",
        "['Ann A' | 'Ben B']", "[u'Ann A', u'Ben B']", '["Ann A", null, "Ben B"]',
    ],
)  # fmt: skip
def test_every_way_to_write_two_names_is_two_names(cell: str) -> None:
    assert parse_alternatives(cell, 2) == (TWO, None)


@pytest.mark.parametrize(
    "cell", ["nan", "NaN", "None", "null", "<NA>", "", " ", "[]", "()", "set()", "[nan]", "[None]"]
)
def test_what_stands_for_nothing_is_no_name(cell: str) -> None:
    assert parse_alternatives(cell) == ((), None)


@pytest.mark.parametrize(
    ("cell", "names"),
    [
        ("['Smith, Anna' 'Jones, Berta']", ("Smith, Anna", "Jones, Berta")),
        ("Smith, Anna; Jones, Berta", ("Smith, Anna", "Jones, Berta")),
        ('"Smith, Anna", "Jones, Berta"', ("Smith, Anna", "Jones, Berta")),
        ("[\"O'Brien\" 'Ben B']", ("O'Brien", "Ben B")),
        (r"['O\'Brien', 'Zo\u00eb']", ("O'Brien", "Zoë")),
        (r'["M\u00fcller \"Red\""]', ('Müller "Red"',)),
        ("'t Hooft", ("'t Hooft",)),
        ("(unknown) | AC/DC", ("(unknown)", "AC/DC")),
        ("['None', 'Ben B', 'nan']", ("None", "Ben B")),
        ("['...', 'Ben B']", ("...", "Ben B")),
    ],
)
def test_signs_within_names_stay(cell: str, names: tuple[str, ...]) -> None:
    assert parse_alternatives(cell, 2) == (names, None)


@pytest.mark.parametrize(
    ("cell", "says"),
    [
        ("['Ann A' 'Ben B' ... 'Cid C']", "cut short"),
        ("['Ann A', 'Ben B' 'Cid C']", "not a list of names"),
        ("['Ann A''Ben B']", "not a list of names"),
        ("['Ann A'", "not a list of names"),
        ("Ann A']", "without its pair"),
        ("[Ann A, Ben B]", "not a list of names"),
        ("{'a': 'b'}", "more than names"),
        ('{"text": ["Ann A"]}', "more than names"),
        ("[['Ann A'], ['Ben B']]", "more than names"),
        ("['Ann A', 3]", "more than names"),
        ("deque(['Ann A'])", "not a list of names"),
        ("<StringArray>\n['Ann A', 'Ben B']\nLength: 2", "not a list of names"),
        ("Smith, Anna", "one name with a comma in it or several"),
        ('"Smith, Anna", Ben B', "one name with a comma in it or several"),
        ("Ann A; Ben B | Cid C", "both"),
        ("Ann A / Ben B", "one name or several"),
    ],
)
def test_what_is_not_clear_is_refused(cell: str, says: str) -> None:
    names, problem = parse_alternatives(cell, 2)
    assert not names and says in str(problem)
    imported = read_facts(f'subject,object,alternatives\nEl F,Gus H,"{cell.replace(chr(34), chr(34) * 2)}"\nI J,K L,\n')
    assert imported.facts[0].alternatives == ()
    assert str(imported.reading[0]).startswith("row 2, alternatives: ")


def test_commas_separate_only_where_names_have_none() -> None:
    table = 'subject;object;alternatives\nAnna;"{}";Berta, Carla\nDora;Emma;\n'
    assert read_facts(table.format("Fay")).facts[0].alternatives == ("Berta", "Carla")
    assert "at their commas: ‘Berta, Carla’ as 2 names" in " ".join(read_facts(table.format("Fay")).notes)
    assert "one name with a comma" in str(read_facts(table.format("Fay, Jr.")).problems[0])


@pytest.mark.parametrize(
    "cell",
    ["['" * 40_000, "(" * 90_000, "array(" * 15_000, '"a\\' * 30_000, "[" + "nan," * 24_000, "['a', " + " " * 90_000,
     "array(" + ", dtype=x" * 11_000, "['" + "\\'" * 45_000],
)  # fmt: skip
def test_a_hostile_list_takes_no_time(cell: str) -> None:
    began = time.process_time()
    parse_alternatives(cell)
    assert time.process_time() - began < 3, "a tenth of a second on an idle machine"
