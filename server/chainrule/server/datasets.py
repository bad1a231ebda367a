"""Datasets: what makes a blob a set of examples to train on, and what can be changed and removed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from chainrule.engine import FormatError, io
from chainrule.engine.io.chunked import MAX_MANIFEST_BYTES, Chunk, Manifest, is_manifest
from chainrule.server import names
from chainrule.server.annotations import AnnotationChange, check_annotation_change, check_annotations
from chainrule.server.blobs import BlobStore
from chainrule.server.data_uris import AllowedUris
from chainrule.server.dataset_contents import Contents, Survey, check_names, in_order
from chainrule.server.errors import InvalidRequestError, NotFoundError, echo
from chainrule.server.records import Dataset
from chainrule.server.store import NO_REQUEST, PageRequest, Request, Store
from chainrule.server.tenant_blobs import TenantBlobs
from chainrule.server.training.chunk_files import MAX_CHUNK_BYTES, ChunkedExamples
from chainrule.server.training.errors import DatasetError, LinkError
from chainrule.server.training.examples import INPUTS, TARGETS, Examples, ExampleSource
from chainrule.server.training.uris import read_uri

MAX_CLASSES = 2**31 - 1
"""Most classes, or tokens, a dataset may have; its largest label or token is one less."""

NO_LABEL = -100
"""A target where there is none: what PyTorch's losses ignore."""
MAX_CLASS_LABEL = 200
"""Longest name of a class, in characters."""

MAX_LISTED = 400
"""Longest list of columns in an error, in characters."""
_FIELD = "dataset.digest"


