"""Batches are the same whoever makes them, come in order, and their makers end when nobody waits for them."""

from __future__ import annotations

import subprocess
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

import chainrule.engine as cr
from chainrule.engine.data import (
    DataLoader,
    DataLoaderError,
    Dataset,
    RandomSampler,
    TensorDataset,
    epoch_order,
    get_worker_info,
)

WORKERS = [0, 1, 3]
wait_s = 30  # for what happens at once, unless it never does


class Recorded(Dataset[int]):
    """Its own indices; it remembers which were asked for."""

    def __init__(self, size: int, before: Callable[[int], object] = lambda index: None) -> None:
        self.size = size
        self.before = before
        self.asked: list[int] = []

    def __getitem__(self, index: int) -> int:
        self.asked.append(index)
        self.before(index)
        return index

    def __len__(self) -> int:
        return self.size


class Noisy(Dataset[tuple[int, cr.Tensor]]):
    """Draws anew at each access."""

    def __getitem__(self, index: int) -> tuple[int, cr.Tensor]:
        return index, cr.rand(2)

    def __len__(self) -> int:
        return 11


def _listed(loader: DataLoader) -> list[Any]:
    return [batch.tolist() for batch in loader]


def _workers() -> set[threading.Thread]:
    return {thread for thread in threading.enumerate() if thread.name.startswith("chainrule-data-")}


@pytest.fixture
def new_workers() -> Iterator[Callable[[], set[threading.Thread]]]:
    """The workers started since the test began; at its end all of them have ended."""
    before = _workers()
    started: set[threading.Thread] = set()

    def new() -> set[threading.Thread]:
        started.update(_workers() - before)
        return started

    yield new
    for thread in new():
        thread.join(wait_s)
    assert not any(thread.is_alive() for thread in started)


# ---- Which batches ----


@pytest.mark.torch
@pytest.mark.parametrize("settings", [{}, {"batch_size": 4}, {"batch_size": 4, "drop_last": True}, {"batch_size": 20}])
@pytest.mark.parametrize("num_workers", WORKERS)
def test_batches_in_order_are_pytorchs(torch: Any, settings: dict[str, Any], num_workers: int) -> None:
    x = np.arange(20, dtype=np.float32).reshape(10, 2)
    mine = DataLoader(TensorDataset(cr.tensor(x), cr.arange(10)), num_workers=num_workers, **settings)
    theirs = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(torch.tensor(x), torch.arange(10)), **settings)
    assert len(mine) == len(theirs)
    assert [[part.tolist() for part in batch] for batch in mine] == [
        [part.tolist() for part in batch] for batch in theirs
    ]


@pytest.mark.parametrize("num_workers", WORKERS)
def test_the_order_of_an_epoch_is_a_function_of_seed_and_epoch(num_workers: int) -> None:
    loader = DataLoader(Recorded(10), 4, shuffle=True, generator=cr.Generator(5), num_workers=num_workers)
    for epoch in range(3):
        order = [index for batch in _listed(loader) for index in batch]
        assert order == epoch_order(10, seed=5, epoch=epoch).tolist()


def test_loaders_without_a_generator_differ_and_repeat_with_the_seed() -> None:
    cr.manual_seed(1)
    first, second = (_listed(DataLoader(Recorded(20), 5, shuffle=True)) for _ in range(2))
    assert first != second
    cr.manual_seed(1)
    assert _listed(DataLoader(Recorded(20), 5, shuffle=True)) == first


def test_an_epoch_takes_one_draw_of_the_generator() -> None:
    for settings in ({"shuffle": True}, {"shuffle": False}, {"sampler": [1, 2]}, {"batch_sampler": [[1, 2]]}):
        generator = cr.Generator(0)
        loader = DataLoader(Recorded(4), generator=generator, **settings)
        _listed(loader)
        assert generator.get_state() == (0, 1)


@pytest.mark.parametrize("num_workers", WORKERS)
def test_what_datasets_draw_does_not_depend_on_the_workers(num_workers: int) -> None:
    def epochs(num_workers: int) -> list[Any]:
        def collate(examples: list[Any]) -> Any:
            return [index for index, _ in examples], [x.tolist() for _, x in examples], cr.rand(1).tolist()

        loader = DataLoader(
            Noisy(), 3, shuffle=True, generator=cr.Generator(2), collate_fn=collate, num_workers=num_workers
        )
        return [list(loader), list(loader)]

    first, second = epochs(num_workers)
    assert [first, second] == epochs(0)
    assert first != second
    assert len({tuple(x) for batch in first for x in batch[1]}) == 11


def test_drawing_in_a_dataset_leaves_the_generators_alone() -> None:
    cr.manual_seed(4)
    list(DataLoader(Noisy(), 3, generator=cr.Generator(1)))
    assert cr.random.default_generator.get_state() == (4, 0)


