"""Drops old operations and requests by whole months, and old outages. The sums of operations stay with their
crawls."""

from datetime import datetime
from functools import partial

from sqlalchemy import Table, delete, func, select, text
from sqlalchemy.ext.asyncio import AsyncConnection

from crawlscope import models
from crawlscope.database.engine import Database
from crawlscope.database.retention import BATCH_SIZE, Keep, Pruned, in_batches, prune_rows
from crawlscope.database.row_counts import count_rows
from crawlscope.timing.partitions import change, partitions_of
from crawlscope.timing.store import OPERATIONS

OUTAGES = models.table_of(models.PastOutage)
DROP_SECONDS = 3_600.0
"""For a statement on a whole month: it reads all its rows."""
_KEEP_SUMS = """
    INSERT INTO webhook.pruned_operations AS kept (crawl_id, operation_type, count, failed, total_ms)
    SELECT crawl_id, operation_type, count(*), count(*) FILTER (WHERE NOT success),
        coalesce(sum(duration_ms) FILTER (WHERE success), 0)
    FROM {source} WHERE crawl_id IS NOT NULL GROUP BY crawl_id, operation_type
    ON CONFLICT (crawl_id, operation_type) DO UPDATE SET
        count = kept.count + excluded.count,
        failed = kept.failed + excluded.failed,
        total_ms = kept.total_ms + excluded.total_ms
"""


async def prune_months(
    database: Database, table: Table, keep: Keep, now: datetime, *, dry_run: bool = False
) -> list[Pruned]:
    """Drops the oldest months of `table` until `keep` holds, but never the present one: a row is kept up to a
    month longer than `keep.days`."""
    since = keep.since(now)
    async with database.transaction() as connection:
        months = await partitions_of(connection, table.name)
    left = sum(month.bytes for month in months)
    pruned = []
    for month in months:
        if month.until is None or month.until > now:
            break
        is_old = since is not None and month.until <= since
        if not is_old and (keep.bytes is None or left <= keep.bytes):
            break
        left -= month.bytes
        drop = partial(_drop, table=table, month=month.name, dry_run=dry_run)
        async with database.patient(DROP_SECONDS) as patient:
            rows = await (patient.run(drop) if dry_run else change(patient, drop))
        pruned.append(Pruned(month.name, rows, month.bytes))
    return pruned


async def prune_outages(
    database: Database, keep: Keep, now: datetime, *, dry_run: bool = False
) -> list[Pruned]:
    """Those that have ended."""
    ended = select(OUTAGES.c.until.label("at"), func.pg_column_size(OUTAGES.c.reason).label("size"))
    return await prune_rows(
        database, "outages", ended, in_batches(database, _delete_outages), keep, now, dry_run=dry_run
    )


async def _delete_outages(connection: AsyncConnection, before: datetime) -> int:
    old = select(OUTAGES.c.id).where(OUTAGES.c.until < before).limit(BATCH_SIZE)
    return (await connection.execute(delete(OUTAGES).where(OUTAGES.c.id.in_(old)))).rowcount


async def _drop(connection: AsyncConnection, table: Table, month: str, dry_run: bool) -> int:
    """Returns the number of rows. Only writers of that month wait while it is summed up."""
    source = f"webhook.{month}"
    if not dry_run:
        await connection.execute(text(f"LOCK TABLE {source} IN EXCLUSIVE MODE"))
    rows = await connection.scalar(text(f"SELECT count(*) FROM {source}"))  # noqa: S608
    if not dry_run:
        if table is OPERATIONS:
            await connection.execute(text(_KEEP_SUMS.format(source=source)))
        await connection.execute(text(f"DROP TABLE {source}"))
        await count_rows(connection, table, -int(rows or 0))
    return int(rows or 0)
