"""JobService."""

from __future__ import annotations

from collections.abc import AsyncIterator

from google.protobuf import empty_pb2

from chainrule.server.errors import InvalidRequestError
from chainrule.server.jobs.manager import JobManager
from chainrule.server.rpc import convert
from chainrule.server.rpc.caller import caller
from chainrule.server.rpc.paging import page_request, page_size
from chainrule.server.rpc.wrapping import Context
from chainrule.v1 import job_pb2, job_pb2_grpc

DEFAULT_METRICS = 1000
MAX_METRICS = 10_000
DEFAULT_RECEIPTS = 1000
MAX_RECEIPTS = 10_000
DEFAULT_LOGS = 1000
MAX_LOGS = 10_000


class JobServicer(job_pb2_grpc.JobServiceServicer):
    """Translates between JobService and the job manager."""

    def __init__(self, jobs: JobManager) -> None:
        self._jobs = jobs
        self._shown = jobs.shown(convert.job, job_pb2.Job.ByteSize)

    async def CreateJob(self, request: job_pb2.CreateJobRequest, context: Context) -> job_pb2.Job:
        submission = convert.submission(request, tenant=caller().tenant)
        if request.validate_only:
            return convert.previewed_job(await self._jobs.preview(submission))
        return convert.job(await self._jobs.submit(submission))

    async def GetJob(self, request: job_pb2.GetJobRequest, context: Context) -> job_pb2.Job:
        return await self._shown.get(request.name, tenant=caller().tenant)

    async def ListJobs(self, request: job_pb2.ListJobsRequest, context: Context) -> job_pb2.ListJobsResponse:
        asked = page_request(request.page_size, request.page_token, filter=request.filter, order_by=request.order_by)
        page, token = await self._jobs.page(asked, tenant=caller().tenant)
        return job_pb2.ListJobsResponse(jobs=map(convert.job, page), next_page_token=token)

    async def UpdateJob(self, request: job_pb2.UpdateJobRequest, context: Context) -> job_pb2.Job:
        change, job = convert.job_change(request), request.job
        return convert.job(await self._jobs.update(job.name, change, tenant=caller().tenant, etag=job.etag))

    async def DeleteJob(self, request: job_pb2.DeleteJobRequest, context: Context) -> empty_pb2.Empty:
        await self._jobs.delete(
            request.name, tenant=caller().tenant, etag=request.etag, allow_missing=request.allow_missing
        )
        return empty_pb2.Empty()

    async def CancelJob(self, request: job_pb2.CancelJobRequest, context: Context) -> job_pb2.Job:
        return convert.job(await self._jobs.cancel(request.name, tenant=caller().tenant, etag=request.etag))

    async def PauseJob(self, request: job_pb2.PauseJobRequest, context: Context) -> job_pb2.Job:
        return convert.job(await self._jobs.pause(request.name, tenant=caller().tenant, etag=request.etag))

    async def ResumeJob(self, request: job_pb2.ResumeJobRequest, context: Context) -> job_pb2.Job:
        return convert.job(await self._jobs.resume(request.name, tenant=caller().tenant, etag=request.etag))

    async def ScaleJob(self, request: job_pb2.ScaleJobRequest, context: Context) -> job_pb2.Job:
        job = await self._jobs.scale(
            request.name,
            min_workers=request.min_workers,
            max_workers=request.max_workers,
            tenant=caller().tenant,
            etag=request.etag,
        )
        return convert.job(job)

    async def WatchJob(self, request: job_pb2.WatchJobRequest, context: Context) -> AsyncIterator[job_pb2.Job]:
        async for job in self._shown.watch(request.name, tenant=caller().tenant):
            yield job

    async def StreamMetrics(
        self, request: job_pb2.StreamMetricsRequest, context: Context
    ) -> AsyncIterator[job_pb2.StreamMetricsResponse]:
        after = _from_zero("after_sequence", request.after_sequence)
        async for metrics in self._jobs.stream_metrics(request.name, after_step=after, tenant=caller().tenant):
            yield job_pb2.StreamMetricsResponse(metrics=map(convert.metric, metrics))

    async def ListMetrics(self, request: job_pb2.ListMetricsRequest, context: Context) -> job_pb2.ListMetricsResponse:
        limit = page_size(request.page_size, default=DEFAULT_METRICS, most=MAX_METRICS)
        after = _from_zero("after_sequence", request.after_sequence)
        metrics = await self._jobs.metrics(request.name, after_step=after, limit=limit, tenant=caller().tenant)
        return job_pb2.ListMetricsResponse(metrics=map(convert.metric, metrics))

    async def ListCheckpoints(
        self, request: job_pb2.ListCheckpointsRequest, context: Context
    ) -> job_pb2.ListCheckpointsResponse:
        asked = page_request(request.page_size, request.page_token)
        page, token = await self._jobs.checkpoints(request.name, asked, tenant=caller().tenant)
        return job_pb2.ListCheckpointsResponse(checkpoints=map(convert.checkpoint, page), next_page_token=token)

    async def ListReceipts(
        self, request: job_pb2.ListReceiptsRequest, context: Context
    ) -> job_pb2.ListReceiptsResponse:
        limit = page_size(request.page_size, default=DEFAULT_RECEIPTS, most=MAX_RECEIPTS)
        after = _from_zero("after_step", request.after_step)
        receipts = await self._jobs.receipts(request.name, after_step=after, limit=limit, tenant=caller().tenant)
        return job_pb2.ListReceiptsResponse(receipts=map(convert.receipt, receipts))

    # --- logs --------------------------------------------------------------------------------------------------

    async def StreamLogs(
        self, request: job_pb2.StreamLogsRequest, context: Context
    ) -> AsyncIterator[job_pb2.StreamLogsResponse]:
        after = _from_zero("after_sequence", request.after_sequence)
        pages = self._jobs.following.stream_logs(
            request.name,
            tenant=caller().tenant,
            after_sequence=after,
            min_severity=convert.severity_number(request.min_severity),
            source=request.source,
        )
        async for page in pages:
            yield job_pb2.StreamLogsResponse(entries=map(convert.log_entry, page))

    async def ListLogs(self, request: job_pb2.ListLogsRequest, context: Context) -> job_pb2.ListLogsResponse:
        limit = page_size(request.page_size, default=DEFAULT_LOGS, most=MAX_LOGS)
        page = await self._jobs.following.logs(
            request.name,
            tenant=caller().tenant,
            after_sequence=_from_zero("after_sequence", request.after_sequence),
            limit=limit,
            min_severity=convert.severity_number(request.min_severity),
            source=request.source,
        )
        return job_pb2.ListLogsResponse(entries=map(convert.log_entry, page))


def _from_zero(field: str, asked: int) -> int:
    if asked < 0:
        raise InvalidRequestError.of(field, f"is {asked}; use 0 for all, or that of the last one seen")
    return asked
