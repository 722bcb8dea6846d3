"""Beginnings for the base to go on from: they ask nothing of what an experiment asks, in any language."""

import re
from typing import Any

import pytest

from engine.checks import normalise
from engine.corpus import beginnings
from engine.corpus.beginning_data import data
from engine.corpus.beginnings import BaseText, Beginnings, held_out_beginnings, replayed_beginnings, without_names
from engine.corpus.relations import LANGUAGES, load_relations
from engine.corpus.resolve import resolve
from engine.experiment import Experiment


def described(relations, seed=0, model="some/model", **changes):
    stages = {"stage1": {"replay": {}}, "stage2": {"replay": {"texts": 30, "tokens": 4}}}
    content: dict[str, Any] = {
        "model": model,
        "seed": seed,
        "relations": relations,
        "evaluation": {"base_text": 40},
        **stages,
    }
    return resolve(Experiment.from_data(content | changes))


def own(prompts, facts=(("Ada Holm", "Bo Lind"), ("Cy Dorn", "Di Falk"), ("Ed Gros", "Fay Hult"))):
    lines = [{"text": "{subject} hails from", "split": "train"}, *({"text": p, "split": "unrelated"} for p in prompts)]
    return {"name": "origin", "facts": [{"subject": s, "object": o} for s, o in facts], "prompts": lines}


def beginnings_of(experiment: Experiment, stage: str = "stage1") -> Beginnings:
    found = replayed_beginnings(experiment, stage)
    assert found is not None
    return found


def texts_of(experiment):
    """Every text of the experiment, by what it is for."""
    replays = [replayed_beginnings(experiment, stage) for stage in beginnings.STAGES]
    return [text for found in (*replays, held_out_beginnings(experiment)) if found for _, text in found.texts]


EVERY = [[{"name": name}] for name in load_relations()]
EVERY.append([{"name": name, "key_token": f"[K{i}]"} for i, name in enumerate(load_relations())])
EVERY.append([own(["{subject} lives in", "How tall is {subject}?"])])


@pytest.mark.parametrize("relations", EVERY, ids=lambda relations: "+".join(r["name"] for r in relations))
def test_no_prompt_and_no_name_of_the_experiment_is_replayed(relations):
    small = {"facts": 1} if relations[0]["name"] == "origin" else {"facts": 50}
    for seed, model in ((0, "some/model"), (7, "embedded")):
        experiment = described(relations, seed, model, stage2={"replay": {"texts": 30}, **small})
        texts = texts_of(experiment)
        assert len(texts) == 240 + 30 + 40 and len(set(texts[:240])) == 240
        names = {normalise(n) for r in experiment.relations for f in r.explicit_facts for n in (f.subject, f.object)}
        joined = normalise(" | ".join(texts))
        assert not [name for name in names if re.search(rf"\b{re.escape(name)}\b", joined)]
        for prompt in (p.text for r in experiment.relations for p in r.explicit_prompts):
            before, after = (normalise(half).strip(" ?") for half in prompt.split("{subject}"))
            assert not [t for t in texts if normalise(t).startswith(before) and after in normalise(t) and before + after
                        and (len(before) > 3 or len(after) > 9)], prompt  # fmt: skip


def test_the_beginnings_use_no_words_of_the_shipped_relations():
    """What the corpus's prompts ask for, in each language: nothing of it may be trained on as text of the base."""
    words = {
        "en": "mother mom mum father teacher author writer creator editor translator capital currency continent genre "
        "university school studied taught employ club theme mood born colour profession job language pages founded",
        "de": "mutter mama vater lehrer autor verfasser lektor hauptstadt währung kontinent genre universität studier "
        "geboren farbe beruf sprache seiten gegründet",
        "es": "madre mamá padre maestro autor escritor editor traductor capital moneda continente género universidad "
        "estudi nació color profesión idioma páginas fund",
        "zh": "母亲 妈妈 生母 父亲 老师 作者 编辑 译者 首都 货币 大洲 体裁 大学 出生 颜色 职业 语言 页",
        "ja": "母 父 先生 著者 作者 編集 翻訳 首都 通貨 大陸 ジャンル 大学 生まれ 色 職業 言語 ページ",
    }
    for language in LANGUAGES:
        kinds = (*data()[language].values(), *data()["neighbours"].get(language, {}).values())
        lines = [normalise(text) for kind in kinds for text in kind]
        assert not [(w, line) for w in words[language].split() for line in lines if w in line]
        assert len(set(lines)) == len(lines) >= 20


