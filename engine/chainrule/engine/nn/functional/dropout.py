"""Dropout: elements or whole channels set to zero at random while training.

The masks are draws of the current generator (`chainrule.engine.random`): the same seed gives the same masks on every
machine, though not those of PyTorch.
"""

from __future__ import annotations

import math
import warnings

from chainrule.engine.dtypes import is_floating, type_name
from chainrule.engine.errors import DTypeError, ShapeError
from chainrule.engine.functions.arguments import require_tensor
from chainrule.engine.nn.functional.checks import require_probability, result_of
from chainrule.engine.random import current_generator
from chainrule.engine.tensor import Tensor
from chainrule.engine.watching import watched

__all__ = ["alpha_dropout", "dropout", "dropout1d", "dropout2d", "dropout3d", "feature_alpha_dropout"]

_alpha = 1.7580993408473766  # −(selu as x → −∞) = its α · scale


def dropout(input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
    """x · m / (1 − p) while training, where each element of m is 0 with probability p, else 1; otherwise x itself.

    Source: Srivastava et al., Dropout: a simple way to prevent neural networks from overfitting, JMLR 15 (2014)

    Raises:
        ConfigError: p is not in [0, 1].
        DTypeError: x is of integers.
    """
    return _dropped("dropout", input, p, training, inplace, input.shape)


def dropout1d(input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
    """`dropout` of whole channels of x (N, C, L) or (C, L).

    Raises:
        ShapeError: x has another number of dimensions.
    """
    require_probability(p)
    if input.ndim not in (2, 3):
        raise ShapeError(
            f"dropout1d: Expected 2D or 3D input, but received a {input.ndim}D input. Note that dropout1d exists to "
            "provide channel-wise dropout on inputs with 1 spatial dimension, a channel dimension, and an optional "
            "batch dimension (i.e. 2D or 3D inputs)."
        )
    return _dropped("dropout1d", input, p, training, inplace, (*input.shape[:-1], 1))


def dropout2d(input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
    """`dropout` of whole channels of x (N, C, ...).

    Raises:
        ShapeError: fewer than two dimensions.
    """
    require_probability(p)
    if input.ndim == 3:
        warnings.warn(
            "dropout2d: Received a 3D input to dropout2d and assuming that channel-wise 1D dropout behavior is desired "
            "- input is interpreted as shape (N, C, L), where C is the channel dim. Use dropout1d instead.",
            stacklevel=2,
        )
    elif input.ndim != 4:
        warnings.warn(
            f"dropout2d: Received a {input.ndim}-D input to dropout2d, which is deprecated and will result in an error "
            "in a future release. Use dropout instead.",
            stacklevel=2,
        )
    return _dropped("dropout2d", input, p, training, inplace, _channels(input))


def dropout3d(input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
    """`dropout` of whole channels of x (N, C, D, H, W), or of the rows of x (C, D, H, W).

    Raises:
        ShapeError: fewer than two dimensions.
    """
    require_probability(p)
    if input.ndim not in (4, 5):
        warnings.warn(
            f"dropout3d: Received a {input.ndim}-D input to dropout3d, which is deprecated and will result in an error "
            "in a future release. Use dropout instead.",
            stacklevel=2,
        )
    shape = (input.shape[0], 1, 1, 1) if input.ndim == 4 else _channels(input)
    return _dropped("dropout3d", input, p, training, inplace, shape)


def alpha_dropout(input: Tensor, p: float = 0.5, training: bool = False, inplace: bool = False) -> Tensor:
    """Dropout after selu: a dropped element becomes selu's limit, and the result a · x + b keeps mean and variance.

    Source: Klambauer et al., Self-normalizing neural networks, https://arxiv.org/abs/1706.02515
    """
    return _alpha_dropped("alpha_dropout", input, p, training, inplace, input.shape)


def feature_alpha_dropout(input: Tensor, p: float = 0.5, training: bool = False, inplace: bool = False) -> Tensor:
    """`alpha_dropout` of whole channels of x (N, C, ...)."""
    require_probability(p)
    return _alpha_dropped("feature_alpha_dropout", input, p, training, inplace, _channels(input))


@watched
def _dropped(name: str, input: Tensor, p: float, training: bool, inplace: bool, mask_shape: tuple[int, ...]) -> Tensor:
    if not _check(input, p, training):
        return input
    if p == 1:
        return result_of(name, input, input * 0.0, inplace)
    mask = _kept(input, p, mask_shape)
    return result_of(name, input, input * (mask / (1 - p)), inplace)


@watched
def _alpha_dropped(
    name: str, input: Tensor, p: float, training: bool, inplace: bool, mask_shape: tuple[int, ...]
) -> Tensor:
    if not _check(input, p, training):
        return input
    if p == 1:
        return result_of(name, input, input * 0.0, inplace)
    a = 1 / math.sqrt((_alpha * _alpha * p + 1) * (1 - p))
    mask = _kept(input, p, mask_shape)
    shift = (mask - 1) * (_alpha * a) + _alpha * a * p
    return result_of(name, input, input * (mask * a) + shift, inplace)


def _check(input: Tensor, p: float, training: bool) -> bool:
    """Whether anything is to be dropped."""
    require_tensor("dropout", input)
    require_probability(p)
    if not training or p == 0 or not input.numel():
        return False
    if not is_floating(input.dtype):
        raise DTypeError(f"result type Float can't be cast to the desired output type {type_name(input.dtype)}")
    return True


def _kept(input: Tensor, p: float, shape: tuple[int, ...]) -> Tensor:
    """1 with probability 1 − p, else 0."""
    return Tensor((current_generator().uniform(shape) >= p).astype(input.dtype))


def _channels(input: Tensor) -> tuple[int, ...]:
    if input.ndim < 2:
        raise ShapeError("Feature dropout requires at least 2 dimensions in the input")
    return (*input.shape[:2], *(1,) * (input.ndim - 2))
