"""A worker takes pages again when all dependencies work, whatever failed in the meantime."""

import asyncio
from datetime import UTC, datetime, timedelta
from time import perf_counter

import pytest
from sqlalchemy import text
from sqlalchemy.exc import ProgrammingError
from structlog.testing import capture_logs

from crawlscope.core.backoff import backoff
from crawlscope.core.errors import EmbedderUnavailable
from crawlscope.core.vocabulary import EventKind
from crawlscope.database.engine import Database
from crawlscope.insights.service import Insights
from crawlscope.processes.worker.circuit import Circuit, Outages
from tests.support.polling import eventually
from tests.support.producing import deliver


async def rename(database: Database, table: str, name: str) -> None:
    async with database.transaction() as connection:
        await connection.execute(text(f"ALTER TABLE webhook.{table} RENAME TO {name}"))


async def test_outages_that_cannot_be_stored_do_not_keep_it_open(
    own_database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("crawlscope.processes.worker.circuit.MAX_DELAY_SECONDS", 0.05)
    unavailable, closed = True, asyncio.Event()

    async def probe() -> None:
        if unavailable:
            raise EmbedderUnavailable("unavailable")

    await rename(own_database, "outages", "elsewhere")
    circuit = Circuit({"embedder": probe}, Outages(own_database, "host:1"), closed.clear, closed.set, 2)
    with capture_logs() as lines:
        async with circuit.closing_automatically():
            await eventually(lambda: any(line["event"] == "circuit_probe_failed" for line in lines))
            assert not closed.is_set()
            await rename(own_database, "elsewhere", "outages")
            unavailable = False
            await eventually(closed.is_set)


async def test_pages_that_one_outage_failed_cause_a_short_pause(own_database: Database) -> None:
    closed = asyncio.Event()

    async def probe() -> None: ...

    circuit = Circuit({"index": probe}, Outages(own_database, "host:1"), closed.clear, closed.set, 8)
    async with circuit.closing_automatically():
        await asyncio.wait_for(closed.wait(), 60)
        for page_id in range(8):
            circuit.page_failed(page_id)
        began = perf_counter()
        await asyncio.wait_for(closed.wait(), 60)
    assert perf_counter() - began < backoff(8 - 2, first_seconds=1.0, max_seconds=30.0)


async def test_outages_that_are_over_are_kept_also_one_of_the_database_itself(
    own_database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    await deliver(own_database, "crawl-1", "crawl.started", at=datetime.now(UTC) - timedelta(seconds=5))
    first, second, dead = (Outages(own_database, name) for name in ("host:1", "host:2", "host:3"))
    for worker in (first, second):
        await worker.note("embedder", "connection refused")
    for _ in range(2):
        await dead.note("index", "gone")
    await rename(own_database, "outages", "elsewhere")
    with pytest.raises(ProgrammingError):  # it cannot be written now
        await first.note("database", "the server is starting")
    await rename(own_database, "elsewhere", "outages")
    await deliver(own_database, "crawl-1", "crawl.completed")
    monkeypatch.setattr("crawlscope.processes.worker.circuit.MAX_REPORT_AGE", timedelta(0))

    for worker in (first, second):
        await worker.end("embedder")
    await first.end("database")
    await first.note("index", "gone")  # and finds the old report of the worker that died
    await first.end("index")

    events = (await Insights(own_database).timeline("crawl-1", 1)).events
    outages = [event for event in events if event.kind is EventKind.OUTAGE]
    assert sorted(event.what for event in outages) == [
        "database unavailable: the server is starting",
        "embedder unavailable: connection refused",
        "index unavailable: gone",
    ]
    assert all(event.until and event.until > event.at for event in outages)
