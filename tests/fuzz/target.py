"""One thing to be fuzzed, and how its outcomes are counted."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy


@dataclass
class Outcome:
    """What became of one input: `accepted` or `refused`."""

    name: str = "accepted"


@contextmanager
def said_in_words() -> Iterator[Outcome]:
    """Let a ValueError pass as a refusal, if it says something; everything else is a fault."""
    outcome = Outcome()
    try:
        yield outcome
    except ValueError as error:
        assert str(error).strip(), "refused without a word"
        assert not isinstance(error, UnicodeError), "refused by a codec, not in words"
        outcome.name = "refused"


@dataclass(frozen=True)
class Report:
    """How a target fared. `fault`: the first failure, with the input that Hypothesis shrank it to."""

    name: str
    outcomes: Counter[str]
    seconds: float
    fault: BaseException | None = None

    @property
    def inputs(self) -> int:
        """How many inputs were looked at."""
        return self.outcomes.total()


@dataclass(frozen=True)
class Fed:
    """A function that looks at one input and says what became of it, with the inputs that it is fed."""

    look: Callable[..., str]
    inputs: SearchStrategy[Any]


def fed(*inputs: SearchStrategy[Any]) -> Callable[[Callable[..., str]], Fed]:
    """Feed a function with values of these strategies, one for each of its arguments."""
    return lambda look: Fed(look, st.tuples(*inputs))


@dataclass(frozen=True)
class Target:
    """`share` of all inputs is its own. `shrinks`: a faulty input is made smaller; slow where a process is asked."""

    name: str
    fed: Fed
    share: int
    shrinks: bool = True

    def run(self, inputs: int, at: int) -> Report:
        """Look at `inputs` inputs, from the seed `at`."""
        outcomes: Counter[str] = Counter()

        def counted(arguments: tuple[Any, ...]) -> None:
            outcomes[self.fed.look(*arguments)] += 1

        chosen = settings(
            max_examples=inputs, deadline=None, database=None, print_blob=False,
            suppress_health_check=list(HealthCheck), phases=[Phase.generate, *([Phase.shrink] * self.shrinks)],
        )  # fmt: skip
        start = time.monotonic()
        fault: BaseException | None = None
        try:
            seed(at)(chosen(given(self.fed.inputs)(counted)))()
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # Hypothesis raises a group of all that it found
            fault = error
        return Report(self.name, outcomes, time.monotonic() - start, fault)
