"""The table of operations: every one declared, and the rows that call them, in `cases/` by the module they are in.

Rows of one operation differ in shapes and settings; each operation has one at least.
"""

from __future__ import annotations

from types import ModuleType

from chainrule.engine.ops import (
    activation,
    attention,
    broadcasting,
    convolution,
    division,
    elementwise,
    embedding,
    linalg,
    loss,
    normalization,
    ordering,
    padding,
    pooling,
    reduction,
    resampling,
    scan,
    shape,
    special,
)
from chainrule.engine.ops.op import Op
from tests.engine.cases import activation as activation_cases
from tests.engine.cases import attention as attention_cases
from tests.engine.cases import convolution as convolution_cases
from tests.engine.cases import division as division_cases
from tests.engine.cases import elementwise as elementwise_cases
from tests.engine.cases import embedding as embedding_cases
from tests.engine.cases import linalg as linalg_cases
from tests.engine.cases import loss as loss_cases
from tests.engine.cases import normalization as normalization_cases
from tests.engine.cases import ordering as ordering_cases
from tests.engine.cases import padding as padding_cases
from tests.engine.cases import pooling as pooling_cases
from tests.engine.cases import reduction as reduction_cases
from tests.engine.cases import resampling as resampling_cases
from tests.engine.cases import scan as scan_cases
from tests.engine.cases import shape as shape_cases
from tests.engine.cases.case import Case

modules: tuple[ModuleType, ...] = (
    broadcasting,
    elementwise,
    division,
    shape,
    reduction,
    scan,
    ordering,
    linalg,
    convolution,
    padding,
    pooling,
    resampling,
    normalization,
    special,
    activation,
    loss,
    embedding,
    attention,
)


def declared() -> dict[str, Op]:
    """Every operation there is, by `module.name`."""
    return {
        f"{module.__name__.rpartition('.')[2]}.{name}": value
        for module in modules
        for name, value in vars(module).items()
        if isinstance(value, Op) and _home(value) is module
    }


def _home(value: Op) -> ModuleType | None:
    """The module that declares an operation: the first that holds it, for each imports from earlier ones."""
    return next((module for module in modules if any(value is held for held in vars(module).values())), None)


CASES: tuple[Case, ...] = (
    *elementwise_cases.CASES,
    *division_cases.CASES,
    *reduction_cases.CASES,
    *resampling_cases.CASES,
    *scan_cases.CASES,
    *ordering_cases.CASES,
    *shape_cases.CASES,
    *linalg_cases.CASES,
    *convolution_cases.CASES,
    *padding_cases.CASES,
    *pooling_cases.CASES,
    *activation_cases.CASES,
    *embedding_cases.CASES,
    *normalization_cases.CASES,
    *loss_cases.CASES,
    *attention_cases.CASES,
)
