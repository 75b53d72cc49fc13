"""Pages in progress share transactions and calls of the index; each of them ends as if it were alone."""

import asyncio
from collections.abc import AsyncIterator, Iterator, Sequence
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import func, select, update

from crawlscope.core.errors import IndexUnavailable
from crawlscope.core.settings import Settings
from crawlscope.core.vocabulary import OperationType, PageState
from crawlscope.database.engine import Database
from crawlscope.indexing.generations.opened import OpenGenerations
from crawlscope.indexing.index.edge import EdgeIndex
from crawlscope.indexing.index.edge_folders import EdgeIndexes
from crawlscope.indexing.index.port import IndexedDocument
from crawlscope.indexing.service import IndexingService
from crawlscope.indexing.sparse import Bm25Encoder
from crawlscope.models import Delivery, Document, DocumentCrawl, OperationMetric, Page, PageAttempt
from crawlscope.pages import index_page
from crawlscope.pages.attempts import ClaimedPage, PageJob, claim_pages
from crawlscope.pages.index_page import PageIndexer, PutBack
from crawlscope.sessions.recount import recount
from tests.support.fakes.embedding_server import FakeEmbeddingServer
from tests.support.producing import A, B, deliver, document, queued

CRAWL = "crawl-1"
PAGES = 12


@pytest.fixture
def server() -> Iterator[FakeEmbeddingServer]:
    with FakeEmbeddingServer() as server:
        yield server


@pytest.fixture
async def indexing(
    database: Database, server: FakeEmbeddingServer, tmp_path: Path
) -> AsyncIterator[IndexingService]:
    settings = Settings(data_dir=tmp_path, embedder="tei", embedder_url=server.url)
    opened = OpenGenerations(settings, EdgeIndexes(tmp_path), Bm25Encoder())
    await opened.ensure_serving(database)
    yield IndexingService(database, opened)
    await opened.aclose()


@pytest.fixture
def indexer(database: Database, indexing: IndexingService) -> PageIndexer:
    return PageIndexer(database, indexing, "host:1", max_attempts=3, timeout_seconds=60)


