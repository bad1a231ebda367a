"""oneDNN's C library: where it is found, which versions will do, and the functions that are called.

Names, numbers and signatures are those of oneDNN's `dnnl.h` and `dnnl_types.h`, version 3.
"""

from __future__ import annotations

import ctypes
import importlib.metadata
import os
import sys
from collections.abc import Iterator
from ctypes import POINTER, c_char_p, c_float, c_int, c_int64, c_size_t, c_uint, c_void_p
from enum import IntEnum
from functools import cache
from pathlib import Path

from chainrule.engine.errors import ChainruleError

NAME = "libdnnl.so.3"
DISTRIBUTION = "onednn-cpu-gomp"
OLDEST = (3, 2)
"""The first version with all that is called here."""


class LibraryError(ChainruleError, RuntimeError):
    """The library is not there, is too old, or refused a call."""


class UnimplementedError(LibraryError):
    """The library has nothing for such arguments on this CPU."""


# ---- Numbers ----


class Argument(IntEnum):
    """What a memory is to a primitive."""

    SRC = 1
    SRC_1 = 2
    DST = 17
    WEIGHTS = 33
    BIAS = 41
    MEAN = 49
    VARIANCE = 50
    SCALE = 51
    SHIFT = 52
    WORKSPACE = 64
    SCRATCHPAD = 80
    DIFF_SRC = 129
    DIFF_DST = 145
    DIFF_WEIGHTS = 161
    DIFF_SCALE = 255
    DIFF_SHIFT = 256
    POST_OP_0 = 32768 | 2
    """The second operand of the first post-op."""
    POST_OP_1 = 65536 | 2


class Query(IntEnum):
    """What can be asked of a primitive's description."""

    IMPLEMENTATION = 8
    WEIGHTS = 131
    DIFF_WEIGHTS = 132
    WORKSPACE = 135
    SCRATCHPAD = 136


FORWARD_TRAINING, BACKWARD = 64, 128
CONVOLUTION_DIRECT = 1
GELU_TANH, GELU_ERF = 0x2B, 0x31
POOLING_MAX, POOLING_AVERAGE_PADDED, POOLING_AVERAGE_INSIDE = 0x1FF, 0x2FF, 0x3FF
ADD, MULTIPLY = 0x1FFF0, 0x1FFF1
SOFTMAX, LOG_SOFTMAX = 0x30000, 0x30001
GIVEN_STATISTICS, WITH_SCALE, WITH_SHIFT, WITH_RELU = 1, 2, 4, 8  # flags of a normalisation
ANY_FORMAT = 1
CPU = 1
USER_SCRATCHPAD = 1
PAUSE_HARD = 2  # of omp.h
INSTRUCTION_SETS = {
    0x0: "default", 0x1: "sse41", 0x3: "avx", 0x7: "avx2", 0xF: "avx2_vnni", 0x1F: "avx2_vnni_2", 0x27: "avx512_core",
    0x67: "avx512_core_vnni", 0xE7: "avx512_core_bf16", 0x1EF: "avx512_core_fp16", 0xFEF: "avx512_core_amx",
    0x1FEF: "avx512_core_amx_fp16", 0x201FF: "avx10_2_512", 0x22FFF: "avx10_2_512_amx_2",
}  # fmt: skip
PREFERS_YMM = 1
LESS_PRECISE = {1: "bf16", 2: "f16", 3: "any", 4: "tf32"}  # as what float32 may be computed

Dims = c_int64 * 12


class ExecutionArgument(ctypes.Structure):
    """One argument of `dnnl_primitive_execute`."""

    _fields_ = (("argument", c_int), ("memory", c_void_p))


# ---- Signatures ----

