"""What the SDK takes for a network and for weights, as what is sent; and what has come back, as modules and files."""

import re
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from google.protobuf import json_format, struct_pb2

from chainrule.client import torch_modules
from chainrule.client.errors import InvalidInputError
from chainrule.client.wire import UINT64, plain, put
from chainrule.engine import CodeError, ConfigError, FormatError, StateDictError, Tensor, io, models, nn
from chainrule.engine.io.files import write_whole
from chainrule.v1 import model_pb2

Arrays = dict[str, np.ndarray]
Network = Any
"""A module of the engine, a torch.nn.Module, an ONNX file as its path or its bytes, a Python file as its path, or the
name of a family."""
Weights = Any
"""A mapping from names to arrays or tensors, or the path of a safetensors or .pth file."""


class Family(str):
    """The name of a family, where a text could also be the path of a file."""


ONNX = ".onnx"
PYTHON = ".py"
TOKEN_FAMILIES = ("gpt",)
"""Families whose inputs are tokens, not features."""
FRAMEWORKS = ("numpy", "torch")
FILE_NAME = re.compile(r"[A-Za-z0-9_. -]{1,97}\.py")
"""Names that a server takes for a file of code."""
DEFAULT_FILE_NAME = "model.py"


@dataclass(frozen=True)
class Parcel:
    """A network as it is sent: a family with its configuration, a graph, or code."""

    family: str = ""
    config: Mapping[str, Any] = field(default_factory=dict)
    graph: bytes = b""
    """An ONNX file without its weights; empty: it is a family."""
    weights: Arrays | None = None
    """None: the server initialises them."""
    code: models.Source | None = None
    """A Python file; None: it is no code."""
    outline: models.Outline = field(default_factory=lambda: models.Outline({}))
    """What the network that it makes consists of."""

    @property
    def file(self) -> bytes:
        """What is sent of it besides weights: the graph, or the code; empty: nothing."""
        return self.graph if self.code is None else self.code.content

    def message(self) -> model_pb2.Model:
        """The network as the API has it, without the digest of `file`.

        Raises:
            InvalidInputError: the configuration is not made of what JSON has.
        """
        if self.graph:
            return model_pb2.Model(graph=model_pb2.Graph())
        if self.code is not None:
            return model_pb2.Model(code=self._code(self.code))
        message = model_pb2.Model(builtin=model_pb2.Builtin(family=self.family))
        put_config(message.builtin.config, self.config, of=self.family)
        return message

    def put_digest(self, message: model_pb2.Model, digest: str) -> None:
        """Note in what `message` gave under which digest `file` was sent."""
        if self.graph:
            message.graph.digest = digest
        else:
            message.code.digest = digest

    def _code(self, source: models.Source) -> model_pb2.Code:
        message = model_pb2.Code(
            factory=source.factory,
            file_name=source.file_name,
            parameters=self.outline.parameters,
            tied=self.outline.tied,
            batch_norms=[
                model_pb2.BatchNorm(path=path, momentum=momentum) for path, momentum in self.outline.batch_norms.items()
            ],
        )
        put_config(message.config, source.config, of=source.file_name)
        return message

    def check_missing(self, patterns: Sequence[str]) -> Sequence[str]:
        """Patterns of names that the weights may lack.

        Raises:
            InvalidInputError: there are no weights that could.
        """
        if patterns and self.weights is None:
            raise InvalidInputError(
                f"allow_missing is {list(patterns)}, but there are no weights that could lack anything; give weights, "
                "or leave it out to have all of them initialised"
            )
        return patterns


def put_config(message: struct_pb2.Struct, config: Mapping[str, Any], *, of: str) -> None:
    """Set a configuration. Raises InvalidInputError if it is not made of what JSON has."""
    try:
        message.update(dict(config))
    except ValueError as error:
        raise InvalidInputError(f"the configuration of {of} is not made of JSON values: {error}") from error


# What is sent.


