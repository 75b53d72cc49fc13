"""Drops the stored bodies of deliveries."""

from datetime import datetime

from sqlalchemy import select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from crawlscope.database.engine import Database
from crawlscope.sessions.repository import DELIVERIES

BATCH_SIZE = 1_000


async def drop_bodies(database: Database, received_before: datetime) -> int:
    """Returns how many. Small transactions, so that deliveries need not wait; skips bodies in use."""
    old = (
        select(DELIVERIES.c.id)
        .where(DELIVERIES.c.received_at < received_before, DELIVERIES.c.body.is_not(None))
        .limit(BATCH_SIZE)
        .with_for_update(skip_locked=True)
    )

    async def drop_batch(connection: AsyncConnection) -> int:
        emptied = await connection.execute(
            update(DELIVERIES).where(DELIVERIES.c.id.in_(old)).values(body=None)
        )
        return emptied.rowcount

    dropped = 0
    while emptied := await database.run(drop_batch):
        dropped += emptied
    return dropped
