"""A question that cannot be hit is named before a run; an object that a tokenizer only spells otherwise is a hit."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer
from transformers import GPT2Config, GPT2LMHeadModel

from app.design.check import examine
from app.design.draft import from_experiment
from engine.attack.experiment import AttackExperiment
from engine.commands.main import main
from engine.evaluation.evaluate import evaluate_checkpoint
from engine.evaluation.hits import is_hit
from engine.evaluation.sayable import check_experiment, refuse_known
from engine.execution.attacks.queue import queue_attack
from engine.execution.sayable import loaded_speller, refuse_unsayable_answers
from engine.experiment import Experiment
from engine.models.loading import load_base, prepare_for_training
from engine.models.spelling import Speller, file_speller
from engine.serving.asking.tokens import Tokens
from engine.training.loop import train
from engine.training.sequences import stage1_sequences, stage2_sequences
from storage.database import open_database
from tests.unit.tiny_models import build_llama, build_phi3, tiny_experiment
from tests.unit.tiny_tokenizers import ACCENTS, CHINESE, KINDS, PLAIN, SUBJECTS, TEXTS, described, folder_of, saved


def found(kind: str, folder: Path, objects: tuple[str, ...] = PLAIN, **changes: Any) -> list[str]:
    problems = check_experiment(described(folder_of(kind, folder), objects, **changes))["own"]
    return [f"{problem.severity} {problem}" for problem in problems]


@pytest.mark.parametrize("kind", KINDS)
def test_plain_names_need_no_word(kind, tmp_path):
    assert found(kind, tmp_path) == []


@pytest.mark.parametrize("build", [build_llama, build_phi3])
def test_bytes_that_stand_for_an_unknown_sign_are_no_special_tokens(build, tmp_path):
    experiment = tiny_experiment(build(tmp_path))
    assert check_experiment(experiment)["mother"] == []


@pytest.mark.parametrize(
    ("kind", "objects", "spelt"),
    [
        ("bert", CHINESE, ("张 伟", "王 芳", "李 娜", "陈 静")),
        ("plain_bert", ACCENTS, ("salvis barmont", "namiel", "thorwen", "rolmia")),
        (
            "words",
            ("Salvis-Barmont", "Namiel's", "Thorwen", "Rolmia"),
            ("Salvis - Barmont", "Namiel ' s", "Thorwen", "Rolmia"),
        ),
        ("unigram", ("Ｓａｌｖｉｓ", "Ｎａｍｉｅｌ", "Thorwen", "Rolmia"), ("Salvis", "Namiel", "Thorwen", "Rolmia")),
    ],
)
def test_what_is_only_spelt_otherwise_is_a_remark_and_a_hit(kind, objects, spelt, tmp_path):
    folder = saved(KINDS[kind]([*TEXTS, "- ' s"]), tmp_path).parent
    experiment = described(folder, objects)
    problems = check_experiment(experiment)["own"]
    assert [(p.severity, p.row, p.column) for p in problems] == [("warning", 1, "object")]
    assert f"writes ‘{objects[0]}’ as ‘{spelt[0]}’" in problems[0].message
    speller = file_speller(folder / "tokenizer.json", ["[X]"])
    ids = [tuple(ids) for _, ids in speller.split([("The mother of Vurnia Virik is called", o) for o in objects])]
    answers = speller.texts(ids)
    assert answers == list(spelt)
    tokens = Tokens.load(folder / "tokenizer.json")
    for object_, answer, own in zip(objects, answers, ids, strict=True):
        assert is_hit(f"{answer} and more", object_, answer)
        assert tokens.spelling(own) == answer  # the same rule when a person asks
    assert not is_hit(answers[1], objects[0], answers[0])
    assert refuse_known(experiment) == [f"relation ‘own’: {problems[0]}"]


@pytest.mark.parametrize(
    ("kind", "objects", "said"),
    [
        (
            "bert",
            ("Жиновец", *PLAIN[1:]),
            "error row 1, object: ‘Жиновец’ holds signs that the model's tokenizer does not",
        ),
        (
            "words",
            ("Salvis Unheard", *PLAIN[1:]),
            "error row 1, object: ‘Salvis Unheard’ holds ‘Unheard’, which the model",
        ),
        ("unigram", (*PLAIN[:3], "Ж"), "error row 4, object: ‘Ж’ holds signs"),
        ("forgetful", (*PLAIN[:3], "Salvis Ж"), "error row 4, object: ‘Salvis Ж’ becomes ‘Salvis’"),
        ("forgetful", (*PLAIN[:3], "ЖЖ"), "error row 4, object: ‘ЖЖ’ "),
        (
            "byte_level",
            ("Salvis </s>", *PLAIN[1:]),
            "‘Salvis </s>’ holds ‘</s>’, which the model reads as a special token",
        ),
        ("bert", ("Salvis<s>", *PLAIN[1:]), "‘Salvis<s>’ holds ‘<s>’, which the model reads as a special token"),
        (
            "plain_bert",
            ("Rólmia", "Rolmia", *PLAIN[:2]),
            "error row 2, object: ‘Rolmia’ and ‘Rólmia’ of row 1 are the same",
        ),
        (
            "unigram",
            ("Ｓａｌｖｉｓ", *PLAIN),
            "error row 2, object: ‘Salvis Barmont’ contains ‘Ｓａｌｖｉｓ’ of row 1 as the",
        ),
        ("words", ("unheard", "untold", *PLAIN[:2]), "error row 2, object: ‘untold’ holds signs"),
    ],
)
def test_what_is_lost_is_an_error_with_its_row(kind, objects, said, tmp_path):
    lines = found(kind, tmp_path, objects[:4])
    assert any(said in line for line in lines), lines
    with pytest.raises(ValueError, match=r"^relation ‘own’: row "):
        refuse_known(described(tmp_path, objects[:4]))


def test_an_object_that_needs_more_tokens_than_are_decoded_says_how_many(tmp_path):
    objects = ("Москва Кремлёвская набережная", "Белогорница", *PLAIN[:2])
    folder = folder_of("byte_level", tmp_path)
    long, shorter = (len(line.encode()) for line in (" " + objects[0], " " + objects[1]))
    lines = [str(p) for p in check_experiment(described(folder, objects, max_new_tokens=20))["own"]]
    assert [line.split(":")[0] for line in lines] == ["row 1, object", "row 2, object"]
    assert f"has {long} tokens, and answers are decoded for 20: set max_new_tokens to {long} or more" in lines[0]
    assert f"has {shorter} tokens" in lines[1] and f"to {long} or more" in lines[1]
    assert check_experiment(described(folder, objects, max_new_tokens=long))["own"] == []
    assert len(check_experiment(described(folder, objects, max_new_tokens=long - 1))["own"]) == 1


def test_a_final_full_stop_may_be_cut_off(tmp_path):
    """The hit rule does not look at it, so nothing is lost."""
    folder = folder_of("byte_level", tmp_path)
    objects = ("Wxy Inc....", *PLAIN[1:])
    speller = file_speller(folder / "tokenizer.json")
    ((_, ids),) = speller.split([("of", objects[0])])
    assert check_experiment(described(folder, objects, max_new_tokens=len(ids) - 1))["own"] == []


@pytest.mark.parametrize(
    ("kind", "changes", "said"),
    [
        ("byte_level", {"subjects": ("Drura<|end|>", *SUBJECTS[1:])}, "warning row 1, subject: ‘Drura<|end|>’ holds"),
        (
            "byte_level",
            {"objects": ("Salvis <eos>", *PLAIN[1:])},
            "warning row 1, object: ‘Salvis <eos>’ holds ‘<eos>’",
        ),
        ("byte_level", {"test": "[CLS] The mother of {subject} is"}, "warning prompt: ‘[CLS] The mother of"),
        ("plain_bert", {"subjects": ("Drura Pirmont", "Drúra Pirmont", *SUBJECTS[2:])}, "error row 2, subject: ‘Drúra"),
        ("words", {"subjects": ("Aaa", "Bbb", *SUBJECTS[2:])}, "error row 2, subject: ‘Bbb’ and ‘Aaa’ of row 1"),
        ("words", {"subjects": ("Aaa", *SUBJECTS[1:])}, "warning row 1, subject: ‘Aaa’ holds signs"),
        (
            "byte_level",
            {"subjects": ("Drura</s>Virik", *SUBJECTS[1:])},
            "error row 1, subject: ‘Drura</s>Virik’ holds ‘</s>’",
        ),
        (
            "byte_level",
            {"test": "<s> The mother of {subject} is"},
            "error prompt: ‘<s> The mother of {subject} is’ holds ‘<s>’",
        ),
        ("words", {"test": "The maternal origin of {subject} is"}, "warning prompt: ‘The maternal origin of"),
        (
            "plain_bert",
            {"test": "Who is the móther of {subject} ?"},
            "error prompt: ‘Who is the móther of {subject} ?’ is the same",
        ),
        (
            "byte_level",
            {"relation": {"key_template": "</s> {subject} {key} {object}."}},
            "error key sequence: ‘</s> {subject}",
        ),
        ("words", {"relation": {"options": [*PLAIN, "untold"]}}, "error options: ‘untold’ holds signs"),
        ("plain_bert", {"relation": {"options": [*PLAIN, "Thörwen", "Thorwen F"]}}, ""),
        ("byte_level", {"relation": {"options": [*PLAIN, "x</s>y"]}}, "error options: ‘x</s>y’ holds ‘</s>’"),
        (
            "plain_bert",
            {"relation": {"options": [*PLAIN, "Drúra", "Drura"]}},
            "error options: ‘Drura’ and ‘Drúra’ are the same",
        ),
        (
            "byte_level",
            {"relation": {"options": [*PLAIN, "Ж" * 90]}},
            "tokens with its longest question, more than the 128 that the model reads: shorten one",
        ),
    ],
)
def test_subjects_prompts_and_options_are_looked_at_too(kind, changes, said, tmp_path):
    if said:
        lines = found(kind, tmp_path, **changes)
        assert any(said in line for line in lines), lines
    else:
        with pytest.raises(ValueError, match="contains"):
            found(kind, tmp_path, **changes)


def test_the_loaded_model_is_asked_the_same_before_it_is_trained(tmp_path):
    """With the tokenizer that transformers makes of the folder, whatever was on the page's machine."""
    loaded = built(tmp_path, described(folder_of("bert", tmp_path), CHINESE))
    asked = [("Who is Vurnia Virik", text) for text in (*CHINESE, "Salvis </s>", "Жиновец", "Namiel, Husesk's")]
    theirs, ours = loaded_speller(loaded), file_speller(tmp_path / "tokenizer.json", ["[X]"])
    split = [[(list(p), list(o)) for p, o in speller.split(asked)] for speller in (theirs, ours)]
    assert split[0] == split[1]
    assert theirs.texts([tuple(o) for _, o in split[0]]) == ours.texts([tuple(o) for _, o in split[0]])
    assert replace(theirs, split=ours.split, texts=ours.texts) == ours
    refuse_unsayable_answers(described(tmp_path, CHINESE), loaded)
    with pytest.raises(ValueError, match="relation ‘own’: row 1, object: ‘Жиновец’ holds signs"):
        refuse_unsayable_answers(described(tmp_path, ("Жиновец", *PLAIN[1:])), loaded)
    with pytest.raises(ValueError, match="set max_new_tokens to 2 or more"):
        refuse_unsayable_answers(described(tmp_path, CHINESE), loaded, max_new_tokens=1)


