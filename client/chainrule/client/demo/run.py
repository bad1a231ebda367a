"""What the demonstration does: upload digits, train on them, fetch the weights, test them on digits held out."""

import signal
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from types import FrameType

import numpy as np
from numpy.typing import NDArray
from rich.console import Console

import chainrule.engine as cr
from chainrule.client.client import Client
from chainrule.client.config import Sgd, TrainingConfig
from chainrule.client.config_messages import to_message
from chainrule.client.demo.digits import load_digits, split
from chainrule.client.demo.server import serve_command, temporary_server
from chainrule.client.encryption import Tls
from chainrule.client.errors import InvalidInputError
from chainrule.client.progress import show_progress
from chainrule.client.sparkline import blocks_for, sparkline
from chainrule.engine import io, models

NAME = "digits-demo"
NUM_CLASSES = 10
MIN_CPUS = 2  # worker places of the demonstration's own server, at least: those of its default


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoConfig:
    """How the demonstration trains."""

    epochs: int = 15
    """Passes over the training examples."""
    workers: int = 2
    """Workers; does not change the weights."""
    shards: int = 4
    """Slices of each batch; fixes the weights."""
    batch_size: int = 64
    """Examples of one step."""
    lr: float = 0.05
    """Learning rate."""
    momentum: float = 0.9
    """Momentum factor."""

    def training(self) -> TrainingConfig:
        """The same as the client sends it.

        Raises:
            InvalidInputError: the numbers are none to train with.
        """
        if self.workers > self.shards:
            raise InvalidInputError(f"workers is {self.workers}; it must be at most shards, which is {self.shards}")
        if self.shards > self.batch_size:
            raise InvalidInputError(
                f"shards is {self.shards}; it must be at most {self.batch_size}, the examples of one step"
            )
        config = TrainingConfig(
            epochs=self.epochs,
            batch_size=self.batch_size,
            shards=self.shards,
            max_workers=self.workers,
            optimizer=Sgd(lr=self.lr, momentum=self.momentum),
        )
        to_message(config)
        return config


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoResult:
    """What came of it."""

    test_accuracy: float
    """Share of the held-out digits that the trained model names right, from 0 to 1."""
    weights_digest: str
    """SHA-256 of the trained weights."""


def run(
    config: DemoConfig, *, address: str | None = None, tls: Tls | None = None, token: str | None = None
) -> DemoResult:
    """Run the demonstration and print it; the last two lines on stdout are its result.

    Args:
        address: host:port of a running server; None starts one for the length of the demonstration.
        tls: how to encrypt the connection to a running server, as for `Client.connect`.
        token: the secret to show to a running server, likewise.

    Raises:
        InvalidInputError: `config` has numbers that are none to train with; nothing was started.
        ChainruleError: the server did not start or refused something, or the job did not succeed.
    """
    config.training()
    console = Console(highlight=False)
    if address is not None:
        with Client.connect(address, tls=tls, token=token) as client:
            return _train_and_test(client, config, console)
    with _sigterm_as_exit():
        console.print("starting a server ...")
        command = partial(serve_command, num_cpus=max(config.workers, MIN_CPUS))
        with temporary_server(command=command) as started, Client(started) as client:  # nothing of the environment
            return _train_and_test(client, config, console)


def accuracy_of(
    weights: Mapping[str, NDArray[np.generic]], inputs: NDArray[np.float32], targets: NDArray[np.int64]
) -> float:
    """Share of the examples that the demonstration's model names right with these weights, computed here."""
    model = models.small_cnn(num_classes=NUM_CLASSES)
    model.load_state_dict(weights)
    model.eval()
    with cr.no_grad():
        logits = model(cr.from_numpy(inputs)).numpy()  # (N, classes)
    return float(np.mean(logits.argmax(axis=1) == targets))


def _train_and_test(client: Client, config: DemoConfig, console: Console) -> DemoResult:
    server = client.server_info()
    console.print(f"server    {client.address}, chainrule {server.version}, {server.kernels} kernels")
    inputs, targets = load_digits()
    train, test = split(len(targets))

    dataset = client.datasets.create(NAME, inputs=inputs[train], targets=targets[train])
    console.print(f"dataset   {dataset.name}, {dataset.num_examples} digits to learn from, {len(test)} held out")
    cr.manual_seed(0)  # the same model on every run: its name is the same
    model = client.models.create(NAME, models.small_cnn(num_classes=NUM_CLASSES))
    console.print(f"model     {model.name}, {model.family} with {model.num_parameters:,} parameters")
    training = config.training()
    job = client.jobs.create(
        model=model,
        dataset=dataset,
        epochs=training.epochs,
        batch_size=training.batch_size,
        shards=training.shards,
        max_workers=training.max_workers,
        optimizer=training.optimizer,
    )
    console.print(
        f"job       {job.name}, {_count(config.epochs, 'epoch')}, "
        f"{_count(config.shards, 'shard')} on {_count(config.workers, 'worker')}"
    )

    began = time.monotonic()
    with show_progress(console) as show:
        job.wait(progress=show)
    losses = [metric.loss for metric in job.metrics()]
    took_s = time.monotonic() - began
    curve = sparkline(losses, width=40, blocks=blocks_for(console.encoding))
    console.print(f"loss      {losses[0]:.3f} {curve} {losses[-1]:.3f}, {took_s:.1f} s", soft_wrap=True, markup=False)

    content = job.weights_file()
    result = DemoResult(
        test_accuracy=accuracy_of(io.load(content), inputs[test], targets[test]), weights_digest=io.digest(content)
    )
    print(f"test accuracy: {result.test_accuracy:.3f}")
    print(f"weights sha256: {result.weights_digest}", flush=True)
    return result


def _count(number: int, thing: str) -> str:
    return f"{number} {thing}" if number == 1 else f"{number} {thing}s"


@contextmanager
def _sigterm_as_exit() -> Iterator[None]:
    """Let SIGTERM end the block as an exception, so that what the block owns is stopped and removed."""

    def leave(signum: int, _frame: FrameType | None) -> None:
        sys.exit(128 + signum)

    before = signal.signal(signal.SIGTERM, leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