class DatasetCatalog:
    """Creates, finds, changes and removes datasets of tenants. Its methods block.

    What is removed leaves its blob behind, as what nothing refers to: `BlobStore.collect` removes it once nobody can be
    about to refer to it.

    Args:
        tenant_blobs: which blobs whose datasets may be made of.
        uris: where else chunks may lie; None: nowhere.
    """

    def __init__(
        self, store: Store, blobs: BlobStore, tenant_blobs: TenantBlobs, *, uris: AllowedUris | None = None
    ) -> None:
        self._uris = uris or AllowedUris()
        self._store = store
        self._blobs = blobs
        self._tenant_blobs = tenant_blobs

    def create(
        self,
        dataset_id: str,
        *,
        digest: str,
        tenant: str,
        labels: Mapping[str, str] = MappingProxyType({}),
        description: str = "",
        class_labels: Sequence[str] = (),
        source_uri: str = "",
        request: Request = NO_REQUEST,
        validate_only: bool = False,
    ) -> Dataset:
        """Check and store a dataset whose blob has been uploaded. A request that is repeated is answered with what it
        has made before. With `validate_only` nothing is stored.

        Raises InvalidRequestError, NotFoundError (no such blob, or what the request has made was removed) or
        AlreadyExistsError.
        """
        name = names.new_name("datasets", dataset_id, field="dataset_id")
        check_annotations(labels=labels, description=description, field="dataset")
        known = self._store.dataset_of_request(request, tenant=tenant)
        if known is not None:
            return known
        with self._tenant_blobs.hold(digest, tenant=tenant, field=_FIELD), ExitStack() as held:
            manifest = self._manifest(digest)
            uri = self._allowed(source_uri, manifest)
            if manifest is None:
                found = self._survey(digest)
            else:
                check_names([column.name for column in manifest.columns])
                if not uri:
                    chunks = [chunk.digest for chunk in manifest.chunks]
                    held.enter_context(self._tenant_blobs.hold_all(chunks, tenant=tenant))
                found = self._survey_chunks(digest, manifest, uri)
            _check_class_labels(class_labels, found.num_classes)
            shapes = {column.name: column.shape for column in found.columns}
            return self._store.create_dataset(
                Dataset(
                    name=name,
                    digest=digest,
                    num_examples=found.num_examples,
                    input_shape=shapes.get(INPUTS, ()),
                    num_classes=found.num_classes,
                    size_bytes=found.size_bytes,
                    create_time=datetime.now(UTC),
                    target_shape=shapes.get(TARGETS, ()),
                    num_tokens=found.num_tokens,
                    columns=found.columns,
                    statistics=found.statistics,
                    class_labels=tuple(class_labels),
                    num_chunks=len(found.chunks),
                    source_uri=uri,
                    labels=dict(labels),
                    description=description,
                ),
                tenant=tenant,
                chunks=() if uri else found.chunks,
                request=request,
                validate_only=validate_only,
            )

    def get(self, name: str, *, tenant: str, field: str = "name") -> Dataset:
        """Raises NotFoundError, or InvalidRequestError naming the request's field."""
        return self._store.get_dataset(names.existing("datasets", name, field=field), tenant=tenant)

    def page(self, asked: PageRequest, *, tenant: str) -> tuple[list[Dataset], str]:
        """A page, and the token of the next. Raises InvalidRequestError."""
        return self._store.list_datasets(asked, tenant=tenant)

    def update(self, name: str, change: AnnotationChange, *, tenant: str, etag: str = "") -> Dataset:
        """Change what is noted on a dataset. Raises InvalidRequestError, NotFoundError or StaleEtagError."""
        name = names.existing("datasets", name, field="dataset.name")
        check_annotation_change(change, field="dataset")
        return self._store.update_dataset(name, change, tenant=tenant, etag=etag)

    def delete(self, name: str, *, tenant: str, etag: str = "", allow_missing: bool = False) -> None:
        """Remove a dataset. Raises InvalidRequestError, NotFoundError unless it may be missing, StaleEtagError, or
        IllegalStateError if a job trains or validates on it that has not ended."""
        try:
            self._store.delete_dataset(names.existing("datasets", name), tenant=tenant, etag=etag)
        except NotFoundError:
            if not allow_missing:
                raise

    def load(self, dataset: Dataset) -> ExampleSource:
        """The examples: in memory, or as the files in which they lie. Raises NotFoundError, DamagedBlobError."""
        manifest = self._manifest(dataset.digest)
        if manifest is None:
            return self._load(dataset.digest)
        if dataset.source_uri:
            uri = self._uris.check(dataset.source_uri, field="dataset.source_uri")  # it may be allowed no more
            return ChunkedExamples(manifest, "", uri=uri)
        return ChunkedExamples(manifest, str(self._blobs.folder.absolute()))

    def _allowed(self, source_uri: str, manifest: Manifest | None) -> str:
        if not source_uri:
            return ""
        if manifest is None:
            raise InvalidRequestError.of(
                "dataset.source_uri", "says where chunks lie, but the blob is no manifest of chunks; leave it out"
            )
        return self._uris.check(source_uri, field="dataset.source_uri")

    def _manifest(self, digest: str) -> Manifest | None:
        """What is in the blob of a dataset that lies in chunks; None: it holds the examples itself."""
        if not is_manifest(self._blobs.start_of(digest, 8)):
            return None
        if self._blobs.size(digest) > MAX_MANIFEST_BYTES:
            raise _refused(f'blob "{digest}" is a manifest of more than {MAX_MANIFEST_BYTES:,} bytes')
        try:
            return Manifest.from_bytes(self._blobs.read(digest))
        except FormatError as error:
            raise _refused(f'blob "{digest}" is {error}') from error

    def _survey(self, digest: str) -> Contents:
        survey = Survey()
        survey.add(self._load(digest))
        return survey.contents(size_bytes=self._blobs.size(digest))

    def _survey_chunks(self, digest: str, manifest: Manifest, uri: str) -> Contents:
        """Look at one chunk after the other, so that no more than one is in memory; once at one that is named several
        times, so that the work is no more than what was uploaded."""
        survey = Survey()
        size_bytes = self._blobs.size(digest)
        times = Counter(manifest.chunks)
        first: dict[Chunk, tuple[int, int]] = {}
        rows = 0
        for number, chunk in enumerate(manifest.chunks):
            first.setdefault(chunk, (number, rows))
            rows += chunk.rows
        for chunk, (number, row) in first.items():
            try:
                content = self._read_chunk(chunk.digest, uri)
                size_bytes += len(content)
                examples = _examples(chunk.digest, content)
                del content
                expected = {c.name: (c.dtype, (chunk.rows, *c.shape)) for c in manifest.columns}
                found = {name: (a.dtype.name, a.shape) for name, a in examples.columns.items()}
                if found != expected:
                    raise _refused(f"it has {_described(found)}, but the manifest says {_described(expected)}")
                survey.add(examples, times=times[chunk], first_row=row)
            except InvalidRequestError as error:
                raise _refused(f"chunks[{number}]: {error.violations[0].description}") from error
        return survey.contents(size_bytes=size_bytes, chunks=[chunk.digest for chunk in manifest.chunks])

    def _read_chunk(self, digest: str, uri: str) -> bytes:
        if uri:
            try:
                content = read_uri(f"{uri}/{digest}", limit_bytes=MAX_CHUNK_BYTES)
            except (DatasetError, LinkError) as error:
                raise _refused(str(error)) from error
            if io.digest(content) != digest:
                raise _refused(f"{uri}/{digest} has another SHA-256, {io.digest(content)}")
            return content
        if (size := self._blobs.size(digest)) > MAX_CHUNK_BYTES:
            raise _refused(f"it has {size:,} bytes; use at most {MAX_CHUNK_BYTES:,}, with fewer rows")
        return self._blobs.read(digest)

    def _load(self, digest: str) -> Examples:
        return _examples(digest, self._blobs.read(digest))


