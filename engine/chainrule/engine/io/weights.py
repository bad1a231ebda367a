"""Weights from a file of either format, told by its content."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from chainrule.engine.dtypes import Array
from chainrule.engine.errors import FormatError
from chainrule.engine.io.pth import load_pth
from chainrule.engine.io.safetensors import load


def load_weights(path: str | Path) -> dict[str, Array]:
    """The arrays by name in a safetensors file, or in a `.pth` or `.pt` file with a state dict.

    The content decides, not the file's name. Of a `.pth` file the result is as `load_pth` gives it, with `_metadata`.

    Raises:
        FormatError: the file is malformed, in neither format, or is a checkpoint with more in it than arrays; the
            message tells its keys, of which `load_pth(path)[key]` gives the one with the weights.
        OSError: the file cannot be read.
    """
    data = Path(path).read_bytes()
    try:
        if data[8:9] == b"{":  # after the 8 bytes of the header's length
            return load(data)
        if data[:4] == b"PK\3\4" or data[:1] == b"\x80":
            return _flat(load_pth(data))
    except FormatError as error:
        raise FormatError(f"{path}: {error}") from error
    raise FormatError(
        f"{path}: neither safetensors nor a file of torch.save: it begins with {data[:16]!r} ({len(data)} bytes)"
    )


def _flat(value: object) -> dict[str, Array]:
    if not isinstance(value, dict):
        raise FormatError(f"holds a {type(value).__name__}, not a state dict; io.load_pth(path) gives it as it is")
    others = [name for name, x in value.items() if not isinstance(name, str) or not isinstance(x, np.ndarray)]
    if others:
        keys = ", ".join(repr(name)[:60] for name in list(value)[:20]) + (", …" if len(value) > 20 else "")
        raise FormatError(
            f"a checkpoint, not a state dict: {others[0]!r:.60} is a {type(value[others[0]]).__name__}, no array; "
            f"its keys are {keys}; take the weights from io.load_pth(path)[key]"
        )
    return value
