"""What the service refuses or cannot do, as one tree of errors. `rpc.status` alone knows how they look on the wire."""

from __future__ import annotations

import reprlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from chainrule.engine import ChainruleError


@dataclass(frozen=True)
class Violation:
    """A field of a request and what is wrong with it."""

    field: str
    """Path of the field, for example "job.config.shards"."""
    description: str
    """The value it has and the remedy."""


class ServiceError(ChainruleError):
    """Root of the errors that a client is told about."""

    reason: ClassVar[str] = "SERVICE_ERROR"
    """Kind of error as a constant."""

    def __init__(self, message: str, **metadata: str) -> None:
        super().__init__(message)
        self.message = message
        self.metadata: Mapping[str, str] = metadata

    def __reduce__(self) -> tuple[object, ...]:
        return _rebuild, (type(self), self.args, self.__dict__)


class InvalidRequestError(ServiceError):
    """A request that can never be right, whatever the state of the service."""

    reason = "INVALID_REQUEST"

    def __init__(self, violations: Sequence[Violation]) -> None:
        super().__init__("; ".join(f"{violation.field}: {violation.description}" for violation in violations))
        self.violations = tuple(violations)

    @classmethod
    def of(cls, field: str, description: str) -> InvalidRequestError:
        return cls([Violation(field, description)])


class NotFoundError(ServiceError):
    """A resource or blob that is not there."""

    reason = "NOT_FOUND"


class AlreadyExistsError(ServiceError):
    """A name or request id that stands for something else."""

    reason = "ALREADY_EXISTS"


class IllegalStateError(ServiceError):
    """A request that the resource's present state, or that of the cluster, does not allow."""

    reason = "ILLEGAL_STATE"


class CodeNotAllowedError(ServiceError):
    """A model that is code, where the operator has not allowed it."""

    reason = "CODE_NOT_ALLOWED"

    @classmethod
    def of(cls, what: str) -> CodeNotAllowedError:
        """About a model, or what is to be one."""
        return cls(
            f"{what} is Python code, which this server does not have run: it was started without --allow-code. Its "
            "operator can allow it, and then whoever may create models runs programs on the cluster as the workers' "
            "user; without that, send a network that needs no code, as ONNX or of a family"
        )


class StaleEtagError(ServiceError):
    """A change that was meant for what a resource was before it changed."""

    reason = "ETAG_MISMATCH"


class QueueFullError(ServiceError):
    """A job that finds too many others waiting."""

    reason = "QUEUE_FULL"


class DamagedBlobError(ServiceError):
    """Content that does not have the digest it should have."""

    reason = "DIGEST_MISMATCH"


class IncompleteUploadError(ServiceError):
    """An upload that ended before its last byte. What has arrived is kept."""

    reason = "UPLOAD_INCOMPLETE"


class WrongOffsetError(ServiceError):
    """An upload that leaves out bytes which have not arrived."""

    reason = "UPLOAD_OFFSET"


class DamagedChunkError(ServiceError):
    """A chunk that is not what was sent. What came before it is kept."""

    reason = "CHUNK_DAMAGED"


class ClusterUnreachableError(ServiceError):
    """Ray does not answer. Says nothing about the jobs on it."""

    reason = "CLUSTER_UNREACHABLE"


class PredictorUnavailableError(ServiceError):
    """There is no process that computes predictions, and none could be started."""

    reason = "PREDICTOR_UNAVAILABLE"


class PredictorLostError(ServiceError):
    """A request at which the processes that compute predictions end, one after the other."""

    reason = "PREDICTOR_LOST"


class OutOfMemoryError(ServiceError):
    """The service has too little memory for a request."""

    reason = "OUT_OF_MEMORY"


class StoreUnavailableError(ServiceError):
    """The database does not answer or cannot write."""

    reason = "STORE_UNAVAILABLE"


class StorageFullError(StoreUnavailableError):
    """There is no room for a blob: the disk is full, or the limit of what may be stored is reached."""

    reason = "STORAGE_FULL"


class StoppingError(ServiceError):
    """The service takes no more calls: it is on its way out."""

    reason = "STOPPING"


class UnauthenticatedError(ServiceError):
    """A call without a token, or with one that is not good."""

    reason = "UNAUTHENTICATED"


class PermissionDeniedError(ServiceError):
    """A call that the caller's token does not allow."""

    reason = "PERMISSION_DENIED"


class TooManyCallsError(ServiceError):
    """A caller that asks more often, or for more at a time, than it may."""

    reason = "TOO_MANY_CALLS"

    def __init__(self, message: str, *, retry_after_s: float = 1.0, **metadata: str) -> None:
        super().__init__(message, **metadata)
        self.retry_after_s = retry_after_s
        """When it may ask again."""


class StartupError(ServiceError):
    """The service cannot start as configured."""

    reason = "STARTUP"


class BackupError(ServiceError):
    """A backup that cannot be made, or not be restored."""

    reason = "BACKUP"


def echo(value: object) -> str:
    """What a client sent, to be repeated to it: its repr, without the middle where that is long."""
    return _shortening.repr(value)


_shortening = reprlib.Repr()
_shortening.maxstring = _shortening.maxother = 100
_shortening.maxlist = _shortening.maxtuple = 8


def _rebuild(cls: type[ServiceError], args: tuple[object, ...], attributes: dict[str, object]) -> ServiceError:
    error = cls.__new__(cls, *args)
    error.args = args
    error.__dict__.update(attributes)
    return error
