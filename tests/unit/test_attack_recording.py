"""The attack that comes with the lab: of the weights that come with it, and what docs/attack.md says of it."""

from __future__ import annotations

import json
import lzma
import shutil
from pathlib import Path

import pytest

from app.server.first_start import HERE_OF_OLD, MARK, bring_recorded_attacks, made_at_first_start, queue_first_run
from app.shared.lab import Lab
from engine.attack.presets import ATTACKS
from engine.execution.attacks.recording import EMBEDDED_RECORDING, SHIPPED, restore
from engine.models.source import EMBEDDED
from storage.attacks import attack_counts, get_attack, list_attacks
from tools.attack_tables import of_file

ATTACK_PAGE = Path(__file__).parents[2] / "docs" / "attack.md"


@pytest.fixture(scope="module")
def few_cells(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The recording of the embedded base with its first cells alone: what is brought when does not depend on more."""
    file = tmp_path_factory.mktemp("recording") / EMBEDDED_RECORDING.name
    whole = json.loads(lzma.decompress(EMBEDDED_RECORDING.read_bytes()))
    file.write_bytes(lzma.compress(json.dumps(whole | {"cells": whole["cells"][:3]}).encode(), preset=0))
    return file


@pytest.mark.parametrize("source", sorted(SHIPPED.glob("*.json.xz")), ids=lambda path: path.name.partition(".")[0])
def test_the_document_shows_the_tables_of_each_recorded_attack(source: Path) -> None:
    assert of_file(source) in ATTACK_PAGE.read_text(encoding="utf-8")


def test_a_new_lab_has_the_whole_presets_soon_and_queues_the_story(tmp_path: Path) -> None:
    lab = Lab(tmp_path)
    first = queue_first_run(lab)
    assert first is not None
    bring_recorded_attacks(lab)
    *brought, story = list_attacks(lab.db)
    assert story.recorded is None and made_at_first_start(tmp_path, story.id)
    assert len(brought) == len(list(SHIPPED.glob("*.json.xz"))) and {"attack"} <= {a.name for a in brought}
    grid = ("facts", "prompts", "epochs", "learning_rates", "seeds", "controls", "defences")
    kept = (*grid, "ask", "batch_size", "trained_layers", "replay")
    for recorded in brought:
        assert set(attack_counts(lab.db, recorded.id)) == {"done"} and recorded.recorded is not None
        plan, preset = get_attack(lab.db, recorded.id).experiment, ATTACKS.load(recorded.name)
        # An older recording says nothing of what came later.
        told = {k: tuple(plan[k]) if isinstance(plan[k], list) else plan[k] for k in kept if k in plan}
        assert told == {k: getattr(preset, k) for k in told} and told.keys() >= set(grid)
    assert queue_first_run(lab) is None
    for recorded in brought:
        lab.delete_attack(recorded.id)
    bring_recorded_attacks(lab)
    assert [a.id for a in list_attacks(lab.db)] == [story.id], "what a person deleted comes back"


def test_a_first_start_that_was_cut_off_brings_it_at_the_next(tmp_path: Path, few_cells: Path) -> None:
    lab = Lab(tmp_path)
    queue_first_run(lab)
    bring_recorded_attacks(lab, few_cells.parent)
    mark = tmp_path / MARK
    there = [a.id for a in list_attacks(lab.db) if a.recorded]
    noted = mark.read_text().splitlines()
    mark.write_text("\n".join(line for line in noted if not line.endswith(there[0])) + "\n")
    bring_recorded_attacks(lab, few_cells.parent)
    again = [a.id for a in list_attacks(lab.db) if a.recorded]
    assert len(again) == len(there) and again != there


def test_an_upgrade_brings_what_is_new_and_nothing_twice(tmp_path: Path, few_cells: Path) -> None:
    lab, shipped, mark = Lab(tmp_path), tmp_path / "shipped", tmp_path / MARK
    shipped.mkdir()
    shutil.copy(few_cells, shipped)
    queue_first_run(lab)
    bring_recorded_attacks(lab, shipped)
    (first,) = [a.id for a in list_attacks(lab.db) if a.recorded]
    # A lab of before there were several noted it without a name.
    text = mark.read_text()
    mark.write_text(text.replace(f"the recorded attack {EMBEDDED}: ", HERE_OF_OLD))
    assert mark.read_text() != text
    shutil.copy(few_cells, shipped / "other.json.xz")
    for _ in range(2):
        bring_recorded_attacks(lab, shipped)
        there = [a.id for a in list_attacks(lab.db) if a.recorded]
        assert first in there and len(there) == 2
    lab.delete_attack(first)
    bring_recorded_attacks(lab, shipped)
    assert len([a for a in list_attacks(lab.db) if a.recorded]) == 1


def test_without_a_recording_nothing_is_restored(tmp_path: Path) -> None:
    assert restore(Lab(tmp_path).db, tmp_path, tmp_path / "none.json.xz") is None
