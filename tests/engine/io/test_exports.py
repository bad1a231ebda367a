"""The public surface of io."""

from __future__ import annotations

import subprocess
import sys

import pytest

import chainrule.engine as cr
from chainrule.engine import io

NAMES = [
    "digest",
    "load",
    "load_file",
    "load_pth",
    "load_weights",
    "save",
    "save_file",
    "save_into",
    "save_pth",
    "save_pth_file",
    "saved_bytes",
]


def test_all_is_sorted_and_complete() -> None:
    assert [*io.__all__] == NAMES
    assert all(callable(getattr(cr.io, name)) for name in NAMES)


@pytest.mark.parametrize(
    "name", ["files", "pickle_machine", "pth", "pth_writing", "safetensors", "torch_values", "weights"]
)
def test_any_module_can_be_imported_first(name: str) -> None:
    subprocess.run([sys.executable, "-c", f"import chainrule.engine.io.{name}"], check=True)
