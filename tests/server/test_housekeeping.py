"""A service tidies up by itself."""

from __future__ import annotations

import asyncio
import os
import threading

import pytest

from chainrule.server.access import TokenCatalog
from chainrule.server.blobs import BlobStore, Collected
from chainrule.server.errors import StoreUnavailableError
from chainrule.server.housekeeping import Housekeeping
from chainrule.server.store import Store
from tests.server.training.bench import until


async def test_what_nothing_refers_to_goes_at_the_start_and_later(store: Store, blobs: BlobStore) -> None:
    first = blobs.path(blobs.put(b"first"))
    os.utime(first, (0, 0))
    async with Housekeeping(store, blobs, TokenCatalog(store), interval_s=0.01, grace_s=60):
        await until(lambda: not first.exists())
        later, fresh = blobs.path(blobs.put(b"later")), blobs.path(blobs.put(b"fresh"))
        os.utime(later, (0, 0))
        await until(lambda: not later.exists())
        assert fresh.exists()


async def test_a_store_that_does_not_answer_is_asked_again(
    store: Store, blobs: BlobStore, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    path = blobs.path(blobs.put(b"content"))
    os.utime(path, (0, 0))
    answers = iter([StoreUnavailableError("locked")])

    def unreferenced(digests: list[str]) -> list[str]:
        for error in answers:
            raise error
        return digests

    monkeypatch.setattr(store, "unreferenced", unreferenced)
    async with Housekeeping(store, blobs, TokenCatalog(store), interval_s=0.01, grace_s=60):
        await until(lambda: not path.exists())
    assert "cannot look for blobs that may go: locked" in caplog.text


async def test_whatever_goes_wrong_is_told_and_the_next_look_comes(
    store: Store, blobs: BlobStore, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    path = blobs.path(blobs.put(b"content"))
    os.utime(path, (0, 0))
    errors = iter([ZeroDivisionError("a defect")])

    def unreferenced(digests: list[str]) -> list[str]:
        for error in errors:
            raise error
        return digests

    monkeypatch.setattr(store, "unreferenced", unreferenced)
    async with Housekeeping(store, blobs, TokenCatalog(store), interval_s=0.01, grace_s=60):
        await until(lambda: not path.exists())
    assert "a defect" in caplog.text


async def test_once_it_has_ended_nothing_is_removed(
    store: Store, blobs: BlobStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    reached, proceed, done = threading.Event(), threading.Event(), []

    def collect(*_: object, **__: object) -> Collected:
        reached.set()
        proceed.wait(10)
        done.append(True)
        return Collected()

    monkeypatch.setattr(blobs, "collect", collect)
    housekeeping = Housekeeping(store, blobs, TokenCatalog(store))
    await housekeeping.__aenter__()
    await until(reached.is_set)
    leaving = asyncio.create_task(housekeeping.__aexit__(None, None, None))
    await asyncio.sleep(0)
    assert not leaving.done()
    proceed.set()
    await leaving
    assert done
