"""Commands in documents are parsed by what would run them; what only reads is run."""

from __future__ import annotations

import contextlib
import io
import json
import re
import shlex
from collections.abc import Iterator
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import typer
import yaml
from typer.main import get_command

from engine.attack.experiment import AttackExperiment
from engine.commands.main import app as engine_app
from engine.commands.main import main as run_engine
from engine.description import override
from engine.serving.protocol import CompletionRequest
from engine.studies.plan import planned_runs
from engine.studies.study import Study, set_axis
from tools.documents.modules import module_problem
from tools.documents.reading import ROOT, Code, Document

SHELL = ("", "sh", "bash", "console")
# What a document may call without a check: nothing of the lab's is in their arguments.
KNOWN = {"cd", "git", "pip", ".venv/bin/pip", "pre-commit", "apt-get"}
READ_ONLY = ("presets", "show", "readings")
# What a reader's own file is copied from, so that settings put upon it are checked too.
COPIED = "quick"
EXPERIMENTS, ATTACKS, STUDIES = "engine/presets", "engine/attack/presets", "engine/studies/presets"
SOURCES = {"show": EXPERIMENTS, "run": EXPERIMENTS, "queue": EXPERIMENTS, "attack": ATTACKS, "study": STUDIES}
GOES_ON = ("attack", "study")  # by an id
OWN_FILE = (".yaml", ".yml", ".json", ".json.xz")
RUN_ID = re.compile(r"[0-9a-f]{8}|RUN|ID")


def command_problems(document: Document, root: Path) -> list[str]:
    """Commands of a document's shell blocks and of code in its sentences that would not work."""
    found = []
    for code in [*document.blocks, *document.spans]:
        for line in _lines(code):
            place = f"{document.name}:{code.line}: ‘{' '.join(line.split())[:70]}’"
            try:
                found += [
                    f"{place}: {problem}"
                    for words in _commands(line)
                    if (problem := _problem(words, root, inline=code.inline))
                ]
            except ValueError as error:
                found.append(f"{place}: {error}")
    return found


def _lines(code: Code) -> Iterator[str]:
    """Command lines, continued ones joined. Of code in a sentence only what is clearly a command of the lab's."""
    if code.inline:
        if re.match(r"(rote-lab|make|(\S+/)?python -m) ", code.text):
            yield code.text
    elif code.language in SHELL:
        waiting = ""
        for line in code.text.replace("\\\n", " ").splitlines():
            waiting += line + "\n"
            if not _is_open(waiting):
                if not waiting.lstrip().startswith("#"):
                    yield waiting
                waiting = ""
        yield waiting


def _is_open(line: str) -> bool:
    """Whether a quotation goes on in the next line."""
    try:
        shlex.split(line, comments=True)
    except ValueError:
        return True
    return False


def _commands(line: str) -> Iterator[list[str]]:
    """The simple commands of a line: no comments, no pipes and redirections, no variables set before them."""
    lexer = shlex.shlex(line, posix=True, punctuation_chars="|&;<>")
    lexer.whitespace_split, lexer.commenters = True, "#"
    words: list[str] = []
    skip = False
    for word in [*lexer, ";"]:
        if set(word) <= set("|&;"):
            while words and re.match(r"[A-Z_]+=", words[0]):
                words.pop(0)
            if words:
                yield words
            words = []
        elif set(word) <= set("<>"):
            skip = True
        elif skip:
            skip = False
        else:
            words.append(word)


def _problem(words: list[str], root: Path, *, inline: bool) -> str:
    """Why a command would not work; '' when it would."""
    program, rest = words[0], words[1:]
    if program == "rote-lab":
        return _lab_problem(rest, inline=inline)
    if program == "make":
        return _make_problem(rest, root)
    if re.fullmatch(r"(\S+/)?python(3|3\.11)?", program):
        if rest[:2] == ["-m", "engine"]:
            return _lab_problem(rest[2:], inline=inline)
        if rest[:2] == ["-m", "app"]:
            return _lab_problem(["page", *rest[2:]], inline=inline)
        return module_problem(rest[1], rest[2:], root, whole=not inline) if rest[:1] == ["-m"] and rest[1:] else ""
    if program == "curl":
        return _curl_problem(rest)
    if program == "docker":
        return _compose_problem(rest, root)
    return "" if program in KNOWN else "no check knows this command"


@cache
def _lab_commands() -> dict[str, Any]:
    """The real command objects, the page's among them."""
    import app.command_line  # brings those that need the page's parts

    assert app.command_line.app is engine_app
    commands: dict[str, Any] = get_command(engine_app).commands  # type: ignore[attr-defined]
    return commands


