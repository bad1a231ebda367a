"""LSTM, GRU and RNN, in either direction or both.

ONNX stacks the gates of an LSTM as input, output, forget, cell, those of a GRU as update, reset, hidden; the engine, as
PyTorch, as input, forget, cell, output, and reset, update, hidden.
"""

from __future__ import annotations

import numpy as np

from chainrule.engine.dtypes import Array
from chainrule.engine.functions.joining import cat, stack
from chainrule.engine.graph.errors import Refused
from chainrule.engine.graph.node import Node
from chainrule.engine.graph.registry import Bounded, bounded, operator
from chainrule.engine.nn.functional.linear import linear
from chainrule.engine.nn.functional.recurrent import State, Weights, recurrence
from chainrule.engine.tensor import Tensor

_GATES = {"LSTM": (0, 2, 3, 1), "GRU": (1, 0, 2), "RNN": (0,)}
_ACTIVATIONS = {"LSTM": ["Sigmoid", "Tanh", "Tanh"], "GRU": ["Sigmoid", "Tanh"], "RNN": ["Tanh"]}
_DIRECTIONS = {"forward": (False,), "reverse": (True,), "bidirectional": (False, True)}


@operator("LSTM", "GRU", "RNN", since=7, host=(4,), weights=(1, 2, 3))
def recurrent(node: Node) -> Bounded:
    """The states (T, D, N, H) over x (T, N, I), D directions, and the last ones (D, N, H); `layout` 1: N first."""
    layer = _Layer(node)

    def elements(x: Tensor, w: Tensor, *_: object) -> int:
        return x.shape[0] * x.shape[1] * w.shape[0] * w.shape[1]

    return bounded(layer, elements)


class _Layer:
    """What computes a node; its attributes are checked once.

    Raises:
        Refused: activations other than the usual ones, clipping, coupled gates, peepholes.
    """

    def __init__(self, node: Node) -> None:
        self.node = node
        self.directions = _DIRECTIONS[node.one_of("direction", list(_DIRECTIONS), "forward")]
        self.batch_first = bool(node.int("layout", 0))
        self.modes = [self._mode(direction) for direction in range(len(self.directions))]
        self.resets_first = node.op == "GRU" and not node.int("linear_before_reset", 0)
        if node.has("clip"):
            raise Refused("clip")
        if node.int("input_forget", 0):
            raise Refused("input_forget: a forget gate coupled to the input gate")
        if node.op == "LSTM" and len(node.inputs) > 7 and node.inputs[7]:
            raise Refused("peepholes (input P)")

    def _mode(self, direction: int) -> str:
        op, usual = self.node.op, _ACTIVATIONS[self.node.op]
        given = self.node.strings("activations", usual * len(self.directions))
        if len(given) != len(usual) * len(self.directions):
            raise self.node.error(f"{len(given)} activations, not {len(usual)} for each of {len(self.directions)}")
        mine = [name.capitalize() for name in given[direction * len(usual) : (direction + 1) * len(usual)]]
        if op == "RNN" and mine == ["Relu"]:
            return "RNN_RELU"
        if mine != usual:
            raise Refused(f"activations {', '.join(mine)}; {', '.join(usual)} are supported")
        return "RNN_TANH" if op == "RNN" else op

    def __call__(
        self,
        x: Tensor,
        w: Tensor,
        r: Tensor,
        b: Tensor | None = None,
        lengths: Array | None = None,
        h: Tensor | None = None,
        c: Tensor | None = None,
        *_: None,
    ) -> tuple[Tensor, ...]:
        if self.batch_first:
            x, h, c = (None if v is None else v.transpose(0, 1) for v in (x, h, c))  # type: ignore[assignment]
        if lengths is not None and not np.all(lengths == len(x)):
            raise self.node.error(f"sequence_lens is {lengths.tolist()}: sequences shorter than the input of {len(x)}")
        outputs, last = [], []
        for direction, reverse in enumerate(self.directions):
            weights = self._weights(w[direction], r[direction], None if b is None else b[direction])
            state = self._state(x, weights[1].shape[1], direction, h, c)
            y, state = self._run(direction, x, state, weights, reverse)
            outputs.append(y)
            last.append(state)
        y = stack(outputs, 1)  # (T, D, N, H)
        states = [stack(list(each)) for each in zip(*last, strict=True)]
        if self.batch_first:
            y, states = y.permute(2, 0, 1, 3), [state.transpose(0, 1) for state in states]
        return (y, *states)[: len(self.node.outputs)]

    def _run(self, direction: int, x: Tensor, state: State, weights: Weights, reverse: bool) -> tuple[Tensor, State]:
        if self.resets_first:
            return _gru_reset_first(x, state[0], weights, reverse)
        return recurrence(self.modes[direction], x, state, weights, reverse=reverse)

    def _weights(self, w: Tensor, r: Tensor, b: Tensor | None) -> Weights:
        w, r = self._in_order(w), self._in_order(r)
        if b is None:
            return w, r, None, None
        half = b.shape[0] // 2
        return w, r, self._in_order(b[:half]), self._in_order(b[half:])

    def _in_order(self, stacked: Tensor) -> Tensor:
        order = _GATES[self.node.op]
        if len(order) == 1:
            return stacked
        size = stacked.shape[0] // len(order)
        return cat([stacked[i * size : (i + 1) * size] for i in order])

    def _state(self, x: Tensor, hidden: int, direction: int, h: Tensor | None, c: Tensor | None) -> State:
        given = (h, c) if self.node.op == "LSTM" else (h,)
        zeros = Tensor(np.zeros((x.shape[1], hidden), x.dtype))
        return tuple(zeros if state is None else state[direction] for state in given)


def _gru_reset_first(x: Tensor, h: Tensor, weights: Weights, reverse: bool) -> tuple[Tensor, State]:
    """A GRU whose reset gate is applied to the state before the weight, not behind it: tanh(x·W + (r ⊙ h)·R + b)."""
    w, r, b_x, b_h = weights
    size = h.shape[-1]
    a, hs = linear(x, w, b_x), []
    gates_h, gate_n = (r[: 2 * size], r[2 * size :])
    bias_h, bias_n = (None, None) if b_h is None else (b_h[: 2 * size], b_h[2 * size :])
    for t in range(len(x))[::-1] if reverse else range(len(x)):
        both = (a[t][:, : 2 * size] + linear(h, gates_h, bias_h)).sigmoid()
        reset, update = both[:, :size], both[:, size:]
        n = (a[t][:, 2 * size :] + linear(reset * h, gate_n, bias_n)).tanh()
        h = n + update * (h - n)
        hs.append(h)
    return stack(hs[::-1] if reverse else hs), (h,)
