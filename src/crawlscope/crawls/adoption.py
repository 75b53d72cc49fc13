"""Takes a crawl into the records that Firecrawl knows and of which nothing was ever heard here."""

from datetime import UTC, datetime

import structlog
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncConnection

from crawlscope.core.errors import FirecrawlJobUnknown, NotFoundError
from crawlscope.core.values import storable
from crawlscope.database.engine import Database
from crawlscope.firecrawl.client import FirecrawlClient
from crawlscope.sessions.fold import Heard
from crawlscope.sessions.store import SESSIONS, ensure_session, keep_action, keep_fact

log = structlog.get_logger(__name__)


async def adopt_unknown(database: Database, firecrawl: FirecrawlClient, crawl_id: str) -> bool:
    """Makes the session of a crawl or batch scrape that only Firecrawl knows; false where it is known here.

    Raises `NotFoundError` for one that nobody knows or that was deleted here, and what asking raises.
    """
    crawl_id = storable(crawl_id)
    if await database.run(lambda connection: _is_known(connection, crawl_id)):
        return False
    try:
        await firecrawl.status(crawl_id)
    except FirecrawlJobUnknown as error:
        raise NotFoundError(f"Crawl not found: {crawl_id}, neither here nor there: {error}") from None
    await database.run(lambda connection: _adopt(connection, crawl_id, datetime.now(UTC)))
    log.info("crawl_adopted", crawl_id=crawl_id)
    return True


async def _adopt(connection: AsyncConnection, crawl_id: str, now: datetime) -> None:
    if not await ensure_session(connection, crawl_id, now):
        raise NotFoundError(f"Crawl not found: {crawl_id}, it was deleted here")
    await keep_fact(connection, crawl_id, Heard(now, what="adopted"), "adopted")
    await keep_action(connection, crawl_id, now, "adopt")


async def _is_known(connection: AsyncConnection, crawl_id: str) -> bool:
    known = select(SESSIONS.c.crawl_id).where(SESSIONS.c.crawl_id == crawl_id)
    return await connection.scalar(known) is not None
