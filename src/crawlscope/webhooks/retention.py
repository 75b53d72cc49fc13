"""Drops the stored bodies of deliveries; what they said of their crawl stays, and the texts of its pages."""

from datetime import datetime

from sqlalchemy import Select, func, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from crawlscope.database.engine import Database
from crawlscope.database.retention import BATCH_SIZE, Keep, Pruned, in_batches, prune_rows
from crawlscope.pages.contents import copy_texts
from crawlscope.sessions.repository import DELIVERIES


async def prune_bodies(
    database: Database, keep: Keep, now: datetime, *, dry_run: bool = False
) -> list[Pruned]:
    stored = select(
        DELIVERIES.c.received_at.label("at"), func.pg_column_size(DELIVERIES.c.body).label("size")
    ).where(DELIVERIES.c.body.is_not(None))
    return await prune_rows(
        database,
        "bodies of deliveries",
        stored,
        in_batches(database, drop_bodies),
        keep,
        now,
        dry_run=dry_run,
    )


async def drop_bodies(connection: AsyncConnection, received_before: datetime) -> int:
    """At most a batch; returns how many. Skips bodies in use."""
    old = old_bodies(received_before).with_for_update(skip_locked=True)
    delivery_ids = (await connection.scalars(old)).all()
    await copy_texts(connection, delivery_ids)
    await connection.execute(update(DELIVERIES).where(DELIVERIES.c.id.in_(delivery_ids)).values(body=None))
    return len(delivery_ids)


def old_bodies(received_before: datetime) -> Select[int]:
    """The oldest deliveries with a body: a batch of ids."""
    return (
        select(DELIVERIES.c.id)
        .where(DELIVERIES.c.received_at < received_before, DELIVERIES.c.body.is_not(None))
        .order_by(DELIVERIES.c.received_at)
        .limit(BATCH_SIZE)
    )
