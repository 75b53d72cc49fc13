"""Firecrawl is asked after crawls that go on, and those that have ended are compared at once."""

from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import select, update

from crawlscope.core.vocabulary import CrawlStatus, ReconcileState
from crawlscope.crawls import reconciliations
from crawlscope.crawls.reconcile import Reconciler
from crawlscope.database.engine import Database
from crawlscope.firecrawl.client import FirecrawlClient
from crawlscope.insights.insights import Insights
from crawlscope.models import CrawlSession, Reconciliation
from crawlscope.processes.maintenance.sweep import Sweep
from tests.support.fakes.firecrawl_server import FakeFirecrawl, Site
from tests.support.producing import deliver, index_pages

DOCS = "https://docs.example/"


@pytest.fixture
def firecrawl() -> Iterator[FakeFirecrawl]:
    with FakeFirecrawl(Site.of(3)) as server:
        yield server


@pytest.fixture
async def sweep(database: Database, firecrawl: FakeFirecrawl) -> AsyncIterator[Sweep]:
    async with FirecrawlClient(firecrawl.url, patience_seconds=2) as client:
        yield Sweep(database, Reconciler(database, client), quiet_seconds=300)


async def check_of(database: Database) -> Any:
    async with database.transaction() as connection:
        return (await connection.execute(select(*Reconciliation.__table__.columns))).one()


async def make_due(database: Database) -> None:
    """As if the pause until the next check were over."""
    async with database.transaction() as connection:
        await reconciliations.enrol_all(connection)
        await connection.execute(update(Reconciliation).values(next_check_at=datetime.now(UTC)))


async def crawl_of(database: Database, crawl_id: str) -> Any:
    return await Insights(database, asks_firecrawl=True).crawl(crawl_id)


def seconds_until_next(check: Any) -> float:
    return float((check.next_check_at - datetime.now(UTC)).total_seconds())


async def test_an_end_that_nobody_told_is_found(
    database: Database, firecrawl: FakeFirecrawl, sweep: Sweep
) -> None:
    firecrawl.hold_after = 2
    job = firecrawl.start("crawl", {"url": DOCS})
    firecrawl.wait_until_scraped(job.id, 2)
    await deliver(database, job.id, "crawl.started")
    await make_due(database)
    assert await sweep.check_next()
    check = await check_of(database)
    assert (check.state, check.completed, check.total, check.settled) == ("running", 2, 3, False)
    assert 0 < seconds_until_next(check) <= 6
    assert len(firecrawl.requests) == 1, "while it goes on one small request is enough"
    crawl = await crawl_of(database, job.id)
    assert (crawl.pages_pending, crawl.awaits) == (0, "Firecrawl to finish")
    assert not await sweep.check_next(), "not before its pause is over"

    firecrawl.hold_after = None
    firecrawl.wait_until_ended(job.id)
    await make_due(database)
    assert await sweep.check_next()
    await index_pages(database, job.id)
    crawl = await crawl_of(database, job.id)
    assert (crawl.status, crawl.pages_indexed, crawl.sealed) == (CrawlStatus.COMPLETED, 3, True)
    assert not await sweep.check_next()


async def test_an_end_that_is_told_is_checked_at_once_and_until_firecrawl_answers(
    database: Database, firecrawl: FakeFirecrawl, sweep: Sweep
) -> None:
    job = firecrawl.start("crawl", {"url": DOCS})
    firecrawl.wait_until_ended(job.id)
    firecrawl.outage = "503"
    await deliver(database, job.id, "crawl.completed")
    pauses: list[int] = []
    for _ in range(4):
        if pauses:
            await make_due(database)
        assert await sweep.check_next()
        check = await check_of(database)
        assert check.state == ReconcileState.FAILING
        pauses.append(round(seconds_until_next(check)))
    assert pauses == [2, 4, 8, 16]
    assert not (await crawl_of(database, job.id)).sealed
    firecrawl.outage = None
    await make_due(database)
    assert await sweep.check_next()
    await index_pages(database, job.id)
    assert (await crawl_of(database, job.id)).sealed


