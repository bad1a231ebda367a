"""Rows of chunks: the same as in memory, without being kept there, and fetched once where the files are elsewhere."""

from __future__ import annotations

import os
import pickle
import tracemalloc
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from chainrule.engine.io.chunked import Chunk, Column, Manifest
from chainrule.server.training import chunk_files
from chainrule.server.training.chunk_files import CACHE, CACHE_LIMIT, ChunkedExamples, ChunkFiles, ChunkFinder
from chainrule.server.training.errors import DatasetError
from chainrule.server.training.examples import Examples, Part, as_features, parts
from chainrule.server.training.reading import Reader
from tests.server.training.chunked import cut
from tests.server.training.runs import Run, images, run, small_plan


def path_of(examples: ChunkedExamples, number: int) -> Path:
    digest = examples.manifest.chunks[number].digest
    return Path(examples.folder) / digest[:2] / digest


@pytest.mark.parametrize("rows", [1, 7, 50])
@pytest.mark.parametrize("inputs", [np.float32, np.uint8, np.int64])
def test_rows_are_those_of_the_dataset_in_any_order(tmp_path: Path, rows: int, inputs: type) -> None:
    rng = np.random.default_rng(0)
    whole = Examples(rng.integers(0, 255, size=(50, 3, 2)).astype(inputs), rng.integers(0, 9, size=50))
    chunked = cut(whole, tmp_path, rows=rows)
    assert len(chunked) == 50
    orders = (np.arange(50), np.arange(50)[::-1], rng.permutation(50), np.array([3, 3, 49, 0]), np.arange(0))
    for order in orders:
        found, expected = chunked.read(order), whole.read(order)
        for name in ("inputs", "targets"):
            assert found[name].dtype == expected[name].dtype
            assert np.array_equal(found[name], expected[name])


def test_bytes_become_fractions() -> None:
    found = as_features(np.array([0, 51, 255], np.uint8))
    assert found.dtype == np.float32
    assert found.tolist() == [0.0, np.float32(0.2), 1.0]


def test_it_can_be_sent_to_another_process_after_use(tmp_path: Path) -> None:
    chunked = cut(images(), tmp_path, rows=9)
    chunked.read(np.arange(3))
    assert np.array_equal(pickle.loads(pickle.dumps(chunked)).read(np.arange(3))["inputs"], images().inputs[:3])


def test_what_is_held_does_not_grow_with_the_dataset(tmp_path: Path) -> None:
    """A dataset of 30 times the memory that may be held is read once in the order of an epoch."""
    budget = 1024**2
    whole = Examples(np.ones((480, 16384), np.float32), np.arange(480))
    assert whole.num_bytes >= 30 * budget
    chunked = cut(whole, tmp_path, rows=10)
    del whole
    order = np.random.default_rng(0).permutation(480)
    tracemalloc.start()
    try:
        seen = 0
        for start in range(0, 480, 4):
            seen += int(chunked.read(order[start : start + 4])["targets"].sum())
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert seen == 480 * 479 // 2
    assert peak < 2 * budget + chunk_files._HASHED_BYTES


def test_no_more_than_so_many_files_are_open(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chunk_files, "MAX_OPEN_FILES", 3)
    chunked = cut(images(), tmp_path, rows=5)
    files = ChunkFiles(chunked.manifest, ChunkFinder(tmp_path))
    before = len(os.listdir("/proc/self/fd"))
    for order in (np.arange(50), np.random.default_rng(1).permutation(50)):
        assert np.array_equal(files.read(order)["inputs"], images().inputs[order])
        assert len(os.listdir("/proc/self/fd")) <= before + 3
    files.close()
    assert len(os.listdir("/proc/self/fd")) == before


# --- what is damaged or elsewhere -------------------------------------------------------------------------------


def test_a_chunk_that_is_damaged_is_named(tmp_path: Path) -> None:
    chunked = cut(images(), tmp_path, rows=20)
    path = path_of(chunked, 1)
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    assert len(chunked.read(np.arange(20))["targets"]) == 20
    with pytest.raises(DatasetError, match=f"chunk {path.name} of the dataset is damaged on disk"):
        chunked.read(np.array([20]))


def test_a_chunk_that_is_missing_is_named(tmp_path: Path) -> None:
    chunked = cut(images(), tmp_path, rows=20)
    path_of(chunked, 2).unlink()
    with pytest.raises(DatasetError, match=f"chunk {path_of(chunked, 2).name} .* cannot be read: .*No such file"):
        chunked.read(np.array([49]))


