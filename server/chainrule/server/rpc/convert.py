"""Records to messages and back."""

from __future__ import annotations

import logging
import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

from google.protobuf import duration_pb2, json_format, struct_pb2, timestamp_pb2

from chainrule.engine.models import Outline
from chainrule.server import names, records
from chainrule.server.architecture import Architecture, Builtin, CodeArchitecture, GraphArchitecture
from chainrule.server.blobs import Announcement, Blob, Chunk
from chainrule.server.errors import InvalidRequestError, echo
from chainrule.server.jobs.submission import Submission
from chainrule.server.jobs.timings import Timings, timings
from chainrule.server.rpc import augmentations
from chainrule.server.rpc.configs import training_config, training_config_record
from chainrule.server.rpc.masks import ANNOTATIONS, changed_fields
from chainrule.server.store import JobChange
from chainrule.server.training.state import EvaluationMetric, StepMetric
from chainrule.v1 import blob_pb2, dataset_pb2, job_pb2, model_pb2

MAX_HISTORY = 1000
"""Most changes of its state that a job is shown with."""


def timestamp(time: datetime) -> timestamp_pb2.Timestamp:
    message = timestamp_pb2.Timestamp()
    message.FromDatetime(time)
    return message


def struct_to_dict(struct: struct_pb2.Struct, *, field: str) -> dict[str, object]:
    """A Struct as plain Python values; its numbers are floats.

    Raises InvalidRequestError, naming the place in the request's field, for a number that JSON does not have.
    """
    return {name: _value(value, f"{field}.{name}") for name, value in struct.fields.items()}


def _value(value: struct_pb2.Value, field: str) -> object:
    match value.WhichOneof("kind"):
        case "struct_value":
            return struct_to_dict(value.struct_value, field=field)
        case "list_value":
            return [_value(part, f"{field}[{i}]") for i, part in enumerate(value.list_value.values)]
        case "number_value":
            if not math.isfinite(value.number_value):
                raise InvalidRequestError.of(field, f"is {value.number_value}; use a finite number")
            return value.number_value
        case "string_value":
            return value.string_value
        case "bool_value":
            return value.bool_value
        case _:
            return None


def dict_to_struct(values: Any) -> struct_pb2.Struct:
    struct = struct_pb2.Struct()
    json_format.ParseDict(dict(values), struct)
    return struct


def upload_part(message: blob_pb2.WriteBlobRequest) -> Announcement | Chunk | None:
    """What a message of an upload carries; None if that is nothing."""
    match message.WhichOneof("part"):
        case "blob":
            return Announcement(Blob(message.blob.digest, message.blob.size_bytes), message.write_offset_bytes)
        case "chunk":
            return Chunk(message.chunk, message.chunk_crc32c if message.HasField("chunk_crc32c") else None)
        case _:
            return None


def architecture(message: model_pb2.Model) -> Architecture:
    """What a network is to be. Raises InvalidRequestError if the message does not say, or with what JSON lacks."""
    match message.WhichOneof("architecture"):
        case "builtin":
            config = struct_to_dict(message.builtin.config, field="model.builtin.config")
            return Builtin(message.builtin.family, config)
        case "graph":
            return GraphArchitecture(message.graph.digest)
        case "code":
            return _code(message.code, message.init_seed)
        case _:
            raise InvalidRequestError.of(
                "model.architecture", "is not set; set model.builtin, model.graph or model.code"
            )


_DEFAULTS = CodeArchitecture("")


def _code(message: model_pb2.Code, seed: int) -> CodeArchitecture:
    """Code, of which the shapes are yet to be taken from its weights."""
    for field, given in (("parameters", message.parameters), ("batch_norms", [of.path for of in message.batch_norms])):
        if (twice := next((name for name, count in Counter(given).items() if count > 1), None)) is not None:
            raise InvalidRequestError.of(f"model.code.{field}", f"has {echo(twice)} more than once; name each once")
    return CodeArchitecture(
        digest=message.digest,
        factory=message.factory or _DEFAULTS.factory,
        config=_with_integers(struct_to_dict(message.config, field="model.code.config")),
        seed=seed,
        declared=Outline(
            parameters=dict.fromkeys(message.parameters, ("", ())),
            tied=dict(message.tied),
            batch_norms={of.path: of.momentum if of.HasField("momentum") else None for of in message.batch_norms},
        ),
        file_name=message.file_name or _DEFAULTS.file_name,
    )


def _with_integers(value: Any) -> Any:
    """A value of JSON in which numbers without a fraction are int."""
    match value:
        case float() if value.is_integer():
            return int(value)
        case list():
            return [_with_integers(part) for part in value]
        case dict():
            return {name: _with_integers(part) for name, part in value.items()}
        case _:
            return value


def code(architecture: CodeArchitecture) -> model_pb2.Code:
    declared = architecture.declared
    return model_pb2.Code(
        digest=architecture.digest,
        factory=architecture.factory,
        config=dict_to_struct(architecture.config),
        file_name=architecture.file_name,
        parameters=declared.parameters,
        tied=declared.tied,
        batch_norms=[model_pb2.BatchNorm(path=path, momentum=of) for path, of in declared.batch_norms.items()],
    )


