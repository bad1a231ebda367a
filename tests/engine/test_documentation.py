"""docs/engine.md names what there is, and nothing else."""

from __future__ import annotations

import importlib
import re
from pathlib import Path

import pytest

import chainrule.engine as cr
from chainrule.engine.autograd.variable import Variable

TEXT = (Path(__file__).parents[2] / "docs" / "engine.md").read_text(encoding="utf-8")
MODULES = {
    name: importlib.import_module(f"chainrule.engine{name and '.'}{name}")
    for name in (
        "",
        "amp",
        "autograd",
        "autograd.function",
        "autograd.functional",
        "data",
        "io",
        "models",
        "nn",
        "nn.functional",
        "nn.init",
        "nn.utils",
        "nn.utils.rnn",
        "optim",
        "optim.lr_scheduler",
        "utils",
        "utils.checkpoint",
    )
}
PUBLIC = {  # of what a Variable has; the rest is for the engine
    "data", "grad", "grad_fn", "grad_memory", "is_inference", "is_leaf", "output_nr", "register_hook", "requires_grad",
    "register_post_accumulate_grad_hook", "retain_grad", "retains_grad",
}  # fmt: skip


def named(text: str) -> set[str]:
    return {name.split(".")[-1] for name in re.findall(r"`([\w.]+)`", text)}


@pytest.mark.parametrize("module", [name for name, value in MODULES.items() if hasattr(value, "__all__")])
def test_every_exported_name_is_in_a_table(module: str) -> None:
    assert set(MODULES[module].__all__) - named(TEXT) == set()


def test_every_method_of_a_tensor_is_in_a_table() -> None:
    internal = set(dir(Variable)) - PUBLIC
    methods = {name for name in dir(cr.Tensor) if not name.startswith("_")}
    assert methods - internal - named(TEXT) == set()


def test_every_name_in_a_table_is_there() -> None:
    rows = [line for line in TEXT.splitlines() if line.startswith("| `")]
    names = set().union(*(named(row.split("|")[1]) for row in rows))
    assert len(names) > 500
    missing = {
        name
        for name in names
        if not hasattr(cr.Tensor, name) and not any(hasattr(module, name) for module in MODULES.values())
    }
    assert missing == set()
