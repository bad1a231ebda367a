"""chainrule's client: submit a model, a dataset and a job; follow the job; fetch the weights.

The names below are imported when they are first used, so that `chainrule --help` need not load gRPC and numpy.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from chainrule.client.aio.client import AsyncClient
    from chainrule.client.aio.job import AsyncJob
    from chainrule.client.aio.models import AsyncModel, AsyncModelVersion
    from chainrule.client.augmentation import Augmentation
    from chainrule.client.client import Client
    from chainrule.client.config import (
        Adam,
        Loss,
        MetricSpec,
        ParameterGroup,
        Schedule,
        Sgd,
        TrainingConfig,
        Validation,
    )
    from chainrule.client.encryption import Tls
    from chainrule.client.errors import (
        Aborted,
        AlreadyExists,
        Cancelled,
        ClientClosedError,
        DataLoss,
        DeadlineExceeded,
        FailedPrecondition,
        FieldViolation,
        Internal,
        InvalidArgument,
        InvalidInputError,
        JobCancelledError,
        JobFailedError,
        NotFound,
        OutOfRange,
        PermissionDenied,
        ResourceExhausted,
        RpcError,
        Unauthenticated,
        Unavailable,
        Unimplemented,
        Unknown,
    )
    from chainrule.client.job import Job
    from chainrule.client.models import Model, ModelVersion
    from chainrule.client.prediction import Prediction, RankedClass
    from chainrule.client.records import (
        LogEntry,
        Metric,
        Metrics,
        Severity,
    )
    from chainrule.client.resources import (
        Caller,
        Dataset,
        ModelFamily,
        ModelRecord,
        Node,
        ServerInfo,
        TensorSpec,
    )
    from chainrule.client.retry import RetryPolicy
    from chainrule.client.status import (
        Cause,
        Checkpoint,
        Evaluation,
        JobEvent,
        JobFailure,
        JobState,
        JobStatus,
        Progress,
        Receipt,
        StateChange,
        Timings,
    )
    from chainrule.client.tokens import AuditEntry, NewToken, Token
    from chainrule.client.transport import Settings
    from chainrule.client.verification import (
        Evidence,
        Verification,
    )

__all__ = [
    "Aborted",
    "Adam",
    "AlreadyExists",
    "AsyncClient",
    "AsyncJob",
    "AsyncModel",
    "AsyncModelVersion",
    "AuditEntry",
    "Augmentation",
    "Caller",
    "Cancelled",
    "Cause",
    "Checkpoint",
    "Client",
    "ClientClosedError",
    "DataLoss",
    "Dataset",
    "DeadlineExceeded",
    "Evaluation",
    "Evidence",
    "FailedPrecondition",
    "FieldViolation",
    "Internal",
    "InvalidArgument",
    "InvalidInputError",
    "Job",
    "JobCancelledError",
    "JobEvent",
    "JobFailedError",
    "JobFailure",
    "JobState",
    "JobStatus",
    "LogEntry",
    "Loss",
    "Metric",
    "MetricSpec",
    "Metrics",
    "Model",
    "ModelFamily",
    "ModelRecord",
    "ModelVersion",
    "NewToken",
    "Node",
    "NotFound",
    "OutOfRange",
    "ParameterGroup",
    "PermissionDenied",
    "Prediction",
    "Progress",
    "RankedClass",
    "Receipt",
    "ResourceExhausted",
    "RetryPolicy",
    "RpcError",
    "Schedule",
    "ServerInfo",
    "Settings",
    "Severity",
    "Sgd",
    "StateChange",
    "TensorSpec",
    "Timings",
    "Tls",
    "Token",
    "TrainingConfig",
    "Unauthenticated",
    "Unavailable",
    "Unimplemented",
    "Unknown",
    "Validation",
    "Verification",
]

_HOME = {
    "chainrule.client.aio.client": ("AsyncClient",),
    "chainrule.client.aio.job": ("AsyncJob",),
    "chainrule.client.aio.models": ("AsyncModel", "AsyncModelVersion"),
    "chainrule.client.client": ("Client",),
    "chainrule.client.augmentation": ("Augmentation",),
    "chainrule.client.config": (
        "Adam",
        "Loss",
        "MetricSpec",
        "ParameterGroup",
        "Schedule",
        "Sgd",
        "TrainingConfig",
        "Validation",
    ),
    "chainrule.client.encryption": ("Tls",),
    "chainrule.client.errors": (
        "Aborted",
        "AlreadyExists",
        "Cancelled",
        "ClientClosedError",
        "DataLoss",
        "DeadlineExceeded",
        "FailedPrecondition",
        "FieldViolation",
        "Internal",
        "InvalidArgument",
        "InvalidInputError",
        "JobCancelledError",
        "JobFailedError",
        "NotFound",
        "OutOfRange",
        "PermissionDenied",
        "ResourceExhausted",
        "RpcError",
        "Unauthenticated",
        "Unavailable",
        "Unimplemented",
        "Unknown",
    ),
    "chainrule.client.job": ("Job",),
    "chainrule.client.models": ("Model", "ModelVersion"),
    "chainrule.client.prediction": ("Prediction", "RankedClass"),
    "chainrule.client.records": (
        "LogEntry",
        "Metric",
        "Metrics",
        "Severity",
    ),
    "chainrule.client.resources": (
        "Caller",
        "Dataset",
        "ModelFamily",
        "ModelRecord",
        "Node",
        "ServerInfo",
        "TensorSpec",
    ),
    "chainrule.client.retry": ("RetryPolicy",),
    "chainrule.client.status": (
        "Cause",
        "Checkpoint",
        "Evaluation",
        "JobEvent",
        "JobFailure",
        "JobState",
        "JobStatus",
        "Progress",
        "Receipt",
        "StateChange",
        "Timings",
    ),
    "chainrule.client.tokens": (
        "AuditEntry",
        "NewToken",
        "Token",
    ),
    "chainrule.client.transport": ("Settings",),
    "chainrule.client.verification": (
        "Evidence",
        "Verification",
    ),
}
_MODULE_OF = {name: module for module, names in _HOME.items() for name in names}


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_MODULE_OF[name]), name)


def __dir__() -> list[str]:
    return __all__
