"""Checkpointing: the forward saves nothing, and is computed again when backward needs what it would have saved."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

from chainrule.engine.amp import autocast
from chainrule.engine.autograd.graph import Node, Region, Saved, watching
from chainrule.engine.autograd.mode import enable_grad, state
from chainrule.engine.errors import AutogradError, ConfigError, UnsupportedError
from chainrule.engine.functions.autocast import get_autocast_dtype, is_autocast_enabled
from chainrule.engine.nn.containers import Sequential
from chainrule.engine.nn.module import Module
from chainrule.engine.random import Generator, current_generator
from chainrule.engine.tensor import Tensor

__all__ = ["checkpoint", "checkpoint_sequential"]


def checkpoint(
    function: Callable[..., Any],
    *args: Any,
    use_reentrant: bool = False,
    preserve_rng_state: bool = True,
    **kwargs: Any,
) -> Any:
    """function(*args, **kwargs), without the memory that its intermediate results take until the backward pass.

    The backward pass calls `function` again, which has to compute the same: random draws are repeated, inputs must not
    have been written to.

    Args:
        function: what to compute; a module, say.
        args: its arguments.
        use_reentrant: False; the other way of doing it is not supported.
        preserve_rng_state: whether the second call draws the same random numbers.
        kwargs: its keyword arguments.

    Raises:
        UnsupportedError: `use_reentrant`.
        AutogradError: in the backward pass, if the second call records other operations than the first.
    """
    if use_reentrant:
        raise UnsupportedError("checkpoint(use_reentrant=True) is not supported; leave it out")
    if not state.recording:
        return function(*args, **kwargs)
    region = _Region(function, args, kwargs, current_generator() if preserve_rng_state else None)
    with watching(region.collect):
        result = region.call()
    region.forget_all()
    return result


def checkpoint_sequential(
    functions: Sequential | Sequence[Module], segments: int, input: Any, *, use_reentrant: bool = False,
    preserve_rng_state: bool = True,
) -> Any:  # fmt: skip
    """The modules one after another, in `segments` parts of about one length, each but the last checkpointed.

    Raises:
        ConfigError: fewer than one segment, or more than modules.
    """
    modules = list(functions.children() if isinstance(functions, Sequential) else functions)
    if not 1 <= segments <= len(modules):
        raise ConfigError("segments", segments, f"must be between 1 and the number of modules, {len(modules)}")
    size = len(modules) // segments
    for start in range(0, size * (segments - 1), size):
        part = Sequential(*modules[start : start + size])
        input = checkpoint(part, input, use_reentrant=use_reentrant, preserve_rng_state=preserve_rng_state)
    for module in modules[size * (segments - 1) :]:
        input = module(input)
    return input


def _in_precision_of_now(function: Callable[[], Any]) -> Callable[[], Any]:
    """The function, computed inside autocast if that is where this is called, else outside."""
    dtype, enabled = get_autocast_dtype("cpu"), is_autocast_enabled("cpu")

    def call() -> Any:
        # Without the cache: each call is to record the same, whatever has been converted before.
        with autocast("cpu", dtype=dtype, enabled=enabled, cache_enabled=False):
            return function()

    return call


class _Region(Region):
    """The part of the graph that one checkpointed call recorded."""

    def __init__(
        self, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], generator: Generator | None
    ) -> None:
        self.call = _in_precision_of_now(partial(function, *args, **kwargs))
        self.inputs = [Saved.input(x) for x in (*args, *kwargs.values()) if isinstance(x, Tensor)]
        self.generator = generator
        self.drawn = None if generator is None else generator.get_state()
        self.thread = threading.get_ident()
        self.nodes: list[weakref.ref[Node]] = []  # which hold the region
        self.names: list[str] = []

    def collect(self, node: Node) -> None:
        """Makes a node part of the region, while that is computed first."""
        if node.saves and threading.get_ident() == self.thread:
            self.nodes.append(weakref.ref(node))
            self.names.append(node.name())
            node.more().region = self
            node.forget()

    def forget_all(self) -> None:
        """Lets go of what nodes saved after they had become part of the region."""
        for reference in self.nodes:
            node = reference()
            if node is not None:
                node.forget()

    def fill(self, node: Node) -> None:
        for saved in self.inputs:
            saved.check(node)
        again: list[Node] = []
        thread = threading.get_ident()

        def collect(made: Node) -> None:
            if made.saves and threading.get_ident() == thread:
                again.append(made)

        with enable_grad(), watching(collect), self._same_draws():
            self.call()
        names = [made.name() for made in again]
        if names != self.names:
            raise AutogradError(
                f"checkpoint: the function recorded {len(names)} operations when it was called again, not the "
                f"{len(self.names)} of the first call; it has to compute the same each time. First: {self.names}; "
                f"again: {names}"
            )
        for reference, made in zip(self.nodes, again, strict=True):
            member = reference()
            if member is not None and member.extra is not None and member.extra.region is self:
                member.take_over(made)

    @contextmanager
    def _same_draws(self) -> Iterator[None]:
        """The generator draws what it drew the first time, and then goes on from where it is now."""
        if self.generator is None or self.drawn is None:
            yield
            return
        now = self.generator.get_state()
        self.generator.set_state(self.drawn)
        try:
            yield
        finally:
            self.generator.set_state(now)
