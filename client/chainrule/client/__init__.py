"""chainrule's client: submit a model, a dataset and a job; follow the job; fetch the weights.

The names below are imported when they are first used, so that `chainrule --help` need not load gRPC and numpy.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from chainrule.client.access import AuditEntry, NewToken, Token
    from chainrule.client.channel import Settings
    from chainrule.client.client import Client
    from chainrule.client.cluster import ModelFamily, Node, ServerInfo
    from chainrule.client.config import Adam, Schedule, Sgd, TrainingConfig, Validation
    from chainrule.client.datasets import Dataset
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
    from chainrule.client.jobs import Job
    from chainrule.client.models import Model
    from chainrule.client.retry import RetryPolicy
    from chainrule.client.status import (
        Checkpoint,
        Evaluation,
        JobEvent,
        JobFailure,
        JobState,
        JobStatus,
        Metric,
        Progress,
        Receipt,
        StateChange,
    )
    from chainrule.client.verification import Evidence, Verification

__all__ = [
    "Aborted",
    "Adam",
    "AlreadyExists",
    "AuditEntry",
    "Cancelled",
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
    "Metric",
    "Model",
    "ModelFamily",
    "NewToken",
    "Node",
    "NotFound",
    "OutOfRange",
    "PermissionDenied",
    "Progress",
    "Receipt",
    "ResourceExhausted",
    "RetryPolicy",
    "RpcError",
    "Schedule",
    "ServerInfo",
    "Settings",
    "Sgd",
    "StateChange",
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
    "chainrule.client.access": (
        "AuditEntry",
        "NewToken",
        "Token",
    ),
    "chainrule.client.channel": ("Settings",),
    "chainrule.client.client": ("Client",),
    "chainrule.client.cluster": (
        "ModelFamily",
        "Node",
        "ServerInfo",
    ),
    "chainrule.client.config": (
        "Adam",
        "Schedule",
        "Sgd",
        "TrainingConfig",
        "Validation",
    ),
    "chainrule.client.datasets": ("Dataset",),
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
    "chainrule.client.jobs": ("Job",),
    "chainrule.client.models": ("Model",),
    "chainrule.client.retry": ("RetryPolicy",),
    "chainrule.client.status": (
        "Checkpoint",
        "Evaluation",
        "JobEvent",
        "JobFailure",
        "JobState",
        "JobStatus",
        "Metric",
        "Progress",
        "Receipt",
        "StateChange",
    ),
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
