"""The connections of all processes together fit the server, and a process waits if none is free."""

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime
from pathlib import Path
from uuid import uuid4

import asyncpg
import pytest
from sqlalchemy import text

from crawlscope.database import connections, schema
from crawlscope.database.embedded import EmbeddedPostgres
from crawlscope.database.engine import Database, sqlalchemy_url
from crawlscope.webhooks.acceptance import accept_delivery

WORKERS = 64


@pytest.mark.parametrize("workers", [1, 2, 16, 256])
def test_a_limit_that_suffices_for_the_workers_has_room_for_as_many(workers: int) -> None:
    assert connections.workers_within(connections.needed(workers)) == workers
    assert connections.workers_within(connections.needed(workers) - 1) == max(1, workers - 1)


@pytest.fixture(scope="module")
def large_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder: Path = tmp_path_factory.mktemp("large")
    with EmbeddedPostgres(folder, connections.needed(WORKERS)) as server:
        yield server.url


async def test_64_workers_leave_the_service_all_its_connections(large_server: str) -> None:
    service = Database.open(large_server, connections.SERVICE)
    await schema.upgrade(service)
    assert await connections.limit_of(service) == connections.needed(WORKERS)
    others = connections.needed(WORKERS) - connections.SERVICE
    opened = [await asyncpg.connect(large_server) for _ in range(others)]
    try:
        answers = await asyncio.gather(
            *[accept_delivery(service, _page(number), datetime.now(UTC)) for number in range(200)]
        )
    finally:
        for connection in opened:
            await connection.close()
        await service.close()
    assert [answer["status"] for answer in answers] == ["queued"] * 200


def _page(number: int) -> bytes:
    page = {"sourceURL": f"https://site.example/{number}", "statusCode": 200}
    document = {"markdown": f"Page {number}.", "metadata": page}
    event = {"success": True, "type": "crawl.page", "id": "busy", "webhookId": str(uuid4())}
    return json.dumps({**event, "data": [document], "metadata": {}}).encode()


@pytest.fixture
async def limited_url(own_database_url: str) -> AsyncIterator[str]:
    """A role that may open two connections."""
    owner = Database.open(own_database_url)
    async with owner.transaction() as connection:
        await connection.execute(text("CREATE ROLE limited LOGIN CONNECTION LIMIT 2"))
    yield (
        sqlalchemy_url(own_database_url)
        .set(drivername="postgresql", username="limited")
        .render_as_string(hide_password=False)
    )
    async with owner.transaction() as connection:
        await connection.execute(text("DROP ROLE limited"))
    await owner.close()


async def test_what_finds_no_connection_free_waits_for_one(limited_url: str) -> None:
    processes = [Database.open(limited_url, pool_size=2) for _ in range(3)]

    async def work(database: Database) -> None:
        async with database.transaction() as connection:
            await connection.execute(text("SELECT pg_sleep(0.05)"))
        await database.close()  # lets go of what a pool would keep

    await asyncio.gather(*[work(database) for database in processes])
    assert await connections.limit_of(processes[0]) == 2
    await processes[0].close()