class Calls(list[list[str]]):
    """The URLs of each call of the index. A document whose text contains the key raises the error."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, failing: dict[str, Exception]) -> None:
        replace, calls = EdgeIndex.replace, self

        async def watched(index: EdgeIndex, documents: Sequence[IndexedDocument]) -> None:
            calls.append([document.url for document in documents])
            for words, error in failing.items():
                if any(words in text for each in documents for text in each.texts):
                    raise error
            await asyncio.sleep(0.05)
            await replace(index, documents)

        monkeypatch.setattr(EdgeIndex, "replace", watched)


def url_of(number: int) -> str:
    return f"https://example.com/{number}"


async def deliver_numbered(database: Database, pages: int, crawl_id: str = CRAWL, words: str = "") -> None:
    documents = [
        document(url_of(number)) | {"markdown": f"# {number}\n\nPage {number} {words}"}
        for number in range(pages)
    ]
    for each in documents:
        await deliver(database, crawl_id, "crawl.page", [each])


async def index_all(
    database: Database, *indexers: PageIndexer, crawls: Sequence[str] = (CRAWL,)
) -> list[BaseException | None]:
    """All queued pages at once; what each raised."""
    jobs = [job for crawl_id in crawls for job in await queued(database, crawl_id)]
    work = [
        indexers[number % len(indexers)].index(job.page_id, job.revision, job.job_id)
        for number, job in enumerate(jobs)
    ]
    return list(await asyncio.gather(*work, return_exceptions=True))


async def states(database: Database, crawl_id: str = CRAWL) -> dict[str, str]:
    async with database.transaction() as connection:
        rows = await connection.execute(select(Page.source_url, Page.state).where(Page.crawl_id == crawl_id))
        return {row.source_url: row.state for row in rows}


async def scalars(database: Database, *columns: Any) -> list[Any]:
    async with database.transaction() as connection:
        rows = (await connection.execute(select(*columns))).all()
        return [row[0] if len(columns) == 1 else tuple(row) for row in rows]


async def assert_exact(database: Database, *crawls: str) -> None:
    """No attempt is in progress, and sessions equal their records."""
    assert None not in await scalars(database, PageAttempt.finished_at)
    for crawl_id in crawls or (CRAWL,):
        assert await database.run(partial(recount, crawl_id=crawl_id)) == {}


async def test_a_page_whose_text_is_lost_fails_and_others_do_not(
    database: Database, indexer: PageIndexer
) -> None:
    await deliver_numbered(database, 2)
    async with database.transaction() as connection:
        first = select(func.min(Delivery.id)).scalar_subquery()
        await connection.execute(update(Delivery).where(Delivery.id == first).values(body=b"damaged"))
    assert await index_all(database, indexer) == [None, None]
    assert await states(database) == {url_of(0): PageState.FAILED, url_of(1): PageState.INDEXED}
    assert set(await scalars(database, Page.error_code)) == {"text_lost", None}
    await assert_exact(database)


async def test_pages_in_progress_share_calls_and_each_has_its_own_record(
    database: Database, indexer: PageIndexer, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = Calls(monkeypatch, {})
    await deliver_numbered(database, PAGES)

    assert await index_all(database, indexer) == [None] * PAGES

    assert set((await states(database)).values()) == {PageState.INDEXED}
    assert sorted(url for call in calls for url in call) == sorted(map(url_of, range(PAGES)))
    assert len(calls) <= PAGES / 2
    await assert_exact(database)
    async with database.transaction() as connection:
        by_type = await connection.execute(
            select(
                OperationMetric.operation_type,
                func.count(),
                func.count(OperationMetric.document_url.distinct()),
            )
            .where(OperationMetric.operation_type != OperationType.WEBHOOK)
            .group_by(OperationMetric.operation_type)
        )
        assert {tuple(row) for row in by_type} >= {
            (OperationType.WORKER, PAGES, PAGES),
            (OperationType.QDRANT, PAGES, PAGES),
        }
        shared = await connection.scalars(
            select(OperationMetric.extra_metadata["pages"].as_integer()).where(
                OperationMetric.operation_type == OperationType.QDRANT
            )
        )
        assert sorted(shared) == sorted(len(call) for call in calls for _ in call)
    for stages, total_ms, unaccounted_ms in await scalars(
        database, PageAttempt.stages, PageAttempt.total_ms, PageAttempt.unaccounted_ms
    ):
        assert sum(stages.values()) + unaccounted_ms == total_ms


async def test_one_that_cannot_be_stored_leaves_the_others_alone(
    database: Database, indexer: PageIndexer, monkeypatch: pytest.MonkeyPatch
) -> None:
    Calls(monkeypatch, {"Page 5": ValueError("not this one")})
    await deliver_numbered(database, PAGES)

    raised = await index_all(database, indexer)

    assert [type(error) for error in raised].count(PutBack) == 1
    after = await states(database)
    assert after.pop(url_of(5)) == PageState.QUEUED
    assert set(after.values()) == {PageState.INDEXED}
    await assert_exact(database)
    attempts = await scalars(database, PageAttempt.outcome, PageAttempt.error_code)
    assert attempts.count(("retried", "internal_error")) == 1
    assert attempts.count(("indexed", None)) == PAGES - 1


async def test_a_page_that_makes_the_index_fail_is_stored_alone_the_next_time(
    database: Database, indexer: PageIndexer, monkeypatch: pytest.MonkeyPatch
) -> None:
    Calls(monkeypatch, {"Page 5": IndexUnavailable("no answer")})
    await deliver_numbered(database, PAGES)
    assert PutBack in map(type, await index_all(database, indexer))

    await index_all(database, indexer)

    after = await states(database)
    assert after.pop(url_of(5)) == PageState.QUEUED
    assert set(after.values()) == {PageState.INDEXED}
    await assert_exact(database)


async def test_an_outage_costs_each_page_one_attempt(
    database: Database, indexer: PageIndexer, monkeypatch: pytest.MonkeyPatch
) -> None:
    failing: dict[str, Exception] = {"Page": IndexUnavailable("no answer")}
    Calls(monkeypatch, failing)
    await deliver_numbered(database, PAGES)

    raised = await index_all(database, indexer)

    assert [str(error) for error in raised] == ["no answer"] * PAGES
    assert set((await states(database)).values()) == {PageState.QUEUED}
    assert await scalars(database, PageAttempt.outcome) == ["retried"] * PAGES
    failed = select(OperationMetric.operation_type).where(~OperationMetric.success)
    async with database.transaction() as connection:
        assert sorted(await connection.scalars(failed)) == ["qdrant"] * PAGES + ["worker"] * PAGES
    await assert_exact(database)
    failing.clear()
    assert await index_all(database, indexer) == [None] * PAGES


async def test_two_pages_of_one_document_are_stored_one_after_the_other(
    database: Database, indexer: PageIndexer
) -> None:
    for source in (A, B):
        await deliver(database, CRAWL, "crawl.page", [document(source, "https://c.example/")])
        words = {"markdown": f"Words of {source}."}
        await deliver(database, CRAWL, "crawl.page", [document(source + "x", "https://d.example/") | words])

    assert await index_all(database, indexer) == [None] * 4

    assert set((await states(database)).values()) == {PageState.INDEXED}
    found = await scalars(database, Document.url, Document.revision)
    assert sorted(found) == [("https://c.example/", 2), ("https://d.example/", 2)]
    assert len(await scalars(database, DocumentCrawl.crawl_id)) == 2
    await assert_exact(database)


async def test_a_page_delivered_again_while_it_is_indexed_leaves_the_others_alone(
    database: Database, indexer: PageIndexer, server: FakeEmbeddingServer
) -> None:
    await deliver_numbered(database, PAGES)
    server.stuck_on = "Page"
    asked = len(server.requests)
    working = asyncio.create_task(index_all(database, indexer))
    while len(server.requests) == asked:  # noqa: ASYNC110 - the server is another thread
        await asyncio.sleep(0.01)
    await deliver(database, CRAWL, "crawl.page", [document(url_of(5)) | {"markdown": "New words."}])
    server.stuck_on = None

    assert await working == [None] * PAGES

    after = await states(database)
    assert after.pop(url_of(5)) == PageState.QUEUED
    assert set(after.values()) == {PageState.INDEXED}
    assert await index_all(database, indexer) == [None]
    assert (await scalars(database, PageAttempt.outcome)).count("superseded") == 1
    await assert_exact(database)


async def test_workers_with_the_same_documents_neither_wait_for_each_other_for_ever_nor_lose_any(
    database: Database, indexing: IndexingService
) -> None:
    crawls = [f"crawl-{number}" for number in range(3)]
    for crawl_id in crawls:
        await deliver_numbered(database, PAGES, crawl_id, words=f"of {crawl_id}")
    workers = [
        PageIndexer(database, indexing, f"host:{number}", max_attempts=3, timeout_seconds=60)
        for number in range(3)
    ]

    raised = await index_all(database, *workers, crawls=crawls)
    while left := [error for error in raised if error]:
        assert set(map(type, left)) == {PutBack}, left
        raised = await index_all(database, *workers, crawls=crawls)

    for crawl_id in crawls:
        assert set((await states(database, crawl_id)).values()) <= {"indexed", "unchanged"}
    assert len(await scalars(database, DocumentCrawl.crawl_id)) == 3 * PAGES
    await assert_exact(database, *crawls)


async def test_a_worker_that_stops_puts_back_what_it_is_claiming(
    database: Database, indexer: PageIndexer, monkeypatch: pytest.MonkeyPatch
) -> None:
    claiming = asyncio.Event()

    async def slowly(*arguments: Any) -> list[ClaimedPage | None]:
        claimed = await claim_pages(*arguments)
        claiming.set()
        await asyncio.sleep(0.1)
        return claimed

    monkeypatch.setattr(index_page, "claim_pages", slowly)
    await deliver_numbered(database, PAGES)
    working = asyncio.create_task(index_all(database, indexer))
    await claiming.wait()
    working.cancel()
    await asyncio.wait([working])
    async with asyncio.timeout(60):
        while await scalars(database, PageAttempt.outcome) != ["retried"] * PAGES:  # noqa: ASYNC110
            await asyncio.sleep(0.05)

    assert set((await states(database)).values()) == {PageState.QUEUED}
    assert await index_all(database, indexer) == [None] * PAGES
    await assert_exact(database)


async def test_a_claim_of_a_page_that_is_gone_or_settled_is_void_beside_others(
    database: Database, indexer: PageIndexer
) -> None:
    await deliver_numbered(database, 2)
    first, second = await queued(database, CRAWL)
    await indexer.index(first.page_id, first.revision, first.job_id)
    void = [first, PageJob(999, 1, 1), PageJob(second.page_id, second.revision + 1, second.job_id)]
    began_at = datetime.now(UTC)

    jobs = [*void, second]
    await asyncio.gather(*[indexer.index(job.page_id, job.revision, job.job_id) for job in jobs])

    assert set((await states(database)).values()) == {PageState.INDEXED}
    started = await scalars(database, PageAttempt.started_at)
    assert len([at for at in started if at > began_at]) == 1
    await assert_exact(database)
