"""When a page is tried again, after what delay, and what settles it instead."""

import asyncio
import os
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select, text

from crawlscope.core.settings import Settings
from crawlscope.database.engine import Database
from crawlscope.indexing.generations.opened import OpenGenerations
from crawlscope.indexing.index.edge_folders import EdgeIndexes
from crawlscope.indexing.service import IndexingService
from crawlscope.indexing.sparse import Bm25Encoder
from crawlscope.pages.attempts import ATTEMPTS, PageJob, WorkerDeath, claim_pages, pages_of_dead, worker_name
from crawlscope.pages.delivered import Arrival, DeliveredPage
from crawlscope.pages.index_page import PageIndexer, PutBack
from crawlscope.pages.receive import PageDelivery, receive_pages
from crawlscope.pages.repository import PAGES
from crawlscope.pages.retry import PageTimeout, record_crash, retry_pages
from crawlscope.processes.supervisor.worker_deaths import requeue_orphans
from crawlscope.processes.worker.circuit import OUTAGES, Outages
from crawlscope.sessions.recount import recount
from crawlscope.sessions.repository import ensure_session
from crawlscope.timing.store import OPERATIONS
from tests.support.fakes.embedding_server import FakeEmbeddingServer

CRAWL = "crawl-1"
WORKER = "host:17"


@pytest.fixture
def server() -> Iterator[FakeEmbeddingServer]:
    with FakeEmbeddingServer() as server:
        yield server


@pytest.fixture
def bm25() -> Bm25Encoder:
    return Bm25Encoder()


@pytest.fixture
async def indexing(
    database: Database, server: FakeEmbeddingServer, tmp_path: Path, bm25: Bm25Encoder
) -> AsyncIterator[IndexingService]:
    settings = Settings(data_dir=tmp_path, embedder="tei", embedder_url=server.url)
    opened = OpenGenerations(settings, EdgeIndexes(tmp_path), bm25)
    await opened.ensure_serving(database)
    yield IndexingService(database, opened)
    await opened.aclose()


@pytest.fixture
def indexer(database: Database, indexing: IndexingService) -> PageIndexer:
    return PageIndexer(database, indexing, WORKER, max_attempts=3, timeout_seconds=60)


async def deliver(database: Database, name: str) -> int:
    """The page's id."""
    now = datetime.now(UTC)
    url = f"https://example.com/{name}"
    page = DeliveredPage(url, url, Arrival(True, 0, True, now, ""), markdown=f"Text of {name}.")
    async with database.transaction() as connection:
        await ensure_session(connection, CRAWL, now)
        await receive_pages(connection, [PageDelivery(CRAWL, [page])])
        return (await connection.scalars(select(PAGES.c.id).where(PAGES.c.source_url == url))).one()


async def page_of(database: Database, page_id: int) -> Any:
    async with database.transaction() as connection:
        return (await connection.execute(select(*PAGES.c).where(PAGES.c.id == page_id))).one()


async def outcomes(database: Database, page_id: int) -> list[str | None]:
    async with database.transaction() as connection:
        found = select(ATTEMPTS.c.outcome).where(ATTEMPTS.c.page_id == page_id)
        return list(await connection.scalars(found.order_by(ATTEMPTS.c.number)))


async def index(database: Database, indexer: PageIndexer, page_id: int) -> float | None:
    """The seconds after which it is to be tried again; None for a page that is settled."""
    page = await page_of(database, page_id)
    try:
        await indexer.index(page_id, page.revision, page.job_id)
    except PutBack as again:
        return again.delay_seconds
    return None


async def test_an_outage_fails_no_page_but_a_dependency_that_works_for_other_pages_does(
    database: Database, server: FakeEmbeddingServer, indexer: PageIndexer
) -> None:
    server.broken_by = "Text of cursed"
    cursed = await deliver(database, "cursed")
    delays = [await index(database, indexer, cursed) for _ in range(25)]
    assert delays[:8] == [1, 2, 4, 8, 16, 32, 60, 60]
    assert delays[-1] == 60
    assert (await page_of(database, cursed)).state == "queued"
    good = await deliver(database, "good")
    assert await index(database, indexer, good) is None
    assert await index(database, indexer, cursed) is None
    page = await page_of(database, cursed)
    assert (page.state, page.error_code) == ("failed", "embedder_unavailable")
    assert "answered 500" in page.error


