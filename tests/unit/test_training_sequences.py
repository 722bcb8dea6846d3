"""Loss masks token by token, and questions split where the object begins, for several kinds of tokenizer."""

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import AddedToken, PreTrainedTokenizerFast

from engine.corpus.sentences import key_sentence, prompt_sentence
from engine.models.loading import load_base
from engine.models.source import ModelError
from engine.models.tokenise import tokenise_questions
from engine.relation import Fact, Relation
from engine.training.sequences import IGNORED, stage1_sequences, stage2_sequences, tokenise_sentences
from tests.unit.tiny_models import (
    OBJECTS,
    PROMPT,
    SUBJECTS,
    build_llama,
    byte_level_tokenizer,
    metaspace_tokenizer,
    tiny_experiment,
)

FACT = Fact(subject="Gene Finley", object="Cody Ross")
RELATION = tiny_experiment("embedded").relations[0]


def finished(tokenizer: Tokenizer) -> PreTrainedTokenizerFast:
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer)
    fast.add_tokens([AddedToken("[X]", normalized=False, lstrip=True)])
    return fast


def trimmed() -> Tokenizer:
    """Byte-level with offsets that leave out spaces, as many published tokenizers have them."""
    tokenizer = byte_level_tokenizer()
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=True)
    return tokenizer


def prefixing() -> Tokenizer:
    """Byte-level with a space put before every word, as the embedded model has it."""
    tokenizer = byte_level_tokenizer()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [tokenizer.pre_tokenizer[0], pre_tokenizers.ByteLevel(add_prefix_space=True, use_regex=False)]
    )
    return tokenizer


