"""Measurements are partitioned by month: made ahead, of any time, with the rows of older versions."""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any, TypeVar

import pytest
from sqlalchemy import func, select, text

from crawlscope.core.errors import DatabaseUnavailable
from crawlscope.database import schema
from crawlscope.database.engine import Database
from crawlscope.insights.service import Insights
from crawlscope.models import CrawlSession, OperationMetric, RequestMetric
from crawlscope.sessions.recount import recount
from crawlscope.timing import TimingContext, partitions
from crawlscope.timing.partitions import make_partitions, month_after, partitions_of
from crawlscope.timing.store import MeasurementBuffer, RequestRecord, record_operations, record_requests

T = TypeVar("T")

NOW = datetime.now(UTC)
LAST_SPRING = month_after(NOW, -8) + timedelta(days=3)
BEFORE = "0010"
"""The revision before partitions."""
NEXT_CENTURY = datetime(2126, 1, 31, tzinfo=UTC)


async def measure(database: Database, *moments: datetime, crawl_id: str | None = "crawl-1") -> None:
    """An operation and a request at each moment."""
    operations = [
        TimingContext.past("embedding", "embed_batch", each, each + timedelta(seconds=1), crawl_id=crawl_id)
        for each in moments
    ]
    requests = [RequestRecord(each, "GET", "/", 200, 1.0, "r", None, None) for each in moments]
    async with database.transaction() as connection:
        await record_operations(connection, operations)
        await record_requests(connection, requests)


async def placed(database: Database, table: str = "operation_metrics") -> dict[str, int]:
    """The number of rows in each partition that has any."""
    async with database.transaction() as connection:
        found = await connection.execute(
            text(
                f"SELECT replace(tableoid::regclass::text, 'webhook.{table}_', ''), count(*) "
                f"FROM webhook.{table} GROUP BY 1"
            )
        )
        return dict(found.all())


def month(moment: datetime) -> str:
    return f"{moment:%Y_%m}"


async def test_a_measurement_of_any_time_is_stored_and_moves_to_its_month(own_database: Database) -> None:
    await measure(own_database, LAST_SPRING, NOW, NEXT_CENTURY)
    assert await placed(own_database) == {"default": 2, month(NOW): 1}

    made = await make_partitions(own_database, NOW)

    assert made == [f"{table}_{month(LAST_SPRING)}" for table in ("operation_metrics", "request_metrics")]
    for table in ("operation_metrics", "request_metrics"):
        assert await placed(own_database, table) == {"default": 1, month(LAST_SPRING): 1, month(NOW): 1}
    assert await make_partitions(own_database, NOW) == []
    listed = await Insights(own_database).operations(crawl_id="crawl-1")
    assert [each.timestamp for each in listed.operations] == [NEXT_CENTURY, NOW, LAST_SPRING]


async def test_partitions_are_made_ahead(own_database: Database) -> None:
    later = month_after(NOW, 5)
    await make_partitions(own_database, later)
    async with own_database.transaction() as connection:
        names = [each.name for each in await partitions_of(connection, "operation_metrics")]
    expected = [month(month_after(later, ahead)) for ahead in range(3)]
    assert names[-4:] == [f"operation_metrics_{each}" for each in [*expected, "default"]]


async def test_a_long_transaction_delays_a_new_partition_and_no_writer(own_database: Database) -> None:
    await measure(own_database, NOW)
    async with own_database.transaction() as connection:
        await connection.execute(select(CrawlSession.id).with_for_update())
        await connection.execute(text("SELECT count(*) FROM webhook.operation_metrics"))
        with pytest.raises(DatabaseUnavailable, match="measurements"):
            await make_partitions(own_database, month_after(NOW, 5))
        await measure(own_database, NOW, crawl_id="crawl-2")
    assert len(await make_partitions(own_database, month_after(NOW, 5))) == 6


async def while_it_moves(database: Database, work: Callable[[], Awaitable[T]]) -> T:
    """The result of `work`, which waits for operations of last spring to move to their month."""
    waiting = text("SELECT count(*) FROM pg_locks WHERE NOT granted")
    move = partial(partitions._make, table="operation_metrics", month=month_after(LAST_SPRING, 0))
    async with database.transaction() as connection:
        await connection.execute(text("LOCK TABLE webhook.operation_metrics IN SHARE UPDATE EXCLUSIVE MODE"))
        moving = asyncio.create_task(database.run(move))
        while not await connection.scalar(waiting):  # noqa: ASYNC110 - only the server knows
            await asyncio.sleep(0.02)
        working = asyncio.ensure_future(work())
        while await connection.scalar(waiting) < 2:  # noqa: ASYNC110
            await asyncio.sleep(0.02)
    await moving
    return await working


async def test_a_recount_misses_no_operation_that_moves_to_its_month(own_database: Database) -> None:
    await measure(own_database, LAST_SPRING)
    count = partial(recount, crawl_id="crawl-1")
    assert await while_it_moves(own_database, lambda: own_database.run(count)) == {}
    assert await placed(own_database) == {month(LAST_SPRING): 1}


async def test_a_measurement_is_stored_although_its_month_is_made_meanwhile(own_database: Database) -> None:
    await measure(own_database, LAST_SPRING)
    buffer = MeasurementBuffer(own_database)
    buffer.add_operation(TimingContext.past("embedding", "embed_batch", LAST_SPRING, LAST_SPRING))
    await while_it_moves(own_database, buffer.flush)
    assert await placed(own_database) == {month(LAST_SPRING): 2}


async def test_rows_of_an_older_version_stay_where_they_are(own_database: Database) -> None:
    moments = [LAST_SPRING, NOW - timedelta(days=40), NOW, NEXT_CENTURY]
    await measure(own_database, *moments)
    before = await contents(own_database)
    await schema.downgrade(own_database, BEFORE)
    assert await contents(own_database) == before
    await schema.upgrade(own_database)
    assert await contents(own_database) == before
    assert await placed(own_database) == {"before": 3, "default": 1}
    assert await placed(own_database, "request_metrics") == {"before": 3, "default": 1}

    await make_partitions(own_database, NOW)
    await measure(own_database, NOW)
    assert await placed(own_database) == {"before": 4, "default": 1}
    async with own_database.transaction() as connection:
        await connection.execute(text("DELETE FROM webhook.crawl_sessions"))
        crawls = select(func.count()).where(OperationMetric.crawl_id.is_not(None))
        assert await connection.scalar(crawls) == 0


async def contents(database: Database) -> list[list[tuple[Any, ...]]]:
    async with database.transaction() as connection:
        return [
            [
                tuple(row)
                for row in await connection.execute(select(*model.__table__.columns).order_by("timestamp"))
            ]
            for model in (OperationMetric, RequestMetric)
        ]
