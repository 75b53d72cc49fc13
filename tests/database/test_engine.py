"""Connections that are lost while nobody uses them."""

import asyncio

import asyncpg
import pytest
from sqlalchemy import text

from crawlscope.database import engine
from crawlscope.database.engine import Database

BACKENDS = """
    SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
    WHERE datname = current_database() AND backend_type = 'client backend' AND pid <> pg_backend_pid()
"""


async def backend(database: Database) -> int:
    async with database.transaction() as connection:
        return int((await connection.execute(text("SELECT pg_backend_pid()"))).scalar_one())


async def test_a_connection_that_was_lost_is_replaced(database: Database, database_url: str) -> None:
    first = await backend(database)
    assert await backend(database) == first
    other = await asyncpg.connect(database_url)
    async with asyncio.timeout(30):
        while await other.fetchval(BACKENDS):  # until all have ended
            pass
    await other.close()
    assert await backend(database) != first


@pytest.mark.parametrize("idle", [False, True])
async def test_only_an_idle_connection_is_tested(
    database: Database, monkeypatch: pytest.MonkeyPatch, idle: bool
) -> None:
    first = await backend(database)
    driver, asked = asyncpg.Connection, list[str]()
    fetchrow = driver.fetchrow

    async def noted(connection: asyncpg.Connection, query: str, *arguments: object) -> object:
        asked.append(query)
        return await fetchrow(connection, query, *arguments)

    monkeypatch.setattr(driver, "fetchrow", noted)
    monkeypatch.setattr(engine, "TRUSTED_SECONDS", 0 if idle else 60)
    assert await backend(database) == first
    assert asked == ([";"] if idle else [])
