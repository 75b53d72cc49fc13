"""Counts crawls that have ended, each once, for monitoring."""

from sqlalchemy import RowMapping
from sqlalchemy.ext.asyncio import AsyncConnection

from crawlscope.core.periodic import run_periodically
from crawlscope.database.engine import Database
from crawlscope.insights.sealing import searchable_at, time_to_searchable_ms
from crawlscope.sessions.repository import claim_ended
from crawlscope.timing.telemetry import conventions, traces
from crawlscope.timing.telemetry.meters import Totals
from crawlscope.timing.telemetry.reports import add_totals
from crawlscope.timing.telemetry.traces import Span

INTERVAL_SECONDS = 10.0


async def count_ended_crawls(database: Database) -> None:
    """Runs until it is cancelled; any number of processes may run it."""

    async def count() -> int:
        ended = await database.run(count_ended)
        for session in ended:
            _trace(session)
        return len(ended)

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


def _trace(session: RowMapping) -> None:
    """The span of the crawl, from its request until it was searchable, and in it the span of the crawling."""
    traceparent = (session["extra_metadata"] or {}).get("traceparent")
    crawl = traces.crawl_context(session["crawl_id"], traceparent)
    started, completed = session["started_at"], session["completed_at"]
    began, ended = session["initiated_at"] or started, searchable_at(session) or completed
    traces.export(Span("crawling", crawl.child(), started.timestamp(), completed.timestamp(), crawl))
    traces.export(
        Span(
            "crawl",
            crawl,
            began.timestamp(),
            max(ended, completed).timestamp(),
            parent=traces.parsed(traceparent),
            attributes=conventions.crawl_attributes(session),
            error=session["error_message"] if session["success"] is False else None,
        )
    )