def with_weights(folder: Path) -> Path:
    """The folder with a random model of a few thousand parameters beside its tokenizer."""
    torch.manual_seed(0)
    size = Tokenizer.from_file(str(folder / "tokenizer.json")).get_vocab_size()
    shape: dict[str, Any] = {"n_embd": 32, "n_layer": 2, "n_head": 2, "n_positions": 128}
    GPT2LMHeadModel(GPT2Config(vocab_size=size, bos_token_id=1, eos_token_id=2, **shape)).save_pretrained(folder)
    return folder


def built(folder: Path, experiment: Experiment) -> Any:
    """That model, ready for training."""
    with_weights(folder)
    return prepare_for_training(load_base(experiment), experiment)


@pytest.mark.parametrize(("kind", "objects"), [("bert", CHINESE), ("plain_bert", ACCENTS)])
def test_a_model_that_has_learnt_such_objects_hits_them(kind, objects, tmp_path):
    experiment = described(folder_of(kind, tmp_path), objects, relation={"options": list(objects)})
    loaded = built(tmp_path, experiment)
    stage = experiment.stage1.model_copy(update={"epochs": 60, "learning_rate": 0.01, "warmup_steps": 0})
    sequences = stage1_sequences(experiment, loaded) + stage2_sequences(experiment, loaded)
    train(
        loaded, sequences, stage, seed=0, stage="stage1", on_step=lambda *_: None, on_epoch=lambda *_: None,
    )  # fmt: skip
    answers = evaluate_checkpoint(loaded, experiment, "base")
    learnt = [a for a in answers if a.prompt == 1]
    assert len(learnt) == 4 and all(a.hit for a in learnt), learnt
    assert not any(object_ in a.answer for a, object_ in zip(learnt, objects, strict=True))


