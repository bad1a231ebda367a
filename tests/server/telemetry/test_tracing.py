"""Spans of calls, as an exporter in memory gets them."""

from __future__ import annotations

import builtins
from typing import Any

import pytest

from chainrule.server.errors import StartupError
from chainrule.server.telemetry.tracing import Tracing, check_tracing

export = pytest.importorskip("opentelemetry.sdk.trace.export.in_memory_span_exporter")
pytest.importorskip("opentelemetry.exporter.otlp.proto.grpc")

TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"


async def spans_of(*calls: tuple[str, dict[str, Any], str]) -> Any:
    exporter = export.InMemorySpanExporter()
    tracing = Tracing("http://localhost:4317", exporter=exporter)
    for method, metadata, code in calls:
        tracing.begin(method, metadata).end(code, "id1")
    await tracing.close()
    return exporter.get_finished_spans()


async def test_a_call_is_a_span_below_that_of_who_called() -> None:
    [span] = await spans_of(("JobService/GetJob", {"traceparent": f"00-{TRACE}-{PARENT}-01"}, "NOT_FOUND"))
    assert span.name == "JobService/GetJob"
    assert span.kind.name == "SERVER"
    assert f"{span.context.trace_id:032x}" == TRACE
    assert f"{span.parent.span_id:016x}" == PARENT
    assert dict(span.attributes) == {
        "rpc.system": "grpc",
        "rpc.service": "chainrule.v1.JobService",
        "rpc.method": "GetJob",
        "rpc.grpc.status_code": 5,
        "chainrule.request_id": "id1",
    }
    assert span.status.is_unset  # what is not there is no fault of the service
    assert span.resource.attributes["service.name"] == "chainrule"


@pytest.mark.parametrize("traceparent", [None, "", "nonsense", b"bytes", f"00-{'0' * 32}-{PARENT}-01"])
async def test_without_a_well_formed_parent_a_span_stands_by_itself(traceparent: object) -> None:
    [span] = await spans_of(("JobService/GetJob", {"traceparent": traceparent}, "OK"))
    assert span.parent is None
    assert f"{span.context.trace_id:032x}" != TRACE


async def test_a_fault_of_the_service_is_one_of_the_span() -> None:
    ok, internal = await spans_of(("A/B", {}, "OK"), ("A/B", {}, "INTERNAL"))
    assert ok.status.is_ok or ok.status.is_unset
    assert not internal.status.is_ok
    assert internal.status.description == "INTERNAL"


def test_packages_that_are_missing_are_named_with_how_to_install_them(monkeypatch: pytest.MonkeyPatch) -> None:
    ordinary = builtins.__import__

    def without(name: str, *rest: Any) -> Any:
        if name.startswith("opentelemetry"):
            raise ImportError(f"No module named {name!r}")
        return ordinary(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(StartupError, match=r"pip install 'chainrule\[telemetry\]'"):
        check_tracing("http://localhost:4317")


def test_an_address_that_is_no_url_is_refused() -> None:
    with pytest.raises(StartupError, match="--otlp-endpoint localhost:4317 is no URL; one looks like http"):
        check_tracing("localhost:4317")
