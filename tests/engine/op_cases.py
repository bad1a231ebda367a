"""One row for each operation: how to call it, on what. Rows of one operation differ in shapes and settings.

Calls are written once for chainrule and PyTorch: `m` is either module.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import numpy as np

from chainrule.engine.dtypes import Array
from chainrule.engine.kernels.geometry import ConvGeometry, PoolGeometry
from chainrule.engine.ops import convolution, elementwise, linalg, loss, normalization, pooling, reduction, shape
from chainrule.engine.ops import op as declaring
from chainrule.engine.ops.op import Op

modules: tuple[ModuleType, ...] = (
    declaring,
    elementwise,
    shape,
    reduction,
    linalg,
    convolution,
    pooling,
    normalization,
    loss,
)


def declared() -> dict[str, Op]:
    """Every operation there is, by `module.name`."""
    return {
        f"{module.__name__.rpartition('.')[2]}.{name}": value
        for module in modules
        for name, value in vars(module).items()
        if isinstance(value, Op) and _home(value) is module
    }


def _home(value: Op) -> ModuleType | None:
    """The module that declares an operation: the first that holds it, for each imports from earlier ones."""
    return next((module for module in modules if any(value is held for held in vars(module).values())), None)


@dataclass(frozen=True)
class Case:
    """An operation called on inputs of given shapes."""

    op: str
    call: Callable[..., Any]
    inputs: tuple[Callable[[np.random.Generator], Array], ...]
    torch: bool = True
    note: str = ""

    @property
    def id(self) -> str:
        return f"{self.op}-{self.note}" if self.note else self.op

    def arrays(self, dtype: str = "float64") -> list[Array]:
        draws = np.random.default_rng(7)
        return [
            array if array.dtype.kind != "f" else array.astype(dtype) for array in (make(draws) for make in self.inputs)
        ]


# ---- Inputs ----


def normal(*size: int) -> Callable[[np.random.Generator], Array]:
    return lambda draws: np.asarray(draws.standard_normal(size))


def positive(*size: int) -> Callable[[np.random.Generator], Array]:
    return lambda draws: np.asarray(draws.uniform(0.5, 2.0, size))


def away_from_zero(*size: int) -> Callable[[np.random.Generator], Array]:
    return lambda draws: np.asarray(draws.uniform(0.2, 2.0, size) * draws.choice([-1, 1], size))


def apart(*size: int) -> Callable[[np.random.Generator], Array]:
    """Numbers that no small step can bring out of their order."""
    return lambda draws: draws.permutation(np.arange(float(np.prod(size)))).reshape(size) / 10


def transposed(*size: int) -> Callable[[np.random.Generator], Array]:
    """Not contiguous in memory."""
    return lambda draws: np.asarray(draws.standard_normal(size[::-1])).T


def channels_last(*size: int) -> Callable[[np.random.Generator], Array]:
    n, c, h, w = size
    return lambda draws: np.asarray(draws.standard_normal((n, h, w, c))).transpose(0, 3, 1, 2)


def truth(*size: int) -> Callable[[np.random.Generator], Array]:
    return lambda draws: draws.integers(0, 2, size).astype(bool)


# ---- Rows ----

_index = np.array([[0, 2], [1, 1], [2, 0]])
_target = np.array([1, 0, 3])
_weight = np.array([1.0, 0.0, 1.0])
_pool = PoolGeometry(kernel=(2, 2), stride=(2, 1), padding=(1, 0))
_offsets = np.random.default_rng(3).integers(0, 4, (1, 2, 3, 4)).astype(np.int32)
_mean, _variance = np.array([0.1, -0.2, 0.3]), np.array([1.0, 0.5, 2.0])


def _conv(m: Any, x: Any, w: Any, b: Any = None, **settings: Any) -> Any:
    return m.nn.functional.conv2d(x, w, b, **settings)


def _batch_norm(m: Any, x: Any, w: Any = None, b: Any = None) -> Any:
    return m.nn.functional.batch_norm(x, None, None, w, b, training=True, eps=1e-3)


def _batch_norm_eval(m: Any, x: Any, w: Any = None, b: Any = None) -> Any:
    mean, variance = (m.from_numpy(array.astype(np.float64)).to(x.dtype) for array in (_mean, _variance))
    return m.nn.functional.batch_norm(x, mean, variance, w, b, training=False)


CASES = (
    Case("op.expand", lambda m, x: x.expand(4, 3, 2), (normal(3, 1),)),
    Case("op.expand", lambda m, x: x.expand(2, 3), (normal(),), note="0d"),
    Case("op.sum_to", lambda m, x: declaring.sum_to(x, shape=(3, 1)), (normal(2, 3, 4),), torch=False),
    # arithmetic
    Case("elementwise.add", lambda m, a, b: a + b, (normal(2, 3), normal(2, 3))),
    Case("elementwise.add", lambda m, a, b: a + b, (normal(2, 1, 3), normal(4, 1)), note="broadcast"),
    Case("elementwise.add", lambda m, a, b: a + b, (normal(0, 3), normal(3)), note="empty"),
    Case("elementwise.add", lambda m, a: 2 + a, (normal(2, 3),), note="number"),
    Case("elementwise.sub", lambda m, a, b: a - b, (normal(3), normal())),
    Case("elementwise.sub", lambda m, a: 1.5 - a, (normal(3),), note="number"),
    Case("elementwise.mul", lambda m, a, b: a * b, (normal(2, 3), normal(3))),
    Case("elementwise.mul", lambda m, a, b: a * b, (transposed(2, 3), normal(2, 3)), note="not-contiguous"),
    Case("elementwise.mul", lambda m, a, b: a * b, (normal(), normal()), note="0d"),
    Case("elementwise.mul", lambda m, a: a * a, (normal(3),), note="twice"),
    Case("elementwise.div", lambda m, a, b: a / b, (normal(2, 3), away_from_zero(2, 1))),
    Case("elementwise.div", lambda m, a: 3 / a, (away_from_zero(4),), note="number"),
    Case("elementwise.neg", lambda m, a: -a, (normal(3),)),
    Case("elementwise.pow", lambda m, a, b: a**b, (positive(2, 3), normal(3))),
    Case("elementwise.pow", lambda m, a: a**3, (normal(4),), note="cube"),
    Case("elementwise.pow", lambda m, a: a**2.5, (positive(4),), note="fraction"),
    Case("elementwise.pow", lambda m, a: a**-1, (away_from_zero(4),), note="negative"),
    Case("elementwise.pow", lambda m, a: a**0, (normal(4),), note="zero"),
    Case("elementwise.pow", lambda m, b: 2**b, (normal(4),), note="of-number"),
    # exponentials
    Case("elementwise.exp", lambda m, x: m.exp(x), (normal(2, 3),)),
    Case("elementwise.log", lambda m, x: m.log(x), (positive(2, 3),)),
    Case("elementwise.sqrt", lambda m, x: m.sqrt(x), (positive(2, 3),)),
    Case("elementwise.tanh", lambda m, x: m.tanh(x), (normal(2, 3),)),
    Case("elementwise.sigmoid", lambda m, x: m.sigmoid(x), (normal(2, 3),)),
    Case("elementwise.sigmoid", lambda m, x: m.sigmoid(200 * x), (away_from_zero(4),), note="far"),
    # pieces
    Case("elementwise.abs", lambda m, x: m.abs(x), (away_from_zero(5),)),
    Case("elementwise.sign", lambda m, x: m.sign(x), (away_from_zero(5),)),
    Case("elementwise.relu", lambda m, x: m.relu(x), (away_from_zero(2, 5),)),
    Case("elementwise.maximum", lambda m, a, b: m.maximum(a, b), (apart(2, 3), normal(3))),
    Case("elementwise.minimum", lambda m, a, b: m.minimum(a, b), (apart(2, 3), normal(3))),
    Case("elementwise.where", lambda m, c, a, b: m.where(c, a, b), (truth(2, 3), normal(2, 3), normal(3))),
    Case("elementwise.where", lambda m, c, a: m.where(c, a, 0.0), (truth(3), normal(2, 3)), note="number"),
    Case("elementwise.clamp", lambda m, x: m.clamp(x, -0.5, 0.7), (normal(8),)),
    Case("elementwise.clamp", lambda m, x: m.clamp(x, min=0.1), (normal(8),), note="below"),
    # comparisons
    Case("elementwise.eq", lambda m, a, b: a == b, (apart(4), apart(4))),
    Case("elementwise.ne", lambda m, a, b: a != b, (apart(4), apart(4))),
    Case("elementwise.lt", lambda m, a, b: a < b, (normal(2, 3), normal(3))),
    Case("elementwise.le", lambda m, a, b: a <= b, (normal(2, 3), normal(3))),
    Case("elementwise.gt", lambda m, a: a > 0, (normal(4),)),
    Case("elementwise.ge", lambda m, a: a >= 0, (normal(4),)),
    Case("elementwise.logical_and", lambda m, a, b: a & b, (truth(6), truth(6))),
    Case("elementwise.logical_or", lambda m, a, b: a | b, (truth(6), truth(6))),
    Case("elementwise.logical_not", lambda m, a: ~a, (truth(6),)),
    Case("elementwise.isnan", lambda m, a: m.isnan(a), (lambda draws: np.array([1.0, np.nan, np.inf]),)),
    # copies
    Case("elementwise.clone", lambda m, x: x.clone(), (transposed(2, 3),)),
    Case("elementwise.cast", lambda m, x: x.to(m.float64), (normal(3),)),
    Case("elementwise.zeros_like", lambda m, x: m.zeros_like(x), (normal(3),)),
    # reductions
    Case("reduction.sum", lambda m, x: x.sum(), (normal(2, 3),)),
    Case("reduction.sum", lambda m, x: x.sum(-1), (normal(2, 3),), note="dim"),
    Case("reduction.sum", lambda m, x: x.sum((0, 2), keepdim=True), (normal(2, 3, 4),), note="keepdim"),
    Case("reduction.sum", lambda m, x: x.sum(), (normal(),), note="0d"),
    Case("reduction.sum", lambda m, x: x.sum(0), (normal(0, 3),), note="empty"),
    Case("reduction.mean", lambda m, x: x.mean(), (normal(2, 3),)),
    Case("reduction.mean", lambda m, x: x.mean((1, 2)), (transposed(2, 3, 4),), note="dims"),
    Case("reduction.amax", lambda m, x: x.amax(1), (apart(3, 4),)),
    Case("reduction.amax", lambda m, x: x.max(), (apart(3, 4),), note="all"),
    Case("reduction.amin", lambda m, x: x.amin(0, keepdim=True), (apart(3, 4),)),
    Case("reduction.argmax", lambda m, x: x.argmax(1), (apart(3, 4),)),
    Case("reduction.argmin", lambda m, x: x.argmin(), (apart(3, 4),)),
    Case("reduction.logsumexp", lambda m, x: m.logsumexp(x, 1), (normal(3, 4),)),
    Case("reduction.logsumexp", lambda m, x: m.logsumexp(x, (0, 1), keepdim=True), (normal(3, 4),), note="keepdim"),
    # shapes
    Case("shape.reshape", lambda m, x: x.reshape(3, -1), (normal(2, 6),)),
    Case("shape.reshape", lambda m, x: x.reshape(6), (transposed(2, 3),), note="not-contiguous"),
    Case("shape.squeeze", lambda m, x: x.squeeze(), (normal(1, 3, 1),)),
    Case("shape.unsqueeze", lambda m, x: x.unsqueeze(-1), (normal(2, 3),)),
    Case("shape.permute", lambda m, x: x.permute(2, 0, 1), (normal(2, 3, 4),)),
    Case("shape.transpose", lambda m, x: x.transpose(0, -1), (normal(2, 3, 4),)),
    Case("shape.contiguous", lambda m, x: x.contiguous(), (transposed(2, 3),)),
    Case("shape.select", lambda m, x: x[1, ..., 0], (normal(2, 3, 4),)),
    Case("shape.slice_", lambda m, x: x[:, 1:, None], (normal(2, 3),)),
    Case("shape.take", lambda m, x: x[[0, 2, 0]], (normal(3, 2),)),
    Case("shape.take", lambda m, x: x[m.tensor([True, False, True])], (normal(3, 2),), note="mask"),
    Case("shape.put", lambda m, x: shape.put(x, index=np.array([0, 2, 0]), shape=(3, 2)), (normal(3, 2),), torch=False),
    Case("shape.gather", lambda m, x: x.gather(1, m.tensor(_index)), (normal(3, 3),)),
    Case(
        "shape.scatter", lambda m, x: shape.scatter(x, dim=1, index=_index, shape=(3, 3)), (normal(3, 2),), torch=False
    ),
    Case("shape.cat", lambda m, a, b: m.cat([a, b, a], dim=1), (normal(2, 3), normal(2, 1))),
    Case("shape.cat", lambda m, a, b: m.stack([a, b], dim=-1), (normal(2, 3), normal(2, 3)), note="stack"),
    Case("shape.narrow", lambda m, x: shape.narrow(x, start=1, length=2, dim=1), (normal(2, 4),), torch=False),
    Case("shape.pad_to", lambda m, x: shape.pad_to(x, start=1, size=4, dim=0), (normal(2, 3),), torch=False),
    # products
    Case("linalg.dot", lambda m, a, b: a @ b, (normal(4), normal(4))),
    Case("linalg.mv", lambda m, a, b: a @ b, (normal(3, 4), normal(4))),
    Case("linalg.mm", lambda m, a, b: a @ b, (normal(2, 3), normal(3, 4))),
    Case("linalg.mm", lambda m, a, b: a @ b, (transposed(2, 3), transposed(3, 4)), note="not-contiguous"),
    Case("linalg.mm", lambda m, a, b: a @ b, (normal(4), normal(4, 2)), note="vector"),
    Case("linalg.bmm", lambda m, a, b: a @ b, (normal(2, 1, 3, 4), normal(5, 4, 2))),
    Case("linalg.bmm", lambda m, a, b: a @ b, (normal(2, 3, 4), normal(4)), note="vector"),
    Case("linalg.bmm", lambda m, a, b: a @ b, (normal(4), normal(2, 4, 3)), note="of-vector"),
    Case(
        "linalg.linear",
        lambda m, x, w, b: m.nn.functional.linear(x, w, b),
        (normal(5, 3), normal(2, 3), normal(2)),
    ),
    Case("linalg.linear", lambda m, x, w: m.nn.functional.linear(x, w), (normal(2, 5, 3), normal(4, 3)), note="3d"),
    # convolution
    Case("convolution.conv2d", _conv, (normal(2, 3, 5, 4), normal(4, 3, 3, 3), normal(4))),
    Case(
        "convolution.conv2d",
        lambda m, x, w, b: _conv(m, x, w, b, stride=(2, 1), padding=(1, 2), dilation=(1, 2), groups=2),
        (channels_last(2, 4, 6, 5), normal(6, 2, 3, 2), normal(6)),
        note="general",
    ),
    Case(
        "convolution.conv2d",
        lambda m, x, w: _conv(m, x, w, stride=2),
        (normal(1, 2, 6, 6), normal(3, 2, 2, 2)),
        note="remainder",
    ),
    Case("convolution.conv2d", _conv, (normal(2, 3, 4, 4), normal(2, 3, 1, 1)), note="1x1"),
    Case(
        "convolution.conv2d",
        lambda m, x, w: _conv(m, x, w, padding="same"),
        (normal(3, 5, 5), normal(2, 3, 3, 3)),
        note="unbatched",
    ),
    Case(
        "convolution.conv2d_input",
        lambda m, dy, w: convolution.conv2d_input(dy, w, shape=(2, 3, 5, 5), geometry=ConvGeometry((2, 2), (1, 1))),
        (normal(2, 4, 3, 3), normal(4, 3, 3, 3)),
        torch=False,
    ),
    Case(
        "convolution.conv2d_weight",
        lambda m, dy, x: convolution.conv2d_weight(dy, x, shape=(4, 3, 3, 3), geometry=ConvGeometry((2, 2), (1, 1))),
        (normal(2, 4, 3, 3), normal(2, 3, 5, 5)),
        torch=False,
    ),
    # pooling
    Case("pooling.max_pool2d", lambda m, x: m.nn.functional.max_pool2d(x, 2), (apart(2, 3, 4, 5),)),
    Case(
        "pooling.max_pool2d",
        lambda m, x: m.nn.functional.max_pool2d(x, (3, 2), stride=(2, 1), padding=1, dilation=(1, 2)),
        (apart(2, 3, 5, 6),),
        note="general",
    ),
    Case(
        "pooling.unpool",
        lambda m, y: pooling.unpool(y, offsets=_offsets, shape=(1, 2, 4, 5), geometry=_pool),
        (normal(1, 2, 3, 4),),
        torch=False,
    ),
    Case(
        "pooling.pick",
        lambda m, x: pooling.pick(x, offsets=_offsets, geometry=_pool),
        (normal(1, 2, 4, 5),),
        torch=False,
    ),
    Case("pooling.avg_pool2d", lambda m, x: m.nn.functional.avg_pool2d(x, 2), (normal(2, 3, 4, 5),)),
    Case(
        "pooling.avg_pool2d",
        lambda m, x: m.nn.functional.avg_pool2d(x, 3, stride=2, padding=1, count_include_pad=False),
        (normal(2, 3, 5, 6),),
        note="general",
    ),
    Case(
        "pooling.avg_unpool",
        lambda m, y: pooling.avg_unpool(y, shape=(1, 2, 4, 5), geometry=_pool),
        (normal(1, 2, 3, 4),),
        torch=False,
    ),
    # normalisation
    Case("normalization.batch_norm", _batch_norm, (normal(3, 3, 2, 2), positive(3), normal(3))),
    Case("normalization.batch_norm", _batch_norm, (channels_last(3, 2, 2, 3),), note="plain"),
    Case("normalization.batch_norm_fixed", _batch_norm_eval, (normal(2, 3, 2, 2), positive(3), normal(3))),
    # losses
    Case("loss.log_softmax", lambda m, x: m.log_softmax(x, 1), (normal(3, 4),)),
    Case("loss.log_softmax", lambda m, x: m.log_softmax(100 * x, 0), (normal(3, 4),), note="far"),
    Case("loss.softmax", lambda m, x: m.softmax(x, -1), (normal(3, 4),)),
    Case("loss.nll_loss", lambda m, x: m.nn.functional.nll_loss(x, m.tensor(_target)), (normal(3, 4),)),
    Case(
        "loss.nll_loss",
        lambda m, x: m.nn.functional.nll_loss(x, m.tensor(_target), reduction="none"),
        (normal(3, 4),),
        note="none",
    ),
    Case(
        "loss.nll_loss",
        lambda m, x: m.nn.functional.nll_loss(x, m.tensor(_target), reduction="sum", ignore_index=0),
        (normal(3, 4),),
        note="ignore",
    ),
    Case(
        "loss.nll_loss",
        lambda m, x: m.nn.functional.cross_entropy(x, m.tensor(_target), ignore_index=3),
        (normal(3, 4),),
        note="cross-entropy",
    ),
    Case(
        "loss.nll_loss",
        lambda m, x: m.nn.functional.cross_entropy(x, m.tensor(_index), reduction="none"),
        (normal(3, 4, 2),),
        note="images",
    ),
    Case("loss.mse_loss", lambda m, x, t: m.nn.functional.mse_loss(x, t), (normal(3, 2), normal(3, 2))),
    Case(
        "loss.mse_loss",
        lambda m, x, t: m.nn.functional.mse_loss(x, t, reduction="sum"),
        (normal(3, 2), normal(3, 2)),
        note="sum",
    ),
    Case(
        "loss.mse_loss",
        lambda m, x, t: m.nn.functional.mse_loss(x, t, reduction="none"),
        (normal(3, 2), normal(3, 2)),
        note="none",
    ),
)
