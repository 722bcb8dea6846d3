"""What runs measured as a whole, averaged over the seeds of a study."""

import pytest

from engine.execution.studies.averages import Whole, average


def figure(value: float, half: float, among: str) -> Whole:
    return Whole(value, value - half, value + half, 100, 10, among)


def test_about_facts_of_their_own_the_variances_add_up() -> None:
    found = average([figure(0.2, 0.03, "a"), figure(0.4, 0.04, "b")])
    assert (found.value, found.n, found.n_facts) == (pytest.approx(0.3), 200, 20)
    assert (found.low, found.high) == (pytest.approx(0.275), pytest.approx(0.325)), "√(0.03² + 0.04²) / 2 = 0.025"


def test_about_the_same_facts_several_seeds_tell_no_more_than_one() -> None:
    found = average([figure(0.2, 0.03, "a"), figure(0.4, 0.05, "a")])
    assert (found.value, found.low, found.high) == (pytest.approx(0.3), pytest.approx(0.26), pytest.approx(0.34))
    assert (found.n, found.n_facts) == (200, 10)
    one = Whole(0.95, 0.8, 0.99, 20, 20, "a")
    thrice = average([one, one, one])
    assert (thrice.low, thrice.high) == (pytest.approx(0.8), pytest.approx(0.99)), "as it was, and not above 1"


def test_those_about_the_same_facts_are_one_among_the_others() -> None:
    found = average([figure(0.2, 0.06, "a"), figure(0.2, 0.06, "a"), figure(0.5, 0.03, "b")])
    assert (found.value, found.n_facts) == (pytest.approx(0.3), 20)
    half = ((2 / 3 * 0.06) ** 2 + (1 / 3 * 0.03) ** 2) ** 0.5
    assert (found.low, found.high) == (pytest.approx(0.3 - half), pytest.approx(0.3 + half))
