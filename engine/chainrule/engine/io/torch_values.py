"""What the pickle of a PyTorch file may name, and what becomes of it: arrays, and plain values.

A tensor is (storage, offset, size, stride). Each is compared with the storage's bytes before an array is made of it:

    offset + Σᵢ (sizeᵢ − 1)·strideᵢ < elements of the storage

Tensors of one storage share its memory. An expanded tensor (one element shown several times) is a read-only view, and
all of a file's together show no more bytes than the file has.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeGuard, cast

import ml_dtypes
import numpy as np

from chainrule.engine.dtypes import Array, DType
from chainrule.engine.errors import FormatError
from chainrule.engine.io.pickle_machine import REMEDY, Class, Function, Names, Refused, describe

bfloat16: DType = np.dtype(ml_dtypes.bfloat16)

MAX_DEPTH = 100
_MAX_DIMENSIONS = 64  # numpy's
_MAX_BYTES = 1 << 62
_MAX_KEY = 255

Fetch = Callable[[str, DType, int], Array]
"""The bytes (uint8) of the storage of this key, with so many elements of this dtype."""


@dataclass(frozen=True)
class StorageType:
    """A storage class of PyTorch's, by its elements; of an untyped one the elements are bytes."""

    dtype: DType
    typed: bool = True


@dataclass(frozen=True)
class TensorType:
    """torch.Tensor, as the type of a tensor with attributes."""


@dataclass(frozen=True, eq=False)
class Storage:
    """A storage that the pickle has named."""

    type: StorageType
    content: Array
    """The bytes, (nbytes,) of uint8."""

    @property
    def count(self) -> int:
        return self.content.nbytes // self.type.dtype.itemsize


