"""Lists know how many rows there are without counting them, whatever added or removed some."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from itertools import count
from typing import Any, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import func, select, text

from crawlscope import models
from crawlscope.core.errors import NotFoundError
from crawlscope.core.settings import Settings
from crawlscope.crawls.repository import delete_crawl
from crawlscope.database import schema
from crawlscope.database.engine import Database
from crawlscope.database.row_counts import ROW_COUNTS, merge_row_counts
from crawlscope.indexing.service import IndexingService
from crawlscope.insights.service import Insights
from crawlscope.processes.maintenance.retention import prune
from crawlscope.sessions.recount import Difference, recount
from crawlscope.timing import TimingContext
from crawlscope.timing.partitions import make_partitions, month_after
from crawlscope.timing.store import RequestRecord, record_operations, record_requests
from tests.properties.test_recorder import in_database, lenient
from tests.support.producing import A, deliver, deliver_pages, index_pages

NOW = datetime.now(UTC)
LONG_AGO = month_after(NOW, -20) + timedelta(days=3)
LATER = count()
"""Hypothesis makes ids repeat that would differ by chance: the times of operations do."""
KNOWN = (models.CrawlSession, models.OperationMetric, models.RequestMetric)
Counts = tuple[int, int, int]


async def listed(database: Database) -> Counts:
    insights = Insights(database)
    lists = (
        await insights.crawls(limit=1),
        await insights.operations(limit=1),
        await insights.requests(limit=1),
    )
    return cast(Counts, tuple(each.total for each in lists))


async def counted(database: Database) -> Counts:
    async with database.transaction() as connection:
        tables = [select(func.count()).select_from(model).scalar_subquery() for model in KNOWN]
        return cast(Counts, tuple((await connection.execute(select(*tables))).one()))


async def changes(database: Database) -> int:
    """Rows of `row_counts`."""
    async with database.transaction() as connection:
        return await connection.scalar(select(func.count()).select_from(ROW_COUNTS)) or 0


class Forgetting:
    """An index without documents."""

    async def forget_crawl(self, *_: object) -> None: ...


async def measure(database: Database, crawl_id: str) -> None:
    """An operation and a request of now, and of long ago."""
    moments = [at + timedelta(microseconds=next(LATER)) for at in (NOW, LONG_AGO)]
    past = [TimingContext.past("embedding", "embed_batch", at, at, crawl_id=crawl_id) for at in moments]
    requests = [RequestRecord(at, "GET", "/", 200, 1.0, "r", None, None) for at in moments]
    await database.run(lambda connection: record_operations(connection, past))
    await database.run(lambda connection: record_requests(connection, requests))


async def delete(database: Database, crawl_id: str) -> None:
    indexing = cast(IndexingService, Forgetting())
    with suppress(NotFoundError):
        await database.run(lambda connection: delete_crawl(connection, crawl_id, indexing))


ACTIONS: dict[str, Callable[[Database, str], Awaitable[Any]]] = {
    "hear of it": lambda database, crawl_id: deliver(database, crawl_id, "crawl.started"),
    "measure": measure,
    "delete": delete,
    "merge": lambda database, _: database.run(merge_row_counts),
    "prune": lambda database, _: prune(Settings(_env_file=None), database, NOW),
    "partition": lambda database, _: make_partitions(database, NOW),
}


def test_totals_are_exact_after_any_actions_of_concurrent_writers(
    own_database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("crawlscope.database.row_counts.MAX_CHANGES", 1)
    action = st.tuples(st.sampled_from(list(ACTIONS)), st.sampled_from([f"crawl-{n}" for n in range(3)]))

    @settings(lenient, max_examples=8)
    @given(st.lists(st.lists(action, min_size=1, max_size=4), max_size=4))
    def holds(rounds: list[list[tuple[str, str]]]) -> None:
        async def compare(database: Database) -> None:
            for at_once in rounds:
                await asyncio.gather(*(ACTIONS[name](database, crawl_id) for name, crawl_id in at_once))
                assert await listed(database) == await counted(database)

        in_database(own_database_url, compare)

    holds()


async def test_merged_changes_are_few(database: Database) -> None:
    for number in range(60):
        await deliver(database, f"crawl-{number}", "crawl.started")
    before = await listed(database)
    assert await changes(database) > 60

    await database.run(merge_row_counts)

    assert await changes(database) == 2
    assert await listed(database) == before == await counted(database)


async def test_a_migration_counts_what_is_there(own_database: Database) -> None:
    await deliver_pages(own_database, "crawl-1", A)
    await index_pages(own_database, "crawl-1")
    await measure(own_database, "crawl-1")
    before = await listed(own_database)
    assert min(before) > 0
    await schema.downgrade(own_database, "0021")
    await schema.upgrade(own_database)
    assert await listed(own_database) == before == await counted(own_database)


async def test_a_recount_corrects_all_numbers_of_rows(database: Database) -> None:
    await deliver(database, "crawl-1", "crawl.started")
    async with database.transaction() as connection:
        await connection.execute(text("UPDATE webhook.row_counts SET rows = rows + 41"))

    changed = await database.run(lambda connection: recount(connection, "crawl-1"))

    was = {"crawl_sessions": 42, "operation_metrics": 42}
    assert changed == {"row_counts": Difference(was, dict.fromkeys(was, 1))}
    assert (await Insights(database).crawls()).total == 1
    assert await database.run(lambda connection: recount(connection, "crawl-1")) == {}
