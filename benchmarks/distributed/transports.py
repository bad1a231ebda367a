"""One synchronous exchange of two workers and a parameter server, over every transport: the table."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from benchmarks.distributed.sides import run_all
from benchmarks.distributed.works import Work
from benchmarks.layout import aligned, figures


@dataclass(frozen=True, slots=True)
class Size:
    """How much is exchanged."""

    network: str
    """`resnet18` or `mlp`."""
    shape: tuple[int, ...]
    """As `Work.shape` says."""
    exchanges: int
    """How many are measured."""

    @property
    def work(self) -> Work:
        """A run of so many steps, after a tenth as many to warm up."""
        return Work(
            name="exchange",
            title="exchange",
            network=self.network,
            batch=2,
            shape=self.shape,
            warmup_steps=self.exchanges // 10 + 2,
            steps=self.exchanges,
        )


SIZES = (
    Size("mlp", (90, 10, 10), 2000),
    Size("mlp", (320, 300, 10), 1000),
    Size("mlp", (1000, 990, 10), 300),
    Size("resnet18", (8,), 60),
    Size("mlp", (784, 4096, 4096, 10), 60),
)
RAY_SHARE = 0.2
"""Of the exchanges that are measured over Ray, which takes longer."""


@dataclass(frozen=True, slots=True)
class Exchange:
    """What one takes, in milliseconds."""

    parameters: int
    """How many are exchanged, in both directions."""
    by_transport: Mapping[str, float] = field(default_factory=dict)
    """The median, by `TRANSPORTS`."""

    def to_json(self) -> dict[str, Any]:
        """All that was measured."""
        return {"parameters": self.parameters, **self.by_transport}


MEMORY, TLS, RAY = TRANSPORTS = ("shared memory", "TLS socket", "Ray actor calls")


def measure(sizes: Sequence[Size]) -> list[Exchange]:
    """An exchange for each size. Raises RunError."""
    found = []
    for size in sizes:
        by_transport, parameters = {}, 0
        for transport, links in ((MEMORY, "memory"), (TLS, "tls")):
            [measured] = run_all([["benchmarks.distributed.exchange", size.work.to_json(), links]], {})
            by_transport[transport], parameters = measured["median_ms"], measured["parameters"]
        found.append(Exchange(parameters, by_transport))
    counts = [max(20, round(size.exchanges * RAY_SHARE)) for size in sizes]
    orders = {exchange.parameters: count for exchange, count in zip(found, counts, strict=True)}
    [ray] = run_all([["benchmarks.distributed.ray_exchange", json.dumps(orders)]], {})
    return [
        Exchange(exchange.parameters, {**exchange.by_transport, RAY: ray[str(exchange.parameters)]})
        for exchange in found
    ]


HEADER = ("parameters", *(f"{transport} ms" for transport in TRANSPORTS), "Ray / memory", "TLS / memory")


def table(exchanges: Sequence[Exchange]) -> str:
    """The exchanges, aligned."""
    return "\n".join(aligned(HEADER, [_cells(exchange) for exchange in exchanges], words=set()))


def _cells(exchange: Exchange) -> tuple[str, ...]:
    times = exchange.by_transport
    return (
        f"{exchange.parameters:,}",
        *(figures(times[transport]) for transport in TRANSPORTS),
        f"{times[RAY] / times[MEMORY]:.1f}",
        f"{times[TLS] / times[MEMORY]:.1f}",
    )
