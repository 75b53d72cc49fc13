"""Drops the bodies of deliveries whose time is over; what they said of their crawl stays."""

import asyncio
from datetime import UTC, datetime, timedelta

import structlog
from sqlalchemy import select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from crawlscope.core.errors import CrawlscopeError
from crawlscope.database.engine import Database
from crawlscope.webhooks.acceptance import DELIVERIES

LOOK_SECONDS = 3_600.0
AT_ONCE = 1_000

log = structlog.get_logger(__name__)


async def drop_old_bodies(database: Database, keep_days: int) -> None:
    """Goes on until it is cancelled; any number of processes may."""
    while True:
        try:
            dropped = await drop_bodies(database, datetime.now(UTC) - timedelta(days=keep_days))
        except CrawlscopeError as error:
            log.warning("bodies_not_dropped", reason=str(error))
        except Exception:
            log.exception("bodies_not_dropped")
        else:
            if dropped:
                log.info("bodies_dropped", deliveries=dropped)
        await asyncio.sleep(LOOK_SECONDS)


async def drop_bodies(database: Database, received_before: datetime) -> int:
    """In small transactions, so that deliveries need not wait; returns how many."""
    dropped = 0
    while emptied := await database.run(lambda connection: _drop_some(connection, received_before)):
        dropped += emptied
    return dropped


async def _drop_some(connection: AsyncConnection, received_before: datetime) -> int:
    """Passes over those that somebody replays, or drops, at this moment."""
    old = (
        select(DELIVERIES.c.id)
        .where(DELIVERIES.c.received_at < received_before, DELIVERIES.c.body.is_not(None))
        .limit(AT_ONCE)
        .with_for_update(skip_locked=True)
    )
    emptied = await connection.execute(update(DELIVERIES).where(DELIVERIES.c.id.in_(old)).values(body=None))
    return emptied.rowcount
