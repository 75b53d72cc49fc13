"""Totals over all crawls are the same whether past hours are summed up or not, whatever is written later."""

import asyncio
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import cast

from sqlalchemy import func, select

from crawlscope.crawls.repository import delete_crawl
from crawlscope.database.engine import Database
from crawlscope.indexing.service import IndexingService
from crawlscope.insights.schemas import OperationStats
from crawlscope.insights.service import Insights
from crawlscope.models import ChangedHour, HourHistogram
from crawlscope.sessions.hours import sum_up_hours
from crawlscope.timing import TimingContext
from crawlscope.timing.store import record_operations
from tests.support.producing import A, deliver_pages, index_pages

DAY = 24


async def measure(database: Database, crawl_id: str | None, hours_ago: float, *types: str) -> None:
    at = datetime.now(UTC) - timedelta(hours=hours_ago)
    operations = [
        TimingContext.past(each, "it", at, at + timedelta(milliseconds=10 * number), crawl_id=crawl_id)
        for number, each in enumerate(types, start=1)
    ]
    await database.run(partial(record_operations, measurements=operations))


async def sum_up(database: Database) -> int:
    hours = 0
    while some := await database.run(sum_up_hours):
        hours += some
    return hours


async def totals(insights: Insights) -> dict[str, OperationStats]:
    return (await insights.summary(DAY)).operations


async def rows(database: Database, table: type[HourHistogram] | type[ChangedHour]) -> int:
    async with database.transaction() as connection:
        return await connection.scalar(select(func.count()).select_from(table)) or 0


async def test_totals_read_past_hours_from_their_sums(database: Database, insights: Insights):
    for number in range(30):
        await measure(database, f"crawl-{number % 3}", number, "embedding", "chunking")
    before = await totals(insights)

    hours = await sum_up(database)

    assert hours in (28, 29)  # the one before the present may be too young
    assert await rows(database, HourHistogram) == 2 * hours
    assert await totals(insights) == before
    assert before["embedding"].count == DAY + 1


async def test_what_is_written_into_a_past_hour_counts_at_once(database: Database, insights: Insights):
    for hours_ago in (3, 5):
        await measure(database, "crawl-1", hours_ago, "embedding")
    await sum_up(database)

    await measure(database, "crawl-1", 3, "embedding", "bm25")
    await measure(database, None, 5, "embedding")
    await measure(database, "crawl-2", 4, "embedding")

    found = await totals(insights)
    assert (found["embedding"].count, found["bm25"].count) == (5, 1)
    assert await rows(database, ChangedHour) > 0
    await sum_up(database)
    assert await rows(database, ChangedHour) == 0
    assert await totals(insights) == found
    assert await sum_up(database) == 0


async def test_the_present_hour_notes_no_change(database: Database, insights: Insights):
    await measure(database, "crawl-1", 3, "embedding")
    await sum_up(database)

    await deliver_pages(database, "crawl-1", A)
    await index_pages(database, "crawl-1")

    assert await rows(database, ChangedHour) == 0
    assert (await totals(insights))["embedding"].count == 2


async def test_an_hour_that_a_clock_ahead_of_time_has_summed_up_is_counted_again(
    database: Database, insights: Insights
) -> None:
    await measure(database, "crawl-1", 0, "embedding")
    await database.run(partial(sum_up_hours, now=datetime.now(UTC) + timedelta(hours=3)))
    assert await rows(database, HourHistogram) == 1

    await measure(database, "crawl-1", 0, "embedding")
    await sum_up(database)

    assert (await totals(insights))["embedding"].count == 2


async def test_a_deleted_crawl_stays_in_the_totals(database: Database, insights: Insights):
    await measure(database, "crawl-1", 3, "embedding")
    await measure(database, "crawl-2", 3, "embedding")
    await sum_up(database)
    before = await totals(insights)

    class NoIndex:
        async def forget_crawl(self, *_: object) -> None: ...

    indexing = cast("IndexingService", NoIndex())
    await database.run(partial(delete_crawl, crawl_id="crawl-1", indexing=indexing))

    assert await totals(insights) == before
    await sum_up(database)
    assert await totals(insights) == before


async def test_a_sum_waits_for_writers_of_past_hours_and_they_for_it(database: Database, insights: Insights):
    await measure(database, "crawl-1", 3, "embedding")
    await sum_up(database)
    at = datetime.now(UTC) - timedelta(hours=3)
    late = TimingContext.past("embedding", "it", at, at, crawl_id="crawl-1")
    async with database.transaction() as writing:
        await record_operations(writing, [late])
        assert await sum_up(database) == 0
    assert (await totals(insights))["embedding"].count == 2
    async with database.transaction() as summing:
        assert await sum_up_hours(summing) == 1
        writer = asyncio.create_task(database.run(partial(record_operations, measurements=[late])))
        await asyncio.sleep(0.05)
        assert not writer.done()
    await writer
    assert (await totals(insights))["embedding"].count == 3
