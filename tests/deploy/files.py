"""The files of deploy/, and the commands in them."""

from __future__ import annotations

import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
BASE = DEPLOY / "kubernetes" / "base"
BIN = Path(sys.executable).parent
KUBERNETES_VERSION = "1.34"


def load(path: Path) -> Any:
    """The only document of a YAML file."""
    return yaml.safe_load(path.read_text())


def objects() -> list[dict[str, Any]]:
    """All objects of the kustomize base, as they are written."""
    names = load(BASE / "kustomization.yaml")["resources"]
    return [found for name in names for found in yaml.safe_load_all((BASE / name).read_text())]


def only(kind: str, name: str) -> dict[str, Any]:
    """The object of the base with a kind and a name."""
    [found] = [it for it in objects() if (it["kind"], it["metadata"]["name"]) == (kind, name)]
    return found


def check(*command: str | Path) -> str:
    """Run a checker of this environment; returns what it prints. Fails with that if it finds something."""
    ran = subprocess.run([str(BIN / command[0]), *map(str, command[1:])], capture_output=True, text=True, timeout=120)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    return ran.stdout + ran.stderr


def commands(program: str) -> Iterator[tuple[str, list[str]]]:
    """Where deploy/ runs a program, and with which arguments: of containers, units, and the scripts of the image."""
    for where, words in _words():
        for at, word in enumerate(words):
            if word.rpartition("/")[2] == program:
                yield where, words[at + 1 :]


def _words() -> Iterator[tuple[str, list[str]]]:
    for name, service in load(DEPLOY / "compose.yaml")["services"].items():
        yield f"compose.yaml, {name}", shlex.split(service["command"])
    for unit in sorted((DEPLOY / "systemd").glob("*.service")):
        for line in unit.read_text().splitlines():
            if line.startswith("ExecStart="):
                yield unit.name, shlex.split(line.removeprefix("ExecStart="))
    pod = only("Deployment", "chainrule")["spec"]["template"]["spec"]
    for container in (*pod["initContainers"], *pod["containers"]):
        yield f"base/service.yaml, {container['name']}", container["args"]
    for patch in load(DEPLOY / "kubernetes" / "overlays" / "mesh" / "plaintext.yaml"):
        if patch["path"].endswith("/args"):
            yield "overlays/mesh", patch["value"]
    for script in sorted((DEPLOY / "image").iterdir()):
        if script.read_text().startswith("#!/bin/sh"):
            for line in script.read_text().splitlines():
                if not line.lstrip().startswith("#"):
                    yield script.name, line.replace("$(", " ").replace(")", " ").replace('"', " ").split()
    ray = load(DEPLOY / "ray" / "cluster.yaml")
    for line in (*ray["head_start_ray_commands"], *ray["worker_start_ray_commands"]):
        yield "ray/cluster.yaml", shlex.split(line)
