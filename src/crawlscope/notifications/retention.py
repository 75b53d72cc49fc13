"""Deletes old notifications, and those of no event that would be detected again."""

from datetime import datetime

from sqlalchemy import delete, func, or_, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from crawlscope.database.engine import Database
from crawlscope.database.retention import BATCH_SIZE, Keep, Pruned, in_batches, prune_rows
from crawlscope.notifications.outbox import NOTIFICATIONS, NOTIFYING

ENDED = or_(NOTIFICATIONS.c.delivered_at.is_not(None), NOTIFICATIONS.c.dead)


async def prune_notifications(
    database: Database, keep: Keep, now: datetime, *, dry_run: bool = False
) -> list[Pruned]:
    """Delivered ones and those that were given up."""
    ended = select(
        NOTIFICATIONS.c.created_at.label("at"), func.pg_column_size(NOTIFICATIONS.c.payload).label("size")
    ).where(ENDED)
    return await prune_rows(
        database, "notifications", ended, in_batches(database, _delete), keep, now, dry_run=dry_run
    )


async def _delete(connection: AsyncConnection, before: datetime) -> int:
    """Crawls that ended before are not to be notified of again."""
    await connection.execute(update(NOTIFYING).values(since=func.greatest(NOTIFYING.c.since, before)))
    old = select(NOTIFICATIONS.c.id).where(ENDED, NOTIFICATIONS.c.created_at < before).limit(BATCH_SIZE)
    return (await connection.execute(delete(NOTIFICATIONS).where(NOTIFICATIONS.c.id.in_(old)))).rowcount
