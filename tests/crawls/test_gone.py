"""A page that answers 404 or 410 leaves search: the newest that crawls found at a URL counts."""

import json
from collections.abc import AsyncIterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import select, text

from crawlscope.core.errors import IndexUnavailable
from crawlscope.core.settings import Settings
from crawlscope.crawls.repository import delete_crawl
from crawlscope.database.engine import Database
from crawlscope.firecrawl.documents import scraped_page
from crawlscope.indexing.freshness import GoneAnswer, is_outdated
from crawlscope.indexing.generations import repository as generations
from crawlscope.indexing.generations.lifecycle import IndexLifecycle
from crawlscope.indexing.generations.opened import OpenGenerations
from crawlscope.indexing.index.edge_folders import EdgeIndexes
from crawlscope.indexing.service import IndexDocumentRequest, IndexingService
from crawlscope.indexing.sparse import Bm25Encoder
from crawlscope.models import CrawlSession, Page
from crawlscope.pages.index_page import PageIndexer
from crawlscope.pages.receive import take_pages
from crawlscope.pages.reindexing import Reindexing
from crawlscope.search.schemas import SearchFilters, SearchRequest, SearchResponse
from crawlscope.search.service import SearchService
from crawlscope.timing import standalone
from crawlscope.timing.store import MeasurementBuffer
from tests.support.fakes.embedding_server import FakeEmbeddingServer
from tests.support.producing import NOON, deliver

OLD = "https://shop.example/prices-old"
NEW = "https://shop.example/prices"


def minutes(count: float) -> datetime:
    return NOON + timedelta(minutes=count)


class Installation:
    """The door, a worker and a search over one index."""

    def __init__(self, database: Database, folder: Path, server: FakeEmbeddingServer) -> None:
        self.database = database
        indexes = EdgeIndexes(folder)
        settings = Settings(_env_file=None, data_dir=folder, embedder="tei", embedder_url=server.url)
        self.opened = OpenGenerations(settings, indexes, Bm25Encoder())
        self.lifecycle = IndexLifecycle(database, indexes)
        self.indexing = IndexingService(database, self.opened)
        self.indexer = PageIndexer(database, self.indexing, "worker-1", 3, timeout_seconds=60)
        self.filling = Reindexing(database, self.opened, self.indexing, 3, timeout_seconds=60)

    async def start(self) -> "Installation":
        await self.opened.ensure_serving(self.database)
        await self.lifecycle.advance()
        return self

    async def deliver(
        self,
        crawl_id: str,
        url: str,
        at: datetime,
        status_code: int = 200,
        final_url: str | None = None,
        words: str = "The narwhal plan costs four coins.",
    ) -> dict[str, Any]:
        metadata = {"sourceURL": url, "url": final_url or url, "title": "Prices", "statusCode": status_code}
        page = {"markdown": words, "metadata": metadata}
        return await deliver(self.database, crawl_id, "crawl.page", [page], at=at)

    async def work(self) -> None:
        """Everything that is queued, as a worker does it."""
        async with self.database.transaction() as connection:
            jobs = (
                await connection.execute(text("SELECT id, payload FROM queue.pgqueuer ORDER BY id"))
            ).all()
        for job_id, payload in jobs:
            order = json.loads(payload)
            if order.get("gone"):
                await self.indexer.remove_gone(order["page_id"])
            else:
                await self.indexer.index(order["page_id"], order["revision"], job_id)
            async with self.database.transaction() as connection:
                await connection.execute(text("DELETE FROM queue.pgqueuer WHERE id = :id"), {"id": job_id})

    async def crawl(self, crawl_id: str, url: str, at: datetime, status_code: int = 200, **more: Any) -> None:
        await self.deliver(crawl_id, url, at, status_code, **more)
        await self.work()

    async def end(self, crawl_id: str, at: datetime) -> None:
        await deliver(self.database, crawl_id, "crawl.completed", at=at)

    async def found(self, query: str = "narwhal", crawl_id: str | None = None) -> list[str]:
        return [result.url for result in (await self.search(query, crawl_id)).results]

    async def search(self, query: str, crawl_id: str | None = None) -> SearchResponse:
        async with self.database.transaction() as connection:
            serving = (await generations.live(connection)).serving
        assert serving is not None
        index, embedder = await self.opened.index(serving), self.opened.embedder(serving)
        filters = SearchFilters(crawl_id=crawl_id) if crawl_id else None
        request = SearchRequest(query=query, mode="keyword", filters=filters)
        return await SearchService(index, embedder, Bm25Encoder()).search(request)

    async def page(self, crawl_id: str) -> tuple[str, str | None]:
        found = select(Page.state, Page.error_code).where(Page.crawl_id == crawl_id)
        async with self.database.transaction() as connection:
            return tuple((await connection.execute(found)).one())  # type: ignore[return-value]

    async def counts(self, crawl_id: str) -> tuple[int, int, int]:
        counted = select(CrawlSession.total_pages, CrawlSession.pages_indexed, CrawlSession.pages_failed)
        async with self.database.transaction() as connection:
            row = (await connection.execute(counted.where(CrawlSession.crawl_id == crawl_id))).one()
        return tuple(row)  # type: ignore[return-value]

    async def reindex(self) -> None:
        recipe = await self.opened.open_configured()
        filling = await self.database.run(lambda c: generations.begin_reindexing(c, recipe))
        await self.lifecycle.advance()
        await self.filling.fill(filling.id)
        await self.lifecycle.advance()


