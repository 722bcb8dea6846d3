"""`python -m MODULE …`: the module is there and its parser takes the words, without the work being done."""

from __future__ import annotations

import argparse
import contextlib
import importlib
import importlib.util
import io
import re
import sys
from pathlib import Path
from typing import Any
from unittest import mock

OURS = ("app", "engine", "storage", "tests", "tools")


class _Parsed(Exception):
    """The words were understood: nothing more is to be done."""


def module_problem(module: str, words: list[str], root: Path, *, whole: bool = True) -> str:
    """Why `python -m MODULE WORDS` would not begin its work; '' when it would. Not `whole`: words may be left out."""
    missing = next(
        (w for w in words if w.startswith(tuple(f"{name}/" for name in OURS)) and not (root / w).exists()), ""
    )
    if missing:
        return f"there is no {missing}"
    if module.partition(".")[0] not in OURS:
        return "" if _found(module) else f"there is no module {module}"
    name = module if not _is_package(module) else f"{module}.__main__"
    if not _found(name):
        return f"there is no module {name}"
    source = (root / (name.replace(".", "/") + ".py")).read_text(encoding="utf-8")
    if "argparse" in source:
        problem = _parse(name, words)
        return "" if "required" in problem and not whole else problem
    unknown = [word for word in words if word.startswith("--") and f'"{word}"' not in source]
    return f"it has no option {unknown[0]}" if unknown else ""


def _found(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ImportError:
        return False


def _is_package(module: str) -> bool:
    spec = importlib.util.find_spec(module) if _found(module) else None
    return spec is not None and spec.submodule_search_locations is not None


def _parse(module: str, words: list[str]) -> str:
    """Let the module's own `main` read the words, and stop it there."""
    real = argparse.ArgumentParser.parse_args

    def parse(parser: argparse.ArgumentParser, *given: Any, **named: Any) -> Any:
        real(parser, *given, **named)
        raise _Parsed

    said = io.StringIO()
    with (
        mock.patch.object(argparse.ArgumentParser, "parse_args", parse),
        mock.patch.object(sys, "argv", [module, *words]),
        contextlib.redirect_stderr(said),
        contextlib.redirect_stdout(io.StringIO()),
    ):
        try:
            importlib.import_module(module).main()
        except _Parsed:
            return ""
        except SystemExit as ended:
            if not ended.code:
                return ""
    lines = said.getvalue().strip().splitlines()
    return re.sub(r"^.*error: ", "", lines[-1]) if lines else "its parser was not asked"
