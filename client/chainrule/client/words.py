"""What the fields and calls of the API are called in the SDK, so that the server's errors speak of what was written."""

import re
from collections.abc import Mapping

FIELDS: Mapping[str, str] = {
    "job.config.sgd": "optimizer",
    "job.config.adam": "optimizer",
    "job.config.losses": "loss",
    "job.config": "",
    "job": "",
    "model.builtin.family": "family",
    "model.builtin.config": "config",
    "model.builtin": "family",
    "model.graph.digest": "network",
    "model.graph": "network",
    "model.code.factory": "factory",
    "model.code.config": "config",
    "model.code": "network",
    "model.architecture": "network",
    "model.weights_digest": "weights",
    "model": "",
    "dataset.digest": "inputs, targets",
    "dataset": "",
    "blob.digest": "digest",
    "blob.size_bytes": "content",
    "token.secret_digest": "secret",
    "token_id": "token",
    "token": "",
    "request.inputs": "x",
    "request": "",
    "inputs": "x",
    "parent": "model",
    "page_size": "limit",
    "after_sequence": "after",
    "after_step": "after",
}
"""Path of a field in a request → name of the argument; of several that fit, the first. "": what is inside it stands for
itself. What is not named has the same name in both."""

CALLS: Mapping[str, str] = {
    "CreateModel": "models.create",
    "GetModel": "models.get",
    "ListModels": "models.list",
    "UpdateModel": "models.update",
    "DeleteModel": "models.delete",
    "GetModelVersion": "models.version",
    "ListModelVersions": "models.versions",
    "DeleteModelVersion": "models.delete_version",
    "Predict": "predict",
    "StreamPredict": "predict",
    "CreateDataset": "datasets.create",
    "GetDataset": "datasets.get",
    "ListDatasets": "datasets.list",
    "UpdateDataset": "datasets.update",
    "DeleteDataset": "datasets.delete",
    "CreateJob": "jobs.create",
    "GetJob": "jobs.get",
    "ListJobs": "jobs.list",
    "UpdateJob": "jobs.update",
    "DeleteJob": "jobs.delete",
    "CancelJob": "job.cancel",
    "PauseJob": "job.pause",
    "ResumeJob": "job.resume",
    "ScaleJob": "job.scale",
    "WatchJob": "job.watch",
    "StreamMetrics": "job.stream_metrics",
    "ListMetrics": "job.metrics",
    "StreamLogs": "job.logs",
    "ListLogs": "job.logs",
    "ListCheckpoints": "job.checkpoints",
    "ListReceipts": "job.receipts",
    "FindMissingBlobs": "blobs.missing",
    "WriteBlob": "blobs.upload",
    "QueryWriteStatus": "blobs.upload",
    "ReadBlob": "blobs.download",
    "GetServerInfo": "server_info",
    "ListNodes": "nodes",
    "CreateToken": "access.create",
    "GetToken": "access.get",
    "ListTokens": "access.list",
    "RevokeToken": "access.revoke",
    "ListAuditEntries": "access.audit",
}
"""A call of the API → what makes it, as an attribute of a client; job: of a handle."""

_CALL = re.compile(rf"(?<!/)\b({'|'.join(CALLS)})\b")  # not of a path, as chainrule.v1.JobService/GetJob


def argument_of(path: str) -> str:
    """The name of the argument that a field of a request comes from.

    >>> argument_of("job.config.adam.lr")
    'optimizer.lr'
    >>> argument_of("job.config.epochs")
    'epochs'
    """
    for prefix, name in FIELDS.items():
        if path == prefix:
            return name or path
        if path.startswith((f"{prefix}.", f"{prefix}[")):
            inside = path[len(prefix) :]
            return f"{name}{inside}" if name else inside.removeprefix(".")
    return path


def in_own_words(text: str, paths: Mapping[str, str]) -> str:
    """A text of the server with the SDK's names of calls, and of the fields it names: path → argument."""
    for path in sorted(paths, key=len, reverse=True):  # job.config before job
        text = re.sub(rf"(?<![\w.]){re.escape(path)}(?![\w.])", paths[path].replace("\\", r"\\"), text)
    return _CALL.sub(lambda call: CALLS[call[1]], text)
