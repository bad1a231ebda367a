"""Recurrent layers over sequences: RNN, LSTM and GRU."""

from __future__ import annotations

import math
import warnings
from typing import Any, Generic, TypeVar

import numpy as np
import numpy.typing as npt

from chainrule.engine.creation import empty
from chainrule.engine.errors import ConfigError, DTypeError, ShapeError, UnsupportedError
from chainrule.engine.functions.autocast import is_active
from chainrule.engine.functions.joining import cat, stack
from chainrule.engine.nn import functional as F
from chainrule.engine.nn import init
from chainrule.engine.nn.functional.recurrent import State, Weights, recurrence
from chainrule.engine.nn.layers.factory import parameter_dtype
from chainrule.engine.nn.module import Module
from chainrule.engine.nn.parameter import Parameter
from chainrule.engine.tensor import Tensor

Hidden = TypeVar("Hidden", Tensor, tuple[Tensor, Tensor])
"""What a layer is given and gives besides its outputs: h, or (h, c)."""

gate_count = {"RNN_TANH": 1, "RNN_RELU": 1, "LSTM": 4, "GRU": 3}


class InputRankError(ShapeError, ValueError):
    """An input with too few or too many dimensions, which PyTorch's recurrent layers refuse as a ValueError."""


class InputDTypeError(DTypeError, ValueError):
    """An input of another dtype than the weights, which PyTorch's recurrent layers refuse as a ValueError."""


