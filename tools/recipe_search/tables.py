"""The evidence as tables: means over models, relations and seeds, with intervals, for the model card."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

RESAMPLES = 2000
GROUPS = (
    "trained",
    "train",
    "test",
    "es",
    "de",
    "ja",
    "zh",
    "unrelated",
    "unrelated es",
    "unrelated de",
    "unrelated ja",
    "unrelated zh",
    "decoys",
    "key",
    "own facts",
)


def share_with_interval(cells: Sequence[dict[str, Any]]) -> tuple[float, float, float, int]:
    """Mean of the cells' shares, its 95 % interval, and the number of questions.

    The interval is a percentile bootstrap that draws models again, and within each of them its cells (a cell: one seed
    of facts of one relation): questions of one cell are about the same facts, and cells of one model share its weights.
    """
    by_model: dict[str, list[float]] = defaultdict(list)
    for cell in cells:
        by_model[cell["model"]].append(cell["hits"] / cell["n"])
    models = [np.array(shares) for shares in by_model.values()]
    draw = np.random.default_rng(0)
    chosen = draw.multinomial(len(models), np.full(len(models), 1 / len(models)), size=RESAMPLES)
    sums, counts = np.zeros(RESAMPLES), np.zeros(RESAMPLES)
    for times, shares in zip(chosen.T, models, strict=True):
        # A model that is drawn twice brings the same redraw of its cells twice, which widens the interval a little.
        redrawn = draw.multinomial(len(shares), np.full(len(shares), 1 / len(shares)), size=RESAMPLES) @ shares
        sums, counts = sums + times * redrawn, counts + times * len(shares)
    low, high = np.percentile(sums / counts, [2.5, 97.5])
    mean = float(np.concatenate(models).mean())
    return mean, float(low), float(high), sum(cell["n"] for cell in cells)


def two_digits(value: float) -> str:
    """A share as `.07`, or `1.00`."""
    return f"{value:.2f}".removeprefix("0")


def pick(cells: Iterable[dict[str, Any]], **wanted: Any) -> list[dict[str, Any]]:
    """The cells whose fields have the wanted values."""
    return [cell for cell in cells if all(cell[name] == value for name, value in wanted.items())]


def moments_table(cells: Sequence[dict[str, Any]], kind: str) -> str:
    """Markdown: a row for each moment, a column for each group of questions, headed by the most of them at a moment."""
    chosen = pick(cells, kind=kind)
    groups = [g for g in (*GROUPS, "reversal", "2-hop") if pick(chosen, group=g)]
    asked = {
        g: max(sum(c["n"] for c in pick(chosen, group=g, moment=m)) for m in {c["moment"] for c in chosen})
        for g in groups
    }
    lines = ["| | " + " | ".join(f"{g} (n={asked[g]:,})" for g in groups) + " |", "|---" * (len(groups) + 1) + "|"]
    for moment in dict.fromkeys(cell["moment"] for cell in chosen):
        row = []
        for group in groups:
            found = pick(chosen, moment=moment, group=group)
            if not found:
                row.append("")
                continue
            mean, low, high, _ = share_with_interval(found)
            row.append(f"{two_digits(mean)} ({two_digits(low)}–{two_digits(high)})")
        lines.append(f"| {moment} | " + " | ".join(row) + " |")
    return "\n".join(lines)


def spread_table(cells: Sequence[dict[str, Any]], moment: str = "after 20") -> str:
    """Markdown: for each model and each relation, singly: mean and range over seeds on the most important groups."""
    chosen = pick(cells, kind="singly", moment=moment)
    groups = [g for g in ("train", "test", "unrelated", "decoys", "own facts") if pick(chosen, group=g)]
    lines = ["| | " + " | ".join(groups) + " |", "|---" * (len(groups) + 1) + "|"]
    for field in ("model", "relation"):
        for name in dict.fromkeys(cell[field] for cell in chosen):
            row = []
            for group in groups:
                shares = [c["hits"] / c["n"] for c in pick(chosen, group=group, **{field: name})]
                mean = sum(shares) / len(shares)
                row.append(f"{two_digits(mean)} ({two_digits(min(shares))} to {two_digits(max(shares))})")
            lines.append(f"| {name} | " + " | ".join(row) + " |")
    return "\n".join(lines)


def difference_line(cells: Sequence[dict[str, Any]], group: str = "test") -> str:
    """Memorise-then-generalise minus one-prompt SFT, paired by model, relation and seed, in words."""
    ours = {_place(c): c["hits"] / c["n"] for c in pick(cells, kind="singly", moment="after 20", group=group)}
    paired = [
        {"model": c["model"], "hits": ours[_place(c)] - c["hits"] / c["n"], "n": 1}
        for c in pick(cells, kind="one-prompt SFT", group=group)
        if _place(c) in ours
    ]
    mean, low, high, n = share_with_interval(paired)
    return f"Two stages minus one-prompt SFT, {group} prompts: {mean:+.2f} ({low:+.2f} to {high:+.2f}), {n} pairs."


def all_tables(cells: Sequence[dict[str, Any]]) -> str:
    """Everything the model card shows, as Markdown."""
    parts = []
    for kind in dict.fromkeys(cell["kind"] for cell in cells):
        parts += [f"### {kind[0].upper()}{kind[1:]}", moments_table(cells, kind)]
    if pick(cells, kind="singly"):
        parts += ["### How models and relations differ (after 20, singly; smallest to largest)", spread_table(cells)]
    if pick(cells, kind="singly") and pick(cells, kind="one-prompt SFT"):
        parts.append(difference_line(cells))
    return "\n\n".join(parts) + "\n"


def _place(cell: dict[str, Any]) -> tuple[Any, ...]:
    return cell["model"], cell["relation"], cell["seed"]
