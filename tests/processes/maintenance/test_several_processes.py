"""Periodic work is done once, for any number of processes, and continues when some of them end."""

import asyncio
import json
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from crawlscope.changes.acceptance import Rescraping, accept_change
from crawlscope.core.periodic import in_background
from crawlscope.core.settings import Settings, load_settings
from crawlscope.core.vocabulary import Engine
from crawlscope.database.engine import Database
from crawlscope.processes.maintenance.tasks import maintenance_tasks
from tests.support.fakes.firecrawl_server import FakeFirecrawl, Site
from tests.support.fakes.notification_receiver import SECRET, FakeReceiver
from tests.support.producing import deliver, index_pages

PROCESSES = 4
WAITING_PAGES = "SELECT count(*) = 3 FROM webhook.pages WHERE crawl_id = :crawl_id AND state = 'queued'"
DELIVERED = (
    "SELECT count(*) FROM webhook.notifications WHERE crawl_id = :crawl_id AND delivered_at IS NOT NULL"
)
COUNTED = "SELECT counted FROM webhook.crawl_sessions WHERE crawl_id = :crawl_id"
ADDED = "SELECT added FROM webhook.reconciliations WHERE crawl_id = :crawl_id"
ENDED = "SELECT sum(value) FROM webhook.metric_totals WHERE metric = 'crawlscope_crawls_ended'"


@pytest.fixture
def receiver() -> Iterator[FakeReceiver]:
    with FakeReceiver() as running:
        yield running


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("crawlscope.processes.maintenance.ended_crawls.INTERVAL_SECONDS", 0.1)
    monkeypatch.setattr("crawlscope.processes.maintenance.sweep.POLL_INTERVAL_SECONDS", 0.1)
    monkeypatch.setattr("crawlscope.notifications.background.POLL_INTERVAL_SECONDS", 0.1)
    monkeypatch.setattr("crawlscope.changes.rescrapes.POLL_INTERVAL_SECONDS", 0.1)
    monkeypatch.setattr("crawlscope.changes.rescrapes.IDLE_SECONDS", 0.1)


@asynccontextmanager
async def process(settings: Settings, url: str) -> AsyncIterator[None]:
    """As far as it maintains: with connections of its own."""
    database = Database.open(url, pool_size=4)
    async with in_background(*maintenance_tasks(settings, database, asyncio.Event())):
        yield
    await database.close()


@asynccontextmanager
async def processes(settings: Settings, url: str) -> AsyncIterator[Sequence[AsyncExitStack]]:
    """Each can be ended before the others."""
    async with AsyncExitStack() as all_of_them:
        each = [await all_of_them.enter_async_context(AsyncExitStack()) for _ in range(PROCESSES)]
        for stack in each:
            await stack.enter_async_context(process(settings, url))
        yield each


async def scalar(database: Database, query: str, **values: Any) -> Any:
    return await database.run(lambda connection: connection.scalar(text(query), values))


async def until(database: Database, query: str, **values: Any) -> None:
    async with asyncio.timeout(120):
        while not await scalar(database, query, **values):  # noqa: ASYNC110 - another process writes
            await asyncio.sleep(0.1)


@pytest.mark.slow
async def test_crawls_are_compared_counted_and_notified_once(
    database: Database, database_url: str, receiver: FakeReceiver, tmp_path: Path
) -> None:
    with FakeFirecrawl(Site.of(3)) as firecrawl:
        settings = load_settings(
            data_dir=tmp_path, firecrawl_url=firecrawl.url, notify_url=receiver.url, notify_secret=SECRET
        )
        crawls = list[str]()
        async with processes(settings, database_url) as running:
            await until(database, "SELECT count(*) FROM webhook.notifying")
            for ended in (running[:0], running[:-1]):
                for each in ended:
                    await each.aclose()
                crawl_id = str(firecrawl.start("crawl", {"url": "https://docs.example/"}).id)
                crawls.append(crawl_id)
                firecrawl.wait_until_ended(crawl_id)
                await deliver(database, crawl_id, "crawl.completed", success=True)
                await until(database, WAITING_PAGES, crawl_id=crawl_id)
                await index_pages(database, crawl_id)
                await until(database, DELIVERED, crawl_id=crawl_id)
                await until(database, COUNTED, crawl_id=crawl_id)
        for crawl_id in crawls:
            assert await scalar(database, ADDED, crawl_id=crawl_id) == 3, "fetched once"
            assert [each["type"] for each in receiver.of(crawl_id)] == ["crawl.searchable"]
        assert await scalar(database, ENDED) == len(crawls)


async def test_a_changed_page_is_fetched_once(database: Database, database_url: str, tmp_path: Path) -> None:
    settings = load_settings(data_dir=tmp_path)
    async with processes(settings, database_url) as running:
        for number, ended in enumerate((running[:0], running[:-1])):
            for each in ended:
                await each.aclose()
            body = json.dumps({"watch_url": f"https://a.example/{number}"}).encode()
            here = Rescraping(Engine.BUILTIN, allow_private=True)
            await accept_change(database, body, datetime.now(UTC), here)
            await until(database, "SELECT count(*) = :n FROM webhook.crawl_requests", n=number + 1)
    assert await scalar(database, "SELECT count(*) FROM queue.pgqueuer") == 2