def parcel(
    network: Network,
    *,
    config: Mapping[str, Any] | None,
    example: object,
    weights: Weights | None,
    factory: str | None = None,
    seed: int = 0,
) -> Parcel:
    """A network with the weights that it begins with.

    Args:
        seed: of what the factory of a Python file draws.

    Raises:
        InvalidInputError: it is nothing that can be sent, or is given with what does not go with it.
        ChainruleError: a module cannot be exported, a file cannot be read.
    """
    given = None if weights is None else arrays_of(weights)
    if not isinstance(network, Family) and isinstance(network, str | Path) and Path(network).suffix == PYTHON:
        return _of_code(Path(network), factory or "build", config or {}, seed, given)
    if factory is not None:
        raise InvalidInputError(f"factory goes with a Python file, as net{PYTHON}; leave it out")
    if isinstance(network, Family) or (isinstance(network, str) and not _is_path(network)):
        return Parcel(family=str(network), config=config or {}, weights=None if given is None else with_counters(given))
    if config is not None:
        raise InvalidInputError("config goes with the name of a family, or a Python file; leave it out")
    if torch_modules.is_torch_module(network):
        from chainrule.client import graphs  # it brings onnx, which is not small

        return graphs.of_torch(network, example, given)
    made = _parcel(network, example)
    return made if given is None else replace(made, weights=with_counters(given) if made.family else given)


def _parcel(network: Network, example: object) -> Parcel:
    if isinstance(network, nn.Module):
        return _of_module(network, example)
    if isinstance(network, bytes | bytearray | memoryview):
        return _of_file(bytes(network))
    if isinstance(network, str | Path):
        return _of_path(Path(network))
    if isinstance(network, type):
        raise InvalidInputError(
            f"{network.__name__} is a class; give a network that is made of it: {network.__name__}(…)"
        )
    raise InvalidInputError(
        f"a {type(network).__name__} is no network; give a module of chainrule.engine or of PyTorch, the path or the "
        "bytes of an ONNX file, the path of a Python file, or the name of a family"
    )


def _is_path(text: str) -> bool:
    return text.endswith(ONNX) or "/" in text or "\\" in text


def _of_code(path: Path, factory: str, config: Mapping[str, Any], seed: int, weights: Arrays | None) -> Parcel:
    """A file of Python, which is run here to learn what the network consists of and begins with."""
    put(model_pb2.Model(), "init_seed", seed, allowed=UINT64)
    message = struct_pb2.Struct()
    put_config(message, config, of=str(path))
    sent = plain(json_format.MessageToDict(message))  # the factory is called with the same values here and there
    source = models.Source(_read(path), factory, sent, str(path))
    module = _run(source, seed)
    if weights is not None:
        try:
            module.load_state_dict(with_counters(weights, module.state_dict()))
        except StateDictError as error:
            raise InvalidInputError(f"weights do not fit the network of {path}: {error}") from error
    name = path.name if FILE_NAME.fullmatch(path.name) else DEFAULT_FILE_NAME
    return Parcel(
        config=sent,
        weights=arrays_of(module.state_dict()),
        code=replace(source, file_name=name),
        outline=models.outline_of(module),
    )


def _run(source: models.Source, seed: int) -> nn.Module:
    try:
        return source.build(seed)
    except CodeError as error:
        raise InvalidInputError(str(error)) from error


def _of_module(module: nn.Module, example: object) -> Parcel:
    try:
        family, settings = models.family_of(module)
    except ConfigError:
        from chainrule.client import graphs

        return graphs.of_module(module, example)
    return Parcel(family, settings, weights=arrays_of(module.state_dict()))


def _of_file(content: bytes) -> Parcel:
    from chainrule.client import graphs

    return graphs.of_file(content)


def _of_path(path: Path) -> Parcel:
    from chainrule.engine.graph import GraphError, UnsupportedError

    content = _read(path)
    try:
        return _of_file(content)
    except UnsupportedError:
        raise
    except GraphError as error:
        raise GraphError(f"{path}: {error}") from error


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise InvalidInputError(f"cannot read {path}: {(error.strerror or str(error)).lower()}") from error


# Weights that are given.


def arrays_of(weights: Weights) -> Arrays:
    """Weights as arrays by name.

    Raises:
        InvalidInputError: they are neither a mapping of arrays or tensors nor a file of such.
    """
    if isinstance(weights, str | Path):
        try:
            return io.load_weights(weights)
        except OSError as error:
            raise InvalidInputError(f"cannot read {weights}: {(error.strerror or str(error)).lower()}") from error
        except FormatError as error:
            raise InvalidInputError(str(error)) from error
    if not isinstance(weights, Mapping):
        raise InvalidInputError(
            f"weights is a {type(weights).__name__}; it must be a state_dict (names to arrays or tensors), or the path "
            "of a safetensors or .pth file"
        )
    return {name: _array(name, value) for name, value in weights.items()}


def with_counters(weights: Arrays, names: Container[str] | None = None) -> Arrays:
    """Weights with the counters of BatchNorm at 0 where they are not there: files of PyTorch before 0.4.1, as that of
    torchvision's resnet18, have none, and PyTorch takes them so.

    Args:
        names: those that there may be; None: all.
    """
    means = (name for name in weights if name.rpartition(".")[2] == "running_mean")
    counters = (f"{name.removesuffix('running_mean')}num_batches_tracked" for name in means)
    lacking = (name for name in counters if name not in weights and (names is None or name in names))
    return {**weights, **{name: np.zeros((), np.int64) for name in lacking}}