def _lab_problem(words: list[str], *, inline: bool) -> str:
    if not words or words[0] in ("--help", "--version", "…"):
        return ""
    name, arguments = words[0], words[1:]
    command = _lab_commands().get(name)
    if command is None:
        return f"there is no command ‘{name}’"
    within = getattr(command, "commands", {}).get(arguments[0]) if arguments else None
    if within:
        command, arguments = within, arguments[1:]
    if inline:  # a sentence may name a command and an option without the rest
        known = {option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)}
        unknown = [word for word in arguments if word.startswith("--") and word.partition("=")[0] not in known]
        return f"it has no option {unknown[0]}" if unknown else ""
    try:
        given = command.make_context(name, list(arguments)).params
    except typer.TyperException as error:
        return error.format_message()
    except typer.Exit:
        return ""
    if within:
        return ""
    return _source_problem(name, given) or _run_problem(name, given)


def _source_problem(name: str, given: dict[str, Any]) -> str:
    source = str(given.get("source") or "")
    if name not in SOURCES or source.endswith(OWN_FILE) or (name in GOES_ON and RUN_ID.fullmatch(source)):
        return ""
    presets = {path.stem for path in (ROOT / SOURCES[name]).glob("*.yaml")}
    return "" if source in presets else f"‘{source}’ is neither a preset ({', '.join(sorted(presets))}) nor a file"


def _run_problem(name: str, given: dict[str, Any]) -> str:
    """Run what only reads; settings upon a run's or an attack's experiment are tried by reading it."""
    if name == "attack":
        preset = ROOT / ATTACKS / f"{given['source']}.yaml"
        data = yaml.safe_load(preset.read_text(encoding="utf-8")) if preset.exists() else {}
        try:
            for assignment in given["overrides"] or ():
                override(data, assignment)
            AttackExperiment.from_data(data)
        except ValueError as error:
            return str(error)
        return ""
    if name == "study":
        preset = ROOT / STUDIES / f"{given['source']}.yaml"
        data = yaml.safe_load(preset.read_text(encoding="utf-8")) if preset.exists() else {"axes": {"seed": [0]}}
        try:
            for assignment in given["axes"] or ():
                set_axis(data, assignment)
            planned_runs(Study.from_data(data))
        except ValueError as error:
            return str(error)
        return ""
    if name in SOURCES:
        source = COPIED if given["source"].endswith(OWN_FILE) else given["source"]
        settings = [word for setting in given["overrides"] or () for word in ("--set", setting)]
        seed = [] if given["seed"] is None else ["--seed", str(given["seed"])]
        return _run(["show", source, *settings, *seed])
    if name in READ_ONLY:
        source = given.get("source")
        return _run([name] if not source or source.endswith(OWN_FILE) else [name, source])
    return ""


@cache
def _ran(words: tuple[str, ...]) -> str:
    said = io.StringIO()
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(said):
        status = run_engine(list(words))
    return "" if status == 0 else said.getvalue().strip() or f"it ended with {status}"


def _run(words: list[str]) -> str:
    return _ran(tuple(words))


def _make_problem(words: list[str], root: Path) -> str:
    text = (root / "Makefile").read_text(encoding="utf-8")
    targets = {name for line in re.findall(r"^([\w -]+):(?!=)", text, re.MULTILINE) for name in line.split()}
    for word in words:
        variable, sign, _ = word.partition("=")
        if sign and f"$({variable})" not in text and f"$(or $({variable})" not in text:
            return f"the Makefile reads no variable {variable}"
        if not sign and not word.startswith("-") and word not in targets and word != "…":
            return f"the Makefile has no target {word}"
    return ""


def _curl_problem(words: list[str]) -> str:
    """A body for the model server is a request that it understands."""
    if not any("/v1/completions" in word for word in words):
        return ""
    bodies = [after for word, after in pairwise(words) if word in ("-d", "--data")]
    try:
        body = json.loads(bodies[0] if bodies else "")
        CompletionRequest.model_validate(body)
    except ValueError as error:
        return f"the body is no request: {' '.join(str(error).split())}"
    unknown = set(body) - set(CompletionRequest.model_fields)
    return f"the request has no field {sorted(unknown)[0]}" if unknown else ""


def _compose_problem(words: list[str], root: Path) -> str:
    services = yaml.safe_load((root / "compose.yaml").read_text(encoding="utf-8"))["services"].values()
    profiles = {profile for service in services for profile in service.get("profiles", ())}
    asked = [after for word, after in pairwise(words) if word == "--profile"]
    unknown = set(asked) - profiles
    return f"compose.yaml has no profile {sorted(unknown)[0]}" if unknown else ""
