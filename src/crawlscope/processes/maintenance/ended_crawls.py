"""Counts crawls that have ended, each once, for monitoring."""

from sqlalchemy import RowMapping
from sqlalchemy.ext.asyncio import AsyncConnection

from crawlscope.core.periodic import run_periodically
from crawlscope.database.engine import Database
from crawlscope.insights.sealing import time_to_searchable_ms
from crawlscope.sessions.repository import claim_ended
from crawlscope.timing.telemetry import conventions
from crawlscope.timing.telemetry.meters import Totals
from crawlscope.timing.telemetry.reports import add_totals

INTERVAL_SECONDS = 5.0


async def count_ended_crawls(database: Database) -> None:
    """Until it is cancelled; any number of processes may run it."""

    async def count() -> int:
        return len(await database.run(count_ended))

    await run_periodically(
        count,
        interval_seconds=lambda counted: 0.0 if counted else INTERVAL_SECONDS,
        retry_seconds=INTERVAL_SECONDS,
        failure_event="crawl_count_failed",
    )


async def count_ended(connection: AsyncConnection) -> list[RowMapping]:
    """In one transaction with the mark that they are counted."""
    ended, totals = await claim_ended(connection), Totals()
    for session in ended:
        totals.add(conventions.CRAWLS, (session["status"],), 1)
        if session["duration_ms"] is not None:
            totals.add(conventions.CRAWL_DURATIONS, (), session["duration_ms"] / 1000)
        if (searchable_ms := time_to_searchable_ms(session)) is not None:
            totals.add(conventions.SEARCHABLE, (), searchable_ms / 1000)
    await add_totals(connection, totals.take())
    return ended
