"""Operations that move elements: shapes, parts, indices, joining, repeating."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from chainrule.engine.autograd.variable import Variable
from chainrule.engine.dtypes import int32, int64
from chainrule.engine.graph.errors import GraphError
from chainrule.engine.graph.symbols import Batch, Size
from chainrule.engine.graph.tracing import Call, Value
from chainrule.engine.graph.translations import local
from chainrule.engine.graph.translations.registry import exports, exports_whole
from chainrule.engine.ops import broadcasting, padding, scan, shape

if TYPE_CHECKING:
    from chainrule.engine.graph.emitting import Emitter

# ---- Shapes ----


@exports(shape.reshape)
def reshape(g: Emitter, call: Call) -> None:
    """The elements, row by row, in another shape."""
    x, y = call.arguments["x"], call.outputs[0]
    g.node("Reshape", x, wanted_shape(g, x.shape, y.shape), out=call.outputs)


def wanted_shape(g: Emitter, given: Sequence[Size], wanted: Sequence[Size]) -> str:
    """A shape for Reshape: what has the batch in it is 0, as long as in what is given, or -1, what is left."""
    sizes: list[Size] = []
    for axis, n in enumerate(wanted):
        if isinstance(n, Batch) and axis < len(given) and given[axis] == n:
            sizes.append(0)
        elif isinstance(n, Batch) and -1 not in sizes:
            sizes.append(-1)
        else:
            sizes.append(n)
    if any(n == 0 and not isinstance(wanted[axis], Batch) for axis, n in enumerate(sizes)):
        raise GraphError(f"a tensor without elements cannot be exported: shape {list(map(str, wanted))}")
    return g.ints(sizes)


@exports(shape.squeeze)
def squeeze(g: Emitter, call: Call) -> None:
    """Without some of the dimensions of length one."""
    x, y = call.arguments["x"], call.outputs[0]
    axes = _ones_between(x.shape, y.shape)
    if axes:
        g.node("Squeeze", x, g.ints(axes), out=call.outputs)
    else:
        g.alias(y, g.name(x))


@exports(shape.unsqueeze)
def unsqueeze(g: Emitter, call: Call) -> None:
    """With a new dimension of length one."""
    x, y = call.arguments["x"], call.outputs[0]
    g.node("Unsqueeze", x, g.ints(_ones_between(y.shape, x.shape)), out=call.outputs)


def _ones_between(longer: Sequence[Size], shorter: Sequence[Size]) -> list[int]:
    """Which dimensions of the longer shape, of length one, the shorter does not have."""
    extra, at = len(longer) - len(shorter), 0
    axes: list[int] = []
    for axis, n in enumerate(longer):
        if n == 1 and len(axes) < extra and (at >= len(shorter) or shorter[at] != 1 or extra >= len(longer) - axis):
            axes.append(axis)
        else:
            at += 1
    return axes


@exports(shape.permute)
def permute(g: Emitter, call: Call) -> None:
    """The dimensions in another order."""
    g.node("Transpose", call.arguments["x"], out=call.outputs, perm=list(call.arguments["dims"]))


@exports(shape.transpose)
def transpose(g: Emitter, call: Call) -> None:
    """Two dimensions swapped."""
    x = call.arguments["x"]
    perm = list(range(len(x.shape)))
    i, j = call.arguments["dim0"], call.arguments["dim1"]
    perm[i], perm[j] = perm[j], perm[i]
    g.node("Transpose", x, out=call.outputs, perm=perm)


@exports(shape.contiguous)
def contiguous(g: Emitter, call: Call) -> None:
    """A copy in another order of memory."""
    last = int(call.arguments["channels_last"])
    g.local(local.contiguous, call.arguments["x"], out=call.outputs, channels_last=last)


@exports(shape.copied)
def copied(g: Emitter, call: Call) -> None:
    """Values, broadcast to the shape of the tensor that they are written to."""
    v, y = call.arguments["v"], call.outputs[0]
    if isinstance(v, Value) and v.shape == y.shape:
        g.alias(y, g.name(v))
    else:
        g.node("Expand", g.name(v, y.dtype), g.ints(y.shape), out=call.outputs)


@exports(broadcasting.expand)
def expand(g: Emitter, call: Call) -> None:
    """Repeated along dimensions of length one and new ones."""
    x, y = call.arguments["x"], call.outputs[0]
    if x.shape == y.shape:
        g.alias(y, g.name(x))
    else:
        g.node("Expand", x, g.ints(y.shape), out=call.outputs)


@exports(broadcasting.sum_to)
def sum_to(g: Emitter, call: Call) -> None:
    """The reverse of expand."""
    x, y = call.arguments["x"], call.outputs[0]
    extra = len(x.shape) - len(y.shape)
    axes = [axis for axis in range(len(x.shape)) if axis < extra or (y.shape[axis - extra] != x.shape[axis])]
    total = g.node("ReduceSum", x, g.ints(axes), keepdims=1) if axes else x
    if extra:
        g.node("Squeeze", total, g.ints(range(extra)), out=call.outputs)
    else:
        g.alias(y, g.name(total))


# ---- Turning, rolling, repeating ----


@exports(shape.flip)
def flip(g: Emitter, call: Call) -> None:
    """In reverse order."""
    x = call.arguments["x"]
    axes = [axis % len(x.shape) for axis in call.arguments["dims"]]
    if not axes:
        g.alias(call.outputs[0], g.name(x))
        return
    count = len(axes)
    starts, ends, steps = g.ints([-1] * count), g.ints([-(2**63)] * count), g.ints([-1] * count)
    g.node("Slice", x, starts, ends, g.ints(axes), steps, out=call.outputs)


@exports(shape.roll)
def roll(g: Emitter, call: Call) -> None:
    """Moved on, and in again at the beginning."""
    x = call.arguments["x"]
    name = g.name(x)
    for shift, axis in zip(call.arguments["shifts"], call.arguments["dims"], strict=True):
        n = x.shape[axis]
        cut = -shift if isinstance(n, Batch) else -shift % max(n, 1)
        if cut:
            name = g.node("Concat", _slice(g, name, axis, cut, None), _slice(g, name, axis, None, cut), axis=axis)
    g.alias(call.outputs[0], name)


@exports(shape.repeat)
def repeat(g: Emitter, call: Call) -> None:
    """Side by side with itself."""
    x, repeats = call.arguments["x"], call.arguments["repeats"]
    extra = len(repeats) - len(x.shape)
    name = g.node("Unsqueeze", x, g.ints(range(extra))) if extra else g.name(x)
    g.node("Tile", name, g.ints(repeats), out=call.outputs)


@exports(shape.tril, shape.triu)
def triangle(g: Emitter, call: Call) -> None:
    """Zeros above a diagonal, or below."""
    k = np.asarray(call.arguments["diagonal"], np.int64)
    g.node("Trilu", call.arguments["x"], k, out=call.outputs, upper=int(call.key is shape.triu))


@exports(scan.cumsum)
def cumsum(g: Emitter, call: Call) -> None:
    """Running sums."""
    g.node("CumSum", call.arguments["x"], np.asarray(call.arguments["dim"], np.int64), out=call.outputs)


# ---- Parts ----


def _slice(g: Emitter, x: Any, axis: int, start: Size | None, stop: Size | None, out: Any = 1) -> Any:
    end = 2**63 - 1 if stop is None else stop
    return g.node("Slice", x, g.ints([start or 0]), g.ints([end]), g.ints([axis]), out=out)


@exports(shape.narrow, shape.split)
def narrow(g: Emitter, call: Call) -> None:
    """The part that begins at `start`."""
    x, start, length, dim = (call.arguments[name] for name in ("x", "start", "length", "dim"))
    _slice(g, x, dim, start, _sum(start, length), call.outputs)


def _sum(a: Size, b: Size) -> Size:
    if isinstance(a, Batch) and isinstance(b, Batch):
        return Batch(a.times + b.times)
    if isinstance(a, int) and isinstance(b, int):
        return a + b
    if a == 0:
        return b
    if b == 0:
        return a
    raise GraphError(f"a part that begins at {a} and is {b} long, N being the number of examples, cannot be exported")


@exports(shape.select, shape.slice_, shape.unbind)
def basic_index(g: Emitter, call: Call) -> None:
    """x[index] for integers, slices, None and `...`."""
    x, index = call.arguments["x"], call.arguments["index"]
    parts = list(index) if isinstance(index, tuple) else [index]
    consumed = sum(part is not None and part is not ... for part in parts)
    if ... in [part for part in parts if not isinstance(part, slice | Batch)]:
        where = next(i for i, part in enumerate(parts) if part is ...)
        parts[where : where + 1] = [slice(None)] * (len(x.shape) - consumed)
        parts = [part for part in parts if part is not ...]
    starts, ends, axes, steps, dropped, added = _bounds(parts)
    name = g.name(x)
    if axes:
        name = g.node("Slice", name, g.ints(starts), g.ints(ends), g.ints(axes), g.ints(steps))
    if dropped:
        name = g.node("Squeeze", name, g.ints(dropped))
    if added:
        name = g.node("Unsqueeze", name, g.ints(added))
    g.alias(call.outputs[0], name)


def _bounds(parts: Sequence[Any]) -> tuple[list[Any], ...]:
    """Starts, ends, axes and steps of a Slice, which dimensions then go, and which come."""
    starts: list[Any] = []
    ends: list[Any] = []
    axes: list[int] = []
    steps: list[int] = []
    dropped: list[int] = []
    added: list[int] = []
    axis = place = 0
    for part in parts:
        if part is None:
            added.append(place)
            place += 1
            continue
        if not isinstance(part, slice):
            starts.append(part)
            ends.append(2**63 - 1 if part == -1 else _sum(part, 1))
            dropped.append(axis)
            axes.append(axis)
            steps.append(1)
        else:
            if part != slice(None):
                step = part.step or 1
                starts.append((0 if step > 0 else -1) if part.start is None else part.start)
                ends.append((2**63 - 1 if step > 0 else -(2**63)) if part.stop is None else part.stop)
                axes.append(axis)
                steps.append(step)
            place += 1
        axis += 1
    return starts, ends, axes, steps, dropped, added


# ---- Elements that an index names ----


@exports(shape.take, shape.index_select)
def take(g: Emitter, call: Call) -> None:
    """x[index] for arrays of constants."""
    index = call.arguments["index"]
    parts = index if isinstance(index, tuple) else (index,)
    lead = next(i for i, part in enumerate(parts) if not isinstance(part, slice))
    chosen = parts[lead:]
    if any(isinstance(part, slice) for part in [*chosen]) or any(part != slice(None) for part in parts[:lead]):
        raise GraphError("an index with arrays on both sides of a slice cannot be exported; index one after the other")
    x = call.arguments["x"]
    if len(chosen) == 1:
        g.node("Gather", x, chosen[0], out=call.outputs, axis=lead)
        return
    if lead:
        raise GraphError("an index of several arrays behind a slice cannot be exported; bring those dimensions forward")
    places = np.stack(np.broadcast_arrays(*chosen), axis=-1)
    g.node("GatherND", x, places, out=call.outputs)


def _has_tensor(arguments: Mapping[str, Any]) -> bool:
    """Whether one tensor of integers is all there is to an index but whole dimensions before it."""
    index = arguments["index"]
    parts = index if isinstance(index, tuple) else (index,)
    *before, last = parts or (None,)
    whole = all(isinstance(part, slice) and part == slice(None) for part in before)
    chosen = isinstance(last, Variable) and last.data.dtype in (int32, int64) and last.data.ndim > 0
    return whole and chosen


@exports_whole("getitem", when=_has_tensor)
def getitem(g: Emitter, call: Call) -> None:
    """x[index] for a tensor of integers, perhaps behind whole dimensions."""
    index = call.arguments["index"]
    parts = index if isinstance(index, tuple) else (index,)
    g.node("Gather", call.arguments["input"], parts[-1], out=call.outputs, axis=len(parts) - 1)


@exports_whole("index_select", when=lambda given: given["input"].data.ndim > 0 and given["index"].data.ndim == 1)
def index_select(g: Emitter, call: Call) -> None:
    """The slices that a vector names."""
    x = call.arguments["input"]
    g.node("Gather", x, call.arguments["index"], out=call.outputs, axis=call.arguments["dim"] % len(x.shape))


@exports_whole("gather", when=lambda given: given["input"].data.ndim > 0 and given["index"].data.size > 0)
def gather(g: Emitter, call: Call) -> None:
    """One element for each of the index."""
    x = call.arguments["input"]
    axis = call.arguments["dim"] % len(x.shape)
    g.node("GatherElements", x, call.arguments["index"], out=call.outputs, axis=axis)


def _scatters(given: Mapping[str, Any]) -> bool:
    return given["input"].data.ndim > 0 and isinstance(given.get("src"), Variable) and given.get("reduce") != "multiply"


@exports_whole("scatter", "scatter_add", when=_scatters)
def scatter(g: Emitter, call: Call) -> None:
    """Elements put, or added, where an index says."""
    x, index, src = (call.arguments[name] for name in ("input", "index", "src"))
    adds = call.key == "scatter_add" or call.arguments.get("reduce") == "add"
    if src.shape != index.shape:
        raise GraphError("scatter of a tensor larger than its index cannot be exported; cut it first")
    axis = call.arguments["dim"] % len(x.shape)
    g.node("ScatterElements", x, index, src, out=call.outputs, axis=axis, reduction="add" if adds else None)


@exports_whole("masked_fill")
def masked_fill(g: Emitter, call: Call) -> None:
    """A number where a mask is true."""
    x, mask, value = (call.arguments[name] for name in ("input", "mask", "value"))
    g.node("Where", mask, g.name(value, x.dtype), x, out=call.outputs)


# ---- Joining ----


@exports(shape.cat)
def cat(g: Emitter, call: Call) -> None:
    """One after another."""
    g.node("Concat", *call.arguments["tensors"], out=call.outputs, axis=call.arguments["dim"])


@exports(shape.stack)
def stack(g: Emitter, call: Call) -> None:
    """Along a new dimension."""
    dim = call.arguments["dim"]
    parts = [g.node("Unsqueeze", x, g.ints([dim])) for x in call.arguments["tensors"]]
    g.node("Concat", *parts, out=call.outputs, axis=dim)


# ---- Margins ----


@exports(shape.pad_to)
def pad_to(g: Emitter, call: Call) -> None:
    """Among zeros."""
    x, y, dim = call.arguments["x"], call.outputs[0], call.arguments["dim"]
    if isinstance(x.shape[dim], Batch):
        raise GraphError("padding along the batch cannot be exported")
    before = call.arguments["start"]
    after = y.shape[dim] - before - x.shape[dim]
    zero = np.zeros((), x.dtype)
    g.node("Pad", x, g.ints([before, after]), zero, g.ints([dim]), out=call.outputs, mode="constant")


@exports(padding.constant_pad)
def constant_pad(g: Emitter, call: Call) -> None:
    """Among elements of one value."""
    x, margins = call.arguments["x"], call.arguments["margins"]
    pads = [before for before, _ in margins] + [after for _, after in margins]
    value = np.asarray(call.arguments["value"]).astype(x.dtype)
    g.node("Pad", x, g.ints(pads), value, out=call.outputs, mode="constant")


@exports_whole("_inside")
def inside(g: Emitter, call: Call) -> None:
    """Margins of what lies inside."""
    x, margins = call.arguments["input"], call.arguments["margins"]
    lead = [(0, 0)] * (len(x.shape) - len(margins))
    pads = [before for before, _ in [*lead, *margins]] + [after for _, after in [*lead, *margins]]
    mode = {"reflect": "reflect", "replicate": "edge", "circular": "wrap"}[call.arguments["mode"]]
    g.node("Pad", x, g.ints(pads), out=call.outputs, mode=mode)
