"""Which requests are computed next, and together: decisions as values, by a clock that is given."""

from __future__ import annotations

import itertools
from collections import OrderedDict, deque
from collections.abc import Hashable, Iterable
from dataclasses import dataclass, field

from chainrule.server.errors import TooManyCallsError
from chainrule.server.predictions.messages import Asked
from chainrule.server.predictions.network import NetworkSpec

MAX_BATCH_BYTES = 16 * 1024**2
"""Most bytes of inputs that are put together; a request with more is computed by itself."""
MAX_WAITING_BYTES = 256 * 1024**2
"""Most bytes of inputs that wait, of all requests."""
RETRY_S = 0.25
"""After how long one that finds too many waiting is told to try again."""


@dataclass(frozen=True)
class Limits:
    """How requests are put together."""

    max_rows: int = 32
    """Most examples of a batch; a request with more is computed by itself."""
    window_s: float = 0.0
    """How long a request waits for others while a predictor has nothing to do."""
    max_waiting: int = 1000
    """Most requests to one network that wait."""


@dataclass(eq=False)
class Request:
    """One request that waits, or is computed."""

    network: NetworkSpec
    asked: Asked
    since_s: float
    """When it came."""
    alone: bool = False
    """Whether it is computed without others."""
    lost: int = 0
    """How many predictors have ended while they computed it."""
    number: int = 0
    """In the order of coming. Given by the batcher."""
    group: Hashable = field(default=None)
    """What can be computed together has the same. Given by the batcher."""
    size_bytes: int = field(init=False)
    rows: int = field(init=False)

    def __post_init__(self) -> None:
        self.size_bytes = sum(array.nbytes for _, array in self.asked.inputs)
        self.rows = self.asked.rows

    def kind(self) -> Hashable:
        """What requests have in common that can be computed together."""
        return (
            self.network.key,
            self.asked.prepared,
            tuple((name, array.dtype.str, array.shape[1:]) for name, array in self.asked.inputs),
        )


class Batcher:
    """The requests that wait. The oldest is in the next batch, with those of its kind that have come after it; what a
    predictor has lost comes before, one by one, since one of them may be what has ended it."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._numbers = itertools.count(1)
        self._returned: deque[Request] = deque()
        self._groups: OrderedDict[Hashable, OrderedDict[int, Request]] = OrderedDict()
        """By the kind; each group's requests by their number, so the group of the oldest is that of the least."""
        self._waiting: dict[str, int] = {}
        """How many wait for each network."""
        self._bytes = 0

    def __len__(self) -> int:
        return len(self._returned) + sum(map(len, self._groups.values()))

    def add(self, request: Request) -> None:
        """Have a request wait. Raises TooManyCallsError if too much waits already."""
        key = request.network.key
        waiting = self._waiting.get(key, 0)
        if waiting >= self._limits.max_waiting:
            raise TooManyCallsError(
                f'{waiting} requests to "{request.network.model}" wait for predictions already, of at most '
                f"{self._limits.max_waiting}; try again in a moment, or have the server serve with more --predictors "
                "or a larger --predict-queue",
                retry_after_s=RETRY_S,
            )
        if self._bytes and self._bytes + request.size_bytes > MAX_WAITING_BYTES:
            raise TooManyCallsError(
                f"requests with {self._bytes:,} bytes of inputs wait for predictions already, of at most "
                f"{MAX_WAITING_BYTES:,}; try again in a moment, or have the server serve with more --predictors",
                retry_after_s=RETRY_S,
            )
        request.number = next(self._numbers)
        request.group = (request.number,) if request.alone else request.kind()
        self._groups.setdefault(request.group, OrderedDict())[request.number] = request
        self._count(request, 1)

    def discard(self, request: Request) -> None:
        """Forget a request, if it waits: nobody wants its answer."""
        if request in self._returned:
            self._returned.remove(request)
        elif not self._taken_from_group(request):
            return
        self._count(request, -1)

    def give_back(self, requests: Iterable[Request]) -> None:
        """Have requests that were computed and lost wait again, before all others, each to be computed alone."""
        for request in requests:
            self._returned.append(request)
            self._count(request, 1)

    def take_all(self) -> list[Request]:
        """All that wait; then none do."""
        found = [*self._returned, *(request for group in self._groups.values() for request in group.values())]
        self._returned.clear()
        self._groups.clear()
        self._waiting.clear()
        self._bytes = 0
        return found

    def next(self, now_s: float) -> list[Request]:
        """What is to be computed now by a predictor that has nothing to do; empty if nothing is due."""
        if self._returned:
            request = self._returned.popleft()
            self._count(request, -1)
            return [request]
        group = min(
            (group for group in self._groups.values() if self._is_due(group, now_s)),
            key=lambda group: next(iter(group)),
            default=None,
        )
        return [] if group is None else self._batch(group)

    def due_s(self) -> float | None:
        """When something is due, if nothing else comes; None if nothing waits."""
        if self._returned:
            return 0.0
        oldest = [next(iter(group.values())).since_s for group in self._groups.values()]
        return min(oldest) + self._limits.window_s if oldest else None

    # --- private -----------------------------------------------------------------------------------------------

    def _is_due(self, group: OrderedDict[int, Request], now_s: float) -> bool:
        first = next(iter(group.values()))
        if first.alone or now_s >= first.since_s + self._limits.window_s:
            return True
        return sum(request.rows for request in group.values()) >= self._limits.max_rows

    def _batch(self, group: OrderedDict[int, Request]) -> list[Request]:
        batch: list[Request] = []
        rows = size_bytes = 0
        for request in list(group.values()):
            rows, size_bytes = rows + request.rows, size_bytes + request.size_bytes
            if batch and (rows > self._limits.max_rows or size_bytes > MAX_BATCH_BYTES):
                break
            batch.append(request)
        for request in batch:
            self._taken_from_group(request)
            self._count(request, -1)
        return batch

    def _taken_from_group(self, request: Request) -> bool:
        group = self._groups.get(request.group)
        if group is None or group.pop(request.number, None) is None:
            return False
        if not group:
            del self._groups[request.group]
        return True

    def _count(self, request: Request, change: int) -> None:
        key = request.network.key
        left = self._waiting.get(key, 0) + change
        if left:
            self._waiting[key] = left
        else:
            del self._waiting[key]
        self._bytes += change * request.size_bytes
