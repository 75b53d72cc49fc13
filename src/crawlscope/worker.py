"""A worker process: takes jobs from the queue, indexes pages and runs the built-in crawler."""

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Coroutine
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Literal

import structlog
from pgqueuer.errors import RetryRequested
from pgqueuer.models import Job

from crawlscope.circuit import Circuit
from crawlscope.crawls.index_page import PageIndexer, PutBack
from crawlscope.crawls.outages import Outages
from crawlscope.crawls.pages import worker_name
from crawlscope.crawls.rescrapes import rescrape_changes
from crawlscope.crawls.sweep import reconcile_quiet_crawls
from crawlscope.database import schema
from crawlscope.database.connect import connected_database
from crawlscope.database.engine import Database
from crawlscope.database.queue import CRAWL_SITE, INDEX_PAGE
from crawlscope.errors import CrawlscopeError, DependencyError
from crawlscope.limits import Deadlines, deadlines, watch_memory
from crawlscope.notify.telling import tell_of_crawls
from crawlscope.parts import worker_parts
from crawlscope.receive.retention import drop_old_bodies
from crawlscope.settings import Settings
from crawlscope.timing import standalone
from crawlscope.timing.buffer import MeasurementBuffer
from crawlscope.worker_queue import AWAY, LOOK_AGAIN, WorkerQueue, order_of, work_on, worker_queue

Kind = Literal["index", "crawl"]

PAGES_AT_ONCE = 2
"""Per process: while one page is embedded, another is read or written."""
CRAWLS_AT_ONCE = 4
LONGEST_DELAY_SECONDS = 60
OVERDUE_SECONDS = 180.0
"""How long after its time a page may be in hand before the process ends: a slow database takes less."""
REOPEN_SECONDS = 2.0

log = structlog.get_logger(__name__)


async def run_worker(settings: Settings, kinds: set[Kind], stopping: asyncio.Event) -> None:
    """Works until `stopping` is set; a page in progress then goes back to the queue."""
    if "index" in kinds:
        watch_memory(settings.worker_memory_bytes)
    async with connected_database(settings, pool_size=8) as database:
        await schema.require_current(database)
        buffer = MeasurementBuffer(database)
        buffer.start()
        with standalone.use(buffer):
            async with _beside(*_upkeep(settings, database) if "crawl" in kinds else ()):
                await asyncio.gather(*[_run_kind(kind, settings, database, stopping) for kind in kinds])
        await buffer.stop()


@asynccontextmanager
async def _beside(*works: Coroutine[None, None, None]) -> AsyncIterator[None]:
    """Runs them while the block runs."""
    tasks = [asyncio.create_task(work) for work in works]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _upkeep(settings: Settings, database: Database) -> list[Coroutine[None, None, None]]:
    """What runs for all crawls, beside the built-in crawler."""
    return [
        reconcile_quiet_crawls(settings, database),
        drop_old_bodies(database, settings.keep_deliveries_days),
        rescrape_changes(settings, database),
        tell_of_crawls(settings, database),
    ]


async def _run_kind(kind: Kind, settings: Settings, database: Database, stopping: asyncio.Event) -> None:
    """Starts again when a part that the jobs need went away, until it is back."""
    run = _index_pages if kind == "index" else _crawl_sites
    outages = Outages(database, worker_name(os.getpid()))
    while not stopping.is_set():
        try:
            await run(settings, database, outages, stopping)
        except AWAY as error:
            reason = str(error) or type(error).__name__
            log.warning("worker_waits", kind=kind, reason=reason)
            if kind == "index" and isinstance(error, DependencyError):
                await outages.note(error.part, reason)
            await _wait(stopping, REOPEN_SECONDS)
    await outages.end_all()


async def _index_pages(
    settings: Settings, database: Database, outages: Outages, stopping: asyncio.Event
) -> None:
    # A thread per core in every worker: when few pages are left, one page has them all.
    threads = os.cpu_count() or 1
    async with (
        worker_parts(settings, database, threads) as parts,
        _beside(parts.filling.fill_when_asked()),
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
                await _unless_stopping(stopping, _index_page(job, indexer, queue, circuit, limits))

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
        raise RetryRequested(timedelta(seconds=LONGEST_DELAY_SECONDS), str(error)) from error
    circuit.page_passed()


async def _crawl_sites(
    settings: Settings, database: Database, _outages: Outages, stopping: asyncio.Event
) -> None:
    # Here, because the crawler's libraries take seconds to import and indexing workers need none of them.
    from crawlscope.crawls.site_crawl import SiteCrawl  # noqa: PLC0415

    crawler = SiteCrawl(settings, database)
    async with worker_queue(database, CRAWL_SITE, CRAWLS_AT_ONCE) as queue:

        @queue.entrypoint(CRAWL_SITE, on_failure="hold", accepts_context=False)
        async def crawl_site(job: Job) -> None:
            crawl_id = order_of(job)["crawl_id"]
            try:
                await _unless_stopping(stopping, crawler.run(crawl_id))
            except DependencyError as error:
                raise _later(job, str(error)) from None

        await work_on(queue, CRAWLS_AT_ONCE, stopping)


async def _unless_stopping(stopping: asyncio.Event, work: Awaitable[None]) -> None:
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


def _later(job: Job, reason: str) -> RetryRequested:
    seconds = min(2.0**job.attempts, LONGEST_DELAY_SECONDS)
    return RetryRequested(timedelta(seconds=seconds), reason)


async def _wait(stopping: asyncio.Event, seconds: float) -> None:
    try:
        await asyncio.wait_for(stopping.wait(), seconds)
    except TimeoutError:
        return
