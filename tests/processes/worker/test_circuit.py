"""A worker takes pages again when all dependencies work, whatever failed in the meantime."""

import asyncio
from time import perf_counter

import pytest
from sqlalchemy import text
from structlog.testing import capture_logs

from crawlscope.core.backoff import backoff
from crawlscope.core.errors import EmbedderUnavailable
from crawlscope.database.engine import Database
from crawlscope.processes.worker.circuit import Circuit, Outages
from tests.support.polling import eventually


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
        async with circuit.closing_by_itself():
            await eventually(lambda: any(line["event"] == "circuit_probe_failed" for line in lines))
            assert not closed.is_set()
            await rename(own_database, "elsewhere", "outages")
            unavailable = False
            await eventually(closed.is_set)


async def test_pages_that_one_outage_failed_cause_a_short_pause(own_database: Database) -> None:
    closed = asyncio.Event()

    async def probe() -> None: ...

    circuit = Circuit({"index": probe}, Outages(own_database, "host:1"), closed.clear, closed.set, 8)
    async with circuit.closing_by_itself():
        await asyncio.wait_for(closed.wait(), 60)
        for page_id in range(8):
            circuit.page_failed(page_id)
        began = perf_counter()
        await asyncio.wait_for(closed.wait(), 60)
    assert perf_counter() - began < backoff(8 - 2, first_seconds=1.0, max_seconds=30.0)
