"""Pages in the hands of workers that died with the whole service: the queue would take 20 s to miss them."""

from contextlib import suppress
from datetime import datetime
from functools import partial

import psutil
import structlog

from crawlscope.database.engine import Database
from crawlscope.pages.repository import open_attempts, worker_name
from crawlscope.pages.retry import requeue_lost

log = structlog.get_logger(__name__)


async def take_over_orphans(database: Database) -> int:
    """Queues them anew; returns how many. Workers of other hosts are left alone."""
    taken = 0
    for page_id, worker, began_at in await database.run(open_attempts):
        if _is_gone(worker, began_at):
            taken += await database.run(partial(requeue_lost, page_id=page_id, worker=worker))
    if taken:
        log.info("orphans_taken_over", pages=taken)
    return taken


def _is_gone(worker: str, began_at: datetime) -> bool:
    """Process ids come again: a process that is younger than the attempt is another."""
    pid = worker.rpartition(":")[2]
    if not pid.isdigit() or worker != worker_name(int(pid)):
        return False
    with suppress(psutil.Error):
        return psutil.Process(int(pid)).create_time() > began_at.timestamp()
    return True
