"""How the runs of a study represent their prompts."""

from contextlib import closing
from pathlib import Path

from engine.evaluation.representations.measure import Figure
from engine.execution.studies.represented import represented
from storage.answers import open_answers
from storage.representations import store_representations


def figure(value: float, half: float, *, layer: int = 3, position: str = "last", measure: str = "key_cosine") -> Figure:
    return Figure(measure, "test", value, value - half, value + half, 100, 10, position, layer)


def test_of_a_run_stand_the_last_layer_and_token_with_an_interval(tmp_path: Path) -> None:
    without = Figure("key_cka", "test", 0.9, None, None, 100, 10, "last", 3)
    others = [figure(0.1, 0.01, layer=2), figure(0.6, 0.01, position="mean"), without]
    with closing(open_answers(tmp_path)) as answers:
        store_representations(answers, "base", "s", [figure(0.2, 0.01), *others], [], {})
        (found,) = represented(answers)
    assert (found.checkpoint, found.layer, found.position, found.value) == ("base", 3, "last", 0.2)
