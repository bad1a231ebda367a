"""What makes a job worth queueing: its fields are checked, and its model is tried on its data, before it is stored."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from fnmatch import fnmatchcase

import numpy as np

import chainrule.engine as cr
from chainrule.engine import nn
from chainrule.server import names
from chainrule.server.annotations import annotation_violations
from chainrule.server.architecture import Architecture
from chainrule.server.errors import IllegalStateError, InvalidRequestError, Violation, echo
from chainrule.server.jobs.checks import check_config, check_priority
from chainrule.server.jobs.class_names import class_names
from chainrule.server.jobs.image_checks import check_images
from chainrule.server.jobs.objective_checks import check_fit
from chainrule.server.models import ModelCatalog
from chainrule.server.records import Dataset, Job, Model
from chainrule.server.store import NewJob, Request, Store
from chainrule.server.store.configs import augmentation_values
from chainrule.server.store.schema import DEFAULT_TENANT
from chainrule.server.training.config import ParameterGroup, TrainingConfig
from chainrule.server.training.plan import Plan

_VALIDATION = "job.config.validation.dataset"
_NEVER = object()
_LATER: Mapping[str, object] = {
    "losses": (),
    "metrics": (),
    "parameter_groups": (),
    "accumulate": 1,
    "ema_decay": 0.0,
    "precision": "float32",
    "augmentation": {"transforms": [], "mixup": 0.0},
}
"""Settings that came with a later version, as they are where they are not set: the call is what it was before them."""


@dataclass(frozen=True)
class Submission:
    """A job as asked for."""

    model: str
    """As `names.model_source` takes it."""
    dataset: str
    config: TrainingConfig
    request_id: str = ""
    tenant: str = DEFAULT_TENANT
    labels: Mapping[str, str] = field(default_factory=dict)
    description: str = ""
    priority: int = 0

    def request(self) -> Request:
        """The call that makes it, of whoever makes it. Raises InvalidRequestError."""
        return Request.of(
            self.request_id,
            model=self.model,
            dataset=self.dataset,
            config=_as_asked(self.config),
            labels=dict(self.labels),
            description=self.description,
            priority=self.priority,
        )


def _as_asked(config: TrainingConfig) -> dict[str, object]:
    """What makes a configuration the same as another, whichever version was asked for it."""
    values = {**asdict(config), "augmentation": augmentation_values(config.augmentation)}
    if not config.validation.seed:  # came later, too
        del values["validation"]["seed"]
    return {name: value for name, value in values.items() if value != _LATER.get(name, _NEVER)}


class Submissions:
    """Checks and stores submissions. Its methods block.

    Args:
        max_waiting: most jobs of a tenant that may wait in the queue or be paused; None: any number.
    """

    def __init__(self, store: Store, models: ModelCatalog, *, max_waiting: int | None = None) -> None:
        self._store = store
        self._models = models
        self._max_waiting = max_waiting

    def find(self, submission: Submission) -> Job | None:
        """The job that the request id has made before, if any: a repeated call is answered even if the job could not be
        made any more. Raises AlreadyExistsError if it was made of another payload, or NotFoundError if it was removed
        since."""
        if not submission.request_id:
            return None
        return self._store.find_job_of_request(submission.request(), tenant=submission.tenant)

    def submit(self, submission: Submission, *, cluster_cpus: float) -> tuple[Job, bool]:
        """Store a job as QUEUED; True with it if it is new.

        Raises InvalidRequestError, NotFoundError (model or dataset; or the job that the request id has made was
        removed), AlreadyExistsError (request id used for another payload), QueueFullError or IllegalStateError (the
        cluster is too small).
        """
        return self._store.create_job(self._checked(submission, cluster_cpus), max_waiting=self._max_waiting)

    def preview(self, submission: Submission, *, cluster_cpus: float) -> Job:
        """The job as `submit` would store it, and what that raises; nothing is stored."""
        return self._store.preview_job(self._checked(submission, cluster_cpus), max_waiting=self._max_waiting)

    def _checked(self, submission: Submission, cluster_cpus: float) -> NewJob:
        request, config = submission.request(), submission.config
        violations = [
            *check_config(config),
            *annotation_violations(labels=submission.labels, description=submission.description, field="job"),
            *check_priority(submission.priority),
        ]
        if violations:
            raise InvalidRequestError(violations)
        model, version = names.model_source(submission.model, field="job.model")
        dataset = names.existing("datasets", submission.dataset, field="job.dataset")
        validation = config.validation.dataset and names.existing(
            "datasets", config.validation.dataset, field=_VALIDATION
        )
        inputs = self._store.inputs(
            submission.tenant, model=model, version=version, dataset=dataset, validation=validation
        )
        class_labels = self._try_model(inputs.model, inputs.dataset, inputs.validation, config)
        if config.min_workers > cluster_cpus:
            raise IllegalStateError(
                f"job.config.min_workers is {config.min_workers}, but the cluster has {cluster_cpus:g} CPUs for "
                f"workers; ask for at most {int(cluster_cpus)} (the weights will be the same), or serve with "
                f"--num-cpus {config.min_workers}"
            )
        return NewJob(
            name=f"jobs/{names.random_id()}",
            request=request,
            model=model,
            dataset=dataset,
            config=config,
            total_steps=make_plan(inputs.model.architecture, inputs.dataset, inputs.validation, config).total_steps,
            tenant=submission.tenant,
            version=version,
            labels=submission.labels,
            description=submission.description,
            priority=submission.priority,
            checked=inputs,
            class_labels=class_labels,
        )

    def _try_model(
        self, model: Model, dataset: Dataset, validation: Dataset | None, config: TrainingConfig
    ) -> tuple[str, ...]:
        """What the classes of the version are called that the job makes, where the dataset says so."""
        module = self._models.load(model)
        _check_trainable(module, model, config.trainable)
        _check_groups(module, model, config.parameter_groups)
        if config.validation.fraction > 0 and dataset.num_examples < 2:
            raise InvalidRequestError.of(
                "job.config.validation.fraction",
                f'is {config.validation.fraction}, but "{dataset.name}" has 1 example, which cannot be trained and '
                "evaluated on; use a dataset of at least 2, or 0",
            )
        outputs = try_forward(module, model, dataset, config, field="job.dataset")
        if validation is not None:
            _check_alike(dataset, validation)
            try_forward(module, model, validation, config, field=_VALIDATION)
        return class_names(outputs, getattr(module, "output_names", ()), model, dataset, config)


def try_forward(module: nn.Module, model: Model, dataset: Dataset, config: TrainingConfig, *, field: str) -> object:
    """What the network makes of one example. It tells whether it takes such inputs, and whether its outputs go with the
    losses, the metrics and the targets. What a graph may allocate in it is bounded (`networks.LIMITS`). Raises
    InvalidRequestError naming the request's field."""
    module.eval()
    dtype = dataset.columns[0].dtype if dataset.columns else "int64" if dataset.num_tokens else "float32"
    shape, wrong = check_images(config.augmentation, tuple(dataset.input_shape), dtype)
    if wrong:
        raise InvalidRequestError(wrong)
    if dataset.num_tokens:
        inputs = np.zeros((1, *shape), np.int64)
        inputs[0, 0] = dataset.num_tokens - 1  # the highest: whether the network has it too
    else:
        inputs = np.zeros((1, *shape), np.float32)
    try:
        with cr.no_grad():
            outputs = module(cr.from_numpy(inputs))
    except (ValueError, RuntimeError, IndexError, TypeError) as error:
        raise InvalidRequestError.of(
            field,
            f'inputs of shape {list(shape)} of "{dataset.name}" do not fit "{model.name}"{_declared(model)}: {error}',
        ) from error
    check_fit(outputs, getattr(module, "output_names", ()), model, dataset, config, field=field)
    return outputs


