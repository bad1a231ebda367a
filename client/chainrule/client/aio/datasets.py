"""Datasets on the server: inputs and targets, uploaded as one blob or, if they are many, in chunks."""

from collections.abc import Mapping, Sequence
from typing import Any

from numpy.typing import ArrayLike

from chainrule.client.aio.blobs import AsyncBlobs, Transferred
from chainrule.client.aio.channel import AsyncConnection
from chainrule.client.aio.paging import page_size, take
from chainrule.client.errors import InvalidInputError
from chainrule.client.packing import Packer, Progress
from chainrule.client.preview import Preview, first_rows
from chainrule.client.reading import ByteTokenizer, ReadOptions, Tokenizer, open_reader
from chainrule.client.resources import Dataset, dataset_from_message
from chainrule.client.uris import read_part, write_chunks
from chainrule.client.wire import name_of, new_request_id, put, put_changes, put_labels, texts
from chainrule.engine.io.chunked import Manifest, header_bytes
from chainrule.v1 import dataset_pb2, dataset_pb2_grpc


class AsyncDatasets:
    """The datasets of a server."""

    def __init__(self, connection: AsyncConnection, blobs: AsyncBlobs) -> None:
        self._connection = connection
        self._blobs = blobs
        self._stub = dataset_pb2_grpc.DatasetServiceStub(connection.channel)

    async def create(
        self,
        dataset_id: str,
        source: Any = None,
        targets: ArrayLike | None = None,
        *,
        inputs: ArrayLike | None = None,
        target: str | None = None,
        columns: Sequence[str] | Mapping[str, Any] | None = None,
        tokens: bool = False,
        regression: bool = False,
        pictures: bool = False,
        size: int | tuple[int, int] | None = None,
        gray: bool = False,
        text: str = "text",
        length: int = 128,
        tokenizer: Tokenizer | None = None,
        limit_bytes: int | None = None,
        class_labels: Sequence[str] | None = None,
        uri: str | None = None,
        labels: Mapping[str, str] | None = None,
        description: str = "",
        request_id: str | None = None,
        transferred: Transferred | None = None,
    ) -> Dataset:
        """Make a dataset from `source`, or from inputs, targets and `columns`: `create("digits", x, y)`. The same name
        with the same examples gives the dataset that is already there.

        What a source may be, and how each is read, is in docs/data.md. Large ones are read and sent some at a time.

        Args:
            dataset_id: last part of the name: lower-case letters, digits and hyphens, at most 63.
            source: a pair of arrays, a dict of arrays, a frame of pandas or polars, a map-style dataset of PyTorch, or
                the path of a .npz, .csv, .parquet, .jsonl or .txt file, or of a folder of pictures by class. With
                targets behind it, it is the inputs.
            inputs: (N, ...) numbers, sent as float32; or (N, T) tokens.
            targets: (N, ...) class labels from 0, sent as int64, or numbers of a floating dtype, sent as float32: for
                regression, or several labels at once. Labels that come as floats must be converted to integers.
            target: which column of a table is the target; None: that called target, targets, label, labels or y. Texts
                become classes, in the order of the alphabet.
            columns: which columns of a table are the inputs; None: all others; of samples that are mappings, which are
                taken, besides the target. Or the columns that the dataset has besides inputs and targets, by name:
                {"weights": w, "boxes": b}; of a table {"weights": "weight", "corner": ["x", "y"]}, by the names of its
                columns, of which several are put side by side. Floats are sent as float32, whole numbers as int64.
            tokens: whether the inputs are tokens: whole numbers from 0, sent as int64.
            regression: whether targets are numbers to predict, sent as float32, although they are whole ones or come
                from CSV; else these are class labels.
            pictures: whether uint8 inputs of arrays and tables are sent as they are, and divided by 255 on the workers;
                else they become float32 with the same values. Those of folders and of PyTorch's datasets always are.
            size: height and width to which pictures in a folder are scaled; None: all must have one size.
            gray: whether pictures in a folder are read with one channel instead of three.
            text: field of a line of JSON that holds the text.
            length: tokens of an example that is made from text.
            tokenizer: what makes tokens of text; None: its bytes.
            limit_bytes: most bytes that a compressed file may unfold to; None: 100 times its size, at least 256 MiB.
            class_labels: names of the classes, where the source does not give them.
            uri: folder to which this client writes the examples, as chunks, instead of sending them: a URI that the
                service may read (its --data-uris), as "file:///srv/data" or "s3://bucket/data".
            labels: notes to find it by, as {"team": "vision"}.
            description: what it is, at most 1,000 characters.
            request_id: makes calls with the same id one; by default only a call's own repetitions are.
            transferred: called with the bytes sent so far and in all.

        Raises:
            InvalidInputError: the source cannot be read, or does not convert without loss of meaning: the message names
                the file, row and column, or the picture.
            InvalidArgument: the server refuses the examples (lengths, labels, values) or the name.
            AlreadyExists: the name is taken by other examples.
        """
        dataset = dataset_pb2.Dataset()
        put(dataset, "description", description, allowed="a text")
        put_labels(dataset, labels or {})
        options = ReadOptions(
            target=target,
            columns=None if isinstance(columns, Mapping) else columns,
            further=columns if isinstance(columns, Mapping) else {},
            tokens=tokens,
            regression=regression,
            pictures=pictures,
            size=size,
            gray=gray,
            text=text,
            length=length,
            tokenizer=tokenizer or ByteTokenizer(),
            limit_bytes=limit_bytes,
        )
        reader = await self._connection.compute(open_reader, source, inputs, targets, options)
        packer = Packer(reader, single_bytes=None if uri is None else 0)
        if uri is not None:
            put(dataset, "source_uri", uri, allowed="a URI")
            await self._connection.compute(write_chunks, uri, packer, Progress(packer, transferred))
        dataset.digest = await self._upload(packer, transferred)
        dataset.class_labels.extend(
            packer.class_labels if class_labels is None else texts("class_labels", class_labels)
        )
        request = dataset_pb2.CreateDatasetRequest(
            dataset_id=dataset_id, dataset=dataset, request_id=new_request_id(request_id)
        )
        # The server looks at all of it before it answers.
        timeout_s = self._connection.settings.transfer_timeout_s if packer.has_chunks else None
        made = await self._connection.call(self._stub.CreateDataset, request, timeout_s=timeout_s)
        return dataset_from_message(made)

    async def _upload(self, packer: Packer, transferred: Transferred | None) -> str:
        """Send all chunks, one after the other, and then the dataset's own blob; returns its digest."""
        progress = Progress(packer, transferred)
        while (chunk := await self._connection.compute(packer.chunk)) is not None:
            packer.sent(await self._blobs.upload(chunk, transferred=progress))
            progress.next()
        content = await self._connection.compute(packer.blob)
        return await self._blobs.upload(content, transferred=progress)

    async def get(self, name: str) -> Dataset:
        """The dataset of this name, "digits" or "datasets/digits".

        Raises:
            NotFound: there is none.
        """
        request = dataset_pb2.GetDatasetRequest(name=name_of("datasets", name))
        return dataset_from_message(await self._connection.call(self._stub.GetDataset, request))

    async def preview(self, dataset: Dataset | str, rows: int = 5) -> Preview:
        """The first rows of a dataset, as they are stored, by column. Only these are fetched; there are at
        most as many as the first chunk has.

        Raises:
            InvalidInputError: `rows` is below 1; or the chunks lie where they cannot be read from here.
            NotFound: there is no such dataset.
        """
        if rows < 1:
            raise InvalidInputError(f"rows is {rows}; use at least 1")
        found = dataset if isinstance(dataset, Dataset) else await self.get(dataset)
        digest = found.digest
        if found.num_chunks:
            digest = Manifest.from_bytes(await self._blobs.download(digest)).chunks[0].digest
        length = header_bytes(await self._part(found, digest, 0, 8))
        head = await self._part(found, digest, 0, length)
        arrays = {}
        for of in first_rows(head, rows):
            arrays[of.column] = of.array(await self._part(found, digest, of.begin, of.size_bytes))
        return arrays

    async def _part(self, dataset: Dataset, digest: str, offset_bytes: int, size_bytes: int) -> bytes:
        """Some bytes of a dataset's blob or chunk, from where that lies."""
        if dataset.source_uri:
            at = f"{dataset.source_uri}/{digest}"
            return await self._connection.compute(read_part, at, offset_bytes, size_bytes)
        return await self._blobs.part(digest, offset_bytes, size_bytes)

    async def list(self, *, filter: str = "", order_by: str = "", limit: int | None = None) -> tuple[Dataset, ...]:
        """The datasets, newest first unless told otherwise; at most `limit`.

        Args:
            filter: which, as in AIP-160: 'num_examples > 1000 AND labels.team = "vision"'.
            order_by: a field, and " desc" for the falling order: "name", "create_time desc".

        Raises:
            InvalidArgument: the server cannot read `filter` or `order_by`.
        """

        async def read_page(token: str) -> dataset_pb2.ListDatasetsResponse:
            request = dataset_pb2.ListDatasetsRequest(
                page_size=page_size(limit), page_token=token, filter=filter, order_by=order_by
            )
            return await self._connection.call(self._stub.ListDatasets, request)

        return await take(read_page, lambda page: map(dataset_from_message, page.datasets), limit=limit)

    async def update(
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
        return dataset_from_message(await self._connection.call(self._stub.UpdateDataset, request))

    async def delete(self, dataset: Dataset | str, *, etag: str | None = None, missing_ok: bool = False) -> None:
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
        await self._connection.call(self._stub.DeleteDataset, request)
