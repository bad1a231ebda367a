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
from chainrule.server.architecture import Architecture, CodeArchitecture
from chainrule.server.errors import IllegalStateError, InvalidRequestError, Violation, echo
from chainrule.server.jobs.checks import check_config, check_priority
from chainrule.server.jobs.class_names import class_names
from chainrule.server.jobs.column_checks import check_alike, columns_of_inputs, example_of_inputs
from chainrule.server.jobs.image_checks import check_evaluated, check_images, check_places
from chainrule.server.jobs.objective_checks import check_columns, check_fit
from chainrule.server.jobs.trial import always_reaches, check_pieces, check_reached, freeze
from chainrule.server.models import ModelCatalog
from chainrule.server.records import Dataset, Job, Model
from chainrule.server.store import NewJob, Request, Store
from chainrule.server.store.configs import augmentation_values
from chainrule.server.store.schema import DEFAULT_TENANT
from chainrule.server.training.config import ParameterGroup, TrainingConfig
from chainrule.server.training.examples import INPUTS
from chainrule.server.training.objectives import Cost, Objective
from chainrule.server.training.plan import Plan
from chainrule.server.training.state import Array

_VALIDATION = "job.config.validation.dataset"
_EVALUATED = "job.config.validation.fraction"
_HOW_EVALUATED = (
    "; of what is done to images, only resize and normalize are done to those that are evaluated: resize them, or "
    "evaluate on a dataset of the size that is trained on"
)
_NEVER = object()
_LATER: Mapping[str, object] = {
    "losses": (),
    "metrics": (),
    "parameter_groups": (),
    "accumulate": 1,
    "ema_decay": 0.0,
    "precision": "float32",
    "augmentation": {"transforms": [], "mixup": 0.0},
    "inputs": {},
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
    for name in ("seed", "metric"):  # came later, too
        if not values["validation"][name]:
            del values["validation"][name]
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
        plan = make_plan(inputs.model.architecture, inputs.dataset, inputs.validation, config)
        class_labels = self._try_model(inputs.model, inputs.dataset, inputs.validation, plan)
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
            total_steps=plan.total_steps,
            tenant=submission.tenant,
            version=version,
            labels=submission.labels,
            description=submission.description,
            priority=submission.priority,
            checked=inputs,
            class_labels=class_labels,
        )

    def _try_model(self, model: Model, dataset: Dataset, validation: Dataset | None, plan: Plan) -> tuple[str, ...]:
        """What the classes of the version are called that the job makes, where the dataset says so."""
        self._models.check_allowed(model)
        config, module = plan.config, None
        if isinstance(model.architecture, CodeArchitecture):  # what it takes and gives shows in the job's workers
            parameters = list(model.architecture.declared.parameters)
        else:
            module = self._models.load(model)
            parameters = [name for name, _ in module.named_parameters()]
        _check_trainable(parameters, model, config.trainable)
        _check_groups(parameters, model, config.parameter_groups)
        if config.validation.fraction > 0 and dataset.num_examples < 2:
            raise InvalidRequestError.of(
                "job.config.validation.fraction",
                f'is {config.validation.fraction}, but "{dataset.name}" has 1 example, which cannot be trained and '
                "evaluated on; use a dataset of at least 2, or 0",
            )
        columns = columns_of_inputs(module, model, dataset, config, field="job.dataset")
        inputs = _trained_example(dataset, columns, config)
        class_labels = _try(module, columns, inputs, model, dataset, plan)
        if not plan.num_validation:
            return class_labels
        evaluated, field = (dataset, _EVALUATED) if validation is None else (validation, _VALIDATION)
        columns_of_inputs(module, model, evaluated, config, field=field)
        others = _evaluated_example(evaluated, columns, config, field=field)
        if validation is not None:
            read = (*columns, *Objective(config).columns)
            same = [name for name, a, b in zip(columns, inputs, others, strict=True) if a.shape == b.shape]
            check_alike(dataset, validation, tuple(dict.fromkeys(read)), may_differ=same, field=_VALIDATION)
        if module is None:
            check_columns(model, evaluated, config, field=field)
        else:
            try_forward(module, columns, others, model, evaluated, config, field=field)
        return class_labels


def _try(
    module: nn.Module | None,
    columns: Sequence[str],
    inputs: Sequence[Array],
    model: Model,
    dataset: Dataset,
    plan: Plan,
) -> tuple[str, ...]:
    """Whether a network can be trained as the job says; None: it is code, of which only the columns are known. Gives
    what its classes are called, where the dataset says so."""
    if module is None:
        check_columns(model, dataset, plan.config, field="job.dataset")
        return ()
    freeze(module, plan.config.trainable)
    outputs, cost = try_forward(module, columns, inputs, model, dataset, plan.config, field="job.dataset")
    check_reached(cost, module, model, plan.config)
    check_pieces(module, inputs, model, dataset, plan)
    return class_names(outputs, getattr(module, "output_names", ()), model, dataset, plan.config)


