"""`python -m engine readings [RELATION|FILE]`: the readings of the relations in words, and a check of one's own."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Annotated

import typer

from engine.commands.mistake import Mistake, mistakes_in, read_text_file, say_changes
from engine.corpus.names import generate_facts
from engine.corpus.readings import Reading, readings_of
from engine.corpus.relations import LANGUAGES, load_relations

Source = Annotated[
    str | None,
    typer.Argument(metavar="[RELATION|FILE]", help="A relation of the corpus, or a reading of your own to check."),
]


def readings_command(source: Source = None) -> None:
    """List the readings of each relation; with a relation, or a file of your own, their English prompts too."""
    if source is None:
        for name in load_relations():
            typer.echo(name)
            _print_readings(name)
    elif source in load_relations():
        _print_readings(source, prompts=True)
    else:
        _print_own(Path(source))


def _print_readings(relation: str, prompts: bool = False) -> None:
    subject, object_ = generate_facts(relation, 0, 1)[0]
    readings = readings_of(relation)
    width = max(map(len, readings))
    for name, reading in readings.items():
        typer.echo(f"  {name:{width}}  {reading.role:8}  {reading.in_words(subject, object_)}")
        if prompts:
            _print_prompts(reading)


def _print_own(path: Path) -> None:
    if not path.is_file():
        there = ", ".join(load_relations())
        raise Mistake(f"there is neither a relation nor a file ‘{path}’ (relations: {there})")
    notes: list[str] = []
    with mistakes_in(path):
        reading = Reading.from_text(read_text_file(path), notes)
    say_changes(path, notes)
    typer.echo(f"  {reading.name}  {reading.role}  {reading.in_words('SUBJECT', 'OBJECT') or reading.label}".rstrip())
    _print_prompts(reading)


def _print_prompts(reading: Reading) -> None:
    counts = Counter(p.language for p in reading.prompts)
    main = "en" if "en" in counts else next(iter(counts))
    for split in ("train", "test"):
        for prompt in reading.prompts_of(split, main):
            typer.echo(f"      {split:5}  {prompt.text}")
    if others := [f"{LANGUAGES.get(code, code)} {count}" for code, count in counts.items() if code != main]:
        typer.echo(f"      and prompts in other languages: {', '.join(others)}")
