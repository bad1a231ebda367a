"""Ten lines take a module of PyTorch to a job of two workers, and its trained weights back into the module."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from chainrule.client import Client
from tests.integration.conftest import ServerProcess

if importlib.util.find_spec("torch") is None:
    pytest.skip("PyTorch is not installed", allow_module_level=True)
import torch
from torch import nn

pytestmark = pytest.mark.torch


class Residual(nn.Module):  # type: ignore[misc]
    """x + f(x), where f is a group convolution and one over all channels, each with BatchNorm."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.grouped = nn.Conv2d(channels, channels, 3, padding=1, groups=4, bias=False)
        self.norm1 = nn.BatchNorm2d(channels)
        self.mixed = nn.Conv2d(channels, channels, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(channels)

    def forward(self, x: Any) -> Any:
        return torch.relu(x + self.norm2(self.mixed(torch.relu(self.norm1(self.grouped(x))))))


class Network(nn.Module):  # type: ignore[misc]
    """Residual blocks whose results are concatenated, dropout, a classifier."""

    def __init__(self, dropout: float = 0.2) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(1, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU())
        self.first, self.second = Residual(8), Residual(8)
        self.pool, self.dropout = nn.AvgPool2d(2), nn.Dropout(dropout)
        self.head = nn.Linear(16 * 4 * 4, 10)

    def forward(self, x: Any) -> Any:
        x = self.stem(x)
        y = self.first(x)
        z = torch.cat([y, self.second(y)], dim=1)
        return self.head(self.dropout(torch.flatten(self.pool(z), 1)))


def patterns(count: int, *, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Noisy images of ten patterns: what can be told apart, though not at once."""
    means = np.random.default_rng(0).normal(size=(10, 1, 8, 8))
    rng = np.random.default_rng(seed)
    targets = rng.integers(0, 10, size=count)
    return (means[targets] + 1.5 * rng.normal(size=(count, 1, 8, 8))).astype(np.float32), targets


def test_a_module_is_trained_and_takes_its_weights_back(client: Client) -> None:
    torch.manual_seed(0)
    (x, y), (held_out, labels) = patterns(400, seed=1), patterns(150, seed=2)
    module = Network()

    model = client.models.create("torch-net", module, example=x[:8])
    data = client.datasets.create("torch-train", inputs=x, targets=y)
    test = client.datasets.create("torch-test", inputs=held_out, targets=labels)
    job = client.jobs.create(
        model=model, dataset=data, validation={"dataset": test}, epochs=3, batch_size=40, shards=4, workers=2,
        optimizer={"lr": 0.05, "momentum": 0.9},
    )  # fmt: skip
    status = job.wait(timeout_s=120)
    module.load_state_dict(job.state_dict("torch"))
    module.eval()
    right = int((module(torch.from_numpy(held_out)).argmax(1).numpy() == labels).sum())

    [*_, last] = status.evaluations
    assert right / len(labels) == pytest.approx(last.accuracy, abs=1e-9)
    assert last.accuracy is not None
    assert last.accuracy > 0.5  # it has learnt something
    assert int(module.first.norm1.num_batches_tracked) == status.progress.total_steps


def test_the_ten_lines_of_the_documentation_do_what_they_say(
    server: ServerProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = (Path(__file__).parents[2] / "docs" / "models.md").read_text()
    lines = text.partition("```python\n")[2].partition("```")[0]
    (x, y), (held_out, labels) = patterns(80, seed=1), patterns(40, seed=2)
    module = Network()
    names = {"module": module, "x": x, "y": y, "held_out": held_out, "labels": labels}
    monkeypatch.setenv("CHAINRULE_ADDRESS", server.address)
    exec(compile(lines, "docs/models.md", "exec"), names)
    assert int(module.first.norm1.num_batches_tracked) == 6
    assert names["status"].state == "SUCCEEDED"  # type: ignore[attr-defined]


def test_one_step_of_one_shard_is_that_of_torch(client: Client) -> None:
    torch.manual_seed(1)
    x, y = patterns(32, seed=3)
    module = Network(dropout=0.0)
    model = client.models.create("torch-step", module, example=x)
    job = client.jobs.create(
        model=model, dataset=client.datasets.create("torch-step", inputs=x, targets=y), epochs=1, batch_size=32,
        shards=1, optimizer={"lr": 0.1, "momentum": 0.9, "weight_decay": 1e-3},
    )  # fmt: skip
    job.wait(timeout_s=120)
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1, momentum=0.9, weight_decay=1e-3)
    module.train()
    nn.functional.cross_entropy(module(torch.from_numpy(x)), torch.from_numpy(y)).backward()
    optimizer.step()
    found = job.state_dict("torch")
    assert found.keys() == module.state_dict().keys()
    for name, value in module.state_dict().items():
        np.testing.assert_allclose(found[name].numpy(), value.numpy(), rtol=1e-5, atol=1e-5, err_msg=name)


def test_what_was_trained_runs_in_onnxruntime(client: Client, tmp_path: Path) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    x, y = patterns(40, seed=4)
    module = Network()
    model = client.models.create("torch-onnx", module, example=x[:2], class_labels=[f"pattern {i}" for i in range(10)])
    assert client.models.get("torch-onnx").class_labels[3] == "pattern 3"
    data = client.datasets.create("torch-onnx", inputs=x, targets=y)
    job = client.jobs.create(model=model, dataset=data, epochs=1, batch_size=20, shards=2, workers=2)
    job.wait(timeout_s=120)
    job.save(tmp_path / "trained.onnx")
    job.save(tmp_path / "trained.pth")
    module.load_state_dict(torch.load(tmp_path / "trained.pth", weights_only=True))
    module.eval()
    with torch.no_grad():
        wanted = module(torch.from_numpy(x)).numpy()
    [found] = onnxruntime.InferenceSession(tmp_path / "trained.onnx").run(None, {"x": x})
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-4)
    ours = job.module().eval()
    assert {name for name, _ in ours.named_parameters()} == {name for name, _ in module.named_parameters()}
