"""What decides the bits that this process computes, as a value that two workers can compare."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import chainrule.engine as cr

Fingerprint = dict[str, str]
"""What is compared, in words, by its name."""

UNKNOWN = "unknown"
_caches = Path("/sys/devices/system/cpu/cpu0/cache")


def fingerprint() -> Fingerprint:
    """What this process computes with, as it is now: it takes a few milliseconds the first time.

    Settings of the environment are not among it, their effects are: CHAINRULE_KERNELS, ONEDNN_MAX_CPU_ISA,
    OPENBLAS_CORETYPE and NPY_DISABLE_CPU_FEATURES change kernels, instruction sets and core type. What has no name
    shows in `probe`, the digest of some results.
    """
    info = cr.kernels.info()
    simd = np.show_config(mode="dicts")["SIMD Extensions"]  # without what is empty
    return {
        "chainrule": importlib.metadata.version("chainrule"),
        "kernels": info.name if info.onednn is None else f"{info.name} {info.onednn} {info.isa}",
        "numpy": " ".join([info.numpy, *simd.get("baseline", ()), *simd.get("found", ())]),
        "blas": info.blas,
        "threads": str(info.num_threads),
        "byte_order": sys.byteorder,
        "c_library": _c_library(),
        "caches": _cache_sizes(),
        "probe": _probe(),
    }


def differences(mine: Mapping[str, str], theirs: Mapping[str, str]) -> list[str]:
    """What differs, a line each: `threads: 1 here, 2 there`; none if both compute the same bits."""
    return [
        f"{name}: {mine.get(name, UNKNOWN)} here, {theirs.get(name, UNKNOWN)} there"
        for name in dict.fromkeys((*mine, *theirs))
        if mine.get(name) != theirs.get(name)
    ]


def to_json(found: Mapping[str, str]) -> str:
    """A JSON object; the same text for the same fingerprint."""
    return json.dumps(found, sort_keys=True)


def from_json(text: str) -> Fingerprint:
    """The fingerprint of a JSON object.

    Raises:
        ValueError: the text is none, or has something else than strings in it.
    """
    found = json.loads(text)
    if not isinstance(found, dict) or not all(isinstance(value, str) for value in found.values()):
        raise ValueError(f"a fingerprint is a JSON object of strings, not {text[:80]!r}")
    return found


def _c_library() -> str:
    """The C library, whose mathematics numpy uses for what it has no vector instructions for."""
    try:
        return os.confstr("CS_GNU_LIBC_VERSION") or UNKNOWN
    except (AttributeError, ValueError):  # of another system than Linux, or another library
        return UNKNOWN


def _cache_sizes() -> str:
    """The sizes of the caches of data, nearest first: libraries cut products into blocks that fit them."""
    found: list[tuple[int, str]] = []
    for index in sorted(_caches.glob("index*")):
        try:
            level, kind, size = ((index / name).read_text().strip() for name in ("level", "type", "size"))
        except OSError:  # a container may show some of it only
            continue
        if kind != "Instruction":
            found.append((int(level), size))
    return " ".join(size for _, size in sorted(found)) or UNKNOWN


def _probe() -> str:
    """The digest of products, small and large, a sum, and functions in both precisions."""
    x, wide = _numbers(4099), _numbers(511).astype(np.float64)
    a, b = _numbers(64 * 1500).reshape(64, 1500), _numbers(1500 * 24).reshape(1500, 24)
    results: list[NDArray[Any]] = [a[:8] @ b, cr.kernels.mm(a, b), np.dot(x, x), np.add.reduce(x), a.T[:64] @ a[:, :64]]
    for values in (x, wide):
        results += [function(values) for function in (np.exp, np.tanh, np.expm1, np.sin)]
        results += [function(values + 2) for function in (np.log, np.log1p, np.sqrt)]
        results.append(np.power(values + 2, values.dtype.type(1.7)))
    digest = hashlib.sha256()
    for result in results:
        digest.update(np.ascontiguousarray(result).tobytes())
    return digest.hexdigest()[:16]


def _numbers(count: int) -> NDArray[np.float32]:
    """That many from [−1, 1), the same everywhere: multiples of a power of two, spread by a multiplication."""
    spread = (np.arange(count, dtype=np.uint32) * np.uint32(2654435761)) >> np.uint32(8)
    return spread.astype(np.float32) / np.float32(1 << 23) - np.float32(1)