class Values:
    """Turns the persistent ids, names and states of one file's pickle into arrays and plain values.

    Args:
        fetch: where storages come from.
        spare_bytes: how many bytes expanded tensors may show, and copied values have, together.
        byte_swapped: the storages come with the other byte order than this machine's.
    """

    def __init__(self, fetch: Fetch, *, spare_bytes: int, byte_swapped: bool = False) -> None:
        self._fetch = fetch
        self._spare_bytes = spare_bytes
        self._byte_swapped = byte_swapped
        self._storages: dict[str, Storage] = {}
        rebuilt = {
            "_rebuild_tensor": self._tensor,
            "_rebuild_tensor_v2": self._tensor_v2,
            "_rebuild_tensor_v3": self._tensor_v3,
            "_rebuild_parameter": self._parameter,
            "_rebuild_parameter_with_state": self._parameter,
        }
        functions = {name: Function(f"torch._utils.{name}", call) for name, call in rebuilt.items()}
        self._rebuilders = frozenset(functions.values())
        self.names: Names = {
            **_names,
            **{("torch._utils", name): function for name, function in functions.items()},
            ("_codecs", "encode"): Function("_codecs.encode", self._encoded),
            ("collections", "Counter"): Function("collections.Counter", self._counter),
            ("torch.nn.parameter", "Parameter"): Class("torch.nn.parameter.Parameter", self._parameter),
            ("torch._tensor", "_rebuild_from_type_v2"): Function(
                "torch._tensor._rebuild_from_type_v2", self._from_type
            ),
        }

    def storage(self, identity: object) -> Storage:
        """The storage that a persistent id ("storage", type, key, location, count[, view]) means."""
        match identity:
            case (str("storage"), kind, key, location, count, *views) if isinstance(identity, tuple) and len(views) < 2:
                pass
            case _:
                raise FormatError(f"the pickle has a persistent id that is no storage: {describe(identity)}; {REMEDY}")
        if any(view is not None for view in views):
            raise FormatError("a storage that is part of another (PyTorch before 0.4); load and save it with PyTorch")
        if not isinstance(kind, StorageType):
            raise FormatError(f"a storage has the type {describe(kind)}; {REMEDY}")
        if type(key) is not str or len(key) > _MAX_KEY or type(location) is not str or not _is_size(count):
            raise FormatError(
                f"a storage has key {describe(key)}, location {describe(location)}, size {describe(count)}; "
                "two short strings and a number are wanted"
            )
        if location.partition(":")[0] == "meta":
            raise FormatError(f"storage {key!r} is on device 'meta' and has no data; save a model that has")
        known = self._storages.get(key)
        if known is None:
            if self._byte_swapped and not kind.typed:
                raise FormatError(
                    f"storage {key!r} is untyped and of the other byte order; save it on this machine's kind"
                )
            known = self._storages[key] = Storage(kind, self._fetch(key, kind.dtype, count))
        if known.type != kind or known.count != count:
            raise FormatError(
                f"storage {key!r} is told to be {count} of {kind.dtype} and {known.count} of {known.type.dtype}"
            )
        return known

    def build(self, target: object, state: object) -> None:
        """Gives a state dict its `_metadata`; a Parameter of before PyTorch 0.4 has flags and hooks."""
        match state:
            case {"_metadata": dict() as metadata, **others} if not others and type(target) is OrderedDict:
                vars(target)["_metadata"] = metadata  # where PyTorch has it too
            case (bool(), bool(), hooks) if isinstance(target, np.ndarray):
                _check_plain(hooks)
            case _:
                raise FormatError(f"the pickle gives {describe(target)} a state, which is not read; {REMEDY}")

    # -- tensors ----------------------------------------------------------------------------------------------------

    def _tensor(self, arguments: tuple[object, ...]) -> Array:
        """(storage, offset, size, stride)."""
        if len(arguments) != 4:
            raise FormatError(f"a tensor is made of {len(arguments)} things; 4 are wanted")
        storage, offset, size, stride = arguments
        if not isinstance(storage, Storage) or not storage.type.typed:
            raise FormatError(f"a tensor without dtype is made of {describe(storage)}; a typed storage is wanted")
        return self._view(storage, storage.type.dtype, offset, size, stride)

    def _tensor_v2(self, arguments: tuple[object, ...]) -> Array:
        """(storage, offset, size, stride, requires_grad, hooks[, metadata])."""
        if len(arguments) not in (6, 7):
            raise FormatError(f"a tensor is made of {len(arguments)} things; 6 or 7 are wanted")
        _check_plain(arguments[5], *arguments[6:])
        return self._tensor(arguments[:4])

    def _tensor_v3(self, arguments: tuple[object, ...]) -> Array:
        """(storage, offset, size, stride, requires_grad, hooks, dtype[, metadata])."""
        if len(arguments) not in (7, 8):
            raise FormatError(f"a tensor is made of {len(arguments)} things; 7 or 8 are wanted")
        _check_plain(arguments[5], *arguments[7:])
        storage, offset, size, stride = arguments[:4]
        dtype = arguments[6]
        if not isinstance(storage, Storage) or storage.type.typed or not isinstance(dtype, np.dtype):
            raise FormatError(f"a tensor of dtype {describe(dtype)} is made of {describe(storage)}; bytes are wanted")
        return self._view(storage, dtype, offset, size, stride)

    def _parameter(self, arguments: tuple[object, ...]) -> Array:
        """(array[, requires_grad[, hooks[, state]]]): the array."""
        if not 1 <= len(arguments) <= 4 or not isinstance(arguments[0], np.ndarray):
            raise FormatError(f"a parameter is made of {', '.join(map(describe, arguments[:4]))}; a tensor is wanted")
        _check_plain(*arguments[2:3])
        return arguments[0]

    def _from_type(self, arguments: tuple[object, ...]) -> object:
        """(function, type, its arguments, attributes): a tensor with attributes, which arrays do not have."""
        match arguments:
            case (Function() as function, TensorType(), tuple() as inner, _) if function in self._rebuilders:
                return function.call(inner)
        raise FormatError(
            f"a tensor of a class of its own is made of {', '.join(map(describe, arguments[:4]))}; {REMEDY}"
        )

    def _view(self, storage: Storage, dtype: DType, offset: object, size: object, stride: object) -> Array:
        sizes, strides = _sizes(size, "size"), _sizes(stride, "stride")
        if len(sizes) != len(strides) or not _is_size(offset):
            raise FormatError(f"a tensor has size {sizes}, stride {strides} and offset {describe(offset)}")
        held = storage.content.nbytes // dtype.itemsize
        told = f"a tensor of size {sizes}, stride {strides} and offset {offset} in a storage of {held} {dtype}"
        elements, bound = 1, dtype.itemsize
        for n in sizes:
            elements *= n
            bound *= max(n, 1)
        if bound > _MAX_BYTES:
            raise FormatError(f"{told} is too large")
        if elements == 0:
            return np.empty(sizes, dtype)
        span = 1 + sum((n - 1) * s for n, s in zip(sizes, strides, strict=True))
        if offset + span > held:
            raise FormatError(f"{told} ends at element {offset + span}, outside it")
        steps = tuple(dtype.itemsize * s if n > 1 else 0 for n, s in zip(sizes, strides, strict=True))
        view: Array = np.ndarray(sizes, dtype, storage.content.data, offset * dtype.itemsize, steps)
        if elements > span:
            self._spend(elements * dtype.itemsize, f"{told}, which is expanded; save it .contiguous()")
            view.flags.writeable = False
        return view

    # -- other values -----------------------------------------------------------------------------------------------

    def _encoded(self, arguments: tuple[object, ...]) -> bytes:
        """(text, "latin1"): bytes, as protocol 2 writes them."""
        match arguments:
            case (str() as text, str("latin1" | "latin-1")) if text.isascii() or max(text) < "\u0100":
                self._spend(len(text), "encoded text")
                return text.encode("latin-1")
        raise FormatError(f"bytes are made of {', '.join(map(describe, arguments[:4]))}")

    def _counter(self, arguments: tuple[object, ...]) -> Counter[object]:
        """(counts,): a Counter, which schedulers of learning rates have."""
        match arguments:
            case (dict() as counts,) if all(type(count) is int for count in counts.values()):
                self._spend(4 * len(counts), "a Counter")  # what its entries take in a pickle, at least
                return Counter(counts)
        raise FormatError(
            f"a Counter is made of {', '.join(map(describe, arguments[:4]))}; a dict of integers is wanted"
        )

    def _spend(self, count: int, what: str) -> None:
        """Counts bytes that are more than one step of a pickle would make."""
        self._spare_bytes -= count
        if self._spare_bytes < 0:
            raise FormatError(f"the pickle repeats itself far beyond the file's own size: {what}")


