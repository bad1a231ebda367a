"""Chunks that lie elsewhere: only where the operator allows it, and as if they were blobs."""

from __future__ import annotations

import http.server
import sys
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from chainrule.engine import io
from chainrule.engine.io.chunked import Chunk, Column, Manifest
from chainrule.server.blobs import BlobStore
from chainrule.server.data_uris import AllowedUris
from chainrule.server.datasets import DatasetCatalog
from chainrule.server.errors import InvalidRequestError, StartupError
from chainrule.server.store import Store
from chainrule.server.tenant_blobs import TenantBlobs
from chainrule.server.training.chunk_files import CACHE
from chainrule.server.training.errors import DatasetError, LinkError
from chainrule.server.training.uris import read_uri
from tests.server.conftest import refusal

INPUTS = np.arange(40, dtype=np.float32).reshape(10, 4)
TARGETS = np.arange(10) % 3
COLUMNS = (Column("inputs", "float32", (4,)), Column("targets", "int64"))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "data").mkdir()
    return tmp_path / "data"


@pytest.fixture
def manifest(folder: Path) -> Manifest:
    """Chunks of four rows, in the folder."""
    chunks = []
    for start in range(0, 10, 4):
        content = io.save({"inputs": INPUTS[start : start + 4], "targets": TARGETS[start : start + 4]})
        (folder / io.digest(content)).write_bytes(content)
        chunks.append(Chunk(io.digest(content), len(TARGETS[start : start + 4])))
    return Manifest(COLUMNS, tuple(chunks))


