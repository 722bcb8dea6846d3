"""YAML, JSON and Python in documents: read by the lab's own code, compiled, and held to what the imports offer."""

from __future__ import annotations

import ast
import importlib
import inspect
import json
from collections.abc import Iterator
from functools import cache
from typing import Any

from engine.attack.experiment import AttackExperiment
from engine.attack.readings import Reading
from engine.experiment import Experiment
from engine.plain_yaml import read_yaml
from engine.studies.plan import planned_runs
from engine.studies.study import Study
from tools.documents.reading import ROOT, Document

# What a page's own functions for scripts are called, and with what.
API = ROOT / "app" / "ask"
# What a part of an experiment is put into.
QUICK = ROOT / "engine" / "presets" / "quick.yaml"


def snippet_problems(document: Document) -> list[str]:
    """Blocks of a document that the lab, or Python, would refuse."""
    checks = {"yaml": yaml_problems, "json": json_problems, "python": python_problems}
    return [
        f"{document.name}:{block.line}: {problem}"
        for block in document.blocks
        if block.language in checks
        for problem in checks[block.language](block.text)
    ]


def yaml_problems(text: str) -> list[str]:
    """Why the YAML is neither an experiment, a part of one, an attack, a study nor a reading."""
    try:
        data = read_yaml(text)
        if not isinstance(data, dict):
            return ["the YAML is no mapping"]
        if "role" in data or "says" in data:
            Reading.from_text(text)
        elif set(data) - set(Experiment.model_fields) and set(data) <= set(AttackExperiment.model_fields):
            AttackExperiment.from_data(data)
        elif "axes" in data:
            planned_runs(Study.from_data(data))
        else:
            Experiment.from_data(read_yaml(QUICK.read_text(encoding="utf-8")) | data)
    except ValueError as error:
        return [" ".join(str(error).split())]
    return []


def json_problems(text: str) -> list[str]:
    """Why the text is no JSON."""
    try:
        json.loads(text)
    except ValueError as error:
        return [f"not JSON: {error}"]
    return []


def python_problems(text: str) -> list[str]:
    """Imports, attributes and calls in Python code that do not exist."""
    try:
        tree = ast.parse(text)
    except SyntaxError as error:
        return [f"not Python: {error}"]
    names: dict[str, Any] = {}
    found: list[str] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            found += _bind(node, names)
    for node in ast.walk(tree):
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            made = _value(node.value, names)
            if made is not None:
                names.setdefault(node.targets[0].id, made)
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            owner = _value(node.value, names)
            if owner is not None and not _has(owner, node.attr):
                found.append(f"{ast.unparse(node.value)} has no {node.attr}")
        if isinstance(node, ast.Call):
            found += _call_problems(node, names)
    return found


def _bind(node: ast.Import | ast.ImportFrom, names: dict[str, Any]) -> Iterator[str]:
    """Import as the code does, noting what each name stands for; what cannot be imported is a problem."""
    for alias in node.names:
        module = node.module or "" if isinstance(node, ast.ImportFrom) else alias.name
        try:
            value: Any = importlib.import_module(module)
            if isinstance(node, ast.ImportFrom):
                value = getattr(value, alias.name)
        except (ImportError, AttributeError):
            yield f"cannot import {ast.unparse(node).removeprefix('import ')}"
        else:
            names[alias.asname or alias.name] = value


def _value(node: ast.expr, names: dict[str, Any]) -> Any:
    """What an expression stands for: an imported thing, a part of one, or the class that a call makes; else None."""
    if isinstance(node, ast.Name):
        return names.get(node.id)
    if isinstance(node, ast.Attribute):
        owner = _value(node.value, names)
        part = getattr(owner, node.attr, None) if inspect.ismodule(owner) or inspect.isclass(owner) else None
        kinds = (inspect.isclass, inspect.isfunction, inspect.ismethod, inspect.ismodule)
        return part if any(is_kind(part) for is_kind in kinds) else None
    if isinstance(node, ast.Call):
        called = _value(node.func, names)
        if inspect.isclass(called):
            return called
        if inspect.ismethod(called) and inspect.isclass(called.__self__):  # Experiment.from_text(…)
            return called.__self__
        result = inspect.signature(called).return_annotation if inspect.isfunction(called) else None
        if isinstance(result, str) and called is not None:
            result = vars(inspect.getmodule(called)).get(result)
        return result if inspect.isclass(result) and result.__module__ != "builtins" else None
    return None


def _has(owner: Any, name: str) -> bool:
    fields = {n for c in getattr(owner, "__mro__", ()) for n in getattr(c, "__annotations__", {})}
    return hasattr(owner, name) or name in fields or name in _made_in_init(owner)


@cache
def _made_in_init(owner: Any) -> frozenset[str]:
    """Attributes that a class gives its instances."""
    if not inspect.isclass(owner):
        return frozenset()
    try:
        tree = ast.parse(inspect.cleandoc(inspect.getsource(owner)))
    except (OSError, TypeError, SyntaxError):
        return frozenset()
    nodes = [node for node in ast.walk(tree) if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store)]
    return frozenset(node.attr for node in nodes)


def _call_problems(node: ast.Call, names: dict[str, Any]) -> Iterator[str]:
    """A call of ours with arguments that the function does not take; of the page's functions by `api_name`."""
    keywords = {k.arg: k.value for k in node.keywords if k.arg}
    asked = keywords.get("api_name")
    if isinstance(asked, ast.Constant):
        function = str(asked.value)
        known = api_functions().get(function.lstrip("/"))
        if known is None:
            yield f"the page has no function {function}"
        else:
            yield from (f"{function} takes no {name}" for name in keywords if name not in {*known, "api_name"})
        return
    called = _value(node.func, names)
    if inspect.isfunction(called) or inspect.ismethod(called):
        # Of an object that was made above the method is found in its class: there it wants the object, too.
        owner = _value(node.func.value, names) if isinstance(node.func, ast.Attribute) else None
        extra = int(inspect.isfunction(called) and inspect.isclass(owner))
        try:
            inspect.signature(called).bind(*[None] * (len(node.args) + extra), **dict.fromkeys(keywords))
        except TypeError as error:
            yield f"{ast.unparse(node.func)}: {error}"


@cache
def api_functions() -> dict[str, tuple[str, ...]]:
    """The functions that the Ask page offers to scripts, with their arguments' names."""
    found = {}
    for path in API.glob("*.py"):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        for outer in [n for n in ast.walk(tree) if isinstance(n, ast.FunctionDef) and "gr.api(" in ast.unparse(n)]:
            for inner in outer.body:
                if isinstance(inner, ast.FunctionDef | ast.AsyncFunctionDef):
                    found[inner.name] = tuple(a.arg for a in inner.args.args)
    return found
