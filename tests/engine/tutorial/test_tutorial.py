"""PyTorch's autograd tutorial: its cells run with `torch` bound to the engine and print what the notebook printed.

Cells run in the order of their execution numbers. The notebook ran some twice and lost others: `Q` is made again where
it must have been.
"""

from __future__ import annotations

import ast
import contextlib
import io
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

import chainrule.engine as cr
from chainrule.engine.autograd.graph import AccumulateGrad

TENSORS = """
import torch

a = torch.tensor([2., 3.], requires_grad=True)
b = torch.tensor([6., 4.], requires_grad=True)
"""
RESNET = (Path(__file__).parent / "resnet18.txt").read_text(encoding="utf-8")
"""What the notebook shows of the model: its first lines."""


@pytest.fixture(scope="module", autouse=True)
def weights(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """What `pretrained=True` finds."""
    home = tmp_path_factory.mktemp("home")
    (home / "weights").mkdir()
    cr.io.save_file(
        cr.models.resnet18(generator=cr.Generator(1)).state_dict(), home / "weights" / "resnet18.safetensors"
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CHAINRULE_HOME", str(home))
        torchvision = ModuleType("torchvision")
        torchvision.models = cr.models  # type: ignore[attr-defined]
        patch.setitem(sys.modules, "torch", cr)
        patch.setitem(sys.modules, "torchvision", torchvision)
        yield


class Notebook:
    """Runs cells in one namespace; shows, as a notebook does, what was printed and the value of the last line."""

    def __init__(self) -> None:
        self.names: dict[str, Any] = {}

    def run(self, source: str) -> str:
        body = ast.parse(source)
        last = body.body.pop() if isinstance(body.body[-1], ast.Expr) else None
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(compile(body, "<cell>", "exec"), self.names)  # the tutorial's own lines, below
            if last is not None:
                assert isinstance(last, ast.Expr)
                value = eval(compile(ast.Expression(last.value), "<cell>", "eval"), self.names)
                if value is not None:
                    printed.write(f"{value!r}\n")
        return printed.getvalue()


def test_the_cells_print_what_the_notebook_printed() -> None:
    notebook = Notebook()
    run = notebook.run
    # In [2] to [8]: a training step
    run(
        "import torch, torchvision\n"
        "model = torchvision.models.resnet18(pretrained=True)\n"
        "data = torch.rand(1, 3, 64, 64)\n"
        "labels = torch.rand(1, 1000)\n"
    )
    run("prediction = model(data) # forward pass")
    assert run("sum(p.numel() for p in model.parameters())") == "11689512\n"
    # PyTorch 2.13 prints a setting of BatchNorm2d that the notebook's version did not have.
    assert run("model").replace("affine=True, bias=True", "affine=True").startswith(RESNET)
    run("loss = (prediction - labels).sum()\nloss.backward() # backward pass\n")
    run("optim = torch.optim.SGD(model.parameters(), lr=1e-2, momentum=0.9)")
    model = notebook.names["model"]
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    run("optim.step() #gradient descent")
    for name, p in model.named_parameters():
        assert p.grad is not None
        np.testing.assert_array_equal(p.detach().numpy(), before[name].numpy() - np.float32(1e-2) * p.grad.numpy())
    assert any(p.grad.numpy().any() for p in model.parameters())
    # In [11] to [14]: gradients given and implicit
    run(TENSORS + "Q = 3*a**3 - b**2")
    assert run("Q.backward(torch.tensor([1, 1]))") == ""
    assert run("a.grad, b.grad") == "(tensor([36., 81.]), tensor([-12.,  -8.]))\n"
    run("Q = 3*a**3 - b**2")
    run("Q.sum().backward()")
    assert run("a.grad, b.grad") == "(tensor([ 72., 162.]), tensor([-24., -16.]))\n"
    # In [18] to [21]: the same from the start
    run(TENSORS)
    run("Q = 3*a**3 - b**2")
    assert run("Q") == "tensor([-12.,  65.], grad_fn=<SubBackward0>)\n"
    run("external_grad = torch.tensor([1., 1.])\nQ.backward(gradient=external_grad)\n")
    cell = "# check if collected gradients are correct\nprint(9*a**2 == a.grad)\nprint(-2*b == b.grad)\n"
    assert run(cell) == "tensor([True, True])\ntensor([True, True])\n"
    # In [22]: what requires gradients
    cell = (
        "x = torch.rand(5, 5)\n"
        "y = torch.rand(5, 5)\n"
        "z = torch.rand((5, 5), requires_grad=True)\n"
        "\n"
        "a = x + y\n"
        'print(f"Does `a` require gradients? : {a.requires_grad}")\n'
        "b = x + z\n"
        'print(f"Does `b` require gradients?: {b.requires_grad}")\n'
    )
    assert run(cell) == "Does `a` require gradients? : False\nDoes `b` require gradients?: True\n"
    # In [23] to [25]: a frozen backbone under a new head
    run(
        "from torch import nn, optim\n"
        "\n"
        "model = torchvision.models.resnet18(pretrained=True)\n"
        "\n"
        "# Freeze all the parameters in the network\n"
        "for param in model.parameters():\n"
        "    param.requires_grad = False\n"
    )
    run("model.fc = nn.Linear(512, 10)")
    run("# Optimize only the classifier\noptimizer = optim.SGD(model.parameters(), lr=1e-2, momentum=0.9)")
    frozen_backbone(notebook.names["model"], notebook.names["optimizer"])


def frozen_backbone(model: Any, optimizer: Any) -> None:
    """A step of the finetuning that the tutorial stops short of."""
    assert repr(model.fc) == "Linear(in_features=512, out_features=10, bias=True)"
    assert [name for name, p in model.named_parameters() if p.requires_grad] == ["fc.weight", "fc.bias"]
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    loss = cr.nn.functional.cross_entropy(model(cr.rand(2, 3, 64, 64)), cr.tensor([3, 7]))
    loss.backward()
    optimizer.step()
    leaves, pending = [], [loss.grad_fn]
    while pending:
        node = pending.pop()
        if isinstance(node, AccumulateGrad):
            leaves.append(node.variable)
        elif node is not None:
            pending.extend(following for following, _ in node.next_functions)
    assert {id(x) for x in leaves} == {id(model.fc.weight), id(model.fc.bias)}
    for name, p in model.named_parameters():
        changed = not np.array_equal(p.detach().numpy(), before[name].numpy())
        assert changed == name.startswith("fc.")
        assert (p.grad is None) != name.startswith("fc.")
