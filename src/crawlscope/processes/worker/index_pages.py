"""Indexes the pages that wait in the queue."""

import asyncio
import faulthandler
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import TextIO

import structlog
from pgqueuer.errors import RetryRequested
from pgqueuer.models import Job

from crawlscope.core.errors import CrawlscopeError, DependencyError
from crawlscope.core.settings import Settings
from crawlscope.database.engine import Database
from crawlscope.database.queue import INDEX_PAGE
from crawlscope.pages.index_page import PageIndexer, PutBack
from crawlscope.pages.repository import worker_name
from crawlscope.processes.parts import worker_parts
from crawlscope.processes.worker.circuit import Circuit, Outages
from crawlscope.processes.worker.queue import (
    LOOK_AGAIN,
    WorkerQueue,
    beside,
    order_of,
    unless_stopping,
    work_on,
    worker_queue,
)


class Deadlines:
    """Ends the process when a page in hand is overdue, also while native code lets no Python run.

    What it was doing is added to `file` first, which stays open.
    """

    def __init__(self, seconds: float, file: TextIO) -> None:
        self._seconds = seconds
        self._file = file
        self._ends: list[float] = []

    @contextmanager
    def page(self) -> Iterator[None]:
        end = time.monotonic() + self._seconds
        self._ends.append(end)
        self._arm()
        try:
            yield
        finally:
            self._ends.remove(end)
            self._arm()

    def _arm(self) -> None:
        if not self._ends:
            faulthandler.cancel_dump_traceback_later()
            return
        left = max(min(self._ends) - time.monotonic(), 0.001)
        faulthandler.dump_traceback_later(left, exit=True, file=self._file)


@contextmanager
def deadlines(seconds: float, folder: Path) -> Iterator[Deadlines]:
    """`folder/stuck-pages.log` gets the tracebacks."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "stuck-pages.log").open("a") as file:
        yield Deadlines(seconds, file)


PAGES_AT_ONCE = 2
"""Per process: while one page is embedded, another is read or written."""
AFTER_UNKNOWN_ERROR = timedelta(seconds=60)
OVERDUE_SECONDS = 180.0
"""How long after its time a page may be in hand before the process ends: a slow database takes less."""

log = structlog.get_logger(__name__)


async def index_pages(
    settings: Settings, database: Database, outages: Outages, stopping: asyncio.Event
) -> None:
    # A thread per core in every worker: when few pages are left, one page has them all.
    threads = os.cpu_count() or 1
    async with (
        worker_parts(settings, database, threads) as parts,
        beside(parts.filling.fill_when_asked()),
        worker_queue(database, INDEX_PAGE, PAGES_AT_ONCE) as queue,
    ):
        circuit = Circuit(parts.indexing.probes, outages, queue.pause, queue.resume)
        indexer = PageIndexer(
            database,
            parts.indexing,
            worker_name(os.getpid()),
            settings.max_attempts,
            settings.page_timeout_seconds,
        )
        overdue_seconds = settings.page_timeout_seconds + OVERDUE_SECONDS
        with deadlines(overdue_seconds, settings.data_dir / "logs") as limits:

            @queue.entrypoint(INDEX_PAGE, on_failure="hold", accepts_context=False)
            async def index_page(job: Job) -> None:
                await unless_stopping(stopping, _index_page(job, indexer, queue, circuit, limits))

            async with circuit.watched():
                await work_on(queue, PAGES_AT_ONCE, stopping)


async def _index_page(
    job: Job, indexer: PageIndexer, queue: WorkerQueue, circuit: Circuit, limits: Deadlines
) -> None:
    """Raises `RetryRequested` for a page that waits again."""
    order = order_of(job)
    if order.get("alone"):
        await queue.empty_hands(keep=job.id)
    try:
        if job.attempts:  # what failed it may still be away: that costs no other try
            await circuit.probe()
        with limits.page():
            if order.get("gone"):
                await indexer.remove_gone(order["page_id"])
            else:
                await indexer.index(order["page_id"], order["revision"], job.id)
    except PutBack as again:
        if isinstance(again.error, CrawlscopeError):
            circuit.page_failed(order["page_id"])
        raise RetryRequested(timedelta(seconds=again.pause_seconds), str(again)) from None
    except DependencyError as error:
        circuit.page_failed(order["page_id"])
        raise RetryRequested(LOOK_AGAIN, str(error)) from None
    except Exception as error:
        log.exception("page_job_failed", job_id=job.id)
        raise RetryRequested(AFTER_UNKNOWN_ERROR, str(error)) from error
    circuit.page_passed()
