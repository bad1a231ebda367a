"""Whether two jobs computed the same bits: their losses, receipts and weights compared, and where they part."""

import dataclasses
import hashlib
import struct
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from chainrule.client.config import WEIGHT_FIELDS, TrainingConfig
from chainrule.client.errors import DataLoss, FailedPrecondition
from chainrule.client.records import Metric
from chainrule.client.resources import Dataset, ModelRecord
from chainrule.client.status import JobStatus, Receipt

NO_CHAIN = "0" * 64  # what the first receipt is chained to


class Evidence(StrEnum):
    """In what two jobs are seen to part."""

    LOSS = "loss"
    """The loss of the step is another number."""
    STATE = "state"
    """The receipts of the step name other states."""
    WEIGHTS = "weights"
    """The final weights, taken after the step, are others."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Verification:
    """What came of comparing two jobs bit by bit."""

    first: str
    """Resource name of the one job."""
    second: str
    """Resource name of the other."""
    agree: bool
    """Whether all that was compared is the same."""
    parts_at_step: int | None
    """First step that shows a difference; None if they agree."""
    parts_in: Evidence | None
    """What shows it; None if they agree."""
    agree_up_to_step: int
    """Last step up to which all that was compared is the same; 0 if they part at the first."""
    same_state_at_step: int
    """Last step before they part after which both have receipts, of the same state; 0 if there is none."""
    losses_compared: int
    """Steps whose losses were compared."""
    states_compared: int
    """Steps whose receipts were compared."""
    weights_compared: bool
    """Whether the final weights were compared."""
    differences: tuple[str, ...]
    """What fixes the weights and is not the same in both: jobs with any are not expected to agree."""
    not_compared: tuple[str, ...]
    """What could not be compared, and why."""

    @property
    def message(self) -> str:
        """The outcome in one sentence."""
        jobs = f"{self.first} and {self.second}"
        if self.parts_at_step is None:
            return f"{jobs} agree up to step {self.agree_up_to_step}"
        shown = {
            Evidence.LOSS: "their losses are not the same number",
            Evidence.STATE: "their states after it are not the same",
            Evidence.WEIGHTS: "the weights taken after it are not the same",
            None: "",
        }[self.parts_in]
        known = f"; the same state after step {self.same_state_at_step}" if self.same_state_at_step else ""
        return f"{jobs} part at step {self.parts_at_step}: {shown}{known}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """All that is known of a job and matters for its bits."""

    status: JobStatus
    model: ModelRecord
    dataset: Dataset
    validation: Dataset | None
    """The second dataset, if it is evaluated on one."""
    receipts: Sequence[Receipt]
    """All so far, in the order of their steps."""
    metrics: Iterable[Metric]
    """All so far, in the order of their steps; read as far as they are the same."""
    source_digest: str | None = None
    """SHA-256 of the weights it began with, where they are those of a version; None: as the model says."""


def compare(first: Record, second: Record) -> Verification:
    """Compare what two jobs computed: every loss, every state of which both have a receipt, and the final weights.

    Raises:
        FailedPrecondition: they have no step in common.
        DataLoss: the receipts of one are not the chain that they should be.
    """
    for record in (first, second):
        check_chain(record.status.name, record.receipts)
    losses, loss_parts = _compare_losses(first.metrics, second.metrics)
    states, state_parts = _compare_states(first.receipts, second.receipts)
    weights_step = _common_weights_step(first.status, second.status)
    weights_part = weights_step and first.status.weights_digest != second.status.weights_digest
    if not (losses or states or weights_step):
        raise FailedPrecondition(_nothing_in_common(first.status, second.status))
    parted = [
        (step, evidence)
        for step, evidence in (
            (loss_parts, Evidence.LOSS),  # a step's loss comes before its update
            (state_parts, Evidence.STATE),
            (weights_step if weights_part else None, Evidence.WEIGHTS),
        )
        if step is not None
    ]
    at, shown = min(parted, key=lambda part: part[0]) if parted else (None, None)

    def is_before(step: int) -> bool:
        return at is None or step < at

    same_states = [step for step in states if is_before(step)]
    same = [*filter(is_before, losses), *same_states]
    if weights_step is not None and is_before(weights_step):
        same.append(weights_step)
    return Verification(
        first=first.status.name,
        second=second.status.name,
        agree=at is None,
        parts_at_step=at,
        parts_in=shown,
        agree_up_to_step=max(same, default=0),
        same_state_at_step=max(same_states, default=0),
        losses_compared=len(losses),
        states_compared=len(states),
        weights_compared=weights_step is not None,
        differences=tuple(_differences(first, second)),
        not_compared=(*_losses_not_compared(first, second, losses, loss_parts), *_not_compared(first, second)),
    )


def check_chain(job: str, receipts: Sequence[Receipt]) -> None:
    """Check that all receipts of a job, from its first, continue each other.

    Raises:
        DataLoss: one does not: the record of the job is not what was recorded.
    """
    chain = NO_CHAIN
    for receipt in receipts:
        chain = hashlib.sha256(f"{chain} {receipt.step} {receipt.state_digest}".encode()).hexdigest()
        if chain != receipt.chain_digest:
            raise DataLoss(
                f"the receipt of {job} for step {receipt.step} does not continue the chain of those before it: the "
                "record of the job was changed or damaged, and proves nothing from there on"
            )


# Comparing, in three ways. Each tells what was compared, and the first step that is not the same, or None.


def _compare_losses(first: Iterable[Metric], second: Iterable[Metric]) -> tuple[list[int], int | None]:
    """The steps whose losses both have, up to the first that is not the same. Of early steps not all are kept."""
    steps: list[int] = []
    others = iter(second)
    other = next(others, None)
    for one in first:
        while other is not None and other.step < one.step:
            other = next(others, None)
        if other is None:
            break
        if other.step == one.step:
            steps.append(one.step)
            if _bits(one.loss) != _bits(other.loss):
                return steps, one.step
    return steps, None


def _compare_states(first: Sequence[Receipt], second: Sequence[Receipt]) -> tuple[list[int], int | None]:
    """The steps of which both have receipts, up to the first that is not the same."""
    others = {receipt.step: receipt.state_digest for receipt in second}
    steps: list[int] = []
    for receipt in first:
        if receipt.step not in others:
            continue
        steps.append(receipt.step)
        if receipt.state_digest != others[receipt.step]:
            return steps, receipt.step
    return steps, None


def _common_weights_step(first: JobStatus, second: JobStatus) -> int | None:
    """The step after which both took their final weights; None where one has none, or took them elsewhere."""
    return first.weights_step if first.weights_step == second.weights_step else None


def _bits(loss: float) -> bytes:
    return struct.pack("<d", loss)


# Why jobs may not be the same, and what could not be compared.


def _differences(first: Record, second: Record) -> list[str]:
    ours, theirs = _facts(first), _facts(second)
    names = [*ours, *(name for name in theirs if name not in ours)]
    return [
        f"{name}: {ours.get(name, 'none')} against {theirs.get(name, 'none')}"
        for name in names
        if ours.get(name) != theirs.get(name)
    ]


def _facts(record: Record) -> dict[str, Any]:
    """What fixes the weights of a job, by names that people know."""
    model, config = record.model, record.status.config
    digest = record.source_digest or model.weights_digest
    weights = f"weights {digest}" if digest else f"initialised from {model.init_seed}"
    facts: dict[str, Any] = {"model": f"{model.architecture}, {weights}", "dataset": record.dataset.digest}
    facts.update(_flat({name: getattr(config, name) for name in WEIGHT_FIELDS}))
    facts["parameter_groups"] = [
        {"patterns": list(group.patterns), **group.settings} for group in config.parameter_groups
    ]
    facts["optimizer"] = type(config.optimizer).__name__.lower()
    facts["validation.dataset"] = record.validation.digest if record.validation else "none"
    if record.status.fingerprint:
        facts.update(_flat({"fingerprint": record.status.fingerprint}))
    return facts


def _flat(value: Any, name: str = "") -> dict[str, Any]:
    """Settings within settings as one level of names with dots."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        value = dataclasses.asdict(value)
    if not isinstance(value, Mapping):
        return {name: value}
    flat: dict[str, Any] = {}
    for key, item in value.items():
        flat.update(_flat(item, f"{name}.{key}" if name else str(key)))
    return flat