def test_a_chunk_of_other_rows_than_the_manifest_says_is_refused(tmp_path: Path) -> None:
    chunked = cut(images(), tmp_path, rows=50)
    [chunk] = chunked.manifest.chunks
    lying = ChunkedExamples(Manifest(chunked.manifest.columns, (Chunk(chunk.digest, 60),)), str(tmp_path))
    with pytest.raises(DatasetError, match=r'column "inputs" is .* of 60 rows'):
        lying.read(np.array([55]))


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(CACHE, str(tmp_path / "cache"))
    return tmp_path / "cache"


def elsewhere(chunked: ChunkedExamples, fetched: list[str]) -> ChunkedExamples:
    """The same dataset on a machine that cannot open the service's files."""

    def fetch(digest: str) -> bytes:
        fetched.append(digest)
        return (Path(chunked.folder) / digest[:2] / digest).read_bytes()

    return ChunkedExamples(chunked.manifest, "/nowhere").fetched_with(fetch)


def test_chunks_of_another_machine_are_fetched_once(tmp_path: Path, cache: Path) -> None:
    chunked = cut(images(), tmp_path / "blobs", rows=20)
    fetched: list[str] = []
    for _ in range(2):  # two workers of a machine
        there = elsewhere(chunked, fetched)
        assert np.array_equal(there.read(np.arange(50)[::-1])["inputs"], images().inputs[::-1])
    assert sorted(fetched) == sorted(chunk.digest for chunk in chunked.manifest.chunks)
    assert {path.name for path in cache.iterdir()} == {*fetched, ".lock"}


