"""What a server has besides jobs, as frozen values: models, datasets, the server itself and its nodes."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from google.protobuf import json_format

from chainrule.client.wire import labels_of, moment, plain
from chainrule.engine.io.chunked import Column
from chainrule.v1 import cluster_pb2, dataset_pb2, model_pb2


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorSpec:
    """An input or output of a network."""

    name: str
    dtype: str
    """What its elements are, as numpy calls it: "float32"."""
    shape: tuple[int | str, ...]
    """Its dimensions; one that is free has a name, which may be empty."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelRecord:
    """What a server says of a model: a named architecture with weights to start training from."""

    name: str
    """Resource name, for example "models/digits"."""
    family: str
    """Family of the architecture, for example "small_cnn"; empty: it is a graph, or code."""
    config: Mapping[str, Any]
    """Configuration of the family, or of the code's factory, for example {"num_classes": 10}."""
    weights_digest: str | None
    """SHA-256 of the weights as a safetensors file; None where the server initialises them from init_seed."""
    init_seed: int
    """Seed of the initialisation where there are no weights, and of what they lacked."""
    num_parameters: int
    """Number of trainable values."""
    create_time: datetime
    """When it was created, in UTC."""
    labels: Mapping[str, str] = field(default_factory=dict)
    """Notes to find it by."""
    description: str = ""
    """What it is for."""
    latest_version: str = ""
    """Resource name of its newest version, for example "models/digits/versions/2"."""
    graph_digest: str | None = None
    """SHA-256 of the graph, as an ONNX file without its weights; None: it is of a family, or code."""
    code_digest: str | None = None
    """SHA-256 of the Python file that makes the network; None: it is no code."""
    factory: str = ""
    """The function or class of that file that makes it."""
    file_name: str = ""
    """What that file is called."""
    class_labels: tuple[str, ...] = ()
    """What the classes are called, in the order of its outputs."""
    inputs: tuple[TensorSpec, ...] = ()
    """What it takes, where the architecture says so, as a graph does."""
    outputs: tuple[TensorSpec, ...] = ()
    """What it gives, likewise."""
    warnings: tuple[str, ...] = ()
    """What is odd about its architecture, though it can be trained."""
    etag: str = ""
    """Changes whenever the model does; sent along with a change, it makes sure that nothing else came between."""

    @property
    def architecture(self) -> str:
        """What the network is, in a line: "small_cnn {'num_classes': 10}", or "graph" or "code" with its SHA-256."""
        if self.code_digest is not None:
            return f"code {self.code_digest} {self.factory} {dict(self.config)}"
        return f"{self.family} {dict(self.config)}" if self.family else f"graph {self.graph_digest}"


