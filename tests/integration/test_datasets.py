"""Datasets through the whole service: from files and frames, in one blob or in chunks, from this machine or another."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from chainrule.client import Client, Dataset, InvalidArgument, packing
from chainrule.engine import models
from chainrule.engine.io import chunked
from tests.integration.conftest import Images, ServerProcess, network, without_ray


@pytest.fixture
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Datasets of more than 4 KiB are chunks of at most 7 rows."""
    monkeypatch.setattr(packing, "SINGLE_BYTES", 4096)
    monkeypatch.setattr(packing, "rows_per_chunk", lambda row_bytes: 7)


def weights_of(client: Client, dataset: Dataset, **config: Any) -> str | None:
    model = client.models.create("test", network())
    settings = {"epochs": 2, "batch_size": 50, "shards": 4, "optimizer": {"lr": 0.05, "momentum": 0.9}}
    job = client.jobs.create(model=model, dataset=dataset, **{**settings, **config})
    return job.wait(timeout_s=120).weights_digest


@pytest.mark.parametrize(("validation", "workers"), [(None, (1, 3)), ({"fraction": 0.2, "seed": 5}, (2,))])
def test_weights_do_not_depend_on_how_a_dataset_is_stored(
    client: Client,
    images: Images,
    monkeypatch: pytest.MonkeyPatch,
    validation: dict[str, Any] | None,
    workers: tuple[int, ...],
) -> None:
    inputs, targets = images
    one = client.datasets.create("one", inputs=inputs, targets=targets)
    monkeypatch.setattr(packing, "SINGLE_BYTES", 4096)
    monkeypatch.setattr(packing, "rows_per_chunk", lambda row_bytes: 7)
    many = client.datasets.create("many", inputs=inputs, targets=targets)
    assert (one.num_chunks, many.num_chunks) == (0, 29)
    assert one.columns == many.columns
    expected = weights_of(client, one, validation=validation)
    assert {weights_of(client, many, workers=n, validation=validation) for n in workers} == {expected}


def test_another_seed_of_the_validation_gives_other_weights(client: Client, images: Images) -> None:
    inputs, targets = images
    one = client.datasets.create("one", inputs=inputs, targets=targets)
    found = [weights_of(client, one, validation={"fraction": 0.2, "seed": seed}) for seed in (0, 5, 6, 5)]
    assert found[1] == found[3]
    assert len(set(found)) == 3


def test_statistics_and_first_rows_are_shown(client: Client, images: Images, small_chunks: None) -> None:
    inputs, targets = images
    made = client.datasets.create("shown", inputs=inputs, targets=targets)
    assert [of.column for of in made.statistics] == ["inputs", "targets"]
    assert made.statistics[0].mean == pytest.approx(float(inputs.mean(dtype=np.float64)))
    assert made.statistics[1].class_counts == tuple(np.bincount(targets))
    first = client.datasets.preview("shown", 3)
    assert np.array_equal(first["inputs"], inputs[:3])
    assert np.array_equal(first["targets"], targets[:3])
    assert client.datasets.create("shown", (inputs, targets)) == made


def test_pictures_in_folders_are_trained_on(client: Client, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for label in ("cat", "dog"):
        (tmp_path / label).mkdir()
        for number in range(20):
            pixels = rng.integers(0, 256, size=(8, 8, 3)).astype(np.uint8)
            Image.fromarray(pixels).save(tmp_path / label / f"{number}.png")
    made = client.datasets.create("pets", tmp_path)
    assert (made.input_shape, made.columns[0].dtype, made.class_labels) == ((3, 8, 8), "uint8", ("cat", "dog"))
    client.models.create("pets", models.build("small_cnn", {"in_channels": 3, "num_classes": 2, "width": 4}))
    job = client.jobs.create(model="pets", dataset=made, batch_size=10, shards=2, workers=2)
    assert job.wait(timeout_s=120).weights_digest is not None


@pytest.fixture
def elsewhere(tmp_path: Path, temporary: Path) -> Iterator[ServerProcess]:
    """A server whose workers get chunks as those of another machine do."""
    environment = without_ray(TMPDIR=str(temporary), CHAINRULE_CHUNKS="fetch", CHAINRULE_CACHE=str(tmp_path / "cache"))
    server = ServerProcess(tmp_path / "data", "--num-cpus", "2", environment=environment)
    server.start()
    yield server
    server.stop()


def test_chunks_come_to_other_machines(
    elsewhere: ServerProcess, client: Client, images: Images, small_chunks: None, tmp_path: Path
) -> None:
    inputs, targets = images
    expected = weights_of(client, client.datasets.create("many", inputs=inputs, targets=targets))
    with Client.connect(elsewhere.address) as other:
        dataset = other.datasets.create("many", inputs=inputs, targets=targets)
        assert weights_of(other, dataset, workers=2) == expected
        manifest = chunked.Manifest.from_bytes(other.blobs.download(dataset.digest))
    cached = {path.name for path in (tmp_path / "cache").glob("[0-9a-f]*")}
    assert cached == {chunk.digest for chunk in manifest.chunks}


def test_chunks_may_lie_in_a_folder_that_the_operator_allows(
    make_server: Callable[..., ServerProcess], client: Client, images: Images, tmp_path: Path
) -> None:
    inputs, targets = images
    expected = weights_of(client, client.datasets.create("one", inputs=inputs, targets=targets))
    server = make_server("data", "--data-uris", f"file://{tmp_path}/shared")
    server.start()
    with Client.connect(server.address) as other:
        made = other.datasets.create("apart", inputs=inputs, targets=targets, uri=f"file://{tmp_path}/shared/a")
        assert (made.source_uri, made.num_chunks) == (f"file://{tmp_path}/shared/a", 1)
        assert [path.name for path in (tmp_path / "shared" / "a").iterdir()] == [
            chunked.Manifest.from_bytes(other.blobs.download(made.digest)).chunks[0].digest
        ]
        assert np.array_equal(other.datasets.preview(made, 2)["inputs"], inputs[:2])
        assert weights_of(other, made, workers=2) == expected
        with pytest.raises(InvalidArgument, match="in no folder that the service may read"):
            other.datasets.create("other", inputs=inputs, targets=targets, uri=f"file://{tmp_path}/elsewhere")
