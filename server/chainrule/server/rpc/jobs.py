"""JobService."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import grpc

from chainrule.server.errors import InvalidRequestError
from chainrule.server.jobs.manager import JobManager
from chainrule.server.rpc import convert
from chainrule.server.rpc.paging import page_size, page_token
from chainrule.v1 import job_pb2, job_pb2_grpc

DEFAULT_METRICS = 1000
MAX_METRICS = 10_000

Context = grpc.aio.ServicerContext[Any, Any]


class JobServicer(job_pb2_grpc.JobServiceServicer):
    """Translates between JobService and the job manager."""

    def __init__(self, jobs: JobManager) -> None:
        self._jobs = jobs

    async def CreateJob(self, request: job_pb2.CreateJobRequest, context: Context) -> job_pb2.Job:
        return convert.job(await self._jobs.submit(convert.submission(request)))

    async def GetJob(self, request: job_pb2.GetJobRequest, context: Context) -> job_pb2.Job:
        return convert.job(await self._jobs.get(request.name))

    async def ListJobs(self, request: job_pb2.ListJobsRequest, context: Context) -> job_pb2.ListJobsResponse:
        page, token = await self._jobs.page(page_size(request.page_size), page_token(request.page_token))
        return job_pb2.ListJobsResponse(jobs=map(convert.job, page), next_page_token=token)

    async def CancelJob(self, request: job_pb2.CancelJobRequest, context: Context) -> job_pb2.Job:
        return convert.job(await self._jobs.cancel(request.name))

    async def WatchJob(self, request: job_pb2.WatchJobRequest, context: Context) -> AsyncIterator[job_pb2.Job]:
        async for job in self._jobs.watch(request.name):
            yield convert.job(job)

    async def StreamMetrics(
        self, request: job_pb2.StreamMetricsRequest, context: Context
    ) -> AsyncIterator[job_pb2.StreamMetricsResponse]:
        after = _sequence(request.after_sequence)
        async for metrics in self._jobs.stream_metrics(request.name, after_step=after):
            yield job_pb2.StreamMetricsResponse(metrics=map(convert.metric, metrics))

    async def ListMetrics(self, request: job_pb2.ListMetricsRequest, context: Context) -> job_pb2.ListMetricsResponse:
        limit = page_size(request.page_size, default=DEFAULT_METRICS, most=MAX_METRICS)
        after = _sequence(request.after_sequence)
        metrics = await self._jobs.metrics(request.name, after_step=after, limit=limit)
        return job_pb2.ListMetricsResponse(metrics=map(convert.metric, metrics))


def _sequence(asked: int) -> int:
    if asked < 0:
        raise InvalidRequestError.of("after_sequence", f"is {asked}; use 0 for all, or the last sequence number seen")
    return asked
