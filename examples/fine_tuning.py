"""A pretrained ResNet-18 whose backbone stays as it is, with a new head that a job trains, and the file of both.

A stand-in for torchvision's weights is made first: a ResNet-18 that has seen the digits 0 to 4. The new classes are the
digits 5 to 9. docs/fine-tuning.md has the same with torchvision's.
"""

import argparse
import tempfile
from pathlib import Path

import numpy as np

import chainrule.engine as cr
from chainrule.client import Client
from chainrule.client.demo import load_digits
from chainrule.engine import io, models, nn, optim


def pictures(digits: np.ndarray) -> np.ndarray:
    """(N, 1, 8, 8) to (N, 3, 32, 32): larger, and with the three colours that a ResNet-18 takes."""
    return digits.repeat(4, axis=2).repeat(4, axis=3).repeat(3, axis=1)


def pretrain(x: np.ndarray, y: np.ndarray, path: Path) -> None:
    """Write the weights of a ResNet-18 that tells some classes apart, with torchvision's names."""
    cr.manual_seed(0)
    network = models.resnet18(num_classes=5)
    optimizer = optim.SGD(network.parameters(), lr=0.02, momentum=0.9)
    for rows in np.random.default_rng(0).permutation(len(x)).reshape(-1, 30):
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(network(cr.from_numpy(pictures(x[rows]))), cr.from_numpy(y[rows]))
        loss.backward()
        optimizer.step()
    print(f"pretrained on the digits 0 to 4, loss {loss.item():.3f}")
    io.save_pth_file({name: value.numpy() for name, value in network.state_dict().items()}, path)


parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--address", help="host:port of the service; by default $CHAINRULE_ADDRESS, or localhost:50051")
arguments = parser.parse_args()

x, y = load_digits()
[old], [new] = np.nonzero(y < 5), np.nonzero(y >= 5)
train, test = np.split(np.random.default_rng(0).permutation(new), [450])

with Client.connect(arguments.address) as client, tempfile.TemporaryDirectory() as folder:
    before, after = Path(folder, "pretrained.pth"), Path(folder, "tuned.pth")
    pretrain(x[old[:360]], y[old[:360]], before)

    model = client.models.create(
        "example-tuning", "resnet18", config={"num_classes": 5}, weights=before, allow_missing=["fc.*"], init_seed=1
    )
    data = client.datasets.create("example-tuning", inputs=pictures(x[train]), targets=y[train] - 5)
    held_out = client.datasets.create("example-tuning-test", inputs=pictures(x[test]), targets=y[test] - 5)
    job = client.jobs.create(
        model=model,
        dataset=data,
        validation={"dataset": held_out},
        trainable=["fc.*"],  # the backbone is frozen
        epochs=4,
        batch_size=50,
        shards=2,
        workers=2,
        optimizer={"lr": 0.005, "momentum": 0.9},
    )
    status = job.wait(progress=True)
    print(f"accuracy on {len(test)} digits from 5 to 9: {status.evaluations[-1].accuracy:.3f}")

    job.save(after)  # torch.load(after, weights_only=True) is a state_dict for torchvision.models.resnet18
    old_weights, new_weights = io.load_weights(before), io.load_weights(after)
    network = models.resnet18(num_classes=5, weights=after)
    trained = [
        name for name, _ in network.named_parameters() if not np.array_equal(old_weights[name], new_weights[name])
    ]
    print(f"{after.name}: {len(new_weights)} tensors; the parameters that have changed are {', '.join(trained)}")
