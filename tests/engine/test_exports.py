"""The public surface, and what importing it costs."""

from __future__ import annotations

import importlib
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import chainrule.engine as cr

FUNCTIONS = Path(cr.__file__).parent / "functions"

PACKAGES = [
    "chainrule.engine",
    "chainrule.engine.accelerator",
    "chainrule.engine.amp",
    "chainrule.engine.autograd",
    "chainrule.engine.backends",
    "chainrule.engine.cpu",
    "chainrule.engine.cpu.amp",
    "chainrule.engine.cuda",
    "chainrule.engine.data",
    "chainrule.engine.func",
    "chainrule.engine.io",
    "chainrule.engine.kernels",
    "chainrule.engine.models",
    "chainrule.engine.nn",
    "chainrule.engine.nn.functional",
    "chainrule.engine.nn.init",
    "chainrule.engine.nn.layers",
    "chainrule.engine.nn.utils",
    "chainrule.engine.ops",
    "chainrule.engine.optim",
    "chainrule.engine.optim.lr_scheduler",
    "chainrule.engine.utils",
]


@pytest.mark.parametrize("name", PACKAGES)
def test_all_is_sorted_and_complete(name: str) -> None:
    package = importlib.import_module(name)
    assert [*package.__all__] == sorted(set(package.__all__), key=_ruff_order)
    assert all(hasattr(package, exported) for exported in package.__all__)


def _ruff_order(name: str) -> tuple[int, list[str | int]]:
    """CONSTANTS, Classes, functions, and int8 before int16: the order that ruff keeps."""
    parts: list[str | int] = [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", name)]
    return (0 if name.isupper() else 1 if name[0].isupper() else 2), parts


@pytest.mark.parametrize("module", sorted(path.stem for path in FUNCTIONS.glob("*.py") if path.stem != "__init__"))
def test_every_function_that_a_module_offers_is_exported(module: str) -> None:
    functions = importlib.import_module(f"chainrule.engine.functions.{module}")
    for name in getattr(functions, "__all__", []):
        assert getattr(cr, name) is getattr(functions, name)
        assert name in cr.__all__


@pytest.mark.torch
def test_every_function_is_named_as_in_pytorch(torch: Any) -> None:
    own = {"ChainruleError", "data", "io", "kernels", "models", "nn"}  # the rest of what is ours are errors and modules
    for name in cr.__all__:
        value = getattr(cr, name)
        if callable(value) and not isinstance(value, type) and name not in own:
            assert hasattr(torch, name), name


def test_import_is_light() -> None:
    heavy = ["torch", "ray", "grpc", "chainrule.server", "chainrule.client"]
    code = f"import sys, chainrule.engine; print([name for name in {heavy} if name in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


@pytest.mark.parametrize("name", ["tensor", "ops.op", "autograd.graph", "nn.functional", "kernels.reference"])
def test_any_module_can_be_imported_first(name: str) -> None:
    subprocess.run([sys.executable, "-c", f"import chainrule.engine.{name}"], check=True)


def test_chainrule_is_a_namespace_package() -> None:
    import chainrule.engine

    assert not (Path(chainrule.engine.__file__).parent.parent / "__init__.py").exists()
