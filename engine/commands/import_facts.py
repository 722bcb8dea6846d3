"""python -m engine import FILE.csv [FILE.csv …] [--relation NAME …] [--onto PRESET] [--to FILE.yaml]"""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Annotated, Any

import typer

from engine.checks import shorten
from engine.commands.mistake import Mistake, check_target, mistakes_in, read_description
from engine.commands.run import Overrides
from engine.corpus.import_files import read_files
from engine.corpus.import_text import MAX_IMPORT_BYTES
from engine.corpus.importing import ImportedFacts
from engine.corpus.relations import load_relations
from engine.experiment import Experiment
from engine.presets import EXPERIMENTS

MOST_TOLD = 10


def import_command(
    sources: Annotated[
        list[Path], typer.Argument(metavar="FILE|FOLDER", help="CSV files, one for each relation; or their folder.")
    ],
    relations: Annotated[
        list[str] | None,
        typer.Option("--relation", metavar="NAME", help="What the first file is about, the second …; else its name."),
    ] = None,
    onto: Annotated[str, typer.Option(metavar="PRESET|FILE", help="The experiment that gets the facts.")] = "quick",
    overrides: Overrides = None,
    to: Annotated[Path | None, typer.Option(metavar="FILE.yaml", help="Where to; else it is printed.")] = None,
) -> None:
    """Write an experiment on facts from CSV files, such as the published dataset's; its prompts are the corpus's."""
    check_target(to)
    files = [(path.name, _read(path)) for path in _files(sources)]
    imported = read_files(files, relations or ())
    for note in imported.notes:
        typer.echo(f"note: {note}", err=True)
    _refuse(imported)
    base = read_description(EXPERIMENTS, onto, overrides).model_dump(mode="json")
    with mistakes_in("the facts"):
        text = _experiment(base, imported).to_yaml()
    if to is None:
        typer.echo(text, nl=False)
        return
    try:
        to.write_text(text, encoding="utf-8")
    except OSError as error:
        raise Mistake(f"{to} cannot be written: {error}") from error
    counts = Counter(imported.relations)
    typer.echo(f"{to}: " + ", ".join(f"{count:,} facts of {name}" for name, count in counts.items()))


def _files(sources: list[Path]) -> list[Path]:
    """The files, a folder's CSV files in the order of their names. Raises Mistake."""
    found: list[Path] = []
    for source in sources:
        inside = sorted(p for p in source.iterdir() if p.suffix.lower() == ".csv") if source.is_dir() else [source]
        if not inside:
            raise Mistake(f"there is no CSV file in {source}")
        found += inside
    return found


def _read(path: Path) -> bytes:
    try:
        if path.stat().st_size > MAX_IMPORT_BYTES:
            raise Mistake(f"{path} is larger than {MAX_IMPORT_BYTES // 1_000_000} MB: split it up")
        return path.read_bytes()
    except OSError as error:
        raise Mistake(f"{path} cannot be read: {error.strerror or error}") from error


def _refuse(imported: ImportedFacts) -> None:
    """Say every problem; raise Mistake when one of them is an error."""
    problems = imported.problems
    for problem in problems[:MOST_TOLD]:
        typer.echo(f"{'note' if problem.severity == 'warning' else 'error'}: {problem.message}", err=True)
    errors = [problem for problem in problems if problem.severity == "error"]
    if errors:
        raise Mistake(
            f"{len(errors):,} things in the files are wrong, so nothing was written; the first: {errors[0].message}"
        )
    if not imported.facts:
        raise Mistake("there is no fact in the files")


def _experiment(base: dict[str, Any], imported: ImportedFacts) -> Experiment:
    """The experiment with these facts in place of its own. Raises ValueError and Mistake."""
    groups = imported.by_relation
    known = load_relations()
    for name in groups:
        if name not in known:
            raise Mistake(
                f"no prompts come with the lab for the relation ‘{shorten(name)}’: say with --relation which of "
                f"{', '.join(known)} it is, or import it on the page Design and write prompts there"
            )
    base["relations"] = [
        {
            "name": name,
            "key_token": "[X]" if len(groups) == 1 else f"[X{number}]",
            "facts": [fact.model_dump(mode="json") for fact in facts],
            "prompts": "corpus",
        }
        for number, (name, facts) in enumerate(groups.items(), 1)
    ]
    least = min(map(len, groups.values()))
    if base["stage2"]["facts"] >= least:
        base["stage2"]["facts"] = max(1, least // 2)
        typer.echo(f"note: stage2.facts is {base['stage2']['facts']}, so that facts are held out", err=True)
    base["name"] = "imported"
    base["description"] = ""
    return Experiment.from_data(base)
