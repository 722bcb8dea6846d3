"""What a file does not say of itself is asked, in words and with choices; an answer reads it again."""

from __future__ import annotations

import time
from dataclasses import replace

import pytest

from engine.corpus.importing import ImportChoices, ImportedFacts, read_facts

ROWS = [("Anna Smith", "Berta Jones"), ("Carl Doe", "Dora Roe")]
LINES = "".join(f"{s},{o}\n" for s, o in ROWS)


def pairs(imported: ImportedFacts) -> list[tuple[str, str]]:
    return [(f.subject, f.object) for f in imported.facts]


def errors(imported: ImportedFacts) -> list[str]:
    return [str(p) for p in imported.problems if p.severity == "error"]


@pytest.mark.parametrize(
    ("encoding", "name"),
    [
        ("cp1252", "Jürgen Weiß"), ("cp1250", "Łukasz Żółty"), ("cp1251", "Анна Иванова"), ("koi8_r", "Пётр Иванов"),
        ("cp1253", "Γιώργος Νίκος"), ("cp1254", "Şükrü İğne"), ("gb18030", "张伟"), ("cp932", "田中 太郎"),
        ("cp949", "김철수"), ("cp950", "陳大文"), ("mac_roman", "Zoë Ångström"), ("cp850", "Jürgen"),
    ],
)  # fmt: skip
def test_a_code_page_is_asked_and_never_guessed_in_silence(encoding: str, name: str) -> None:
    source = f"subject,object\n{name},Bee Cee\nDee,Eff Gee\n".encode(encoding)
    imported = read_facts(source, "x.csv")
    (question,) = imported.asked
    assert question.kind == "encoding"
    assert question.sentence in errors(imported)
    option = next(o for o in question.options if o.value == encoding)
    assert name.split()[-1] in option.sample, "a person sees which one is right"
    answered = read_facts(source, "x.csv", option.choices)
    assert not answered.asked and not errors(answered)
    assert pairs(answered)[0] == (name, "Bee Cee")


def test_a_wrong_or_unknown_code_page_is_refused_in_a_sentence() -> None:
    source = b"subject,object\nA\x81,B\nC,D\n"
    assert "cp1252" not in [o.value for o in read_facts(source).asked[0].options], "it has no such character"
    wrong = read_facts(source, "x.csv", ImportChoices(encoding="cp1252"))
    assert "a byte in line 2 (0x81) that is no character in cp1252" in errors(wrong)[0]
    for unknown in ("klingon", "rot13", "idna"):
        assert "choose another" in errors(read_facts(source, "x.csv", ImportChoices(encoding=unknown)))[0]
    marked = read_facts(b"\xef\xbb\xbfsubject,object\nA\xff,B\n")
    assert "(0xff) that is no character in utf-8" in errors(marked)[0]
    assert "UTF-16" in errors(read_facts(b"\xff\xfeA\0,\0B"))[0] or errors(read_facts(b"\xff\xfeA\0,\0B"))


def test_letters_that_were_lost_or_saved_wrongly_are_named_with_their_row() -> None:
    imported = read_facts("subject,object\nM\ufffdller,B C\nMÃ¼ller,Ð\x90Ð½Ð½Ð°\nJürgen Ñandú,D E\n")
    assert "row 2, subject: holds \ufffd" in errors(imported)[0]
    warned = [str(p) for p in imported.reading if p.severity == "warning"]
    assert "row 3, subject: ‘MÃ¼ller’ seems to be ‘Müller’" in warned[0]
    assert "‘Анна’" in warned[1] and len(warned) == 2


@pytest.mark.parametrize(
    "first",
    ["sep=;\n", "SEP=;\r\n", '"sep=;"\n', "\ufeffsep=;\n", "sep=;;\n"],
)
def test_the_line_that_names_the_separator_is_no_row(first: str) -> None:
    imported = read_facts((first + "subject;object\n" + LINES.replace(",", ";")).encode())
    assert pairs(imported) == ROWS and not imported.problems
    assert imported.rows == (2, 3), "as a spreadsheet counts"


def test_titles_above_the_header_are_left_out_and_said() -> None:
    imported = read_facts("My facts,\n,\nsubject,object\n" + LINES)
    assert pairs(imported) == ROWS and not imported.problems
    assert "above row 3 this was left out: ‘My facts’" in imported.notes[0]
    asked = read_facts("Eve Fox,Gil Hay\nsubject,object\n" + LINES)
    assert asked.asked[0].kind == "header" and errors(asked), "what could be a fact is not left out in silence"
    untitled = read_facts("My facts\n\n" + LINES)
    assert untitled.asked[0].kind == "header" and pairs(untitled) == ROWS


@pytest.mark.parametrize(
    "header",
    [
        "Question,Answer", "name,mother", "Mutter,Kind", "person_name,mother_name", "Q,A", "PERSON,PARENT",
        "Entity:,Value:", "问题,答案", "fluss,land", "Head,Answer 1",
    ],
)  # fmt: skip
@pytest.mark.parametrize("as_file", [True, False])
def test_an_unknown_header_is_asked_of_files_and_of_pasted_text(header: str, as_file: bool) -> None:
    text = f"{header}\n{LINES}"
    imported = read_facts(text.encode() if as_file else text)
    if header.startswith("Head"):
        assert pairs(imported) == ROWS and "‘answer 1’ was read as the object" in imported.notes[0]
        return
    (question,) = imported.asked
    assert question.kind == "header" and question.sentence in errors(imported)
    by_value = {o.value: read_facts(text, "", o.choices) for o in question.options}
    assert pairs(by_value["header"]) == ROWS
    assert pairs(by_value["turned"]) == [(o, s) for s, o in ROWS]
    assert pairs(by_value["fact"]) == [tuple(header.split(",")), *ROWS]
    assert not errors(by_value["header"]) and not by_value["fact"].asked