def _declared(model: Model) -> str:
    """The inputs that a graph declares, to be named; of a family there are none."""
    if not model.inputs:
        return ""
    specs = (f'"{spec.name}" of {spec.dtype} {_batch(spec.shape[1:])}' for spec in model.inputs)
    return f", which takes {', '.join(specs)}"


def make_plan(architecture: Architecture, dataset: Dataset, validation: Dataset | None, config: TrainingConfig) -> Plan:
    """The training run that a job stands for; `validation` is the second dataset, if it has one."""
    kept_back = num_kept_back(dataset.num_examples, config.validation.fraction)
    return Plan(
        architecture=architecture,
        num_examples=dataset.num_examples - kept_back,
        num_validation=kept_back if validation is None else validation.num_examples,
        config=config,
    )


def num_kept_back(num_examples: int, fraction: float) -> int:
    """How many examples of a dataset are evaluated on instead of trained on: the share, rounded, but at least one, and
    one is left."""
    return min(num_examples - 1, max(1, round(num_examples * fraction))) if fraction > 0 else 0


def _check_trainable(module: nn.Module, model: Model, patterns: tuple[str, ...]) -> None:
    parameters = [name for name, _ in module.named_parameters()]
    unknown = [
        Violation(
            f"job.config.trainable[{index}]",
            f'{echo(pattern)} matches no parameter of "{model.name}"; its parameters are {echo(parameters)}',
        )
        for index, pattern in enumerate(patterns)
        if not any(fnmatchcase(name, pattern) for name in parameters)
    ]
    if unknown:
        raise InvalidRequestError(unknown)