def model(record: records.Model) -> model_pb2.Model:
    message = model_pb2.Model(
        name=record.name,
        weights_digest=record.weights_digest,
        init_seed=record.init_seed,
        num_parameters=record.num_parameters,
        create_time=timestamp(record.create_time),
        labels=record.labels,
        description=record.description,
        etag=record.etag,
        latest_version=names.version(record.name, record.latest_version),
        class_labels=record.class_labels,
        inputs=map(tensor_spec, record.inputs),
        outputs=map(tensor_spec, record.outputs),
        warnings=record.warnings,
    )
    match record.architecture:
        case Builtin(family, config):
            message.builtin.CopyFrom(model_pb2.Builtin(family=family, config=dict_to_struct(config)))
        case GraphArchitecture(digest):
            message.graph.digest = digest
        case CodeArchitecture():
            message.code.CopyFrom(code(record.architecture))
    return message


def tensor_spec(record: records.TensorSpec) -> model_pb2.TensorSpec:
    return model_pb2.TensorSpec(name=record.name, dtype=record.dtype, shape=map(_dimension, record.shape))


def _dimension(size: int | str) -> model_pb2.Dimension:
    if isinstance(size, str):
        return model_pb2.Dimension(name=size)
    return model_pb2.Dimension(value=size)


def model_version(record: records.ModelVersion) -> model_pb2.ModelVersion:
    return model_pb2.ModelVersion(
        name=names.version(record.model, record.number),
        weights_digest=record.weights_digest,
        job=record.job,
        parent_version=names.version(record.model, record.parent) if record.parent else "",
        dataset=record.dataset,
        dataset_digest=record.dataset_digest,
        step=record.step,
        create_time=timestamp(record.create_time),
        preparation=map(augmentations.transform, record.preparation),
        class_labels=record.class_labels,
    )


def dataset(record: records.Dataset) -> dataset_pb2.Dataset:
    return dataset_pb2.Dataset(
        name=record.name,
        digest=record.digest,
        num_examples=record.num_examples,
        input_shape=record.input_shape,
        num_classes=record.num_classes,
        size_bytes=record.size_bytes,
        create_time=timestamp(record.create_time),
        labels=record.labels,
        description=record.description,
        etag=record.etag,
        columns=[dataset_pb2.Column(name=of.name, dtype=of.dtype, shape=of.shape) for of in record.columns],
        statistics=[dataset_pb2.ColumnStatistics(**asdict(of)) for of in record.statistics],
        class_labels=record.class_labels,
        num_chunks=record.num_chunks,
        source_uri=record.source_uri,
    )


def job(record: records.Job) -> job_pb2.Job:
    message = job_pb2.Job(
        name=record.name,
        model=record.model,
        dataset=record.dataset,
        config=training_config(record.config),
        state=job_state(record.state),
        history=map(state_change, record.history[-MAX_HISTORY:]),
        progress=progress(record.progress),
        weights_digest=record.weights_digest,
        create_time=timestamp(record.create_time),
        events=map(job_event, record.events),
        running_workers=record.running_workers,
        fingerprint=record.fingerprint,
        evaluations=map(evaluation, record.evaluations),
        weights_step=record.weights_step,
        labels=record.labels,
        description=record.description,
        etag=record.etag,
        priority=record.priority,
        source_version=names.version(record.model, record.source_version),
        result_version=names.version(record.model, record.result_version) if record.result_version else "",
        timings=job_timings(timings(record.history, now=datetime.now(UTC))),
        dataset_digest=record.dataset_digest,
    )
    if record.failure is not None:
        message.error.reason = record.failure.reason
        message.error.message = record.failure.message
        message.error.traceback = record.failure.traceback
    if record.start_time is not None:
        message.start_time.CopyFrom(timestamp(record.start_time))
    if record.end_time is not None:
        message.end_time.CopyFrom(timestamp(record.end_time))
    return message


def previewed_job(record: records.Job) -> job_pb2.Job:
    """A job as it would be submitted: without what it gets by being stored."""
    message = job(record)
    for field in ("name", "state", "history", "create_time", "etag", "timings"):
        message.ClearField(field)
    return message


def state_change(record: records.StateChange) -> job_pb2.StateChange:
    return job_pb2.StateChange(
        state=job_state(record.state),
        time=timestamp(record.time),
        reason=record.reason,
        attempt=record.attempt,
        cause=job_pb2.StateChange.Cause.Value(f"CAUSE_{record.cause.value if record.cause else 'UNSPECIFIED'}"),
    )


def job_timings(record: Timings) -> job_pb2.Timings:
    return job_pb2.Timings(
        queued=_duration(record.queued_s),
        preparing=_duration(record.preparing_s),
        running=_duration(record.running_s),
        recovering=_duration(record.recovering_s),
        paused=_duration(record.paused_s),
        ending=_duration(record.ending_s),
    )