@pytest.fixture
async def here(database: Database, tmp_path: Path) -> AsyncIterator[Installation]:
    buffer = MeasurementBuffer(database)
    buffer.start()
    with FakeEmbeddingServer() as server, standalone.use(buffer):
        installation = await Installation(database, tmp_path, server).start()
        yield installation
        await installation.opened.aclose()
    await buffer.stop()


@pytest.mark.parametrize("status_code", [404, 410])
async def test_a_page_that_is_gone_in_a_later_crawl_is_not_found(
    here: Installation, status_code: int
) -> None:
    await here.crawl("monday", OLD, minutes(0))
    assert await here.found() == [OLD]
    answer = await here.deliver("tuesday", OLD, minutes(5), status_code)
    assert answer["queued_jobs"] == 0
    await here.work()
    assert await here.found() == []
    assert await here.found(crawl_id="monday") == []
    assert await here.page("tuesday") == ("failed", f"http_{status_code}")
    assert await here.counts("tuesday") == (1, 0, 1)
    assert await here.counts("monday") == (1, 1, 0)


@pytest.mark.parametrize("status_code", [401, 403, 429, 500, 503])
async def test_any_other_failure_leaves_it_there(here: Installation, status_code: int) -> None:
    await here.crawl("monday", OLD, minutes(0))
    await here.crawl("tuesday", OLD, minutes(5), status_code)
    assert await here.found() == [OLD]


async def test_a_failed_scrape_leaves_it_there(here: Installation) -> None:
    await here.crawl("monday", OLD, minutes(0))
    metadata = {"sourceURL": OLD, "url": OLD}
    page = {"markdown": "", "metadata": metadata}
    await deliver(
        here.database, "tuesday", "crawl.page", [page], at=minutes(5), success=False, error="timed out"
    )
    await here.work()
    assert await here.found() == [OLD]


async def test_it_comes_back_with_the_page(here: Installation) -> None:
    await here.crawl("monday", OLD, minutes(0))
    await here.crawl("tuesday", OLD, minutes(5), 404)
    await here.crawl("wednesday", OLD, minutes(10))
    assert await here.found() == [OLD]
    assert await here.page("wednesday") == ("indexed", None)
    assert await here.found(crawl_id="wednesday") == [OLD]
    assert await here.found(crawl_id="monday") == []


