"""Histograms of a crawl's durations agree with its operations, whatever happens to either."""

import asyncio
from datetime import UTC, datetime
from functools import partial
from typing import cast

import pytest
from sqlalchemy import delete, select, text, update

from crawlscope.core.vocabulary import PageState
from crawlscope.crawls.repository import delete_crawl
from crawlscope.database.engine import Database
from crawlscope.indexing.service import IndexingService
from crawlscope.insights.service import Insights
from crawlscope.models import Delivery, OperationHistogram, OperationMetric
from crawlscope.pages.index_page import Outcome
from crawlscope.sessions.recount import recount
from crawlscope.timing import TimingContext
from crawlscope.timing.store import record_operations
from tests.support.producing import (
    A,
    B,
    C,
    attempt,
    deliver_pages,
    end,
    fail_pages,
    index_pages,
    put_pages_back,
    queued,
)


async def test_writers_of_several_crawls_at_once_lose_nothing(database: Database, insights: Insights):
    names = ("crawl-1", "crawl-2", "crawl-3")
    for name in names:
        await deliver_pages(database, name, A, B, C)
    jobs = [job for name in names for job in await queued(database, name)]
    attempts = [await attempt(database, job) for job in jobs]
    outcome = Outcome(PageState.INDEXED, 3)

    held = await asyncio.gather(*[end(database, claim, measured, outcome) for claim, measured in attempts])

    assert all(held)
    for name in names:
        found = await insights.crawl(name)
        assert {each.count for each in found.operations.values()} == {3}
        assert found.unaccounted is not None
        assert found.unaccounted.count == 3
        assert await database.run(partial(recount, crawl_id=name)) == {}


async def test_failed_and_repeated_attempts_are_counted_as_their_operations(
    database: Database, insights: Insights
):
    await deliver_pages(database, "crawl-1", A, B)
    await put_pages_back(database, "crawl-1", "embedder_unavailable", "unavailable")
    await fail_pages(database, "crawl-1", "bad_text", "cannot embed")
    await deliver_pages(database, "crawl-1", A)  # replaces the failed page: its operations remain
    await index_pages(database, "crawl-1")

    crawl = await insights.crawl("crawl-1")
    stored = (await insights.operations("crawl-1", limit=1_000)).operations

    for name, stats in crawl.operations.items():
        of_type = [each for each in stored if each.operation_type == name]
        assert (stats.count, stats.failed) == (len(of_type), sum(not each.success for each in of_type))
        assert stats.total_ms == sum(each.duration_ms for each in of_type if each.success)
    assert crawl.unaccounted is not None
    assert crawl.unaccounted.count == crawl.operations["worker"].count == 5
    assert await database.run(lambda connection: recount(connection, "crawl-1")) == {}


async def test_the_time_of_a_deleted_crawl_stays_in_the_totals(database: Database, insights: Insights):
    for name in ("crawl-1", "crawl-2"):
        await deliver_pages(database, name, A)
        await index_pages(database, name)
    before = await insights.summary()

    await database.run(lambda connection: delete_crawl(connection, "crawl-1", NoIndex()))  # type: ignore[arg-type]
    await database.run(lambda connection: delete_crawl(connection, "crawl-2", NoIndex()))  # type: ignore[arg-type]

    assert (await insights.summary()).operations == before.operations
    assert before.operations["embedding"].count == 2


async def test_a_crawl_whose_deletion_takes_long_delays_no_other_measurement(database: Database):
    await deliver_pages(database, "crawl-1", A)
    await index_pages(database, "crawl-1")
    now = datetime.now(UTC)
    of_nobody = [TimingContext.past(each, "it", now, now) for each in ("worker", "embedding", "webhook")]
    waiting = text("SELECT count(*) FROM pg_locks WHERE NOT granted")
    async with database.transaction() as slow:
        await slow.execute(select(Delivery.id).with_for_update())
        remove = partial(delete_crawl, crawl_id="crawl-1", indexing=cast("IndexingService", NoIndex()))
        deleting = asyncio.create_task(database.run(remove))
        while not await slow.scalar(waiting):  # noqa: ASYNC110 - only the server knows
            await asyncio.sleep(0.02)
        await asyncio.wait_for(database.run(partial(record_operations, measurements=of_nobody)), 20)
        assert not deleting.done()
    await deleting


async def test_percentiles_outlive_their_operations(database: Database, insights: Insights):
    await deliver_pages(database, "crawl-1", A, B)
    await index_pages(database, "crawl-1")
    before = (await insights.crawl("crawl-1")).operations

    async with database.transaction() as connection:
        await connection.execute(delete(OperationMetric))

    assert (await insights.crawl("crawl-1")).operations == before


@pytest.mark.parametrize("damage", ["changed", "deleted"])
async def test_a_recount_repairs_them_and_says_which_differed(
    database: Database, insights: Insights, damage: str
):
    await deliver_pages(database, "crawl-1", A)
    await index_pages(database, "crawl-1")
    before = (await insights.crawl("crawl-1")).operations
    damaged = OperationHistogram.operation_type == "embedding"
    async with database.transaction() as connection:
        if damage == "changed":
            await connection.execute(update(OperationHistogram).where(damaged).values(counts=[7], count=7))
        else:
            await connection.execute(delete(OperationHistogram).where(damaged))

    first = await database.run(lambda connection: recount(connection, "crawl-1"))

    was = 7 if damage == "changed" else 0
    assert {name: (each.was, each.counted) for name, each in first.items()} == {
        "operation_histograms": ({"embedding": was}, {"embedding": 1})
    }
    assert (await insights.crawl("crawl-1")).operations == before
    assert await database.run(lambda connection: recount(connection, "crawl-1")) == {}


class NoIndex:
    """Holds no documents."""

    async def forget_crawl(self, *_: object) -> None: ...
