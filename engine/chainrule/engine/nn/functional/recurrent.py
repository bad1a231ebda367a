"""Recurrences over sequences: what nn.RNN, nn.LSTM and nn.GRU compute in one layer and direction."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np

from chainrule.engine.autograd.function import Function
from chainrule.engine.autograd.mode import is_grad_enabled
from chainrule.engine.autograd.traversal import grad
from chainrule.engine.dtypes import Array, float32, is_low_precision
from chainrule.engine.functions.arithmetic import relu, sigmoid, tanh
from chainrule.engine.functions.autocast import active, is_active, lowered
from chainrule.engine.functions.joining import stack
from chainrule.engine.nn.functional.linear import linear
from chainrule.engine.ops import recurrent
from chainrule.engine.tensor import Tensor
from chainrule.engine.watching import watched

Weights = tuple[Tensor, Tensor, Tensor | None, Tensor | None]
"""Those of the input (gates · H, I) and of the state (gates · H, H), and their biases, both or none."""
State = tuple[Tensor, ...]
"""h (N, H); of an LSTM h and c."""


@watched
def recurrence(
    mode: str, x: Tensor, state: State, weights: Weights, *, reverse: bool = False, cell: bool = False
) -> tuple[Tensor, State]:
    """The states h of a recurrence over x (T, N, I), and the last state.

    Args:
        mode: RNN_TANH, RNN_RELU, LSTM or GRU.
        x: the inputs.
        state: before the first step.
        weights: see `Weights`.
        reverse: whether the last input comes first; outputs lie where their inputs do.
        cell: whether it is one step of a cell, which matters to autocast.

    Returns:
        (T, N, H), and the state after the last step.
    """
    w_x, w_h, b_x, b_h = weights
    if active and is_active():
        return _in_autocast(mode, x, state, weights, reverse, keeps_state=mode == "GRU" or (mode == "LSTM" and cell))
    if mode == "GRU":
        return _recurrence(mode, linear(x, w_x, b_x), state, w_h, b_h, reverse)
    a = linear(x, w_x, None if b_x is None or b_h is None else b_x + b_h)
    return _recurrence(mode, a, state, w_h, None, reverse)


def _recurrence(
    mode: str, a: Tensor, state: State, w_h: Tensor, b_h: Tensor | None, reverse: bool
) -> tuple[Tensor, State]:
    if mode == "GRU":
        hs, h = _GRU.apply(a, state[0], w_h, b_h, reverse)
        return hs, (h,)
    if mode == "LSTM":
        hs, h, c = _LSTM.apply(a, state[0], state[1], w_h, reverse)
        return hs, (h, c)
    hs, h = _RNN.apply(a, state[0], w_h, mode.removeprefix("RNN_").lower(), reverse)
    return hs, (h,)


def _in_autocast(
    mode: str, x: Tensor, state: State, weights: Weights, reverse: bool, *, keeps_state: bool
) -> tuple[Tensor, State]:
    """The recurrence of inputs and weights in lower precision; the state is too, or keeps its dtype."""
    w_x, w_h, b_x, b_h = lowered(*weights)
    if mode == "GRU":
        a = linear(x, w_x, b_x)
    else:
        a, b_h = linear(x, w_x, None if b_x is None else b_x + b_h), None
    if not keeps_state:
        return _recurrence(mode, a, lowered(*state), w_h, b_h, reverse)
    dtype = state[-1].dtype
    return _recurrence(mode, a.to(dtype), state, w_h.to(dtype), None if b_h is None else b_h.to(dtype), reverse)


# ---- Operations with several outputs ----
#
# Where a gradient is to be differentiated in turn, the recurrence is computed again step by step, and differentiated.


class _RNN(Function):
    @staticmethod
    def forward(ctx: Any, a: Tensor, h: Tensor, w: Tensor, activation: str, reverse: bool) -> tuple[Tensor, Tensor]:
        (hs,) = _in_order((recurrent.rnn(_wide(a, reverse), _wide(h), _wide(w), activation),), reverse)
        ctx.settings = activation, reverse
        return _states(ctx, hs, a.dtype, reverse, (a, h, w), ())

    @staticmethod
    def backward(ctx: Any, dhs: Tensor | None, dh: Tensor | None) -> tuple[Any, ...]:
        a, h, w, hs = ctx.saved_tensors
        activation, reverse = ctx.settings
        if is_grad_enabled():
            return (
                *_again(partial(_steps_rnn, activation=activation, reverse=reverse), (a, h, w), (dhs, dh)),
                None,
                None,
            )
        hs = _wide(hs, reverse)
        da, dh0, dw = recurrent.rnn_gradient(
            _given(dhs, hs, reverse), _given(dh, hs[0]), hs, _wide(h), _wide(w), activation
        )
        return *_tensors((*_in_order((da,), reverse), dh0, dw)), None, None


class _LSTM(Function):
    @staticmethod
    def forward(ctx: Any, a: Tensor, h: Tensor, c: Tensor, w: Tensor, reverse: bool) -> tuple[Tensor, Tensor, Tensor]:
        made = recurrent.lstm(_wide(a, reverse), _wide(h), _wide(c), _wide(w))
        hs, cs, gates = _in_order(made, reverse)
        ctx.settings = reverse
        all_h, last_h = _states(ctx, hs, a.dtype, reverse, (a, h, c, w), (cs, gates))
        return all_h, last_h, Tensor(cs[0 if reverse else -1].astype(a.dtype))

    @staticmethod
    def backward(ctx: Any, dhs: Tensor | None, dh: Tensor | None, dc: Tensor | None) -> tuple[Any, ...]:
        a, h, c, w, cs, gates, hs = ctx.saved_tensors
        reverse = ctx.settings
        if is_grad_enabled():
            return *_again(partial(_steps_lstm, reverse=reverse), (a, h, c, w), (dhs, dh, dc)), None
        hs, cs, gates = (_wide(x, reverse) for x in (hs, cs, gates))
        da, dh0, dc0, dw = recurrent.lstm_gradient(
            _given(dhs, hs, reverse),
            _given(dh, hs[0]),
            _given(dc, hs[0]),
            hs,
            cs,
            gates,
            _wide(h),
            _wide(c),
            _wide(w),
        )
        return *_tensors((*_in_order((da,), reverse), dh0, dc0, dw)), None


class _GRU(Function):
    @staticmethod
    def forward(ctx: Any, a: Tensor, h: Tensor, w: Tensor, b: Tensor | None, reverse: bool) -> tuple[Tensor, Tensor]:
        made = recurrent.gru(_wide(a, reverse), _wide(h), _wide(w), None if b is None else _wide(b))
        hs, gates, inner = _in_order(made, reverse)
        ctx.settings = reverse
        return _states(ctx, hs, a.dtype, reverse, (a, h, w, b), (gates, inner))

    @staticmethod
    def backward(ctx: Any, dhs: Tensor | None, dh: Tensor | None) -> tuple[Any, ...]:
        a, h, w, b, gates, inner, hs = ctx.saved_tensors
        reverse = ctx.settings
        if is_grad_enabled():
            return *_again(partial(_steps_gru, reverse=reverse), (a, h, w, b), (dhs, dh)), None
        hs, gates, inner = (_wide(x, reverse) for x in (hs, gates, inner))
        da, dh0, dw, db = recurrent.gru_gradient(
            _given(dhs, hs, reverse), _given(dh, hs[0]), hs, gates, inner, _wide(h), _wide(w)
        )
        return *_tensors((*_in_order((da,), reverse), dh0, dw, db)), None


def _states(
    ctx: Any,
    hs: Array,
    dtype: np.dtype[Any],
    reverse: bool,
    inputs: tuple[Tensor | None, ...],
    intermediates: tuple[Array, ...],
) -> tuple[Tensor, Tensor]:
    """All h and the last, as outputs; the node keeps what its backward uses."""
    ctx.set_materialize_grads(False)
    all_h = Tensor(np.ascontiguousarray(hs.astype(dtype, copy=False)))
    ctx.save_for_backward(*inputs, *map(Tensor, intermediates), all_h)
    return all_h, Tensor(all_h.data[0 if reverse else -1].copy())


def _wide(x: Tensor, reverse: bool = False) -> Array:
    """The array, of half precision in float32; with `reverse` the last step first."""
    array = x.data.astype(float32) if is_low_precision(x.dtype) else x.data
    return array[::-1] if reverse else array


def _in_order(arrays: tuple[Array, ...], reverse: bool) -> tuple[Array, ...]:
    return tuple(array[::-1] for array in arrays) if reverse else arrays


def _given(g: Tensor | None, like: Array, reverse: bool = False) -> Array:
    """A gradient, of zeros where none has arrived."""
    return np.zeros_like(like) if g is None else _wide(g, reverse)


def _tensors(arrays: tuple[Array, ...]) -> tuple[Tensor, ...]:
    return tuple(Tensor(np.ascontiguousarray(array)) for array in arrays)


# ---- Step by step, each step recorded ----


def _again(steps: Any, inputs: tuple[Tensor | None, ...], gs: tuple[Tensor | None, ...]) -> list[Tensor | None]:
    """The gradients of the inputs, themselves recorded."""
    outputs = steps(*inputs)
    arrived = [(y, g) for y, g in zip(outputs, gs, strict=True) if g is not None]
    wanted = [x for x in inputs if x is not None and x.requires_grad]
    found = iter(grad([y for y, _ in arrived], wanted, [g for _, g in arrived], create_graph=True, allow_unused=True))
    return [next(found) if x is not None and x.requires_grad else None for x in inputs]


def _order(a: Tensor, reverse: bool) -> range:
    return range(len(a))[::-1] if reverse else range(len(a))


def _stacked(hs: list[Tensor], reverse: bool) -> Tensor:
    return stack(hs[::-1] if reverse else hs)


def _steps_rnn(a: Tensor, h: Tensor, w: Tensor, activation: str, reverse: bool) -> tuple[Tensor, Tensor]:
    hs = []
    for t in _order(a, reverse):
        y = a[t] + linear(h, w)
        h = tanh(y) if activation == "tanh" else relu(y)
        hs.append(h)
    return _stacked(hs, reverse), h


def _steps_lstm(a: Tensor, h: Tensor, c: Tensor, w: Tensor, reverse: bool) -> tuple[Tensor, Tensor, Tensor]:
    hs, size = [], h.shape[-1]
    for t in _order(a, reverse):
        y = a[t] + linear(h, w)
        i, f, g, o = (y[:, k * size : (k + 1) * size] for k in range(4))
        c = sigmoid(f) * c + sigmoid(i) * tanh(g)
        h = sigmoid(o) * tanh(c)
        hs.append(h)
    return _stacked(hs, reverse), h, c


def _steps_gru(a: Tensor, h: Tensor, w: Tensor, b: Tensor | None, reverse: bool) -> tuple[Tensor, Tensor]:
    hs, size = [], h.shape[-1]
    for t in _order(a, reverse):
        x, u = a[t], linear(h, w, b)
        r, z = (sigmoid(x[:, k * size : (k + 1) * size] + u[:, k * size : (k + 1) * size]) for k in range(2))
        n = tanh(x[:, 2 * size :] + r * u[:, 2 * size :])
        h = n + z * (h - n)
        hs.append(h)
    return _stacked(hs, reverse), h
