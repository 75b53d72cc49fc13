"""Waits with a limit for what happens in the same event loop, or in the database."""

import asyncio
import time
from collections.abc import Callable

from sqlalchemy import text

from crawlscope.database.engine import Database


async def eventually(condition: Callable[[], bool], seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        await asyncio.sleep(0.02)


async def until_one_waits(database: Database) -> None:
    """For a lock that somebody else has."""
    waiting = text(
        "SELECT count(*) FROM pg_stat_activity"
        " WHERE datname = current_database() AND wait_event_type = 'Lock'"
    )
    async with asyncio.timeout(30):
        while not await database.run(lambda connection: connection.scalar(waiting)):  # noqa: ASYNC110
            await asyncio.sleep(0.01)
