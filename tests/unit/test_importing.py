"""Importing facts: whatever a person's file holds, nothing is lost in silence and everything wrong has its place."""

from __future__ import annotations

import random
import time

import pytest

from engine.corpus.importing import ImportedFacts, read_facts

PAIRS = [("Ann Bee", "Cy Dee"), ("Änne Öst", "李 小龙")]


def pairs(imported: ImportedFacts) -> list[tuple[str, str]]:
    return [(f.subject, f.object) for f in imported.facts]


def words(imported: ImportedFacts) -> list[str]:
    return [str(p) for p in imported.problems]


@pytest.mark.parametrize("separator", [",", ";", "\t"])
@pytest.mark.parametrize("header", ["", "subject{}object\n", "SUBJECT{}Object\n", "Head{}Fact\n"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_reads_every_separator_header_and_encoding(separator: str, header: str, encoding: str) -> None:
    text = header.format(separator) + "".join(f"{s}{separator}{o}\n" for s, o in PAIRS)
    imported = read_facts(text.encode(encoding), "facts.csv")
    assert pairs(imported)[0] == PAIRS[0]
    assert len(imported.facts) == 2
    assert not imported.problems
    assert imported.rows == ((2, 3) if header else (1, 2))


def test_utf_16_without_its_mark_is_recognised() -> None:
    imported = read_facts("subject;object\nAnn;Zoë\nBo;Cy\n".encode("utf-16-le"))
    assert pairs(imported) == [("Ann", "Zoë"), ("Bo", "Cy")]


def test_text_pasted_from_a_spreadsheet() -> None:
    imported = read_facts("Ann Bee\tCy Dee, of York\r\nEl Eff\tGee \r\n")
    assert pairs(imported) == [("Ann Bee", "Cy Dee, of York"), ("El Eff", "Gee")]
    assert not imported.problems and not imported.asked
    assert "‘Ann Bee’, ‘Cy Dee, of York’ in row 1 was read as a fact" in imported.notes[0]


def test_quotes_keep_separators_and_line_breaks() -> None:
    imported = read_facts('subject,object\n"Bee, Ann","Cy ""Red""\nDee"\n\nEl,Eff\n')
    assert pairs(imported) == [("Bee, Ann", 'Cy "Red" Dee'), ("El", "Eff")]
    assert imported.rows == (2, 4), "a spreadsheet shows the quoted cell as one row, and the blank row as one"
    assert imported.notes[0].startswith("1 name was read with single spaces")
    assert imported.notes[1:] == ("1 blank row left out",)


def test_an_unclosed_quotation_mark_swallows_nothing() -> None:
    imported = read_facts('Ann,"Cy\nBo,Dee\nEl,Eff\n')
    assert pairs(imported) == [("Ann", '"Cy'), ("Bo", "Dee"), ("El", "Eff")]
    assert words(imported)[0].startswith("row 1: a quotation mark is not closed")


def test_the_published_dataset() -> None:
    text = "Head,Fact,Alternate Facts,Text\n"
    text += (
        "Gene Finley,Cody Ross,\"['Ada Poe', 'Cody Ross Junior', 'Bob Hill', 'Bob Hill']\",Gene Finley [X] Cody Ross\n"
    )
    text += "Ann Bee,Cy Dee,\"['El Eff']\",…\n"
    imported = read_facts(text)
    assert pairs(imported) == [("Gene Finley", "Cody Ross"), ("Ann Bee", "Cy Dee")]
    assert imported.facts[0].alternatives == ("Ada Poe", "Bob Hill")
    assert imported.notes[0].startswith("2 alternatives left out")
    assert not imported.problems


@pytest.mark.parametrize(
    "cell", ["[" * 90_000, "['a', 3]", "[['a']]", "['a'", "__import__('os').system('x')", "[x for x in y]", "['a']*9"]
)
def test_a_list_of_alternatives_that_is_none(cell: str) -> None:
    imported = read_facts(f'Head,Fact,Alternate Facts\nA,Bee,"{cell}"\nC,Dee,\n')
    assert pairs(imported) == [("A", "Bee"), ("C", "Dee")]
    assert imported.facts[0].alternatives == ()
    assert words(imported)[0].startswith("row 2, alternatives: ")


def test_alternatives_between_bars() -> None:
    imported = read_facts("subject,object,alternatives\nA,Bee,Cy | Dee\nC,Dee,\n")
    assert imported.facts[0].alternatives == ("Cy", "Dee")


def test_a_relation_column_groups_the_facts() -> None:
    imported = read_facts("relation,subject,object\nmother,A,B\nauthor,A,C\nmother,D,E\nauthor,F,C\n")
    assert {name: len(facts) for name, facts in imported.by_relation.items()} == {"mother": 2, "author": 2}
    assert words(imported) == ["row 5, object: ‘C’ is the object of 2 facts (first in row 3): fine if that is meant"]


def test_a_header_with_one_known_column() -> None:
    imported = read_facts("Subject;Mother;Note\nA;B;x\nC;D;\n")
    assert pairs(imported) == [("A", "B"), ("C", "D")]
    assert "‘mother’ was read as the object" in imported.notes[0]
    assert "not used: ‘note’" in imported.notes[1]


def test_ragged_rows_are_named_as_the_file_shows_them() -> None:
    imported = read_facts("subject,object\nA,B\nC\n,D\nE,F,G\n")
    assert pairs(imported) == [("A", "B"), ("C", ""), ("", "D"), ("E", "F")]
    assert words(imported) == [
        "row 5: has 3 cells, where 2 are expected, and the rest was not read: "
        "is a name with a comma in it not in quotation marks?",
        "row 3, object: the cell is empty: fill it in or remove the row",
        "row 4, subject: the cell is empty: fill it in or remove the row",
    ]


def test_many_ragged_rows_do_not_bury_the_rest() -> None:
    imported = read_facts("subject,object\n" + "".join(f"s{i} a,o{i} b,x\n" for i in range(10, 90)))
    assert len(imported.reading) == 21
    assert str(imported.reading[-1]) == "and 60 more rows with such problems"


def test_three_columns_without_a_header_ask_for_one() -> None:
    imported = read_facts("A,mother,B\nC,mother,D\n")
    assert "there are 3 columns but no header" in words(imported)[0]


def test_formulas_and_markup_stay_text() -> None:
    cells = ["=HYPERLINK(1)", "+1", "-x", "@y", "<script>alert(1)</script>", "<b>z"]
    imported = read_facts("\n".join(f"{a}\t{b}" for a, b in zip(cells[::2], cells[1::2], strict=True)))
    assert [c for pair in pairs(imported) for c in pair] == cells


def test_characters_that_cannot_be_seen_are_named() -> None:
    imported = read_facts("A\u202eB,C\nD,E\x07\n\u200bF,G\n")
    assert [str(p).split(":")[0] for p in imported.problems] == ["row 1, subject", "row 2, object", "row 3, subject"]
    assert "right-to-left override" in words(imported)[0]
    assert pairs(imported)[0][0] == "A\u202eB", "kept for the person to mend"


def test_white_space_is_collapsed() -> None:
    assert pairs(read_facts("  A \u00a0 B ,C\u3000 D\nE,F\n"))[0] == ("A B", "C D")


@pytest.mark.parametrize(
    ("source", "says"),
    [
        (b"", "nothing in it"),
        (b"\n \n", "nothing in it"),
        (b"subject,object\n", "no fact below it"),
        (b"subject,object\n\n , \n", "no fact below it"),
        (b"PK\x03\x04\x14\x00", "Excel workbook"),
        (b"\xd0\xcf\x11\xe0\xa1\xb1", "old Excel"),
        (b"\x89PNG\r\n\x1a\n", "a picture"),
        (b"\x00\x01\x02\x03\x04\x05", "save it as CSV"),
        (b"A,B\nC,D\x00\n", "save it as CSV"),
        ("A,B\0", "null characters"),
        (b'[{"subject": "A"}]', "JSON"),
        (b"x" * 10_000_001, "10.0 MB, more than the 10 MB"),
        ("just one\ncolumn here\n", "only one column"),
    ],
)
def test_what_cannot_be_read_says_what_to_do(source: str | bytes, says: str) -> None:
    imported = read_facts(source, "facts.csv")
    assert says in words(imported)[0]
    assert ": " in words(imported)[0]


def test_ten_megabytes_take_seconds() -> None:
    words_ = [f"{a}{b}" for a in ("xo", "quo", "vu", "ri") for b in ("lan", "met", "sor", "pik", "tun")]
    names = [f"{a.title()} {b.title()}" for a in words_ for b in words_ if a != b]
    draw = random.Random(0)
    lines = ["Head,Fact,Alternate Facts"]
    while sum(map(len, lines[-1:])) * len(lines) < 9_500_000:
        lines.append(f'Subject {len(lines)},Object {len(lines)},"{draw.sample(names, 99)}"')
    data = "\n".join(lines).encode()[:9_990_000]
    began = time.process_time()
    imported = read_facts(data)
    assert len(imported.facts) > 4_000
    assert time.process_time() - began < 20, "2 s on an idle machine"


def test_a_relation_of_its_own_for_each_row_takes_no_time() -> None:
    rows = "\n".join(f"Ann {i},Bee {i},rel {i}" for i in range(15_000))
    imported = read_facts(f"subject,object,relation\n{rows}\n")
    began = time.process_time()
    assert len(imported.problems) == 15_000, "each has one fact alone"
    assert time.process_time() - began < 2, "some tenths of a second on an idle machine"
