"""Two that work on the same crawl in the same moment, and answers of the database that get lost."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import func, select, text
from sqlalchemy.ext.asyncio import AsyncConnection

from crawlscope.core.errors import NotFoundError
from crawlscope.core.settings import Settings
from crawlscope.core.vocabulary import OperationType, PageState
from crawlscope.crawls import reconciliations
from crawlscope.crawls.repository import delete_crawl, note_cancel
from crawlscope.database.engine import Database
from crawlscope.indexing.generations.opened import OpenGenerations
from crawlscope.indexing.index.edge_folders import EdgeIndexes
from crawlscope.indexing.service import IndexingService
from crawlscope.indexing.sparse import Bm25Encoder
from crawlscope.models import (
    CrawlSession,
    Delivery,
    Document,
    OperationMetric,
    Page,
    PageAttempt,
    Reconciliation,
)
from crawlscope.pages.attempts import claim_pages
from crawlscope.pages.index_page import EndedAttempt, Outcome, PageIndexer, end_attempts, still_claimed
from crawlscope.pages.receive import Effect, receive_pages
from crawlscope.pages.retry import retry_pages
from crawlscope.processes.maintenance.sweep import reconcile_crawls
from crawlscope.sessions.changes import SessionChange, lock_session
from crawlscope.sessions.recount import recount
from crawlscope.sessions.repository import lock_for_deletion
from crawlscope.timing import TimingContext
from crawlscope.timing.store import record_operations, write_changes
from crawlscope.webhooks import acceptance
from crawlscope.webhooks.acceptance import accept_delivery
from crawlscope.webhooks.retention import drop_bodies
from tests.support.fakes.embedding_server import FakeEmbeddingServer
from tests.support.fakes.firecrawl_server import FakeFirecrawl, Site
from tests.support.polling import until_one_waits
from tests.support.producing import (
    A,
    B,
    C,
    attempt,
    deliver,
    deliver_pages,
    document,
    due,
    end,
    fail_pages,
    index_pages,
    note_settled,
    put_pages_back,
    queued,
)

QUIET = timedelta(minutes=5)


@asynccontextmanager
async def some_index(database: Database, folder: Path) -> AsyncIterator[OpenGenerations]:
    with FakeEmbeddingServer() as server:
        settings = Settings(data_dir=folder, embedder="tei", embedder_url=server.url)
        opened = OpenGenerations(settings, EdgeIndexes(folder), Bm25Encoder())
        await opened.ensure_serving(database)
        yield opened
        await opened.aclose()


async def outcomes(database: Database) -> list[str | None]:
    async with database.transaction() as connection:
        return list(await connection.scalars(select(PageAttempt.outcome).order_by(PageAttempt.number)))


async def operations(database: Database) -> int:
    """The number of operations of workers and their stages."""
    counted = select(func.count()).where(OperationMetric.operation_type != OperationType.WEBHOOK)
    async with database.transaction() as connection:
        return int(await connection.scalar(counted) or 0)


async def completed_v0(database: Database, *documents: dict[str, Any]) -> None:
    body = {"type": "crawl.completed", "jobId": "crawl-1", "success": True, "data": documents}
    await accept_delivery(database, json.dumps(body).encode(), datetime.now(UTC))


async def test_an_attempt_whose_commit_was_not_answered_counts_once(database: Database) -> None:
    await deliver_pages(database, "crawl-1", A)
    [job] = await queued(database, "crawl-1")
    claim, measured = await attempt(database, job)
    assert await end(database, claim, measured, Outcome(PageState.INDEXED, 3))
    put_back = Outcome(PageState.QUEUED, error_code="database_unavailable", error="the connection was lost")
    assert not await end(database, claim, measured, put_back)
    assert await outcomes(database) == ["indexed"]
    assert await operations(database) == len(measured)
    assert await database.run(lambda connection: recount(connection, "crawl-1")) == {}


async def test_an_attempt_at_replaced_content_is_no_death_of_its_worker(database: Database) -> None:
    await deliver_pages(database, "crawl-1", A)
    [job] = await queued(database, "crawl-1")
    claim, measured = await attempt(database, job)
    await deliver(database, "crawl-1", "crawl.page", [{**document(A), "markdown": "New words."}])
    await index_pages(database, "crawl-1")
    assert await outcomes(database) == ["superseded", "indexed"]
    for _ in range(2):
        assert not await end(database, claim, measured, Outcome(PageState.INDEXED, 3))
    assert await outcomes(database) == ["superseded", "indexed"]
    assert await operations(database) == 2 * len(measured)
    async with database.transaction() as connection:
        failed = await connection.scalar(select(func.count()).where(~OperationMetric.success))
        totals = list(await connection.scalars(select(PageAttempt.total_ms)))
    assert failed == 0
    assert all(totals)


async def test_a_worker_that_was_given_up_and_lives_leaves_the_page_to_the_next(database: Database) -> None:
    await deliver_pages(database, "crawl-1", A)
    [job] = await queued(database, "crawl-1")
    slow, measured = await attempt(database, job)
    async with database.transaction() as connection:
        assert await claim_pages(connection, [job], "worker-2") != [None]
    put_back = Outcome(PageState.QUEUED, error_code="index_unavailable", error="no answer")
    assert not await end(database, slow, measured, put_back)
    assert await outcomes(database) == ["lost", None]
    async with database.transaction() as connection:
        assert await connection.scalar(select(Page.state)) == PageState.INDEXING


async def test_a_failed_try_is_no_sign_of_the_crawler(database: Database) -> None:
    await deliver_pages(database, "crawl-1", A, at=datetime.now(UTC) - timedelta(hours=3))
    await put_pages_back(database, "crawl-1", "embedder_unavailable", "no answer")
    assert await due(database, QUIET) == "crawl-1"


async def test_a_page_that_comes_while_its_crawl_is_deleted_is_ignored(
    database: Database, tmp_path: Path
) -> None:
    late: list[asyncio.Task[dict[str, Any]]] = []
    async with some_index(database, tmp_path) as opened:
        indexing = IndexingService(database, opened)
        await deliver_pages(database, "crawl-1", A)
        await index_with(indexing, database)

        class SlowForgetting(IndexingService):
            async def forget_crawl(self, connection: AsyncConnection, crawl_id: str) -> None:
                late.append(asyncio.create_task(deliver(database, crawl_id, "crawl.page", [document(B)])))
                await until_one_waits(database)
                await super().forget_crawl(connection, crawl_id)

        forgetting = SlowForgetting(database, opened)
        await database.run(lambda connection: delete_crawl(connection, "crawl-1", forgetting))
        assert (await late[0])["status"] == "ignored"
    await require_nothing_left(database)


async def require_nothing_left(database: Database) -> None:
    async with database.transaction() as connection:
        for table in (CrawlSession, Page, Document):
            assert await connection.scalar(select(func.count()).select_from(table)) == 0


async def index_with(indexing: IndexingService, database: Database) -> None:
    indexer = PageIndexer(database, indexing, "worker-1", max_attempts=3, timeout_seconds=60)
    waiting = select(Page.id, Page.revision, Page.job_id).where(Page.state == PageState.QUEUED)
    async with database.transaction() as connection:
        jobs = (await connection.execute(waiting)).all()
    for page_id, revision, job_id in jobs:
        assert job_id is not None
        await indexer.index(page_id, revision, job_id)


async def test_a_deletion_waits_for_a_delivery_that_has_begun(
    database: Database, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    await deliver_pages(database, "crawl-1", A)
    deleting: list[asyncio.Task[None]] = []
    async with some_index(database, tmp_path) as opened:
        delete = partial(delete_crawl, crawl_id="crawl-1", indexing=IndexingService(database, opened))

        async def overtaken(*arguments: Any) -> list[Effect]:
            monkeypatch.undo()
            deleting.append(asyncio.create_task(database.run(delete)))
            await until_one_waits(database)
            return await receive_pages(*arguments)

        monkeypatch.setattr(acceptance, "receive_pages", overtaken)
        answer = await deliver(database, "crawl-1", "crawl.page", [document(A) | {"markdown": "Others."}])
        assert answer["status"] == "queued"
        await deleting[0]
    await require_nothing_left(database)
    with pytest.raises(NotFoundError):
        await database.run(lambda connection: note_cancel(connection, "crawl-1"))


async def test_deletions_and_deliveries_never_wait_for_each_other(
    own_database_url: str, tmp_path: Path
) -> None:
    """PostgreSQL would end one of two that do, and count a deadlock."""
    crawls = [f"crawl-{number}" for number in range(6)]
    async with opened_database(own_database_url) as database, some_index(database, tmp_path) as opened:
        indexing = IndexingService(database, opened)

        async def deliver_again(crawl_id: str) -> None:
            for number in range(8):
                words = {"markdown": f"Words {number}."}
                await deliver(database, crawl_id, "crawl.page", [document(url) | words for url in (B, A, C)])

        async def delete(crawl_id: str) -> None:
            await asyncio.sleep(0.05)
            await database.run(lambda connection: delete_crawl(connection, crawl_id, indexing))

        for crawl_id in crawls:
            await deliver_pages(database, crawl_id, A, B, C)
        await asyncio.gather(*map(deliver_again, crawls), *map(delete, crawls))
        await require_nothing_left(database)
    async with opened_database(own_database_url) as database, database.transaction() as connection:
        counted = text("SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()")
        assert await connection.scalar(counted) == 0  # sessions that ended have reported theirs


@asynccontextmanager
async def opened_database(url: str) -> AsyncIterator[Database]:
    database = Database.open(url, pool_size=8)
    yield database
    await database.close()


async def test_sessions_of_several_crawls_are_locked_in_the_order_of_their_ids(database: Database) -> None:
    for crawl_id in ("crawl-2", "crawl-1"):
        await deliver_pages(database, crawl_id, A)
    changes = {crawl_id: SessionChange(failures_without_url=1) for crawl_id in ("crawl-2", "crawl-1")}
    async with database.transaction() as busy:
        assert await lock_session(busy, "crawl-1")
        changing = asyncio.create_task(database.run(partial(write_changes, changes=changes)))
        await until_one_waits(database)
        await require_free(database, "crawl-2")
    await changing
    async with database.transaction() as connection:
        assert list(await connection.scalars(select(CrawlSession.failures_without_url))) == [1, 1]


async def test_measurements_lock_no_session_before_all_their_crawls_are_kept(database: Database) -> None:
    """The deletion of one could wait for a page whose worker waits for that session."""
    for crawl_id in ("crawl-1", "crawl-2"):
        await deliver_pages(database, crawl_id, A)
    now = datetime.now(UTC)
    measured = [
        TimingContext.past(OperationType.EMBEDDING, "embed_query", now, now, crawl_id=crawl_id)
        for crawl_id in ("crawl-1", "crawl-2")
    ]
    async with database.transaction() as deleting:
        await lock_for_deletion(deleting, "crawl-2")
        recording = asyncio.create_task(database.run(partial(record_operations, measurements=measured)))
        await until_one_waits(database)
        await require_free(database, "crawl-1")
    await recording
    for crawl_id in ("crawl-1", "crawl-2"):
        assert await database.run(partial(recount, crawl_id=crawl_id)) == {}


async def require_free(database: Database, crawl_id: str) -> None:
    """Nobody has locked the session."""
    session = select(CrawlSession.crawl_id).where(CrawlSession.crawl_id == crawl_id)
    async with database.transaction() as connection:
        assert await connection.scalar(session.with_for_update(nowait=True)) == crawl_id


async def test_all_pages_delivered_again_do_not_wait_for_one_that_waits_for_them(database: Database) -> None:
    await deliver_pages(database, "crawl-1", A, B)
    first, second = [await attempt(database, job) for job in await queued(database, "crawl-1")]
    assert await end(database, *first, Outcome(PageState.INDEXED, 1))
    tries, locked = 0, asyncio.Event()

    async def settle(connection: AsyncConnection) -> None:
        nonlocal tries
        tries += 1
        assert await still_claimed(connection, [second[0]]) == [True]
        locked.set()
        await asyncio.sleep(0.4)  # the index takes its time
        ended = EndedAttempt(second[0], Outcome(PageState.INDEXED, 1), second[1])
        await end_attempts(connection, [ended])

    async def again() -> None:
        await locked.wait()
        await completed_v0(database, document(A), document(B))

    await asyncio.gather(database.run(settle), again())
    assert tries == 1
    await index_pages(database, "crawl-1")
    assert await database.run(lambda connection: recount(connection, "crawl-1")) == {}


async def test_a_retry_locks_pages_in_the_order_of_deliveries(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    await deliver_pages(database, "crawl-1", B, A)
    await fail_pages(database, "crawl-1", "internal_error", "it went wrong")
    tries = 0

    async def retry(connection: AsyncConnection) -> int:
        nonlocal tries
        tries += 1
        return (await retry_pages(connection, "crawl-1")).queued

    async with database.transaction() as connection:
        await connection.execute(select(Page.id).where(Page.source_url == A).with_for_update())
        retrying = asyncio.create_task(database.run(retry))
        await asyncio.sleep(0.2)
        await connection.execute(select(Page.id).where(Page.source_url == B).with_for_update())
    assert await retrying == 2
    assert tries == 1


async def test_bodies_that_are_being_read_are_dropped_another_time(database: Database) -> None:
    await deliver_pages(database, "crawl-1", A, B)
    later = datetime.now(UTC) + timedelta(days=1)
    async with database.transaction() as connection:
        await connection.execute(select(Delivery.id).order_by(Delivery.id).limit(1).with_for_update())
        assert await database.run(lambda connection: drop_bodies(connection, later)) == 1
    assert await database.run(lambda connection: drop_bodies(connection, later)) == 1


async def test_what_came_while_firecrawl_was_asked_is_asked_after_again(database: Database) -> None:
    await deliver(database, "crawl-1", "crawl.completed", at=datetime.now(UTC) - timedelta(minutes=10))
    asked_at = datetime.now(UTC)
    await deliver_pages(database, "crawl-1", A)
    await note_settled(database, "crawl-1", asked_at)
    async with database.transaction() as connection:
        check = (await connection.execute(select(*Reconciliation.__table__.columns))).one()
        assert (check.settled, check.next_check_at > asked_at) == (False, True)
    await note_settled(database, "crawl-1")
    assert await due(database) is None


async def test_a_crawl_is_checked_by_one_as_long_as_that_one_lives(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lease = timedelta(seconds=2)
    monkeypatch.setattr(reconciliations, "LEASE", lease)
    await deliver(database, "crawl-1", "crawl.started", at=datetime.now(UTC) - timedelta(minutes=10))
    with FakeFirecrawl(Site([])) as firecrawl:
        firecrawl.outage = "hanging"
        settings = Settings(data_dir=tmp_path, firecrawl_url=firecrawl.url, reconcile_after_seconds=1)
        checking = asyncio.create_task(reconcile_crawls(settings, database))
        await asyncio.to_thread(firecrawl.wait_until_asked)
        await asyncio.sleep(lease.total_seconds() + 0.2)
        assert await due(database) is None
        checking.cancel()
        async with asyncio.timeout(30):
            while await due(database) != "crawl-1":  # noqa: ASYNC110 - the database sends no signal
                await asyncio.sleep(0.1)
