"""Tells the database of workers that died: their pages go on at once; one that kills them is set aside."""

from collections import deque
from dataclasses import dataclass
from functools import partial

import structlog

from crawlscope.core.errors import DatabaseUnavailable
from crawlscope.database.engine import Database
from crawlscope.pages.repository import WorkerDeath, pages_of_dead, worker_name
from crawlscope.pages.retry import record_crash
from crawlscope.processes.supervisor.supervisor import Exit
from crawlscope.processes.worker.process import MEMORY_EXIT_CODE

TRIES = 5

log = structlog.get_logger(__name__)


@dataclass
class _Unwritten:
    death: WorkerDeath
    tries_left: int = TRIES


class Crashes:
    """Those that are not written yet; a database that is away is waited for."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._unwritten: deque[_Unwritten] = deque()

    def note(self, end: Exit) -> None:
        """Passes over a process that ended in order."""
        if end.code and not end.asked_for:
            death = WorkerDeath(worker_name(end.pid), end.began_at, end.ended_at, _cause_of(end))
            self._unwritten.append(_Unwritten(death))

    async def write(self) -> None:
        """Raises `DatabaseUnavailable`; what it could not write it tries again when called again.

        A death that cannot be written for any other reason is tried a few times, behind the others.
        """
        for _ in range(len(self._unwritten)):
            unwritten = self._unwritten[0]
            try:
                await self._write(unwritten.death)
            except DatabaseUnavailable:
                raise
            except Exception:
                log.exception("crash_not_written", worker=unwritten.death.worker)
                unwritten.tries_left -= 1
                if unwritten.tries_left:
                    self._unwritten.append(unwritten)
            self._unwritten.popleft()

    async def _write(self, death: WorkerDeath) -> None:
        pages = await self._database.run(lambda connection: pages_of_dead(connection, death))
        for page_id in pages:
            state = await self._database.run(partial(record_crash, page_id=page_id, death=death))
            log.warning("page_crashed", page_id=page_id, worker=death.worker, how=death.how, state=state)


def _cause_of(end: Exit) -> str:
    if end.code == MEMORY_EXIT_CODE:
        return "it took more memory than CRAWLSCOPE_WORKER_MEMORY_BYTES"
    return end.how
