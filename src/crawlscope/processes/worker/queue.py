"""A worker's end of the queue: which jobs it takes, how many at once and when none, and how it stops."""

import asyncio
import json
import random
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Self

import asyncpg
from pgqueuer.core import buffers
from pgqueuer.core.buffers import JobStatusLogBuffer
from pgqueuer.errors import FailingListenerError, RetryRequested
from pgqueuer.executors import AbstractEntrypointExecutor
from pgqueuer.models import Context, Job
from pgqueuer.ports.repository import EntrypointExecutionParameter
from pgqueuer.qm import QueueManager
from pgqueuer.types import Channel, JobId, QueueEntrypoint

from crawlscope.core.errors import DatabaseUnavailable, DependencyError
from crawlscope.database.connections import WORKER_QUEUE
from crawlscope.database.engine import Database, connect
from crawlscope.database.queue import CHANNELS, QUEUE_SCHEMA, SelectiveDriver, queue_queries

Payload = dict[str, Any]
HEARTBEAT_TIMEOUT = timedelta(seconds=20)
"""A job whose worker was silent for so long goes to another one."""
MIN_POLL_INTERVAL = timedelta(seconds=1)
"""How soon a worker that missed news of a job finds it."""
IDLE_POLL_INTERVAL = timedelta(seconds=15)
_UNTIL_NEXT_JOB = f"""
    SELECT CAST(extract(epoch FROM least(
        (SELECT min(execute_after) FROM {QUEUE_SCHEMA}.pgqueuer WHERE entrypoint = $1 AND status = 'queued'),
        (
            SELECT min(heartbeat) + CAST($2 AS interval) FROM {QUEUE_SCHEMA}.pgqueuer
            WHERE entrypoint = $1 AND status = 'picked'
        )
    ) - now()) AS float8) AS seconds
"""  # noqa: S608 - of a constant
"""Until a job that waits is due, or one in progress goes to another worker unless its own is heard before."""
OUTAGE_ERRORS = (
    *(DependencyError, FailingListenerError, OSError),
    *(asyncpg.PostgresError, asyncpg.InterfaceError),
)
"""A worker waits until what raises these is available again."""


def payload_of(job: Job) -> Payload:
    payload: Payload = json.loads(job.payload or b"{}")
    return payload


class _StatusBuffer(JobStatusLogBuffer):
    """Wakes up when a job has ended: the library's own does so ten times a second."""

    _flushing: asyncio.TimerHandle | None = None

    async def __aenter__(self) -> Self:
        return self

    async def add(self, item: Any) -> None:
        await super().add(item)
        self._flush_soon()

    async def flush(self) -> None:
        await super().flush()
        self._flush_soon()

    def _flush_soon(self) -> None:
        if self._flushing is None and not self.events.empty():
            loop = asyncio.get_running_loop()
            self._flushing = loop.call_later(self.timeout.total_seconds(), self._flush_now)

    def _flush_now(self) -> None:
        self._flushing = None
        self.schedule_flush()


buffers.JobStatusLogBuffer = _StatusBuffer  # type: ignore[misc]  # there is no setting


