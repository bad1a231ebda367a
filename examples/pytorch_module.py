"""A torch.nn.Module of your own, trained by two workers, and its weights back in it.

Needs PyTorch. The digits come with chainrule.
"""

import argparse
import importlib.util
import sys

import numpy as np

from chainrule.client import Client
from chainrule.client.demo import load_digits

if importlib.util.find_spec("torch") is None:
    sys.exit(
        "this example needs PyTorch; get it with: pip install torch --index-url https://download.pytorch.org/whl/cpu"
    )
import torch
from torch import nn


class Residual(nn.Module):
    """relu(x + f(x)), where f is two convolutions with BatchNorm."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(channels)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = torch.relu(self.norm1(self.conv1(x)))
        return torch.relu(x + self.norm2(self.conv2(y)))


class Network(nn.Module):
    """Two residual blocks, dropout, a classifier: (N, 1, 8, 8) to (N, 10)."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, 16, 3, padding=1)
        self.blocks = nn.Sequential(Residual(16), nn.MaxPool2d(2), Residual(16))
        self.dropout = nn.Dropout(0.2)
        self.head = nn.Linear(16 * 4 * 4, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.dropout(self.blocks(self.stem(x)).flatten(1)))


parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--address", help="host:port of the service; by default $CHAINRULE_ADDRESS, or localhost:50051")
arguments = parser.parse_args()

x, y = load_digits()  # (1797, 1, 8, 8), (1797,)
train, test = np.split(np.random.default_rng(0).permutation(len(x)), [1440])
torch.manual_seed(0)
module = Network()

with Client.connect(arguments.address) as client:
    model = client.models.create("example-torch", module, example=x[:8])
    job = client.jobs.create(
        model=model,
        dataset=client.datasets.create("example-torch-train", inputs=x[train], targets=y[train]),
        validation={"dataset": client.datasets.create("example-torch-test", inputs=x[test], targets=y[test])},
        epochs=4,
        batch_size=64,
        shards=4,
        workers=2,
        optimizer={"lr": 0.05, "momentum": 0.9, "weight_decay": 1e-4},
    )
    print(f"{model.name}: {model.num_parameters:,} parameters")
    status = job.wait(progress=True)
    module.load_state_dict(job.state_dict("torch"))

module.eval()
with torch.no_grad():
    right = module(torch.from_numpy(x[test])).argmax(1).numpy() == y[test]
print(f"accuracy on {len(test)} digits, the job's last evaluation: {status.evaluations[-1].accuracy:.4f}")
print(f"accuracy on {len(test)} digits, computed by PyTorch:       {right.mean():.4f}")
