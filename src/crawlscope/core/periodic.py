"""Periodic work, for as long as the process lives."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager, suppress
from typing import Any, NoReturn, TypeVar

import structlog

from crawlscope.core.errors import CrawlscopeError

T = TypeVar("T")

log = structlog.get_logger(__name__)


async def run_periodically(
    work: Callable[[], Awaitable[T]],
    *,
    interval_seconds: float | Callable[[T], float],
    retry_seconds: float | Callable[[int], float],
    failure_event: str,
    news: asyncio.Event | None = None,
) -> NoReturn:
    """Calls `work` at once and then again and again, until this is cancelled.

    `interval_seconds` pass between two calls, fewer if `news` is set meanwhile; a function gets what the call
    returned. After an error `retry_seconds` pass; a function gets the number of errors in a row.
    `failure_event` is logged with the error as `reason` when an error differs from the one before: a warning
    for a `CrawlscopeError`, else an error with its traceback.
    """
    failures, logged = 0, ""
    while True:
        try:
            outcome = await work()
        except Exception as error:
            failures += 1
            reason = str(error) or type(error).__name__
            if reason != logged and isinstance(error, CrawlscopeError):
                log.warning(failure_event, reason=reason)
            elif reason != logged:
                log.exception(failure_event, reason=reason)
            logged = reason
            await asyncio.sleep(retry_seconds(failures) if callable(retry_seconds) else retry_seconds)
        else:
            failures, logged = 0, ""
            seconds = interval_seconds(outcome) if callable(interval_seconds) else interval_seconds
            await (_news_within(seconds, news) if news else asyncio.sleep(seconds))


async def _news_within(seconds: float, news: asyncio.Event) -> None:
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await news.wait()
            news.clear()


@asynccontextmanager
async def in_background(*works: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    """Runs `works` while the block runs and cancels them at its end; the error of one ends only that one."""
    tasks = [asyncio.create_task(work, name=getattr(work, "__name__", None)) for work in works]
    for task in tasks:
        task.add_done_callback(_log_error)
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _log_error(task: asyncio.Task[None]) -> None:
    error = None if task.cancelled() else task.exception()
    if isinstance(error, CrawlscopeError):
        log.error("background_work_ended", work=task.get_name(), reason=str(error))
    elif error:
        log.error("background_work_ended", work=task.get_name(), exc_info=error)
