"""A store with a model and a dataset, and jobs submitted to it."""

from __future__ import annotations

from typing import Any

import numpy as np

from chainrule.engine import graph, io
from chainrule.server.architecture import Builtin, GraphArchitecture
from chainrule.server.blobs import BlobStore
from chainrule.server.datasets import DatasetCatalog
from chainrule.server.jobs.submission import Submission, Submissions
from chainrule.server.models import ModelCatalog
from chainrule.server.records import JobState
from chainrule.server.store import Store
from chainrule.server.tenant_blobs import TenantBlobs
from chainrule.server.training.config import TrainingConfig

CONFIG = TrainingConfig(epochs=3, batch_size=4, shards=4, max_workers=2)


class Catalogs:
    """Submissions to a store that has the model "models/m" and the dataset "datasets/d"."""

    def __init__(self, store: Store, blobs: BlobStore) -> None:
        self.blobs = blobs
        everybodys = TenantBlobs(blobs, store, are_apart=False)
        self.models = ModelCatalog(store, blobs, everybodys)
        self.datasets = DatasetCatalog(store, blobs, everybodys)
        self.submissions = Submissions(store, self.models)
        self.models.create(
            "m", architecture=Builtin("small_cnn", {"width": 2}), weights_digest="", init_seed=0, tenant="default"
        )
        self.create_dataset("d", (1, 8, 8))

    def create_dataset(self, dataset_id: str, shape: tuple[int, ...], label: int = 9, count: int = 10) -> str:
        return self.create(dataset_id, np.zeros((count, *shape), np.float32), np.full(count, label))

    def create(self, dataset_id: str, inputs: np.ndarray, targets: np.ndarray) -> str:
        digest = self.blobs.put(io.save({"inputs": inputs, "targets": targets}))
        return self.datasets.create(dataset_id, digest=digest, tenant="default").name

    def create_gpt(self, **config: Any) -> str:
        """A GPT of 16 tokens and at most 8 in a row."""
        small = {"vocab_size": 16, "context": 8, "dim": 8, "heads": 2, "layers": 1, **config}
        return self.models.create(
            "gpt", architecture=Builtin("gpt", small), weights_digest="", init_seed=0, tenant="default"
        ).name

    def create_graph(self, content: bytes, model_id: str = "g") -> str:
        architecture, weights = graph.split(content)
        return self.models.create(
            model_id,
            architecture=GraphArchitecture(self.blobs.put(architecture)),
            weights_digest=self.blobs.put(io.save(weights)),
            init_seed=0,
            tenant="default",
        ).name

    def submit(self, cpus: float = 4, **fields: Any) -> tuple[JobState, bool]:
        submission = Submission(**{"model": "models/m", "dataset": "datasets/d", "config": CONFIG, **fields})
        job, new = self.submissions.submit(submission, cluster_cpus=cpus)
        return job.state, new
