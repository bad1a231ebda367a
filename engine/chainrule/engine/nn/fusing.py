"""Modules that follow one another, of which two are computed at once where one kernel does both.

What comes out is the same but for rounding. A module knows which one it can be computed with: `Module._fused`. That is
asked only of those whose call is no more than the forward of their class, so that hooks see all that they would see.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from chainrule.engine.nn.module import Module


def run(modules: Sequence[Module], x: Any) -> Any:
    """x through one module after the other."""
    position = 0
    while position < len(modules):
        module, following = modules[position], modules[position + 1 : position + 2]
        if following and _is_plain(module) and _is_plain(following[0]):
            y = module._fused(following[0], x)
            if y is not None:
                x = y
                position += 2
                continue
        x = module(x)
        position += 1
    return x


def _is_plain(module: Module) -> bool:
    return isinstance(module, Module) and not module._call_hooks and "forward" not in vars(module)