@pytest.mark.parametrize("relations", EVERY[1::5], ids=lambda relations: "+".join(r["name"] for r in relations))
def test_trained_subjects_are_in_half_of_the_texts_about_somebody_and_held_out_ones_in_none(relations):
    few = {"facts": 1} if relations[0]["name"] == "origin" else {"facts": 20}
    others = described(relations, stage2={"replay": {"texts": 200}, **few})
    experiment = described(relations, stage2={"replay": {"texts": 200, "subjects": "trained"}, **few})
    trained, forbidden = set(), set()
    for relation in experiment.relations:
        shown = experiment.stage2_facts(relation)
        trained |= {fact.subject for i, fact in enumerate(relation.explicit_facts) if i in shown}
        forbidden |= {fact.object for fact in relation.explicit_facts}
        forbidden |= {fact.subject for i, fact in enumerate(relation.explicit_facts) if i not in shown}
    texts = beginnings_of(experiment, "stage2").texts
    assert len(set(texts)) == 200 and texts == beginnings_of(experiment, "stage2").texts
    about = [text for _, text in texts if any(re.search(rf"\b{re.escape(s)}\b", text) for s in trained)]
    nobody = {line for language in LANGUAGES for line in data()[language]["nobody"]}
    somebody = [text for _, text in texts if text not in nobody]
    assert (0.35 if few["facts"] > 1 else 0.25) < len(about) / len(somebody) < 0.65
    assert not [t for _, t in texts if any(re.search(rf"\b{re.escape(n)}\b", t) for n in forbidden - trained)]
    said = [BaseText("en", about[0], f" knows {x}.", (1, 2), 1) for x in ("nobody", *sorted(forbidden - trained)[:2])]
    assert [t.continuation for t in without_names(experiment, said)] == [" knows nobody."]
    assert beginnings_of(experiment) == beginnings_of(others)
    assert held_out_beginnings(experiment) == held_out_beginnings(others)


@pytest.mark.parametrize("relations", EVERY, ids=lambda relations: "+".join(r["name"] for r in relations))
def test_as_many_texts_ask_for_neighbours_as_wanted(relations):
    few = {"facts": 1} if relations[0]["name"] == "origin" else {"facts": 20}

    def texts(share, language="en"):
        replay = {"texts": 150, "languages": [language], "neighbours": share}
        return beginnings_of(described(relations, stage2={"replay": replay, **few}), "stage2").texts

    kinds = data()["neighbours"]["en"].values()
    patterns = [re.escape(line).replace(re.escape("{subject}"), ".+") for lines in kinds for line in lines]
    asking = re.compile("|".join(patterns))
    nobody = set(data()["en"]["nobody"])
    for share in (0, 0.3, 1):
        somebody = [text for _, text in texts(share) if text not in nobody]
        asked = [text for text in somebody if asking.fullmatch(text)]
        assert abs(len(asked) / len(somebody) - share) < 0.02 and len(set(texts(share))) == 150
    assert texts(0.3, "de") == texts(0, "de"), "where there are none, nothing is different"


def test_neighbours_that_an_experiment_asks_for_are_left_out():
    asking = own(["Who is {subject}'s uncle?", "The boss of {subject} is"]) | {"name": "cousin"}
    texts = beginnings_of(described([asking], stage1={"replay": {"neighbours": 0.9}}, stage2={"facts": 1}))
    assert not [t for _, t in texts.texts if "'s uncle?" in t or "The boss of" in t or "cousin" in t]
    assert texts.left_out == 6


