"""Datasets on the server: inputs and targets, uploaded as one blob."""
# Derived from aio/datasets.py by client/derive.py. Change that, and run `make client`.

from collections.abc import Mapping

from numpy.typing import ArrayLike

from chainrule.client.blobs import Blobs, Transferred
from chainrule.client.channel import Connection
from chainrule.client.examples import to_examples
from chainrule.client.paging import page_size, take
from chainrule.client.resources import Dataset, dataset_from_message
from chainrule.client.wire import name_of, new_request_id, put, put_changes, put_labels
from chainrule.engine import io
from chainrule.v1 import dataset_pb2, dataset_pb2_grpc


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
        labels: Mapping[str, str] | None = None,
        description: str = "",
        request_id: str | None = None,
        transferred: Transferred | None = None,
    ) -> Dataset:
        """Make a dataset. The same name with the same examples gives the dataset that is already there.

        Args:
            dataset_id: last part of the name: lower-case letters, digits and hyphens, at most 63.
            inputs: (N, ...) numbers, sent as float32; or (N, T) tokens.
            targets: (N, ...) class labels from 0, sent as int64, or numbers of a floating dtype, sent as float32: for
                regression, or several labels at once. Labels that come as floats must be converted to integers.
            tokens: whether the inputs are tokens: whole numbers from 0, sent as int64.
            labels: notes to find it by, as {"team": "vision"}.
            description: what it is, at most 1,000 characters.
            request_id: makes calls with the same id one; by default only a call's own repetitions are.
            transferred: called with the bytes sent so far and in all.

        Raises:
            InvalidInputError: the arrays do not convert without loss of meaning.
            InvalidArgument: the server refuses the examples (lengths, labels, values) or the name.
            AlreadyExists: the name is taken by other examples.
        """
        dataset = dataset_pb2.Dataset()
        put(dataset, "description", description, allowed="a text")
        put_labels(dataset, labels or {})
        examples = self._connection.compute(to_examples, inputs=inputs, targets=targets, tokens=tokens)
        content = self._connection.compute(io.save, examples)
        dataset.digest = self._blobs.upload(content, transferred=transferred)
        request = dataset_pb2.CreateDatasetRequest(
            dataset_id=dataset_id, dataset=dataset, request_id=new_request_id(request_id)
        )
        return dataset_from_message(self._connection.call(self._stub.CreateDataset, request))

    def get(self, name: str) -> Dataset:
        """The dataset of this name, "digits" or "datasets/digits".

        Raises:
            NotFound: there is none.
        """
        request = dataset_pb2.GetDatasetRequest(name=name_of("datasets", name))
        return dataset_from_message(self._connection.call(self._stub.GetDataset, request))

    def list(self, *, filter: str = "", order_by: str = "", limit: int | None = None) -> tuple[Dataset, ...]:
        """The datasets, newest first unless told otherwise; at most `limit`.

        Args:
            filter: which, as in AIP-160: 'num_examples > 1000 AND labels.team = "vision"'.
            order_by: a field, and " desc" for the falling order: "name", "create_time desc".

        Raises:
            InvalidArgument: the server cannot read `filter` or `order_by`.
        """

        def read_page(token: str) -> dataset_pb2.ListDatasetsResponse:
            request = dataset_pb2.ListDatasetsRequest(
                page_size=page_size(limit), page_token=token, filter=filter, order_by=order_by
            )
            return self._connection.call(self._stub.ListDatasets, request)

        return take(read_page, lambda page: map(dataset_from_message, page.datasets), limit=limit)

    def update(
        self,
        dataset: Dataset | str,
        *,
        labels: Mapping[str, str] | None = None,
        description: str | None = None,
        etag: str | None = None,
    ) -> Dataset:
        """Change labels or description of a dataset; what is None stays.

        Args:
            labels: all that it has from now on.
            etag: what the dataset must still have.

        Raises:
            InvalidInputError: nothing is to be changed.
            NotFound: there is no such dataset.
            Aborted: it has another etag by now.
        """
        message = dataset_pb2.Dataset(name=name_of("datasets", dataset))
        mask = put_changes(message, labels=labels, description=description, etag=etag)
        request = dataset_pb2.UpdateDatasetRequest(dataset=message, update_mask=mask)
        return dataset_from_message(self._connection.call(self._stub.UpdateDataset, request))

    def delete(self, dataset: Dataset | str, *, etag: str | None = None, missing_ok: bool = False) -> None:
        """Remove a dataset.

        Args:
            etag: what the dataset must still have.
            missing_ok: whether one that is not there counts as removed.

        Raises:
            NotFound: there is no such dataset.
            FailedPrecondition: jobs use it that have not ended.
            Aborted: it has another etag by now.
        """
        request = dataset_pb2.DeleteDatasetRequest(
            name=name_of("datasets", dataset), etag=etag or "", allow_missing=missing_ok
        )
        self._connection.call(self._stub.DeleteDataset, request)