def _examples(digest: str, content: bytes) -> Examples:
    try:
        tensors = io.load(content)
    except FormatError as error:
        raise _refused(f'blob "{digest}" is no safetensors file of inputs and targets: {error}') from error
    return check_examples(tensors)


def check_examples(tensors: Mapping[str, NDArray[Any]]) -> Examples:
    """The examples a blob holds. Raises InvalidRequestError saying which example is wrong and how."""
    check_names(list(tensors))
    if not tensors:
        raise _refused('it holds no tensors; a dataset has columns, as "inputs" and "targets"')
    names = in_order(tensors)
    for name in names:
        _check_kind(name, tensors[name])
    _check_lengths({name: len(tensors[name]) for name in names})
    for name in names:
        _check_values(name, tensors[name])
    return Examples(further={name: tensors[name] for name in names})


def _check_kind(name: str, array: NDArray[Any]) -> None:
    """Inputs are features or tokens, targets are labels or numbers; another column may be any of these."""
    kinds = (np.float32, np.int64) if name == TARGETS else (np.float32, np.int64, np.uint8)
    if name == TARGETS and (array.dtype not in kinds or array.ndim == 0):
        raise _refused(
            f"targets are {array.dtype} of shape {array.shape}; give int64 class labels or float32 numbers of "
            "shape (N, ...), one row per example"
        )
    label = _label(name)
    if array.dtype not in kinds:
        raise _refused(
            f"{label} are {array.dtype}; convert them to float32, to uint8 where they are pictures, or to int64 where "
            f"they are {'tokens' if name == INPUTS else 'tokens or class labels'}"
        )
    if name == INPUTS and array.dtype == np.int64 and array.ndim != 2:
        raise _refused(
            f"inputs are int64 of shape {array.shape}; tokens have the shape (N, T): give that, "
            "or convert inputs that are features to float32"
        )
    if array.ndim == 0:
        raise _refused(f"{label} are a single number of shape (); give an array of shape (N, ...), one row per example")


