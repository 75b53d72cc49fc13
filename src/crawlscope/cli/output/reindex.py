"""Follows a reindex until the new index serves."""

import asyncio
from collections.abc import Awaitable, Callable

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from crawlscope.api.client import ServiceClient
from crawlscope.api.rendering.words import count
from crawlscope.core.errors import CrawlscopeError, ServiceUnavailable
from crawlscope.insights.schemas import IndexReport, ReindexResponse

POLL_INTERVAL_SECONDS = 0.3


async def follow_reindex(
    client: ServiceClient,
    begun: ReindexResponse,
    recover: Callable[[], Awaitable[None]],
    notice: Callable[[str], None],
) -> IndexReport:
    """Shows the progress on stderr, and returns the index that serves at the end.

    Calls `recover` while the service is unavailable; it raises to give up. Calls `notice` with each problem
    that delays the reindex. Raises `CrawlscopeError` if another reindex replaces this one.
    """
    awaited = begun.filling.name if begun.filling else None
    noticed = None
    found = begun
    console = Console(stderr=True, highlight=False)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("reindexing", total=None)
        while found.filling and found.filling.name == awaited:
            done = found.filling.documents + found.filling.failed
            bar.update(task, completed=done, total=found.serving.documents if found.serving else None)
            if found.filling.problem != noticed and (noticed := found.filling.problem):
                notice(noticed)
            await asyncio.sleep(POLL_INTERVAL_SECONDS)
            try:
                found = await client.reindex()
            except ServiceUnavailable:
                await recover()
    if found.serving is None or awaited not in (None, found.serving.name):
        raise CrawlscopeError("another reindex replaced this one: see GET /api/reindex")
    return found.serving


def reindexed_text(index: IndexReport) -> str:
    text = f"{count(index.documents, 'document')}, {count(index.chunks, 'chunk')} with {index.embedder}"
    return f"{text}; {count(index.failed, 'document')} left out" if index.failed else text
