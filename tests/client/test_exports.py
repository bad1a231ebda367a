"""The client's public surface, and what importing it costs."""

import ast
import importlib
import subprocess
import sys
from pathlib import Path

import pytest

import chainrule.client
import chainrule.client.demo

PUBLIC = [
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


def test_all_is_exactly_the_public_surface_in_order() -> None:
    assert chainrule.client.__all__ == PUBLIC
    assert sorted(PUBLIC) == PUBLIC
    assert dir(chainrule.client) == PUBLIC


@pytest.mark.parametrize("name", PUBLIC)
def test_every_public_name_is_there(name: str) -> None:
    assert getattr(chainrule.client, name).__name__ == name


def test_type_checkers_see_the_same_names_in_the_same_modules() -> None:
    tree = ast.parse(Path(str(chainrule.client.__file__)).read_text())
    seen = {
        alias.name: node.module
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and str(node.module).startswith("chainrule.client.")
        for alias in node.names
    }
    assert sorted(seen) == PUBLIC
    for name, module in seen.items():
        assert getattr(importlib.import_module(str(module)), name) is getattr(chainrule.client, name)


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="Clinet"):
        _ = chainrule.client.Clinet


def test_the_demo_exports_the_digits() -> None:
    assert chainrule.client.demo.__all__ == ["load_digits"]


def modules_after(statement: str) -> set[str]:
    """The top-level and second-level modules that a fresh process has loaded after a statement."""
    code = f"{statement}\nimport sys\nprint('\\n'.join(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return {".".join(name.split(".")[:2]) for name in done.stdout.split()}


def test_the_command_line_loads_neither_grpc_nor_numpy_nor_the_engine_before_it_needs_them() -> None:
    loaded = modules_after("import chainrule.client.cli.app")
    assert loaded.isdisjoint({"grpc", "numpy", "chainrule.engine", "chainrule.server", "google.protobuf"})


def test_the_client_loads_neither_ray_nor_the_server() -> None:
    loaded = modules_after("from chainrule.client import Client; import chainrule.client.demo.run")
    assert loaded.isdisjoint({"ray", "torch", "chainrule.server"})
