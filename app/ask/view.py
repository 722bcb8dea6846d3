"""What the Ask page shows: the run, the asking, its columns, and the opened answer."""

from __future__ import annotations

from typing import Self

from app.asking.columns import MODEL, MOST_COLUMNS
from app.shared.view import PageView, an_id, one_of
from storage.asking_queue import TokenPlace
from storage.askings import Column
from storage.checkpoints import in_order

ROWS = 100
MODES = ("fact", "text", "facts")


class View(PageView):
    """The state of one page. asked: the id of the asking that is shown; answer: NUMBER/RUN/CHECKPOINT of the opened
    answer; token: its place looked into."""

    UNADDRESSED = ("rows",)
    run: str = ""
    asked: str = ""
    mode: str = MODES[0]
    columns: tuple[str, ...] = ()
    answer: str = ""
    token: int | None = None
    rows: int = ROWS

    def cleaned(self) -> Self:
        """The view without what is no model, no mode, or too much."""
        columns = [m for m in dict.fromkeys(self.columns) if MODEL.fullmatch(m)]
        return self.but(
            run=an_id(self.run),
            asked=an_id(self.asked),
            mode=one_of(MODES, self.mode),
            columns=tuple(columns[:MOST_COLUMNS]),
            answer=self.answer if opened(self.answer) else "",
            rows=min(max(self.rows, ROWS), 10_000),
        )

    def address(self) -> dict[str, str]:
        """As the base says; a subject to ask about is said only on the way here, and columns only of an asking."""
        columns = {} if self.asked else {"columns": ""}
        return super().address() | columns | {"subject": ""}

    def token_place(self) -> TokenPlace | None:
        """The token that is looked into."""
        answer = opened(self.answer)
        return TokenPlace(self.asked, answer[1], answer[0], self.token) if answer and self.token is not None else None


def opened(answer: str) -> tuple[int, str] | None:
    """`12/RUN/base` as (12, "RUN/base")."""
    number, _, model = answer.partition("/")
    return (int(number), model) if number.isdecimal() and len(number) < 7 and MODEL.fullmatch(model) else None


def shown_columns(view: View, kept: list[Column]) -> tuple[str, ...]:
    """The columns to show: those of the address, else all that were asked, base first and then by stage and epoch."""
    if view.columns:
        return view.columns
    order = sorted(kept, key=lambda c: (c.run != view.run, in_order(c.checkpoint), c.position))
    return tuple(c.model for c in order[:MOST_COLUMNS])
