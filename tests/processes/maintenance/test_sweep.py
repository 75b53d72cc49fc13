"""Running crawls are checked at Firecrawl, and ended ones are compared at once."""

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
from crawlscope.insights.service import Insights
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
    async with FirecrawlClient(firecrawl.url, patience_seconds=30) as client:
        yield Sweep(database, Reconciler(database, client), quiet_seconds=300)


async def started(database: Database, firecrawl: FakeFirecrawl, pages: int, **deliver_options: Any) -> str:
    """A crawl that Firecrawl holds after so many scraped pages, and whose start was delivered."""
    firecrawl.hold_after = pages
    job = firecrawl.start("crawl", {"url": DOCS})
    firecrawl.wait_until_scraped(job.id, pages)
    await deliver(database, job.id, "crawl.started", **deliver_options)
    return str(job.id)


async def check_of(database: Database) -> Any:
    async with database.transaction() as connection:
        return (await connection.execute(select(*Reconciliation.__table__.columns))).one()


async def make_due(database: Database) -> None:
    """As if the delay until the next check were over."""
    async with database.transaction() as connection:
        await reconciliations.enrol_all(connection)
        await connection.execute(update(Reconciliation).values(next_check_at=datetime.now(UTC)))


async def crawl_of(database: Database, crawl_id: str) -> Any:
    return await Insights(database, asks_firecrawl=True).crawl(crawl_id)


def seconds_until_next(check: Any) -> float:
    return float((check.next_check_at - datetime.now(UTC)).total_seconds())


async def test_an_end_that_was_not_delivered_is_found(
    database: Database, firecrawl: FakeFirecrawl, sweep: Sweep
) -> None:
    crawl_id = await started(database, firecrawl, 2)
    await make_due(database)
    assert await sweep.check_next()
    check = await check_of(database)
    assert (check.state, check.completed, check.total, check.settled) == ("running", 2, 3, False)
    assert 0 < seconds_until_next(check) <= 6
    assert len(firecrawl.requests) == 1, "while it runs one small request is enough"
    crawl = await crawl_of(database, crawl_id)
    assert (crawl.pages_pending, crawl.awaits) == (0, "Firecrawl to finish")
    assert not await sweep.check_next(), "not before its delay is over"

    firecrawl.hold_after = None
    firecrawl.wait_until_ended(crawl_id)
    await make_due(database)
    assert await sweep.check_next()
    await index_pages(database, crawl_id)
    crawl = await crawl_of(database, crawl_id)
    assert (crawl.status, crawl.pages_indexed, crawl.sealed) == (CrawlStatus.COMPLETED, 3, True)
    assert not await sweep.check_next()


async def test_a_delivered_end_is_checked_at_once_and_until_firecrawl_answers(
    database: Database, firecrawl: FakeFirecrawl, sweep: Sweep
) -> None:
    job = firecrawl.start("crawl", {"url": DOCS})
    firecrawl.wait_until_ended(job.id)
    firecrawl.outage = "503"
    await deliver(database, job.id, "crawl.completed")
    delays: list[int] = []
    for _ in range(4):
        if delays:
            await make_due(database)
        assert await sweep.check_next()
        check = await check_of(database)
        assert check.state == ReconcileState.FAILING
        delays.append(round(seconds_until_next(check)))
    assert delays == [2, 4, 8, 16]
    assert not (await crawl_of(database, job.id)).sealed
    firecrawl.outage = None
    await make_due(database)
    assert await sweep.check_next()
    await index_pages(database, job.id)
    assert (await crawl_of(database, job.id)).sealed


async def test_a_crawl_that_runs_on_after_its_delivered_end_is_not_sealed(
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


async def test_after_an_outage_pages_are_compared_while_the_crawl_runs(
    database: Database, firecrawl: FakeFirecrawl, sweep: Sweep
) -> None:
    await started(database, firecrawl, 2)
    await database.run(reconciliations.compare_after_outage)
    assert await sweep.check_next()
    check = await check_of(database)
    assert (check.added, check.state, check.in_full) == (2, "running", False)


async def test_an_outage_unseals_nothing_by_itself(
    database: Database, firecrawl: FakeFirecrawl, sweep: Sweep
) -> None:
    """A compared crawl stays compared, even if Firecrawl is unavailable later, or has forgotten the crawl."""
    job = firecrawl.start("crawl", {"url": DOCS})
    firecrawl.wait_until_ended(job.id)
    await deliver(database, job.id, "crawl.completed")
    assert await sweep.check_next()
    await index_pages(database, job.id)
    for misfortune in ("none", "outage", "forgotten"):
        firecrawl.outage = "503" if misfortune == "outage" else None
        if misfortune == "forgotten":
            firecrawl.expire(job.id)
        await database.run(reconciliations.compare_after_outage)
        assert (await crawl_of(database, job.id)).sealed, misfortune
        assert await sweep.check_next()
        crawl = await crawl_of(database, job.id)
        assert (crawl.sealed, crawl.completeness) == (True, "compared"), misfortune


async def test_checks_become_rare_in_silence_and_frequent_with_progress(
    database: Database, firecrawl: FakeFirecrawl, sweep: Sweep
) -> None:
    long_ago = datetime.now(UTC) - timedelta(hours=20)
    crawl_id = await started(database, firecrawl, 1, at=long_ago)
    await make_due(database)
    assert await sweep.check_next()
    async with database.transaction() as connection:
        await connection.execute(update(CrawlSession).values(last_fact_at=long_ago))
        await connection.execute(update(Reconciliation).values(moved_at=long_ago))
    await make_due(database)
    assert await sweep.check_next()
    assert 3_500 < seconds_until_next(await check_of(database)) <= 3_600
    firecrawl.hold_after = 2
    firecrawl.wait_until_scraped(crawl_id, 2)
    await make_due(database)
    assert await sweep.check_next()
    assert seconds_until_next(await check_of(database)) <= 16, "it moves again"


async def test_a_crawl_that_firecrawl_never_knew_is_not_checked_for_ever(
    database: Database, firecrawl: FakeFirecrawl, sweep: Sweep
) -> None:
    await deliver(database, "0b0c5f0e", "crawl.started")
    delays = []
    for _ in range(3):
        await make_due(database)
        assert await sweep.check_next()
        delays.append(round(seconds_until_next(await check_of(database))))
    assert delays == [10, 20, 40]
    async with database.transaction() as connection:
        await connection.execute(
            update(CrawlSession).values(last_fact_at=datetime.now(UTC) - timedelta(hours=1))
        )
    await make_due(database)
    assert await sweep.check_next()
    check = await check_of(database)
    assert (check.state, check.settled, check.next_check_at) == ("unknown", True, None)
