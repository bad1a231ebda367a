"""Networks as a predictor has them: loaded from the store, in evaluation mode, from arrays to arrays."""

from __future__ import annotations

import hashlib
import json
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import chainrule.engine as cr
from chainrule.engine import io, nn
from chainrule.engine.nn.replay import Replay, record
from chainrule.server.architecture import Buildable, Builtin, GraphArchitecture
from chainrule.server.training.augmentation import Normalize, Transform, prepared
from chainrule.server.training.examples import as_features

Array = NDArray[Any]
Named = tuple[tuple[str, Array], ...]
"""Arrays with their names, in order."""
Inputs = Sequence[tuple[str, np.dtype[Any]]]

INPUT, OUTPUT = "input", "output"
"""What the one input and the one output of a network of a family are called."""
UNFIT = (ValueError, RuntimeError, IndexError, TypeError)
"""What a forward pass raises for inputs that do not fit."""
OFTEN = 3
"""So many inputs of a shape, and what is computed of them is recorded, which takes about four forward passes."""
SMALL_S = 0.005
"""A forward pass that takes longer has nothing to gain of that."""
MAX_SHAPES = 64
"""Most shapes of inputs that are known of a network."""


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
    architecture: Buildable
    """A graph without its content: that would go to a predictor with every batch."""
    weights_digest: str
    weights_file: str = field(compare=False)
    """Where the blob of that digest lies."""
    graph_file: str = field(default="", compare=False)
    """Where that of a graph lies."""
    preparation: tuple[Transform, ...] = ()
    """What is done to images before it takes them."""
    raw_bytes: bool = False
    """Whether bytes are the numbers that they are; else they are divided by 255."""

    @cached_property
    def key(self) -> str:
        """Tells networks apart that compute differently."""
        match self.architecture:
            case Builtin(family, config):
                what: list[object] = [family, dict(config)]
            case GraphArchitecture(digest):
                what = [digest]
        what += [self.weights_digest, repr(self.preparation), self.raw_bytes]
        return hashlib.sha256(json.dumps(what, sort_keys=True).encode()).hexdigest()


def load_network(spec: NetworkSpec) -> Network:
    """The network with its weights; files are compared with their digests. Raises WeightsError."""
    architecture = spec.architecture
    is_family = isinstance(architecture, Builtin)
    if isinstance(architecture, GraphArchitecture):
        content = _read(spec.graph_file, architecture.digest, f'the graph of "{spec.model}"')
        module, inputs, outputs = _of_graph(replace(architecture, content=content))
    else:
        module, inputs, outputs = _of_family(architecture)
    module.load_state_dict(io.load(_read(spec.weights_file, spec.weights_digest, f'the weights of "{spec.model}"')))
    replays = Replays(module) if is_family else None
    return Network(
        spec.model,
        module,
        inputs,
        outputs,
        preparation=spec.preparation,
        raw_bytes=spec.raw_bytes,
        replays=replays,
    )


def _of_family(architecture: Builtin) -> tuple[nn.Module, Inputs, list[str]]:
    module = architecture.build()
    takes_tokens = any(isinstance(layer, nn.Embedding) for layer in module.modules())
    return module, [(INPUT, np.dtype(np.int64 if takes_tokens else np.float32))], [OUTPUT]


def _of_graph(architecture: GraphArchitecture) -> tuple[nn.Module, Inputs, list[str]]:
    """A graph says itself what it takes and gives; what it makes this process allocate is bounded."""
    from chainrule.server.networks import in_service  # it brings onnx, which is not small: only where there is a graph

    module: Any = in_service(architecture)
    return module, [(s.name, np.dtype(s.dtype)) for s in module.inputs], [s.name for s in module.outputs]


def _read(file: str, digest: str, what: str) -> bytes:
    try:
        content = Path(file).read_bytes()
    except OSError as error:
        raise WeightsError(f"{what} cannot be read: {error}") from error
    if io.digest(content) != digest:
        raise WeightsError(f"{what} does not have the digest {digest}")
    return content


class Replays:
    """The forward passes of a module with one input, by the input's shape: of small ones that come often.

    Args:
        module: decides nothing by values; that is known of families.
    """

    def __init__(self, module: nn.Module, clock: Callable[[], float] = time.perf_counter) -> None:
        self._module = module
        self._clock = clock
        self._known: OrderedDict[tuple[int, ...], Replay | int | None] = OrderedDict()
        """A replay; or how often there was none; or None, if there can be none."""

    def __call__(self, array: Array) -> Array:
        """The module's output for an array."""
        found = self._known.get(array.shape, 0)
        if isinstance(found, Replay):
            self._known.move_to_end(array.shape)
            return found(array)
        began_s = self._clock()
        with cr.no_grad():
            output = _plain(self._module(cr.from_numpy(array)))
        if found is not None:
            is_small = self._clock() - began_s <= SMALL_S
            self._keep(array.shape, record(self._module, array) if is_small and found + 1 >= OFTEN else found + 1)
        return output

    def _keep(self, shape: tuple[int, ...], found: Replay | int | None) -> None:
        self._known[shape] = found
        self._known.move_to_end(shape)
        if len(self._known) > MAX_SHAPES:
            self._known.popitem(last=False)


