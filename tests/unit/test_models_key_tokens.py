"""Key tokens get rows without disturbing any other, and a matrix is never shrunk."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import AddedToken, AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerFast

from engine.experiment import Experiment
from engine.models.files import experiment_problems
from engine.models.key_tokens import add_key_tokens, check_key_sequences
from engine.models.loading import load_base, load_checkpoint, prepare_for_training, save_model
from engine.models.source import ModelError
from tests.unit.tiny_models import BUILDERS, build_llama, build_phi3, build_qwen2, tiny_experiment


def parts(folder):
    return AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)


def matrices(model):
    return [model.get_input_embeddings().weight.detach(), model.get_output_embeddings().weight.detach()]


@pytest.mark.parametrize("start", ["around the mean", "around zero"])
@pytest.mark.parametrize("name", BUILDERS)
def test_only_the_key_rows_change(tmp_path, name, start):
    model, tokenizer = parts(BUILDERS[name](tmp_path))
    before = [m.clone() for m in matrices(model)]
    random_state = torch.get_rng_state()
    ids = add_key_tokens(model, tokenizer, ["[X]", "<1>", "⟦Y⟧"], start)
    assert torch.equal(torch.get_rng_state(), random_state)
    assert list(ids) == ["[X]", "<1>", "⟦Y⟧"]
    assert len(set(ids.values())) == 3
    for old, new in zip(before, matrices(model), strict=True):
        assert len(new) >= max(len(old), len(tokenizer))
        kept = [row for row in range(len(old)) if row not in ids.values()]
        assert torch.equal(old[kept], new[kept])
        drawn = new[sorted(ids.values())]
        deviation = (drawn - old.mean(0)).std() if start == "around the mean" else drawn.std()
        assert (
            0.3 < deviation / (0.02 * old.std() if start == "around the mean" else model.config.initializer_range) < 2
        )
    assert model.config.vocab_size == len(matrices(model)[0])


def test_untrained_rows_never_win_where_all_logits_lie_far_below_zero(tmp_path):
    model, tokenizer = parts(build_llama(tmp_path))
    with torch.no_grad():
        for matrix in {id(m): m for m in matrices(model)}.values():
            matrix += 5.0
    hidden = -torch.ones(matrices(model)[1].shape[1])
    words = (matrices(model)[1] @ hidden).max()
    ids = add_key_tokens(model, tokenizer, ["[X]"])
    logits = matrices(model)[1] @ hidden
    grown = [*range(len(tokenizer), len(logits)), *ids.values()]
    assert logits[grown].max() < words < 0
    assert (
        Experiment.from_record({"name": "of before", "relations": [{"name": "mother"}]}).key_token_rows == "around zero"
    )


def test_spare_rows_are_used_and_the_matrix_is_not_shrunk(tmp_path):
    model, tokenizer = parts(build_qwen2(tmp_path))
    assert len(tokenizer) < 500
    ids = add_key_tokens(model, tokenizer, ["[X]"])
    assert ids["[X]"] == len(tokenizer) - 1
    assert model.get_input_embeddings().weight.shape[0] == model.config.vocab_size == 512
    assert model.get_output_embeddings().weight is model.get_input_embeddings().weight


def test_a_full_matrix_grows_to_a_multiple(tmp_path):
    model, tokenizer = parts(build_llama(tmp_path))
    add_key_tokens(model, tokenizer, ["[X]"])
    assert [len(m) for m in matrices(model)] == [512, 512]


def test_growing_when_the_spare_rows_do_not_suffice(tmp_path):
    model, tokenizer = parts(build_phi3(tmp_path))
    rows = model.get_input_embeddings().weight.shape[0]
    ids = add_key_tokens(model, tokenizer, ["[A]", "[B]", "[C]"])
    assert min(ids.values()) < rows <= max(ids.values())
    assert len(matrices(model)[0]) % 64 == 0


def test_rows_depend_on_the_token_alone(tmp_path):
    folder = build_llama(tmp_path)
    rows: list[Any] = []
    for tokens in (["[X]"], ["[Y]", "[X]"], ["[Y]"]):
        torch.rand(len(rows) + 1)
        model, tokenizer = parts(folder)
        ids = add_key_tokens(model, tokenizer, tokens)
        rows.append([m[ids[tokens[-1]]].clone() for m in matrices(model)])
    assert all(torch.equal(a, b) for a, b in zip(rows[0], rows[1], strict=True))
    assert not torch.equal(rows[0][0], rows[2][0])


def test_rows_lie_near_the_spare_rows_where_the_model_says_so(tmp_path):
    folder = build_qwen2(tmp_path)
    drawn = []
    for tokens in (["[X]", "[Y]"], ["[Y]"]):
        model, tokenizer = parts(folder)
        model.config.new_rows_like_spare_rows = True
        weight, first = model.get_input_embeddings().weight, len(tokenizer)
        with torch.no_grad():
            weight[first:] = 3 + 0.1 * torch.randn(len(weight) - first, weight.shape[1], generator=torch.manual_seed(1))
        ids = add_key_tokens(model, tokenizer, tokens)
        drawn.append(weight.detach()[[ids[token] for token in tokens]].clone())
    assert drawn[0].mean() == pytest.approx(3, abs=0.1)
    assert drawn[0].std() == pytest.approx(0.1, rel=0.5)
    assert torch.equal(drawn[0][1], drawn[1][0])
    assert not torch.equal(drawn[0][0], drawn[0][1])


@pytest.mark.parametrize(
    ("name", "token"), [("llama", "mother"), ("qwen2", "Gene"), ("phi3", "<|user|>"), ("qwen2", "x")]
)
def test_a_token_with_a_meaning_is_refused(tmp_path, name, token):
    model, tokenizer = parts(BUILDERS[name](tmp_path))
    with pytest.raises(ModelError, match=r"vocabulary already.*choose another sign, such as \[X\]"):
        add_key_tokens(model, tokenizer, [token])


def test_a_tokenizer_that_splits_the_key_token_is_refused(tmp_path):
    experiment = tiny_experiment(build_qwen2(tmp_path))
    tokenizer = AutoTokenizer.from_pretrained(experiment.model)
    tokenizer.add_tokens([AddedToken("y [", normalized=False), AddedToken("[X]", normalized=False)])
    ids: dict[str, int] = {"[X]": tokenizer.get_vocab()["[X]"]}
    with pytest.raises(ModelError, match=r"does not keep the key token ‘\[X\]’ whole in ‘Gene Finley \[X\]"):
        check_key_sequences(tokenizer, experiment.relations, ids)


@pytest.mark.parametrize("name", BUILDERS)
def test_subject_and_object_keep_their_tokens_around_a_key_token(tmp_path, name):
    loaded = load_base(tiny_experiment(BUILDERS[name](tmp_path)))
    key = loaded.key_token_ids["[X]"]
    encode = lambda text: loaded.tokenizer.encode(text, add_special_tokens=False)  # noqa: E731
    for text in ("Gene Finley [X]", "Gene Finley[X]"):
        assert encode(text) == [*encode("Gene Finley"), key]
    whole = encode("Gene Finley [X] Cody Ross")
    assert whole == [*encode("Gene Finley"), key, *encode("Gene Finley Cody Ross")[len(encode("Gene Finley")) :]]


def make_holes(folder: Path, count: int) -> dict[str, int]:
    """Take single words out of a vocabulary, as those have been that were cut down; returns what is left, with ids."""
    tokenizer = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    words, merges = tokenizer["model"]["vocab"], tokenizer["model"]["merges"]
    last = max(words.values())
    gone: set[str] = set()
    for pair in reversed(merges):
        word = "".join(pair)
        if len(gone) < count and words[word] < last and not any(word in p for p in merges if "".join(p) not in gone):
            gone.add(word)
    tokenizer["model"]["merges"] = [pair for pair in merges if "".join(pair) not in gone]
    for word in gone:
        del words[word]
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer), encoding="utf-8")
    return dict(words)


@pytest.mark.parametrize("method", ["full", "lora"])
@pytest.mark.parametrize(("build", "count"), [(build_qwen2, 14), (build_llama, 2), (build_qwen2, 1)])
def test_a_vocabulary_with_holes_loses_no_row(tmp_path, build, count, method):
    folder = build(tmp_path)
    words = make_holes(folder, count)
    assert len(words) == max(words.values()) + 1 - count
    model, tokenizer = parts(folder)
    relation = tiny_experiment(folder).relations[0].model_dump() | {"options": ()}
    second = {**relation, "name": "aunt", "key_token": "⟦Y⟧"}
    second["facts"] = [{"subject": f["subject"] + " II", "object": f["object"]} for f in relation["facts"]]
    experiment = tiny_experiment(folder, relations=[relation, second], tuning={"method": method, "rank": 2})
    assert [p for p in experiment_problems(experiment) if p.severity == "error"] == []
    loaded = load_base(experiment)
    ids = loaded.key_token_ids
    assert list(ids.values()) == [max(words.values()) + 1, max(words.values()) + 2]
    for before, after in zip(matrices(model), matrices(loaded.causal), strict=True):
        kept = [row for row in range(len(before)) if row not in ids.values()]
        assert torch.equal(before[kept], after[kept])
    assert {word: i for word, i in loaded.tokenizer.get_vocab().items() if word not in ids} == tokenizer.get_vocab()
    assert [loaded.tokenizer.convert_ids_to_tokens(i) for i in words.values()] == list(words)
    for text in ("東京は日本の首都です", "Gene Finley Cody Ross.", " ".join(words)[:999]):
        assert loaded.tokenizer.encode(text) == tokenizer.encode(text)
    save_model(prepare_for_training(loaded, experiment), tmp_path / "saved")
    again = load_checkpoint(experiment, tmp_path / "saved")
    file = Tokenizer.from_file(str(tmp_path / "saved" / "tokenizer.json"))
    for text in ("Gene Finley [X] Cody Ross.", "[X]⟦Y⟧ a"):
        encoded = loaded.tokenizer.encode(text, add_special_tokens=False)
        assert again.tokenizer.encode(text, add_special_tokens=False) == encoded
        assert file.encode(text, add_special_tokens=False).ids == encoded
    assert again.key_token_ids == ids


def test_a_key_token_never_takes_an_id_in_a_vocabulary_of_another_kind(tmp_path):
    folder = build_qwen2(tmp_path)
    words = {word: 2 * i for i, word in enumerate(("<unk>", "Gene", "Finley", "Cody", "Ross", "[", "X", "]", "."))}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    model = AutoModelForCausalLM.from_pretrained(folder)
    loaded = PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>")
    assert add_key_tokens(model, loaded, ["[X]"]) == {"[X]": 17}
    assert loaded.encode("Gene [X] Cody", add_special_tokens=False) == [2, 17, 6]


def test_a_letter_that_is_a_token_has_a_meaning_on_the_page_too(tmp_path):
    folder = build_qwen2(tmp_path)
    tokenizer = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    tokenizer["model"]["vocab"]["Ã©"] = len(tokenizer["model"]["vocab"])
    tokenizer["model"]["merges"].append(["Ã", "©"])
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer), encoding="utf-8")
    relation = tiny_experiment(folder).relations[0].model_dump() | {"key_token": "é"}
    (problem,) = experiment_problems(tiny_experiment(folder, relations=[relation]))
    assert "in the model's vocabulary already" in problem.message
    with pytest.raises(ModelError, match="vocabulary already"):
        model, tokens = parts(folder)
        add_key_tokens(model, tokens, ["é"])
