"""What each operation does: the core's one door for acts, between the shapes of requests and replies."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from importlib.metadata import version
from uuid import UUID

from ...core import operate
from ...core.errors import JobUnsuccessful, NotFound, ResultTimeout, StateConflict
from ...core.job import JobState
from . import once
from .operation import ApiContext, NoBody
from .parameters import (
    DeadLetterFilter,
    DeliveryFilter,
    JobFilter,
    JobResult,
    Keyed,
    NoParams,
    OneBridge,
    OneDeadLetter,
    OneJob,
    OneQueue,
    OneSink,
)
from .problems import Refused, problem_of
from .shapes import (
    AttemptReply,
    BridgeMoved,
    BridgeReply,
    BridgeState,
    DeadLetterDetail,
    DeadLetterReply,
    DeliveryReply,
    EnqueuedJobs,
    EnqueuedReply,
    JobReply,
    JobRequest,
    JobsRequest,
    OffsetReply,
    Page,
    Place,
    QueuePaused,
    QueueReply,
    Reason,
    Replayed,
    ResultReply,
    Since,
    SinkReplayed,
    SinkReply,
    SinkState,
    Version,
    WorkerReply,
)

LONGEST_WAIT = timedelta(seconds=60)
FINISHED_ALREADY = timedelta(seconds=10)

# --- jobs ----------------------------------------------------------------------------------------


async def enqueue_job(context: ApiContext, params: Keyed, body: JobRequest) -> EnqueuedReply:
    replies = await once.enqueue(context.queue, [body], params.idempotency_key)
    return replies[0]


async def enqueue_jobs(context: ApiContext, params: Keyed, body: JobsRequest) -> EnqueuedJobs:
    return EnqueuedJobs(items=await once.enqueue(context.queue, body.jobs, params.idempotency_key))


async def list_jobs(context: ApiContext, params: JobFilter, _: NoBody) -> Page[JobReply]:
    jobs = await context.queue.jobs(
        queue=params.queue,
        state=params.state,
        correlation_id=params.correlation_id,
        before=params.cursor,
        limit=params.limit,
    )
    items = [JobReply.model_validate(job) for job in jobs]
    return Page(items=items, next=_next(items, params.limit))


async def get_job(context: ApiContext, params: OneJob, _: NoBody) -> JobReply:
    return JobReply.model_validate(await context.queue.get(params.id))


async def cancel_job(context: ApiContext, params: OneJob, body: Reason) -> JobReply:
    try:
        await context.queue.cancel(params.id, body.reason or "cancelled by an operator")
    except StateConflict as conflict:
        raise await _refused(context, params.id, conflict) from conflict
    return await get_job(context, params, NoBody())


async def retry_job(context: ApiContext, params: OneJob, _: NoBody) -> JobReply:
    try:
        await context.queue.retry(params.id)
    except StateConflict as conflict:
        raise await _refused(context, params.id, conflict) from conflict
    return await get_job(context, params, NoBody())


async def _refused(context: ApiContext, job_id: UUID, conflict: StateConflict) -> Refused:
    """The conflict with the state that the job is in now."""
    return Refused(replace(problem_of(conflict), state=(await context.queue.get(job_id)).state))


async def job_result(context: ApiContext, params: JobResult, _: NoBody) -> ResultReply:
    job = await context.queue.get(params.id)
    if not job.state.final and not params.wait:
        return ResultReply(id=job.id, state=job.state)
    wait = FINISHED_ALREADY if job.state.final or not params.wait else min(params.wait, LONGEST_WAIT)
    try:
        result = await context.queue.result(params.id, timeout=wait)
    except ResultTimeout:
        return ResultReply(id=job.id, state=(await context.queue.get(job.id)).state)
    except JobUnsuccessful as end:
        return ResultReply(id=job.id, state=JobState(end.state), error=end.error)
    return ResultReply(id=job.id, state=JobState.COMPLETED, result=result)


async def job_attempts(context: ApiContext, params: OneJob, _: NoBody) -> Page[AttemptReply]:
    await context.queue.get(params.id)
    attempts = await operate.attempts(context.database, params.id)
    return Page(items=[AttemptReply.model_validate(attempt) for attempt in attempts])


# --- queues --------------------------------------------------------------------------------------


async def list_queues(context: ApiContext, _: NoParams, __: NoBody) -> Page[QueueReply]:
    return Page(items=[QueueReply.model_validate(stats) for stats in await context.queue.stats()])


async def pause_queue(context: ApiContext, params: OneQueue, body: Reason) -> QueuePaused:
    await context.queue.pause(params.queue, body.reason)
    return QueuePaused(queue=params.queue, paused=True)


async def resume_queue(context: ApiContext, params: OneQueue, _: NoBody) -> QueuePaused:
    await context.queue.resume(params.queue)
    return QueuePaused(queue=params.queue, paused=False)


# --- bridges -------------------------------------------------------------------------------------


async def list_bridges(context: ApiContext, _: NoParams, __: NoBody) -> Page[BridgeReply]:
    return Page(items=[BridgeReply.model_validate(b) for b in await operate.bridges(context.database)])


async def pause_bridge(context: ApiContext, params: OneBridge, body: Reason) -> BridgeState:
    await operate.pause_bridge(context.database, params.bridge, body.reason)
    return BridgeState(name=params.bridge, state="paused")


async def resume_bridge(context: ApiContext, params: OneBridge, _: NoBody) -> BridgeState:
    await operate.resume_bridge(context.database, params.bridge)
    return BridgeState(name=params.bridge, state="active")


async def bridge_offsets(context: ApiContext, params: OneBridge, _: NoBody) -> Page[OffsetReply]:
    offsets = await operate.bridge_offsets(context.database, params.bridge)
    return Page(items=[OffsetReply.model_validate(offset) for offset in offsets])


async def seek_bridge(context: ApiContext, params: OneBridge, body: Place) -> BridgeMoved:
    before = await operate.seek_bridge(context.database, params.bridge, body.partition, body.offset)
    return BridgeMoved(name=params.bridge, partition=body.partition, next_offset=body.offset, before=before)


# --- dead letters --------------------------------------------------------------------------------


async def list_dead_letters(
    context: ApiContext, params: DeadLetterFilter, _: NoBody
) -> Page[DeadLetterReply]:
    letters = await operate.dead_letters(
        context.database,
        bridge=params.bridge,
        queue=params.queue,
        reason=params.reason,
        before=params.cursor,
        limit=params.limit,
        closed=params.closed,
    )
    items = [DeadLetterReply.model_validate(letter) for letter in letters]
    return Page(items=items, next=_next(items, params.limit))


async def get_dead_letter(context: ApiContext, params: OneDeadLetter, _: NoBody) -> DeadLetterDetail:
    return DeadLetterDetail.of(await operate.dead_letter(context.database, params.id))


async def replay_dead_letter(context: ApiContext, params: OneDeadLetter, _: NoBody) -> Replayed:
    job_id = await operate.replay(context.database, params.id, context.replayers)
    return Replayed(id=params.id, job_id=job_id)


async def discard_dead_letter(context: ApiContext, params: OneDeadLetter, _: NoBody) -> DeadLetterDetail:
    await operate.discard(context.database, params.id)
    return await get_dead_letter(context, params, NoBody())


# --- workers and sinks ---------------------------------------------------------------------------


async def list_workers(context: ApiContext, _: NoParams, __: NoBody) -> Page[WorkerReply]:
    return Page(items=[WorkerReply.model_validate(w) for w in await operate.workers(context.database)])


async def list_sinks(context: ApiContext, _: NoParams, __: NoBody) -> Page[SinkReply]:
    return Page(items=[SinkReply.model_validate(sink) for sink in await operate.sinks(context.database)])


async def pause_sink(context: ApiContext, params: OneSink, body: Reason) -> SinkState:
    await operate.pause_sink(context.database, params.sink, body.reason)
    return SinkState(name=params.sink, state="paused")


async def resume_sink(context: ApiContext, params: OneSink, _: NoBody) -> SinkState:
    await operate.resume_sink(context.database, params.sink)
    return SinkState(name=params.sink, state="active")


async def replay_sink(context: ApiContext, params: OneSink, body: Since) -> SinkReplayed:
    subscription = context.subscriptions.get(params.sink)
    if subscription is None:
        raise NotFound(f"no sink {params.sink!r} is configured in this gateway")
    delivered = await operate.replay_sink_since(context.database, subscription, body.since)
    return SinkReplayed(name=params.sink, deliveries=delivered)


async def sink_deliveries(context: ApiContext, params: DeliveryFilter, _: NoBody) -> Page[DeliveryReply]:
    if params.sink not in {sink.name for sink in await operate.sinks(context.database)}:
        raise NotFound(f"no sink {params.sink!r}")
    log = await operate.deliveries(context.database, params.sink, failed=params.failed, limit=params.limit)
    return Page(items=[DeliveryReply.model_validate(delivery) for delivery in log])


async def get_version(_: ApiContext, __: NoParams, ___: NoBody) -> Version:
    return Version(version=version("hammerwork"))


def _next(items: Sequence[JobReply | DeadLetterReply], limit: int) -> UUID | None:
    return items[-1].id if len(items) == limit else None