def _duration(seconds: float) -> duration_pb2.Duration:
    message = duration_pb2.Duration()
    message.FromNanoseconds(round(seconds * 1e6) * 1000)
    return message


def job_state(state: records.JobState) -> job_pb2.Job.State.ValueType:
    return job_pb2.Job.State.Value(f"STATE_{state.value}")


def progress(record: records.Progress) -> job_pb2.Progress:
    message = job_pb2.Progress(
        step=record.step,
        total_steps=record.total_steps,
        epoch=record.epoch,
        total_epochs=record.total_epochs,
        loss=record.loss,
        accuracy=record.accuracy,
        values=_values(record),
        examples_per_second=record.examples_per_second,
    )
    if record.eta_s is not None:
        message.eta.FromNanoseconds(round(record.eta_s * 1e9))
    return message


def _values(record: records.Progress | StepMetric | EvaluationMetric) -> Mapping[str, float]:
    """All that was measured, by name."""
    return {**({} if record.accuracy is None else {"accuracy": record.accuracy}), **record.values}


def metric(record: StepMetric) -> job_pb2.Metric:
    message = job_pb2.Metric(
        sequence=record.step,
        step=record.step,
        epoch=record.epoch,
        loss=record.loss,
        accuracy=record.accuracy,
        num_examples=record.num_examples,
        values=_values(record),
    )
    message.time.FromNanoseconds(round(record.time_s * 1e6) * 1000)
    return message


def evaluation(record: EvaluationMetric) -> job_pb2.Evaluation:
    message = job_pb2.Evaluation(
        epoch=record.epoch,
        step=record.step,
        loss=record.loss,
        accuracy=record.accuracy,
        num_examples=record.num_examples,
        values=_values(record),
    )
    message.time.FromNanoseconds(round(record.time_s * 1e6) * 1000)
    return message


def job_event(record: records.JobEvent) -> job_pb2.JobEvent:
    return job_pb2.JobEvent(
        kind=record.kind,
        message=record.message,
        step=record.step,
        seconds_lost=record.seconds_lost,
        time=timestamp(record.time),
    )


def checkpoint(record: records.Checkpoint) -> job_pb2.Checkpoint:
    return job_pb2.Checkpoint(
        step=record.step,
        epoch=record.epoch,
        digest=record.state_digest,
        size_bytes=record.size_bytes,
        create_time=timestamp(record.create_time),
        is_best=record.is_best,
    )


def receipt(record: records.Receipt) -> job_pb2.Receipt:
    return job_pb2.Receipt(step=record.step, state_digest=record.state_digest, chain_digest=record.chain_digest)


_SEVERITIES = {
    logging.DEBUG: job_pb2.LogEntry.SEVERITY_DEBUG,
    logging.INFO: job_pb2.LogEntry.SEVERITY_INFO,
    logging.WARNING: job_pb2.LogEntry.SEVERITY_WARNING,
    logging.ERROR: job_pb2.LogEntry.SEVERITY_ERROR,
}


def severity_number(asked: job_pb2.LogEntry.Severity.ValueType) -> int:
    """The number of `logging` that entries of a severity have at least; 0 for all. Raises InvalidRequestError."""
    if asked == job_pb2.LogEntry.SEVERITY_UNSPECIFIED:
        return 0
    for number, severity in _SEVERITIES.items():
        if severity == asked:
            return number
    raise InvalidRequestError.of("min_severity", f"is {asked}, which is not a severity; use SEVERITY_DEBUG to _ERROR")


def severity(number: int) -> job_pb2.LogEntry.Severity.ValueType:
    """The severity of a number of `logging`: the nearest that is not above it."""
    below = [severity for least, severity in _SEVERITIES.items() if least <= number]
    return below[-1] if below else job_pb2.LogEntry.SEVERITY_DEBUG


def log_entry(record: records.LogRecord) -> job_pb2.LogEntry:
    return job_pb2.LogEntry(
        sequence=record.sequence,
        time=timestamp(record.time),
        severity=severity(record.severity),
        source=record.source,
        node=record.node,
        attempt=record.attempt,
        message=record.message,
    )


def submission(request: job_pb2.CreateJobRequest, *, tenant: str) -> Submission:
    return Submission(
        model=request.job.model,
        dataset=request.job.dataset,
        config=training_config_record(request.job.config),
        request_id=request.request_id,
        tenant=tenant,
        labels=dict(request.job.labels),
        description=request.job.description,
        priority=request.job.priority,
    )


def job_change(request: job_pb2.UpdateJobRequest) -> JobChange:
    """What is to be changed of a job. Raises InvalidRequestError naming what of update_mask cannot be."""
    asked = request.job
    masked = changed_fields(asked, request.update_mask, mutable=(*ANNOTATIONS, "priority"))
    return JobChange(
        labels=dict(asked.labels) if "labels" in masked else None,
        description=asked.description if "description" in masked else None,
        priority=asked.priority if "priority" in masked else None,
    )
