"""Two people change one thing at the same time: what each changed is kept, down to single fields and rows."""

from __future__ import annotations

from typing import Any


def merge(base: Any, mine: Any, theirs: Any, keep: bool = True) -> Any:
    """`theirs` with what `mine` changed against `base`; where both changed the same, `mine` is taken.

    Plain data. Mappings are merged by key. So are lists whose entries have names of their own: mappings with an `id`,
    rows that begin with a number, texts. `keep`: what `mine` removed and `theirs` changed stays.
    """
    if base == mine or mine == theirs:
        return theirs
    if theirs == base:
        return mine
    if isinstance(mine, dict) and isinstance(theirs, dict):
        return _merge_mappings(base if isinstance(base, dict) else {}, mine, theirs, keep)
    if _is_row(base) and _is_row(mine) and _is_row(theirs) and len({len(base), len(mine), len(theirs)}) == 1:
        return [merge(*cells, keep) for cells in zip(base, mine, theirs, strict=True)]
    first, own, others = _by_name(base), _by_name(mine), _by_name(theirs)
    if own is None or others is None:
        return mine
    merged = _merge_mappings(first or {}, own, others, keep)
    return [merged[name] for name in _order(own, others) if name in merged]


def _merge_mappings(base: dict[Any, Any], mine: dict[Any, Any], theirs: dict[Any, Any], keep: bool) -> dict[Any, Any]:
    merged: dict[Any, Any] = {}
    for key in [*theirs, *(key for key in mine if key not in theirs)]:
        if key in mine and key in theirs:
            merged[key] = merge(base.get(key), mine[key], theirs[key], keep)
            continue
        kept = mine[key] if key in mine else theirs[key]
        if key not in base or (kept != base[key] and (keep or key in mine)):
            merged[key] = kept
    return merged


def _is_row(item: Any) -> bool:
    return isinstance(item, list) and bool(item) and isinstance(item[0], int)


def _by_name(items: Any) -> dict[Any, Any] | None:
    """The entries by their names; None where not all have one of their own."""
    if not isinstance(items, list):
        return None
    named = {}
    for item in items:
        name = item.get("id") if isinstance(item, dict) else item[0] if _is_row(item) else item
        if not isinstance(name, int | str):
            return None
        named[name] = item
    return named if len(named) == len(items) else None


def _order(mine: dict[Any, Any], theirs: dict[Any, Any]) -> list[Any]:
    """The names of `theirs`, and those only `mine` has, each below the one that it follows there."""
    follow: dict[Any, list[Any]] = {None: []}
    last = None
    for name in mine:
        if name in theirs:
            last = name
        else:
            follow.setdefault(last, []).append(name)
    order = list(follow[None])
    for name in theirs:
        order += [name, *follow.get(name, ())]
    return order
