"""Datasets on the server: inputs and targets, uploaded as one blob."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from itertools import islice

import numpy as np
from numpy.typing import ArrayLike, NDArray

from chainrule.client.blobs import Blobs, Transferred
from chainrule.client.channel import Connection
from chainrule.client.errors import InvalidInputError
from chainrule.client.wire import moment, page_size, pages, resource_name
from chainrule.engine import io
from chainrule.v1 import dataset_pb2, dataset_pb2_grpc


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
    """Size of its blob."""
    create_time: datetime
    """When it was created, in UTC."""


class Datasets:
    """The datasets of a server."""

    def __init__(self, connection: Connection, blobs: Blobs) -> None:
        self._connection = connection
        self._blobs = blobs
        self._stub = dataset_pb2_grpc.DatasetServiceStub(connection.channel)

    def create(
        self,
        dataset_id: str,
        *,
        inputs: ArrayLike,
        targets: ArrayLike,
        tokens: bool = False,
        transferred: Transferred | None = None,
    ) -> Dataset:
        """Make a dataset. The same name with the same examples gives the dataset that is already there.

        Args:
            dataset_id: last part of the name: lower-case letters, digits and hyphens, at most 63.
            inputs: (N, ...) numbers, sent as float32; or (N, T) tokens.
            targets: (N,) class labels from 0, or (N, T), one for each token; sent as int64.
            tokens: whether the inputs are tokens: whole numbers from 0, sent as int64.
            transferred: called with the bytes sent so far and in all.

        Raises:
            InvalidInputError: the arrays do not convert without loss of meaning.
            InvalidArgument: the server refuses the examples (lengths, labels, values) or the name.
            AlreadyExists: the name is taken by other examples.
        """
        examples = to_examples(inputs=inputs, targets=targets, tokens=tokens)
        digest = self._blobs.upload(io.save(examples), transferred=transferred)
        request = dataset_pb2.CreateDatasetRequest(dataset_id=dataset_id, dataset=dataset_pb2.Dataset(digest=digest))
        return _dataset(self._connection.call(self._stub.CreateDataset, request))

    def get(self, name: str) -> Dataset:
        """The dataset of this name, "digits" or "datasets/digits".

        Raises:
            NotFound: there is none.
        """
        request = dataset_pb2.GetDatasetRequest(name=resource_name("datasets", name))
        return _dataset(self._connection.call(self._stub.GetDataset, request))

    def list(self, *, limit: int | None = None) -> tuple[Dataset, ...]:
        """The datasets, newest first; at most `limit`."""

        def read_page(token: str) -> dataset_pb2.ListDatasetsResponse:
            request = dataset_pb2.ListDatasetsRequest(page_size=page_size(limit), page_token=token)
            return self._connection.call(self._stub.ListDatasets, request)

        return tuple(islice((_dataset(d) for page in pages(read_page) for d in page.datasets), limit))


def to_examples(
    *, inputs: ArrayLike, targets: ArrayLike, tokens: bool = False
) -> Mapping[str, NDArray[np.float32] | NDArray[np.int64]]:
    """The arrays of a dataset's blob: inputs (N, ...) float32 or, if they are tokens, int64; targets (N,) or (N, T)
    int64; both C-contiguous.

    Whether they make sense together is the server's to say; here they must only convert: numbers to float32
    without overflow, whole numbers to int64.

    Raises:
        InvalidInputError: they do not.
    """
    array = np.asarray(inputs)
    return {
        "inputs": _to_int64(array, "inputs", "tokens") if tokens else _to_float32(array),
        "targets": _to_int64(np.asarray(targets), "targets", "class labels"),
    }


def _to_float32(array: NDArray[np.generic]) -> NDArray[np.float32]:
    if array.dtype.kind not in "fiub":
        raise InvalidInputError(f"inputs have dtype {array.dtype}; they must be real numbers, to be sent as float32")
    with np.errstate(over="ignore"):
        converted = np.ascontiguousarray(array, dtype=np.float32).reshape(array.shape)
    if np.isinf(converted).sum() != (np.isinf(array).sum() if array.dtype.kind == "f" else 0):
        raise InvalidInputError(f"inputs of dtype {array.dtype} hold values beyond the range of float32; scale them")
    return converted


def _to_int64(array: NDArray[np.generic], name: str, meaning: str) -> NDArray[np.int64]:
    if array.dtype.kind not in "fiub":
        raise InvalidInputError(f"{name} have dtype {array.dtype}; they must be {meaning}: whole numbers from 0")
    with np.errstate(invalid="ignore"):
        converted = np.ascontiguousarray(array, dtype=np.int64).reshape(array.shape)
    changed = np.argwhere(converted != array)
    if changed.size:
        place = ", ".join(map(str, changed[0]))
        raise InvalidInputError(
            f"{name}[{place}] is {array[tuple(changed[0])]}; {meaning} must be whole numbers that fit int64"
        )
    return converted


def _dataset(message: dataset_pb2.Dataset) -> Dataset:
    return Dataset(
        name=message.name,
        digest=message.digest,
        num_examples=message.num_examples,
        input_shape=tuple(message.input_shape),
        num_classes=message.num_classes,
        size_bytes=message.size_bytes,
        create_time=moment(message.create_time),
    )
