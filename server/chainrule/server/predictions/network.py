"""Networks as a predictor has them: loaded from the store, in evaluation mode, from arrays to arrays."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import chainrule.engine as cr
from chainrule.engine import io, models, nn

Array = NDArray[Any]
Named = tuple[tuple[str, Array], ...]
"""Arrays with their names, in order."""

INPUT, OUTPUT = "input", "output"
"""What the one input and the one output of a network of a family are called."""
UNFIT = (ValueError, RuntimeError, IndexError, TypeError)
"""What a forward pass raises for inputs that do not fit."""


class WeightsError(Exception):
    """The file of a network's weights is missing, or is not what its digest says."""


class InputError(Exception):
    """Inputs that a network does not take.

    Args:
        field: what is wrong, as a path from the request on.
        description: the value that came and what would be right.
    """

    def __init__(self, field: str, description: str) -> None:
        super().__init__(field, description)
        self.field = field
        self.description = description


@dataclass(frozen=True)
class NetworkSpec:
    """A version of a model: all that is needed to load it."""

    model: str
    """Resource name of the model, for errors."""
    family: str
    config: Mapping[str, object]
    weights_digest: str
    weights_file: str = field(compare=False)
    """Where the blob of that digest lies."""

    @cached_property
    def key(self) -> str:
        """Tells networks apart that compute differently."""
        what = json.dumps([self.family, self.config, self.weights_digest], sort_keys=True)
        return hashlib.sha256(what.encode()).hexdigest()


def load_network(spec: NetworkSpec) -> Network:
    """The network with its weights, which are compared with their digest. Raises WeightsError."""
    try:
        content = Path(spec.weights_file).read_bytes()
    except OSError as error:
        raise WeightsError(f'the weights of "{spec.model}" cannot be read: {error}') from error
    if io.digest(content) != spec.weights_digest:
        raise WeightsError(f'the weights of "{spec.model}" do not have their digest, {spec.weights_digest}')
    module = models.build(spec.family, spec.config)
    module.load_state_dict(io.load(content))
    return Network(spec.model, module)


class Network:
    """A module in evaluation mode.

    Args:
        model: what it is called in errors.
    """

    def __init__(self, model: str, module: nn.Module) -> None:
        self._model = model
        self._module = module.eval()
        self._module.requires_grad_(False)
        takes_tokens = any(isinstance(layer, nn.Embedding) for layer in module.modules())
        self._dtype = np.dtype(np.int64 if takes_tokens else np.float32)
        state = [*module.parameters(), *module.buffers()]
        self.size_bytes = sum(value.numel() * value.element_size() for value in state)
        """What its weights take in memory."""

    def __call__(self, inputs: Named) -> Named:
        """The outputs for inputs whose first dimension is that of the examples. Raises InputError."""
        array = self._checked(inputs)
        try:
            with cr.no_grad():
                output = self._module(cr.from_numpy(array))
        except UNFIT as error:
            raise InputError(
                "inputs[0]", f'"{INPUT}" of shape {array.shape} does not fit "{self._model}": {error}'
            ) from error
        return ((OUTPUT, _plain(output)),)

    def _checked(self, inputs: Named) -> Array:
        if len(inputs) != 1:
            came = ", ".join(f'"{name}"' for name, _ in inputs)
            raise InputError("inputs", f'are {len(inputs)} ({came}); "{self._model}" has one, "{INPUT}"')
        [(name, array)] = inputs
        if name not in ("", INPUT):
            raise InputError("inputs[0].name", f'is "{name}"; the input of "{self._model}" is "{INPUT}"')
        if array.dtype != self._dtype:
            raise InputError(
                "inputs[0].dtype",
                f'is {array.dtype}, of shape {array.shape}; the input "{INPUT}" of "{self._model}" is {self._dtype}',
            )
        return array


def _plain(output: cr.Tensor) -> Array:
    """As numpy has it by itself: without bfloat16."""
    array = (output.float() if output.dtype == cr.bfloat16 else output).numpy()
    return np.ascontiguousarray(array)
