"""Modules of PyTorch: exported as graphs, and their weights there and back. PyTorch is imported only where a caller has
handed in something of it, or wants something of it."""

import copy
import importlib
import inspect
import io as streams
import sys
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import ml_dtypes
import numpy as np

from chainrule.client.errors import InvalidInputError

OPSET = 17
TRACED_EXAMPLES = 2
"""How many examples a module is traced with: BatchNorm does not train on one, and more say no more."""


def is_torch_module(value: object) -> bool:
    """Whether it is a torch.nn.Module. Without importing PyTorch: who has one, has imported it."""
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(value, torch.nn.Module)


def is_torch_tensor(value: object) -> bool:
    """Whether it is a torch.Tensor."""
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(value, torch.Tensor)


def to_numpy(tensor: Any) -> np.ndarray:
    """The values of a torch.Tensor, on whatever device it is, as an array of its own."""
    torch = _torch()
    tensor = tensor.detach().cpu().contiguous()
    if tensor.dtype == torch.bfloat16:
        bits: np.ndarray = tensor.view(torch.int16).numpy().copy()
        return bits.view(ml_dtypes.bfloat16)
    found: np.ndarray = tensor.numpy().copy()
    return found


def to_tensors(arrays: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """Arrays as tensors of PyTorch, which have memory of their own.

    Raises:
        InvalidInputError: PyTorch is not installed.
    """
    torch = _torch()
    return {name: _tensor(torch, array) for name, array in arrays.items()}


def state_of(module: Any) -> dict[str, np.ndarray]:
    """The state_dict of a torch.nn.Module as arrays."""
    return {name: to_numpy(tensor) for name, tensor in module.state_dict().items() if is_torch_tensor(tensor)}


def exported(module: Any, example: object) -> bytes:
    """A torch.nn.Module as an ONNX file in which BatchNorm and dropout are trained, and nothing is folded.

    The module stays as it is, and so does PyTorch's random state: a copy is traced.

    Args:
        example: a batch of inputs, a tuple of several, or several by the names that `forward` has for them; only shapes
            and dtypes matter.

    Raises:
        InvalidInputError: there is no example, or the module cannot be copied, run on it or exported.
    """
    torch = _torch()
    call = _call(torch, module, example)
    try:
        twin = copy.deepcopy(module).cpu().train()
    except RuntimeError as error:
        raise InvalidInputError(
            f"{type(module).__name__} cannot be copied to be traced: {error}; export it with torch.onnx.export(..., "
            "training=torch.onnx.TrainingMode.TRAINING, do_constant_folding=False) and give the file"
        ) from error
    with torch.random.fork_rng(devices=[]):
        outputs = _try(torch, twin, call)
        reasons = []
        for export in (_by_tracing, _by_dynamo):
            try:
                return export(torch, twin, call, outputs)
            except Exception as error:  # noqa: BLE001 — exporters raise whatever went wrong in them
                reasons.append(f"{export.__name__.removeprefix('_by_')}: {_first_line(error)}")
    raise InvalidInputError(
        f"torch.onnx.export does not take {type(module).__name__}: {'; '.join(reasons)}; write what it names otherwise"
    )


# What PyTorch is asked to do.


@dataclass(frozen=True)
class _Call:
    """How a module is run once."""

    names: list[str]
    """Of its inputs."""
    inputs: list[Any]
    by_name: bool
    """Whether they are given by name, rather than in order."""

    def of(self, module: Any) -> Any:
        """What the module gives."""
        return module(**dict(zip(self.names, self.inputs, strict=True))) if self.by_name else module(*self.inputs)


def _by_tracing(torch: Any, module: Any, call: _Call, outputs: Sequence[str]) -> bytes:
    target, forward = streams.BytesIO(), module.forward

    def in_order(*inputs: Any) -> Any:
        given = forward(**dict(zip(call.names, inputs, strict=True))) if call.by_name else forward(*inputs)
        return tuple(given.values()) if isinstance(given, Mapping) else given

    module.forward = in_order  # of the copy: tracing knows neither names of inputs nor mappings of outputs
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of an exporter that is there, though another is newer
        warnings.simplefilter("default", torch.jit.TracerWarning)  # of what becomes a constant
        warnings.filterwarnings("ignore", category=torch.jit.TracerWarning, module=r"torch\.")  # in PyTorch's own code
        torch.onnx.export(
            module,
            tuple(call.inputs),
            target,
            dynamo=False,
            training=torch.onnx.TrainingMode.TRAINING,
            do_constant_folding=False,
            opset_version=OPSET,
            input_names=call.names,
            output_names=list(outputs),
            dynamic_axes={name: {0: "batch"} for name in [*call.names, *outputs]},
        )
    return target.getvalue()


def _by_dynamo(torch: Any, module: Any, call: _Call, outputs: Sequence[str]) -> bytes:
    module.__dict__.pop("forward", None)  # what tracing has put there
    batch = torch.export.Dim("batch")
    in_order = () if call.by_name else tuple(call.inputs)
    by_name = dict(zip(call.names, call.inputs, strict=True)) if call.by_name else {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that a module in training mode is exported
        program = torch.onnx.export(
            module,
            in_order,
            kwargs=by_name,
            dynamo=True,
            training=torch.onnx.TrainingMode.TRAINING,
            dynamic_shapes={name: {0: batch} for name in by_name} or tuple({0: batch} for _ in in_order),
            output_names=None if len(outputs) == 1 else list(outputs),
            optimize=False,
            verbose=False,
        )
    content: bytes = program.model_proto.SerializeToString()
    return content


def _try(torch: Any, module: Any, call: _Call) -> list[str]:
    """A forward pass tells what is wrong with the example before the exporter does; the names of its outputs."""
    shapes = ", ".join(f"{str(x.dtype).removeprefix('torch.')} {tuple(x.shape)}" for x in call.inputs)
    try:
        with torch.no_grad():
            output = call.of(module)
    except Exception as error:
        raise InvalidInputError(
            f"{type(module).__name__} does not take the example ({shapes}): {_first_line(error)}; give a batch that it "
            "takes, whose first dimension counts examples, also of one: x[None]"
        ) from error
    if is_torch_tensor(output):
        return ["output" if "output" not in {*call.names, *module.state_dict()} else "output_0"]
    if isinstance(output, Mapping):
        given = {str(name): value for name, value in output.items()}
    elif isinstance(output, tuple | list):
        names = getattr(output, "_fields", None) or [f"output_{place}" for place in range(len(output))]
        given = dict(zip(names, output, strict=True))
    else:
        given = {}
    strange = {name: type(value).__name__ for name, value in given.items() if not is_torch_tensor(value)}
    if not given or strange:
        what = ", ".join(f"{kind} as {name}" for name, kind in strange.items()) or "nothing else"
        raise InvalidInputError(
            f"{type(module).__name__} gives a {type(output).__name__}, with {what}; a model gives a tensor, or several "
            "in a tuple or by name: wrap it in a module that does"
        )
    for kind, known in (("an input", call.names), ("a parameter or buffer", module.state_dict())):
        if taken := [name for name in given if name in known]:
            raise InvalidInputError(
                f'{type(module).__name__} gives "{taken[0]}", which is what it calls {kind}, too; a graph has one name '
                "for each: give the output another"
            )
    return list(given)


def _call(torch: Any, module: Any, example: object) -> _Call:
    """The inputs to trace with."""
    if isinstance(example, Mapping):
        known = inspect.signature(module.forward).parameters
        several = any(p.kind is inspect.Parameter.VAR_KEYWORD for p in known.values())
        for name in example:
            if name not in known and not several:
                raise InvalidInputError(
                    f'example has "{name}", but {type(module).__name__}.forward takes {", ".join(known)}'
                )
            if name in module.state_dict():
                raise InvalidInputError(
                    f'example has "{name}", which is a parameter or buffer of {type(module).__name__}, too; a graph '
                    "has one name for each: rename the argument of forward"
                )
        return _Call(list(map(str, example)), _inputs(torch, module, tuple(example.values())), by_name=True)
    inputs = _inputs(torch, module, example)
    return _Call(_input_names(module, len(inputs)), inputs, by_name=False)


def _inputs(torch: Any, module: Any, example: object) -> list[Any]:
    """The first examples of the batch, on the CPU, numbers in the module's dtype."""
    if example is None:
        raise InvalidInputError(
            f"{type(module).__name__} is exported by running it once: give example=, a batch of inputs"
        )
    floating = next((p.dtype for p in module.parameters() if p.dtype.is_floating_point), torch.float32)
    found = []
    for value in example if isinstance(example, (tuple, list)) else (example,):
        tensor = value.detach().cpu() if is_torch_tensor(value) else _tensor(torch, np.asarray(value))
        if tensor.ndim < 1 or not tensor.shape[0]:
            raise InvalidInputError(
                f"example has shape {tuple(tensor.shape)}; it must be a batch, whose first dimension counts examples"
            )
        if tensor.is_floating_point():
            tensor = tensor.to(floating)
        repeated = torch.cat([tensor[:TRACED_EXAMPLES]] * TRACED_EXAMPLES) if tensor.shape[0] < 2 else tensor
        found.append(repeated[:TRACED_EXAMPLES].clone())
    return found


def _input_names(module: Any, count: int) -> list[str]:
    """What `forward` calls its inputs, if it does and nothing else in the module is called so."""
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    found = [name for name, p in inspect.signature(module.forward).parameters.items() if p.kind in kinds]
    taken, given = module.state_dict(), found[:count] if len(found) >= count else [""] * count
    return [name if name and name not in taken else f"input_{i}" for i, name in enumerate(given)]


def _tensor(torch: Any, array: np.ndarray) -> Any:
    array = np.array(array, order="C", copy=True)
    if array.dtype == ml_dtypes.bfloat16:
        return torch.from_numpy(array.view(np.int16)).view(torch.bfloat16)
    return torch.from_numpy(array)


def _first_line(error: BaseException) -> str:
    line = str(error).strip().partition("\n")[0].partition("\x1b")[0]  # PyTorch's advice to people follows in colour
    return f"{type(error).__name__}: {line.rstrip()[:400]}"


def _torch() -> Any:
    try:
        return importlib.import_module("torch")
    except ImportError as error:
        raise InvalidInputError(f"PyTorch cannot be imported ({error}); install it, or ask for numpy arrays") from error
