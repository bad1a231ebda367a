"""The DataLoader: the batches of an epoch, made here or ahead of time in threads, the same either way."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from chainrule.engine.data.collation import default_collate, default_convert
from chainrule.engine.data.datasets import fetch, fetch_one, size
from chainrule.engine.data.prefetch import DataLoaderError, Prefetcher
from chainrule.engine.data.samplers import BatchSampler, RandomSampler, Sampler, SequentialSampler, take_draw
from chainrule.engine.errors import ConfigError, UnsupportedError
from chainrule.engine.random import Generator, current_generator, raw_stream, using

_exclusive = "batch_sampler option is mutually exclusive with batch_size, shuffle, sampler, and drop_last"


@dataclass(frozen=True)
class WorkerInfo:
    """What a dataset may know of the thread that asks it.

    Attributes:
        id: of the worker, from 0.
        num_workers: how many there are.
        seed: a number for this worker in this epoch.
        dataset: what the loader loads.
    """

    id: int
    num_workers: int
    seed: int
    dataset: Any


class _Worker(threading.local):
    info: WorkerInfo | None = None


_worker = _Worker()


def get_worker_info() -> WorkerInfo | None:
    """Of the worker whose thread this is; None outside of one."""
    return _worker.info


class DataLoader:
    """Batches of a dataset, anew for each epoch; iterating starts an epoch.

    An epoch takes one draw of the generator, number e, which is the epoch's number if nothing else draws from it. The
    order of `shuffle` is `epoch_order(n, seed=the generator's, epoch=e)`, and what a dataset or `collate_fn` draws
    from the current generator is keyed by (seed, e, number of the batch): batches are the same whatever
    `num_workers` is. Draws from elsewhere, such as `numpy.random`, are not the loader's to repeat.

    Args:
        dataset: has `__getitem__` and, unless a sampler is given, `__len__`; workers call it at the same time.
        batch_size: None: no batches but examples, converted by `default_convert`.
        shuffle: an order drawn anew for each epoch rather than the dataset's own.
        sampler: gives the order instead: indices.
        batch_sampler: gives the batches instead: lists of indices.
        num_workers: threads that make batches ahead of time; 0: they are made when asked for.
        collate_fn: makes a batch of a list of examples; None: `default_collate`.
        pin_memory: has no effect but a warning, as in PyTorch where there is no accelerator.
        drop_last: without a last batch that is shorter.
        timeout: seconds that a batch of the workers may take; 0: as long as it takes.
        worker_init_fn: called in each worker with its number, before its first batch.
        prefetch_factor: batches that each worker is ahead; None: 2.
        generator: None: the current one, when an epoch starts.

    Raises:
        ConfigError: settings that are out of range, or exclude each other.
        UnsupportedError: memory of a device, processes, or workers that outlive an epoch.
    """

    def __init__(
        self,
        dataset: Any,
        batch_size: int | None = 1,
        shuffle: bool | None = None,
        sampler: Sampler[Any] | Iterable[Any] | None = None,
        batch_sampler: Sampler[list[Any]] | Iterable[list[Any]] | None = None,
        num_workers: int = 0,
        collate_fn: Callable[[Any], Any] | None = None,
        pin_memory: bool = False,
        drop_last: bool = False,
        timeout: float = 0,
        worker_init_fn: Callable[[int], object] | None = None,
        multiprocessing_context: object = None,
        generator: Generator | None = None,
        *,
        prefetch_factor: int | None = None,
        persistent_workers: bool = False,
        pin_memory_device: str = "",
        in_order: bool = True,
    ) -> None:
        _refuse_unsupported(
            pin_memory_device=(pin_memory_device, "arrays live in ordinary memory"),
            multiprocessing_context=(multiprocessing_context, "workers are threads"),
            persistent_workers=(persistent_workers, "workers are threads, cheap to start for each epoch"),
            in_order=(not in_order, "batches come in order"),
        )
        if pin_memory:
            warnings.warn(
                "'pin_memory' argument is set as true but no accelerator is found, then device pinned memory won't be "
                "used.",
                stacklevel=2,
            )
        if not hasattr(dataset, "__getitem__"):
            raise UnsupportedError(f"DataLoader of {type(dataset).__name__}: a dataset needs __getitem__")
        self.num_workers, self.timeout = num_workers, timeout
        self.prefetch_factor = prefetch_factor
        self._check_workers()
        if batch_sampler is not None:
            if batch_size != 1 or shuffle or sampler is not None or drop_last:
                raise ConfigError("batch_sampler", batch_sampler, _exclusive)
            batch_size = None
        elif batch_size is None and drop_last:
            raise ConfigError("drop_last", drop_last, "batch_size=None disables auto-batching and excludes drop_last")
        if sampler is not None and shuffle:
            raise ConfigError("sampler", sampler, "sampler option is mutually exclusive with shuffle")
        if sampler is None and batch_sampler is None:
            size(dataset)
        if sampler is None:
            sampler = RandomSampler(dataset, generator=generator) if shuffle else SequentialSampler(dataset)
        if batch_size is not None:
            batch_sampler = BatchSampler(sampler, batch_size, drop_last)
        self.dataset = dataset
        self.batch_size = batch_size
        self.sampler = sampler
        self.batch_sampler = batch_sampler
        self.drop_last = drop_last
        self.collate_fn = collate_fn or (default_convert if batch_sampler is None else default_collate)
        self.worker_init_fn = worker_init_fn
        self.generator = generator

    def _check_workers(self) -> None:
        if self.num_workers < 0:
            raise ConfigError(
                "num_workers", self.num_workers, "should be non-negative; use num_workers=0 to make batches when asked"
            )
        if self.timeout < 0:
            raise ConfigError("timeout", self.timeout, "timeout option should be non-negative")
        if self.num_workers == 0 and self.prefetch_factor is not None:
            raise ConfigError("prefetch_factor", self.prefetch_factor, "let num_workers > 0, or leave it out")
        if self.num_workers and self.prefetch_factor is None:
            self.prefetch_factor = 2
        if self.prefetch_factor is not None and self.prefetch_factor < 1:
            raise ConfigError("prefetch_factor", self.prefetch_factor, "must be at least 1")

    def __len__(self) -> int:
        counted: Any = self.sampler if self.batch_sampler is None else self.batch_sampler
        return len(counted)

    def __iter__(self) -> Iterator[Any]:
        generator = self.generator or current_generator()
        before = generator.get_state()
        indices: Iterator[Any] = iter(self.sampler if self.batch_sampler is None else self.batch_sampler)
        if generator.get_state() == before:  # no sampler of ours took the epoch's draw
            take_draw(generator)
        epoch = _Epoch(self.dataset, self.collate_fn, self.batch_sampler is not None, *before)
        if self.num_workers == 0:
            return (epoch.make(number, batch) for number, batch in enumerate(indices))
        assert self.prefetch_factor is not None
        return Prefetcher(
            indices,
            epoch.make,
            epoch.starter(self.num_workers, self.worker_init_fn),
            num_workers=self.num_workers,
            ahead=self.num_workers * self.prefetch_factor,
            timeout_s=self.timeout,
        )


@dataclass(frozen=True)
class _Epoch:
    """How the batches of one epoch are made.

    Attributes:
        seed: of the generator.
        draw: the number of the epoch's draw.
    """

    dataset: Any
    collate_fn: Callable[[Any], Any]
    batched: bool
    seed: int
    draw: int

    def make(self, number: int, indices: Any) -> Any:
        """The batch of this number."""
        with using(Generator(self._word(number, 1))):
            try:
                examples = (fetch if self.batched else fetch_one)(self.dataset, indices)
                return self.collate_fn(examples)
            except StopIteration as error:  # which would end the loop as if all were well
                raise DataLoaderError(f"StopIteration while making batch {number}") from error
            except Exception as error:
                error.add_note(f"while making batch {number} of examples {indices}")
                raise

    def starter(self, num_workers: int, worker_init_fn: Callable[[int], object] | None) -> Callable[[int], None]:
        """What a worker does first."""

        def start(worker: int) -> None:
            _worker.info = WorkerInfo(worker, num_workers, self._word(worker, 2), self.dataset)
            if worker_init_fn is not None:
                worker_init_fn(worker)

        return start

    # The last part of the key keeps the streams of batches, workers and orders apart.
    def _word(self, number: int, purpose: int) -> int:
        return int(raw_stream(self.seed, self.draw, number, purpose, size=1)[0])


def _refuse_unsupported(**settings: tuple[object, str]) -> None:
    for name, (value, reason) in settings.items():
        if value:
            raise UnsupportedError(f"DataLoader({name}=...) is not supported: {reason}; leave it at its default")