@pytest.fixture
def web(folder: Path) -> Iterator[str]:
    """The folder, served by HTTP."""
    handler = partial(http.server.SimpleHTTPRequestHandler, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def catalog(store: Store, blobs: BlobStore, *allowed: str) -> DatasetCatalog:
    return DatasetCatalog(store, blobs, TenantBlobs(blobs, store, are_apart=False), uris=AllowedUris(allowed))


def test_chunks_in_a_folder_are_read_there(store: Store, blobs: BlobStore, folder: Path, manifest: Manifest) -> None:
    datasets = catalog(store, blobs, f"file://{folder.parent}/")
    digest = blobs.put(manifest.to_bytes())
    made = datasets.create("d", digest=digest, tenant="default", source_uri=f"file://{folder}/")
    assert (made.num_examples, made.num_chunks, made.source_uri) == (10, 3, f"file://{folder}")
    assert datasets.get("datasets/d", tenant="default") == made
    order = np.array([9, 0, 5])
    assert np.array_equal(datasets.load(made).read(order)["inputs"], INPUTS[order])
    assert store.references() == {digest: ["datasets/d"]}
    with pytest.raises(InvalidRequestError, match="in no folder that the service may read"):
        catalog(store, blobs).load(made)


def test_chunks_on_the_web_are_kept_on_the_machine(
    store: Store, blobs: BlobStore, web: str, manifest: Manifest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(CACHE, str(tmp_path / "cache"))
    datasets = catalog(store, blobs, web)
    made = datasets.create("d", digest=blobs.put(manifest.to_bytes()), tenant="default", source_uri=web)
    assert np.array_equal(datasets.load(made).read(np.arange(10))["inputs"], INPUTS)
    assert len(list((tmp_path / "cache").glob("[0-9a-f]*"))) == 3


@pytest.mark.parametrize(
    "uri",
    [
        "/srv/data",
        "ftp://host/data",
        "file://host/data",
        "file:///",
        "file:///srv/data/../secret",
        "file:///srv/data/%2e%2e/secret",
        "file:///srv/data//x",
        "file:///srv/database",
        "file:///srv",
        "s3://bucketeer/data",
        "s3://bucket/other",
        "s3:///data",
        "https://user:secret@host/data",
        "https://host/data?x=1",
        "https://host/data#x",
        "simplecache::s3://bucket/data",
        "s3://bucket/data::file:///etc",
        "s3://bucket/data\n",
        "S3://bucket/data",
        "s3://bucket/" + "x" * 1000,
    ],
)
def test_other_uris_are_refused(uri: str) -> None:
    allowed = AllowedUris(["file:///srv/data", "s3://bucket/data/", "https://host/data"])
    with pytest.raises(InvalidRequestError) as caught:
        allowed.check(uri, field="dataset.source_uri")
    assert refusal(caught).field == "dataset.source_uri"


def test_what_lies_in_a_folder_is_allowed() -> None:
    allowed = AllowedUris.of(" s3://bucket/data/, https://host ")
    assert allowed.check("s3://bucket/data", field="f") == "s3://bucket/data"
    assert allowed.check("s3://bucket/data/a/b/", field="f") == "s3://bucket/data/a/b"
    assert allowed.check("https://host/x", field="f") == "https://host/x"
    assert AllowedUris.of(None)._folders == ()


def test_a_link_does_not_lead_out(tmp_path: Path, folder: Path) -> None:
    (tmp_path / "secret").mkdir()
    (folder / "link").symlink_to(tmp_path / "secret")
    with pytest.raises(InvalidRequestError, match="a link that leads out"):
        AllowedUris([f"file://{folder}"]).check(f"file://{folder}/link", field="f")
    (tmp_path / "secret" / "x").write_bytes(b"secret")
    (folder / "x").symlink_to(tmp_path / "secret" / "x")
    with pytest.raises(DatasetError, match="cannot be read"):
        read_uri(f"file://{folder}/x", limit_bytes=100)


def test_an_operator_is_told_of_what_cannot_be_allowed() -> None:
    with pytest.raises(StartupError, match="--data-uris has '/srv', which begins with none of file://"):
        AllowedUris.of("/srv")


def test_what_is_wrong_with_a_chunk_is_told(store: Store, blobs: BlobStore, folder: Path, manifest: Manifest) -> None:
    datasets = catalog(store, blobs, f"file://{folder}")
    digest = blobs.put(manifest.to_bytes())

    def refused() -> str:
        with pytest.raises(InvalidRequestError) as caught:
            datasets.create("d", digest=digest, tenant="default", source_uri=f"file://{folder}")
        return refusal(caught).description

    second = folder / manifest.chunks[1].digest
    content = second.read_bytes()
    second.write_bytes(content[:-1] + b"\xff")
    assert refused().startswith(f"chunks[1]: file://{second} has another SHA-256")
    second.unlink()
    assert refused().startswith(f"chunks[1]: file://{second} cannot be read: FileNotFoundError")
    one = blobs.put(io.save({"inputs": INPUTS, "targets": TARGETS}))
    with pytest.raises(InvalidRequestError, match="the blob is no manifest of chunks"):
        datasets.create("d", digest=one, tenant="default", source_uri=f"file://{folder}")


def test_more_than_the_limit_is_not_read(folder: Path) -> None:
    (folder / "x").write_bytes(bytes(101))
    with pytest.raises(DatasetError, match="has more than 100 bytes"):
        read_uri(f"file://{folder}/x", limit_bytes=100)


def test_redirects_are_not_followed() -> None:
    class Elsewhere(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(int(self.path[1:]))
            self.send_header("Location", "http://169.254.169.254/secret")
            self.end_headers()

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Elsewhere) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        for status, kind in ((302, DatasetError), (404, DatasetError), (503, LinkError)):
            with pytest.raises(kind, match=str(status)):
                read_uri(f"http://127.0.0.1:{server.server_port}/{status}", limit_bytes=100)
        server.shutdown()
        thread.join()


def test_buckets_are_read_by_fsspec(monkeypatch: pytest.MonkeyPatch) -> None:
    memory = pytest.importorskip("fsspec.implementations.memory")
    fsspec = pytest.importorskip("fsspec")
    fsspec.register_implementation("s3", memory.MemoryFileSystem, clobber=True)
    with fsspec.open("s3://bucket/data/x", "wb") as file:
        file.write(b"rows")
    assert read_uri("s3://bucket/data/x", limit_bytes=100) == b"rows"
    with pytest.raises(DatasetError, match="cannot be read"):
        read_uri("s3://bucket/data/y", limit_bytes=100)
    monkeypatch.setitem(sys.modules, "fsspec", None)
    with pytest.raises(DatasetError, match="install fsspec, and s3fs or gcsfs"):
        read_uri("s3://bucket/data/x", limit_bytes=100)


def test_what_cannot_be_reached_is_no_fault_of_the_dataset() -> None:
    with pytest.raises(LinkError, match="cannot be reached"):
        read_uri("http://127.0.0.1:9/x", limit_bytes=100)
