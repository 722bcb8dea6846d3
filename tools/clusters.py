"""The files in docs/deploy/cluster are in order: `python -m tools.clusters`. No cluster is needed.

Services of systemd, a RayCluster of KubeRay and a batch script of Slurm are parsed; each has token authentication,
nothing runs as root, and the lab and Ray are started by options that they have.
"""

from __future__ import annotations

import configparser
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer
import yaml
from typer.main import get_command

from app.command_line import app
from tools.locks import LOCKS

FOLDER = Path(__file__).resolve().parents[1] / "docs/deploy/cluster"
# The options of `ray start` that the files use.
RAY_START = {
    "--head", "--block", "--port", "--ray-client-server-port", "--address", "--num-cpus", "--num-gpus",
    "--include-dashboard", "--disable-usage-stats", "--node-ip-address",
}  # fmt: skip
# The fields of ray.io/v1, as KubeRay 1.7 has them.
CLUSTER = {
    "authOptions", "autoscalerOptions", "enableInTreeAutoscaling", "gcsFaultToleranceOptions", "headGroupSpec",
    "headServiceAnnotations", "historyServerOptions", "managedBy", "networkPolicy", "rayVersion", "suspend",
    "tlsOptions", "upgradeStrategy", "workerGroupSpecs",
}  # fmt: skip
GROUP = {
    "groupName", "idleTimeoutSeconds", "labels", "maxReplicas", "minReplicas", "numOfHosts", "priority",
    "rayStartParams", "replicas", "resources", "scaleStrategy", "suspend", "template",
}  # fmt: skip
HEAD = {
    "enableIngress", "headService", "ingressOptions", "labels", "rayStartParams", "resources", "serviceType",
    "template",
}  # fmt: skip
SBATCH = {"job-name", "nodes", "ntasks-per-node", "cpus-per-task", "gpus-per-node", "time", "signal"}


def problems() -> list[str]:
    """What is wrong, a line a problem."""
    services = [p for name in ("ray-head.service", "ray-node.service") for p in service_problems(FOLDER / name)]
    return [*services, *kuberay_problems(FOLDER / "kuberay.yaml"), *slurm_problems(FOLDER / "rote-lab.sbatch")]


def service_problems(path: Path) -> Iterator[str]:
    """Of a service that is a machine of the cluster."""
    unit = configparser.RawConfigParser(strict=False, delimiters=("=",))
    unit.optionxform = str  # type: ignore[assignment, method-assign]
    text = path.read_text(encoding="utf-8")
    unit.read_string(text)
    service = unit["Service"]
    if service.get("User", "root") == "root":
        yield f"{path.name}: it runs as root"
    variables = dict(
        word.split("=", 1) for words in re.findall(r"^Environment=(.+)$", text, re.M) for word in words.split()
    )
    if variables.get("RAY_AUTH_MODE") != "token" or "RAY_AUTH_TOKEN_PATH" not in variables:
        yield f"{path.name}: it asks for no token"
    if "RAY_AUTH_TOKEN" in variables:
        yield f"{path.name}: the token is in the file"
    yield from _ray_problems(path.name, shlex.split(service["ExecStart"]))


def _ray_problems(name: str, words: list[str]) -> Iterator[str]:
    """Of a command `ray start …` that stays in the foreground."""
    if Path(words[0]).name != "ray" or words[1] != "start" or "--block" not in words:
        yield f"{name}: ‘{' '.join(words[:3])} …’ is no ‘ray start --block’"
    options = {word.partition("=")[0] for word in words if word.startswith("--")}
    if unknown := options - RAY_START:
        yield f"{name}: ray start is not known to have {', '.join(sorted(unknown))}"
    if ("--head" in options) == ("--address" in options):
        yield f"{name}: a machine is the head, or has its address"


def kuberay_problems(path: Path) -> Iterator[str]:
    """Of the RayCluster."""
    cluster = yaml.safe_load(path.read_text(encoding="utf-8"))
    spec: dict[str, Any] = cluster["spec"]
    if (cluster["apiVersion"], cluster["kind"]) != ("ray.io/v1", "RayCluster"):
        yield f"{path.name}: it is no RayCluster of ray.io/v1"
    locked = LOCKS["requirements-ray.txt"].packages["ray"]
    if spec.get("rayVersion") != locked:
        yield f"{path.name}: rayVersion is not {locked}, which requirements-ray.txt has"
    if spec.get("authOptions", {}).get("mode") != "token":
        yield f"{path.name}: it asks for no token"
    groups = [("headGroupSpec", HEAD, spec["headGroupSpec"])]
    groups += [(f"group {group.get('groupName')}", GROUP, group) for group in spec["workerGroupSpecs"]]
    for name, fields, found in [("spec", CLUSTER, spec), *groups]:
        if unknown := found.keys() - fields:
            yield f"{path.name}: {name} has no {', '.join(sorted(unknown))}"
    for name, _, group in groups:
        pod = group["template"]["spec"]
        if not pod.get("securityContext", {}).get("runAsNonRoot"):
            yield f"{path.name}: {name} may run as root"
        for container in pod["containers"]:
            limits, asked = container["resources"]["limits"], container["resources"]["requests"]
            if limits != asked:
                yield f"{path.name}: {container['name']} is not given all that it may use"
            mounted = {mount["name"] for mount in container.get("volumeMounts", [])}
            if unknown := mounted - {volume["name"] for volume in pod.get("volumes", [])}:
                yield f"{path.name}: {container['name']} mounts {', '.join(unknown)}, which is no volume"


def slurm_problems(path: Path) -> Iterator[str]:
    """Of the batch script."""
    text = path.read_text(encoding="utf-8")
    done = subprocess.run(["bash", "-n", str(path)], capture_output=True, text=True)
    yield from done.stderr.splitlines()
    asked = re.findall(r"^#SBATCH --([a-z-]+)=\S+$", text, re.M)
    if len(asked) != text.count("#SBATCH") or not {"nodes", "time"} <= set(asked) <= SBATCH:
        yield f"{path.name}: sbatch is not known to read its #SBATCH lines"
    if "RAY_AUTH_MODE=token" not in text:
        yield f"{path.name}: it asks for no token"
    for line in text.replace("\\\n", " ").splitlines():
        words = shlex.split(line, comments=True)
        if "ray" in words[:-1] and words[words.index("ray") + 1] == "start":
            yield from _ray_problems(path.name, [word for word in words[words.index("ray") :] if word != "&"])
        if words[:1] == ["rote-lab"]:
            yield from _lab_problems(path.name, [word for word in words[1:] if word != "&"])


def _lab_problems(name: str, words: list[str]) -> Iterator[str]:
    """Of a command of the lab: it has the command and its options."""
    command = get_command(app)
    context = typer.Context(command, info_name="rote-lab")
    found = command.get_command(context, words[0])  # type: ignore[attr-defined]
    if found is None:
        yield f"{name}: the lab has no command {words[0]}"
        return
    options = {option for parameter in found.params for option in parameter.opts}
    unknown = [word for word in words[1:] if word.startswith("--") and word.partition("=")[0] not in options]
    if unknown:
        yield f"{name}: rote-lab {words[0]} has no {', '.join(unknown)}"


if __name__ == "__main__":
    wrong = problems()
    print("\n".join(wrong) or "the clusters' files are in order", file=sys.stderr if wrong else sys.stdout)
    sys.exit(bool(wrong))
