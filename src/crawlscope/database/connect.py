"""Opens the database of the settings: the user's own server, or the embedded one for as long as needed."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from crawlscope.core.settings import Settings
from crawlscope.database import connections
from crawlscope.database.embedded import EmbeddedPostgres
from crawlscope.database.engine import Database


@asynccontextmanager
async def connected_database(settings: Settings, pool_size: int = 5) -> AsyncIterator[Database]:
    """Holds the embedded server's lock while the block runs; the last holder stops the server."""
    if settings.database_url is not None:
        database = Database.open(settings.database_url.get_secret_value(), pool_size)
        try:
            yield database
        finally:
            await database.close()
        return
    server = EmbeddedPostgres(settings.data_dir, connections.needed(settings.workers))
    database = Database.open(await asyncio.to_thread(server.acquire), pool_size)
    try:
        yield database
    finally:
        await database.close()
        await asyncio.to_thread(server.release)
