"""Follows the filling of a new index until it serves."""

import asyncio
from collections.abc import Awaitable, Callable

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from crawlscope.api.client import ServiceClient
from crawlscope.api.rendering.words import count
from crawlscope.core.errors import CrawlscopeError, ServiceUnavailable
from crawlscope.insights.responses import IndexReport, ReindexResponse

POLL_SECONDS = 0.3


async def follow_reindex(
    client: ServiceClient,
    begun: ReindexResponse,
    console: Console,
    recover: Callable[[], Awaitable[None]],
    notice: Callable[[str], None],
) -> IndexReport:
    """Returns what serves then. `recover` is called while the service is away, and raises to give up.

    `notice` is told what the filling waits for. Raises `CrawlscopeError` where something else took its place.
    """
    awaited = begun.filling.name if begun.filling else None
    told = None
    found = begun
    with _bar(console) as bar:
        task = bar.add_task("reindexing", total=None)
        while found.filling and found.filling.name == awaited:
            done = found.filling.documents + found.filling.failed
            bar.update(task, completed=done, total=found.serving.documents if found.serving else None)
            if found.filling.problem != told and (told := found.filling.problem):
                notice(told)
            await asyncio.sleep(POLL_SECONDS)
            try:
                found = await client.reindex()
            except ServiceUnavailable:
                await recover()
    if found.serving is None or awaited not in (None, found.serving.name):
        raise CrawlscopeError("another reindex took the place of this one: see GET /api/reindex")
    return found.serving


def reindexed_words(index: IndexReport) -> str:
    words = f"{count(index.documents, 'document')}, {count(index.chunks, 'chunk')} with {index.embedder}"
    return f"{words}; {count(index.failed, 'document')} left out" if index.failed else words


def _bar(console: Console) -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    return Progress(*columns, console=console, transient=True, disable=not console.is_terminal)