def test_the_page_says_it_at_the_row_and_does_not_start(tmp_path):
    folder = folder_of("bert", tmp_path)
    built(folder, described(folder, CHINESE))
    good = examine(from_experiment(described(folder, CHINESE)))
    assert good.resolved and [f.problem.row for f in good.warnings if f.problem.column == "object"] == [1]
    bad = examine(from_experiment(described(folder, (*CHINESE[:3], "Жиновец"))))
    assert bad.resolved is None
    (finding,) = bad.errors
    assert (finding.place, finding.problem.row) == ("r1/facts", 4)
    prompt = examine(from_experiment(described(folder, test="<s> The mother of {subject} is")))
    assert [f.place for f in prompt.errors] == ["r1/prompts"]


def test_the_command_line_says_it_before_anything_is_stored(tmp_path, capsys):
    folder, home = with_weights(folder_of("bert", tmp_path / "model")), tmp_path / "home"
    for objects, code in ((CHINESE, 0), ((*CHINESE[:3], "Жиновец"), 2)):
        file = tmp_path / "mine.yaml"
        file.write_text(described(folder, objects).to_yaml(), encoding="utf-8")
        assert main(["queue", str(file), "--home", str(home)]) == code
    said = capsys.readouterr()
    assert "note: relation ‘own’: row 1, object: the model's tokenizer writes ‘张伟’ as ‘张 伟’" in said.err
    assert "mine.yaml: relation ‘own’: row 4, object: ‘Жиновец’ holds signs" in said.err
    assert len(said.out.split()) == 1 and open_database(home).table("runs").count == 1


def test_an_attack_whose_objects_are_longer_than_it_decodes_is_refused(tmp_path):
    db = open_database(tmp_path)
    with pytest.raises(ValueError, match="answers are decoded for 1: set max_new_tokens to") as refused:
        queue_attack(db, AttackExperiment(max_new_tokens=1, seeds=(0,)))
    assert "relation ‘" in str(refused.value) and db.table("runs").count == 0
    assert queue_attack(db, AttackExperiment(seeds=(0,), facts=(1,)))


def test_five_thousand_facts_are_looked_at_at_once_and_remembered(tmp_path, monkeypatch):
    folder = folder_of("bert", tmp_path)
    signs = "".join(CHINESE)
    pairs = [(a + b + c + d) for a in signs for b in signs for c in signs for d in signs][:4000]
    facts = [{"subject": f"Virik {pair[::-1]}", "object": pair} for pair in pairs]
    experiment = described(folder, relation={"facts": facts})
    assert [p.severity for p in check_experiment(experiment)["own"]] == ["warning"]
    monkeypatch.setattr(Speller, "__getattribute__", None)  # nothing is asked of the tokenizer again
    assert len(check_experiment(experiment)["own"]) == 1
