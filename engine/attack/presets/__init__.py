"""Attack experiments that come with the lab, one YAML file each in this folder."""

from __future__ import annotations

from pathlib import Path

from engine.attack.experiment import AttackExperiment
from engine.presets import Presets

ATTACKS = Presets(Path(__file__).parent, AttackExperiment, "attack", "attack preset")
