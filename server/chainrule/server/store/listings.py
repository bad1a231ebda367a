"""What can be listed, and by which fields it can be found and ordered. Column and field differ in name here and there:
what a client filters by is what the API shows."""

from __future__ import annotations

from chainrule.server.records import JobState
from chainrule.server.store import schema
from chainrule.server.store.filtering import Choice, Labels, Number, Text, Time
from chainrule.server.store.paging import Listing

_models, _datasets, _jobs = schema.models.c, schema.datasets.c, schema.jobs.c

MODELS = Listing(
    _models.id,
    fields={
        "name": Text(_models.name),
        "family": Text(_models.family),
        "description": Text(_models.description),
        "labels": Labels(_models.labels),
        "create_time": Time(_models.create_time_us),
        "weights_digest": Text(_models.weights_digest),
    },
    orders={"create_time": _models.id, "name": _models.name},
)

MODEL_VERSIONS = Listing(schema.model_versions.c.number)
"""Of one model."""

DATASETS = Listing(
    _datasets.id,
    fields={
        "name": Text(_datasets.name),
        "description": Text(_datasets.description),
        "labels": Labels(_datasets.labels),
        "create_time": Time(_datasets.create_time_us),
        "digest": Text(_datasets.digest),
        "num_examples": Number(_datasets.num_examples),
        "num_classes": Number(_datasets.num_classes),
        "size_bytes": Number(_datasets.size_bytes),
    },
    orders={"create_time": _datasets.id, "name": _datasets.name},
)

JOBS = Listing(
    _jobs.id,
    fields={
        "name": Text(_jobs.name),
        "model": Text(_jobs.model),
        "dataset": Text(_jobs.dataset),
        "state": Choice(_jobs.state, [state.value for state in JobState], prefix="STATE_"),
        "priority": Number(_jobs.priority),
        "description": Text(_jobs.description),
        "labels": Labels(_jobs.labels),
        "create_time": Time(_jobs.create_time_us),
        "start_time": Time(_jobs.start_time_us),
        "end_time": Time(_jobs.end_time_us),
        "weights_digest": Text(_jobs.weights_digest),
    },
    orders={
        "create_time": _jobs.id,
        "start_time": _jobs.start_time_us,
        "end_time": _jobs.end_time_us,
        "priority": _jobs.priority,
        "name": _jobs.name,
    },
)

CHECKPOINTS = Listing(schema.checkpoints.c.step)
"""Of one job."""

TOKENS = Listing(schema.tokens.c.id)

AUDIT = Listing(schema.audit.c.id)
