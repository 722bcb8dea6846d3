"""How the runs of a study represent their prompts, pooled over its seeds."""

from contextlib import closing
from pathlib import Path

import pytest

from engine.evaluation.representations.measure import Figure
from engine.execution.studies.represented import pooled, represented
from storage.answers import open_answers
from storage.representations import store_representations


def figure(value: float, half: float, *, layer: int = 3, position: str = "last", measure: str = "key_cosine") -> Figure:
    return Figure(measure, "test", value, value - half, value + half, 100, 10, position, layer)


def test_figures_of_several_seeds_are_their_mean_with_the_variances_added() -> None:
    found = pooled([figure(0.2, 0.03), figure(0.4, 0.04)])
    assert (found.value, found.n, found.n_facts) == (pytest.approx(0.3), 200, 20)
    assert (found.low, found.high) == (pytest.approx(0.275), pytest.approx(0.325)), "√(0.03² + 0.04²) / 2 = 0.025"
    one = pooled([figure(0.2, 0.03)])
    assert (one.low, one.high) == (pytest.approx(0.17), pytest.approx(0.23))


def test_of_the_same_texts_several_seeds_tell_no_more_than_one() -> None:
    found = pooled([figure(0.2, 0.03), figure(0.4, 0.05)], alike=True)
    assert (found.value, found.low, found.high) == (pytest.approx(0.3), pytest.approx(0.26), pytest.approx(0.34))
    assert (found.n, found.n_facts) == (200, 10)


def test_of_a_run_stand_the_last_layer_and_token_with_an_interval(tmp_path: Path) -> None:
    without = Figure("key_cka", "test", 0.9, None, None, 100, 10, "last", 3)
    others = [figure(0.1, 0.01, layer=2), figure(0.6, 0.01, position="mean"), without]
    with closing(open_answers(tmp_path)) as answers:
        store_representations(answers, "base", "s", [figure(0.2, 0.01), *others], [], {})
        (found,) = represented(answers)
    assert (found.checkpoint, found.layer, found.position, found.value) == ("base", 3, "last", 0.2)