def test_the_cache_keeps_within_its_limit(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    chunked = cut(images(), tmp_path / "blobs", rows=10)
    size = path_of(chunked, 0).stat().st_size
    monkeypatch.setenv(CACHE_LIMIT, str(2 * size))
    fetched: list[str] = []
    there = elsewhere(chunked, fetched)
    assert np.array_equal(there.read(np.arange(50))["inputs"], images().inputs)
    assert len(fetched) == 5
    assert len(list(cache.glob("[0-9a-f]*"))) == 2


def test_what_arrives_damaged_is_not_kept(tmp_path: Path, cache: Path) -> None:
    chunked = cut(images(), tmp_path / "blobs", rows=50)
    there = ChunkedExamples(chunked.manifest, "/nowhere").fetched_with(lambda digest: b"something else")
    with pytest.raises(DatasetError, match="arrived damaged"):
        there.read(np.array([0]))
    assert list(cache.glob("[0-9a-f]*")) == []


def test_a_cache_that_others_can_write_to_is_refused(tmp_path: Path, cache: Path) -> None:
    cache.mkdir()
    cache.chmod(0o777)
    there = elsewhere(cut(images(), tmp_path / "blobs", rows=50), [])
    with pytest.raises(DatasetError, match="not a folder that only this user can write to"):
        there.read(np.array([0]))


# --- kept back, and read ahead ----------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", [0, 5, 2**64 - 1])
def test_what_is_kept_back_is_a_function_of_the_seed(tmp_path: Path, seed: int) -> None:
    whole = images()
    train, kept = parts(whole, 12, seed)
    chunked_train, chunked_kept = parts(cut(whole, tmp_path, rows=7), 12, seed)
    assert kept is not None
    assert chunked_kept is not None
    assert (len(train), len(kept), len(chunked_train), len(chunked_kept)) == (38, 12, 38, 12)
    for one, other in ((train, chunked_train), (kept, chunked_kept)):
        every = np.arange(len(one))
        assert np.array_equal(one.read(every)["inputs"], other.read(every)["inputs"])
    together = np.concatenate([source.read(np.arange(len(source)))["inputs"] for source in (train, kept)])
    assert np.array_equal(np.sort(together.sum(axis=(1, 2, 3))), np.sort(whole.inputs.sum(axis=(1, 2, 3))))
    is_last = np.array_equal(kept.read(np.arange(12))["inputs"], whole.inputs[38:])
    assert is_last == (seed == 0)


def test_another_seed_keeps_back_others() -> None:
    found = {tuple(Part(images(), 12, seed, kept_back=True)._rows) for seed in (1, 2, 3)}
    assert len(found) == 3


def test_what_is_read_ahead_is_what_would_have_been_read(tmp_path: Path) -> None:
    chunked = cut(images(), tmp_path, rows=7)
    plan = small_plan(epochs=2)
    reader, plain = Reader(plan, chunked, chunked), Reader(plan, images())
    for step in range(plan.total_steps):
        for shard in range(plan.config.shards):
            found, expected = reader.shard(step, shard), plain.shard(step, shard)
            assert np.array_equal(found.inputs[0], expected.inputs[0])
            assert np.array_equal(found.targets["targets"], expected.targets["targets"])
            reader.expect_shard(step + 1, shard)
            reader.expect_shard(step + 2, shard)  # nobody takes some of these
    reader.expect_evaluated(np.arange(7))
    assert np.array_equal(reader.evaluated(np.arange(7)).inputs[0], images().inputs[:7])


def test_what_goes_wrong_ahead_is_raised_when_it_is_asked_for(tmp_path: Path) -> None:
    chunked = cut(images(), tmp_path, rows=50)
    path_of(chunked, 0).unlink()
    reader = Reader(small_plan(), chunked)
    reader.expect_shard(0, 0)
    with pytest.raises(DatasetError, match="cannot be read"):
        reader.shard(0, 0)


async def test_weights_do_not_depend_on_how_the_dataset_is_stored(tmp_path: Path) -> None:
    """One blob or chunks, 1, 2 or 3 workers, with an evaluation after each epoch."""
    plan = small_plan(num_validation=9)
    whole, kept = images(), images(9, seed=4)
    one = await run(plan, data=whole, validation=kept, workers=1)
    for workers, rows in ((1, 7), (2, 16), (3, 1)):
        found = await run(
            plan,
            data=cut(whole, tmp_path, rows=rows),
            validation=cut(kept, tmp_path, rows=rows),
            workers=workers,
        )
        assert (found.digest, found.evaluations) == (one.digest, one.evaluations)


def most_resident(pid: int) -> int:
    """The most memory that a process has had, in bytes."""
    return int(Path(f"/proc/{pid}/status").read_text().split("VmHWM:")[1].split()[0]) * 1024


@pytest.mark.whole
async def test_a_worker_takes_no_more_memory_for_a_large_dataset(tmp_path: Path) -> None:
    """384 MB in chunks of 16 MB: a worker that has read all of it has taken little more than for a small one."""
    size, count = 64, 8192
    rng = np.random.default_rng(0)
    peaks = []
    for name, num_examples in (("small", 256), ("large", count)):
        folder = tmp_path / name
        one = rng.normal(size=(256, 3, size, size)).astype(np.float32)
        cut_chunks: list[Chunk] = []
        columns: tuple[Column, ...] = ()
        for number in range(num_examples // 256):
            part = cut(Examples(one + np.float32(number), rng.integers(0, 10, size=256)), folder, rows=256)
            cut_chunks += part.manifest.chunks
            columns = part.manifest.columns
        data = ChunkedExamples(Manifest(columns, tuple(cut_chunks)), str(folder))
        family: dict[str, object] = {"width": 2, "in_channels": 3, "image_size": size}
        plan = replace(small_plan(family_config=family, epochs=1, batch_size=32, shards=2), num_examples=num_examples)
        found: dict[int, int] = {}

        async def watch(this: Run, found: dict[int, int] = found, last: int = plan.total_steps - 1) -> None:
            await this.until_step(last)
            for process in this.placement.workers.values():
                found[process.pid or 0] = most_resident(process.pid or 0)

        done = await run(plan, data=data, workers=2, meddle=watch, start="spawn", timeout_s=300.0)
        assert done.is_over
        peaks.append(max(found.values()))
    assert count * 3 * size * size * 4 > 380e6
    assert peaks[1] - peaks[0] < 32 * 1024**2, peaks


async def test_a_worker_that_is_lost_changes_nothing_with_chunks_either(tmp_path: Path) -> None:
    plan = small_plan(epochs=6)
    chunked = cut(images(), tmp_path, rows=7)

    async def kill(this: Run) -> None:
        for step in (4, 12):
            await this.until_step(step)
            lease = min(this.placement.workers)
            this.placement.workers[lease].kill()
            await this.until(lambda lease=lease: lease not in this.placement.workers)  # type: ignore[misc]

    whole = await run(plan, workers=1)
    found = await run(plan, data=chunked, workers=2, meddle=kill)
    assert found.digest == whole.digest
