"""Hidden states and what is computed of them, against plain loops and one prompt at a time."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations
from typing import Any

import numpy as np
import pytest
import torch

from engine.evaluation.batches import EvaluationError
from engine.evaluation.questions import fact_rows, prompt_rows
from engine.evaluation.representations import states
from engine.evaluation.representations.measure import measure_representations, pictured_layers
from engine.evaluation.representations.projection import joint_pca
from engine.evaluation.representations.states import NoStates, hidden_states, read_prompts
from engine.evaluation.representations.statistics import (
    BETWEEN,
    DELTA,
    KEY_CKA,
    KEY_COSINE,
    WITHIN,
    UnitSums,
    Value,
    figures,
    linear_cka,
)
from engine.evaluation.representations.texts import POSITIONS, SPLITS, key_of, sampled_facts, sampled_texts
from engine.experiment import Experiment
from engine.models.loading import LoadedModel, load_base, prepare_for_training
from engine.settings import Evaluation, Tuning
from tests.unit.tiny_models import BUILDERS, OBJECTS, SUBJECTS, build_qwen2, tiny_experiment

NATURAL = ("train", "test")


def states_of(relations: list[int], per_split: dict[str, int], seed: int = 0) -> dict[tuple[int, str], np.ndarray]:
    """Random unit states of facts, (fact, split) → (prompts, size), shifted by relation so that they cluster."""
    draw = np.random.default_rng(seed)
    centres = draw.normal(size=(max(relations) + 1, 6))
    found = {}
    for fact, relation in enumerate(relations):
        for split, count in per_split.items():
            rows = centres[relation] + draw.normal(size=(count, 6))
            found[fact, split] = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    return found


def summed(found: dict[tuple[int, str], np.ndarray], relations: list[int]) -> UnitSums:
    vectors, counts = np.zeros((len(relations), len(SPLITS), 6)), np.zeros((len(relations), len(SPLITS)), int)
    for (fact, split), rows in found.items():
        vectors[fact, SPLITS.index(split)] = rows.sum(0)
        counts[fact, SPLITS.index(split)] = len(rows)
    return UnitSums(vectors, counts, np.array(relations))


def by_name(values: Iterator[Value]) -> dict[tuple[str, str], Value]:
    return {(value.measure, value.prompts): value for value in values}


def delta_by_loops(found: dict[tuple[int, str], np.ndarray], relations: list[int], splits: tuple[str, ...]) -> Any:
    """(within, between) as the docstring says it, pair by pair."""
    prompts = [(relations[f], x) for (f, split), rows in found.items() if split in splits for x in rows]
    within: dict[int, list[float]] = {}
    between: dict[tuple[int, int], list[float]] = {}
    for (r, x), (s, y) in combinations(prompts, 2):
        (within.setdefault(r, []) if r == s else between.setdefault((min(r, s), max(r, s)), [])).append(float(x @ y))
    return np.mean([np.mean(v) for v in within.values()]), np.mean([np.mean(v) for v in between.values()])


def jackknife(value: float, left_out: list[list[float]]) -> tuple[float, float]:
    spread = float(sum((len(v) - 1) / len(v) * sum((x - np.mean(v)) ** 2 for x in v) for v in left_out))
    return value - 1.959963984540054 * spread**0.5, value + 1.959963984540054 * spread**0.5


def test_the_clusters_are_those_of_plain_loops() -> None:
    relations = [0, 0, 0, 1, 1, 2, 2, 2, 2]
    found = states_of(relations, {"key": 1, "train": 3, "test": 2, "unrelated": 2})
    values = by_name(figures(summed(found, relations)))
    for group, splits in {"key": ("key",), "natural": NATURAL, "all": ("key", *NATURAL)}.items():
        within, between = delta_by_loops(found, relations, splits)
        assert values[WITHIN, group].value == pytest.approx(within)
        assert values[BETWEEN, group].value == pytest.approx(between)
        delta = values[DELTA, group]
        assert delta.value == pytest.approx(within - between)
        assert delta.n == sum(len(rows) for (_, split), rows in found.items() if split in splits)
        assert delta.n_facts == 9
    without = [
        [
            float(np.subtract(*delta_by_loops({k: v for k, v in found.items() if k[0] != fact}, relations, NATURAL)))
            for fact in range(9)
            if relations[fact] == relation
        ]
        for relation in range(3)
    ]
    delta = values[DELTA, "natural"]
    assert (delta.low, delta.high) == pytest.approx(jackknife(delta.value, without))


def test_the_key_token_is_compared_about_the_same_fact() -> None:
    relations = [0, 0, 0, 1, 1]
    found = states_of(relations, {"key": 1, "train": 3, "unrelated": 2}, seed=1)
    values = by_name(figures(summed(found, relations)))
    for split in ("train", "unrelated"):
        near = [float(np.mean([found[f, "key"][0] @ x for x in found[f, split]])) for f in range(5)]
        expected = (np.mean(near[:3]) + np.mean(near[3:])) / 2
        assert values[KEY_COSINE, split].value == pytest.approx(expected)
        own = [near[:3], near[3:]]
        left = [[(sum(v) - x) / (len(v) - 1) / 2 for x in v] for v in own]
        figure = values[KEY_COSINE, split]
        assert (figure.low, figure.high) == pytest.approx(jackknife(figure.value, left))
        means = np.stack([found[f, split].mean(0) for f in range(5)])
        keys = np.stack([found[f, "key"][0] for f in range(5)])
        x, y = keys - keys.mean(0), means - means.mean(0)
        cka = np.sum((y.T @ x) ** 2) / (np.linalg.norm(x.T @ x) * np.linalg.norm(y.T @ y))
        assert values[KEY_CKA, split].value == pytest.approx(cka)
    assert (KEY_COSINE, "test") not in values


def test_linear_cka_knows_turned_and_stretched_arrangements_and_no_others() -> None:
    draw = np.random.default_rng(2)
    first = draw.normal(size=(40, 5))
    turned = 3 * first @ np.linalg.qr(draw.normal(size=(5, 5)))[0] + 7
    assert linear_cka(first, turned) == pytest.approx(1)
    assert linear_cka(first, draw.normal(size=(40, 5))) < 0.5
    assert linear_cka(first, np.ones((40, 5))) == 0


def test_one_relation_has_nothing_between_and_one_fact_no_interval() -> None:
    one = by_name(figures(summed(states_of([0, 0, 0], {"key": 1, "train": 2}), [0, 0, 0])))
    assert {measure for measure, _ in one} == {WITHIN, KEY_COSINE, KEY_CKA}
    alone = by_name(figures(summed(states_of([0], {"key": 1, "train": 2}), [0])))
    assert alone[KEY_COSINE, "train"].low is None and (KEY_CKA, "train") not in alone
    assert (WITHIN, "key") not in alone and alone[WITHIN, "natural"].low is None


@pytest.fixture(scope="module", params=sorted(BUILDERS))
def lab(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[LoadedModel, Experiment]:
    experiment = tiny_experiment(BUILDERS[request.param](tmp_path_factory.mktemp("models")))
    return load_base(experiment), experiment


def test_every_layer_and_position_is_that_of_the_prompt_alone(
    lab: tuple[LoadedModel, Experiment], monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded, experiment = lab
    texts = sampled_texts(experiment)
    prompts = read_prompts(loaded.tokenizer, texts)
    assert len({len(prompt.ids) for prompt in prompts}) > 2  # so that batches are filled up
    monkeypatch.setattr(states, "CPU_ROWS", 5)
    found = {row: s[:, :, i] for rows, s in hidden_states(loaded.causal, prompts) for i, row in enumerate(rows)}
    tokenizer: Any = loaded.tokenizer
    for row, (text, prompt) in enumerate(zip(texts, prompts, strict=True)):
        with torch.inference_mode():
            layers = loaded.causal(torch.tensor([prompt.ids]), output_hidden_states=True).hidden_states
        alone = torch.stack(layers)[:, 0].numpy()
        own = slice(*prompt.own)
        assert np.allclose(found[row][POSITIONS.index("last")], alone[:, -1], atol=1e-5)
        assert np.allclose(found[row][POSITIONS.index("subject")], alone[:, prompt.subject], atol=1e-5)
        assert np.allclose(found[row][POSITIONS.index("mean")], alone[:, own].mean(1), atol=1e-5)
        read = [tokenizer.decode([i]).strip(" ▁") for i in prompt.ids]
        assert text.text[: text.subject[1]].endswith(read[prompt.subject].rstrip("?"))
        # The tokens to which the subject has been read whole end with it, but for a sign that a tokenizer joins to it.
        assert SUBJECTS[text.fact - 1] in tokenizer.decode(list(prompt.ids[: prompt.subject + 1]))
        assert SUBJECTS[text.fact - 1] not in tokenizer.decode(list(prompt.ids[: prompt.subject]))
    assert {prompt.own[0] for prompt in prompts} == {0 if loaded.tokenizer.bos_token is None else 1}


def test_states_of_a_measured_model_are_those_of_its_figures(lab: tuple[LoadedModel, Experiment]) -> None:
    loaded, experiment = lab
    measured = measure_representations(loaded, experiment)
    assert measured is not None
    texts = sampled_texts(experiment)
    assert measured.sample == key_of(texts)
    prompts = read_prompts(loaded.tokenizer, texts)
    rows: dict[int, np.ndarray] = {}
    for batch, found in hidden_states(loaded.causal, prompts):
        rows |= {row: found[:, :, place] for place, row in enumerate(batch)}
    last = {(t.fact, SPLITS[t.split]): rows[i][0, 2] / np.linalg.norm(rows[i][0, 2]) for i, t in enumerate(texts)}
    expected = np.mean([last[f, "key"] @ last[f, "test"] for f in range(1, 9)])
    (figure,) = [
        f for f in measured.figures if (f.position, f.layer, f.measure, f.prompts) == ("last", 2, KEY_COSINE, "test")
    ]
    assert figure.value == pytest.approx(expected, abs=1e-6) and (figure.n, figure.n_facts) == (8, 8)
    assert {f.layer for f in measured.figures} == {0, 1, 2} and {f.position for f in measured.figures} == {*POSITIONS}
    assert {f.measure for f in measured.figures} == {WITHIN, KEY_COSINE, KEY_CKA}
    assert sorted(measured.vectors) == [1, 2] and pictured_layers(28) == [9, 19, 28]
    facts, asked = {row["id"] for row in fact_rows(experiment)}, {row["id"]: row for row in prompt_rows(experiment)}
    assert {fact for _, fact in measured.points} == facts
    assert {asked[prompt]["language"] for prompt, _ in measured.points} == {"en"}
    first = measured.points[0]
    place = next(i for i, t in enumerate(texts) if (t.prompt, t.fact) == first)
    unit = rows[place][0, 2] / np.linalg.norm(rows[place][0, 2])
    assert np.allclose(measured.vectors[2][0], unit, atol=1e-3)


def test_adapters_several_relations_and_what_asks_for_none(tmp_path: Any) -> None:
    one = tiny_experiment(build_qwen2(tmp_path), tuning=Tuning(method="lora", rank=2))
    data = one.model_dump(mode="json")
    other = data["relations"][0] | {"name": "teacher", "key_token": "[Y]"}
    other["facts"] = [{"subject": o, "object": s} for s, o in zip(SUBJECTS, OBJECTS, strict=True)]
    other["options"] = list(SUBJECTS)
    two = Experiment.from_data(data | {"relations": [data["relations"][0], other]})
    loaded = prepare_for_training(load_base(two), two)
    with torch.no_grad():
        for name, weight in loaded.model.named_parameters():
            if "lora_B" in name:
                weight.normal_()
    measured = measure_representations(loaded, two)
    assert measured is not None
    deltas = [f for f in measured.figures if f.measure == DELTA and f.position == "last"]
    assert len(deltas) == 3 * 3 and {f.n_facts for f in deltas} == {16} and all(f.low is not None for f in deltas)
    with loaded.model.disable_adapter():  # type: ignore[operator]
        assert measure_representations(loaded, two).figures != measured.figures  # type: ignore[union-attr]

    none = two.model_copy(update={"evaluation": Evaluation.model_validate({"representations": {"facts": 0}})})
    assert measure_representations(loaded, none) is None
    # A run of before there was this looked at none.
    old = two.model_dump(mode="json")
    del old["evaluation"]["representations"]
    assert sampled_texts(Experiment.from_record(old)) == [] and sampled_texts(Experiment.from_data(old))


def test_the_sample_does_not_depend_on_what_stage_2_is_shown(tmp_path: Any) -> None:
    def sample(k: int, count: int) -> list[int]:
        experiment = tiny_experiment("embedded", stage2={"facts": k, "epochs": 1})
        return sampled_facts(experiment, experiment.relations[0], count)

    assert sample(1, 4) == sample(4, 4) == sample(7, 4) == sample(1, 8)[:4] and sorted(sample(2, 20)) == list(range(8))
    experiment = tiny_experiment("embedded")
    shown = set(experiment.stage2_facts(experiment.relations[0]))
    assert len(shown & set(sample(4, 4))) == 2


def test_what_cannot_be_looked_at_is_told(lab: tuple[LoadedModel, Experiment], monkeypatch: pytest.MonkeyPatch) -> None:
    loaded, experiment = lab
    prompts = read_prompts(loaded.tokenizer, sampled_texts(experiment))
    body = loaded.causal.base_model
    forward = type(body).forward

    def without(self: Any, *args: Any, **settings: Any) -> Any:
        return forward(self, *args, **settings | {"output_hidden_states": False})

    with monkeypatch.context() as patch:
        patch.setattr(type(body), "forward", without)
        with pytest.raises(NoStates, match=r"representations\.facts to 0"):
            list(hidden_states(loaded.causal, prompts))
    weight = next(p for p in body.parameters() if p.ndim == 1)
    kept = weight.detach().clone()
    with torch.no_grad():
        weight.fill_(torch.nan)
        with pytest.raises(EvaluationError, match="diverged"):
            list(hidden_states(loaded.causal, prompts))
        weight.copy_(kept)


def test_the_picture_is_one_projection_of_all_checkpoints() -> None:
    draw = np.random.default_rng(3)
    before, after = draw.normal(size=(2, 30, 8)).astype(np.float16)
    places, shares = joint_pca([before, after])
    both = np.concatenate([before, after]).astype(float)
    _, lengths, axes = np.linalg.svd(both - both.mean(0), full_matrices=False)
    expected = (both - both.mean(0)) @ axes[:2].T
    found = np.concatenate(places)
    assert np.allclose(np.abs(found), np.abs(expected), atol=1e-6)
    assert shares == pytest.approx(lengths[:2] ** 2 / np.sum(lengths**2))
    # Of more dimensions than points, the other way round: the same.
    wide = [np.concatenate([part, np.zeros((30, 100), part.dtype)], 1) for part in (before, after)]
    assert np.allclose(np.concatenate(joint_pca(wide)[0]), found, atol=1e-6)
    again, _ = joint_pca([before, after])
    assert np.array_equal(np.concatenate(again), found)
