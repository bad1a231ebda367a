"""The shape of the repository: what no unit test of a part would notice."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
IMPORT_ROOTS = ("protos", "engine", "server", "client")


@pytest.mark.parametrize("root", IMPORT_ROOTS)
def test_chainrule_is_a_namespace_package(root: str) -> None:
    """One __init__.py in one of the four folders would hide the other three."""
    assert (ROOT / root / "chainrule").is_dir()
    assert not (ROOT / root / "chainrule" / "__init__.py").exists()


@pytest.mark.parametrize("package", ["engine", "server", "client"])
def test_packages_are_marked_as_typed(package: str) -> None:
    assert (ROOT / package / "chainrule" / package / "py.typed").exists()


def test_stubs_are_those_of_the_protos(tmp_path: Path) -> None:
    """What `make protos` would write is what is committed."""
    protos = sorted(path.relative_to(ROOT / "protos") for path in (ROOT / "protos").rglob("*.proto"))
    outputs = [f"--{kind}={tmp_path}" for kind in ("python_out", "grpc_python_out")]
    outputs += [f"--{kind}=quiet:{tmp_path}" for kind in ("mypy_out", "mypy_grpc_out")]
    environment = os.environ | {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    command = [sys.executable, "-m", "grpc_tools.protoc", "-I.", *outputs, *map(str, protos)]
    subprocess.run(command, cwd=ROOT / "protos", env=environment, check=True, timeout=120)

    def stubs(folder: Path) -> dict[str, str]:
        paths = [path for ending in ("py", "pyi") for path in folder.rglob(f"*_pb2*.{ending}")]
        return {str(path.relative_to(folder)): path.read_text() for path in paths}

    assert stubs(tmp_path) == stubs(ROOT / "protos")


def test_importing_the_engine_brings_neither_ray_nor_grpc_nor_torch() -> None:
    script = (
        "import sys, chainrule.engine; print([m for m in ('ray', 'grpc', 'torch', 'sqlalchemy') if m in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60)
    assert result.stdout.strip() == "[]"


def test_importing_the_client_brings_neither_ray_nor_the_server() -> None:
    script = (
        "import sys\nfrom chainrule.client import Client\nClient.connect\n"
        "print([m for m in sys.modules if m == 'ray' or m.startswith('chainrule.server')])"
    )
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60)
    assert result.stdout.strip() == "[]"