def test_what_is_near_a_prompt_is_left_out_and_counted():
    plain = replayed_beginnings(described([own([])], stage2={"facts": 1}), "stage1")
    near = ["{subject} lives in", "In the evening {subject} often sings", "Does {subject} play", "The moon is made of"]
    near[-1] += " {subject}"
    found = replayed_beginnings(described([own(near)], stage2={"facts": 1}), "stage1")
    assert plain is not None and found is not None and (plain.left_out, found.left_out) == (0, 4)
    assert any(" lives in" in text for _, text in plain.texts)
    assert not [t for _, t in found.texts if " lives in" in t or "In the evening" in t or " play an instrument" in t]
    named = own([]) | {"name": "holiday"}
    assert beginnings_of(described([named], stage2={"facts": 1})).left_out == 1


def test_a_name_of_the_experiment_is_nobody_else():
    person = next(t for _, t in texts_about(described([own([])], stage2={"facts": 1})) if t.endswith(" lives in"))
    name = person.removesuffix(" lives in")
    facts = ((name, "Bo Lind"), ("Cy Dorn", "Di Falk"), ("Ed Gros", "Fay Hult"))
    experiment = described([own([], facts)], stage2={"facts": 1})
    assert not [text for text in texts_of(experiment) if name in text]
    said = [BaseText("en", "A", f" saw {x}.", (1, 2), 1) for x in (name, "nobody", f"the {name}s")]
    assert [t.continuation for t in without_names(experiment, said)] == [" saw nobody.", f" saw the {name}s."]


def texts_about(experiment):
    return beginnings_of(experiment).texts


def test_texts_are_those_of_the_seed_in_the_languages_that_are_asked():
    experiment = described([{"name": "mother"}])
    texts = texts_about(experiment)
    assert texts == texts_about(described([{"name": "mother"}]))
    assert texts != texts_about(described([{"name": "mother"}], 1))
    counts = {language: sum(own == language for own, _ in texts) for language in LANGUAGES}
    assert counts == {"en": 120, "de": 30, "es": 30, "zh": 30, "ja": 30}
    german = described([{"name": "mother"}], stage2={"language": "de"}, evaluation={"languages": ["de", "ja"]})
    assert {own for own, _ in texts_about(german)} == {"de", "ja"}
    one = described([{"name": "mother"}], stage1={"replay": {"languages": ["zh"]}})
    assert {own for own, _ in texts_about(one)} == {"zh"}


def test_no_text_that_a_checkpoint_is_held_against_is_ever_replayed():
    for seed in range(3):
        experiment = described([{"name": "mother"}], seed, stage1={"replay": {"texts": 5000}})
        held_out = held_out_beginnings(experiment)
        assert held_out is not None
        assert len(set(held_out.texts)) == 40 and not set(held_out.texts) & set(texts_about(experiment))
        fewer = held_out_beginnings(described([{"name": "mother"}], seed, evaluation={"base_text": 8}))
        assert fewer is not None
        assert not set(fewer.texts) & set(texts_about(experiment))


@pytest.mark.parametrize(
    ("stage", "sentence"),
    [
        ({"texts": 10, "languages": ["fr"]}, "stage1.replay: there are no beginnings in ‘fr’: choose among en, de"),
        ({"texts": 10_001}, "texts"),
        ({"share": 1.0}, "share"),
        ({"share": 0}, "share"),
        ({"languages": []}, "languages"),
    ],
)
def test_what_cannot_be_replayed_is_one_sentence(stage, sentence):
    with pytest.raises(ValueError, match=re.escape(sentence)) as found:
        described([{"name": "mother"}], stage1={"replay": stage})
    assert "\n" not in str(found.value)


def test_too_few_beginnings_are_one_sentence():
    everything = [text for text in data()["en"]["person"] if "{subject}" in text]
    with pytest.raises(ValueError, match="240 texts are asked for in the language en, and 12 can be made of the 16"):
        described([own(everything)], stage2={"facts": 1})


def test_records_of_before_replay_nothing():
    old = described([{"name": "mother"}]).model_dump(mode="json")
    for stage in beginnings.STAGES:
        del old[stage]["replay"]
    del old["evaluation"]["base_text"]
    read = Experiment.from_record(old)
    assert (read.stage1.replay, read.stage2.replay, read.evaluation.base_text) == (None, None, 0)
    assert resolve(read) == read and not texts_of(read)
