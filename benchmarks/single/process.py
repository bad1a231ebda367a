"""What runs in a process that measures: `python -m benchmarks.single.process ENGINE [--fork]`.

It reads orders from its standard input, a line each, and writes what it measured as JSON to its standard output, a
line each: an empty one if it failed.
"""

from __future__ import annotations

import contextlib
import importlib
import itertools
import json
import math
import multiprocessing
import resource
import sys
import time
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.single import networks
from benchmarks.single.works import Order, Work

LEARNING_RATE = 1e-4  # small, as all steps are to be alike: none on gradients that have vanished or grown

Step = Callable[[], Any]
"""Takes a step and returns its loss."""


class UnavailableError(Exception):
    """The engine cannot do this work."""


def main() -> None:
    """Imports the engine, then measures one order; with `--fork` each order there is, in a fork."""
    name, *flags = sys.argv[1:]
    engine = importlib.import_module(name)
    for line in sys.stdin:
        order = Order.from_json(line)
        if not flags:
            answer(engine, order)
            return
        fork = multiprocessing.get_context("fork").Process(target=answer, args=(engine, order))
        fork.start()
        fork.join()
        if fork.exitcode:
            print(flush=True)  # no answer; what it complained of is on the standard error


def answer(engine: Any, order: Order) -> None:
    """Writes what is measured."""
    try:
        measured = measure_peak(order) if order.engine == "numpy" else measure(engine, order)
    except UnavailableError as error:
        measured = {"unavailable": str(error)}
    print(json.dumps(measured), flush=True)


# ---- Timing ----


def measure(engine: Any, order: Order) -> dict[str, Any]:
    """The nanoseconds of each step, the first loss, the number of parameters, and the peak memory in bytes.

    Raises:
        ArithmeticError: training diverged, and with it the time of a step may have.
    """
    engine.set_num_threads(order.work.threads)
    imported = memory()
    step, parameters = build(engine, order)
    loss = float(step().item())
    warm_up(step, order.warmup_steps - 1, order.warmup_s)
    times_ns = timed(step, order.seconds, order.min_steps)
    peak = memory("VmHWM")
    last_loss = float(step().item())
    if not math.isfinite(last_loss):
        raise ArithmeticError(f"the loss of {order.work.name} went from {loss} to {last_loss}")
    return {
        "times_ns": times_ns,
        "loss": loss,
        "last_loss": last_loss,
        "parameters": parameters,
        "peak_bytes": peak,
        "imported_bytes": imported,
        "description": f"PyTorch {engine.__version__}" if order.engine == "torch" else str(engine.kernels.info()),
    }


def warm_up(step: Step, min_steps: int, seconds: float) -> None:
    """At least so many steps and seconds, then until one is hardly faster than all before it, or ten times as long."""
    fastest = float("inf")
    start = time.perf_counter()
    for count in itertools.count(1):
        (last,) = timed(step, 0, 1)
        settled = last > 0.95 * fastest
        fastest = min(fastest, last)
        elapsed = time.perf_counter() - start
        if count >= min_steps and elapsed >= (seconds if settled else 10 * seconds):
            return


def timed(step: Step, seconds: float, min_steps: int) -> list[int]:
    """The nanoseconds of each step, for at least so many seconds and steps."""
    times: list[int] = []
    end = time.perf_counter_ns() + int(seconds * 1e9)
    last = time.perf_counter_ns()
    while last < end or len(times) < min_steps:
        start = time.perf_counter_ns()
        step()
        last = time.perf_counter_ns()
        times.append(last - start)
    return times


def measure_peak(order: Order) -> dict[str, Any]:
    """The most floating-point operations a second that numpy's products of float32 matrices reach."""
    n = 2048
    a = np.random.default_rng(0).standard_normal((n, n), dtype=np.float32)
    out = np.empty_like(a)

    def step() -> None:
        np.matmul(a, a, out=out)

    step()
    return {"flops": 2 * n**3 / (min(timed(step, order.seconds, order.min_steps)) / 1e9)}


def memory(field: str = "VmRSS") -> int:
    """Bytes of memory this process has, or (VmHWM) has had at most; without /proc, the latter in both cases."""
    status = Path("/proc/self/status")
    if not status.exists():
        unit = 1 if sys.platform == "darwin" else 1024
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    lines = dict(line.split(":", 1) for line in status.read_text().splitlines())
    return int(lines[field].split()[0]) * 1024


# ---- Building ----