def _check_lengths(lengths: Mapping[str, int]) -> None:
    if len(set(lengths.values())) > 1:
        if set(lengths) == {INPUTS, TARGETS}:
            raise _refused(
                f"there are {lengths[INPUTS]} inputs and {lengths[TARGETS]} targets; give one target for each input"
            )
        listed = ", ".join(f"{count} of {_label(name)}" for name, count in lengths.items())
        raise _refused(f"there are {listed[:MAX_LISTED]}; give each example all of them")
    if set(lengths.values()) == {0}:
        raise _refused("it holds no examples; give at least one")


def _check_values(name: str, array: NDArray[Any]) -> None:
    if array.size == 0:
        what = "a single target" if name == TARGETS else "a single number"
        raise _refused(f"{_label(name)} have the shape {array.shape}: examples without {what}; leave out no dimension")
    if array.dtype != np.int64:
        _check_finite(_label(name), array)
    elif name == INPUTS:
        _check_numbers(name, array, "tokens")
    elif name == TARGETS:
        _check_numbers(name, array, "class labels", none=NO_LABEL)
    elif (wrong := (array >= MAX_CLASSES) | (array <= -MAX_CLASSES)).any():
        raise _refused(
            f"{_place(_label(name), array, int(np.argmax(wrong)))}; whole numbers are {-MAX_CLASSES + 1} to "
            f"{MAX_CLASSES - 1}: convert others to float32"
        )


def _label(name: str) -> str:
    """A column as errors call it."""
    return name if name in (INPUTS, TARGETS) else f"values of {echo(name)}"


def _described(columns: Mapping[str, tuple[str, tuple[int, ...]]]) -> str:
    listed = ", ".join(f"{echo(name)} {dtype} {shape}" for name, (dtype, shape) in columns.items())
    return listed if len(listed) <= MAX_LISTED else f"{listed[:MAX_LISTED]}…"


def _check_class_labels(class_labels: Sequence[str], num_classes: int) -> None:
    if class_labels and len(class_labels) != num_classes:
        raise InvalidRequestError.of(
            "dataset.class_labels",
            f"has {len(class_labels)} names, but the targets are those of {num_classes} classes; name all, or none",
        )
    for index, label in enumerate(class_labels):
        if not label or len(label) > MAX_CLASS_LABEL:
            raise InvalidRequestError.of(
                f"dataset.class_labels[{index}]", f"is {echo(label)}; use 1 to {MAX_CLASS_LABEL} characters"
            )


def _check_finite(name: str, numbers: NDArray[Any]) -> None:
    finite = np.isfinite(numbers).reshape(len(numbers), -1).all(axis=1)
    if not finite.all():
        bad = int(np.argmin(finite))
        count = int(np.count_nonzero(~finite))
        raise _refused(
            f"{name} hold NaN or infinite values in {count} of {len(numbers)} examples, the first is {name}[{bad}]; "
            "replace or drop them"
        )


def _check_numbers(name: str, numbers: NDArray[Any], what: str, *, none: int | None = None) -> None:
    """Class labels or tokens count from 0, and there are not too many of them; `none` is where there is no label."""
    wrong = numbers < 0 if none is None else (numbers < 0) & (numbers != none)
    if wrong.any():
        remedy = "" if none is None else f", and {none} stands for none"
        raise _refused(f"{_place(name, numbers, int(np.argmax(wrong)))}; {what} count from 0{remedy}")
    if numbers.max() < 0:
        raise _refused(f"{name} are {none} only, which stands for no label; give at least one label")
    if numbers.max() >= MAX_CLASSES:
        raise _refused(f"{_place(name, numbers, int(np.argmax(numbers)))}; {what} are 0 to {MAX_CLASSES - 1}")


def _place(name: str, numbers: NDArray[Any], flat: int) -> str:
    index = ", ".join(str(int(i)) for i in np.unravel_index(flat, numbers.shape))
    return f"{name}[{index}] is {numbers.reshape(-1)[flat]}"


def _refused(description: str) -> InvalidRequestError:
    return InvalidRequestError.of(_FIELD, description)
