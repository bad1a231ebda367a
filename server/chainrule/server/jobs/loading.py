"""What the next attempt at a job begins with: its plan, the state of the last checkpoint, its examples."""

from __future__ import annotations

import logging

from chainrule.server.datasets import DatasetCatalog
from chainrule.server.jobs.checkpoints import Checkpoints
from chainrule.server.jobs.recording import Setback, setback
from chainrule.server.jobs.submission import make_plan
from chainrule.server.models import ModelCatalog
from chainrule.server.records import Checkpoint, Job, Model
from chainrule.server.store import Inputs, Store
from chainrule.server.training.attempt import AttemptSpec
from chainrule.server.training.checkpoint import CheckpointError
from chainrule.server.training.examples import parts
from chainrule.server.training.state import TrainingState

logger = logging.getLogger(__name__)


def inputs_of(job: Job, store: Store) -> Inputs:
    """What a job is made of. It stays while the job has not ended. Raises NotFoundError."""
    return store.inputs(
        job.tenant,
        model=job.model,
        version=job.source_version,
        dataset=job.dataset,
        validation=job.config.validation.dataset,
    )


class Loader:
    """Reads what attempts at one job begin with. Its methods block."""

    def __init__(
        self, job: str, *, store: Store, models: ModelCatalog, datasets: DatasetCatalog, checkpoints: Checkpoints
    ) -> None:
        self._job = job
        self._store = store
        self._models = models
        self._datasets = datasets
        self._checkpoints = checkpoints

    def spec(self, workers: int) -> tuple[AttemptSpec, Setback | None]:
        """The next attempt, with that many workers, and what it has to make up for."""
        job = self._store.get_job(self._job)
        config = job.config
        inputs = inputs_of(job, self._store)
        model, dataset, second = inputs.model, inputs.dataset, inputs.validation
        plan = make_plan(self._models.architecture(model), dataset, second, config)
        state = self._last_state() or self._first_state(model)
        if not config.exact:  # what is computed again may be something else
            self._store.drop_receipts(self._job, after_step=state.step)
        examples, kept_back = parts(
            self._datasets.load(dataset), dataset.num_examples - plan.num_examples, config.validation.seed
        )
        if second is not None:
            kept_back = self._datasets.load(second)
        spec = AttemptSpec(
            job=self._job,
            plan=plan,
            state=state,
            examples=examples,
            validation=kept_back,
            fence=self._store.next_attempt(self._job),
            workers=workers,
            fingerprint=job.fingerprint,
            evaluations=tuple(e for e in self._store.evaluations(self._job) if e.step <= state.step),
        )
        return spec, setback(job, self._store.latest_metric(self._job), step=state.step)

    def state_at(self, step: int) -> TrainingState:
        """The state after a step. Raises CheckpointError if it cannot be read."""
        for known in self._store.checkpoints(self._job):
            if known.step == step:
                return self._checkpoints.read(known)
        raise CheckpointError(f"there is no checkpoint of step {step} of {self._job}")

    def drop_from(self, step: int, why: str) -> None:
        """Forget the checkpoint of a step, and those after it, so that it is computed again."""
        self._drop([known for known in self._store.checkpoints(self._job) if known.step >= step], step, why)

    def _last_state(self) -> TrainingState | None:
        """The state of the latest checkpoint that is whole; None if there is none."""
        for known in self._store.checkpoints(self._job):
            try:
                return self._checkpoints.read(known)
            except CheckpointError as error:
                self._drop([known], known.step, str(error))
        return None

    def _first_state(self, model: Model) -> TrainingState:
        """The state before the first step. A parameter with several names is in it once."""
        return TrainingState(0, *self._models.state(model))

    def _drop(self, damaged: list[Checkpoint], step: int, why: str) -> None:
        logger.warning("%s: the checkpoint of step %d is left out: %s", self._job, step, why)
        message = f"the checkpoint of step {step} is damaged, and one before it is used: {why}"
        self._store.add_event(self._job, "warning", message, step=step)
        self._checkpoints.drop(self._job, damaged)
