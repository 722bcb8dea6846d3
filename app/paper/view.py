"""What the Paper page shows: for each table whose figures stand beside the paper's, and which column is drawn."""

from __future__ import annotations

from typing import Self

from app.shared.view import PageView

MOST = 1000


class View(PageView):
    """The state of one page. sources, columns: `table=choice`, by `;`: which study, which column of the chart."""

    sources: str = ""
    columns: str = ""

    def cleaned(self) -> Self:
        """The view without what cannot be."""
        return self.but(sources=self.sources[:MOST], columns=self.columns[:MOST])

    def source(self, table: str) -> str:
        """The study that is wanted for a table; '' for whichever suits."""
        return _pairs(self.sources).get(table, "")

    def column(self, table: str) -> str:
        """The column of a table that is to be drawn; '' for the usual one."""
        return _pairs(self.columns).get(table, "")

    def choosing(self, kind: str, table: str, choice: str) -> Self:
        """The view with another `sources` or `columns` of a table."""
        chosen = {**_pairs(getattr(self, kind)), table: choice}
        return self.but(**{kind: ";".join(f"{name}={value}" for name, value in chosen.items() if value)}).cleaned()


def _pairs(text: str) -> dict[str, str]:
    return dict(part.partition("=")[::2] for part in text.split(";") if "=" in part)