def try_forward(
    module: nn.Module,
    columns: Sequence[str],
    inputs: Sequence[Array],
    model: Model,
    dataset: Dataset,
    config: TrainingConfig,
    *,
    field: str,
) -> tuple[object, Cost]:
    """What a network makes of one example, and what that costs: whether it takes such inputs, and whether its outputs
    go with the losses, the metrics and the targets. What a graph may allocate in it is bounded (`networks.LIMITS`).
    Raises InvalidRequestError naming the request's field."""
    module.eval()
    try:
        with cr.no_grad() if always_reaches(model, config) else cr.enable_grad():
            outputs = module(*map(cr.from_numpy, inputs))
    except (ValueError, RuntimeError, IndexError, TypeError) as error:
        given = " and ".join(
            f"{'inputs' if name == INPUTS else echo(name)} of shape {list(array.shape[1:])}"
            for name, array in zip(columns, inputs, strict=True)
        )
        raise InvalidRequestError.of(
            field,
            f'{given} of "{dataset.name}" do not fit "{model.name}"{_declared(model)}: {error}'
            f"{_HOW_EVALUATED if field != 'job.dataset' else ''}",
        ) from error
    cost = check_fit(outputs, getattr(module, "output_names", ()), model, dataset, config, field=field)
    return outputs, cost


def _trained_example(dataset: Dataset, columns: Sequence[str], config: TrainingConfig) -> list[Array]:
    """One example of each column as it is trained on. Raises InvalidRequestError if its images do not go with what is
    done to them."""
    inputs = example_of_inputs(dataset, columns)
    given = inputs[0].shape[1:]
    shape, wrong = check_images(config.augmentation, given, inputs[0].dtype.name)
    for name in Objective(config).columns:
        if not wrong and (target := dataset.column(name)) is not None:
            wrong = check_places(config.augmentation, given, target.shape)
    if config.augmentation.mixup and not wrong and any(array.dtype == np.int64 for array in inputs):
        what = "mixes inputs of float32, but there are some of int64; leave it out"
        wrong = [Violation("job.config.augmentation.mixup", what)]
    if wrong:
        raise InvalidRequestError(wrong)
    if config.augmentation.transforms:
        inputs[0] = np.zeros((1, *shape), np.float32)
    return inputs


def _evaluated_example(dataset: Dataset, columns: Sequence[str], config: TrainingConfig, *, field: str) -> list[Array]:
    """One example of each column as it is evaluated. Raises InvalidRequestError naming the request's field, if its
    images do not go with what is done to them."""
    inputs = example_of_inputs(dataset, columns)
    if config.augmentation.transforms:
        shape, wrong = check_evaluated(config.augmentation, inputs[0].shape[1:], inputs[0].dtype.name)
        if wrong:
            raise InvalidRequestError.of(
                field, f'"{dataset.name}" does not go with what the job does to images: {wrong}; evaluate on others'
            )
        inputs[0] = np.zeros((1, *shape), inputs[0].dtype)
    return inputs


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


def _check_trainable(parameters: Sequence[str], model: Model, patterns: tuple[str, ...]) -> None:
    unknown = [
        Violation(
            f"job.config.trainable[{index}]",
            f'{echo(pattern)} matches no parameter of "{model.name}"; its parameters are {echo(list(parameters))}',
        )
        for index, pattern in enumerate(patterns)
        if not any(fnmatchcase(name, pattern) for name in parameters)
    ]
    if unknown:
        raise InvalidRequestError(unknown)


def _check_groups(parameters: Sequence[str], model: Model, groups: Sequence[ParameterGroup]) -> None:
    """Each pattern of a group must match a parameter, and each group one that is not of a group before it."""
    left, wrong = set(parameters), []
    for index, group in enumerate(groups):
        path = f"job.config.parameter_groups[{index}]"
        unknown = [
            Violation(
                f"{path}.patterns[{place}]",
                f'{echo(pattern)} matches no parameter of "{model.name}"; its parameters are {echo(list(parameters))}',
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


def _batch(shape: tuple[object, ...]) -> str:
    """The shape of a batch of such examples, as one writes it."""
    return f"({', '.join(['N', *map(str, shape)])})" if shape else "(N,)"