async def test_an_old_crawl_that_is_delivered_late_does_not_bring_it_back(here: Installation) -> None:
    await here.deliver("monday", NEW, minutes(0), words="Other words.")
    await here.end("monday", minutes(1))
    await here.crawl("tuesday", OLD, minutes(5), 404)
    await here.crawl("monday", OLD, minutes(20))
    assert await here.found() == []
    async with here.database.transaction() as connection:
        late = select(Page.state, Page.error_code).where(Page.source_url == OLD, Page.crawl_id == "monday")
        assert tuple((await connection.execute(late)).one()) == ("unchanged", "gone_since")
    assert await here.counts("monday") == (2, 2, 0)


async def test_an_old_crawl_that_is_delivered_late_takes_nothing_away(here: Installation) -> None:
    await here.deliver("monday", NEW, minutes(0), words="Other words.")
    await here.end("monday", minutes(1))
    await here.crawl("tuesday", OLD, minutes(5))
    await here.crawl("monday", OLD, minutes(20), 404)
    assert await here.found() == [OLD]


async def test_an_old_content_that_comes_late_replaces_no_newer_one(here: Installation) -> None:
    await here.deliver("monday", NEW, minutes(0), words="Other words.")
    await here.end("monday", minutes(1))
    await here.crawl("tuesday", OLD, minutes(5), words="The dolphin plan costs five coins.")
    await here.crawl("monday", OLD, minutes(20))
    assert (await here.found(), await here.found("dolphin")) == ([], [OLD])
    assert await here.found("dolphin", crawl_id="monday") == [OLD]
    async with here.database.transaction() as connection:
        late = select(Page.state, Page.error_code).where(Page.source_url == OLD, Page.crawl_id == "monday")
        assert tuple((await connection.execute(late)).one()) == ("unchanged", "outdated")
    await here.reindex()
    assert (await here.found(), await here.found("dolphin")) == ([], [OLD])


async def test_an_old_page_without_text_that_comes_late_removes_no_newer_one(here: Installation) -> None:
    await here.deliver("monday", NEW, minutes(0), words="Other words.")
    await here.end("monday", minutes(1))
    await here.crawl("tuesday", OLD, minutes(5))
    await here.crawl("monday", OLD, minutes(20), words="")
    assert await here.found() == [OLD]


async def test_a_page_that_waits_in_the_queue_when_it_is_gone_stays_out(here: Installation) -> None:
    await here.deliver("monday", OLD, minutes(0))
    await here.deliver("tuesday", OLD, minutes(5), 404)
    await here.work()
    assert await here.found() == []
    assert await here.page("monday") == ("unchanged", "gone_since")


async def test_where_a_source_led_before_is_gone_with_it(here: Installation) -> None:
    await here.crawl("monday", OLD, minutes(0), final_url=f"{OLD}/")
    assert await here.found() == [f"{OLD}/"]
    await here.crawl("tuesday", OLD, minutes(5), 404)
    assert await here.found() == []


async def test_what_another_source_still_leads_to_stays(here: Installation) -> None:
    await here.deliver("monday", OLD, minutes(0), final_url=NEW)
    await here.crawl("monday", NEW, minutes(1))
    await here.crawl("tuesday", OLD, minutes(5), 404)
    assert await here.found() == [NEW]
    await here.crawl("wednesday", NEW, minutes(10), 410)
    assert await here.found() == []


async def test_a_redirect_to_a_page_that_is_gone_takes_both_away(here: Installation) -> None:
    await here.crawl("monday", OLD, minutes(0))
    await here.crawl("monday", NEW, minutes(1))
    await here.crawl("tuesday", OLD, minutes(5), 404, final_url=NEW)
    assert await here.found() == []


