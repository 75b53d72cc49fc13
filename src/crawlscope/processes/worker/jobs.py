"""How work on a job begins, goes on beside other work, and is broken off."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Coroutine
from contextlib import asynccontextmanager
from datetime import timedelta

import structlog
from pgqueuer.errors import RetryRequested

from crawlscope.core.errors import CrawlscopeError

log = structlog.get_logger(__name__)


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
