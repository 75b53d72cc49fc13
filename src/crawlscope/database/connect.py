"""Opens the database of the settings: the user's own server, or the embedded one for as long as needed."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

from crawlscope.core.settings import Settings
from crawlscope.database import connections
from crawlscope.database.embedded import EmbeddedPostgres
from crawlscope.database.engine import Database


@asynccontextmanager
async def connected_database(settings: Settings, pool_size: int = 5) -> AsyncIterator[Database]:
    """Holds the embedded server's lock while the block runs; the last holder stops the server."""
    async with database_and_server(settings, pool_size) as (database, _):
        yield database


@asynccontextmanager
async def database_and_server(
    settings: Settings, pool_size: int
) -> AsyncIterator[tuple[Database, EmbeddedPostgres | None]]:
    """As `connected_database`, for the process that keeps the embedded server running; None: not embedded."""
    async with AsyncExitStack() as stack:
        server, direct_url = None, None
        if settings.database_url is None:
            server = EmbeddedPostgres(
                settings.data_dir, connections.needed(settings.workers, settings.api_processes)
            )
            stack.push_async_callback(asyncio.to_thread, server.release)
            url = await asyncio.to_thread(server.acquire)
        else:
            url = settings.database_url.get_secret_value()
            if settings.database_direct_url is not None:
                direct_url = settings.database_direct_url.get_secret_value()
        database = Database.open(url, pool_size, direct_url=direct_url)
        stack.push_async_callback(database.close)
        yield database, server
