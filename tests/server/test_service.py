"""The service on its way out."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path
from typing import Any

import grpc
import pytest

from chainrule.server.config import ServerConfig
from chainrule.server.data_folder import open_store
from chainrule.server.store import PageRequest, Store
from chainrule.v1 import model_pb2
from tests.server.guarded import Caller, serving


async def test_what_became_of_a_call_that_was_cut_off_is_written_before_the_store_is_closed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, never = threading.Event(), threading.Event()
    real = Store.add_audit_entry

    def delete_model(*_: Any, **__: Any) -> None:
        begun.set()
        never.wait(1)  # a store that takes its time, longer than the call has

    def add_audit_entry(store: Store, entry: Any) -> None:
        never.wait(0.3)
        real(store, entry)

    monkeypatch.setattr(Store, "delete_model", delete_model)
    monkeypatch.setattr(Store, "add_audit_entry", add_audit_entry)
    async with serving(ServerConfig(data_dir=tmp_path, grace_s=0.1)) as service:
        channel = grpc.aio.insecure_channel(service.address)
        call = Caller(channel).models.DeleteModel(model_pb2.DeleteModelRequest(name="models/m"))
        await asyncio.to_thread(begun.wait, 30)
    store = open_store(tmp_path)
    entries, _ = store.list_audit_entries(PageRequest())
    store.close()
    assert [(entry.method, entry.code) for entry in entries] == [("chainrule.v1.ModelService/DeleteModel", "OK")]
    await asyncio.gather(call, return_exceptions=True)
    await channel.close()
