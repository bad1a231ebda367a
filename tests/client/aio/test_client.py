"""The client for asyncio does what the one for threads does, and lets go at once when its task is cancelled."""

import asyncio
import threading
from collections.abc import Awaitable
from typing import Any

import numpy as np
import pytest

from chainrule.client import (
    AsyncClient,
    ClientClosedError,
    DataLoss,
    DeadlineExceeded,
    JobFailedError,
    JobState,
    NotFound,
    RetryPolicy,
    Settings,
    Unavailable,
)
from chainrule.client.aio import datasets as aio_datasets
from chainrule.client.aio import job as aio_job
from chainrule.engine import io, models
from chainrule.v1 import job_pb2
from tests.client.fake_server import BREAK, FakeServer, log_entry, metric, read_response

RUNNING, SUCCEEDED = job_pb2.Job.STATE_RUNNING, job_pb2.Job.STATE_SUCCEEDED
WEIGHTS = {"weight": np.arange(6, dtype=np.float32)}


async def test_a_job_is_submitted_waited_for_and_its_weights_fetched(server: FakeServer, aio: AsyncClient) -> None:
    content = io.save(WEIGHTS)
    server.blobs[io.digest(content)] = content
    server.first_job = job_pb2.Job(state=SUCCEEDED, weights_digest=io.digest(content))
    model = await aio.models.create("digits", models.small_cnn(num_classes=10))
    data = await aio.datasets.create("digits", inputs=[[1.0]], targets=[0])
    job = await aio.jobs.create(model=model, dataset=data, epochs=3)
    assert (await job.wait()).state is JobState.SUCCEEDED
    assert await job.weights_digest == io.digest(content)
    np.testing.assert_array_equal((await job.weights())["weight"], WEIGHTS["weight"], strict=True)
    assert server.requests("CreateJob")[0].job.config.epochs == 3


