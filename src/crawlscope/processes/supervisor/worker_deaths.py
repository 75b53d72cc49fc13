"""Records dead workers, so that their pages are queued again and a page that kills workers is set aside."""

from collections import deque
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from functools import partial

import psutil
import structlog

from crawlscope.core.errors import DatabaseUnavailable
from crawlscope.database.engine import Database
from crawlscope.pages.attempts import WorkerDeath, open_attempts, pages_of_dead, worker_name
from crawlscope.pages.retry import record_crash, requeue_lost
from crawlscope.processes.supervisor.supervisor import Exit
from crawlscope.processes.worker.process import MEMORY_EXIT_CODE

MAX_ATTEMPTS = 5

log = structlog.get_logger(__name__)


@dataclass
class _Unwritten:
    death: WorkerDeath
    attempts_left: int = MAX_ATTEMPTS


class WorkerDeaths:
    """Deaths that are not recorded yet; while the database is down they wait."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._unwritten: deque[_Unwritten] = deque()

    def note(self, end: Exit) -> None:
        """Ignores a process that ended in order."""
        if end.code and not end.asked_for:
            out_of_memory = end.code == MEMORY_EXIT_CODE
            how = "it took more memory than CRAWLSCOPE_WORKER_MEMORY_BYTES" if out_of_memory else end.how
            death = WorkerDeath(worker_name(end.pid), end.began_at, end.ended_at, how)
            self._unwritten.append(_Unwritten(death))

    async def write(self) -> None:
        """Raises `DatabaseUnavailable`; the next call writes what this one could not.

        A death that cannot be written for any other reason is tried a few times, after the others.
        """
        for _ in range(len(self._unwritten)):
            unwritten = self._unwritten[0]
            death = unwritten.death
            try:
                for page_id in await self._database.run(partial(pages_of_dead, death=death)):
                    state = await self._database.run(partial(record_crash, page_id=page_id, death=death))
                    log.warning(
                        "page_crashed", page_id=page_id, worker=death.worker, how=death.how, state=state
                    )
            except DatabaseUnavailable:
                raise
            except Exception:
                log.exception("crash_storage_failed", worker=death.worker)
                unwritten.attempts_left -= 1
                if unwritten.attempts_left:
                    self._unwritten.append(unwritten)
            self._unwritten.popleft()


async def requeue_orphans(database: Database) -> int:
    """Queues the pages of workers that died with the whole service: the queue would need 20 s to miss them.

    Returns how many. Ignores workers of other hosts.
    """
    requeued = 0
    for page_id, worker, began_at in await database.run(open_attempts):
        if _is_gone(worker, began_at):
            requeued += await database.run(partial(requeue_lost, page_id=page_id, worker=worker))
    if requeued:
        log.info("orphans_requeued", pages=requeued)
    return requeued


def _is_gone(worker: str, began_at: datetime) -> bool:
    """A process that is younger than the attempt is another one with the same id."""
    pid = worker.rpartition(":")[2]
    if not pid.isdigit() or worker != worker_name(int(pid)):
        return False
    with suppress(psutil.Error):
        return psutil.Process(int(pid)).create_time() > began_at.timestamp()
    return True