@pytest.mark.parametrize("num_workers", WORKERS)
def test_samplers_and_collation_can_be_given(num_workers: int) -> None:
    data = Recorded(10)
    assert _listed(DataLoader(data, 2, sampler=[9, 1, 5], num_workers=num_workers)) == [[9, 1], [5]]
    assert _listed(DataLoader(data, batch_sampler=[[3], [1, 2]], num_workers=num_workers)) == [[3], [1, 2]]
    assert [*DataLoader(data, 3, sampler=range(3), collate_fn=sum, num_workers=num_workers)] == [3]
    sampler = RandomSampler(data, generator=cr.Generator(8))
    assert _listed(DataLoader(data, 10, sampler=sampler, num_workers=num_workers)) == [
        epoch_order(10, seed=8, epoch=0).tolist()
    ]


@pytest.mark.parametrize("num_workers", WORKERS)
def test_without_batches_examples_come_one_by_one(num_workers: int) -> None:
    loader = DataLoader([np.ones(2), "text", 3], batch_size=None, num_workers=num_workers)
    first, *rest = loader
    assert isinstance(first, cr.Tensor)
    assert rest == ["text", 3]
    assert len(loader) == 3


def test_a_dataset_may_fetch_a_batch_at_once() -> None:
    class AtOnce(Recorded):
        def __getitems__(self, indices: list[int]) -> list[int]:
            return [10 * index for index in indices]

    assert _listed(DataLoader(AtOnce(4), 3)) == [[0, 10, 20], [30]]


# ---- Workers ----


@pytest.mark.usefixtures("new_workers")
def test_batches_come_in_order_though_they_are_made_out_of_order() -> None:
    done = threading.Event()

    def before(index: int) -> None:
        if index == 3:
            done.set()
        elif index == 0:
            assert done.wait(wait_s)  # until another worker is ahead

    loader = DataLoader(Recorded(8, before), 2, num_workers=2)
    assert _listed(loader) == [[0, 1], [2, 3], [4, 5], [6, 7]]


def test_workers_are_no_further_ahead_than_told(new_workers: Callable[[], set[threading.Thread]]) -> None:
    data = Recorded(100)
    batches = iter(DataLoader(data, 1, num_workers=2, prefetch_factor=3))
    for _ in range(4):
        next(batches)
    workers = new_workers()
    del batches
    for worker in workers:
        worker.join(wait_s)
    assert 4 <= len(data.asked) <= 4 + 2 * 3


def test_workers_end_with_the_epoch(new_workers: Callable[[], set[threading.Thread]]) -> None:
    batches = iter(DataLoader(Recorded(6), 2, num_workers=3))
    assert len(new_workers()) == 3
    assert len(list(batches)) == 3
    for worker in new_workers():
        worker.join(wait_s)
        assert not worker.is_alive()
    assert next(batches, None) is None


def test_workers_end_when_the_iterator_is_let_go_of(new_workers: Callable[[], set[threading.Thread]]) -> None:
    for batch in DataLoader(Recorded(1000), 2, num_workers=3):
        assert batch.tolist() == [0, 1]
        assert len(new_workers()) == 3
        break
    for worker in new_workers():
        worker.join(wait_s)
        assert not worker.is_alive()


def test_an_interpreter_ends_though_workers_wait() -> None:
    code = (
        "from chainrule.engine.data import DataLoader\n"
        "batches = iter(DataLoader(list(range(100)), 2, num_workers=2))\n"
        "print(next(batches).tolist())"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=2 * wait_s)
    assert (ended.stdout, ended.stderr) == ("[0, 1]\n", "")


def test_each_worker_begins_by_itself_and_knows_who_it_is() -> None:
    started: list[int] = []
    seen: list[Any] = []
    data = Recorded(8, lambda index: seen.append(get_worker_info()))
    loader = DataLoader(data, 2, num_workers=2, worker_init_fn=started.append, generator=cr.Generator(0))
    list(loader)
    assert set(started) <= {0, 1}
    assert len(started) == len(set(started))
    assert {(info.num_workers, info.dataset is data) for info in seen} == {(2, True)}
    seeds = {info.id: info.seed for info in seen}
    assert len(set(seeds.values())) == len(seeds)
    assert get_worker_info() is None


# ---- Errors ----


def _fail_at_3(index: int) -> None:
    if index == 3:
        raise LookupError("no such picture")


@pytest.mark.usefixtures("new_workers")
@pytest.mark.parametrize("num_workers", WORKERS)
def test_an_error_arrives_where_the_batch_would_have(num_workers: int) -> None:
    batches = iter(DataLoader(Recorded(8, _fail_at_3), 2, num_workers=num_workers))
    assert next(batches).tolist() == [0, 1]
    with pytest.raises(LookupError, match="no such picture") as caught:
        next(batches)
    assert caught.value.__notes__ == [
        "while fetching example 3 of Recorded",
        "while making batch 1 of examples [2, 3]",
    ]
    frames = [frame.name for frame in traceback.extract_tb(caught.value.__traceback__)]
    assert frames[-1] == "_fail_at_3"
    assert next(batches, None) is None