def check_structure(value: object, *, max_nodes: int) -> None:
    """Sees to it that a value is arrays, plain values and containers of them, and can be walked by recursion.

    Raises:
        FormatError: it holds something else, contains itself, is nested too deeply, or repeats parts until it is larger
            than `max_nodes` when walked as a tree.
    """
    measured: dict[int, tuple[int, int]] = {}  # depth and nodes of each container
    above: set[int] = set()
    stack = [value]
    while stack:
        x = stack[-1]
        if id(x) in measured or not _is_container(x):
            stack.pop()
            continue
        children = _children(x)
        inner = [child for child in children if _is_container(child)]
        if id(x) not in above:
            if any(id(child) in above or child is x for child in inner):
                raise FormatError("the pickle has a container that contains itself")
            above.add(id(x))
            stack.extend(child for child in inner if id(child) not in measured)
            continue
        depth = 1 + max((measured[id(child)][0] for child in inner), default=0)
        nodes = 1 + len(children) + sum(measured[id(child)][1] for child in inner)
        if depth > MAX_DEPTH:
            raise FormatError(f"the pickle's values are nested more than {MAX_DEPTH} deep")
        if nodes > max_nodes:
            raise FormatError("the pickle repeats its values within one another too often")
        measured[id(x)] = depth, nodes
        above.discard(id(x))


def _is_container(value: object) -> bool:
    """Whether it is one.

    Raises:
        FormatError: it is neither that nor a value that a result may have.
    """
    if isinstance(value, (dict, list, tuple)):
        return True
    if value is None or isinstance(value, (str, bytes, bool, int, float, np.ndarray, np.dtype)):
        return False
    raise FormatError(f"the pickle has {describe(value)} among its values; {REMEDY}")


def _children(value: object) -> list[object]:
    if isinstance(value, OrderedDict):
        return [*value.values(), *vars(value).values()]
    return [*value.values()] if isinstance(value, dict) else [*cast("list[object]", value)]


def _is_size(value: object) -> TypeGuard[int]:
    return type(value) is int and 0 <= value < _MAX_BYTES


def _sizes(value: object, what: str) -> tuple[int, ...]:
    if type(value) is not tuple or len(value) > _MAX_DIMENSIONS or not all(_is_size(n) for n in value):
        shown = f"({', '.join(map(describe, value[:8]))})" if isinstance(value, tuple) else describe(value)
        raise FormatError(
            f"a tensor has the {what} {shown}; up to {_MAX_DIMENSIONS} numbers, none negative, are wanted"
        )
    return value


