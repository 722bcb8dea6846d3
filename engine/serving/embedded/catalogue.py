"""Where the models lie that the embedded server can load, by their names.

    base-KEY, RUN/base              a base with its key tokens (HOME/prepared/KEY)
    RUN/memorised@20                a checkpoint: a model of its own, or an adapter on its base
    base                            the base the server was started for
    any other name                  an adapter that `load_lora_adapter` brought

Only folders inside the lab's home are ever read.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from engine.checks import invisible_character, shorten
from engine.experiment import Experiment
from engine.models.folders import whole
from engine.models.source import ModelError
from engine.serving.prepared import precision_of, prepare_base
from engine.serving.served import (
    ADAPTER_CONFIG,
    BASE_NAME,
    checkpoint_names,
    lost_base,
    prepared_folder,
    run_base_key,
)
from storage.checkpoints import BASE, CheckpointName
from storage.folders import checkpoint_folder, run_folder

MOST_NAME_CHARACTERS = 200


class UnknownModel(ModelError):
    """No model of that name can be found."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a model lies. `base`: for an adapter the name of its base; `state`: changes when the files do."""

    name: str
    folder: Path
    precision: str
    base: str | None
    state: tuple[int, int]


class Catalogue:
    """Finds models by name; loads none. `base`: the name of the base that plain `base` means."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.base: str | None = None
        self._brought: dict[str, Path] = {}
        self._experiments: dict[tuple[str, int], Experiment] = {}

    def brought(self) -> list[str]:
        """Names of the adapters that were brought."""
        return sorted(self._brought)

    def run_models(self, run: str) -> list[str]:
        """Names of a run's models: its base and what lies in its folder."""
        names = [f"{run}/{name}" for name in checkpoint_names(self.home, run)]
        return [f"{BASE}-{run_base_key(self.home, run, self._experiment(run))}", *names]

    def bring(self, name: str, folder: str, inplace: bool = False) -> Path | None:
        """Offer the adapter in `folder`, which must lie in the home; returns the folder that the name stood for.

        inplace: also under a name that another has already. Raises ModelError when it may or can not.
        """
        if name == BASE or BASE_NAME.fullmatch(name) or not _nameable(name):
            raise ModelError(f"‘{shorten(name)}’ cannot be the name of an adapter: choose another")
        before = self._brought.get(name)
        if before is not None and not inplace:
            raise ModelError(
                f"there is an adapter ‘{shorten(name)}’ already: choose another name, unload it first, or say "
                "load_inplace: true to put this one in its place"
            )
        path = self._adapter(folder)
        of_run = self._of_run(name)
        if of_run and path != self.find(name).folder.resolve():
            raise ModelError(f"‘{shorten(name)}’ is the name of a checkpoint: choose another")
        if not of_run:
            self._brought[name] = path
        return before

    def _adapter(self, folder: str) -> Path:
        """The folder of an adapter that lies in the home, with all its files. Raises ModelError."""
        # The folder of runs may be a link to another disk.
        roots = [root.resolve() for root in (self.home, self.home / "runs")]
        try:
            path = Path(folder).resolve()
            inside = any(path.is_relative_to(root) for root in roots)
            there = inside and (path / ADAPTER_CONFIG).is_file()
            files = [file.resolve() for file in path.iterdir()] if there else []
        except (OSError, ValueError, RuntimeError):  # no path at all, one in a ring of links, one without permission
            raise ModelError(f"there is no adapter in {shorten(folder, 200)}: it cannot be read as a folder") from None
        if not inside or not all(file.is_relative_to(path) for file in files):
            raise ModelError("adapters are loaded from inside the lab’s home only")
        if not there:
            raise ModelError(f"there is no adapter in {shorten(str(path), 200)}: it needs an {ADAPTER_CONFIG}")
        return path

    def bring_back(self, name: str, folder: Path | None) -> None:
        """Let a name stand for what it stood for before it was brought; for nothing, if that is None."""
        if folder is None:
            self._brought.pop(name, None)
        else:
            self._brought[name] = folder

    def send_away(self, name: str) -> bool:
        """Forget an adapter; returns whether it had been brought."""
        return self._brought.pop(name, None) is not None

    def find(self, name: str) -> Place:
        """Where the model of that name lies now. Raises UnknownModel; prepares a base that is not there yet."""
        if name == BASE:
            if self.base is None:
                raise UnknownModel("this server has no base of its own: name a run’s, as RUN/base")
            name = self.base
        if path := self._brought.get(name):
            if self.base is None:
                raise UnknownModel("this server has no base for adapters: start it with a run")
            return _place(name, path, "auto", self._base_of(path) or self.base)
        if match := BASE_NAME.fullmatch(name):
            return self._prepared(match[1])
        if of_run := self._of_run(name):
            run, checkpoint = of_run
            experiment = self._experiment(run)
            if checkpoint == BASE:
                if lost := lost_base(self.home, run, experiment):
                    raise ModelError(lost)
                return self._prepared(run_base_key(self.home, run, experiment))
            folder = checkpoint_folder(run_folder(self.home, run), checkpoint)
            folder = whole(folder) or folder
            if not folder.is_dir():
                there = ", ".join(checkpoint_names(self.home, run)) or "none yet"
                raise UnknownModel(f"run {run} has no checkpoint ‘{checkpoint}’ (any more); it has: {there}")
            adapter = (folder / ADAPTER_CONFIG).is_file()
            base = self.find(f"{run}/{BASE}").name if adapter else None
            return _place(name, folder, experiment.precision, base)
        raise UnknownModel(
            f"there is no model ‘{shorten(name)}’: ask for one that /v1/models lists, or for RUN/base, "
            "RUN/memorised@EPOCH, RUN/generalised@EPOCH or CELL/attacked@FACTS"
        )

    def _of_run(self, name: str) -> tuple[str, str] | None:
        run, _, checkpoint = name.partition("/")
        valid = run.isalnum() and run.isascii() and (checkpoint == BASE or CheckpointName.kept(checkpoint))
        return (run, checkpoint) if valid else None

    def _base_of(self, folder: Path) -> str | None:
        """The base of an adapter that lies in a run's folder."""
        parts = folder.relative_to(self.home.resolve()).parts if folder.is_relative_to(self.home.resolve()) else ()
        if len(parts) == 4 and parts[0] == "runs":
            return self.find(f"{parts[1]}/{BASE}").name
        return None

    def _prepared(self, key: str) -> Place:
        folder = prepared_folder(self.home, key)
        if whole(folder) is None:
            prepare_base(self.home, self._experiment_of(key), key)
        folder = whole(folder) or folder
        return _place(f"{BASE}-{key}", folder, precision_of(folder), None)

    def _experiment_of(self, key: str) -> Experiment:
        """The experiment of any run on the base of that key."""
        files = sorted((self.home / "runs").glob("*/run.json"), key=lambda p: -p.stat().st_mtime)
        for path in files:
            experiment = self._experiment(path.parent.name)
            if run_base_key(self.home, path.parent.name, experiment) == key:
                return experiment
        raise UnknownModel(f"there is no base ‘{BASE}-{key}’, and no run on it has begun: ask again once one has")

    def _experiment(self, run: str) -> Experiment:
        path = run_folder(self.home, run) / "run.json"
        try:
            version = (run, path.stat().st_mtime_ns)
            if version not in self._experiments:
                self._experiments[version] = Experiment.from_record(
                    json.loads(path.read_text(encoding="utf-8"))["experiment"]
                )
            return self._experiments[version]
        except FileNotFoundError:
            raise UnknownModel(f"there is no run ‘{run}’ (any more) in the lab’s home") from None
        except (OSError, ValueError, KeyError) as error:
            raise ModelError(f"the description of run {run} cannot be read ({shorten(str(error), 200)})") from error


def _place(name: str, folder: Path, precision: str, base: str | None) -> Place:
    marker = folder / (ADAPTER_CONFIG if base else "config.json")
    try:
        stat = marker.stat()
    except OSError:
        raise UnknownModel(f"the folder of ‘{shorten(name)}’ was deleted or is incomplete: {marker} is gone") from None
    return Place(name, folder, precision, base, (stat.st_ino, stat.st_mtime_ns))


def _nameable(name: str) -> bool:
    return name == name.strip() != "" and len(name) <= MOST_NAME_CHARACTERS and invisible_character(name) is None
