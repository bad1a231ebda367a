"""The audit log: what is left out, and what a failing store does."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from chainrule.server.audit import AuditLog
from chainrule.server.callers import AuditEntry
from chainrule.server.errors import StoreUnavailableError
from chainrule.server.store import PageRequest, Store

OK = AuditEntry("tokens/a", "a", "ipv4:127.0.0.1:1", "chainrule.v1.JobService/CreateJob", "jobs/x", "OK")
REFUSED = replace(OK, token="", tenant="", code="UNAUTHENTICATED")


async def test_what_was_done_is_recorded_always_and_refusals_as_often_as_there_is_room_for(
    store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    now = [0.0]
    log = AuditLog(store, clock=lambda: now[0])
    for _ in range(30):
        await log.record(REFUSED)
        await log.record(OK)
    await log.record(replace(OK, code="NOT_FOUND"))  # of a token: those without do not take its room
    now[0] = 0.1
    await log.record(REFUSED)
    codes = [entry.code for entry in store.list_audit_entries(PageRequest(100))[0]]
    assert (codes.count("OK"), codes.count("UNAUTHENTICATED"), codes.count("NOT_FOUND")) == (30, 11, 1)
    log.tell()
    log.tell()
    assert [record.message for record in caplog.records] == [
        "20 calls that were refused or failed are not in the audit log"
    ]


async def test_a_store_that_fails_is_logged_and_no_error(
    store: Store, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(_: Any) -> None:
        raise StoreUnavailableError("locked")

    monkeypatch.setattr(store, "add_audit_entry", fail)
    await AuditLog(store).record(OK)
    assert "cannot record in the audit log" in caplog.text
    assert "jobs/x" in caplog.text