class RNNBase(Module, Generic[Hidden]):
    """What RNN, LSTM and GRU share: layers one on another, each in one direction or both.

    The parameters of layer k are weight_ih_l<k> (gates · hidden_size, inputs), weight_hh_l<k> (gates · hidden_size,
    hidden_size), bias_ih_l<k> and bias_hh_l<k>, with `_reverse` appended for the other direction. All are drawn from
    U(−1/√hidden_size, 1/√hidden_size).

    Args:
        mode: RNN_TANH, RNN_RELU, LSTM or GRU.
        input_size: features of an input.
        hidden_size: features of the state.
        num_layers: layers; each is given the outputs of the one before.
        bias: whether there are biases.
        batch_first: whether sequences are (N, T, features) rather than (T, N, features); states never are.
        dropout: the share of the outputs of each layer but the last that is dropped while training.
        bidirectional: whether each layer runs in both directions, the outputs of which are concatenated.
        proj_size: 0.

    Raises:
        ConfigError: a setting is out of range.
        DTypeError: a size is no integer.
        UnsupportedError: a projection.
    """

    def __init__(
        self,
        mode: str,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        proj_size: int = 0,
        device: object = None,
        dtype: npt.DTypeLike | None = None,
    ) -> None:
        super().__init__()
        dtype = parameter_dtype(device, dtype)
        _check_settings(input_size, hidden_size, num_layers, dropout, proj_size)
        self.mode = mode
        self.input_size = input_size
        self.hidden_size = hidden_size
        self.num_layers = num_layers
        self.bias = bias
        self.batch_first = batch_first
        self.dropout = float(dropout)
        self.bidirectional = bidirectional
        self.proj_size = proj_size
        directions = 2 if bidirectional else 1
        gates = gate_count[mode] * hidden_size
        for layer in range(num_layers):
            inputs = input_size if layer == 0 else hidden_size * directions
            for suffix in self._suffixes(layer):
                self.register_parameter(f"weight_ih{suffix}", Parameter(empty(gates, inputs, dtype=dtype)))
                self.register_parameter(f"weight_hh{suffix}", Parameter(empty(gates, hidden_size, dtype=dtype)))
                if bias:
                    self.register_parameter(f"bias_ih{suffix}", Parameter(empty(gates, dtype=dtype)))
                    self.register_parameter(f"bias_hh{suffix}", Parameter(empty(gates, dtype=dtype)))
        self.reset_parameters()

    def _suffixes(self, layer: int) -> list[str]:
        """How the names of the parameters of a layer end, for each direction."""
        return [f"_l{layer}", f"_l{layer}_reverse"] if self.bidirectional else [f"_l{layer}"]

    def reset_parameters(self) -> None:
        """Draws the parameters anew."""
        _reset(self, self.hidden_size)

    @property
    def all_weights(self) -> list[list[Parameter]]:
        """The parameters of each layer and direction."""
        suffixes = [suffix for layer in range(self.num_layers) for suffix in self._suffixes(layer)]
        return [[p for w in _kinds if (p := self._parameters.get(f"{w}{suffix}")) is not None] for suffix in suffixes]

    def flatten_parameters(self) -> None:
        """Does nothing: PyTorch's moves parameters together in the memory of a GPU."""

    def forward(self, input: Tensor, hx: Hidden | None = None) -> tuple[Tensor, Hidden]:
        """The last layer's states, and the last states of each layer.

        Args:
            input: (T, N, input_size), (N, T, input_size) if `batch_first`, or (T, input_size).
            hx: the states before the first step, (num_layers · directions, N, hidden_size), or without N; None: 0. Of
                an LSTM a pair, h and c.

        Raises:
            ShapeError: shapes do not fit.
            InputDTypeError: the input is of another dtype than the weights.
        """
        batched = self._check_input(input)
        states: State | None = None if hx is None else hx if isinstance(hx, tuple) else (hx,)
        if states is not None:
            self._check_rank(states, batched)
        x = input if batched else input.unsqueeze(1)
        if batched and self.batch_first:
            x = x.transpose(0, 1)
        states = self._initial(x, states, batched)
        x, last = self._run(x, states)
        if not batched:
            x, last = x.squeeze(1), tuple(state.squeeze(1) for state in last)
        elif self.batch_first:
            x = x.transpose(0, 1)
        return x, last if self.mode == "LSTM" else last[0]  # type: ignore[return-value]

    def _run(self, x: Tensor, states: State) -> tuple[Tensor, State]:
        directions = 2 if self.bidirectional else 1
        last: list[State] = []
        for layer in range(self.num_layers):
            outputs = []
            for direction, suffix in enumerate(self._suffixes(layer)):
                state = tuple(s[layer * directions + direction] for s in states)
                y, state = recurrence(self.mode, x, state, _weights(self, suffix), reverse=direction == 1)
                outputs.append(y)
                last.append(state)
            x = outputs[0] if directions == 1 else cat(outputs, -1)
            if self.dropout and layer < self.num_layers - 1:
                x = F.dropout(x, self.dropout, self.training)
        return x, tuple(stack(list(each)) for each in zip(*last, strict=True))

    # ---- Checks ----

    def _check_input(self, input: Tensor) -> bool:
        """Whether there is a batch."""
        name = self.mode.partition("_")[0]
        if input.ndim not in (2, 3):
            word = " tensor" if name == "RNN" else ""
            raise InputRankError(f"{name}: Expected input to be 2D or 3D, got {input.ndim}D{word} instead")
        weight = self.all_weights[0][0]
        if input.dtype != weight.dtype and not is_active():
            raise InputDTypeError(
                f"RNN input dtype ({input.dtype}) does not match weight dtype ({weight.dtype}). Convert input: "
                f"input.to({weight.dtype}), or convert model: model.to({input.dtype})"
            )
        if input.shape[-1] != self.input_size:
            raise ShapeError(
                f"input.size(-1) must be equal to input_size. Expected {self.input_size}, got {input.shape[-1]}"
            )
        if input.shape[1 if input.ndim == 3 and self.batch_first else 0] == 0:
            raise ShapeError("Expected sequence length to be larger than 0 in RNN")
        return input.ndim == 3

    def _check_rank(self, states: State, batched: bool) -> None:
        if all(state.ndim == 2 + batched for state in states):
            return
        kind = "batched 3-D" if batched else "unbatched 2-D"
        what, found = "hx", f"{states[0].ndim}-D tensor"
        if self.mode == "LSTM":
            what, found = "hx and cx", f"({', '.join(f'{state.ndim}-D' for state in states)}) tensors"
        raise ShapeError(f"For {kind} input, {what} should also be {2 + batched}-D but got {found}")

    def _initial(self, x: Tensor, states: State | None, batched: bool) -> State:
        shape = (self.num_layers * (2 if self.bidirectional else 1), x.shape[1], self.hidden_size)
        if states is None:
            return tuple(Tensor(np.zeros(shape, x.dtype)) for _ in range(2 if self.mode == "LSTM" else 1))
        if not batched:
            states = tuple(state.unsqueeze(1) for state in states)
        for number, state in enumerate(states):
            if state.shape != shape:
                what = f"hidden[{number}]" if self.mode == "LSTM" else "hidden"
                raise ShapeError(f"Expected {what} size {shape}, got {list(state.shape)}")
        return states

    def extra_repr(self) -> str:
        text = f"{self.input_size}, {self.hidden_size}"
        for name, usual in (("num_layers", 1), ("bias", True), ("batch_first", False), ("dropout", 0.0)):
            if getattr(self, name) != usual:
                text += f", {name}={getattr(self, name)}"
        return text + (", bidirectional=True" if self.bidirectional else "")


