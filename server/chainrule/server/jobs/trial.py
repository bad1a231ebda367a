"""What one example by itself does not show of a model: whether it can be trained on the pieces that a job cuts its
batches into, and whether its loss depends on what is trained."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from fnmatch import fnmatchcase

import chainrule.engine as cr
from chainrule.engine import graph, nn
from chainrule.server.errors import InvalidRequestError, echo
from chainrule.server.records import Dataset, Model
from chainrule.server.training.config import TrainingConfig
from chainrule.server.training.objectives import Cost, Objective
from chainrule.server.training.plan import Plan
from chainrule.server.training.state import Array

MAX_TRIED = 4096
"""Batch sizes above the one asked for that are looked through for one to suggest."""


def freeze(module: nn.Module, patterns: Sequence[str]) -> None:
    """Have autograd follow only the parameters that a job trains."""
    for name, parameter in module.named_parameters():
        parameter.requires_grad_(any(fnmatchcase(name, pattern) for pattern in patterns))


def always_reaches(model: Model, config: TrainingConfig) -> bool:
    """Whether the loss depends on what is trained, whatever the network computes: then autograd need not follow it."""
    return config.trainable == ("*",) and len(model.outputs) < 2


def check_reached(cost: Cost, module: nn.Module, model: Model, config: TrainingConfig) -> None:
    """A loss of which no trained parameter is a part has no gradient. Raises InvalidRequestError."""
    if always_reaches(model, config) or cost.tensor.requires_grad:
        return
    trained = [name for name, parameter in module.named_parameters() if parameter.requires_grad]
    raise InvalidRequestError.of(
        "job.config.trainable" if config.trainable != ("*",) else "job.config.losses",
        f'leaves the loss without a gradient: it depends on none of the parameters of "{model.name}" that are trained, '
        f"{echo(trained)}; train others, or add a loss of the output that these lead to",
    )


def check_pieces(module: nn.Module, inputs: Sequence[Array], model: Model, dataset: Dataset, plan: Plan) -> None:
    """Whether a model can be trained on as few examples as the job has in a piece of a batch, and gives an output for
    each of several.

    Args:
        inputs: of one example, each (1, ...).

    Raises InvalidRequestError.
    """
    if smallest_piece(plan) == 1:
        _check_single(module, inputs, model, dataset, plan)
    if isinstance(module, graph.GraphModule):
        objective = Objective.of(plan.config, module)
        _check_several(module, [array.repeat(2, axis=0) for array in inputs], model, objective)


def smallest_piece(plan: Plan) -> int:
    """Examples of the smallest piece that is computed by itself; pieces that are empty are left out."""
    return min(_smallest(size, plan.config) for size in _batch_sizes(plan))


def _batch_sizes(plan: Plan) -> tuple[int, ...]:
    """Examples of the batches of an epoch: of all but the last, and of the last."""
    rest = plan.num_examples % plan.config.batch_size
    full = (plan.config.batch_size,) if plan.num_examples >= plan.config.batch_size else ()
    return (*full, rest) if rest else full


def _smallest(batch_size: int, config: TrainingConfig) -> int:
    shard = max(1, batch_size // config.shards)
    return max(1, shard // config.accumulate)


# --- one example -----------------------------------------------------------------------------------------------


def _check_single(module: nn.Module, inputs: Sequence[Array], model: Model, dataset: Dataset, plan: Plan) -> None:
    module.train()
    try:
        with cr.no_grad(), cr.random.using(cr.Generator(0)), nn.collect_batch_statistics(module):
            module(*map(cr.from_numpy, inputs))
    except (ValueError, RuntimeError, IndexError, TypeError) as error:
        field, sizes = _where(plan, dataset)
        raise InvalidRequestError.of(
            field, f'{sizes}, and "{model.name}" cannot be trained on a single one: {error}; {_remedy(plan)}'
        ) from error
    finally:
        module.eval()


def _where(plan: Plan, dataset: Dataset) -> tuple[str, str]:
    """The setting to blame for a piece of one example, and what it comes to."""
    config, sizes = plan.config, _batch_sizes(plan)
    size = next(size for size in sizes if _smallest(size, config) == 1)
    cuts = [(config.shards, "shards"), (config.accumulate, "pieces")]
    cut = " of ".join(f"{count} {what}" for count, what in cuts if count > 1)
    if size == config.batch_size and cut:
        name = "shards" if size // config.shards <= 1 else "accumulate"
        return f"job.config.{name}", f"is {getattr(config, name)}: of a batch of {size} in {cut}, some have one example"
    what = f"is {config.batch_size}"
    if size != config.batch_size:
        be = "is" if size == 1 else "are"
        kept = f" less the {plan.num_validation:,} kept back" if plan.num_examples < dataset.num_examples else ""
        what += (
            f': of the {dataset.num_examples:,} examples of "{dataset.name}"{kept}, {size} {be} left for the last batch'
        )
    return "job.config.batch_size", f"{what}; in {cut}, some have one example" if cut else what


def _remedy(plan: Plan) -> str:
    config, more = plan.config, plan.config.batch_size + 1
    sizes = range(more, min(plan.num_examples, more + MAX_TRIED) + 1)
    fits = (size for size in sizes if smallest_piece(replace(plan, config=replace(config, batch_size=size))) > 1)
    found = next(fits, None)
    if found is None:
        return "use fewer shards or pieces, or more examples, so that each has 2"
    return f"use another batch_size, as {found}, or fewer shards or pieces, so that each has 2"


# --- several ---------------------------------------------------------------------------------------------------


def _check_several(module: graph.GraphModule, inputs: Sequence[Array], model: Model, objective: Objective) -> None:
    """A graph may have the number of examples of which it was made in it, or mix them."""
    count = len(inputs[0])
    try:
        with cr.no_grad():
            outputs = module(*map(cr.from_numpy, inputs))
    except graph.GraphError as error:
        if error.__cause__ is None:  # beyond what the service allows itself; a worker may have more
            return
        raise InvalidRequestError.of(
            "job.model", f'"{model.name}" takes one example, but not {count} at once: {error}; {_FREE}'
        ) from error
    for loss in objective.losses:
        shape = objective.output(outputs, loss.output).shape
        if shape[:1] != (count,):
            raise InvalidRequestError.of(
                "job.model",
                f'"{model.name}" gives outputs of shape {list(shape)} for {count} examples, which need one '
                f"each; {_FREE}",
            )


_FREE = "export it with a batch of any size (dynamic_axes or dynamic_shapes of torch.onnx.export)"
