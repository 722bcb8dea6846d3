"""Experiments that come with the lab, one YAML file each in this folder: add a file and it is a preset.

python -m engine presets
"""

from __future__ import annotations

from pathlib import Path

from engine.experiment import Experiment

FOLDER = Path(__file__).parent


def preset_names() -> list[str]:
    """The names of the presets, `quick` first."""
    return sorted((p.stem for p in FOLDER.glob("*.yaml")), key=lambda name: (name != "quick", name))


def preset_text(name: str) -> str:
    """The YAML of a preset, with its comments. Raises ValueError that lists the presets when there is none so named."""
    if name not in preset_names():
        raise ValueError(f"there is no preset ‘{name}’: choose one of {', '.join(preset_names())}")
    return (FOLDER / f"{name}.yaml").read_text(encoding="utf-8")


def load_preset(name: str) -> Experiment:
    """The preset's experiment, not yet resolved. Raises ValueError when there is none of that name."""
    return Experiment.from_text(preset_text(name))


def describe_preset(name: str) -> str:
    """One sentence about the preset: its experiment's description."""
    return load_preset(name).description