class RNN(RNNBase[Tensor]):
    """hₜ = φ(xₜ·Wₓᵀ + bₓ + hₜ₋₁·Wₕᵀ + bₕ), φ tanh or relu by `nonlinearity`; see `RNNBase`."""

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        nonlinearity: str = "tanh",
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        device: object = None,
        dtype: npt.DTypeLike | None = None,
    ) -> None:
        _check_nonlinearity(nonlinearity)
        super().__init__(
            f"RNN_{nonlinearity.upper()}",
            input_size,
            hidden_size,
            num_layers,
            bias,
            batch_first,
            dropout,
            bidirectional,
            device=device,
            dtype=dtype,
        )
        self.nonlinearity = nonlinearity


class LSTM(RNNBase[tuple[Tensor, Tensor]]):
    """cₜ = f · cₜ₋₁ + i · g and hₜ = o · tanh cₜ; see `RNNBase`.

    i, f, g, o = σ, σ, tanh, σ of the four parts of xₜ·Wₓᵀ + bₓ + hₜ₋₁·Wₕᵀ + bₕ. The state is (h, c).
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        proj_size: int = 0,
        device: object = None,
        dtype: npt.DTypeLike | None = None,
    ) -> None:
        settings = (num_layers, bias, batch_first, dropout, bidirectional, proj_size, device, dtype)
        super().__init__("LSTM", input_size, hidden_size, *settings)


class GRU(RNNBase[Tensor]):
    """hₜ = (1 − z) · n + z · hₜ₋₁; see `RNNBase`.

    r, z = σ of parts of xₜ·Wₓᵀ + bₓ + hₜ₋₁·Wₕᵀ + bₕ; n = tanh of the third part, where r multiplies what hₜ₋₁ adds.
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        device: object = None,
        dtype: npt.DTypeLike | None = None,
    ) -> None:
        settings = (num_layers, bias, batch_first, dropout, bidirectional, 0, device, dtype)
        super().__init__("GRU", input_size, hidden_size, *settings)


# ---- One step ----


class RNNCellBase(Module, Generic[Hidden]):
    """One step of one layer; parameters weight_ih, weight_hh, bias_ih, bias_hh, as those of `RNNBase`."""

    weight_ih: Parameter
    weight_hh: Parameter
    bias_ih: Parameter | None
    bias_hh: Parameter | None

    def __init__(
        self, mode: str, input_size: int, hidden_size: int, bias: bool, device: object, dtype: npt.DTypeLike | None
    ) -> None:
        super().__init__()
        dtype = parameter_dtype(device, dtype)
        self.input_size = input_size
        self.hidden_size = hidden_size
        self.bias = bias
        gates = gate_count[mode] * hidden_size
        self.weight_ih = Parameter(empty(gates, input_size, dtype=dtype))
        self.weight_hh = Parameter(empty(gates, hidden_size, dtype=dtype))
        self.register_parameter("bias_ih", Parameter(empty(gates, dtype=dtype)) if bias else None)
        self.register_parameter("bias_hh", Parameter(empty(gates, dtype=dtype)) if bias else None)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draws the parameters anew."""
        _reset(self, self.hidden_size)

    def _mode(self) -> str:
        return type(self).__name__.removesuffix("Cell")

    def forward(self, input: Tensor, hx: Hidden | None = None) -> Hidden:
        """The state after the step.

        Args:
            input: (N, input_size), or (input_size).
            hx: the state before, (N, hidden_size) or (hidden_size); None: 0. Of an LSTM a pair, h and c.

        Raises:
            ShapeError: shapes do not fit.
        """
        name, mode = type(self).__name__, self._mode()
        if input.ndim not in (1, 2):
            raise InputRankError(f"{name}: Expected input to be 1D or 2D, got {input.ndim}D instead")
        given: State = () if hx is None else hx if isinstance(hx, tuple) else (hx,)
        for number, state in enumerate(given):
            if state.ndim not in (1, 2):
                what = f"hx[{number}]" if mode == "LSTM" else "hidden"
                raise InputRankError(f"{name}: Expected {what} to be 1D or 2D, got {state.ndim}D instead")
        x = input if input.ndim == 2 else input.unsqueeze(0)
        if x.shape[1] != self.input_size:
            raise ShapeError(f"input has inconsistent input_size: got {x.shape[1]} expected {self.input_size}")
        states: State = tuple(state if input.ndim == 2 else state.unsqueeze(0) for state in given)
        shape = (len(x), self.hidden_size)
        if hx is None:
            states = tuple(Tensor(np.zeros(shape, x.dtype)) for _ in range(2 if mode == "LSTM" else 1))
        for number, state in enumerate(states):
            if state.shape != shape:
                raise ShapeError(f"{name}: expected hidden{number} of shape {shape}, got {state.shape}")
        _, states = recurrence(mode, x.unsqueeze(0), states, _weights(self, ""), cell=True)
        if input.ndim == 1:
            states = tuple(state.squeeze(0) for state in states)
        return states if mode == "LSTM" else states[0]  # type: ignore[return-value]

    def extra_repr(self) -> str:
        return f"{self.input_size}, {self.hidden_size}" + ("" if self.bias else ", bias=False")


class RNNCell(RNNCellBase[Tensor]):
    """h' = φ(x·Wₓᵀ + bₓ + h·Wₕᵀ + bₕ), φ tanh or relu by `nonlinearity`."""

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        bias: bool = True,
        nonlinearity: str = "tanh",
        device: object = None,
        dtype: npt.DTypeLike | None = None,
    ) -> None:
        _check_nonlinearity(nonlinearity)
        super().__init__("RNN_TANH", input_size, hidden_size, bias, device, dtype)
        self.nonlinearity = nonlinearity

    def _mode(self) -> str:
        return f"RNN_{self.nonlinearity.upper()}"

    def extra_repr(self) -> str:
        return super().extra_repr() + ("" if self.nonlinearity == "tanh" else f", nonlinearity={self.nonlinearity}")