def _array(name: object, value: object) -> np.ndarray:
    if not isinstance(name, str):
        raise InvalidInputError(f"weights has the name {name!r}; names must be texts")
    if isinstance(value, np.ndarray | np.generic):
        return np.asarray(value)
    if isinstance(value, Tensor):
        return value.numpy()
    if torch_modules.is_torch_tensor(value):
        return torch_modules.to_numpy(value)
    raise InvalidInputError(f"weights has a {type(value).__name__} as {name!r}; it must be an array or a tensor")


# What comes back.


def state_dict(weights: Arrays, content: bytes | None, framework: str) -> dict[str, Any]:
    """Weights by the names of the module that a model was made of.

    Args:
        content: the graph; None: the model is of a family.
        framework: "numpy" or "torch".

    Raises:
        InvalidInputError: there is no such framework, or it is not installed.
    """
    if framework not in FRAMEWORKS:
        raise InvalidInputError(f"framework is {framework!r}; it must be one of: {', '.join(FRAMEWORKS)}")
    if content is not None:
        from chainrule.client import graphs

        weights = graphs.completed(weights, content)
    return dict(weights) if framework == "numpy" else torch_modules.to_tensors(weights)


def module_of(family: str, config: Mapping[str, Any], content: bytes | None, weights: Arrays) -> nn.Module:
    """A module of the engine with these weights."""
    if content is None:
        module = models.build(family, config)
    else:
        from chainrule.client import graphs

        module = graphs.module_of(content)
    module.load_state_dict(weights)
    return module


def module_of_code(
    path: str | Path, digest: str, *, factory: str, config: Mapping[str, Any], seed: int, weights: Arrays
) -> nn.Module:
    """What a Python file of this machine makes, with these weights: it is run here.

    Args:
        digest: SHA-256 of the file that the model was created with.
        factory, config: what is called, and with what, as the server says: a function or class of the file's own.

    Raises:
        InvalidInputError: the file cannot be read, is another one, has no such function, or fails.
    """
    content = _read(Path(path))
    found = io.digest(content)
    if found != digest:
        raise InvalidInputError(
            f"{path} has the SHA-256 {found}, but the model was created with a file that has {digest}; give that one, "
            "as model.source() shows it"
        )
    if factory not in models.own_factories(content):  # whoever has imported subprocess.run has not offered it
        raise InvalidInputError(
            f'{path} has no function or class of its own called "{factory}", which the server says makes the network; '
            "what it imports, or gives another name, is not called because a server says so"
        )
    module = _run(models.Source(content, factory, config, str(path)), seed)
    module.load_state_dict(weights)
    return module


def example_of(family: str, input_shape: tuple[int, ...]) -> np.ndarray:
    """A batch of two inputs of a dataset that a model of a family was trained on."""
    return np.zeros((2, *input_shape), np.int64 if family in TOKEN_FAMILIES else np.float32)


def check_format(path: str | Path) -> Path:
    """The path of a file to save, whose name says the format. Raises InvalidInputError if it does not."""
    path = Path(path)
    if path.suffix not in (ONNX, ".safetensors", ".pth", ".pt"):
        raise InvalidInputError(
            f"{path} does not say by its name what to write; let it end with .onnx, .safetensors or .pth"
        )
    return path


def save(
    path: Path, weights: Arrays, content: bytes | None, *, family: str, config: Mapping[str, Any], example: object
) -> None:
    """Write a model to a file, which is there whole or not at all: weights as .safetensors or .pth, all of it as .onnx.

    Args:
        path: as `check_format` gives it.
        content: the graph; None: the model is of a family, which an .onnx file is exported from with an `example`.

    Raises:
        InvalidInputError: the file cannot be written, or an example is needed.
    """
    try:
        if path.suffix == ONNX:
            from chainrule.client import graphs

            if content is None:
                whole = graphs.exported(module_of(family, config, None, weights), example)
            else:
                whole = graphs.joined(content, weights)
            write_whole(path, [whole])
        elif path.suffix == ".safetensors":
            io.save_file(weights, path)
        else:
            io.save_pth_file(state_dict(weights, content, "numpy"), path)
    except OSError as error:
        raise InvalidInputError(f"cannot write {path}: {(error.strerror or str(error)).lower()}") from error