class Network:
    """A module in evaluation mode.

    Args:
        model: what it is called in errors.
        inputs: name and dtype of each input, in the order in which the module takes them.
        outputs: what it gives, by name, likewise.
        preparation: what is done to images, the first input, before the module takes them.
        raw_bytes: whether bytes are the numbers that they are; else they are divided by 255.
        replays: what computes the module for its one input and output; None: it is called.
    """

    def __init__(
        self,
        model: str,
        module: nn.Module,
        inputs: Inputs,
        outputs: Sequence[str],
        *,
        preparation: tuple[Transform, ...] = (),
        raw_bytes: bool = False,
        replays: Replays | None = None,
    ) -> None:
        self._model = model
        self._module = module.eval()
        self._module.requires_grad_(False)
        self._inputs, self._outputs = inputs, outputs
        self._preparation, self._raw_bytes, self._replays = preparation, raw_bytes, replays
        state = [*module.parameters(), *module.buffers()]
        self.size_bytes = sum(value.numel() * value.element_size() for value in state)
        """What its weights take in memory."""

    def __call__(self, inputs: Named) -> Named:
        """The outputs for inputs whose first dimension is that of the examples; images are prepared as those were that
        it was trained on. Raises InputError."""
        arrays = self._checked(inputs)
        if self._preparation:
            arrays[0] = self._prepared(arrays[0])
        return self._outputs_for(arrays)

    def without_preparation(self, inputs: Named) -> Named:
        """As a call, of inputs that are prepared."""
        return self._outputs_for(self._checked(inputs))

    def _prepared(self, images: Array) -> Array:
        channels = {len(each.mean) for each in self._preparation if isinstance(each, Normalize)}
        if images.ndim != 4 or images.dtype != np.float32 or not channels <= {images.shape[1]}:
            shape = f"(N, {', '.join(map(str, channels)) or 'channels'}, height, width)"
            raise InputError(
                "inputs[0]",
                f'are {images.dtype} of shape {images.shape}; "{self._model}" prepares images of shape {shape}, '
                "float32 or uint8: send such, or say that they are prepared",
            )
        return prepared(images, self._preparation)

    def _outputs_for(self, arrays: list[Array]) -> Named:
        try:
            if self._replays is not None:
                return ((self._outputs[0], self._replays(*arrays)),)
            with cr.no_grad():
                found = self._module(*map(cr.from_numpy, arrays))
        except UNFIT as error:
            shapes = ", ".join(
                f'"{name}" of shape {array.shape}' for (name, _), array in zip(self._inputs, arrays, strict=True)
            )
            field = "inputs[0]" if len(arrays) == 1 else "inputs"
            raise InputError(field, f'{shapes} does not fit "{self._model}": {error}') from error
        outputs = found if isinstance(found, dict) else {self._outputs[0]: found}
        return tuple((name, _plain(output)) for name, output in outputs.items())

    def _checked(self, inputs: Named) -> list[Array]:
        """The arrays in the order of the network's inputs."""
        wanted = ", ".join(f'"{name}"' for name, _ in self._inputs)
        if len(inputs) != len(self._inputs):
            came = ", ".join(f'"{name}"' if name else "without a name" for name, _ in inputs)
            raise InputError(
                "inputs",
                f'are {len(inputs)} ({came}); "{self._model}" has {len(self._inputs)}: {wanted}; give each by its name',
            )
        places = {name: place for place, (name, _) in enumerate(self._inputs)}
        arrays: dict[int, Array] = {}
        for i, (name, array) in enumerate(inputs):
            place = places.get(name) if name else i
            if place is None or place in arrays:
                raise InputError(f"inputs[{i}].name", f'is "{name}"; "{self._model}" takes, each once: {wanted}')
            arrays[place] = self._typed(i, place, array)
        return [arrays[place] for place in range(len(arrays))]

    def _typed(self, i: int, place: int, array: Array) -> Array:
        name, dtype = self._inputs[place]
        if array.dtype == np.uint8 and dtype == np.float32:
            return array.astype(np.float32) if self._raw_bytes else as_features(array)
        if array.dtype != dtype:
            raise InputError(
                f"inputs[{i}].dtype",
                f'is {array.dtype}, of shape {array.shape}; the input "{name}" of "{self._model}" is {dtype}',
            )
        return array


def _plain(output: cr.Tensor) -> Array:
    """As numpy has it by itself: without bfloat16."""
    array = (output.float() if output.dtype == cr.bfloat16 else output).numpy()
    return np.ascontiguousarray(array)