@dataclass(frozen=True, slots=True, kw_only=True)
class ColumnStatistics:
    """What the numbers of a column are, over all examples of a dataset."""

    column: str
    """Its name: "inputs" or "targets"."""
    count: int
    """How many numbers there are."""
    min: float
    max: float
    mean: float
    std: float
    """Standard deviation, that of the whole population."""
    class_counts: tuple[int, ...]
    """How many numbers each class has, for targets of at most 1,000 classes; else none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Dataset:
    """A named, immutable set of examples."""

    name: str
    """Resource name, for example "datasets/digits"."""
    digest: str
    """SHA-256 of its blob."""
    num_examples: int
    input_shape: tuple[int, ...]
    """Shape of one input, for example (1, 8, 8)."""
    num_classes: int
    """The highest target plus one."""
    size_bytes: int
    """Size of its blob, and of its chunks."""
    create_time: datetime
    """When it was created, in UTC."""
    labels: Mapping[str, str] = field(default_factory=dict)
    """Notes to find it by."""
    description: str = ""
    """What it is."""
    etag: str = ""
    """Changes whenever labels or description do; sent along with a change, it makes sure that nothing else came
    between."""
    columns: tuple[Column, ...] = ()
    """What each example consists of: inputs and targets."""
    statistics: tuple[ColumnStatistics, ...] = ()
    """What the numbers of the columns are, in their order; none for datasets made by earlier versions."""
    class_labels: tuple[str, ...] = ()
    """Names of the classes, that of class 0 first; none: they have none."""
    num_chunks: int = 0
    """How many chunks hold the examples; 0: they are in its blob."""
    source_uri: str = ""
    """Folder in which the chunks lie, where the service does not keep them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelFamily:
    """A family of models that the server can build."""

    name: str
    """Name to give when creating a model, for example "small_cnn"."""
    description: str
    """What it is, in one sentence."""
    config: Mapping[str, Any]
    """Its configuration fields with their defaults."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """Who calls a server, as the server knows them."""

    token: str
    """Resource name of the token that was shown, for example "tokens/ci"; empty: the server asks for none."""
    tenant: str
    """Whose models, datasets, jobs and blobs they see."""
    scopes: tuple[str, ...]
    """What they may do: "read", "submit", "admin"."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerInfo:
    """What a server is."""

    version: str
    """Version of chainrule that it runs."""
    start_time: datetime
    """When it started, in UTC."""
    ray_address: str
    """host:port of the Ray cluster it trains on."""
    owns_ray_cluster: bool
    """Whether it started that cluster and will stop it."""
    kernels: str
    """Kernels its engine computes with, for example "reference"."""
    families: tuple[ModelFamily, ...]
    """Model families that it can build."""
    caller: Caller
    """Who asks."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """A machine of the Ray cluster."""

    id: str
    address: str
    cpus: float
    """CPUs that Ray may give out on it."""
    memory_bytes: int
    """Memory that Ray may give out on it."""


# Translation from the API.


def model_fields(message: model_pb2.Model) -> dict[str, Any]:
    """What a message says of a model, by the names of a ModelRecord."""
    config = message.code.config if message.HasField("code") else message.builtin.config
    return {
        "name": message.name,
        "family": message.builtin.family,
        "config": plain(json_format.MessageToDict(config)),
        "code_digest": message.code.digest or None,
        "factory": message.code.factory,
        "file_name": message.code.file_name,
        "weights_digest": message.weights_digest or None,
        "init_seed": message.init_seed,
        "num_parameters": message.num_parameters,
        "create_time": moment(message.create_time),
        "labels": labels_of(message),
        "description": message.description,
        "latest_version": message.latest_version,
        "graph_digest": message.graph.digest or None,
        "class_labels": tuple(message.class_labels),
        "inputs": tuple(map(_tensor_spec, message.inputs)),
        "outputs": tuple(map(_tensor_spec, message.outputs)),
        "warnings": tuple(message.warnings),
        "etag": message.etag,
    }


def _tensor_spec(message: model_pb2.TensorSpec) -> TensorSpec:
    sizes = (size.value if size.WhichOneof("size") == "value" else size.name for size in message.shape)
    return TensorSpec(name=message.name, dtype=message.dtype, shape=tuple(sizes))


def dataset_from_message(message: dataset_pb2.Dataset) -> Dataset:
    """A dataset from its message."""
    return Dataset(
        name=message.name,
        digest=message.digest,
        num_examples=message.num_examples,
        input_shape=tuple(message.input_shape),
        num_classes=message.num_classes,
        size_bytes=message.size_bytes,
        create_time=moment(message.create_time),
        labels=labels_of(message),
        description=message.description,
        etag=message.etag,
        columns=tuple(Column(of.name, of.dtype, tuple(of.shape)) for of in message.columns),
        statistics=tuple(
            ColumnStatistics(
                column=of.column,
                count=of.count,
                min=of.min,
                max=of.max,
                mean=of.mean,
                std=of.std,
                class_counts=tuple(of.class_counts),
            )
            for of in message.statistics
        ),
        class_labels=tuple(message.class_labels),
        num_chunks=message.num_chunks,
        source_uri=message.source_uri,
    )


def server_from_message(message: cluster_pb2.ServerInfo) -> ServerInfo:
    """What a server is, from its message."""
    caller = message.caller
    return ServerInfo(
        version=message.version,
        start_time=moment(message.start_time),
        ray_address=message.ray_address,
        owns_ray_cluster=message.owns_ray_cluster,
        kernels=message.kernels,
        families=tuple(
            ModelFamily(name=f.name, description=f.description, config=json.loads(f.config_json or "{}"))
            for f in message.families
        ),
        caller=Caller(token=caller.token, tenant=caller.tenant, scopes=tuple(caller.scopes)),
    )


def node_from_message(message: cluster_pb2.Node) -> Node:
    """A node from its message."""
    return Node(id=message.id, address=message.address, cpus=message.cpus, memory_bytes=message.memory_bytes)