_out = POINTER(c_void_p)
_windows = (POINTER(c_int64),) * 4  # strides, dilations, padding before and behind
_signatures: dict[str, tuple[object, ...]] = {
    "dnnl_engine_create": (_out, c_int, c_size_t),
    "dnnl_stream_create": (_out, c_void_p, c_uint),
    "dnnl_primitive_attr_create": (_out,),
    "dnnl_primitive_attr_destroy": (c_void_p,),
    "dnnl_primitive_attr_set_scratchpad_mode": (c_void_p, c_int),
    "dnnl_primitive_attr_set_post_ops": (c_void_p, c_void_p),
    "dnnl_post_ops_create": (_out,),
    "dnnl_post_ops_destroy": (c_void_p,),
    "dnnl_post_ops_append_binary": (c_void_p, c_int, c_void_p),
    "dnnl_memory_desc_create_with_strides": (_out, c_int, POINTER(c_int64), c_int, POINTER(c_int64)),
    "dnnl_memory_desc_create_with_tag": (_out, c_int, POINTER(c_int64), c_int, c_int),
    "dnnl_memory_desc_clone": (_out, c_void_p),
    "dnnl_memory_desc_destroy": (c_void_p,),
    "dnnl_memory_create": (_out, c_void_p, c_void_p, c_void_p),
    "dnnl_memory_set_data_handle": (c_void_p, c_void_p),
    "dnnl_memory_destroy": (c_void_p,),
    "dnnl_primitive_desc_query": (c_void_p, c_int, c_int, c_void_p),
    "dnnl_primitive_desc_destroy": (c_void_p,),
    "dnnl_primitive_create": (_out, c_void_p),
    "dnnl_primitive_destroy": (c_void_p,),
    "dnnl_primitive_execute": (c_void_p, c_void_p, c_int, POINTER(ExecutionArgument)),
    "dnnl_stream_destroy": (c_void_p,),
    "dnnl_get_default_fpmath_mode": (POINTER(c_int),),
    # Descriptions of primitives; engine first, attributes last
    "dnnl_reorder_primitive_desc_create": (_out, *(c_void_p,) * 5),
    "dnnl_convolution_forward_primitive_desc_create": (
        _out, c_void_p, c_int, c_int, *(c_void_p,) * 4, *_windows, c_void_p,
    ),
    "dnnl_convolution_backward_data_primitive_desc_create": (
        _out, c_void_p, c_int, *(c_void_p,) * 3, *_windows, c_void_p, c_void_p,
    ),
    "dnnl_convolution_backward_weights_primitive_desc_create": (
        _out, c_void_p, c_int, *(c_void_p,) * 4, *_windows, c_void_p, c_void_p,
    ),
    "dnnl_batch_normalization_forward_primitive_desc_create": (
        _out, c_void_p, c_int, c_void_p, c_void_p, c_float, c_uint, c_void_p,
    ),
    "dnnl_batch_normalization_backward_primitive_desc_create": (
        _out, c_void_p, c_int, *(c_void_p,) * 3, c_float, c_uint, c_void_p, c_void_p,
    ),
    "dnnl_layer_normalization_forward_primitive_desc_create": (
        _out, c_void_p, c_int, *(c_void_p,) * 3, c_float, c_uint, c_void_p,
    ),
    "dnnl_layer_normalization_backward_primitive_desc_create": (
        _out, c_void_p, c_int, *(c_void_p,) * 4, c_float, c_uint, c_void_p, c_void_p,
    ),
    "dnnl_pooling_forward_primitive_desc_create": (
        _out, c_void_p, c_int, c_int, c_void_p, c_void_p, *(POINTER(c_int64),) * 5, c_void_p,
    ),
    "dnnl_pooling_backward_primitive_desc_create": (
        _out, c_void_p, c_int, c_void_p, c_void_p, *(POINTER(c_int64),) * 5, c_void_p, c_void_p,
    ),
    "dnnl_eltwise_forward_primitive_desc_create": (
        _out, c_void_p, c_int, c_int, c_void_p, c_void_p, c_float, c_float, c_void_p,
    ),
    "dnnl_eltwise_backward_primitive_desc_create": (
        _out, c_void_p, c_int, *(c_void_p,) * 3, c_float, c_float, c_void_p, c_void_p,
    ),
    "dnnl_softmax_forward_primitive_desc_create": (_out, c_void_p, c_int, c_int, c_void_p, c_void_p, c_int, c_void_p),
    "dnnl_softmax_backward_primitive_desc_create": (
        _out, c_void_p, c_int, *(c_void_p,) * 3, c_int, c_void_p, c_void_p,
    ),
    "dnnl_binary_primitive_desc_create": (_out, c_void_p, c_int, *(c_void_p,) * 4),
    "dnnl_matmul_primitive_desc_create": (_out, c_void_p, *(c_void_p,) * 5),
}  # fmt: skip
_answers: tuple[tuple[str, tuple[object, ...], object], ...] = (
    ("dnnl_memory_desc_get_size", (c_void_p,), c_size_t),
    ("dnnl_memory_desc_equal", (c_void_p, c_void_p), c_int),
    ("dnnl_primitive_desc_query_md", (c_void_p, c_int, c_int), c_void_p),
    ("dnnl_get_effective_cpu_isa", (), c_int),
    ("dnnl_get_cpu_isa_hints", (), c_int),
)
"""Functions that give what they find, rather than whether they succeeded."""
_statuses = ("success", "out of memory", "invalid arguments", "unimplemented", "last implementation reached",
             "runtime error", "not required")  # fmt: skip
_absent = ("unimplemented", "last implementation reached")