async def test_a_crawl_that_goes_on_after_it_was_told_to_have_ended_is_not_sealed(
    database: Database, firecrawl: FakeFirecrawl, sweep: Sweep
) -> None:
    firecrawl.hold_after = 2
    job = firecrawl.start("batch_scrape", {"urls": [f"{DOCS}{number}" for number in range(3)]})
    firecrawl.wait_until_scraped(job.id, 2)
    await deliver(database, job.id, "batch_scrape.completed")
    assert await sweep.check_next()
    check = await check_of(database)
    assert (check.settled, seconds_until_next(check) < 4) == (False, True)
    assert (await crawl_of(database, job.id)).verdict.verdict == "comparing with Firecrawl"
    firecrawl.hold_after = None
    firecrawl.wait_until_ended(job.id)
    await make_due(database)
    assert await sweep.check_next()
    await index_pages(database, job.id)
    crawl = await crawl_of(database, job.id)
    assert (crawl.pages_indexed, crawl.sealed) == (3, True)


async def test_after_an_outage_pages_are_compared_while_the_crawl_goes_on(
    database: Database, firecrawl: FakeFirecrawl, sweep: Sweep
) -> None:
    firecrawl.hold_after = 2
    job = firecrawl.start("crawl", {"url": DOCS})
    firecrawl.wait_until_scraped(job.id, 2)
    await deliver(database, job.id, "crawl.started")
    await database.run(reconciliations.compare_after_outage)
    assert await sweep.check_next()
    check = await check_of(database)
    assert (check.added, check.state, check.in_full) == (2, "running", False)


async def test_an_outage_unseals_nothing_by_itself(
    database: Database, firecrawl: FakeFirecrawl, sweep: Sweep
) -> None:
    """What was compared stays so, also when Firecrawl is away then, or has forgotten the crawl."""
    job = firecrawl.start("crawl", {"url": DOCS})
    firecrawl.wait_until_ended(job.id)
    await deliver(database, job.id, "crawl.completed")
    assert await sweep.check_next()
    await index_pages(database, job.id)
    for misfortune in ("none", "away", "forgotten"):
        firecrawl.outage = "503" if misfortune == "away" else None
        if misfortune == "forgotten":
            firecrawl.expire(job.id)
        await database.run(reconciliations.compare_after_outage)
        assert (await crawl_of(database, job.id)).sealed, misfortune
        assert await sweep.check_next()
        crawl = await crawl_of(database, job.id)
        assert (crawl.sealed, crawl.completeness) == (True, "compared"), misfortune


async def test_silence_makes_asking_rare_and_news_frequent(
    database: Database, firecrawl: FakeFirecrawl, sweep: Sweep
) -> None:
    firecrawl.hold_after = 1
    job = firecrawl.start("crawl", {"url": DOCS})
    firecrawl.wait_until_scraped(job.id, 1)
    await deliver(database, job.id, "crawl.started", at=datetime.now(UTC) - timedelta(hours=20))
    await make_due(database)
    assert await sweep.check_next()
    long_ago = datetime.now(UTC) - timedelta(hours=20)
    async with database.transaction() as connection:
        await connection.execute(update(CrawlSession).values(last_fact_at=long_ago))
        await connection.execute(update(Reconciliation).values(moved_at=long_ago))
    await make_due(database)
    assert await sweep.check_next()
    assert 3_500 < seconds_until_next(await check_of(database)) <= 3_600
    firecrawl.hold_after = 2
    firecrawl.wait_until_scraped(job.id, 2)
    await make_due(database)
    assert await sweep.check_next()
    assert seconds_until_next(await check_of(database)) <= 16, "it moves again"


async def test_a_crawl_that_firecrawl_never_knew_is_not_asked_after_for_ever(
    database: Database, firecrawl: FakeFirecrawl, sweep: Sweep
) -> None:
    await deliver(database, "0b0c5f0e", "crawl.started")
    pauses = []
    for _ in range(3):
        await make_due(database)
        assert await sweep.check_next()
        pauses.append(round(seconds_until_next(await check_of(database))))
    assert pauses == [10, 20, 40]
    async with database.transaction() as connection:
        await connection.execute(
            update(CrawlSession).values(last_fact_at=datetime.now(UTC) - timedelta(hours=1))
        )
    await make_due(database)
    assert await sweep.check_next()
    check = await check_of(database)
    assert (check.state, check.settled, check.next_check_at) == ("unknown", True, None)