async def test_documents_stored_before_the_first_failure_do_not_count(
    database: Database, server: FakeEmbeddingServer, indexer: PageIndexer
) -> None:
    await index(database, indexer, await deliver(database, "good"))
    server.fail_with(503)
    page_id = await deliver(database, "unlucky")
    for _ in range(21):
        await index(database, indexer, page_id)
    server.fail_with(None)
    assert await index(database, indexer, page_id) is None
    assert (await page_of(database, page_id)).state == "indexed"


async def test_failures_of_dependencies_do_not_count_as_unexpected_errors(
    database: Database,
    server: FakeEmbeddingServer,
    bm25: Bm25Encoder,
    indexer: PageIndexer,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    page_id = await deliver(database, "strange")
    server.fail_with(503)
    for _ in range(4):
        await index(database, indexer, page_id)
    server.fail_with(None)
    monkeypatch.setattr(bm25, "encode_documents", lambda *_: 1 / 0)
    assert [await index(database, indexer, page_id) for _ in range(3)] == [1, 2, None]
    page = await page_of(database, page_id)
    assert (page.state, page.error_code, page.error) == ("failed", "internal_error", "division by zero")
    async with database.transaction() as connection:
        assert (await retry_pages(connection, CRAWL)).queued == 1
    assert await index(database, indexer, page_id) == 1, "a retry resets the attempts"


async def test_an_error_may_contain_any_characters(
    database: Database, bm25: Bm25Encoder, indexer: PageIndexer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def complain(*_: object) -> None:
        raise ValueError("what\x00ever \ud800")

    monkeypatch.setattr(bm25, "encode_documents", complain)
    page_id = await deliver(database, "odd")
    assert [await index(database, indexer, page_id) for _ in range(3)] == [1, 2, None]
    assert await outcomes(database, page_id) == ["retried", "retried", "failed"]
    await Outages(database, WORKER).note("embedder", "what\x00ever \ud800")
    async with database.transaction() as connection:
        assert await connection.scalar(select(OUTAGES.c.part)) == "embedder"


async def test_a_cancelled_attempt_does_not_count(
    database: Database, server: FakeEmbeddingServer, indexer: PageIndexer
) -> None:
    server.stuck_on = "slow"
    page_id = await deliver(database, "slow")
    for _ in range(4):
        work = asyncio.create_task(index(database, indexer, page_id))
        asked = len(server.requests)
        while len(server.requests) == asked:  # noqa: ASYNC110 - the server is another thread
            await asyncio.sleep(0.01)
        work.cancel()
        await asyncio.wait([work])
        assert (await page_of(database, page_id)).state == "queued"
    server.stuck_on = None
    assert await index(database, indexer, page_id) is None
    assert (await page_of(database, page_id)).state == "indexed"


async def test_a_job_that_another_one_replaced_is_void(database: Database, indexer: PageIndexer) -> None:
    page_id = await deliver(database, "page")
    page = await page_of(database, page_id)
    await indexer.index(page_id, page.revision, page.job_id - 1)
    assert (await page_of(database, page_id)).state == "queued"


# ---------------------------------------------------------------------- crashes


def death(began_at: datetime, worker: str = WORKER) -> WorkerDeath:
    return WorkerDeath(worker, began_at, datetime.now(UTC), "SIGKILL")


async def claim(database: Database, page_id: int, worker: str = WORKER) -> None:
    page = await page_of(database, page_id)
    async with database.transaction() as connection:
        assert await claim_pages(connection, [PageJob(page_id, page.revision, page.job_id)], worker) != [None]


async def record(database: Database, dead: WorkerDeath) -> dict[int, str | None]:
    """As `up` does."""
    async with database.transaction() as connection:
        found = await pages_of_dead(connection, dead)
    states: dict[int, str | None] = {}
    for page_id in found:
        async with database.transaction() as connection:
            states[page_id] = await record_crash(connection, page_id, dead)
    return states


async def jobs(database: Database, page_id: int) -> list[dict[str, object]]:
    async with database.transaction() as connection:
        payloads = await connection.scalars(
            text("SELECT convert_from(payload, 'UTF8')::jsonb FROM queue.pgqueuer")
        )
        return [payload for payload in payloads if payload["page_id"] == page_id]


async def test_at_the_third_crash_a_page_fails_and_all_counters_are_consistent(database: Database) -> None:
    began_at = datetime.now(UTC)
    poison, innocent = await deliver(database, "poison"), await deliver(database, "innocent")
    await claim(database, poison)
    await claim(database, innocent)
    assert await record(database, death(began_at)) == {poison: "queued", innocent: "queued"}
    assert await jobs(database, poison) == [{"page_id": poison, "revision": 1, "alone": True}]
    await claim(database, poison)
    assert await record(database, death(began_at)) == {poison: "queued"}
    await claim(database, poison)
    assert await record(database, death(began_at)) == {poison: "failed"}
    assert await record(database, death(began_at)) == {}
    page = await page_of(database, poison)
    assert (page.error_code, page.state) == ("worker_crashed", "failed")
    assert page.error == ("set aside: 3 workers died while they worked on this page, the last one: SIGKILL")
    assert await jobs(database, poison) == []
    assert await outcomes(database, innocent) == ["crashed"]
    async with database.transaction() as connection:
        operations = (
            await connection.execute(select(OPERATIONS.c.operation_type, OPERATIONS.c.success))
        ).all()
        assert Counter(map(tuple, operations)) == {("worker", False): 4}
        session = (await connection.execute(text("SELECT * FROM webhook.crawl_sessions"))).one()
        assert (session.total_pages, session.pages_failed, session.pages_pending) == (1, 1, 1)
        assert (
            not {"pages_failed", "pages_pending", "last_settled_at"}
            & (await recount(connection, CRAWL)).keys()
        )


async def test_a_crash_reported_late_counts_but_takes_no_page_from_its_new_worker(
    database: Database,
) -> None:
    began_at = datetime.now(UTC)
    page_id = await deliver(database, "page")
    await claim(database, page_id)
    await claim(database, page_id, "host:18")
    assert await outcomes(database, page_id) == ["lost", None]
    assert await record(database, death(began_at)) == {page_id: None}
    assert await outcomes(database, page_id) == ["crashed", None]
    assert (await page_of(database, page_id)).state == "indexing"
    async with database.transaction() as connection:
        operations = await connection.execute(select(OPERATIONS.c.operation_type))
        assert len(operations.all()) == 1


async def test_an_attempt_of_an_earlier_process_with_the_same_id_is_not_a_crash(
    database: Database,
) -> None:
    page_id = await deliver(database, "page")
    await claim(database, page_id)
    assert await record(database, death(datetime.now(UTC) + timedelta(minutes=2))) == {}
    assert await record(database, death(datetime.now(UTC) - timedelta(hours=1), "host:18")) == {}
    assert await outcomes(database, page_id) == [None]


async def test_new_content_resets_the_attempts(database: Database) -> None:
    began_at = datetime.now(UTC)
    page_id = await deliver(database, "page")
    for _ in range(2):
        await claim(database, page_id)
        await record(database, death(began_at))
    await deliver(database, "page")
    await claim(database, page_id)
    page = await page_of(database, page_id)
    assert page.revision == 2
    assert await record(database, death(began_at)) == {page_id: "queued"}


async def test_attempts_have_a_time_limit(
    database: Database, server: FakeEmbeddingServer, indexing: IndexingService
) -> None:
    server.stuck_on = "endless"
    hasty = PageIndexer(database, indexing, WORKER, max_attempts=5, timeout_seconds=0.2)
    page_id = await deliver(database, "endless")
    assert [await index(database, hasty, page_id) for _ in range(3)] == [1, 2, None]
    page = await page_of(database, page_id)
    assert (page.state, page.error_code) == ("failed", PageTimeout.code)
    server.stuck_on = None


async def test_pages_of_workers_that_died_with_the_service_are_queued_at_once(
    database: Database, indexer: PageIndexer
) -> None:
    gone, living, elsewhere = [await deliver(database, name) for name in ("gone", "living", "elsewhere")]
    await claim(database, gone, worker_name(2**22 + 1))
    await claim(database, living, worker_name(os.getpid()))
    await claim(database, elsewhere, "another-host:1")
    job = (await page_of(database, gone)).job_id

    assert await requeue_orphans(database) == 1

    page = await page_of(database, gone)
    assert (page.state, page.job_id == job) == ("queued", False)
    assert await outcomes(database, gone) == ["lost"]
    assert [await outcomes(database, each) for each in (living, elsewhere)] == [[None], [None]]
    assert await index(database, indexer, gone) is None
    assert await outcomes(database, gone) == ["lost", "indexed"]
    assert await database.run(lambda connection: recount(connection, CRAWL)) == {}
    assert await requeue_orphans(database) == 0
