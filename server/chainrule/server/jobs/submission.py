"""What makes a job worth queueing: its fields are checked, and its model is tried on its data, before it is stored."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass

import numpy as np

import chainrule.engine as cr
from chainrule.server import names
from chainrule.server.datasets import DatasetCatalog
from chainrule.server.errors import IllegalStateError, InvalidRequestError, Violation
from chainrule.server.models import ModelCatalog
from chainrule.server.records import Dataset, Job, Model
from chainrule.server.store import NewJob, Store
from chainrule.server.training.plan import Plan, Sgd, TrainingConfig

MAX_REQUEST_ID_LENGTH = 128
MAX_EPOCHS = 1_000_000
MAX_SHARDS = 65_536


@dataclass(frozen=True)
class Submission:
    """A job as asked for."""

    model: str
    dataset: str
    config: TrainingConfig
    request_id: str = ""

    @property
    def payload_digest(self) -> str:
        """Digest of everything but the request id."""
        payload = {"model": self.model, "dataset": self.dataset, "config": asdict(self.config)}
        return hashlib.sha256(json.dumps(payload, sort_keys=True).encode()).hexdigest()


class Submissions:
    """Checks and stores submissions. Its methods block."""

    def __init__(self, store: Store, models: ModelCatalog, datasets: DatasetCatalog) -> None:
        self._store = store
        self._models = models
        self._datasets = datasets

    def find(self, submission: Submission) -> Job | None:
        """The job that the request id has made before, if any: a repeated call is answered even if the job could not be
        made any more. Raises AlreadyExistsError if it was made of another payload."""
        if not submission.request_id:
            return None
        return self._store.find_job_of_request(submission.request_id, submission.payload_digest)

    def submit(self, submission: Submission, *, cluster_cpus: float) -> tuple[Job, bool]:
        """Store a job as QUEUED; True with it if it is new.

        Raises InvalidRequestError, NotFoundError (model or dataset), AlreadyExistsError (request id used for another
        payload) or IllegalStateError (the cluster is too small).
        """
        if len(submission.request_id) > MAX_REQUEST_ID_LENGTH:
            raise InvalidRequestError.of(
                "request_id", f"it has {len(submission.request_id)} characters; use at most {MAX_REQUEST_ID_LENGTH}"
            )
        violations = check_config(submission.config)
        if violations:
            raise InvalidRequestError(violations)
        model = self._models.get(submission.model, field="job.model")
        dataset = self._datasets.get(submission.dataset, field="job.dataset")
        self._try_model(model, dataset)
        workers = submission.config.workers
        if workers > cluster_cpus:
            raise IllegalStateError(
                f"job.config.workers is {workers}, but the cluster has {cluster_cpus:g} CPUs for workers; ask for at "
                f"most {int(cluster_cpus)} (the weights will be the same), or serve with --num-cpus {workers}"
            )
        return self._store.create_job(
            NewJob(
                name=f"jobs/{names.random_id()}",
                request_id=submission.request_id,
                payload_digest=submission.payload_digest,
                model=model.name,
                dataset=dataset.name,
                config=submission.config,
                total_steps=make_plan(model, dataset, submission.config).total_steps,
            )
        )

    def _try_model(self, model: Model, dataset: Dataset) -> None:
        """One forward pass on zeros tells whether the network takes such inputs and tells such classes apart."""
        module = self._models.load(model)
        module.eval()
        shape = list(dataset.input_shape)
        try:
            with cr.no_grad():
                outputs = module(cr.from_numpy(np.zeros((1, *shape), np.float32)))
        except (ValueError, RuntimeError, IndexError, TypeError) as error:
            raise InvalidRequestError.of(
                "job.dataset", f'inputs of shape {shape} of "{dataset.name}" do not fit "{model.name}": {error}'
            ) from error
        num_outputs = outputs.shape[-1]
        if dataset.num_classes > num_outputs:
            raise InvalidRequestError.of(
                "job.dataset",
                f'"{dataset.name}" has the label {dataset.num_classes - 1}, but "{model.name}" tells {num_outputs} '
                f"classes apart (0 to {num_outputs - 1}); correct the labels or use a model with num_classes "
                f"{dataset.num_classes}",
            )


def make_plan(model: Model, dataset: Dataset, config: TrainingConfig) -> Plan:
    """The training run that a job stands for."""
    return Plan(model.family, model.family_config, dataset.num_examples, config)


def check_config(config: TrainingConfig) -> list[Violation]:
    """Everything that is wrong with a configuration."""
    found = []

    def check(right: bool, field: str, description: str) -> None:
        if not right:
            found.append(Violation(f"job.config.{field}", description))

    check(1 <= config.epochs <= MAX_EPOCHS, "epochs", f"is {config.epochs}; use 1 to {MAX_EPOCHS:,}")
    check(config.batch_size >= 1, "batch_size", f"is {config.batch_size}; use at least 1")
    check(1 <= config.shards <= MAX_SHARDS, "shards", f"is {config.shards}; use 1 to {MAX_SHARDS:,}")
    check(
        config.shards <= max(config.batch_size, 1),
        "shards",
        f"is {config.shards}, more than batch_size {config.batch_size}: a shard would have no example; "
        "use at most one shard for each example of a batch",
    )
    check(
        1 <= config.workers <= max(config.shards, 1),
        "workers",
        f"is {config.workers}; use 1 to shards ({config.shards}), since a shard is computed by one worker",
    )
    sgd = config.optimizer
    check(np.isfinite(sgd.lr) and sgd.lr > 0, "sgd.lr", f"is {sgd.lr}; use a number above 0")
    check(np.isfinite(sgd.momentum) and sgd.momentum >= 0, "sgd.momentum", f"is {sgd.momentum}; use 0 or more")
    check(bool(np.isfinite(sgd.dampening)), "sgd.dampening", f"is {sgd.dampening}; use a finite number")
    check(
        np.isfinite(sgd.weight_decay) and sgd.weight_decay >= 0,
        "sgd.weight_decay",
        f"is {sgd.weight_decay}; use 0 or more",
    )
    check(_nesterov_is_possible(sgd), "sgd.nesterov", "needs momentum above 0 and dampening 0")
    return found


def _nesterov_is_possible(sgd: Sgd) -> bool:
    return not sgd.nesterov or (sgd.momentum > 0 and sgd.dampening == 0)