@dataclass
class WorkerQueue(QueueManager):
    """Fetches jobs as soon as there is capacity for `min_batch` of them; none while it is paused, or while a
    job that must run alone is in progress. When it has fetched all that were there, it rests for about
    `rest_seconds`, so that many workers that hear of the same job do not all look for it again and again.

    It overrides four methods of pgqueuer's manager, which has no setting for these: `fetch_jobs` can be
    paused, `forget_job` notes when a job ends and asks when it is due again, `log_failure` leaves a job as it
    is while the database is unavailable, and `_effective_dequeue_timeout` needs one statement, not three.
    """

    job_type: str = field(init=False, default="")
    at_once: int = field(init=False, default=1)
    min_batch: int = field(init=False, default=1)
    rest_seconds: float = field(init=False, default=0.0)
    _rested_at: float = field(init=False, default=0.0)
    _has_news: bool = field(init=False, default=False)
    """Whether it was told of a job since it last looked for some."""
    _paused: bool = field(init=False, default=False)
    _alone: set[JobId] = field(init=False, default_factory=set)
    """Jobs of this worker that run, or wait to run, without others."""
    _deferred: set[JobId] = field(init=False, default_factory=set)
    """Jobs that did not succeed: most are due again after a delay."""
    _turn: asyncio.Lock = field(init=False, default_factory=asyncio.Lock)
    _changed: asyncio.Event = field(init=False, default_factory=asyncio.Event)

    @property
    def capacity(self) -> int:
        """How many jobs it can take now."""
        return 0 if self._paused or self._alone else self.at_once - len(self.job_context)

    def wants_news(self) -> bool:
        """Whether to tell it of jobs: once until it looks for them."""
        if self._has_news or self.capacity <= 0:
            return False
        self._has_news = True
        return True

    async def news_of(self, channel: str) -> asyncio.Event:
        """An event that each notification of the channel sets."""
        return await self._driver.listen(channel)

    def pause(self) -> None:
        self._paused = True

    def resume(self) -> None:
        self._paused = False
        self._changed.set()
        self._poll_now()

    @asynccontextmanager
    async def alone(self) -> AsyncIterator[None]:
        """No other job is in progress in the block; those that must be alone take turns."""
        async with self._turn:
            await self._until(lambda: self.job_context.keys() <= self._alone)
            yield

    async def work(self, handle: Callable[[Job, Payload], Awaitable[None]], stopping: asyncio.Event) -> None:
        """Hands over jobs until `stopping` is set: those in progress are then cancelled and queued again."""

        @self.entrypoint(self.job_type, on_failure="hold", accepts_context=False)
        async def until_stopping(job: Job) -> None:
            task = asyncio.ensure_future(handle(job, payload_of(job)))
            stop = asyncio.ensure_future(stopping.wait())
            try:
                await asyncio.wait({task, stop}, return_when=asyncio.FIRST_COMPLETED)
                if not task.done():
                    task.cancel()
                    await asyncio.wait({task})
                    raise RetryRequested(timedelta(0), "the worker was stopped")
                task.result()
            finally:
                stop.cancel()
                task.cancel()
                if task.cancelled() or not task.done() or task.exception():
                    self._deferred.add(job.id)

        async def shut_down() -> None:
            await stopping.wait()
            self.shutdown.set()
            self._changed.set()

        shutting_down = asyncio.create_task(shut_down())
        try:
            await self.run(
                batch_size=self.at_once,
                dequeue_timeout=IDLE_POLL_INTERVAL,
                heartbeat_timeout=HEARTBEAT_TIMEOUT,
                shutdown_on_listener_failure=True,
            )
        finally:
            shutting_down.cancel()
        if not stopping.is_set():
            raise DatabaseUnavailable("the queue's connection was lost")

    async def fetch_jobs(
        self, batch_size: int, global_concurrency_limit: int | None, heartbeat_timeout: timedelta
    ) -> AsyncGenerator[Job, None]:
        """All jobs of a batch start at once: one that waited here would have no heartbeat."""
        while True:
            with suppress(TimeoutError):  # the pages in progress may take minutes
                async with asyncio.timeout(MIN_POLL_INTERVAL.total_seconds()):
                    await self._until(lambda: self.capacity >= self.min_batch or self.shutdown.is_set())
            await self._until(lambda: self.capacity > 0 or self.shutdown.is_set())
            with suppress(TimeoutError):
                async with asyncio.timeout(self._rested_at - time.monotonic()):
                    await self.shutdown.wait()
            if self.shutdown.is_set():
                return
            wanted = min(self.capacity, batch_size)
            if wanted <= 0:  # paused while it rested
                continue
            self._has_news = False
            jobs = await self.queries.dequeue(
                batch_size=wanted,
                entrypoints={QueueEntrypoint(self.job_type): EntrypointExecutionParameter(0)},
                queue_manager_id=self.queue_manager_id,
                global_concurrency_limit=global_concurrency_limit,
                heartbeat_timeout=heartbeat_timeout,
            )
            self._alone |= {job.id for job in jobs if payload_of(job).get("alone")}
            for job in jobs:
                yield job
            if len(jobs) < wanted:
                self._rested_at = time.monotonic() + self.rest_seconds * random.uniform(0.5, 1.5)  # noqa: S311
                if self.capacity > 0 and not self._has_news:  # the manager drops the news when it takes a job
                    return

    async def _effective_dequeue_timeout(self, dequeue_timeout: timedelta) -> timedelta:
        """Until the next job is due: `dequeue_timeout` at most, and a second at least."""
        found = await self._driver.fetch(_UNTIL_NEXT_JOB, self.job_type, HEARTBEAT_TIMEOUT)
        seconds = found[0]["seconds"]
        if seconds is None:
            return dequeue_timeout
        assert isinstance(seconds, float)
        return min(dequeue_timeout, max(MIN_POLL_INTERVAL, timedelta(seconds=seconds)))

    def forget_job(self, job_id: JobId, context: Context, task: asyncio.Task[None]) -> None:
        super().forget_job(job_id, context, task)
        if job_id not in self.job_context:
            self._alone.discard(job_id)
        self._changed.set()
        if job_id in self._deferred:  # of which no notification comes
            self._deferred.discard(job_id)
            self._poll_now()

    async def log_failure(
        self,
        job: Job,
        executor: AbstractEntrypointExecutor,
        exc: Exception,
        jbuff: JobStatusLogBuffer,
    ) -> None:
        """A job that could not be put back stays as it is: without heartbeats it goes to another worker."""
        if not isinstance(exc, OUTAGE_ERRORS):
            await super().log_failure(job, executor, exc, jbuff)

    @property
    def _driver(self) -> SelectiveDriver:
        assert isinstance(self.queries.driver, SelectiveDriver)
        return self.queries.driver

    def _poll_now(self) -> None:
        self._driver.poll_now(self.channel)

    async def _until(self, condition: Callable[[], bool]) -> None:
        while not condition():
            self._changed.clear()
            await self._changed.wait()


@asynccontextmanager
async def worker_queue(
    database: Database, job_type: str, at_once: int, min_batch: int = 1, rest_seconds: float = 0.0
) -> AsyncIterator[WorkerQueue]:
    arguments = database.driver_arguments("crawlscope-queue")
    async with asyncpg.create_pool(
        **arguments, min_size=WORKER_QUEUE, max_size=WORKER_QUEUE, connect=connect, reset=_without_reset
    ) as pool:
        driver = SelectiveDriver(pool)
        queue = WorkerQueue(queue_queries(driver, job_type), Channel(CHANNELS[job_type]))
        driver.wants_news = queue.wants_news
        queue.job_type, queue.at_once, queue.min_batch = job_type, at_once, min_batch
        queue.rest_seconds = rest_seconds
        queue.min_dequeue_poll_interval = MIN_POLL_INTERVAL
        # Listens already here: the manager tests at its start whether notifications arrive.
        async with driver:  # closes the listening connection also where the manager never ran
            await driver.listen(queue.channel)
            yield queue


async def _without_reset(connection: object) -> None:
    """The queue's statements need no reset of the connection, which would double the round trips."""
