"""Dockerfile and compose.yaml pass their linters, and do what the Makefile does: `python -m tools.containers`.

No container engine is needed. What they run is compared, word for word, with what make would run.
"""

from __future__ import annotations

import configparser
import inspect
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml

from app.__main__ import main as page

ROOT = Path(__file__).resolve().parents[1]
BIN = Path(sys.executable).parent


def problems() -> list[str]:
    """What is wrong, a line a problem."""
    return [*linted(), *dockerfile_differences(), *compose_differences(), *deployment_differences()]


def linted() -> list[str]:
    """hadolint on the Dockerfile, the Compose specification's schema on compose.yaml."""
    files = ["compose.yaml", "docs/deploy/compose.public.yaml"]
    commands = [[str(BIN / "check-jsonschema"), "--builtin-schema", "vendor.compose-spec", *files]]
    if hadolint := shutil.which("hadolint", path=f"{BIN}:{os.environ.get('PATH', '')}"):
        commands.append([hadolint, "--no-color", "Dockerfile"])
    else:
        print("hadolint is not here (its package exists for Linux on x86-64): the Dockerfile is not linted")
    found = []
    for command in commands:
        done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
        if done.returncode or (done.stdout.strip() and "ok" not in done.stdout):
            found += (done.stdout + done.stderr).strip().splitlines()
    return found


def dockerfile_differences() -> list[str]:
    """Each RUN of the build is a make target, and the container starts as `make run` does."""
    text = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    build, _, final = text.partition("\nFROM ")
    found = []
    setup = re.findall(r"^ARG SETUP=(\S+)", build, re.MULTILINE)
    for words in re.findall(r"^RUN (.+)$", build, re.MULTILINE):
        target = re.fullmatch(r'make "?(\S+?)"?', words)
        name = target[1].replace("${SETUP}", "".join(setup)) if target else ""
        if not name or not would_run(name, "--always-make"):
            found.append(f"Dockerfile: ‘RUN {words}’ is no target of the Makefile")
    commands = re.findall(r"^CMD (\[.+\])$", final, re.MULTILINE)
    wanted = ("HOST=0.0.0.0", "PORT=7860", "OPTIONS=--published-on-loopback")
    if not commands or json.loads(commands[-1]) != would_run("run", *wanted)[-1]:
        found.append(f"Dockerfile: CMD is not what ‘make run {' '.join(wanted)}’ runs")
    if not re.search(r"^USER \d+$", final, re.MULTILINE) or "HEALTHCHECK" not in final:
        found.append("Dockerfile: it needs a numeric USER and a HEALTHCHECK")
    return found


def compose_differences() -> list[str]:
    """What the services run is what `make prepared` and `make serve-prepared` run."""
    services = compose()["services"]
    found = []
    prepared = would_run("prepared", "PRESET=quick-lora")[-1]
    for name in ("prepare", "prepare-gpu"):
        if services[name]["command"] != prepared:
            found.append(f"compose.yaml: {name} is not what ‘make prepared’ runs")
    line = would_run("serve-prepared", "HOME_OF_LAB=/data")[-1]
    served = line[line.index("vllm.entrypoints.openai.api_server") + 1 :]
    served[served.index("127.0.0.1")] = "0.0.0.0"  # inside its own network
    if [str(word) for word in services["vllm"]["command"]] != served:
        found.append("compose.yaml: vllm is not what ‘make serve-prepared’ runs")
    for name, service in services.items():
        published = [str(port) for port in service.get("ports", [])]
        if any(not port.startswith("127.0.0.1:") for port in published) or (published and "vllm" in name):
            found.append(f"compose.yaml: {name} publishes a port beyond this machine")
    return found


def deployment_differences() -> list[str]:
    """The service of systemd and the public Compose file start the lab by options that it has, and nothing as root."""
    options = {f"--{name.replace('_', '-')}" for name in inspect.signature(page).parameters}
    unit = configparser.ConfigParser(strict=False, interpolation=None, delimiters=("=",))
    unit.optionxform = str  # type: ignore[assignment, method-assign]
    unit.read(ROOT / "docs/deploy/rote-lab.service", encoding="utf-8")
    over = yaml.safe_load((ROOT / "docs/deploy/compose.public.yaml").read_text(encoding="utf-8"))["services"]
    starts = {"rote-lab.service": unit["Service"]["ExecStart"].split(), "lab": over["lab"]["command"]}
    found = []
    for name, words in starts.items():
        unknown = [word for word in words if word.startswith("--") and word not in options]
        found += [f"docs/deploy: {name} starts the lab with {word}, which it has not" for word in unknown]
        if "--accounts" not in words:
            found.append(f"docs/deploy: {name} lets in whoever asks")
    if unit["Service"].get("User", "root") == "root":
        found.append("docs/deploy: rote-lab.service runs as root")
    found += [
        f"docs/deploy: {name} needs a numeric account that is not root's"
        for name, service in over.items()
        if "image" in service and not re.fullmatch(r"[1-9]\d*:[1-9]\d*", str(service.get("user")))
    ]
    return found


def compose() -> dict[str, Any]:
    """compose.yaml with its defaults put in for its variables."""
    text = (ROOT / "compose.yaml").read_text(encoding="utf-8")
    return yaml.safe_load(re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", text))


def would_run(target: str, *options: str) -> list[list[str]]:
    """The commands, as words, that make would run for a target; none where there is no such target."""
    command = ["make", "--dry-run", "--no-print-directory", target, *options]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    lines = done.stdout.replace("\\\n", " ").splitlines()
    return [line.split() for line in lines if line.strip()] if done.returncode == 0 else []


if __name__ == "__main__":
    wrong = problems()
    print("\n".join(wrong) or "the containers' files are in order", file=sys.stderr if wrong else sys.stdout)
    sys.exit(bool(wrong))
