"""All periodic work for all crawls, in one list.

Each runs until it is cancelled, on `run_periodically`, and so does `maintain_tables` in each process that
writes. Other such work belongs to one process alone: the API process follows its indexes (`IndexHost`) and
records refused deliveries (`Refusals`), an indexing worker builds a new index (`Reindexing`) and closes its
circuit (`Circuit`), and `up` watches the embedded database and dead workers (`Supervisor`).
"""

import asyncio
from collections.abc import Coroutine, Sequence
from typing import Any

from crawlscope.changes.rescrapes import rescrape_changes
from crawlscope.core.settings import Settings
from crawlscope.database.engine import Database
from crawlscope.notifications.background import notify_of_crawls
from crawlscope.processes.maintenance.ended_crawls import count_ended_crawls
from crawlscope.processes.maintenance.sweep import reconcile_crawls


def maintenance_tasks(
    settings: Settings, database: Database, changed_pages: asyncio.Event
) -> Sequence[Coroutine[Any, Any, None]]:
    """Any number of processes may run them; the crawler's worker does. `changed_pages` is set when a page has
    changed.
    """
    return [
        reconcile_crawls(settings, database),
        rescrape_changes(settings, database, changed_pages),
        notify_of_crawls(settings, database),
        count_ended_crawls(database),
    ]
