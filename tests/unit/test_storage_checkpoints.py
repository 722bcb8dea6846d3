"""One reading of checkpoints' names, in Python and in SQL."""

from __future__ import annotations

import random
import sqlite3

import pytest

from storage.checkpoints import CheckpointName, in_order, order_sql

IN_ORDER = ["base", "memorised@0", "memorised@9", "memorised@10", "generalised@3", "generalised@20", "attacked@5"]


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("base", CheckpointName("base")),
        ("memorised@20", CheckpointName("memorised", 20)),
        ("attacked@0", CheckpointName("attacked", 0)),
        ("stage2@6", CheckpointName("stage2", 6)),
        ("stage1", CheckpointName("stage1")),
        ("memorised@x", CheckpointName("memorised")),
        ("attacked@8-4bit", CheckpointName("attacked")),
        ("", CheckpointName("")),
    ],
)
def test_any_name_has_its_parts(name: str, parts: CheckpointName) -> None:
    assert CheckpointName.parse(name) == parts


@pytest.mark.parametrize(
    "name", ["base", "memorised", "memorised@03", "memorised@10000", "stage2@6", "memorised@3/..", "memorised@٣", ""]
)
def test_what_no_run_has_kept_is_no_folder_s_name(name: str) -> None:
    assert CheckpointName.kept(name) is None
    assert CheckpointName.kept("memorised@3") == CheckpointName("memorised", 3)


def test_python_and_sql_have_the_same_order() -> None:
    mixed = random.Random(1).sample(IN_ORDER, len(IN_ORDER))
    assert sorted(mixed, key=in_order) == IN_ORDER
    db = sqlite3.connect(":memory:")
    db.execute("create table names (name text)")
    db.executemany("insert into names values (?)", [[name] for name in mixed])
    assert [row[0] for row in db.execute(f"select name from names order by {order_sql('name')}")] == IN_ORDER
    db.close()
