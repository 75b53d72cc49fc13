"""Old rows are deleted, and what the recorder says of a crawl as a whole stays as it was."""

import asyncio
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from unittest.mock import AsyncMock

import pytest
from sqlalchemy import func, select, text

from crawlscope.core.errors import DatabaseUnavailable
from crawlscope.core.periodic import in_background
from crawlscope.core.settings import Settings
from crawlscope.database.engine import Database
from crawlscope.database.queue import prune_log
from crawlscope.insights.service import Insights
from crawlscope.models import (
    Delivery,
    OperationMetric,
    Outage,
    Page,
    PageContent,
    PastOutage,
    PrunedOperations,
)
from crawlscope.pages.repository import newest_contents
from crawlscope.processes.maintenance.retention import PRUNING_LOCK, maintain_tables, prune
from crawlscope.processes.parts import service_parts
from crawlscope.processes.worker.circuit import Outages
from crawlscope.processes.worker.process import run_worker
from crawlscope.sessions.recount import recount
from crawlscope.timing.partitions import make_partitions, month_after, partitions_of
from tests.database.test_row_counts import counted, listed
from tests.support.commands import crawlscope
from tests.support.producing import A, B, deliver, deliver_pages, document, index_pages
from tests.timing.test_partitions import measure, month, placed

NOW = datetime.now(UTC)
LONG_AGO = month_after(NOW, -20)
LATER = NOW + timedelta(days=500)
"""When everything of now is old."""


def settings(**changed: Any) -> Settings:
    return Settings(_env_file=None, **changed)


async def totals(database: Database, crawl_id: str) -> dict[str, Any]:
    crawl = await Insights(database).crawl(crawl_id)
    return crawl.model_dump(
        include={"aggregate_timing", "operations", "queue_wait", "unaccounted", "total_pages", "status"}
    )


async def count(database: Database, model: Any, *conditions: Any) -> int:
    async with database.transaction() as connection:
        return await connection.scalar(select(func.count()).select_from(model).where(*conditions)) or 0


async def test_totals_stay_exact_when_operations_are_deleted(own_database: Database) -> None:
    await deliver_pages(own_database, "crawl-1", A, B)
    await index_pages(own_database, "crawl-1")
    await deliver(own_database, "crawl-1", "crawl.completed")
    before = await totals(own_database, "crawl-1")
    operations = await count(own_database, OperationMetric)

    pruned = await prune(settings(), own_database, LATER)

    assert {each.what: each.rows for each in pruned or []} == {
        f"operation_metrics_{month(NOW)}": operations,
        "bodies of deliveries": 3,
        "log of the queue": 2,
        f"operation_metrics_{month(month_after(NOW))}": 0,
        f"operation_metrics_{month(month_after(NOW, 2))}": 0,
        **{f"request_metrics_{month(month_after(NOW, ahead))}": 0 for ahead in range(3)},
    }
    assert await count(own_database, OperationMetric) == 0
    assert await own_database.run(lambda connection: recount(connection, "crawl-1")) == {}
    assert await totals(own_database, "crawl-1") == before
    assert before["aggregate_timing"]["embedding_ms"] > 0
    assert before["operations"]["embedding"]["count"] == 2

    await deliver_pages(own_database, "crawl-1", "https://a.example/late")
    await index_pages(own_database, "crawl-1")  # now in the default partition
    await make_partitions(own_database, NOW)
    assert await own_database.run(lambda connection: recount(connection, "crawl-1")) == {}
    await prune(settings(), own_database, LATER)
    assert await own_database.run(lambda connection: recount(connection, "crawl-1")) == {}
    async with own_database.transaction() as connection:
        await connection.execute(text("DELETE FROM webhook.crawl_sessions"))
    assert await count(own_database, PrunedOperations) == 0


