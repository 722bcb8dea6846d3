"""One thing to be fuzzed, and how its outcomes are counted."""

from __future__ import annotations

import time
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from hypothesis import HealthCheck, Phase, seed, settings


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
class Target:
    """`test` is a function under `@given` that returns what became of the input; `share` of all inputs are its own."""

    name: str
    test: Callable[..., Any]
    share: int
    shrinks: bool = True  # a fault's input is made smaller: too slow where a process is asked

    @staticmethod
    def cleaned(text: str) -> str:
        """A text in the form in which the lab keeps names: NFC, single spaces, none around it."""
        return " ".join(unicodedata.normalize("NFC", text).split())

    def run(self, inputs: int, at: int) -> Report:
        """Look at `inputs` inputs, from the seed `at`."""
        outcomes: Counter[str] = Counter()
        inner = self.test.hypothesis.inner_test  # type: ignore[attr-defined]

        def counted(*arguments: Any, **named: Any) -> None:
            outcomes[inner(*arguments, **named) or "accepted"] += 1

        self.test.hypothesis.inner_test = counted  # type: ignore[attr-defined]
        chosen = settings(
            max_examples=inputs, deadline=None, database=None, print_blob=False,
            suppress_health_check=list(HealthCheck), phases=[Phase.generate, *([Phase.shrink] * self.shrinks)],
        )  # fmt: skip
        start = time.monotonic()
        fault: BaseException | None = None
        try:
            seed(at)(chosen(self.test))()
        except BaseException as error:
            if isinstance(error, KeyboardInterrupt):
                raise
            fault = error
        finally:
            self.test.hypothesis.inner_test = inner  # type: ignore[attr-defined]
        return Report(self.name, outcomes, time.monotonic() - start, fault)
