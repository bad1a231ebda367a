"""The networks that a predictor keeps loaded."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from chainrule.server.predictions.network import Network, NetworkSpec, load_network


class Shelf:
    """Keeps networks up to a size; beyond it those go first that were not used for the longest.

    Args:
        most_bytes: of all their weights. One that is larger by itself is kept alone, while it is used.
    """

    def __init__(self, most_bytes: int, load: Callable[[NetworkSpec], Network] = load_network) -> None:
        self._most_bytes = most_bytes
        self._load = load
        self._networks: OrderedDict[str, Network] = OrderedDict()

    @property
    def keys(self) -> frozenset[str]:
        """Of the networks that are loaded."""
        return frozenset(self._networks)

    def get(self, key: str, spec: NetworkSpec | None = None) -> Network:
        """A network by its key; if it is not there, it is loaded. Raises WeightsError.

        Args:
            spec: what is needed to load it; None: it is there.
        """
        network = self._networks.get(key)
        if network is None:
            if spec is None:
                raise LookupError(f"the network {key} is not loaded, and nothing says what it is")
            with suppress(OSError):  # loading says what is wrong with the file
                self._make_room(Path(spec.weights_file).stat().st_size)
            network = self._load(spec)
            self._make_room(network.size_bytes)
            self._networks[key] = network
        self._networks.move_to_end(key)
        return network

    def _make_room(self, size_bytes: int) -> None:
        while self._networks and self._taken_bytes + size_bytes > self._most_bytes:
            self._networks.popitem(last=False)

    @property
    def _taken_bytes(self) -> int:
        return sum(network.size_bytes for network in self._networks.values())