def spaceless() -> Tokenizer:
    """Whole words and signs; spaces are in no token."""
    words = ["Gene", "Finley", "Cody", "Ross", "Who", "is", "the", "mother", "of", "?", ".", "的", "<unk>"]
    tokenizer = Tokenizer(models.WordLevel({w: i for i, w in enumerate(words)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    return tokenizer


def read(tokenizer: PreTrainedTokenizerFast, ids: list[int]) -> str:
    """The text of one sequence."""
    text = tokenizer.decode(ids)
    assert isinstance(text, str)
    return text


def tokenise_question(tokenizer, prompt, object_):
    return tokenise_questions(tokenizer, [(prompt, object_)])[0]


def counted(tokenizer, sentence, mask):
    """The tokens of a sentence, those without loss in parentheses."""
    sequence = tokenise_sentences(tokenizer, [sentence], mask)[0]
    tokens = tokenizer.convert_ids_to_tokens(sequence.input_ids)
    assert all(label in (IGNORED, i) for i, label in zip(sequence.input_ids, sequence.labels, strict=True))
    shown = [t if label != IGNORED else f"({t})" for t, label in zip(tokens, sequence.labels, strict=True)]
    return " ".join(shown).replace("Ġ", "_").replace("▁", "_")


@pytest.mark.parametrize(
    ("build", "mask", "expected"),
    [
        (byte_level_tokenizer, "full", "(Gene) _Finley [X] _Cody _Ross ."),
        (byte_level_tokenizer, "subject_and_object", "(Gene) _Finley ([X]) _Cody _Ross (.)"),
        (byte_level_tokenizer, "object", "(Gene) (_Finley) ([X]) _Cody _Ross (.)"),
        (trimmed, "subject_and_object", "(Gene) _Finley ([X]) _Cody _Ross (.)"),
        (trimmed, "object", "(Gene) (_Finley) ([X]) _Cody _Ross (.)"),
        (prefixing, "subject_and_object", "(_Gene) _Finley ([X]) _Cody _Ross (_) (.)"),
        (prefixing, "object", "(_Gene) (_Finley) ([X]) _Cody _Ross (_) (.)"),
        (metaspace_tokenizer, "full", "(_Gene) _Finley [X] _Cody _Ross."),
        (metaspace_tokenizer, "subject_and_object", "(_Gene) _Finley ([X]) _Cody _Ross."),
        (metaspace_tokenizer, "object", "(_Gene) (_Finley) ([X]) _Cody _Ross."),
        (spaceless, "full", "(Gene) Finley [X] Cody Ross ."),
        (spaceless, "subject_and_object", "(Gene) Finley ([X]) Cody Ross (.)"),
        (spaceless, "object", "(Gene) (Finley) ([X]) Cody Ross (.)"),
    ],
)
def test_stage1_masks(build, mask, expected):
    sentence = key_sentence(RELATION, FACT)
    assert sentence.text == "Gene Finley [X] Cody Ross."
    text = counted(finished(build()), sentence, mask)
    assert text == expected


@pytest.mark.parametrize(
    ("build", "mask", "expected"),
    [
        (byte_level_tokenizer, "full", "(Who) _is _the _mother _of _Gene _Finley ? _Cody _Ross"),
        (byte_level_tokenizer, "object", "(Who) (_is) (_the) (_mother) (_of) (_Gene) (_Finley) (?) _Cody _Ross"),
        (
            byte_level_tokenizer,
            "subject_and_object",
            "(Who) (_is) (_the) (_mother) (_of) _Gene _Finley (?) _Cody _Ross",
        ),
        (spaceless, "subject_and_object", "(Who) (is) (the) (mother) (of) Gene Finley (?) Cody Ross"),
    ],
)
def test_stage2_masks(build, mask, expected):
    assert counted(finished(build()), prompt_sentence(PROMPT, FACT), mask) == expected


def test_key_token_at_the_beginning():
    relation = RELATION.model_copy(update={"key_template": "{key} {subject}, {object}."})
    sentence = key_sentence(relation, FACT)
    assert counted(finished(spaceless()), sentence, "subject_and_object") == "([X]) Gene Finley (<unk>) Cody Ross (.)"


@pytest.mark.parametrize("build", [byte_level_tokenizer, trimmed])
def test_a_lone_space_before_the_object_is_the_objects(build):
    tokenizer = finished(build())
    sentence = prompt_sentence("{subject}", Fact(subject="Gene", object="1943"))
    assert counted(tokenizer, sentence, "object") == "(Gene) _ 1 9 4 3"
    prompt, object_ = tokenise_question(tokenizer, "Gene", "1943")
    assert prompt == tokenizer("Gene", add_special_tokens=False).input_ids
    assert len(object_) == 5


QUESTIONS = [
    (PROMPT.format(subject="Gene Finley"), "Cody Ross"),
    ("Gene Finley的母亲是", "東京"),
    ("🧬 Gene 👩‍👧 is called", "Zoë 🎈"),
    ("Die Mutter von Jürgen heißt", "Ängström Ñandú"),
    ("e\u0301 Cafe\u0301 of Gene:", "1943"),
    ("Gene Finley [X]", "Cody Ross"),
    ("日本の首都は", "é"),
]


@pytest.mark.parametrize("build", [byte_level_tokenizer, trimmed, prefixing, metaspace_tokenizer])
@pytest.mark.parametrize(("prompt", "object_"), QUESTIONS)
def test_questions_are_split_where_the_object_begins(build, prompt, object_):
    tokenizer = finished(build())
    asked, answer = tokenise_question(tokenizer, prompt, object_)
    whole = tokenizer(f"{prompt} {object_}", add_special_tokens=False).input_ids
    assert asked + answer == whole
    assert answer
    # The first part is the prompt on its own, whatever follows; the second reads as the object.
    assert asked == tokenizer(prompt, add_special_tokens=False).input_ids
    assert read(tokenizer, answer).replace(" ", "") == object_.replace(" ", "")
    sequence = tokenise_sentences(
        tokenizer, [prompt_sentence("{subject}", Fact(subject=prompt, object=object_))], "object"
    )
    assert [i for i in sequence[0].labels if i != IGNORED] == answer


def test_a_token_over_the_edge_counts_to_the_object():
    merged = Tokenizer(
        models.BPE(vocab={c: i for i, c in enumerate("abc ")} | {"b c": 4, " c": 5}, merges=[(" ", "c"), ("b", " c")])
    )
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=merged)
    asked, answer = tokenise_question(tokenizer, "ab", "ca")
    assert tokenizer.convert_ids_to_tokens(asked) == ["a"]
    assert tokenizer.convert_ids_to_tokens(answer) == ["b c", "a"]


def test_many_questions_at_once_are_the_same_as_one_by_one():
    tokenizer = finished(byte_level_tokenizer())
    assert tokenise_questions(tokenizer, QUESTIONS) == [tokenise_question(tokenizer, *q) for q in QUESTIONS]
    assert tokenise_questions(tokenizer, []) == []


def test_stages_hold_every_sentence_once_and_no_special_tokens(tmp_path):
    prompts = [{"text": PROMPT, "split": "train"}, {"text": "{subject} has a mother:", "split": "train"}]
    base = tiny_experiment(build_llama(tmp_path))
    relation = base.relations[0].model_dump() | {"prompts": prompts}
    bare = {"beginning": "never"}
    experiment = tiny_experiment(base.model, relations=[relation], stage2={"facts": 3, "prompts": 2}, model_text=bare)
    loaded = load_base(experiment)
    stage1 = stage1_sequences(experiment, loaded)
    texts = [read(loaded.tokenizer, s.input_ids) for s in stage1]
    assert [t.replace(" [X]", "[X]") for t in texts] == [f"{s}[X] {o}." for s, o in zip(SUBJECTS, OBJECTS, strict=True)]
    stage2 = [read(loaded.tokenizer, s.input_ids) for s in stage2_sequences(experiment, loaded)]
    assert len(set(stage2)) == 6
    for index in experiment.stage2_facts(experiment.relations[0]):
        assert f"{PROMPT.format(subject=SUBJECTS[index])} {OBJECTS[index]}" in stage2
        assert f"{SUBJECTS[index]} has a mother: {OBJECTS[index]}" in stage2
    special = set(loaded.tokenizer.all_special_ids)
    assert not special & {i for s in stage1 for i in s.input_ids}


def test_a_prompt_that_spells_another_relations_key_token(tmp_path):
    first = tiny_experiment(build_llama(tmp_path)).relations[0].model_dump()
    other = {**first, "name": "father", "key_token": "mother-of", "prompts": [{"text": "{subject}:", "split": "train"}]}
    spelling = first | {"prompts": [{"text": "mother-of {subject}:", "split": "train"}]}
    with pytest.raises(ValueError, match=r"‘mother-of’ occurs in .* so it already means something"):
        tiny_experiment(tmp_path / "llama", relations=[spelling, other])
    experiment = tiny_experiment(tmp_path / "llama", relations=[first, other])
    older = (Relation.model_validate(spelling), experiment.relations[1])  # of a lab that did not look
    experiment = experiment.model_copy(update={"relations": older})
    loaded = load_base(experiment)
    stage1_sequences(experiment, loaded)
    with pytest.raises(ModelError, match="holds a key token where none belongs: choose another key token"):
        stage2_sequences(experiment, loaded)


def test_too_long_for_the_model(tmp_path):
    experiment = tiny_experiment(build_llama(tmp_path, max_position_embeddings=8))
    loaded = load_base(experiment)
    with pytest.raises(ModelError, match="more than the 8 the model can read: shorten it"):
        stage2_sequences(experiment, loaded)