def _check_plain(hooks: object = None, metadata: object = None) -> None:
    """Hooks are code; metadata says that the numbers have to be conjugated or negated first."""
    if hooks is not None and (not isinstance(hooks, dict) or len(hooks)):
        raise FormatError(f"a tensor has hooks, which are not read; {REMEDY}")
    few = isinstance(metadata, dict) and len(metadata) <= 8 and all(value is False for value in metadata.values())
    if metadata is None or few:
        return
    raise FormatError("a tensor is a conjugated or negated view; save it with .resolve_conj().resolve_neg()")


# -- names -------------------------------------------------------------------------------------------------------------


def _ordered_dict(arguments: tuple[object, ...]) -> OrderedDict[object, object]:
    if arguments:
        raise FormatError("an OrderedDict is made of arguments; torch.save makes it empty and fills it")
    return OrderedDict()


def _size(arguments: tuple[object, ...]) -> tuple[int, ...]:
    if len(arguments) != 1:
        raise FormatError(f"a torch.Size is made of {len(arguments)} things; 1 is wanted")
    return _sizes(arguments[0], "size")


def _device(arguments: tuple[object, ...]) -> str:
    match arguments:
        case (str() as kind,) if len(kind) < 64:
            return kind
        case (str() as kind, int() as index) if len(kind) < 64:
            return f"{kind}:{index}"
    raise FormatError(f"a torch.device is made of {', '.join(map(describe, arguments[:4]))}")


_dtypes: dict[str, DType] = {
    name: bfloat16 if name == "bfloat16" else np.dtype(name)
    for name in (
        "bfloat16 bool float16 float32 float64 int8 int16 int32 int64 uint8 uint16 uint32 uint64".split()  # noqa: SIM905
    )
}
_storage_types = {
    "BFloat16Storage": StorageType(bfloat16),
    "BoolStorage": StorageType(np.dtype(bool)),
    "ByteStorage": StorageType(np.dtype(np.uint8)),
    "CharStorage": StorageType(np.dtype(np.int8)),
    "DoubleStorage": StorageType(np.dtype(np.float64)),
    "FloatStorage": StorageType(np.dtype(np.float32)),
    "HalfStorage": StorageType(np.dtype(np.float16)),
    "IntStorage": StorageType(np.dtype(np.int32)),
    "LongStorage": StorageType(np.dtype(np.int64)),
    "ShortStorage": StorageType(np.dtype(np.int16)),
}
_plain_functions = {
    ("collections", "OrderedDict"): _ordered_dict,
    ("torch", "Size"): _size,
    ("torch", "device"): _device,
}
_sparse = "a sparse tensor, which has no array; save it .to_dense()"
_quantized = "a quantized tensor, which has no array; save it .dequantize()"
_complex = "a complex tensor, whose dtype chainrule does not have; save torch.view_as_real of it"
_numpy = "a numpy value; save it as a tensor or as a number"
_refused = {
    ("numpy._core.multiarray", "_reconstruct"): _numpy,
    ("numpy._core.multiarray", "scalar"): _numpy,
    ("numpy.core.multiarray", "_reconstruct"): _numpy,
    ("numpy.core.multiarray", "scalar"): _numpy,
    ("torch", "ComplexDoubleStorage"): _complex,
    ("torch", "ComplexFloatStorage"): _complex,
    ("torch", "complex64"): _complex,
    ("torch", "complex128"): _complex,
    ("torch._utils", "_rebuild_meta_tensor_no_storage"): "a tensor on device 'meta', which has no data",
    ("torch._utils", "_rebuild_nested_tensor"): "a nested tensor, which has no array; save its .unbind()",
    ("torch._utils", "_rebuild_qtensor"): _quantized,
    ("torch._utils", "_rebuild_sparse_tensor"): _sparse,
}
_names: dict[tuple[str, str], object] = {
    ("torch", "Tensor"): TensorType(),
    ("torch.storage", "UntypedStorage"): StorageType(np.dtype(np.uint8), typed=False),
    **{name: Refused(reason) for name, reason in _refused.items()},
    **{("torch", name): dtype for name, dtype in _dtypes.items()},
    **{("torch", name): kind for name, kind in _storage_types.items()},
    **{("torch.cuda", name): kind for name, kind in _storage_types.items()},
    **{name: Function(".".join(name), call) for name, call in _plain_functions.items()},
}
