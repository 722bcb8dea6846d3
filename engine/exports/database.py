"""The lab's database as a file for other people to look through with Datasette, and the metadata that explains it.

    export_database(home, Path("published"))     # then: datasette published

Only what engine/exports/tables.yaml names goes out. In every text, folders of this machine and what looks like a token
of the hub are replaced. Knows no torch.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from sqlite_utils import Database
from sqlite_utils.db import Table

from engine.exports.target import new_folder
from storage.answers import ANSWERS_NAME, EXPECTED, open_answers
from storage.database import open_database
from storage.folders import run_folder

TABLES = Path(__file__).with_name("tables.yaml")
DATABASE, METADATA = "lab.db", "metadata.json"
# Numbers among the columns, by name; what is in neither, nor in a table's own `whole`, is text.
WHOLE = {
    "seed", "attempt", "n", "n_facts", "options_least", "options_most", "trained", "hit", "choice_rank",
    "choice_options", "step", "depth", "position",
}  # fmt: skip
REAL = {
    "seconds", "value", "low", "high", "unaided", "chance", "log_probability", "log_probability_normalised", "epoch",
}  # fmt: skip
# A folder of the machine, but not an address or a fraction; its last part is kept.
_FOLDER = re.compile(r"(?<![\w:/.~])(?:[A-Za-z]:\\\\?|/|~/)(?:[^\s/\\\"'‘’“”<>|:*?,;(){}\[\]]+(?:/|\\\\?))+")
_SECRET = re.compile(r"hf_[A-Za-z0-9]{8,}|(?<=://)[^/\s@\"]+@")


@dataclass(frozen=True)
class Exported:
    """How many rows each table has."""

    rows: dict[str, int]


@cache
def described() -> dict[str, Any]:
    """What tables.yaml says."""
    found: dict[str, Any] = yaml.safe_load(TABLES.read_text(encoding="utf-8"))
    return found


def export_database(
    home: Path, folder: Path, *, answers: bool = True, on_run: Callable[[int, int], None] = lambda done, all: None
) -> Exported:
    """Write the database and its metadata into a new folder. answers: every single answer too; on_run(done, all) is
    told of each run whose answers are written.

    Raises ValueError when something is in the folder, sqlite3.Error, and OSError.
    """
    tables = {n: t for n, t in described()["tables"].items() if answers or "of_each_run" not in t}
    counts: dict[str, int] = {}
    with closing(open_database(home)) as db, new_folder(folder) as new:
        with closing(Database(new / DATABASE)) as out:
            for name, table in tables.items():
                made = _make(out, name, table)
                if sql := table.get("of_each_run"):
                    runs = [row["id"] for row in out.query("select id from runs")]
                    # What was taught and said stays as it is, whatever it looks like.
                    rows = scrubbed(_answers(home, runs, sql.replace("{expected}", EXPECTED), on_run), folders=False)
                else:
                    rows = scrubbed(db.query(table["sql"]))
                made.insert_all(rows, batch_size=5000)
                counts[name] = made.count
                if "search" in table:
                    made.enable_fts(table["search"])
            out.vacuum()
        text = json.dumps(metadata(tables), ensure_ascii=False, indent=1)
        (new / METADATA).write_text(text, encoding="utf-8")
    return Exported(counts)


def metadata(tables: dict[str, Any]) -> dict[str, Any]:
    """What Datasette shows of these tables: descriptions of them and their columns, facets, units, their order."""
    found = {}
    for name, table in tables.items():
        kept = ("description", "columns", "facets", "units", "sort_desc")
        found[name] = {key: table[key] for key in kept if key in table} | {"size": 50}
        if "name" in table["columns"]:
            found[name]["label_column"] = "name"
    told = {key: described()[key] for key in ("title", "description")}
    return told | {"databases": {Path(DATABASE).stem: {"tables": found}}}


def _make(out: Database, name: str, table: dict[str, Any]) -> Table:
    """The empty table with all its columns and references; an index for each of these."""
    references = table.get("references", {})
    whole = WHOLE | set(table.get("whole", ()))
    kinds = {c: int if c in whole else float if c in REAL else str for c in table["columns"]}
    made = out.table(name)
    made.create(kinds, pk=table.get("key"), foreign_keys=[(c, other, "id") for c, other in references.items()])
    for column in references:
        made.create_index([column])
    return made


def _answers(home: Path, runs: list[str], sql: str, on_run: Callable[[int, int], None]) -> Iterator[dict[str, Any]]:
    for done, run in enumerate(runs):
        on_run(done, len(runs))
        if (run_folder(home, run) / ANSWERS_NAME).is_file():
            with closing(open_answers(run_folder(home, run))) as answers:
                yield from answers.query(sql, [run])


def scrubbed(rows: Iterable[dict[str, Any]], folders: bool = True) -> Iterator[dict[str, Any]]:
    """The rows without secrets in any text, and without folders of this machine where `folders` says so."""
    for row in rows:
        yield {name: scrub(value, folders) if isinstance(value, str) else value for name, value in row.items()}


def scrub(text: str, folders: bool = True) -> str:
    """The text with `…/` in place of a folder that leads somewhere on this machine, and `…` for a secret."""
    if folders and ("/" in text or "\\" in text):
        text = _FOLDER.sub("…/", text)
    return _SECRET.sub("…", text) if "hf_" in text or "@" in text else text
