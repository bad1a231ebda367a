"""How much a graph from a stranger may ask for."""

from __future__ import annotations

from dataclasses import dataclass

MAX_BYTES = 2**31 - 1
"""The largest file that protobuf reads."""


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What loading and running a graph may allocate; what would go beyond is refused before it is allocated.

    Loading a file of n bytes takes, beside these, at most 3 · n + 1 KiB · `fields` + 96 · `numbers` + 8 KiB · `nodes`
    + `weight_bytes` + 2 · `folded_bytes`. A forward keeps at most `activation_bytes` and what autograd keeps beside it,
    and takes at most 5 · `tensor_bytes` more while one of its operators is computed.
    """

    fields: int = 2_000_000
    """Fields of all messages in the file, whatever their length: 2 bytes of a file may be a message of 200."""
    numbers: int = 2**24
    """Integers that the file lists, as attributes or as elements that are not bytes, and floats of attributes."""
    depth: int = 48
    """Messages inside messages."""
    nodes: int = 100_000
    """Nodes, after functions are inlined."""
    weight_bytes: int = 2**34
    """All parameters and buffers together; only an architecture without weights can ask for more than it brings."""
    folded_bytes: int = 2**26
    """All values together that are computed from constants while loading."""
    tensor_bytes: int = 2**34
    """What one operator gives, each element counted with 4 bytes at least."""
    activation_bytes: int = 2**37
    """What all operators of one forward give together."""
    plans: int = 16
    """Shapes of inputs for which a forward is kept planned."""
