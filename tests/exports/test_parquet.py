"""A study's Parquet, read by pyarrow and pandas, says what its CSV says."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import pandas as pd
import pyarrow.parquet as pq
import pytest

from app.shared.lab import Lab
from app.studies.exports import written
from engine.exports.parquet import parquet
from tests.browser import study_seeding


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    return Lab(tmp_path / "home")


def test_parquet_and_csv_say_the_same(lab: Lab) -> None:
    study = study_seeding.paper(lab.db)
    table = pq.read_table(io.BytesIO(written(lab, study, ".parquet", {})))
    rows = list(csv.DictReader(io.StringIO(written(lab, study, ".csv", {}).decode())))
    assert table.column_names == list(rows[0]) and table.num_rows == len(rows) > 100
    frame = pd.read_parquet(io.BytesIO(written(lab, study, ".parquet", {})))
    assert frame["value"].tolist() == [float(row["value"]) for row in rows]
    assert frame["stage2.facts"].tolist() == [int(row["stage2.facts"]) for row in rows]
    assert frame["split"].tolist() == [row["split"] for row in rows]


def test_names_stay_as_they_are_and_mixed_columns_are_text() -> None:
    rows = [{"a": "=1+1", "b": 1, "c": None}, {"a": "x", "b": "two", "c": 2.5}]
    table = pq.read_table(io.BytesIO(parquet(("a", "b", "c"), rows)))
    assert table.to_pylist() == [{"a": "=1+1", "b": "1", "c": None}, {"a": "x", "b": "two", "c": 2.5}]
    assert pq.read_table(io.BytesIO(parquet(("a",), []))).num_rows == 0
