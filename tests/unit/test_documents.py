"""The check of the documents finds every kind of fault, and the documents name what there is."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

import pytest

from engine.attack.experiment import AttackExperiment
from engine.experiment import Experiment
from engine.relation import Fact, GeneratedFacts, Prompt, Relation
from engine.settings import ChoiceSample, Evaluation, Stage1, Stage2, Tuning
from storage.measurements import RESULT_FIELDS
from tools.documents.__main__ import problems, size_problems
from tools.documents.commands import command_problems
from tools.documents.links import link_problems
from tools.documents.reading import ROOT, Document
from tools.documents.settings import setting_problems
from tools.documents.snippets import api_functions, snippet_problems


def document(text: str, name: str = "docs/page.md") -> Document:
    return Document(name, text)


def block(text: str, language: str = "") -> Document:
    return document(f"```{language}\n{text}\n```\n")


def text_of(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("rote-lab frobnicate", "there is no command ‘frobnicate’"),
        ("rote-lab run quick --sed 3", "No such option: --sed"),
        ("rote-lab run", "Missing argument"),
        ("rote-lab run quik", "neither a preset"),
        ("rote-lab run quick --set stage1.epoch=3", "check the spelling"),
        ("rote-lab run mine.yaml --set stage1.epoch=3", "check the spelling"),
        ("rote-lab run quick --set stage2.facts=100 > x.txt", "at most 99"),
        ("rote-lab show quick --seed=-3", "seed"),
        ("rote-lab readings aunt", "neither a relation nor a file"),
        ("rote-lab attack attak", "neither a preset"),
        ("rote-lab attack story --set seed=1", "check the spelling"),
        ("rote-lab serve RUN --backend gpu", "--backend"),
        ("rote-lab page --prot 80", "No such option: --prot"),
        (".venv/bin/python -m app --prot 80", "No such option: --prot"),
        ("python -m engine retry", "Missing argument"),
        ("ROTE_LAB_DEVICE=cpu rote-lab worker --twice", "No such option: --twice"),
        ("rote-lab runs | rote-lab cancels", "there is no command ‘cancels’"),
        ("rote-lab ask RUN \\\n  --subjct x", "No such option: --subjct"),
        ("rote-lab ask RUN --subject 'x", "No closing quotation"),
        ("python -m engine.nowhere", "there is no module engine.nowhere"),
        ("python -m engine.base --out X --epochs 3", "unrecognized arguments: --epochs"),
        ("python -m tools.recipe_search evaluate --kinds all", "invalid choice"),
        ("python -m tools.recipe_search", "required"),
        ("python -m tools.locks --overwrite", "it has no option --overwrite"),
        ("python -m pytest tests/unti", "there is no tests/unti"),
        ("make tset", "the Makefile has no target tset"),
        ("make run PROT=80", "the Makefile reads no variable PROT"),
        ("docker compose --profile tpu up", "no profile tpu"),
        ("curl http://x/v1/completions -d '{\"model\": 3}'", "the body is no request"),
        ('curl http://x/v1/completions -d \'{"prompt": "x", "max_tokns": 3}\'', "no field max_tokns"),
        ("frobnicate --all", "no check knows this command"),
    ],
)
def test_a_command_that_would_not_work_is_found(line: str, words: str) -> None:
    found = command_problems(block(line), ROOT)
    assert len(found) == 1 and words in found[0] and found[0].startswith("docs/page.md:1: ")


@pytest.mark.parametrize(
    "line",
    [
        "# a comment",
        "rote-lab run mine.yaml --set stage1.epochs=10 --seed 3 --results r.json   # with words behind it",
        'rote-lab attack mine.yaml --set run=3f9a1c2e --set "seeds=[0, 1]"',
        "rote-lab show quick > mine.yaml && rote-lab queue mine.yaml",
        "rote-lab page --no-worker",
        "python -m engine.base --world 9 --out X",
        "python -m tools.recipe_search evaluate --models A B --seeds 1 2",
        "make run HOST=0.0.0.0 PORT=7860 && make bench",
        "ROTE_LAB_VLLM_URL=http://127.0.0.1:8000 make run",
        'curl http://x/v1/completions \\\n  -d \'{"model": "base",\n  "prompt": "x"}\'',
        "git clone https://example.org/x && cd x",
    ],
)
def test_a_command_that_works_passes(line: str) -> None:
    assert command_problems(block(line), ROOT) == []


def test_commands_in_sentences_may_be_cut_short_but_not_wrong() -> None:
    right = "`rote-lab run` or `rote-lab attack ID`, `make vllm` and `python -m tools.recipe_search`; `makes sense`"
    assert command_problems(document(right), ROOT) == []
    wrong = "`rote-lab rnu`, `rote-lab run --sed`, `make vlm`, `python -m tools.links`"
    assert len(command_problems(document(wrong), ROOT)) == 4


def test_blocks_of_other_languages_are_no_commands() -> None:
    assert command_problems(block("frobnicate --all", "text"), ROOT) == []


@pytest.mark.parametrize(
    ("language", "text", "words"),
    [
        ("yaml", "relations: [{name: mother}]\nstage1: {epoch: 3}", "check the spelling"),
        ("yaml", "stage2: {facts: 100}", "at most 99"),
        (
            "yaml",
            "name: x\nrole: neutral\nprompts: {train: {en: [no place]}, test: {en: ['{subject}']}}",
            "{subject}",
        ),
        ("yaml", "experiment: quick\ndefences: [replay]\nfacts: many", "facts"),
        ("yaml", "experiment: quick\nfacts: [1]\nattak: x", "check the spelling"),
        ("yaml", "a: [", "not closed"),
        ("yaml", "- 1", "no mapping"),
        ("json", "{'a': 1}", "not JSON"),
        ("python", "def f(:", "not Python"),
        ("python", "from engine.experiment import Experiments", "cannot import"),
        ("python", "import engine.nowhere", "cannot import"),
        ("python", "from engine.experiment import Experiment\nExperiment.from_txt('x')", "has no from_txt"),
        ("python", "from engine.experiment import Experiment\ne = Experiment.from_text('x')\ne.sed", "has no sed"),
        ("python", "from engine.attack.readings import experiment_with_reading as e\ne(1, 'x', 2).sed", "has no sed"),
        ("python", "from engine.presets import load_preset\nload_preset()", "missing a required argument"),
        ("python", "from openai import OpenAI\nc = OpenAI()\nc.completion", "has no completion"),
        ("python", "x.predict(run='1', api_name='/ask_about_fat')", "no function /ask_about_fat"),
        ("python", "x.predict(rum='1', api_name='/ask_about_fact')", "takes no rum"),
    ],
)
def test_a_snippet_that_would_not_work_is_found(language: str, text: str, words: str) -> None:
    found = snippet_problems(block(text, language))
    assert len(found) == 1 and words in found[0]


@pytest.mark.parametrize(
    ("language", "text"),
    [
        ("yaml", "relations: [{name: mother, key_token: '[Z]'}]"),
        ("yaml", "stage1: {epochs: 3}"),
        ("yaml", "experiment: quick\ndefences: [replay]\nfacts: [0, 10]"),
        ("json", '{"a": 1}'),
        (
            "python",
            "from engine.experiment import Experiment\ne = Experiment.from_text('x')\ne.seed, e.to_yaml()",
        ),
        ("python", "from gradio_client import Client\nlab = Client('x')\nlab.view_api()"),
        ("text", "def f(:"),
    ],
)
def test_a_snippet_that_works_passes(language: str, text: str) -> None:
    assert snippet_problems(block(text, language)) == []


def test_links_paths_and_trees_that_lead_nowhere_are_found(tmp_path: Path) -> None:
    (tmp_path / "docs").mkdir()
    (tmp_path / "app" / "shared").mkdir(parents=True)
    pages = {
        "README.md": "# A lab\n\n## Start *here*\n[x](docs/a.md#what-it-is) [y](docs/a.md#gone) ![p](docs/p.png)\n"
        "[z](#start-here) [w](https://example.org/nothing) `app/shared/` `app/gone.py` `python` `runs/ID/`\n",
        "docs/a.md": "## What it is?\n## What it is?\n[b](b.md) [back](../README.md) [two](#what-it-is-1) `app/x/`\n\n"
        "```tree\napp/   pages\n  shared/   parts\n  gone/   nothing\n            more words\n```\n",
        "CHANGELOG.md": "Moved `app/old.py`.\n",
    }
    for name, text in pages.items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    found = link_problems([Document(name, text) for name, text in pages.items()], tmp_path)
    assert found == [
        "README.md: dead link docs/a.md#gone",
        "README.md: dead link docs/p.png",
        "README.md:4: there is no app/gone.py",
        "docs/a.md: dead link b.md",
        "docs/a.md:3: there is no app/x/",
        "docs/a.md:8: there is no app/gone",
    ]


def test_variables_are_explained_and_read(tmp_path: Path) -> None:
    (tmp_path / "engine").mkdir()
    (tmp_path / "engine" / "a.py").write_text('os.environ["ROTE_LAB_ONE"], "ROTE_LAB_TWO"\n')
    pages = [document("`ROTE_LAB_ONE`", "docs/models.md"), document("`ROTE_LAB_THREE`", "README.md")]
    assert setting_problems(pages, tmp_path) == [
        "docs/models.md: does not explain ROTE_LAB_TWO",
        "README.md: nothing reads ROTE_LAB_THREE",
    ]


def test_a_readme_that_grows_is_found() -> None:
    assert size_problems([document("ä" * 3_500, "README.md"), document("ä" * 9_000)]) == []
    assert "7,002 bytes" in size_problems([document("ä" * 3_501, "README.md")])[0]


def test_the_documents_are_in_order() -> None:
    names = ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", *(f"docs/{p.name}" for p in (ROOT / "docs").glob("*.md")))
    assert problems([Document(name, text_of(name)) for name in names]) == []


def named(document: str) -> set[str]:
    """Every word that stands as code in a document."""
    return {word for code in re.findall(r"`([^`\n]+)`", text_of(document)) for word in re.findall(r"[\w.]+", code)}


def test_every_setting_of_an_experiment_is_explained() -> None:
    parts = (Experiment, Relation, Fact, GeneratedFacts, Prompt, Stage1, Stage2, Tuning, Evaluation, ChoiceSample)
    settings = {name for part in parts for name in part.model_fields}
    words = {part for word in named("docs/experiment.md") for part in word.split(".")}
    assert settings - words - {"text"} == set() and set(RESULT_FIELDS) <= words


def test_every_setting_of_an_attack_is_named() -> None:
    words = named("docs/attack.md") | set(re.findall(r"^(\w+):", text_of("docs/attack.md"), re.M))
    assert set(AttackExperiment.model_fields) - words - {"description"} == set()


def test_the_page_on_scripts_lists_every_function_and_download() -> None:
    text = text_of("docs/api.md")
    assert set(re.findall(r"^\| `/(\w+)` ", text, re.M)) == set(api_functions())
    routes = {
        route
        for path in (ROOT / "app").rglob("*.py")
        for route in re.findall(r'\.get\("(/(?:export|model-card)[^"]*)"\)', path.read_text(encoding="utf-8"))
    }
    assert routes and set(re.findall(r"`(/(?:export/|model-card)[^`]*)`", text)) == routes


def test_private_parts_of_libraries_are_where_they_are_said_to_be() -> None:
    rows = [line.strip("| ").split(" | ") for line in text_of("CONTRIBUTING.md").splitlines() if line.startswith("| ")]
    places = {part: re.findall(r"`([^`]+)`", where) for _, part, where in (r for r in rows if len(r) == 3)}
    looked_for = {words[0]: where for part, where in places.items() if (words := re.findall(r"`([^`]+)`", part))}
    assert len(looked_for) > 5

    def holds(names: Iterable[str], word: str) -> bool:
        last = word.split(".")[-1]
        files = {name: [ROOT / name] if (ROOT / name).is_file() else (ROOT / name).rglob("*.py") for name in names}
        return all(any(last in file.read_text("utf-8") for file in found) for found in files.values())

    assert [word for word, where in looked_for.items() if where and not holds(where, word)] == []
