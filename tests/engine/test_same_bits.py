"""Training gives the same bits in every process, and the same results whether layers are computed together or not."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator

import numpy as np
import pytest

import chainrule.engine as cr
from chainrule.engine import nn
from chainrule.engine.dtypes import Array
from chainrule.engine.models import resnet18
from chainrule.engine.nn.module import Module

TRAINING = """
import hashlib
import chainrule.engine as cr
from chainrule.engine.models import resnet18

cr.set_num_threads(1)
cr.manual_seed(7)
model = resnet18(num_classes=10)
optimizer = cr.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=1e-4)
x, y = cr.randn(4, 3, 32, 32), cr.randint(0, 10, (4,))
for _ in range(5):
    optimizer.zero_grad()
    with cr.autocast("cpu", enabled={autocast}):
        loss = cr.nn.functional.cross_entropy(model(x), y)
    loss.backward()
    optimizer.step()
digest = hashlib.sha256()
for name, value in model.state_dict().items():
    digest.update(name.encode() + value.detach().numpy().tobytes())
print(digest.hexdigest())
"""


def trained(autocast: bool, seed_of_hashes: str) -> str:
    """The digest of what a fresh process has learnt."""
    environment = {**os.environ, "PYTHONHASHSEED": seed_of_hashes}
    code = TRAINING.format(autocast=autocast)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("autocast", [False, True])
def test_two_processes_learn_the_same_bits(autocast: bool) -> None:
    first, second = trained(autocast, "1"), trained(autocast, "2")
    assert len(first.strip()) == 64
    assert first == second


# ---- Layers computed together, and one by one ----


@pytest.fixture
def one_thread() -> Iterator[None]:
    """So little work is done that a second would wait for the first."""
    before = cr.get_num_threads()
    cr.set_num_threads(1)
    yield
    cr.set_num_threads(before)


def seen_one_by_one(model: Module) -> Module:
    """Hooks see the result of each layer, so that none is computed with the one that follows."""
    for module in model.modules():
        module.register_forward_hook(lambda *_: None)
    return model


def networks() -> tuple[Module, Module]:
    """Two of the same parameters, the second of which computes its layers one by one."""
    pair = []
    for _ in range(2):
        cr.manual_seed(3)
        pair.append(resnet18(num_classes=10))
    return pair[0], seen_one_by_one(pair[1])


def losses(model: Module, steps: int = 3) -> list[float]:
    generator = np.random.default_rng(0)
    x = cr.Tensor(generator.standard_normal((4, 3, 32, 32)).astype(np.float32))
    y = cr.Tensor(generator.integers(0, 10, 4))
    optimizer = cr.optim.SGD(model.parameters(), lr=0.01)
    found = []
    for _ in range(steps):
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(x), y)
        loss.backward()
        optimizer.step()
        found.append(loss.item())
    return found


@pytest.mark.usefixtures("one_thread")
def test_layers_computed_together_give_the_results_of_those_computed_one_by_one() -> None:
    together, apart = networks()
    x = cr.Tensor(np.random.default_rng(1).standard_normal((4, 3, 32, 32)).astype(np.float32))
    y, expected = together(x).detach().numpy(), apart(x).detach().numpy()
    np.testing.assert_array_equal(y, expected)
    for (name, buffer), other in zip(together.named_buffers(), apart.buffers(), strict=True):
        np.testing.assert_array_equal(buffer.numpy(), other.numpy(), name)


@pytest.mark.usefixtures("one_thread")
def test_they_learn_alike() -> None:
    together, apart = networks()
    np.testing.assert_allclose(losses(together), losses(apart), rtol=1e-4)


def state(model: Module) -> dict[str, Array]:
    return {name: value.detach().numpy().copy() for name, value in model.state_dict().items()}


@pytest.mark.usefixtures("one_thread")
def test_one_process_learns_the_same_bits_twice() -> None:
    first, second = networks()[0], networks()[0]
    assert losses(first) == losses(second)
    one, other = state(first), state(second)
    for name in one:
        np.testing.assert_array_equal(one[name], other[name], name)
