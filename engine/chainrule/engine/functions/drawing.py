"""Functions that make tensors of random numbers, or fill tensors with them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from chainrule.engine.autograd.variable import Variable
from chainrule.engine.creation import as_laid_out, lengths, made
from chainrule.engine.dtypes import Array, DType, as_dtype, default_dtype, int64, is_floating, type_name
from chainrule.engine.errors import ArgumentError, DTypeError, ShapeError, UnsupportedError
from chainrule.engine.functions.arguments import with_keyword
from chainrule.engine.functions.in_place import write
from chainrule.engine.functions.shapes import broadcast_pair
from chainrule.engine.layout import MemoryFormat, preserve_format
from chainrule.engine.random import Generator, current_generator, mantissa_bits

if TYPE_CHECKING:
    from chainrule.engine.tensor import Tensor

Size = int | Sequence[int]


def _source(generator: Generator | None) -> Generator:
    return generator or current_generator()


# ---- New tensors ----


def rand(
    *shape: Size,
    size: Size | None = None,
    generator: Generator | None = None,
    dtype: npt.DTypeLike | None = None,
    device: Any = None,
    requires_grad: bool = False,
) -> Tensor:
    """Numbers drawn evenly from [0, 1).

    Raises:
        UnsupportedError: a dtype without fractions.
    """
    array = _source(generator).uniform(lengths("rand", with_keyword(shape, size)), _or_default(dtype))
    return made(array, device, requires_grad)


def randn(
    *shape: Size,
    size: Size | None = None,
    generator: Generator | None = None,
    dtype: npt.DTypeLike | None = None,
    device: Any = None,
    requires_grad: bool = False,
) -> Tensor:
    """Numbers drawn from the normal distribution with mean 0 and variance 1.

    Raises:
        UnsupportedError: a dtype without fractions.
    """
    array = _source(generator).normal(lengths("randn", with_keyword(shape, size)), _or_default(dtype))
    return made(array, device, requires_grad)


def randint(
    low: int,
    high: int | Sequence[int] | None = None,
    size: Sequence[int] = (),
    *,
    generator: Generator | None = None,
    dtype: npt.DTypeLike = int64,
    device: Any = None,
    requires_grad: bool = False,
) -> Tensor:
    """Integers drawn evenly from [low, high); with one bound, randint(high, size), from [0, high).

    Raises:
        ArgumentError: there are none, or the dtype cannot hold them.
        DTypeError: the size is no sequence.
    """
    if isinstance(high, Sequence):
        size, high = high, None
    if not isinstance(size, Sequence):
        raise DTypeError(f"randint(): argument 'size' must be tuple of ints, not {type(size).__name__}")
    first, end = (0, low) if high is None else (low, high)
    resolved = as_dtype(dtype)
    check_range(first, end, resolved)
    array = _source(generator).integers(first, end, lengths("randint", (size,))).astype(resolved)
    return made(array, device, requires_grad)


def check_range(low: int, high: int, dtype: DType) -> None:
    """Raises ArgumentError if [low, high) is empty or the dtype cannot hold it."""
    if high <= low:
        raise ArgumentError(f"random_ expects 'from' to be less than 'to', but got from={low} >= to={high}")
    if dtype.kind in "iu":
        limits = np.iinfo(dtype)
        least, most = int(limits.min), int(limits.max)
    else:
        most = 1 if dtype.kind == "b" else 2 ** mantissa_bits[dtype]
        least = 0 if dtype.kind == "b" else -most
    for name, bound in (("from", low), ("to - 1", high - 1)):
        if not least <= bound <= most:
            raise ArgumentError(f"{name} is out of bounds for {type_name(dtype)}: {bound} is not in [{least}, {most}]")


def randperm(
    n: int,
    *,
    generator: Generator | None = None,
    dtype: npt.DTypeLike = int64,
    device: Any = None,
    requires_grad: bool = False,
) -> Tensor:
    """The integers from 0 to n − 1 in random order.

    Raises:
        ShapeError: n is negative.
        ArgumentError: the dtype cannot hold them.
    """
    if n < 0:
        raise ShapeError(f"Trying to create tensor with negative dimension {n}: [{n}]")
    resolved = as_dtype(dtype)
    if n:
        check_range(0, n, resolved)
    order = np.argsort(_source(generator).words(n), kind="stable")
    return made(order.astype(resolved, copy=False), device, requires_grad)


def normal(
    mean: Tensor | float,
    std: Tensor | float = 1.0,
    size: Sequence[int] | None = None,
    *,
    generator: Generator | None = None,
    dtype: npt.DTypeLike | None = None,
    device: Any = None,
) -> Tensor:
    """Numbers drawn from normal distributions, whose means and deviations may be tensors; of numbers, of a size.

    Raises:
        ArgumentError: a deviation is negative.
        ShapeError: the tensors do not broadcast.
        DTypeError: two numbers without a size.
    """
    if size is None and not isinstance(mean, Variable) and not isinstance(std, Variable):
        raise DTypeError("normal(): of two numbers, the third argument 'size' is required")
    center, spread = [np.asarray(x.data if isinstance(x, Variable) else x) for x in (mean, std)]
    shape = broadcast_pair(center.shape, spread.shape) if size is None else lengths("normal", (size,))
    of_tensor = center if isinstance(mean, Variable) else spread
    resolved = as_dtype(dtype) if dtype is not None else of_tensor.dtype if size is None else default_dtype
    _check_spread(spread)
    drawn = _source(generator).normal(shape, resolved)
    return made((drawn * spread + center).astype(resolved), device)


def _check_spread(std: Array) -> None:
    if not (std >= 0).all():
        which = f"std >= 0.0, but found std {std}" if std.ndim == 0 else "all elements of std >= 0.0"
        raise ArgumentError(f"normal expects {which}")


def bernoulli(input: Tensor, p: float | None = None, *, generator: Generator | None = None) -> Tensor:
    """Ones with the probability that `input` holds, or p, and zeros.

    Raises:
        ArgumentError: a probability is not in [0, 1].
        UnsupportedError: `input` holds no fractions.
    """
    if p is None and not is_floating(input.data.dtype):
        raise UnsupportedError(f"\"bernoulli_tensor_cpu_p_\" not implemented for '{type_name(input.dtype)}'")
    return made(_heads(input.data.shape, input.data if p is None else p, generator).astype(input.data.dtype))


def _heads(shape: tuple[int, ...], p: Any, generator: Generator | None) -> Array:
    chance = np.asarray(p, np.float64)
    if not ((chance >= 0) & (chance <= 1)).all():
        got = f"p={p}" if chance.ndim == 0 else "a tensor with others"
        raise ArgumentError(f"bernoulli_ expects p to be in [0, 1], but got {got}")
    return np.asarray(_source(generator).uniform(shape, np.dtype("float64")) < chance)


def multinomial(
    input: Tensor, num_samples: int, replacement: bool = False, *, generator: Generator | None = None
) -> Tensor:
    """Indices drawn in proportion to the weights in `input`, (C) or (N, C): (num_samples) or (N, num_samples).

    Args:
        input: not negative; each row has a positive one.
        num_samples: how many for each row.
        replacement: whether one index can be drawn twice.
        generator: what draws.

    Raises:
        ArgumentError: the weights are no weights, or there are not as many.
        ShapeError: the weights have another number of dimensions.
        DTypeError: they hold no fractions.
    """
    if input.data.ndim not in (1, 2):
        raise ShapeError("prob_dist must be 1 or 2 dim")
    if not is_floating(input.data.dtype):
        raise DTypeError(f"multinomial only supports floating-point dtypes for input, got: {type_name(input.dtype)}")
    if num_samples <= 0:
        raise ArgumentError("cannot sample n_sample <= 0 samples")
    weights = input.data.astype(np.float64)
    if not replacement and num_samples > weights.shape[-1]:
        raise ArgumentError("cannot sample n_sample > prob_dist.size(-1) samples without replacement")
    if not (np.isfinite(weights) & (weights >= 0)).all():
        raise ArgumentError("probability tensor contains either `inf`, `nan` or element < 0")
    if not (weights.sum(-1) > 0).all():
        raise ArgumentError("invalid multinomial distribution (sum of probabilities <= 0)")
    if replacement:
        return made(_with_replacement(weights, num_samples, _source(generator)))
    u = _source(generator).uniform(weights.shape, np.dtype("float64"))
    with np.errstate(divide="ignore"):
        waits = -np.log1p(-u) / weights  # whose exponential clock rings first, second, ...
    waits[weights == 0] = np.inf
    return made(np.argsort(waits, -1, kind="stable")[..., :num_samples].copy())


def _with_replacement(weights: Array, count: int, generator: Generator) -> Array:
    edges = np.cumsum(weights, -1)
    u = generator.uniform((*weights.shape[:-1], count), np.dtype("float64")) * edges[..., -1:]
    if weights.ndim == 1:
        return np.asarray(np.searchsorted(edges, u, "right"))
    return np.stack([np.searchsorted(row, drawn, "right") for row, drawn in zip(edges, u, strict=True)])


def _or_default(dtype: npt.DTypeLike | None) -> DType:
    return default_dtype if dtype is None else as_dtype(dtype)


# ---- In the shape of another ----


def rand_like(
    input: Tensor,
    *,
    generator: Generator | None = None,
    dtype: npt.DTypeLike | None = None,
    device: Any = None,
    requires_grad: bool = False,
    memory_format: MemoryFormat = preserve_format,
) -> Tensor:
    """`rand` in the shape, dtype and layout of `input`."""
    array = _source(generator).uniform(input.shape, input.dtype if dtype is None else as_dtype(dtype))
    return made(as_laid_out(array, input.data, memory_format), device, requires_grad)


def randn_like(
    input: Tensor,
    *,
    generator: Generator | None = None,
    dtype: npt.DTypeLike | None = None,
    device: Any = None,
    requires_grad: bool = False,
    memory_format: MemoryFormat = preserve_format,
) -> Tensor:
    """`randn` in the shape, dtype and layout of `input`."""
    array = _source(generator).normal(input.shape, input.dtype if dtype is None else as_dtype(dtype))
    return made(as_laid_out(array, input.data, memory_format), device, requires_grad)


def randint_like(
    input: Tensor,
    low: int,
    high: int | None = None,
    *,
    generator: Generator | None = None,
    dtype: npt.DTypeLike | None = None,
    device: Any = None,
    requires_grad: bool = False,
    memory_format: MemoryFormat = preserve_format,
) -> Tensor:
    """`randint` in the shape, dtype and layout of `input`."""
    drawn = randint(
        low, high, input.shape, generator=generator, dtype=input.dtype if dtype is None else dtype, device=device
    )
    return made(as_laid_out(drawn.data, input.data, memory_format), device, requires_grad)


# ---- Into a tensor ----


def uniform_(input: Tensor, from_: float = 0, to: float = 1, *, generator: Generator | None = None) -> Tensor:
    """Filled with numbers drawn evenly from [from_, to).

    Raises:
        ArgumentError: the range is none.
        UnsupportedError: a dtype without fractions.
    """
    if from_ > to:
        raise ArgumentError(f"uniform_ expects to return a [from, to) range, but found from={from_} > to={to}")
    drawn = _source(generator).uniform(input.shape, input.dtype)
    return _fill(input, "uniform_", drawn * (to - from_) + from_)


def normal_(input: Tensor, mean: float = 0, std: float = 1, *, generator: Generator | None = None) -> Tensor:
    """Filled with numbers drawn from a normal distribution.

    Raises:
        ArgumentError: the deviation is negative.
        UnsupportedError: a dtype without fractions.
    """
    _check_spread(np.asarray(std))
    return _fill(input, "normal_", _source(generator).normal(input.shape, input.dtype) * std + mean)


def bernoulli_(input: Tensor, p: Tensor | float = 0.5, *, generator: Generator | None = None) -> Tensor:
    """Filled with ones, with probability p, and zeros.

    Raises:
        ArgumentError: a probability is not in [0, 1].
    """
    return _fill(input, "bernoulli_", _heads(input.shape, p.data if isinstance(p, Variable) else p, generator))


def random_(
    input: Tensor, from_: int | None = None, to: int | None = None, *, generator: Generator | None = None
) -> Tensor:
    """Filled with integers drawn evenly from [from_, to); random_(to) from [0, to).

    Without bounds, from all that the dtype holds from 0 on; of floats, as many as are exact.

    Raises:
        ArgumentError: the range is none, or the dtype cannot hold it.
    """
    if to is None and from_ is not None:
        from_, to = 0, from_
    if to is None:
        dtype = input.dtype
        to = 2 if dtype.kind == "b" else int(np.iinfo(dtype).max) + 1 if dtype.kind in "iu" else None
        to = 2 ** mantissa_bits[dtype] + 1 if to is None else to
    low = from_ or 0
    check_range(low, to, input.dtype)
    return _fill(input, "random_", _source(generator).integers(low, to, input.shape))


def exponential_(input: Tensor, lambd: float = 1, *, generator: Generator | None = None) -> Tensor:
    """Filled with numbers drawn from the exponential distribution of rate `lambd`: −ln(1 − u) / λ.

    Raises:
        ArgumentError: the rate is not positive.
        DTypeError: a dtype without fractions.
    """
    if not is_floating(input.dtype):
        raise DTypeError(
            "Exponential distribution is a continuous probability distribution. dtype must be a floating point but you "
            f"specified {type_name(input.dtype)}"
        )
    if lambd <= 0:
        raise ArgumentError(f"exponential_ expects lambda > 0.0, but found lambda={lambd}")
    u = _source(generator).uniform(input.shape, np.dtype("float64"))
    return _fill(input, "exponential_", -np.log1p(-u) / lambd)


def _fill(x: Tensor, name: str, values: Array) -> Tensor:
    return write(x, name, Variable.wrap(np.asarray(values).astype(x.dtype)))
