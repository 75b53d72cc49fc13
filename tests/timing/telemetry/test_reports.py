"""One of all processes that report is the oldest."""

import asyncio
import socket
from collections.abc import Awaitable, Callable

import pytest

from crawlscope.database.engine import Database
from crawlscope.timing.telemetry.reports import is_oldest, reported


async def until(holds: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(60):
        while not await holds():  # noqa: ASYNC110 - only the database knows
            await asyncio.sleep(0.02)


async def test_the_next_process_is_the_oldest_once_the_oldest_has_ended(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def is_oldest_on(host: str) -> bool:
        monkeypatch.setattr(socket, "gethostname", lambda: host)
        return await database.run(is_oldest)

    monkeypatch.setattr(socket, "gethostname", lambda: "b")
    async with reported(database, "worker"):
        await until(lambda: is_oldest_on("b"))
        monkeypatch.setattr(socket, "gethostname", lambda: "a")  # which comes first, as both started at once
        async with reported(database, "worker"):
            await until(lambda: is_oldest_on("a"))
            assert not await is_oldest_on("b")
        assert await is_oldest_on("b")
        assert not await is_oldest_on("a")