class LSTMCell(RNNCellBase[tuple[Tensor, Tensor]]):
    """One step of an LSTM: (h', c') of x and (h, c)."""

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        bias: bool = True,
        device: object = None,
        dtype: npt.DTypeLike | None = None,
    ) -> None:
        super().__init__("LSTM", input_size, hidden_size, bias, device, dtype)


class GRUCell(RNNCellBase[Tensor]):
    """One step of a GRU: h' of x and h."""

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        bias: bool = True,
        device: object = None,
        dtype: npt.DTypeLike | None = None,
    ) -> None:
        super().__init__("GRU", input_size, hidden_size, bias, device, dtype)


# ---- Parts ----

_kinds = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")


def _weights(module: Module, suffix: str) -> Weights:
    w_x, w_h, b_x, b_h = (module._parameters.get(f"{kind}{suffix}") for kind in _kinds)
    assert w_x is not None
    assert w_h is not None
    return w_x, w_h, b_x, b_h


def _reset(module: Module, hidden_size: int) -> None:
    bound = 1 / math.sqrt(hidden_size) if hidden_size > 0 else 0
    for parameter in module.parameters():
        init.uniform_(parameter, -bound, bound)


def _check_nonlinearity(nonlinearity: str) -> None:
    if nonlinearity not in ("tanh", "relu"):
        raise ConfigError(
            "nonlinearity", nonlinearity, f"Unknown nonlinearity '{nonlinearity}'. Select from 'tanh' or 'relu'."
        )


def _check_settings(input_size: Any, hidden_size: Any, num_layers: Any, dropout: Any, proj_size: Any) -> None:
    if isinstance(dropout, bool) or not isinstance(dropout, int | float) or not 0 <= dropout <= 1:
        raise ConfigError(
            "dropout",
            dropout,
            "dropout should be a number in range [0, 1] representing the probability of an element being zeroed",
        )
    if dropout > 0 and num_layers == 1:
        warnings.warn(
            "dropout option adds dropout after all but last recurrent layer, so non-zero dropout expects num_layers "
            f"greater than 1, but got dropout={dropout} and num_layers={num_layers}",
            stacklevel=4,
        )
    for name, value in (("input_size", input_size), ("hidden_size", hidden_size)):
        if isinstance(value, bool) or not isinstance(value, int):
            raise DTypeError(f"{name} should be of type int, got: {type(value).__name__}")
        if value <= 0:
            raise ConfigError(name, value, f"{name} must be greater than zero")
    if num_layers <= 0:
        raise ConfigError("num_layers", num_layers, "num_layers must be greater than zero")
    if proj_size != 0:
        raise UnsupportedError(f"proj_size={proj_size}: projections are not supported by this version; use 0")
