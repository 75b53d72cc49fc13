"""Indexes the pages that wait in the queue."""

import asyncio
import os
from datetime import timedelta

import structlog
from pgqueuer.errors import RetryRequested
from pgqueuer.models import Job

from crawlscope.core.errors import CrawlscopeError, DependencyError
from crawlscope.core.settings import Settings
from crawlscope.database.engine import Database
from crawlscope.database.queue import INDEX_PAGE
from crawlscope.pages.attempts import worker_name
from crawlscope.pages.index_page import PageIndexer, PutBack
from crawlscope.pages.outages import Outages
from crawlscope.processes.parts import worker_parts
from crawlscope.processes.worker.circuit import Circuit
from crawlscope.processes.worker.jobs import beside, unless_stopping
from crawlscope.processes.worker.limits import Deadlines, deadlines
from crawlscope.processes.worker.queue import LOOK_AGAIN, WorkerQueue, order_of, work_on, worker_queue

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