def test_rows_without_a_header_are_facts_and_said() -> None:
    for source in (LINES, LINES.encode()):
        imported = read_facts(source)
        assert pairs(imported) == ROWS and not imported.asked
        assert "‘Anna Smith’, ‘Berta Jones’ in row 1 was read as a fact" in imported.notes[0]
        assert pairs(read_facts(source, "", ImportChoices(header=True))) == ROWS[1:]


def test_columns_are_chosen_where_there_are_more_than_two() -> None:
    text = "year,person,mother\n1,Anna Smith,Berta Jones\n2,Carl Doe,Dora Roe\n"
    imported = read_facts(text)
    assert [q.kind for q in imported.asked] == ["header", "columns"]
    columns = imported.asked[1]
    assert [(o.value, o.label, o.sample) for o in columns.options][1] == ("2", "‘person’", "Anna Smith")
    answered = read_facts(text, "", ImportChoices(header=True, columns={"subject": 2, "object": 3}))
    assert pairs(answered) == ROWS and not errors(answered)
    assert answered.taken == ImportChoices(None, ",", 1, True, {"subject": 2, "object": 3})
    for wrong in (
        {"subject": 1},
        {"subject": 1, "object": 1},
        {"subject": 1, "object": 9},
        {"subject": 0, "object": 2},
    ):
        assert errors(read_facts(text, "", ImportChoices(header=True, columns=wrong)))


def test_two_columns_of_one_name_are_asked() -> None:
    imported = read_facts("subject,object,object\nA B,C D,x y\nE F,G H,z w\n")
    assert [q.kind for q in imported.asked] == ["columns"]


def test_a_separator_is_asked_where_two_would_do() -> None:
    text = "Smith, Anna;Jones, Berta\nDoe, Carl;Roe, Dora\n"
    imported = read_facts(text)
    (question,) = imported.asked
    assert question.kind == "delimiter"
    answered = {o.value: read_facts(text, "", o.choices) for o in question.options}
    assert pairs(answered[";"]) == [("Smith, Anna", "Jones, Berta"), ("Doe, Carl", "Roe, Dora")]
    assert not errors(answered[";"])
    assert errors(read_facts(text, "", ImportChoices(delimiter="ab")))


def test_names_with_commas_in_quotes_after_a_space_stay_whole() -> None:
    imported = read_facts('subject, object\n"Smith, Anna", "Jones, Berta"\n"Doe, Carl", "Roe, Dora"\n')
    assert pairs(imported) == [("Smith, Anna", "Jones, Berta"), ("Doe, Carl", "Roe, Dora")]


@pytest.mark.parametrize("row", ["Smith, Anna,Jones, Berta", "“Smith, Anna”,“Jones, Berta”"])
def test_names_with_commas_without_quotes_are_errors_of_their_rows(row: str) -> None:
    imported = read_facts(f"subject,object\n{row}\n{row.replace('Smith', 'Doe').replace('Jones', 'Roe')}\n")
    assert [e.split(":")[0] for e in errors(imported)][:2] == ["row 2", "row 3"]


def test_relations_that_differ_in_case_and_spaces_are_one() -> None:
    imported = read_facts("relation,subject,object\nMother ,A B,C D\nmother,E F,G H\n MOTHER,I J,K L\n,M N,O P\n")
    assert list(imported.by_relation) == ["Mother", ""]
    assert "‘mother’ was read as ‘Mother’, the same relation" in imported.notes
    assert "row 5, relation: the cell is empty" in errors(imported)[0]


@pytest.mark.parametrize("source", [",", ",\n,\n", '""\n""', b",", b"\xef\xbb\xbf", "\ufeff", "sep=;\n", ";;;\n"])
def test_a_file_of_nothing_says_so(source: str | bytes) -> None:
    assert errors(read_facts(source)) == ["there is nothing in it: give one row for each fact"]


def test_answers_add_up() -> None:
    source = "Name;Mutter\nJürgen Weiß;Zoë Öst\nAnna Smith;Berta Jones\n".encode("cp1252")
    first = read_facts(source)
    assert {q.kind for q in first.asked} == {"encoding", "header"}
    encoding = next(q for q in first.asked if q.kind == "encoding")
    choices = next(o for o in encoding.options if o.value == "cp1252").choices
    (header,) = read_facts(source, "", choices).asked
    done = read_facts(source, "", header.options[0].choices)
    assert not errors(done) and pairs(done)[0] == ("Jürgen Weiß", "Zoë Öst")
    assert done.preview[1] == ("Jürgen Weiß", "Zoë Öst")
    assert replace(done.taken, columns=None) == ImportChoices("cp1252", ";", 1, True)


def test_a_large_file_in_a_code_page_is_asked_about_in_seconds() -> None:
    source = b"subject,object\n" + "".join(f"Änne {i},Öst {i}x\n" for i in range(20_000)).encode("cp1252")
    began = time.process_time()
    assert read_facts(source).asked
    assert time.process_time() - began < 10, "half a second on an idle machine"


@pytest.mark.parametrize("cell", ["nan", "NaN", "None", "null", "#N/A"])
def test_what_other_programmes_write_into_empty_cells_is_a_warning(cell: str) -> None:
    (problem,) = read_facts(f"subject,object\nA B,{cell}\nC D,E F\n").problems
    assert problem.severity == "warning" and str(problem).startswith("row 2, object: ")
