"""Tells the database of workers that died: their pages go on at once; one that kills them is set aside."""

from collections import deque
from functools import partial

import structlog

from crawlscope.crawls.attempts import worker_name
from crawlscope.crawls.dead_workers import WorkerDeath, pages_of_dead, record_crash
from crawlscope.database.engine import Database
from crawlscope.supervise.supervisor import Exit
from crawlscope.worker.limits import TOOK_TOO_MUCH_MEMORY

log = structlog.get_logger(__name__)


class Crashes:
    """Those that are not written yet; a database that is away is waited for."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._unwritten: deque[WorkerDeath] = deque()

    def note(self, end: Exit) -> None:
        """Passes over a process that ended in order."""
        if end.code and not end.asked_for:
            self._unwritten.append(
                WorkerDeath(worker_name(end.pid), end.began_at, end.ended_at, _cause_of(end))
            )

    async def write(self) -> None:
        """Raises `DatabaseUnavailable`; what it could not write it tries again when called again."""
        while self._unwritten:
            await self._write(self._unwritten[0])
            self._unwritten.popleft()

    async def _write(self, death: WorkerDeath) -> None:
        pages = await self._database.run(lambda connection: pages_of_dead(connection, death))
        for page_id in pages:
            state = await self._database.run(partial(record_crash, page_id=page_id, death=death))
            log.warning("page_crashed", page_id=page_id, worker=death.worker, how=death.how, state=state)


def _cause_of(end: Exit) -> str:
    if end.code == TOOK_TOO_MUCH_MEMORY:
        return "it took more memory than CRAWLSCOPE_WORKER_MEMORY_BYTES"
    return end.how
