"""Indexes the pages that wait in the queue."""

import asyncio
import faulthandler
import math
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from datetime import timedelta
from pathlib import Path
from typing import TextIO

import structlog
from pgqueuer.errors import RetryRequested
from pgqueuer.models import Job

from crawlscope.core.errors import CrawlscopeError, DependencyError
from crawlscope.core.periodic import in_background
from crawlscope.core.settings import Settings
from crawlscope.database.engine import Database
from crawlscope.database.queue import INDEX_PAGE, REINDEXING
from crawlscope.pages.attempts import worker_name
from crawlscope.pages.index_page import PageIndexer, PutBack
from crawlscope.pages.retry import DEPENDENCY_RETRY_SECONDS, UNKNOWN_ERROR_RETRY_SECONDS
from crawlscope.processes.parts import worker_parts
from crawlscope.processes.worker.circuit import Circuit, Outages
from crawlscope.processes.worker.queue import Payload, WorkerQueue, worker_queue

PAGES_AT_ONCE = 16
"""Per process: they share transactions and calls of the embedder and the index."""
MIN_BATCH = PAGES_AT_ONCE // 2
"""The others have work for the embedder until then."""
REST_SECONDS = 0.0125
"""For each worker of the machine: together they look about 80 times a second for jobs, however many."""
INLINE_CHARACTERS = 50_000
"""Pages of up to so many are read in the event loop, in 10 ms at most. A thread and the loop take the
interpreter from each other, which costs a tenth of the CPU time of a page."""
OVERDUE_SECONDS = 180.0
"""How long a page may outlast its time limit before the process ends; a slow database takes less."""

log = structlog.get_logger(__name__)


class Deadlines:
    """Ends the process when a page in progress is overdue, also while native code lets no Python run.

    The tracebacks of all threads are added to `file` first, which stays open. A page has up to a tenth more,
    so that many pages end at the same time: a new end starts a thread.
    """

    def __init__(self, seconds: float, file: TextIO) -> None:
        self._seconds = seconds
        self._step_seconds = seconds / 10
        self._file = file
        self._ends: list[float] = []
        self._armed: float | None = None
        """The end for which the process is armed: arming starts a thread."""

    @contextmanager
    def page(self) -> Iterator[None]:
        end = math.ceil((time.monotonic() + self._seconds) / self._step_seconds) * self._step_seconds
        self._ends.append(end)
        self._arm()
        try:
            yield
        finally:
            self._ends.remove(end)
            self._arm()

    def _arm(self) -> None:
        earliest = min(self._ends, default=None)
        if earliest is None:
            faulthandler.cancel_dump_traceback_later()
        elif earliest != self._armed:
            left = max(earliest - time.monotonic(), 0.001)
            faulthandler.dump_traceback_later(left, exit=True, file=self._file)
        self._armed = earliest


@contextmanager
def deadlines(seconds: float, folder: Path) -> Iterator[Deadlines]:
    """`folder/stuck-pages.log` gets the tracebacks."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "stuck-pages.log").open("a") as file:
        yield Deadlines(seconds, file)


async def index_pages(
    settings: Settings, database: Database, outages: Outages, stopping: asyncio.Event
) -> None:
    # A thread per core in every worker: when few pages are left, one page has them all.
    threads = os.cpu_count() or 1
    rest_seconds = settings.workers * REST_SECONDS
    async with (
        worker_parts(settings, database, threads, INLINE_CHARACTERS) as parts,
        worker_queue(database, INDEX_PAGE, PAGES_AT_ONCE, MIN_BATCH, rest_seconds) as queue,
        in_background(parts.reindexing.run(await queue.news_of(REINDEXING)), parts.words.run()),
    ):
        circuit = Circuit(parts.indexing.probes, outages, queue.pause, queue.resume, PAGES_AT_ONCE)
        indexer = PageIndexer(
            database,
            parts.indexing,
            worker_name(os.getpid()),
            settings.max_attempts,
            settings.page_timeout_seconds,
        )
        overdue_seconds = settings.page_timeout_seconds + OVERDUE_SECONDS
        with deadlines(overdue_seconds, settings.data_dir / "logs") as limits:

            async def index_page(job: Job, payload: Payload) -> None:
                await _index_page(job, payload, indexer, queue, circuit, limits)

            async with circuit.closing_automatically():
                await queue.work(index_page, stopping)


async def _index_page(
    job: Job,
    payload: Payload,
    indexer: PageIndexer,
    queue: WorkerQueue,
    circuit: Circuit,
    limits: Deadlines,
) -> None:
    """Raises `RetryRequested` for a page that waits again."""
    page_id: int = payload["page_id"]
    try:
        if job.attempts:  # the cause of its failure may persist: waiting for that costs no other attempt
            await circuit.probe()
        async with queue.alone() if payload.get("alone") else nullcontext():
            with limits.page():
                if payload.get("gone"):
                    await indexer.remove_gone(page_id)
                else:
                    await indexer.index(page_id, payload["revision"], job.id)
    except PutBack as again:
        if isinstance(again.error, CrawlscopeError):
            circuit.page_failed(page_id)
        raise RetryRequested(timedelta(seconds=again.delay_seconds), str(again)) from None
    except DependencyError as error:
        circuit.page_failed(page_id)
        raise RetryRequested(timedelta(seconds=DEPENDENCY_RETRY_SECONDS), str(error)) from None
    except Exception as error:
        log.exception("page_job_failed", job_id=job.id)
        raise RetryRequested(timedelta(seconds=UNKNOWN_ERROR_RETRY_SECONDS), str(error)) from error
    circuit.failed_pages.clear()
