"""Primitives of oneDNN: described once for a set of shapes, then executed on the memory of arrays."""

from __future__ import annotations

import math
import os
import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from functools import cache
from typing import Any, TypeVar

import numpy as np

from chainrule.engine import threads
from chainrule.engine.dtypes import Array, DType, bfloat16
from chainrule.engine.kernels.onednn import library as dnn
from chainrule.engine.kernels.onednn.address import address_of
from chainrule.engine.kernels.onednn.library import Argument, Dims, Query

KEPT = 1024
"""How many primitives a thread keeps; a network has a few for each of its layers."""

_codes = {np.dtype(np.float16): 1, bfloat16: 2, np.dtype(np.float32): 3, np.dtype(np.uint8): 6}
_T = TypeVar("_T")


# ---- Descriptions of memory ----


class Layout:
    """What memory holds: sizes, an element type, and where each element lies.

    Args:
        handle: of a `dnnl_memory_desc`; owned from now on.
    """

    __slots__ = ("__weakref__", "handle", "size")

    def __init__(self, handle: int) -> None:
        self.handle = handle
        self.size: int = dnn.find().memory_desc_get_size(handle)

    @staticmethod
    def of(shape: Sequence[int], dtype: DType, steps: Sequence[int] | None = None) -> Layout:
        """Elements with so many others from one to the next of each dimension; or as a primitive likes it best."""
        library, dims, code = dnn.find(), Dims(*shape), _codes[dtype]
        if steps is None:
            return Layout(library.make("memory_desc_create_with_tag", len(shape), dims, code, dnn.ANY_FORMAT))
        return Layout(library.make("memory_desc_create_with_strides", len(shape), dims, code, Dims(*steps)))

    @staticmethod
    def dense(shape: Sequence[int], dtype: DType) -> Layout:
        """Elements row by row."""
        return Layout.of(shape, dtype, [math.prod(shape[i + 1 :]) for i in range(len(shape))])

    @staticmethod
    def chosen(description: int, query: Query) -> Layout:
        """What a primitive has chosen; nothing, of size 0, for what it does not have."""
        library = dnn.find()
        borrowed = library.primitive_desc_query_md(description, query, 0)
        return Layout(library.make("memory_desc_clone", borrowed))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Layout) and bool(dnn.find().memory_desc_equal(self.handle, other.handle))

    __hash__ = None  # type: ignore[assignment]

    def __del__(self) -> None:
        dnn.find().memory_desc_destroy(self.handle)


ALIGNMENT = 64
"""Of memory, in bytes: a vector that crosses a line of the cache is loaded at half the speed, and numpy's do."""


def aligned(size: int) -> Array:
    """So many bytes from an address that vectors are loaded best from."""
    memory = np.empty(size + ALIGNMENT, np.uint8)
    start = -address_of(memory) % ALIGNMENT
    return memory[start : start + size]


# ---- Primitives ----


class Primitive:
    """A computation on memory of given layouts.

    Args:
        description: of a `dnnl_primitive_desc`; owned from now on.
        arguments: what it takes, in the order in which `run` is given their arrays.
    """

    __slots__ = ("_arguments", "_count", "_description", "_handle", "_layouts", "_memories", "scratch_size")

    def __init__(self, description: int, arguments: Sequence[tuple[Argument, Layout]]) -> None:
        library = dnn.find()
        self._description = description
        self._memories: list[int] = []
        self._handle = 0
        self._handle = library.make("primitive_create", description)
        scratch = Layout.chosen(description, Query.SCRATCHPAD)
        self.scratch_size = scratch.size
        if scratch.size:
            arguments = [*arguments, (Argument.SCRATCHPAD, scratch)]
        self._layouts = [layout for _, layout in arguments]
        for layout in self._layouts:
            self._memories.append(library.make("memory_create", layout.handle, engine(), None))
        self._count = len(arguments)
        self._arguments = (dnn.ExecutionArgument * self._count)(
            *[
                dnn.ExecutionArgument(int(argument), memory)
                for (argument, _), memory in zip(arguments, self._memories, strict=True)
            ]
        )

    @property
    def description(self) -> int:
        """The handle of the description, a hint for that of the backward pass."""
        return self._description

    @property
    def implementation(self) -> str:
        """The name of the implementation that oneDNN has chosen."""
        return dnn.implementation(dnn.find(), self._description)

    def run(self, *arrays: Array) -> None:
        """Computes, on arrays in the order of the arguments."""
        library = dnn.find()
        place = library.memory_set_data_handle
        for memory, array in zip(self._memories, arrays):  # noqa: B905 - the scratchpad is one more
            place(memory, address_of(array))
        if self.scratch_size:
            place(self._memories[-1], scratchpad(self.scratch_size))
        library.primitive_execute(self._handle, stream(), self._count, self._arguments)

    def __del__(self) -> None:
        library = dnn.find()
        for memory in self._memories:
            library.memory_destroy(memory)
        if self._handle:
            library.primitive_destroy(self._handle)
        library.primitive_desc_destroy(self._description)


