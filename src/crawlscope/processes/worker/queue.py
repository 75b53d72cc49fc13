"""A worker's end of the queue: which jobs it takes, how many at once, and when none."""

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import asyncpg
import structlog
from pgqueuer.core.buffers import JobStatusLogBuffer
from pgqueuer.errors import FailingListenerError, RetryRequested
from pgqueuer.executors import AbstractEntrypointExecutor
from pgqueuer.models import Context, Job
from pgqueuer.qm import QueueManager
from pgqueuer.types import Channel, JobId

from crawlscope.core.errors import CrawlscopeError, DatabaseUnavailable, DependencyError
from crawlscope.database.connections import WORKER_QUEUE
from crawlscope.database.engine import Database, connect
from crawlscope.database.queue import CHANNELS, AttentiveDriver, queue_queries

HEARTBEAT_TIMEOUT = timedelta(seconds=20)
"""A job whose worker was silent for so long goes to another one."""
LOOK_AGAIN = timedelta(seconds=1)
"""How soon a worker that missed news of a job finds it."""
IDLE_POLL = timedelta(seconds=5)
AWAY = (DependencyError, FailingListenerError, OSError, asyncpg.PostgresError, asyncpg.InterfaceError)
"""What a worker waits out."""

log = structlog.get_logger(__name__)


def order_of(job: Job) -> dict[str, Any]:
    order: dict[str, Any] = json.loads(job.payload or b"{}")
    return order


@dataclass
class WorkerQueue(QueueManager):
    """Asks for a job as soon as one in hand is done with; for none while it is paused, or has one in hand
    that is to be worked on alone."""

    _paused: bool = field(init=False, default=False)
    _alone: JobId | None = field(init=False, default=None)
    _changed: asyncio.Event = field(init=False, default_factory=asyncio.Event)

    @property
    def takes_jobs(self) -> bool:
        return not self._paused and self._alone not in self.job_context

    def pause(self) -> None:
        self._paused = True

    def resume(self) -> None:
        self._paused = False
        self._changed.set()

    def stop(self) -> None:
        self.shutdown.set()
        self._changed.set()

    async def empty_hands(self, keep: JobId) -> None:
        """Returns when no other job is in hand."""
        await self._until(lambda: self.job_context.keys() <= {keep})

    async def fetch_jobs(
        self, batch_size: int, global_concurrency_limit: int | None, heartbeat_timeout: timedelta
    ) -> AsyncGenerator[Job, None]:
        fetched = super().fetch_jobs(batch_size, global_concurrency_limit, heartbeat_timeout)
        async with aclosing(fetched) as jobs:
            await self._until(lambda: self.takes_jobs or self.shutdown.is_set())
            async for job in jobs:
                if order_of(job).get("alone"):
                    self._alone = job.id
                yield job
                await self._until(lambda: self.takes_jobs or self.shutdown.is_set())

    def forget_job(self, job_id: JobId, context: Context, task: asyncio.Task[None]) -> None:
        super().forget_job(job_id, context, task)
        self._changed.set()
        driver = self.queries.driver
        assert isinstance(driver, AttentiveDriver)
        driver.look_again(self.channel)

    async def log_failure(
        self,
        job: Job,
        executor: AbstractEntrypointExecutor,
        exc: Exception,
        jbuff: JobStatusLogBuffer,
    ) -> None:
        """A job that could not be put back is left as it is: without heartbeats it goes to another worker."""
        if not isinstance(exc, AWAY):
            await super().log_failure(job, executor, exc, jbuff)

    async def _until(self, condition: Callable[[], bool]) -> None:
        while not condition():
            self._changed.clear()
            await self._changed.wait()


@asynccontextmanager
async def worker_queue(database: Database, entrypoint: str, at_once: int) -> AsyncIterator[WorkerQueue]:
    arguments = database.driver_arguments("crawlscope-queue")
    async with asyncpg.create_pool(
        **arguments, min_size=WORKER_QUEUE, max_size=WORKER_QUEUE, connect=connect, reset=_leave_as_it_is
    ) as pool:
        driver = AttentiveDriver(pool, lambda: queue.takes_jobs and len(queue.job_context) < at_once)
        queue = WorkerQueue(queue_queries(driver, entrypoint), Channel(CHANNELS[entrypoint]))
        queue.min_dequeue_poll_interval = LOOK_AGAIN
        # The manager checks at once that it hears itself; it would not, were it to begin to listen then.
        async with driver:  # else the pool would wait for the listening connection of a queue that never ran
            await driver.add_listener(queue.channel, lambda _: None)
            yield queue


async def work_on(queue: WorkerQueue, at_once: int, stopping: asyncio.Event) -> None:
    """Returns when `stopping` is set and the jobs in hand are done with."""
    stop = asyncio.create_task(_stop_with(queue, stopping))
    try:
        await queue.run(
            batch_size=1,
            max_concurrent_tasks=at_once,
            dequeue_timeout=IDLE_POLL,
            heartbeat_timeout=HEARTBEAT_TIMEOUT,
            shutdown_on_listener_failure=True,
        )
    finally:
        stop.cancel()
    if not stopping.is_set():
        raise DatabaseUnavailable("the queue's connection was lost")


async def _stop_with(queue: WorkerQueue, stopping: asyncio.Event) -> None:
    await stopping.wait()
    queue.stop()


async def _leave_as_it_is(connection: object) -> None:
    """The queue's statements leave nothing behind; resetting would double the trips to the server."""


@asynccontextmanager
async def beside(*works: Coroutine[None, None, None]) -> AsyncIterator[None]:
    """Runs them while the block runs. One that fails is not begun again: that is its own affair."""
    tasks = [asyncio.create_task(work, name=getattr(work, "__name__", None)) for work in works]
    for task in tasks:
        task.add_done_callback(_tell_of_failure)
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def unless_stopping(stopping: asyncio.Event, work: Awaitable[None]) -> None:
    """Runs `work`; when the process is to stop, breaks it off and asks for it to be done again."""
    task, stop = asyncio.ensure_future(work), asyncio.ensure_future(stopping.wait())
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


def _tell_of_failure(task: asyncio.Task[None]) -> None:
    error = None if task.cancelled() else task.exception()
    if isinstance(error, CrawlscopeError):
        log.error("work_ended", work=task.get_name(), reason=str(error))
    elif error:
        log.error("work_ended", work=task.get_name(), exc_info=error)
