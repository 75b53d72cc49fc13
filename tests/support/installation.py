"""The webhook endpoint's work, a worker and a search over one index, in this process."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select, text

from crawlscope.core.settings import Settings
from crawlscope.database.engine import Database
from crawlscope.indexing.corpus import Corpus
from crawlscope.indexing.generations import repository as generations
from crawlscope.indexing.generations.lifecycle import IndexLifecycle
from crawlscope.indexing.generations.opened import OpenGenerations
from crawlscope.indexing.index.edge_folders import EdgeIndexes
from crawlscope.indexing.service import IndexingService
from crawlscope.indexing.sparse import Bm25Encoder
from crawlscope.indexing.vocabulary import WordCounts
from crawlscope.models import CrawlSession, Page
from crawlscope.pages.index_page import PageIndexer
from crawlscope.pages.reindexing import Reindexing
from crawlscope.search.schemas import SearchFilters, SearchRequest, SearchResponse
from crawlscope.search.service import SearchService
from crawlscope.timing import standalone
from crawlscope.timing.store import MeasurementBuffer
from tests.support.data_folders import share_cache
from tests.support.fakes.embedding_server import FakeEmbeddingServer
from tests.support.producing import deliver


def change_chunking(monkeypatch: pytest.MonkeyPatch) -> None:
    """As a newer version does, which is another process: it has not yet read a recipe."""
    monkeypatch.setattr("crawlscope.indexing.generations.recipe.CHUNKING_VERSION", 999)
    monkeypatch.setattr(generations, "_recipe", generations._recipe.__wrapped__)


class Installation:
    def __init__(self, database: Database, folder: Path, server: FakeEmbeddingServer) -> None:
        self.database = database
        self.server = server
        share_cache(folder)
        indexes = EdgeIndexes(folder)
        settings = Settings(_env_file=None, data_dir=folder, embedder="tei", embedder_url=server.url)
        self.words = WordCounts(database)
        self.opened = OpenGenerations(settings, indexes, Bm25Encoder(), words=self.words)
        self.lifecycle = IndexLifecycle(database, indexes)
        self.indexing = IndexingService(database, self.opened)
        self.indexer = PageIndexer(database, self.indexing, "worker-1", 3, timeout_seconds=60)
        self.reindexing = Reindexing(database, self.opened, self.indexing, 3, timeout_seconds=60)

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
        await self.words.write()

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
        corpus = Corpus(self.database, serving)
        filters = SearchFilters(crawl_id=crawl_id) if crawl_id else None
        request = SearchRequest(query=query, mode="keyword", filters=filters)
        return await SearchService(index, embedder, Bm25Encoder(), corpus).search(request)

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
        replacement = await self.database.run(lambda c: generations.begin_reindexing(c, recipe))
        await self.lifecycle.advance()
        await self.reindexing.build(replacement.id)
        await self.lifecycle.advance()


@asynccontextmanager
async def running_installation(database: Database, folder: Path) -> AsyncIterator[Installation]:
    buffer = MeasurementBuffer(database)
    buffer.start()
    with FakeEmbeddingServer() as server, standalone.use(buffer):
        installation = await Installation(database, folder, server).start()
        yield installation
        await installation.opened.aclose()
    await buffer.stop()
