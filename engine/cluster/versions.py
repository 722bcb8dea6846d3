"""What must be the same on every machine of a cluster: the lab's code, Python, and Ray."""

from __future__ import annotations

import hashlib
import platform
from functools import cache
from importlib.metadata import PackageNotFoundError, version

from engine import CODE_ROOT, __version__

WORDS = {"lab": "the lab", "python": "Python", "ray": "Ray"}
# What trains and asks; the page is the owner's alone.
_ROOMS = ("engine", "storage")
_CODE = (".py", ".yaml")
# The embedded base, which `make base` makes again.
_WEIGHTS, _OF_A_MODEL = "weights", (".safetensors", ".json")


@cache
def versions() -> dict[str, str]:
    """Those of this machine; of the lab with a fingerprint of its code and its embedded base, since a checkout changes
    without its number."""
    python = ".".join(platform.python_version_tuple()[:2])
    return {"lab": f"{__version__}, code {_fingerprint()}", "python": python, "ray": _version("ray")}


def difference(node: str, theirs: object) -> str:
    """What another machine has in another version than this one, in one sentence; '' when all is the same."""
    ours = versions()
    if not isinstance(theirs, dict):
        return f"The machine {node} does not say which versions it has: install the lab there as it is here."
    other = [name for name in WORDS if theirs.get(name) != ours[name]]
    if not other:
        return ""
    there = "; ".join(f"{WORDS[name]} {theirs.get(name)} instead of {ours[name]}" for name in other)
    return f"The machine {node} has another version of what this one has: {there}. Install the same on all machines."


def _fingerprint() -> str:
    digest = hashlib.sha256()
    for room in _ROOMS:
        for path in sorted((CODE_ROOT / room).rglob("*")):
            if path.suffix in _CODE or (path.parent.name == _WEIGHTS and path.suffix in _OF_A_MODEL):
                digest.update(f"{path.relative_to(CODE_ROOT).as_posix()}\0".encode() + path.read_bytes())
    return digest.hexdigest()[:8]


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "none"