def _losses_not_compared(first: Record, second: Record, compared: Sequence[int], parts: int | None) -> list[str]:
    both = min(record.status.progress.step for record in (first, second))
    missing = set(range(1, (both if parts is None else parts) + 1)).difference(compared)
    if not compared or not missing:
        return []
    count = "1 loss" if len(missing) == 1 else f"{len(missing)} losses"
    return [f"{count} up to step {max(missing)}: of early steps the server keeps the first, and then every tenth"]


def _not_compared(first: Record, second: Record) -> list[str]:
    ours, theirs = first.status, second.status
    reasons = [reason for status in (ours, theirs) for reason in _reasons(status.name, status.config)]
    behind, ahead = sorted((ours, theirs), key=lambda status: status.progress.step)
    done = behind.progress.step
    if done < ahead.progress.step:
        reasons.append(f"steps {done + 1} to {ahead.progress.step}: {behind.name}, {behind.state}, has done {done}")
    steps = [{receipt.step for receipt in record.receipts if receipt.step <= done} for record in (first, second)]
    for status, extra in ((ours, steps[0] - steps[1]), (theirs, steps[1] - steps[0])):
        if extra:
            count = "1 state" if len(extra) == 1 else f"{len(extra)} states"
            reasons.append(f"{count} up to step {max(extra)}: only {status.name} has receipts of them")
    missing = [f"{status.name}, {status.state}," for status in (ours, theirs) if status.weights_step is None]
    if missing:
        has = "has" if len(missing) == 1 else "have"
        reasons.append(f"the final weights: {' and '.join(missing)} {has} none")
    elif ours.weights_step != theirs.weights_step:
        reasons.append(f"the final weights: taken after step {ours.weights_step} and after step {theirs.weights_step}")
    return reasons


def _reasons(name: str, config: TrainingConfig) -> list[str]:
    if config.staleness:
        return [f"{name} trains with staleness {config.staleness}: its bits depend on timing, and promise nothing"]
    if not config.exact:
        return [f"{name} is not exact: workers of other kinds than the fingerprint's may have computed parts of it"]
    return []


def _nothing_in_common(first: JobStatus, second: JobStatus) -> str:
    at = " and ".join(f"{status.name} is {status.state} at step {status.progress.step}" for status in (first, second))
    return f"nothing can be compared yet: {at}; compare them when both have done a step"