async def test_what_takes_a_while_does_not_hold_up_the_loop(
    server: FakeServer, aio: AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    computed: dict[str, bool] = {}

    def watched(module: object, name: str) -> None:
        function = getattr(module, name)

        def call(*args: Any, **kwargs: Any) -> Any:
            computed[name] = threading.current_thread() is not threading.main_thread()
            return function(*args, **kwargs)

        monkeypatch.setattr(module, name, call)

    for module, name in ((aio_datasets, "open_reader"), (aio_job, "compare"), (io, "load")):
        watched(module, name)
    await aio.datasets.create("d", inputs=[[1.0]], targets=[0])
    await aio.models.create("m", models.small_cnn(num_classes=10))
    content = io.save(WEIGHTS)
    server.blobs[io.digest(content)] = content
    for name in ("jobs/1", "jobs/2"):
        server.put_job(
            name=name, state=SUCCEEDED, weights_digest=io.digest(content), model="models/m", dataset="datasets/d"
        )
    server.metrics = [metric(1)]
    job = await aio.jobs.get("1")
    await job.weights()
    await job.verify("2")
    assert computed == {"open_reader": True, "compare": True, "load": True}


async def test_a_job_that_failed_is_raised(server: FakeServer, aio: AsyncClient) -> None:
    server.put_job(name="jobs/1", state=job_pb2.Job.STATE_FAILED)
    with pytest.raises(JobFailedError, match="jobs/1 FAILED"):
        await (await aio.jobs.get("1")).wait()


async def test_a_watch_goes_on_through_breaks(server: FakeServer, aio: AsyncClient) -> None:
    server.put_job(name="jobs/1")
    server.take("WatchJob", job_pb2.Job(name="jobs/1", state=RUNNING), BREAK)
    server.take("WatchJob", BREAK)
    server.take("WatchJob", job_pb2.Job(name="jobs/1", state=SUCCEEDED))
    job = await aio.jobs.get("1")
    assert [status.state async for status in job.watch()] == [JobState.RUNNING, JobState.SUCCEEDED]


async def test_streams_have_neither_gaps_nor_repetitions(server: FakeServer, aio: AsyncClient) -> None:
    server.put_job(name="jobs/1")
    server.take("StreamMetrics", job_pb2.StreamMetricsResponse(metrics=[metric(1), metric(2)]), BREAK)
    server.take("StreamMetrics", job_pb2.StreamMetricsResponse(metrics=[metric(3)]))
    server.logs = [log_entry(i, f"line {i}") for i in (1, 2, 5)]
    job = await aio.jobs.get("1")
    assert [m.sequence async for m in job.stream_metrics()] == [1, 2, 3]
    assert [entry.sequence async for entry in job.logs()] == [1, 2, 5]
    assert [entry.sequence async for entry in job.logs(follow=True, after=1)] == [2, 5]


async def test_an_upload_that_breaks_goes_on_from_what_has_arrived(server: FakeServer, aio: AsyncClient) -> None:
    content = bytes(range(256)) * 16 * 1024  # 4 MiB
    server.fail("WriteBlob", BREAK)
    sent: list[int] = []
    digest = await aio.blobs.upload(content, transferred=lambda done, _: sent.append(done))
    assert server.blobs[digest] == content
    assert sent[-1] == len(content)


async def test_a_damaged_download_is_refused(server: FakeServer, aio: AsyncClient) -> None:
    server.take("ReadBlob", read_response(b"other"))
    with pytest.raises(DataLoss, match="asked for the blob"):
        await aio.blobs.download("ab" * 32)


async def test_lists_are_read_over_all_pages(server: FakeServer, aio: AsyncClient) -> None:
    for i in range(5):
        server.put_job(name=f"jobs/{i}")
    assert [status.name for status in await aio.jobs.list(limit=3)] == ["jobs/4", "jobs/3", "jobs/2"]
    with pytest.raises(NotFound):
        await aio.jobs.get("9")


async def test_calls_run_at_the_same_time(server: FakeServer, aio: AsyncClient) -> None:
    server.put_job(name="jobs/1", state=RUNNING)
    job = await aio.jobs.get("1")
    waits = [asyncio.create_task(job.wait()) for _ in range(5)]
    await asyncio.to_thread(server.await_calls, "WatchJob", 5)
    server.put_job(name="jobs/1", state=SUCCEEDED)
    assert [status.state for status in await asyncio.gather(*waits)] == [JobState.SUCCEEDED] * 5


@pytest.mark.parametrize("method", ["GetJob", "WatchJob", "WriteBlob", "ReadBlob"])
async def test_a_cancelled_task_takes_its_call_back(server: FakeServer, aio: AsyncClient, method: str) -> None:
    server.put_job(name="jobs/1", state=RUNNING)
    job = await aio.jobs.get("1")
    server.calls.clear()
    server.silent.add(method)
    calls: dict[str, Awaitable[object]] = {
        "GetJob": aio.jobs.get("1"),
        "WatchJob": job.wait(),
        "WriteBlob": aio.blobs.upload(b"content"),
        "ReadBlob": aio.blobs.download("ab" * 32),
    }
    task = asyncio.ensure_future(calls.pop(method))
    for other in calls.values():
        other.close()  # type: ignore[attr-defined]
    await asyncio.to_thread(server.await_calls, method)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await asyncio.to_thread(server.await_no_calls)
    server.silent.clear()
    assert (await job.status()).state is JobState.RUNNING  # the client goes on


async def test_closing_ends_calls_under_way(server: FakeServer) -> None:
    server.put_job(name="jobs/1", state=RUNNING)
    client = await AsyncClient.connect(server.address)
    job = await client.jobs.get("1")
    task = asyncio.create_task(job.wait())
    await asyncio.to_thread(server.await_calls, "WatchJob")
    await client.close()
    with pytest.raises(ClientClosedError):
        await task
    with pytest.raises(ClientClosedError, match="is closed; open one"):
        await client.jobs.list()
    await client.close()


async def test_connecting_says_what_to_do_when_no_server_is_there(server: FakeServer) -> None:
    server.stop()
    with pytest.raises(Unavailable, match='start one with "chainrule serve"'):
        await AsyncClient.connect(server.address)


async def test_a_wait_has_its_own_time(server: FakeServer, aio: AsyncClient) -> None:
    server.put_job(name="jobs/1", state=RUNNING)
    with pytest.raises(DeadlineExceeded, match=r"jobs/1 has not ended within 0\.2 s; it was RUNNING when last seen"):
        await (await aio.jobs.get("1")).wait(timeout_s=0.2)


async def test_closing_ends_the_waiting_for_a_server_that_is_gone(server: FakeServer) -> None:
    server.put_job(name="jobs/1", state=RUNNING)
    patient = Settings(retry=RetryPolicy(window_s=3600.0, first_delay_s=3600.0, max_delay_s=3600.0))
    client = await AsyncClient.connect(server.address, settings=patient)
    job = await client.jobs.get("1")
    server.take("WatchJob", BREAK)
    task = asyncio.create_task(job.wait())
    await asyncio.to_thread(server.await_calls, "WatchJob")
    await client.close()
    with pytest.raises(ClientClosedError):
        await task


async def test_an_error_of_the_callback_of_an_upload_is_the_caller_s(server: FakeServer, aio: AsyncClient) -> None:
    def fail(_sent: int, _total: int) -> None:
        raise ZeroDivisionError("of the callback")

    with pytest.raises(ZeroDivisionError, match="of the callback"):
        await aio.blobs.upload(bytes(3 * 1024 * 1024), transferred=fail)
    assert server.blobs == {}