def describe(kind: str, *arguments: object) -> int | None:
    """The handle of a description, made by `dnnl_<kind>_primitive_desc_create`; the first of `arguments` is the engine.

    None where oneDNN has nothing for it on this CPU, or only its plain loops, which numpy is faster than.
    """
    library = dnn.find()
    try:
        description = library.make(f"{kind}_primitive_desc_create", engine(), *arguments)
    except dnn.UnimplementedError:
        return None
    if dnn.implementation(library, description).startswith("ref"):
        library.primitive_desc_destroy(description)
        return None
    return description


@cache
def _engine() -> int:
    library = dnn.find()
    os.register_at_fork(before=library.end_threads)
    return library.make("engine_create", dnn.CPU, 0)


def engine() -> int:
    """oneDNN's handle of the CPU: one, for what belongs to different ones cannot be executed together."""
    with _making:
        return _engine()


_making = threading.Lock()


class Attributes:
    """Settings of a primitive.

    Args:
        handle: of a `dnnl_primitive_attr`; owned from now on.
    """

    __slots__ = ("handle",)

    def __init__(self, handle: int) -> None:
        self.handle = handle

    def __del__(self) -> None:
        dnn.find().primitive_attr_destroy(self.handle)


@cache
def attributes() -> int:
    """The settings of all primitives without post-ops: scratch memory is ours."""
    handle = dnn.find().make("primitive_attr_create")
    dnn.find().primitive_attr_set_scratchpad_mode(handle, dnn.USER_SCRATCHPAD)
    return handle


def with_post_ops(*algorithms: int, operand: Layout) -> Attributes:
    """`attributes`, and steps of arithmetic that follow the primitive, each with an operand of this layout."""
    library = dnn.find()
    steps, handle = library.make("post_ops_create"), library.make("primitive_attr_create")
    try:
        for algorithm in algorithms:
            library.post_ops_append_binary(steps, algorithm, operand.handle)
        library.primitive_attr_set_scratchpad_mode(handle, dnn.USER_SCRATCHPAD)
        library.primitive_attr_set_post_ops(handle, steps)
    finally:
        library.post_ops_destroy(steps)
    return Attributes(handle)


# ---- What a thread has of its own: memories are bound to arrays for one execution at a time ----


class Stream:
    """Where primitives are executed.

    Args:
        handle: of a `dnnl_stream`; owned from now on.
    """

    __slots__ = ("handle",)

    def __init__(self, handle: int) -> None:
        self.handle = handle

    def __del__(self) -> None:
        dnn.find().stream_destroy(self.handle)


class _Local(threading.local):
    """A thread's stream, scratch memory and primitives."""

    def __init__(self) -> None:
        self.stream = Stream(dnn.find().make("stream_create", engine(), 1))
        self.scratch = np.empty(0, np.uint8)
        self.between = [np.empty(0, np.uint8)] * 2
        self.kept: OrderedDict[Hashable, Any] = OrderedDict()
        self.num_threads: int | None = None
        self.choices = 0

    def follow(self) -> None:
        """Computes with as many threads as are chosen now; a primitive has the number of when it was made."""
        self.choices, number = threads.choices, threads.follow()
        if number != self.num_threads:
            self.num_threads = number
            self.kept.clear()


@cache
def _local() -> _Local:
    return _Local()


def stream() -> int:
    """The handle of the thread's stream; what is executed on it is done when the call returns."""
    return _local().stream.handle


def scratchpad(size: int) -> int:
    """The address of memory for one execution: all primitives of a thread take turns with it."""
    local = _local()
    if local.scratch.size < size:
        local.scratch = aligned(size)
    return address_of(local.scratch)


def between(size: int, slot: int = 0) -> Array:
    """Bytes to pass from one primitive to the next, until this is asked for again: always the same, so warm."""
    buffers = _local().between
    if buffers[slot].size < size:
        buffers[slot] = aligned(size)
    return buffers[slot][:size]


def kept(key: Hashable, make: Callable[[], _T]) -> _T:
    """What `make` has made for this key, in this thread; those used longest ago are let go."""
    local = _local()
    if local.choices != threads.choices:
        local.follow()
    cached = local.kept
    try:
        found: _T = cached[key]
        cached.move_to_end(key)
    except KeyError:
        found = cached[key] = make()
        if len(cached) > KEPT:
            cached.popitem(last=False)
    return found
