"""Makes the partitions of the next months, merges and corrects row counts, sums up histograms by hour, and
deletes what is older or larger than the settings allow.
"""

import math
import time
from datetime import UTC, datetime
from functools import partial

import structlog
from sqlalchemy.ext.asyncio import AsyncConnection

from crawlscope.core.periodic import run_periodically
from crawlscope.core.settings import Settings
from crawlscope.database.engine import Database
from crawlscope.database.queue import prune_log
from crawlscope.database.retention import Keep, Pruned
from crawlscope.database.row_counts import merge_row_counts, recount_rows
from crawlscope.notifications.retention import prune_notifications
from crawlscope.pages.retention import prune_contents
from crawlscope.sessions.hours import sum_up_hours
from crawlscope.sessions.recount import COUNTED
from crawlscope.timing.partitions import make_partitions
from crawlscope.timing.retention import prune_months, prune_outages
from crawlscope.timing.store import OPERATIONS, REQUESTS
from crawlscope.timing.telemetry.reports import is_oldest
from crawlscope.webhooks.retention import prune_bodies

BUSY_INTERVAL_SECONDS = 5.0
"""While row counts were merged the last time."""
IDLE_INTERVAL_SECONDS = 20.0
"""Also between two looks of a process that is not the oldest."""
HOURS_INTERVAL_SECONDS = 30.0
PRUNING_INTERVAL_SECONDS = 3_600.0
RETRY_SECONDS = 300.0
PRUNING_LOCK = (7_108, 6)

log = structlog.get_logger(__name__)


async def maintain_tables(settings: Settings, database: Database) -> None:
    """Runs until it is cancelled, in each process that writes: the oldest one alive does the work."""
    pruned_at = summed_up_at = -math.inf

    async def merge_if_oldest(connection: AsyncConnection) -> int | None:
        return await merge_row_counts(connection) if await is_oldest(connection) else None

    async def maintain() -> float:
        nonlocal pruned_at, summed_up_at
        if (merged := await database.run(merge_if_oldest)) is None:
            return IDLE_INTERVAL_SECONDS
        interval_seconds = BUSY_INTERVAL_SECONDS if merged else IDLE_INTERVAL_SECONDS
        if time.monotonic() >= summed_up_at + HOURS_INTERVAL_SECONDS:
            while await database.run(sum_up_hours):
                pass
            summed_up_at = time.monotonic()
        if time.monotonic() < pruned_at + PRUNING_INTERVAL_SECONDS:
            return interval_seconds
        if pruned_at == -math.inf:
            await correct_row_counts(database)
        await _add_partitions_and_prune(settings, database)
        pruned_at = time.monotonic()
        return interval_seconds

    await run_periodically(
        maintain,
        interval_seconds=lambda seconds: seconds,
        retry_seconds=RETRY_SECONDS,
        failure_event="pruning_failed",
    )


async def _add_partitions_and_prune(settings: Settings, database: Database) -> None:
    for name in await make_partitions(database, datetime.now(UTC)):
        log.info("partition_added", name=name)
    for each in await prune(settings, database, datetime.now(UTC)) or []:
        log.info("rows_deleted", what=each.what, rows=each.rows, bytes=each.bytes)


async def correct_row_counts(database: Database) -> None:
    """Versions that counted no rows may have run until this process became the oldest."""
    async with database.patient() as patient:
        for table in COUNTED:
            was, counted = await patient.run(partial(recount_rows, table=table))
            if was != counted:
                log.info("row_count_corrected", table=table.name, was=was, counted=counted)


async def prune(
    settings: Settings, database: Database, now: datetime, *, dry_run: bool = False
) -> list[Pruned] | None:
    """Crawls, pages, facts and totals always stay. None while another process prunes."""
    operations = Keep(settings.keep_operations_days, settings.keep_operations_bytes)
    requests = Keep(settings.keep_requests_days, settings.keep_requests_bytes)
    bodies = Keep(settings.keep_deliveries_days, settings.keep_deliveries_bytes)
    contents = Keep(settings.keep_contents_days, settings.keep_contents_bytes)
    async with database.alone(*PRUNING_LOCK) as alone:
        if not alone and not dry_run:
            return None
        return [
            *await prune_months(database, OPERATIONS, operations, now, dry_run=dry_run),
            *await prune_months(database, REQUESTS, requests, now, dry_run=dry_run),
            *await prune_outages(database, Keep(settings.keep_operations_days), now, dry_run=dry_run),
            *await prune_bodies(database, bodies, now, dry_run=dry_run),
            *await prune_contents(database, contents, now, dry_run=dry_run),
            *await prune_notifications(
                database, Keep(settings.keep_notifications_days), now, dry_run=dry_run
            ),
            *await prune_log(database, now, dry_run=dry_run),
        ]