def build(engine: Any, order: Order) -> tuple[Step, int]:
    """What takes a step of the work, and the number of parameters of its network."""
    if order.work.network == "chain":
        return chain(engine, order.work), 0
    if order.work.dtype == "bfloat16" and not hasattr(engine, "autocast"):
        raise UnavailableError(f"{order.engine} has no autocast")
    model = network(engine, order)
    x, y = examples(engine, order)
    model.train(order.work.mode in ("train", "tune-train"))
    parameters = sum(parameter.numel() for parameter in model.parameters())
    if order.work.mode == "infer":
        return inference(engine, model, x), parameters
    return training(engine, order.work, model, x, y), parameters


def network(engine: Any, order: Order) -> Any:
    """The network, with weights that are the same for every engine, in the order's memory format."""
    work, nn = order.work, engine.nn
    if work.network == "mlp":
        model = networks.mlp(nn, work.shape)
    elif work.network == "gpt":
        model = networks.gpt(nn, work.shape)
    elif order.engine == "torch":
        model = networks.resnet18(nn, 1000)
    else:
        model = importlib.import_module(f"{order.engine}.models").resnet18()
    if work.mode.startswith("tune"):
        for parameter in model.parameters():
            parameter.requires_grad = False
        model.fc = nn.Linear(512, work.classes)
    set_weights(engine, model)
    if order.memory_format != "contiguous_format":
        model = model.to(memory_format=getattr(engine, order.memory_format))
    return model


def set_weights(engine: Any, model: Any) -> None:
    """Weights from N(0, 2 / fan_in), by their names alone; biases 0; of normalisations as they are."""
    with engine.no_grad():
        for name, parameter in model.named_parameters():
            shape = tuple(parameter.shape)
            if len(shape) > 1:
                random = np.random.default_rng(zlib.crc32(name.encode()))
                scale = np.float32((2 / np.prod(shape[1:])) ** 0.5)
                parameter.copy_(engine.from_numpy(random.standard_normal(shape, dtype=np.float32) * scale))
            elif name.endswith("bias"):
                parameter.zero_()


def examples(engine: Any, order: Order) -> tuple[Any, Any]:
    """The one batch of all steps: examples and their classes."""
    work = order.work
    random = np.random.default_rng(0)
    if work.network == "gpt":
        tokens = random.integers(work.classes, size=(work.batch, work.shape[1] + 1))
        return engine.from_numpy(tokens[:, :-1].copy()), engine.from_numpy(tokens[:, 1:].reshape(-1))
    shape = (3, work.shape[0], work.shape[0]) if work.has_images else work.shape[:1]
    x = engine.from_numpy(random.standard_normal((work.batch, *shape), dtype=np.float32))
    if order.memory_format != "contiguous_format":
        x = x.to(memory_format=getattr(engine, order.memory_format))
    return x, engine.from_numpy(random.integers(work.classes, size=work.batch))


# ---- Steps ----


def training(engine: Any, work: Work, model: Any, x: Any, y: Any) -> Step:
    """zero_grad, forward, cross entropy, backward, SGD with momentum on what requires a gradient."""
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = engine.optim.SGD(trained, lr=LEARNING_RATE, momentum=0.9)
    cross_entropy = engine.nn.functional.cross_entropy

    def casting() -> contextlib.AbstractContextManager[Any]:
        if work.dtype == "float32":
            return contextlib.nullcontext()
        context: contextlib.AbstractContextManager[Any] = engine.autocast("cpu", dtype=engine.bfloat16)
        return context

    def step() -> Any:
        optimizer.zero_grad()
        with casting():
            loss = cross_entropy(model(x), y)
        loss.backward()
        optimizer.step()
        return loss

    return step


def inference(engine: Any, model: Any, x: Any) -> Step:
    """Forward without a graph; what it returns in place of a loss is the mean of the squares."""

    def step() -> Any:
        with engine.no_grad():
            return Squares(model(x))

    return step


@dataclass(frozen=True, slots=True)
class Squares:
    """The mean of the squares of a tensor, computed when it is asked for: not in the time of a step."""

    tensor: Any

    def item(self) -> float:
        """The mean."""
        return float((self.tensor * self.tensor).mean().item())


def chain(engine: Any, work: Work) -> Step:
    """x ← x · a, x ← x + b, again and again, and the gradient of the sum by x."""
    random = np.random.default_rng(0)
    x, a, b = (engine.from_numpy(random.standard_normal(work.batch, dtype=np.float32)) for _ in range(3))
    a.clamp_(0.5, 0.9)
    x.requires_grad_()
    pairs = work.shape[0] // 2

    def step() -> Any:
        x.grad = None
        y = x
        for _ in range(pairs):
            y = y * a + b
        y = y.sum()
        y.backward()
        return y

    return step


if __name__ == "__main__":
    main()
