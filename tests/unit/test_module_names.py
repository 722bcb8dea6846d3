"""Names of our modules that stand in strings and commands, where no import checks them, name modules that exist."""

from __future__ import annotations

import re
from pathlib import Path

from engine.serving import PREPARE, embedded, vllm
from engine.serving.processes import keeper

ROOT = Path(__file__).resolve().parents[2]
OURS = ("app", "engine", "storage", "tools", "tests")
# "engine.serving.client" in quotes, and what follows `python -m`.
NAMED = re.compile(rf"""["']((?:{"|".join(OURS)})(?:\.\w+)+)["']|-m,?\s+(?:- )?((?:{"|".join(OURS)})[\w.]*)""")


def source(module: str) -> str | None:
    """The text of one of our modules; None when there is no such module."""
    path = ROOT.joinpath(*module.split("."))
    file = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    return file.read_text(encoding="utf-8") if file.is_file() else None


def test_every_module_that_is_named_in_a_string_exists() -> None:
    files = [ROOT / "Makefile", ROOT / "Dockerfile", *ROOT.glob("*.yaml"), *ROOT.glob("*.toml")]
    files += [ROOT / "README.md", *ROOT.glob("docs/*.md")]
    files += [file for folder in OURS for file in (ROOT / folder).rglob("*.py")]
    files.remove(ROOT / "tests" / "unit" / "test_documents.py")  # names a module that is not there, to have it found
    named = {
        name.rstrip("."): file.relative_to(ROOT)
        for file in files
        for groups in NAMED.findall(file.read_text(encoding="utf-8"))
        for name in groups
        if name
    }
    assert {"engine.training.layers.layer_of", "engine.commands.prepare", "app"} <= set(named), "nothing is looked at"
    for name, file in named.items():
        module, _, attribute = name.rpartition(".")  # or something in a module
        there = source(name) is not None or attribute in (source(module) or "")
        assert there, f"{file} names {name}, which is not there"


def test_the_names_that_serving_gives_its_modules() -> None:
    for name in (embedded.SERVER, keeper.__name__, PREPARE):
        assert '__name__ == "__main__"' in (source(name) or ""), f"{name} is no program"
    module, _, extension = vllm.ADAPTERS.rpartition(".")
    assert f"class {extension}" in (source(module) or "")
