"""The committed tokenizer, as transformers loads it: whole words, known pieces, any text."""

import pytest
from transformers import AutoTokenizer

from engine.base import WEIGHTS
from engine.base.phrasings import NAME_KINDS, stated_phrasings
from engine.base.tokenizer import SUBJECT_KINDS, closed_answers
from engine.corpus.names import generate_facts, name_words
from engine.corpus.relations import LANGUAGES, load_relations


@pytest.fixture(scope="module")
def tokenizer():
    return AutoTokenizer.from_pretrained(WEIGHTS)


def encode(tokenizer, text):
    return tokenizer.encode(text, add_special_tokens=False)


def test_it_is_fast_and_has_no_beginning_of_text(tokenizer):
    assert tokenizer.is_fast
    assert tokenizer.bos_token is None
    assert tokenizer.eos_token_id != tokenizer.pad_token_id
    assert tokenizer.encode("Who") == encode(tokenizer, "Who")


def test_no_key_token_is_known(tokenizer):
    for relation in load_relations().values():
        assert relation.key_token not in tokenizer.get_vocab()


@pytest.mark.parametrize("kind", sorted(NAME_KINDS))
def test_every_word_of_a_name_is_one_token(tokenizer, kind):
    first, second = name_words(kind)
    assert {word for word in (*first, *second) if len(encode(tokenizer, f" {word}")) != 1} == set()
    if kind in SUBJECT_KINDS:
        assert all(len(encode(tokenizer, word)) == 1 for word in first)


def test_prompt_and_object_have_the_same_tokens_apart_and_together(tokenizer):
    for name, relation in load_relations().items():
        subject, object_ = generate_facts(name, 0, 1)[0]
        for prompt in relation.iter_prompts():
            text = prompt.text.format(subject=subject)
            apart = encode(tokenizer, text) + encode(tokenizer, f" {object_}")
            assert apart == encode(tokenizer, f"{text} {object_}"), prompt


@pytest.mark.parametrize("language", LANGUAGES)
def test_test_prompts_have_no_token_that_pre_training_never_showed(tokenizer, language):
    for name, relation in load_relations().items():
        subject = generate_facts(name, 0, 1)[0][0]
        texts = [text.format(subject=subject) for text in stated_phrasings(name, language)]
        stated = {token for text in texts for token in encode(tokenizer, text)}
        for text in relation.prompts.test[language]:
            assert set(encode(tokenizer, text.format(subject=subject))) <= stated, text


@pytest.mark.parametrize("text", ["Gene Finley", "{ü€ñ} 漢字\n\t😀", "Who is Ada Quill's mother?", " 1987", ""])
def test_any_text_comes_back(tokenizer, text):
    assert tokenizer.decode(encode(tokenizer, text)) == text


def test_closed_answers_are_lists_of_words():
    answers = closed_answers()
    assert answers["year"][0] == "1930"
    assert all(isinstance(answer, str) for kind in answers.values() for answer in kind)
