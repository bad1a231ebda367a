"""One of PyTorch's processes: `python -m benchmarks.distributed.ddp RANK STORE BATCHES WORK VARIANT`.

It meets the others at the file STORE, takes the batches of the file BATCHES, and writes what it measured to its
standard output, as JSON.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed
from torch.nn.parallel import DistributedDataParallel

from benchmarks.distributed import data
from benchmarks.distributed.variants import Variant
from benchmarks.distributed.works import LEARNING_RATE, MOMENTUM, Work
from benchmarks.single import networks


def main() -> None:
    """Meets the others, trains, measures."""
    rank, store, batches = int(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3])
    work, variant = Work.from_json(sys.argv[4]), Variant.from_json(sys.argv[5])
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=store.as_uri(), rank=rank, world_size=work.workers)
    try:
        measured = measure(work, variant, load(variant, batches, rank))
    finally:
        torch.distributed.destroy_process_group()
    print(json.dumps(measured), flush=True)


def measure(work: Work, variant: Variant, batches: Sequence[tuple[Any, Any]]) -> dict[str, Any]:
    """When each step was done in seconds since 1970, its loss on this process's examples, the number of parameters."""
    model = network(work, variant)
    step = training(model, variant)
    times_s, losses = [], []
    for x, y in batches:
        losses.append(step(x, y))
        times_s.append(time.time())
    return {
        "times_s": times_s,
        "losses": [float(loss) for loss in losses],
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "description": f"PyTorch {torch.__version__}, DDP over gloo",
    }


def load(variant: Variant, path: Path, rank: int) -> list[tuple[Any, Any]]:
    """This process's part of each batch, as tensors in the order that is wanted."""
    with np.load(path) as arrays:
        inputs, targets, shards = arrays["inputs"], arrays["targets"], arrays["shards"]  # shards: (steps, workers, n)
    batches = []
    for indices in shards[:, rank]:
        x = torch.from_numpy(inputs[indices])
        if variant.channels_last:
            x = x.to(memory_format=torch.channels_last)
        batches.append((x, torch.from_numpy(targets[indices])))
    return batches


def network(work: Work, variant: Variant) -> Any:
    """The network in DDP."""
    nn = torch.nn
    model = networks.resnet18(nn, work.classes) if work.network == "resnet18" else networks.mlp(nn, work.shape)
    parameters = list(model.named_parameters())
    values = data.initial((name, tuple(parameter.shape)) for name, parameter in parameters)
    with torch.no_grad():
        for (_, parameter), value in zip(parameters, values, strict=True):
            parameter.copy_(torch.from_numpy(value))
    if variant.channels_last:
        model = model.to(memory_format=torch.channels_last)
    if not variant.tuned:
        return DistributedDataParallel(model)
    return DistributedDataParallel(model, gradient_as_bucket_view=True, static_graph=True, forward_sync_buffers=False)


def training(model: Any, variant: Variant) -> Callable[[Any, Any], Any]:
    """zero_grad, forward, cross entropy, backward and the mean of all gradients, SGD with momentum."""
    chosen = {"fused": True} if variant.fused else {}
    optimizer = torch.optim.SGD(model.parameters(), lr=LEARNING_RATE, momentum=MOMENTUM, **chosen)
    criterion = torch.nn.CrossEntropyLoss()

    def step(x: Any, y: Any) -> Any:
        optimizer.zero_grad()
        loss = criterion(model(x), y)
        loss.backward()
        optimizer.step()
        return loss.detach()

    return step


if __name__ == "__main__":
    main()
