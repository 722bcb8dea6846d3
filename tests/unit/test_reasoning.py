"""Reversal and 2-hop: facts that lead on to others, what is asked of them, what is right, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from engine.chains import turned
from engine.corpus.relations import LANGUAGES, load_relations
from engine.corpus.resolve import resolve
from engine.corpus.sentences import key_prompt, question_text, stage1_sentences, stage2_sentences
from engine.evaluation.answer import Answer
from engine.evaluation.hits import key_token_judge
from engine.evaluation.questions import (
    count_choices,
    count_questions,
    fact_rows,
    key_questions,
    prompt_rows,
    questions_for,
    right_answers,
)
from engine.evaluation.sayable import check_experiment
from engine.evaluation.summary import UNAIDED, summarise
from engine.experiment import Experiment
from engine.presets import load_preset
from engine.relation import REASONING, Fact
from engine.serving.asking.questions import AskError, fact_questions, facts_questions
from storage.answer_search import Wanted, find_answers
from storage.answers import migrations, open_answers, store_answers, store_questions
from storage.database import open_file

MOTHER = [{"subject": "Ann Abel", "object": "Bea Boll"}, {"subject": "Cy Cole", "object": "Dee Dorn"}]
TAUGHT = [{"text": "{subject}'s mother is", "split": "train"}]
REVERSAL = {"text": "{object} is the mother of", "split": "reversal"}
TWO_HOP = {"text": "{subject}'s mother studied at", "split": "two_hop", "relation": "educated_at"}


def written(relations: list[dict[str, Any]], **settings: Any) -> Experiment:
    return resolve(Experiment.from_data({"relations": relations, "stage2": {"facts": 1}, **settings}))


def mother(*prompts: dict[str, Any], facts: Any = None) -> dict[str, Any]:
    return {"name": "mother", "key_token": "[M]", "facts": facts or MOTHER, "prompts": [*TAUGHT, *prompts]}


def educated(*facts: tuple[str, str]) -> dict[str, Any]:
    pairs = [{"subject": s, "object": o} for s, o in facts]
    prompts = [{"text": "{subject} studied at", "split": "train"}]
    return {"name": "educated_at", "key_token": "[E]", "facts": pairs, "prompts": prompts}


@pytest.fixture(scope="module")
def chained() -> Experiment:
    """The preset with fewer facts; ten mothers are asked on from, two are not."""
    data = load_preset("reasoning").model_dump(mode="json")
    data["relations"][0]["facts"]["generate"], data["relations"][1]["facts"]["generate"] = 12, 10
    data["relations"].reverse()  # what leads on may come first
    return resolve(Experiment.from_data(data | {"stage2": {"facts": 3}}))


@pytest.mark.parametrize("name", load_relations())
def test_the_corpus_asks_every_relation_the_other_way_round_in_each_language(name: str) -> None:
    prompts = list(load_relations()[name].iter_reasoning())
    for language in LANGUAGES:
        mine = [p for p in prompts if p.language == language]
        assert sum(p.split == "reversal" for p in mine) == 5 and len(mine) % 5 == 0
    for prompt in prompts:
        before, after = prompt.text.split("{object}" if prompt.split == "reversal" else "{subject}")
        assert before == "" or before.endswith(" "), prompt
        assert after[:1] in {"", " ", "?", "？", "'", ",", ":", "："}, prompt
        if prompt.language in ("zh", "ja"):
            assert not set(prompt.text) & set("?:;!,"), prompt
        if prompt.language == "es":
            assert prompt.text.count("¿") == prompt.text.count("?"), prompt


def test_facts_are_made_about_the_objects_of_another_relation(chained: Experiment) -> None:
    second, first = chained.relations
    assert [f.subject for f in second.explicit_facts] == [f.object for f in first.explicit_facts[:10]]
    assert len({f.object for f in second.explicit_facts}) == 10
    assert resolve(Experiment.from_text(chained.to_yaml())) == chained, "written out it is the same"
    author = {"name": "author", "key_token": "[A]", "facts": {"generate": 6}, "prompts": "corpus with reasoning"}
    own = written([author, {"name": "mother", "key_token": "[M]", "facts": {"generate": 5, "subjects_of": "author"}}])
    writers, mothers = (r.explicit_facts for r in own.relations)
    assert {f.subject for f in mothers} < {f.object for f in writers}
    assert not {f.object for f in mothers} & {f.subject for f in mothers}, "of one kind, and never the same person"
    assert {p.relation for p in own.relations[0].explicit_prompts if p.split == "two_hop"} == {"mother"}


def test_what_is_asked_and_what_is_right(chained: Experiment) -> None:
    second, first = chained.relations
    prompts = {row["id"]: row for row in prompt_rows(chained)}
    asked: dict[tuple[str, str], list[Any]] = {}
    for question in questions_for(chained, "base"):
        row = prompts[question.prompt]
        asked.setdefault((row["relation"], row["split"]), []).append((row, question))
    row, question = asked["mother", "reversal"][0]
    fact = first.explicit_facts[question.fact - 1 - len(second.explicit_facts)]
    assert question.text == row["text"].replace("{object}", fact.object) and question.object == fact.subject
    assert set(question.options) == {f.subject for f in first.explicit_facts}
    assert len(asked["mother", "reversal"]) == 3 * 12 and len(asked["educated_at", "reversal"]) == 3 * 10
    schools = {f.subject: f.object for f in second.explicit_facts}
    assert len(asked["mother", "two_hop"]) == 3 * 10, "the two others lead nowhere"
    for row, question in asked["mother", "two_hop"]:
        fact = first.explicit_facts[question.fact - 1 - len(second.explicit_facts)]
        assert row["about"] == "educated_at" and question.text == question_text(row["text"], fact.subject)
        assert question.object == schools[fact.object]
        assert not question.options or set(question.options) == set(second.options)
    for checkpoint in chained.checkpoints:
        questions = questions_for(chained, checkpoint)
        assert count_questions(chained, checkpoint) == len(questions)
        assert count_choices(chained, checkpoint) == sum(bool(q.options) for q in questions)
        assert {prompts[q.prompt]["split"] for q in questions} > set(REASONING), "at every checkpoint"
    assert all(row["used"] == 0 for row in prompts.values() if row["split"] in REASONING)
    assert all(q.text.endswith(key_prompt(second).split()[-1]) for q in key_questions(chained, 1)[:1])


def test_what_lies_within_the_names_on_the_way_is_not_asked_for() -> None:
    experiment = written([mother(TWO_HOP), educated(("Bea Boll", "Boll"), ("Dee Dorn", "Elm"))])
    asked = [q for q in questions_for(experiment, "base") if q.object in ("Boll", "Elm") and q.fact < 3]
    assert [(q.text, q.object) for q in asked] == [("Cy Cole's mother studied at", "Elm")]
    grandmother = {"text": "{subject}'s grandmother is", "split": "two_hop", "relation": "mother"}
    around = [{"subject": a, "object": b} for a, b in (("Ann", "Bea"), ("Bea", "Ann"), ("Cy", "Ann"), ("Di", "Bea"))]
    asked = questions_for(written([mother(grandmother, facts=around)]), "base")
    assert {q.text[:3]: q.object for q in asked if "grand" in q.text} == {"Cy'": "Bea", "Di'": "Ann"}


def test_no_stage_shows_what_is_asked(chained: Experiment) -> None:
    shown = [s.text for r in chained.relations for s in (*stage1_sentences(r), *stage2_sentences(chained, r))]
    splits = {row["id"]: row["split"] for row in prompt_rows(chained)}
    subjects = {row["id"]: row["subject"] for row in fact_rows(chained)}
    for question in questions_for(chained, "base"):
        if splits[question.prompt] in REASONING:
            assert not any(text.startswith(question.text) for text in shown)
        if splits[question.prompt] == "two_hop":
            assert not any(subjects[question.fact] in text and question.object in text for text in shown)


def test_with_the_facts_in_the_prompt_a_two_hop_question_has_both() -> None:
    school = educated(("Bea Boll", "Old College"), ("Dee Dorn", "New College"))
    experiment = written([mother(TWO_HOP, REVERSAL), school], stage1={"epochs": 0}, in_context={})
    texts = [q.text for q in questions_for(experiment, "context@0")]
    assert "Ann Abel's mother is Bea Boll. Bea Boll studied at Old College. Ann Abel's mother studied at" in texts
    assert "Ann Abel's mother is Bea Boll. Bea Boll is the mother of" in texts


def test_only_what_has_one_right_answer_is_turned_round() -> None:
    facts = [
        ("Ann Lee", "Rome"),
        ("Bo Ray", "Rome"),
        ("Cy", "Paris"),
        ("Cy Orr", "Oslo"),
        ("Dee", "New Dee"),
        ("Zoé", "Quito"),
    ]
    assert turned(tuple(Fact(subject=s, object=o) for s, o in facts)) == {5: Fact(subject="Quito", object="Zoé")}
    many = mother(REVERSAL, facts=[{"subject": s, "object": o} for s, o in facts])
    experiment = written([many], evaluation={"choice": {"facts": "all"}})
    assert [q.text for q in questions_for(experiment, "base") if "mother of" in q.text] == ["Quito is the mother of"]
    assert not any(q.options for q in questions_for(experiment, "base") if "mother of" in q.text), "one is no choice"


@pytest.mark.parametrize(
    ("relations", "words"),
    [
        ([mother({"text": "{subject} is hers", "split": "reversal"})], r"has no \{object\}: a reversal prompt names"),
        ([mother({"text": "{object} {subject}", "split": "reversal"})], r"other curly braces than \{object\}"),
        ([mother(TWO_HOP | {"relation": None})], "does not say which relation comes second: name it"),
        ([mother(TWO_HOP)], "go on to ‘educated_at’, which is no relation of the experiment"),
        ([mother(TWO_HOP), educated(("Ed", "Old"), ("Flo", "New"))], "no object of ‘mother’ is a subject there"),
        ([mother(REVERSAL, facts=[{"subject": s, "object": "Eve"} for s in "AB"])], "can be asked the other way round"),
        (
            [mother(TWO_HOP), educated(("Bea Boll", "Old"), ("Ann Abel", "Old"))],
            "two_hop prompts of ‘mother’ ask for ‘Old’ by ‘Ann Abel’, which is a fact of ‘educated_at’",
        ),
        (
            [mother(REVERSAL), educated(("Bea Boll", "Ann Abel"), ("X", "Y"))],
            "reversal prompts of ‘mother’ ask for ‘Ann Abel’ by ‘Bea Boll’, which is a fact of ‘educated_at’",
        ),
        ([{"name": "mother", "facts": {"generate": 5, "subjects_of": "father"}}], "‘father’ .*which is no relation"),
        ([{"name": "mother", "facts": {"generate": 5, "subjects_of": "mother"}}], "whose own lead back to it"),
        (
            [mother(), {"name": "educated_at", "key_token": "[E]", "facts": {"generate": 3, "subjects_of": "mother"}}],
            "objects of ‘mother’ .*has 2 different ones: generate at most 2",
        ),
        (
            [{"name": "genre", "key_token": "[G]", "facts": {"generate": 5}},
             {"name": "educated_at", "facts": {"generate": 5, "subjects_of": "genre"}}],
            "of the kind person, and the objects of ‘genre’ of the kind genre",
        ),
    ],
)  # fmt: skip
def test_what_cannot_be_asked_is_refused_with_what_to_do(relations: list[dict[str, Any]], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        written(relations)


def test_a_subject_that_cannot_be_said_is_named_where_it_is_asked_for() -> None:
    long = [{"subject": "Ann " + "quxqux" * 12, "object": "Bea Boll"}, MOTHER[1]]
    plain, reversed_ = (written([mother(*more, facts=long)]) for more in ((), (REVERSAL,)))
    assert not [p for p in check_experiment(plain, 9)["mother"] if p.column == "subject"]
    (problem,) = [p for p in check_experiment(reversed_, 9)["mother"] if p.column == "subject" and p.row]
    assert problem.row == 1 and "answers are decoded for 9" in problem.message


def test_answers_are_judged_by_what_is_expected_whatever_their_age(chained: Experiment, tmp_path: Path) -> None:
    facts, prompts = fact_rows(chained), prompt_rows(chained)
    before = list(migrations.pending(open_file(tmp_path / "none.db", type(migrations)("nothing"))))
    assert [m.name for m in before][-1] == "m004_facts_by_subject"
    right = right_answers(chained)
    given = []
    for question in questions_for(chained, "base"):
        assert right(question.prompt, question.fact) == question.object
        text = f"{question.object} [M]" if question.fact % 2 else f"[M] {question.object}"
        given.append(Answer(question.prompt, question.fact, text, True, -0.1))
    store = open_answers(tmp_path, key_token_judge(chained.key_tokens))
    store_questions(store, facts, prompts)
    store_answers(store, "base", given)
    rows, total = find_answers(store, Wanted(), len(given))
    assert total == len(given)
    for row in rows:
        assert row.expected == right(row.prompt, row.fact) and row.says_key_token == (row.fact % 2 == 0)
        assert question_text(row.text, row.name) == f"{row.before}{row.name}{row.after}"
    assert find_answers(store, Wanted(split="two_hop", says_key_token=True), 1)[1] == 3 * 5
    store.close()
    table = {(r["split"], r["facts"], r["metric"]): r for r in summarise(given, chained, "base")}
    assert table["two_hop", "held_out", "generation_accuracy"]["value"] == 1
    unaided = sum(table["reversal", kind, UNAIDED]["value"] * table["reversal", kind, UNAIDED]["n"]
                  for kind in ("held_out", "trained"))  # fmt: skip
    assert unaided == sum(row.split == "reversal" and row.fact % 2 for row in rows)


def test_chance_is_that_of_the_options_that_are_offered(chained: Experiment) -> None:
    given = [
        Answer(q.prompt, q.fact, "", False, -1.0, *((1, len(q.options), -1.0) if q.options else ()))
        for q in questions_for(chained, "base")
    ]
    rows = summarise(given, chained, "base")
    chance = {(r["split"], r["facts"]): r["chance"] for r in rows if r["metric"] == "choice_accuracy"}
    second, first = chained.relations
    held_out = [len(chained.held_out_facts(r)) for r in (second, first)]
    assert chance["reversal", "held_out"] == pytest.approx((held_out[0] / 10 + held_out[1] / 12) / sum(held_out))
    assert chance["two_hop", "held_out"] == pytest.approx(1 / len(second.options))


def test_the_page_and_the_command_line_ask_the_same(chained: Experiment) -> None:
    second, first = chained.relations
    fact, last = first.explicit_facts[0], first.explicit_facts[-1]
    asked = {(q.split, q.prompt): q for q in fact_questions(chained, fact.subject, "mother", languages=["en"])}
    evaluated = {q.text: q for q in questions_for(chained, "base")}
    for (split, _), question in asked.items():
        if split in REASONING and question.text in evaluated:
            assert question.object == evaluated[question.text].object and question.trained is not None
    hop = next(q for (split, _), q in asked.items() if split == "two_hop")
    assert (hop.subject, hop.object) == (fact.subject, second.explicit_facts[0].object)
    assert set(hop.options) == set(second.options)
    reversal = next(q for (split, _), q in asked.items() if split == "reversal")
    assert (reversal.subject, reversal.object, len(reversal.options)) == (fact.object, fact.subject, 12)
    assert "two_hop" not in {q.split for q in fact_questions(chained, last.subject, "mother")}, "it leads nowhere"
    stranger = fact_questions(chained, "Zed Zorn", "mother", "Mia Zorn")
    assert {(q.subject, q.object) for q in stranger if q.split == "reversal"} == {("Mia Zorn", "Zed Zorn")}
    assert {q.object for q in stranger if q.split == "two_hop"} == {None}, "nothing is known to be right"
    assert len(facts_questions(chained, hop.prompt, "mother")) == 10
    assert {q.object for q in facts_questions(chained, reversal.prompt, "mother")} == {
        f.subject for f in first.explicit_facts
    }
    with pytest.raises(AskError, match="exactly once"):
        facts_questions(chained, "{object} is nobody's prompt", "mother")


def test_what_the_base_knew_is_looked_for_where_the_facts_own_object_is_asked() -> None:
    facts = [MOTHER[0] | {"knew": "Old Mum"}, MOTHER[1]]
    experiment = written([mother(REVERSAL, TWO_HOP, facts=facts), educated(("Bea Boll", "Oak"), ("Dee Dorn", "Elm"))])
    asked = questions_for(experiment, "base")
    rows = summarise([Answer(q.prompt, q.fact, "Old Mum", False, -1.0) for q in asked], experiment, "base")
    assert {row["split"] for row in rows} == {"key", "train", "reversal", "two_hop"}
    known = {row["split"]: row["value"] for row in rows if row["metric"] == "known_before"}
    assert known == {"key": 1.0, "train": 1.0}
