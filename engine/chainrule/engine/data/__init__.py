"""Datasets, the order of their examples, and batches of them."""

from chainrule.engine.data.collation import default_collate, default_convert
from chainrule.engine.data.datasets import ConcatDataset, Dataset, Subset, TensorDataset, random_split
from chainrule.engine.data.loader import DataLoader, WorkerInfo, get_worker_info
from chainrule.engine.data.order import batch_indices, compact_epoch_order, epoch_order, num_batches, split
from chainrule.engine.data.prefetch import DataLoaderError
from chainrule.engine.data.samplers import (
    BatchSampler,
    RandomSampler,
    Sampler,
    SequentialSampler,
    SubsetRandomSampler,
    WeightedRandomSampler,
)

__all__ = [
    "BatchSampler",
    "ConcatDataset",
    "DataLoader",
    "DataLoaderError",
    "Dataset",
    "RandomSampler",
    "Sampler",
    "SequentialSampler",
    "Subset",
    "SubsetRandomSampler",
    "TensorDataset",
    "WeightedRandomSampler",
    "WorkerInfo",
    "batch_indices",
    "compact_epoch_order",
    "default_collate",
    "default_convert",
    "epoch_order",
    "get_worker_info",
    "num_batches",
    "random_split",
    "split",
]
