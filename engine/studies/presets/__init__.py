"""Studies that come with the lab, one YAML file each in this folder."""

from __future__ import annotations

from pathlib import Path

from engine.presets import Presets
from engine.studies.study import Study

STUDIES = Presets(Path(__file__).parent, Study, "paper-main", "study preset")