async def test_rows_of_a_version_that_did_not_count_are_counted_by_the_oldest_process(
    own_database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("crawlscope.processes.maintenance.retention.is_oldest", AsyncMock(return_value=True))
    await deliver_pages(own_database, "crawl-1", A)
    await index_pages(own_database, "crawl-1")
    async with own_database.transaction() as connection:
        await connection.execute(text("DELETE FROM webhook.row_counts"))
    async with asyncio.timeout(60), in_background(maintain_tables(settings(), own_database)):
        while await listed(own_database) != await counted(own_database):  # noqa: ASYNC110
            await asyncio.sleep(0.05)


async def test_the_queue_keeps_its_log_for_a_day(own_database: Database) -> None:
    await deliver_pages(own_database, "crawl-1", A, B)

    async def logged() -> int:
        async with own_database.transaction() as connection:
            return await connection.scalar(text("SELECT count(*) FROM queue.pgqueuer_log")) or 0

    assert await prune_log(own_database, NOW) == []
    assert await logged() == 2
    in_two_days = NOW + timedelta(days=2)
    assert [each.rows for each in await prune_log(own_database, in_two_days, dry_run=True)] == [2]
    assert await logged() == 2
    await prune_log(own_database, in_two_days)
    assert await logged() == 0


async def test_a_dry_run_deletes_nothing_and_says_what_would_be_deleted(own_database: Database) -> None:
    await deliver_pages(own_database, "crawl-1", A)
    await index_pages(own_database, "crawl-1")
    kept = [await count(own_database, model) for model in (OperationMetric, Delivery, PageContent)]
    announced = await prune(settings(), own_database, LATER, dry_run=True)
    assert [await count(own_database, model) for model in (OperationMetric, Delivery, PageContent)] == kept
    assert announced
    assert await prune(settings(), own_database, LATER) == announced
    assert await prune(settings(), own_database, LATER) == []


async def test_a_table_that_is_too_large_loses_its_oldest_months_and_never_the_present(
    own_database: Database,
) -> None:
    ages = [month_after(NOW, -4), month_after(NOW, -2), NOW]
    for age in ages:
        await measure(own_database, *[age + timedelta(milliseconds=n) for n in range(1_000)])
    await make_partitions(own_database, NOW)
    requests = {"keep_requests_days": 1_000}

    assert await prune(settings(keep_operations_bytes=10**9, **requests), own_database, NOW) == []
    pruned = await prune(settings(keep_operations_bytes=1, **requests), own_database, NOW)

    assert [each.what for each in pruned or []] == [f"operation_metrics_{month(age)}" for age in ages[:2]]
    assert await placed(own_database) == {month(NOW): 1_000}
    assert await own_database.run(lambda connection: recount(connection, "crawl-1")) == {}


async def test_of_bodies_that_are_too_large_the_newest_stay(database: Database) -> None:
    for number in range(4):
        at = NOW - timedelta(hours=number)
        await deliver(database, f"crawl-{number}", "crawl.page", [document(A)], at=at)
    async with database.transaction() as connection:
        size = await connection.scalar(select(func.max(func.pg_column_size(Delivery.body))))
    [pruned] = await prune(settings(keep_deliveries_bytes=2 * (size or 0)), database, NOW) or []
    assert (pruned.what, pruned.rows) == ("bodies of deliveries", 2)
    async with database.transaction() as connection:
        left = select(Delivery.crawl_id).where(Delivery.body.is_not(None)).order_by(Delivery.crawl_id)
        assert list(await connection.scalars(left)) == ["crawl-0", "crawl-1"]


async def test_replaced_contents_are_deleted_where_asked_and_the_newest_stay(database: Database) -> None:
    for number in (1, 2):
        await deliver_pages(database, f"crawl-{number}", A, *([B] if number == 1 else []))
        await index_pages(database, f"crawl-{number}")
        await deliver(database, f"crawl-{number}", "crawl.completed")
    await deliver_pages(database, "crawl-3", A)  # which is still queued
    bodies = {"keep_deliveries_days": 1_000}

    assert await prune(settings(**bodies), database, LATER, dry_run=True) is not None
    assert await count(database, PageContent) == 4
    pruned = await prune(settings(**bodies, keep_contents_days=30), database, LATER)

    assert ("contents of pages", 1) in [(each.what, each.rows) for each in pruned or []]
    async with database.transaction() as connection:
        keys = await connection.execute(select(Page.document_key, Page.source_url).distinct())
        found = {url: await newest_contents(connection, key, 3) for key, url in keys.all()}
    assert {url: len(contents) for url, contents in found.items()} == {A: 2, B: 1}


async def test_each_document_is_looked_at_once_in_batches(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("crawlscope.pages.retention.BATCH_SIZE", 2)
    urls = [f"https://a.example/{number}" for number in range(5)]
    for crawl in range(3):
        await deliver_pages(database, f"crawl-{crawl}", *urls)
        await index_pages(database, f"crawl-{crawl}")
        await deliver(database, f"crawl-{crawl}", "crawl.completed")

    pruned = await prune(settings(keep_contents_days=30), database, LATER)

    assert ("contents of pages", 10) in [(each.what, each.rows) for each in pruned or []]
    async with database.transaction() as connection:
        left = select(Page.crawl_id, Page.source_url).join(PageContent, PageContent.page_id == Page.id)
        assert set(map(tuple, await connection.execute(left))) == {("crawl-2", url) for url in urls}


async def test_contents_whose_deletion_lost_against_another_transaction_are_deleted_again(
    database: Database,
) -> None:
    for crawl in ("crawl-1", "crawl-2"):
        await deliver_pages(database, crawl, A, B)
        await index_pages(database, crawl)
        await deliver(database, crawl, "crawl.completed")
    first, last = (text(f"SELECT {end}(page_id) FROM webhook.page_contents") for end in ("min", "max"))
    hold = text("SELECT FROM webhook.page_contents WHERE page_id = :page_id FOR UPDATE")
    waiting = text("SELECT count(*) FROM pg_locks WHERE NOT granted")
    async with database.transaction() as other:
        await other.execute(text("SET LOCAL deadlock_timeout = '1min'"))
        low, high = [await other.scalar(end) for end in (first, last)]
        await other.execute(hold, {"page_id": low + (high - low) // 2})
        pruning = asyncio.create_task(prune(settings(keep_contents_days=30), database, LATER))
        while not await other.scalar(waiting):  # noqa: ASYNC110 - only the server knows
            await asyncio.sleep(0.02)
        await other.execute(hold, {"page_id": low})

    await pruning

    assert await count(database, PageContent) == 2


async def test_outages_are_deleted_with_the_operations(database: Database) -> None:
    outages = Outages(database, "worker-1")
    await outages.note("embedder", "it does not answer")
    await outages.end_all()
    await outages.note("index", "it does not answer")

    assert await prune(settings(), database, NOW) == []
    announced = await prune(settings(), database, LATER, dry_run=True)
    assert await count(database, PastOutage) == 1
    assert await prune(settings(), database, LATER) == announced

    assert [(each.what, each.rows) for each in announced or []] == [("outages", 1)]
    assert (await count(database, PastOutage), await count(database, Outage)) == (0, 1)


async def test_a_month_has_its_own_limit_of_time(
    own_database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("crawlscope.timing.retention.DROP_SECONDS", 0.5)  # instead of an hour
    await measure(own_database, LONG_AGO)
    await make_partitions(own_database, NOW)
    dropped = f"operation_metrics_{month(LONG_AGO)}"
    keeping = settings(keep_requests_days=9_999)
    async with own_database.transaction() as connection:
        await connection.execute(text(f"LOCK TABLE webhook.{dropped} IN ROW EXCLUSIVE MODE"))
        with pytest.raises(DatabaseUnavailable, match="TimeoutError"):
            await prune(keeping, own_database, NOW)


async def test_one_process_deletes_at_a_time(database: Database) -> None:
    async with database.alone(*PRUNING_LOCK) as alone:
        assert alone
        assert await prune(settings(), database, LATER) is None
        assert await prune(settings(), database, LATER, dry_run=True) is not None


async def test_the_command_says_what_it_would_delete(own_database_url: str, tmp_path: Path) -> None:
    database = Database.open(own_database_url)
    await measure(database, NOW - timedelta(days=800), NOW)
    await make_partitions(database, NOW)
    await database.close()
    for options, end in ((["--dry-run"], "would be deleted"), ([], "deleted")):
        ended = crawlscope(tmp_path, "db", "prune", *options, DATABASE_URL=own_database_url)
        assert ended.returncode == 0, ended.stderr
        operations, _requests, last = ended.stdout.splitlines()
        assert operations.startswith("operation_metrics_")
        assert "1 row, " in operations
        assert last == end


@pytest.mark.parametrize("process", ["api", pytest.param("crawler", marks=pytest.mark.slow)])
async def test_each_kind_of_process_makes_partitions_by_itself(
    process: str, own_database: Database, own_database_url: str, tmp_path: Path
) -> None:
    """As `serve` and `worker` do, without the other."""
    last = f"operation_metrics_{month(month_after(datetime.now(UTC), 2))}"
    async with own_database.transaction() as connection:
        await connection.execute(text(f"DROP TABLE webhook.{last}"))
    own = settings(data_dir=tmp_path, database_url=own_database_url)

    async def names() -> set[str]:
        async with own_database.transaction() as connection:
            return {each.name for each in await partitions_of(connection, "operation_metrics")}

    assert last not in await names()
    started = (
        service_parts(own) if process == "api" else in_background(run_worker(own, {"crawl"}, asyncio.Event()))
    )
    async with started, asyncio.timeout(60):
        while last not in await names():  # noqa: ASYNC110 - only the server knows
            await asyncio.sleep(0.1)
