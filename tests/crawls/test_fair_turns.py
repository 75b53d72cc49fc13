"""Two pages in one worker, with the real model: the small one does not wait for the giant one."""

import asyncio
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from sqlalchemy import select

from crawlscope.core.settings import Settings
from crawlscope.core.vocabulary import PageState
from crawlscope.database.engine import Database
from crawlscope.indexing.embedders.local import LocalEmbedder
from crawlscope.indexing.embedders.port import Vectors
from crawlscope.indexing.generations.opened import OpenGenerations
from crawlscope.indexing.index.edge_folders import EdgeIndexes
from crawlscope.indexing.service import IndexingService
from crawlscope.indexing.sparse import Bm25Encoder
from crawlscope.insights.service import Insights
from crawlscope.pages.index_page import PageIndexer
from crawlscope.pages.repository import PAGES
from crawlscope.sessions.recount import recount
from tests.support.producing import deliver, document

CRAWL = "crawl-1"
GIANT, SMALL = "https://example.com/giant", "https://example.com/small"


async def deliver_sections(database: Database, url: str, sections: int) -> Any:
    """The page's row."""
    text = "\n\n".join(
        f"## Section {number}\n\n{uuid4()} " + "holds words. " * 60 for number in range(sections)
    )
    await deliver(database, CRAWL, "crawl.page", [document(url) | {"markdown": text}])
    async with database.transaction() as connection:
        return (await connection.execute(select(PAGES).where(PAGES.c.source_url == url))).one()


async def test_a_small_page_is_done_first_and_its_wait_is_no_embedding(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    embed, embedding = LocalEmbedder.embed_in_parts, asyncio.Event()

    async def reported(embedder: LocalEmbedder, texts: Sequence[str]) -> tuple[Vectors, list[str]]:
        embedding.set()
        return await embed(embedder, texts)

    monkeypatch.setattr(LocalEmbedder, "embed_in_parts", reported)
    opened = OpenGenerations(Settings(data_dir=tmp_path), EdgeIndexes(tmp_path), Bm25Encoder(), threads=1)
    await opened.ensure_serving(database)
    indexer = PageIndexer(
        database,
        IndexingService(database, opened),
        f"host:{os.getpid()}",
        max_attempts=3,
        timeout_seconds=300,
    )
    insights = Insights(database)
    giant, small = await deliver_sections(database, GIANT, 150), await deliver_sections(database, SMALL, 6)

    indexing_giant = asyncio.create_task(indexer.index(giant.id, giant.revision, giant.job_id))
    await embedding.wait()
    await indexer.index(small.id, small.revision, small.job_id)

    [first] = (await insights.pages(CRAWL, state=PageState.INDEXED)).pages
    assert first.url == SMALL
    await indexing_giant
    pages = {page.url: page for page in (await insights.pages(CRAWL)).pages}
    assert pages[SMALL].stages["embedding_wait"] > 0
    for page in pages.values():
        assert page.state == "indexed"
        assert page.unaccounted_ms is not None
        assert sum(page.stages.values()) + page.unaccounted_ms == page.total_ms
    crawl = await insights.crawl(CRAWL, include_per_page=True)
    embedded = [each for each in crawl.per_page_metrics or [] if each.operation_type == "embedding"]
    assert crawl.aggregate_timing.embedding_ms == sum(each.duration_ms for each in embedded)
    assert crawl.operations["embedding_wait"].count >= 1
    async with database.transaction() as connection:
        assert await recount(connection, CRAWL) == {}
    await opened.aclose()
