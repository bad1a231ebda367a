"""Whole trainings: PyTorch's results within rounding, and the same bits every time."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import numpy as np
import pytest

import chainrule.engine as cr
from chainrule.engine import models, optim
from chainrule.engine.nn import functional as F

TRAIN = """
import chainrule.engine as cr
from chainrule.engine import io, models, optim
from chainrule.engine.nn import functional as F

cr.set_num_threads(1)
model = models.small_cnn(width=8)
optimizer = optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
for step in range(5):
    x, t = cr.randn(16, 1, 8, 8), cr.randint(10, size=(16,))
    optimizer.zero_grad()
    F.cross_entropy(model(x), t).backward()
    optimizer.step()
print(io.digest(io.save(model.state_dict())))
"""


def test_two_processes_train_to_the_same_bits() -> None:
    digests = [
        subprocess.run([sys.executable, "-c", TRAIN], capture_output=True, text=True, check=True).stdout
        for _ in range(2)
    ]
    assert len(digests[0]) == 65
    assert digests[0] == digests[1]


def torch_small_cnn(torch: Any, width: int) -> Any:
    nn = torch.nn
    base: Any = nn.Module

    class SmallCNN(base):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.conv1, self.bn1 = nn.Conv2d(1, width, 3, padding=1), nn.BatchNorm2d(width)
            self.conv2, self.bn2 = nn.Conv2d(width, 2 * width, 3, padding=1), nn.BatchNorm2d(2 * width)
            self.fc = nn.Linear(8 * width, 10)

        def forward(self, x: Any) -> Any:
            x = nn.functional.max_pool2d(self.bn1(self.conv1(x)).relu(), 2)
            x = nn.functional.max_pool2d(self.bn2(self.conv2(x)).relu(), 2)
            return self.fc(x.flatten(1))

    return SmallCNN()


@pytest.mark.torch
def test_small_cnn_trains_as_in_pytorch(torch: Any) -> None:
    ours, theirs = models.small_cnn(width=8, generator=cr.Generator(0)), torch_small_cnn(torch, 8)
    theirs.load_state_dict({name: torch.tensor(value.numpy()) for name, value in ours.state_dict().items()})
    settings: dict[str, Any] = {"lr": 0.05, "momentum": 0.9, "weight_decay": 1e-4}
    optimizer, expected = optim.SGD(ours.parameters(), **settings), torch.optim.SGD(theirs.parameters(), **settings)
    draws = np.random.default_rng(0)
    for _ in range(5):
        x = draws.standard_normal((16, 1, 8, 8)).astype(np.float32)
        target = draws.integers(0, 10, 16)
        optimizer.zero_grad()
        expected.zero_grad()
        loss = F.cross_entropy(ours(cr.tensor(x)), cr.tensor(target))
        torch_loss = torch.nn.functional.cross_entropy(theirs(torch.tensor(x)), torch.tensor(target))
        loss.backward()
        torch_loss.backward()
        optimizer.step()
        expected.step()
        assert loss.item() == pytest.approx(torch_loss.item(), rel=1e-4)
    for name, value in theirs.state_dict().items():
        np.testing.assert_allclose(ours.state_dict()[name].numpy(), value.numpy(), rtol=1e-3, atol=1e-4, err_msg=name)


def test_small_cnn_learns_its_examples() -> None:
    model = models.small_cnn(width=8, generator=cr.Generator(0))
    x = cr.randn(32, 1, 8, 8, generator=cr.Generator(1))
    target = cr.randint(10, size=(32,), generator=cr.Generator(2))
    optimizer = optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    for _ in range(30):
        optimizer.zero_grad()
        F.cross_entropy(model(x), target).backward()
        optimizer.step()
    assert (model(x).argmax(1) == target).all()
