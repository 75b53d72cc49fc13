"""The life of a worker process: it works on each kind of job until it is stopped, and waits during outages.

Each kind loads only what it needs: all of it takes seconds.
"""

import asyncio
import os
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Literal

import psutil
import structlog
from pgqueuer.errors import FailingListenerError

from crawlscope.core.errors import DependencyError
from crawlscope.core.periodic import in_background
from crawlscope.core.settings import Settings
from crawlscope.database import connections
from crawlscope.database.engine import Database
from crawlscope.pages.attempts import worker_name
from crawlscope.processes.maintenance.retention import maintain_tables
from crawlscope.processes.worker.circuit import Outages
from crawlscope.processes.worker.queue import OUTAGE_ERRORS
from crawlscope.timing.standalone import measured_database

Kind = Literal["index", "crawl"]

RESTART_SECONDS = 2.0
REASONS: dict[type[Exception], str] = {
    FailingListenerError: "no news of jobs arrives: if CRAWLSCOPE_DATABASE_URL leads to a pooler, set "
    "CRAWLSCOPE_DATABASE_DIRECT_URL"
}
MEMORY_POLL_INTERVAL_SECONDS = 0.2
IDLE_MEMORY_INTERVAL_SECONDS = 1.0
"""While the process takes as much as before."""
SWITCH_SECONDS = 0.0005
"""A thread that reads a page lets the event loop have the interpreter so soon: a transaction holds locks
while it waits for it."""
NICENESS = 5
"""The nice value of a process that indexes: deliveries, searches, the index and the database get a processor
first."""
MEMORY_EXIT_CODE = 86
"""The exit code of a process that exceeded its memory limit."""
THREADS = 64
"""More than a process ever has work for at once, so that nothing waits for a page that takes long: asyncio's
own few threads also look up host names."""

log = structlog.get_logger(__name__)


async def run_worker(settings: Settings, kinds: set[Kind], stopping: asyncio.Event) -> None:
    """Works until `stopping` is set; a page in progress then goes back to the queue."""
    if "index" in kinds:
        os.nice(NICENESS)  # before its threads, which inherit it
        sys.setswitchinterval(SWITCH_SECONDS)
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(THREADS, thread_name_prefix="work"))
    name = "worker" if len(kinds) > 1 else {"index": "index_worker", "crawl": "crawler"}[min(kinds)]
    async with (
        measured_database(settings, connections.WORKER, name) as (database, _),
        in_background(maintain_tables(settings, database)),
    ):
        await asyncio.gather(*[_run_kind(kind, settings, database, stopping) for kind in kinds])


async def _run_kind(kind: Kind, settings: Settings, database: Database, stopping: asyncio.Event) -> None:
    """Starts again after an outage of a dependency of the jobs, until it is over."""
    outages = Outages(database, worker_name(os.getpid()))
    if kind == "index":
        watch_memory(settings.worker_memory_bytes)
    while not stopping.is_set():
        try:
            if kind == "index":
                from crawlscope.processes.worker.index_pages import index_pages  # noqa: PLC0415

                await index_pages(settings, database, outages, stopping)
            else:
                from crawlscope.processes.worker.crawl_sites import crawl_sites  # noqa: PLC0415

                await crawl_sites(settings, database, stopping)
        except OUTAGE_ERRORS as error:
            reason = str(error) or REASONS.get(type(error), type(error).__name__)
            log.warning("worker_paused", kind=kind, reason=reason)
            if kind == "index" and isinstance(error, DependencyError):
                await outages.note(error.part, reason)
            await _wait(stopping, RESTART_SECONDS)
    await outages.end_all()


async def _wait(stopping: asyncio.Event, seconds: float) -> None:
    with suppress(TimeoutError):
        await asyncio.wait_for(stopping.wait(), seconds)


def watch_memory(limit_bytes: int) -> None:
    """Ends the process once it takes more; 0: never."""

    def watch() -> None:
        process, before = psutil.Process(), 0
        while (taken := process.memory_info().rss) <= limit_bytes:
            time.sleep(IDLE_MEMORY_INTERVAL_SECONDS if taken == before else MEMORY_POLL_INTERVAL_SECONDS)
            before = taken
        log.error("worker_memory_exceeded", rss_bytes=taken, limit_bytes=limit_bytes)
        os._exit(MEMORY_EXIT_CODE)

    if limit_bytes:
        threading.Thread(target=watch, name="memory", daemon=True).start()