async def test_what_reconciling_learns_counts_as_well(here: Installation) -> None:
    await here.crawl("monday", OLD, minutes(0))
    await deliver(here.database, "tuesday", "crawl.started", at=minutes(4))
    document = {"markdown": "gone", "metadata": {"sourceURL": OLD, "url": OLD, "statusCode": 404}}
    page = scraped_page(document, minutes(5), pushed=False)
    assert page is not None
    async with here.database.transaction() as connection:
        await take_pages(connection, "tuesday", [page])
    await here.work()
    assert await here.found() == []


async def test_what_was_put_in_without_a_crawl_is_gone_when_a_crawl_says_so(here: Installation) -> None:
    await here.indexing.index_document(IndexDocumentRequest(url=OLD, markdown="The narwhal plan."))
    assert await here.found() == [OLD]
    await here.crawl("tuesday", OLD, minutes(5), 404)
    assert await here.found() == []


async def test_a_removal_that_fails_is_done_again(
    here: Installation, monkeypatch: pytest.MonkeyPatch
) -> None:
    await here.crawl("monday", OLD, minutes(0))
    await here.deliver("tuesday", OLD, minutes(5), 404)

    async def fail(*_: Any) -> None:
        raise IndexUnavailable("away")

    with monkeypatch.context() as away:
        away.setattr(OpenGenerations, "index", fail)
        with pytest.raises(IndexUnavailable):
            await here.work()
    assert await here.found() == [OLD]
    await here.work()
    assert await here.found() == []


async def test_a_rebuilt_index_has_nothing_that_is_gone(here: Installation) -> None:
    await here.crawl("monday", OLD, minutes(0))
    await here.crawl("monday", NEW, minutes(1))
    await here.crawl("tuesday", OLD, minutes(5), 404)
    await here.reindex()
    assert await here.found() == [NEW]


async def test_a_rebuilt_index_leaves_out_what_was_gone_before_the_index_followed(here: Installation) -> None:
    """As an older version left it: the page is known to be gone, and nothing was queued for that."""
    await here.crawl("monday", OLD, minutes(0))
    await here.crawl("monday", NEW, minutes(1))
    await here.deliver("tuesday", OLD, minutes(5), 404)
    async with here.database.transaction() as connection:
        await connection.execute(text("DELETE FROM queue.pgqueuer"))
    assert OLD in await here.found()
    await here.reindex()
    assert await here.found() == [NEW]


async def test_with_the_crawl_that_found_it_gone_that_is_forgotten(here: Installation) -> None:
    await here.crawl("monday", OLD, minutes(0))
    await here.deliver("tuesday", OLD, minutes(5), 404)
    await here.database.run(lambda connection: delete_crawl(connection, "tuesday", here.indexing))
    await here.work()
    assert await here.found() == [OLD]
    await here.database.run(lambda connection: delete_crawl(connection, "monday", here.indexing))
    assert await here.found() == []


A, B, C = (UUID(int=number) for number in (1, 2, 3))


@pytest.mark.parametrize(
    ("brought", "gone", "outdated"),
    [
        ({A: minutes(0)}, [], False),
        ({A: minutes(0)}, [GoneAnswer(A, A, minutes(1))], True),
        ({A: minutes(2)}, [GoneAnswer(A, A, minutes(1))], False),
        ({A: minutes(1)}, [GoneAnswer(A, A, minutes(1))], False),
        ({B: minutes(0)}, [GoneAnswer(A, A, minutes(1))], True),
        ({B: minutes(0)}, [GoneAnswer(B, C, minutes(1))], True),
        ({A: minutes(0), B: minutes(0)}, [GoneAnswer(B, C, minutes(1))], False),
        ({B: minutes(0)}, [GoneAnswer(C, A, minutes(1))], True),
        ({}, [GoneAnswer(A, A, minutes(1))], True),
    ],
)
def test_the_newest_fact_wins(brought: dict[UUID, datetime], gone: list[GoneAnswer], outdated: bool) -> None:
    assert is_outdated(A, brought, gone) is outdated