@pytest.mark.usefixtures("new_workers")
@pytest.mark.parametrize("num_workers", WORKERS)
def test_a_dataset_that_ends_early_does_not_end_the_loop_silently(num_workers: int) -> None:
    def stop(index: int) -> None:
        if index == 2:
            raise StopIteration

    with pytest.raises(DataLoaderError, match="StopIteration while making batch 1"):
        list(DataLoader(Recorded(4, stop), 2, num_workers=num_workers))


@pytest.mark.usefixtures("new_workers")
def test_a_worker_that_cannot_begin_says_why() -> None:
    def refuse(worker: int) -> None:
        raise OSError(f"worker {worker} has no disk")

    with pytest.raises(OSError, match="worker 0 has no disk"):
        list(DataLoader(Recorded(4), 2, num_workers=1, worker_init_fn=refuse))


@pytest.mark.usefixtures("new_workers")
def test_even_an_exit_in_a_worker_arrives() -> None:
    def leave(index: int) -> None:
        raise SystemExit(3)

    with pytest.raises(SystemExit):
        list(DataLoader(Recorded(4, leave), 2, num_workers=2))


@pytest.mark.usefixtures("new_workers")
def test_a_batch_that_takes_too_long_is_an_error() -> None:
    released = threading.Event()
    loader = DataLoader(Recorded(4, lambda index: released.wait(wait_s)), 2, num_workers=1, timeout=0.01)
    with pytest.raises(DataLoaderError, match=r"DataLoader timed out after 0.01 seconds"):
        next(iter(loader))
    released.set()


@pytest.mark.torch
def test_pinned_memory_is_ignored_with_pytorchs_warning(torch: Any) -> None:
    with pytest.warns(UserWarning, match="pinned memory won't be used") as theirs:
        list(torch.utils.data.DataLoader([1, 2, 3], pin_memory=True))
    with pytest.warns(UserWarning, match="pinned memory won't be used") as ours:
        batches = list(DataLoader([1, 2, 3], pin_memory=True))
    assert [batch.tolist() for batch in batches] == [[1], [2], [3]]
    assert str(ours[0].message) == str(theirs[0].message)


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"num_workers": -1}, "num_workers=-1: should be non-negative"),
    ({"timeout": -1}, "timeout=-1: timeout option should be non-negative"),
    ({"prefetch_factor": 2}, "prefetch_factor=2: let num_workers > 0"),
    ({"num_workers": 1, "prefetch_factor": 0}, "prefetch_factor=0: must be at least 1"),
    ({"batch_size": 0}, "batch_size should be a positive integer value"),
    ({"sampler": [0], "shuffle": True}, "sampler option is mutually exclusive with shuffle"),
    ({"batch_size": None, "drop_last": True}, "disables auto-batching"),
    *[
        ({"batch_sampler": [[0]], **more}, "batch_sampler option is mutually exclusive with")
        for more in ({"batch_size": 2}, {"shuffle": True}, {"sampler": [0]}, {"drop_last": True})
    ],
]


@pytest.mark.torch
@pytest.mark.parametrize(("settings", "message"), REFUSED)
def test_settings_that_pytorch_refuses_are_refused(torch: Any, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(cr.ConfigError, match=message):
        DataLoader(Recorded(4), **settings)
    if settings.get("prefetch_factor") != 0:  # which PyTorch takes, and then waits for nothing
        with pytest.raises(ValueError, match=r"."):
            torch.utils.data.DataLoader(Recorded(4), **settings)


@pytest.mark.parametrize(
    "settings",
    [
        {"pin_memory_device": "cuda"},
        {"multiprocessing_context": "spawn"},
        {"persistent_workers": True},
        {"in_order": False},
    ],
)
def test_what_this_version_cannot_do_is_said(settings: dict[str, Any]) -> None:
    (name,) = settings
    with pytest.raises(cr.UnsupportedError, match=rf"DataLoader\({name}=...\) is not supported: .*leave it at"):
        DataLoader(Recorded(4), **settings)


def test_a_dataset_needs_examples_by_number() -> None:
    with pytest.raises(cr.UnsupportedError, match="DataLoader of generator: a dataset needs __getitem__"):
        DataLoader(number for number in range(3))

    class Endless(Dataset[int]):
        def __getitem__(self, index: int) -> int:
            return index

    with pytest.raises(cr.ConfigError, match="dataset='Endless': has no __len__; define it, or give a sampler"):
        DataLoader(Endless())
    assert _listed(DataLoader(Endless(), 2, sampler=[5, 6, 7])) == [[5, 6], [7]]