class Library:
    """The functions, each raising LibraryError where oneDNN reports a failure.

    Args:
        path: a file, or a name for the dynamic linker to find.

    Raises:
        LibraryError: it cannot be loaded, or its version will not do.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        try:
            self._handle = ctypes.CDLL(path)
        except OSError as error:
            raise LibraryError(f"{path} cannot be loaded: {error}") from error
        self.version = self._version()
        if not OLDEST <= self.version[:2] < (4, 0):
            raise LibraryError(
                f"{path} is oneDNN {self.version_text}; version {OLDEST[0]}.{OLDEST[1]} or newer, below 4, is needed"
            )
        for name, arguments in _signatures.items():
            function = getattr(self._handle, name)
            function.argtypes = arguments
            function.restype = c_int
            function.errcheck = _check
        for name, arguments, result in _answers:
            function = getattr(self._handle, name)
            function.argtypes, function.restype = arguments, result

    def __getattr__(self, name: str) -> ctypes._NamedFuncPointer:
        function: ctypes._NamedFuncPointer = getattr(self._handle, f"dnnl_{name}")
        setattr(self, name, function)  # found at once from now on
        return function

    def make(self, name: str, *arguments: object) -> int:
        """Calls a function whose first argument is where to put the handle that it makes; gives the handle."""
        handle = c_void_p()
        getattr(self, name)(ctypes.byref(handle), *arguments)
        assert handle.value is not None
        return handle.value

    def end_threads(self) -> None:
        """Ends those that OpenMP keeps for this thread: a forked process would wait for them, though it has none."""
        pause = getattr(self._handle, "omp_pause_resource_all", None)  # of OpenMP 5, which oneDNN is linked with
        if pause is not None:
            pause(PAUSE_HARD)

    @property
    def version_text(self) -> str:
        """The version: `3.2.0`."""
        return ".".join(map(str, self.version))

    @property
    def instruction_set(self) -> str:
        """What it computes with, `avx512_core` say: what the CPU has, less what the environment forbids.

        After that, `prefer_ymm` where it keeps to half the width of a vector, and `fpmath_bf16` or the like where it
        may compute float32 in less precision.
        """
        code = self.get_effective_cpu_isa()
        words = [INSTRUCTION_SETS.get(code, f"{code:#x}")]
        if self.get_cpu_isa_hints() & PREFERS_YMM:
            words.append("prefer_ymm")
        mode = c_int()
        self.get_default_fpmath_mode(ctypes.byref(mode))
        if mode.value:
            words.append(f"fpmath_{LESS_PRECISE.get(mode.value, mode.value)}")
        return " ".join(words)

    def _version(self) -> tuple[int, int, int]:
        try:
            version = self._handle.dnnl_version
        except AttributeError:
            raise LibraryError(f"{self.path} is not oneDNN: it has no dnnl_version") from None
        version.restype = POINTER(_Version)
        found = version().contents
        if found.cpu_runtime not in _RUNTIMES:
            raise LibraryError(
                f"{self.path} is built for other threads than OpenMP's (CPU runtime {found.cpu_runtime}), which would "
                f"not heed set_num_threads; install {DISTRIBUTION}"
            )
        return found.major, found.minor, found.patch


class _Version(ctypes.Structure):
    _fields_ = (
        ("major", c_int),
        ("minor", c_int),
        ("patch", c_int),
        ("hash", c_char_p),
        ("cpu_runtime", c_uint),
        ("gpu_runtime", c_uint),
    )


_RUNTIMES = (1, 2)
"""One thread, or OpenMP."""


def _check(status: int, function: ctypes._NamedFuncPointer, arguments: tuple[object, ...]) -> int:  # noqa: ARG001
    if status:
        what = _statuses[status] if status < len(_statuses) else f"status {status}"
        kind = UnimplementedError if what in _absent else LibraryError
        raise kind(f"oneDNN: {function.__name__}: {what}")
    return status


# ---- Where it is ----


@cache
def find() -> Library:
    """The library that `CHAINRULE_ONEDNN` names; else the first that will do, of this environment or of the system.

    Raises:
        LibraryError: there is none; the message says what was tried.
    """
    refused = []
    for path in _candidates():
        try:
            return Library(path)
        except LibraryError as error:
            refused.append(str(error))
    raise LibraryError("; ".join(refused))


def _candidates() -> Iterator[str]:
    chosen = os.environ.get("CHAINRULE_ONEDNN")
    if chosen:
        yield chosen
        return
    seen = set()
    for path in (*_of_distribution(), Path(sys.prefix, "lib", NAME)):
        if path.is_file() and path.resolve() not in seen:
            seen.add(path.resolve())
            yield str(path)
    yield NAME


def _of_distribution() -> Iterator[Path]:
    """Where pip has put it, which is not in the environment's own folder for an installation by user or target."""
    try:
        files = importlib.metadata.files(DISTRIBUTION)
    except importlib.metadata.PackageNotFoundError:
        return
    for file in files or ():
        if file.name == NAME:
            yield Path(str(file.locate()))


def implementation(library: Library, description: int) -> str:
    """The name of what oneDNN has chosen for a description, `brgconv:avx512_core` say."""
    name = c_char_p()
    library.primitive_desc_query(description, Query.IMPLEMENTATION, 0, ctypes.byref(name))
    return (name.value or b"").decode()
