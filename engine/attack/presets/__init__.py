"""Attack experiments that come with the lab, one YAML file each in this folder."""

from __future__ import annotations

from pathlib import Path

from engine.attack.experiment import AttackExperiment

FOLDER = Path(__file__).parent


def attack_preset_names() -> list[str]:
    """The names of the presets, the default `attack` first."""
    return sorted(path.stem for path in FOLDER.glob("*.yaml"))


def attack_preset_text(name: str) -> str:
    """The YAML of a preset. Raises ValueError that lists the presets when there is none so named."""
    if name not in attack_preset_names():
        raise ValueError(f"there is no attack preset ‘{name}’: choose one of {', '.join(attack_preset_names())}")
    return (FOLDER / f"{name}.yaml").read_text(encoding="utf-8")


def load_attack_preset(name: str) -> AttackExperiment:
    """The preset's experiment, not yet resolved. Raises ValueError when there is none of that name."""
    return AttackExperiment.from_text(attack_preset_text(name))