def _check_groups(module: nn.Module, model: Model, groups: Sequence[ParameterGroup]) -> None:
    """Each pattern of a group must match a parameter, and each group one that is not of a group before it."""
    parameters = [name for name, _ in module.named_parameters()]
    left, wrong = set(parameters), []
    for index, group in enumerate(groups):
        path = f"job.config.parameter_groups[{index}]"
        unknown = [
            Violation(
                f"{path}.patterns[{place}]",
                f'{echo(pattern)} matches no parameter of "{model.name}"; its parameters are {echo(parameters)}',
            )
            for place, pattern in enumerate(group.patterns)
            if not any(fnmatchcase(name, pattern) for name in parameters)
        ]
        own = {name for name in left if group.has(name)}
        if not unknown and not own:
            why = "matches only parameters that are of groups before it; put the narrower group first"
            wrong.append(Violation(f"{path}.patterns", why))
        left -= own
        wrong += unknown
    if wrong:
        raise InvalidRequestError(wrong)


def _check_alike(dataset: Dataset, validation: Dataset) -> None:
    """What a network is evaluated on must look like what it is trained on."""
    for what, of_training, of_validation in (
        ("inputs", (*dataset.input_shape,), (*validation.input_shape,)),
        ("targets", dataset.target_shape, validation.target_shape),
    ):
        if of_training != of_validation:
            raise InvalidRequestError.of(
                _VALIDATION,
                f'"{validation.name}" has {what} of shape {_batch(of_validation)}, but "{dataset.name}" has '
                f"{_batch(of_training)}; evaluate on a dataset of the same shape",
            )
    if bool(dataset.num_tokens) != bool(validation.num_tokens):
        kinds = {True: "tokens", False: "float32 features"}
        raise InvalidRequestError.of(
            _VALIDATION,
            f'the inputs of "{validation.name}" are {kinds[bool(validation.num_tokens)]}, but those of '
            f'"{dataset.name}" are {kinds[bool(dataset.num_tokens)]}; evaluate on a dataset of the same kind',
        )
    if bool(dataset.num_classes) != bool(validation.num_classes):
        kinds = {True: "class labels", False: "float32 numbers"}
        raise InvalidRequestError.of(
            _VALIDATION,
            f'the targets of "{validation.name}" are {kinds[bool(validation.num_classes)]}, but those of '
            f'"{dataset.name}" are {kinds[bool(dataset.num_classes)]}; evaluate on a dataset of the same kind',
        )


def _batch(shape: tuple[object, ...]) -> str:
    """The shape of a batch of such examples, as one writes it."""
    return f"({', '.join(['N', *map(str, shape)])})" if shape else "(N,)"
