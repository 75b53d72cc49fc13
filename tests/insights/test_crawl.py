import asyncio
from datetime import UTC, datetime, timedelta
from statistics import quantiles

import pytest
from sqlalchemy import select

from crawlscope.core.errors import NotFoundError
from crawlscope.core.histogram import RELATIVE_ERROR, TICKS_PER_MS
from crawlscope.core.vocabulary import CrawlStatus
from crawlscope.crawls.repository import note_progress, start_crawl
from crawlscope.crawls.requests import crawl_request
from crawlscope.database.engine import Database
from crawlscope.insights.service import Insights
from crawlscope.models import OperationMetric
from tests.support.producing import (
    NOON,
    A,
    B,
    C,
    deliver,
    deliver_pages,
    document,
    fail_pages,
    index_pages,
)


def cuts(values: list[float]) -> list[float]:
    """The percentiles from 1 to 99."""
    return quantiles(values, n=100, method="inclusive")


class TestCrawl:
    async def test_has_counts_times_and_measurements_of_an_ended_crawl(
        self, database: Database, insights: Insights
    ):
        initiated = NOON - timedelta(seconds=2)
        initiator = {"initiated_at": initiated.isoformat(), "url": "https://start.example/"}
        await deliver(database, "crawl-1", "crawl.started", at=NOON, metadata=initiator)
        await deliver_pages(database, "crawl-1", A, B)
        ended, reported = datetime.now(UTC), datetime.now(UTC) + timedelta(seconds=20)
        await deliver(database, "crawl-1", "crawl.page", [document(C, status_code=404)], at=ended)
        assert await index_pages(database, "crawl-1") == 2
        await deliver(database, "crawl-1", "crawl.completed", at=reported)

        crawl = await insights.crawl("crawl-1")

        assert crawl.crawl_url == "https://start.example/"
        assert (crawl.status, crawl.success) == (CrawlStatus.COMPLETED, True)
        assert (crawl.started_at, crawl.completed_at) == (NOON, ended)
        assert crawl.last_fact_at == reported
        assert crawl.duration_ms == pytest.approx((ended - NOON).total_seconds() * 1000)
        assert crawl.e2e_duration_ms == pytest.approx((ended - initiated).total_seconds() * 1000)
        assert (crawl.total_pages, crawl.pages_indexed, crawl.pages_failed) == (3, 2, 1)
        assert (crawl.pages_pending, crawl.pages_unchanged, crawl.pages_empty) == (0, 0, 0)
        assert crawl.per_page_metrics is None
        assert crawl.extra_metadata == initiator

    async def test_operation_times_agree_with_the_stored_operations_and_the_totals(
        self, database: Database, insights: Insights
    ):
        await deliver_pages(database, "crawl-1", *(f"{A}{number}" for number in range(7)))
        await index_pages(database, "crawl-1")
        stored = await stored_durations(database, "embedding")

        crawl = await insights.crawl("crawl-1")

        assert set(crawl.operations) == {"worker", "chunking", "embedding", "qdrant", "bm25", "webhook"}
        embedding = crawl.operations["embedding"]
        assert (embedding.count, embedding.failed) == (7, 0)
        assert embedding.total_ms == pytest.approx(sum(stored))
        assert embedding.total_ms == pytest.approx(crawl.aggregate_timing.embedding_ms)
        assert embedding.mean_ms == pytest.approx(sum(stored) / 7)
        assert [embedding.p50_ms, embedding.p95_ms, embedding.p99_ms] == pytest.approx(
            [cuts(stored)[at - 1] for at in (50, 95, 99)], rel=RELATIVE_ERROR
        )
        assert embedding.max_ms == max(stored)
        for name in ("chunking", "qdrant", "bm25"):
            total = getattr(crawl.aggregate_timing, f"{name}_ms")
            assert crawl.operations[name].total_ms == pytest.approx(total)

    async def test_failed_operations_are_counted_but_not_timed(self, database: Database, insights: Insights):
        await deliver_pages(database, "crawl-1", A)
        await fail_pages(database, "crawl-1", "bad_text", "cannot embed")

        operations = (await insights.crawl("crawl-1")).operations

        assert (operations["embedding"].count, operations["embedding"].failed) == (1, 1)
        assert operations["embedding"].total_ms == 0
        assert operations["embedding"].p50_ms is None
        assert operations["chunking"].p50_ms is not None

    async def test_queue_wait_is_of_attempts_that_ended(self, database: Database, insights: Insights):
        await deliver_pages(database, "crawl-1", A, B, C)
        before = (await insights.crawl("crawl-1")).queue_wait
        await index_pages(database, "crawl-1")
        waits = [page.queue_wait_ms for page in (await insights.pages("crawl-1")).pages]

        after = (await insights.crawl("crawl-1")).queue_wait

        assert (before.p50_ms, before.p95_ms, before.max_ms) == (None, None, None)
        known = [wait for wait in waits if wait is not None]
        assert len(known) == 3
        expected = [cuts(known)[49], cuts(known)[94]]
        assert [after.p50_ms, after.p95_ms] == pytest.approx(expected, rel=RELATIVE_ERROR)
        assert after.max_ms == pytest.approx(max(known), abs=1 / TICKS_PER_MS)
        assert after.mean_ms == pytest.approx(sum(known) / 3, abs=1 / TICKS_PER_MS)

    async def test_stages_and_the_rest_sum_up_to_the_time_of_the_worker(
        self, database: Database, insights: Insights
    ):
        await deliver_pages(database, "crawl-1", A, B)
        await index_pages(database, "crawl-1")

        crawl = await insights.crawl("crawl-1")

        assert crawl.unaccounted is not None
        stages = (crawl.operations[name].total_ms for name in ("chunking", "embedding", "bm25", "qdrant"))
        assert sum(stages) + crawl.unaccounted.total_ms == crawl.operations["worker"].total_ms

    async def test_per_page_metrics_come_in_the_order_they_began(
        self, database: Database, insights: Insights
    ):
        await deliver_pages(database, "crawl-1", A, B)
        await index_pages(database, "crawl-1")

        metrics = (await insights.crawl("crawl-1", include_per_page=True)).per_page_metrics

        assert metrics is not None
        assert len(metrics) == 10
        assert {metric.url for metric in metrics} == {A, B}
        assert {metric.operation_type for metric in metrics} == {
            "worker",
            "chunking",
            "embedding",
            "qdrant",
            "bm25",
        }
        assert [metric.timestamp for metric in metrics] == sorted(metric.timestamp for metric in metrics)
        assert all(metric.success and metric.duration_ms >= 0 for metric in metrics)

    async def test_a_running_crawl_has_no_end(self, database: Database, insights: Insights):
        await deliver_pages(database, "crawl-1", A)

        crawl = await insights.crawl("crawl-1")

        assert (crawl.status, crawl.success, crawl.completed_at) == (CrawlStatus.IN_PROGRESS, None, None)
        assert (crawl.total_pages, crawl.pages_pending) == (0, 1)
        assert (crawl.duration_ms, crawl.searchable_at, crawl.time_to_searchable_ms) == (None, None, None)

    async def test_shows_how_far_its_own_crawler_has_come(self, database: Database, insights: Insights):
        async with database.transaction() as connection:
            crawl_id = await start_crawl(connection, crawl_request(A, 5))
            await note_progress(connection, crawl_id, found=4, fetched=2)
        await deliver_pages(database, "from-elsewhere", A)

        own, other = await insights.crawl(crawl_id), await insights.crawl("from-elsewhere")

        assert (own.engine, own.found, own.fetched) == ("builtin", 4, 2)
        assert (other.engine, other.found, other.fetched) == (None, None, None)

    async def test_failures_that_name_no_page_are_counted_on_their_own(
        self, database: Database, insights: Insights
    ):
        await deliver(database, "crawl-1", "crawl.page", success=False, error="timed out")

        crawl = await insights.crawl("crawl-1")

        assert (crawl.failures_without_url, crawl.total_pages) == (1, 0)

    async def test_unknown(self, insights: Insights):
        for crawl_id in ("nobody", "nul\x00inside", "\ud800", "x" * 5_000):
            with pytest.raises(NotFoundError) as caught:
                await insights.crawl(crawl_id)
            assert str(caught.value) == f"Crawl not found: {crawl_id}"

    async def test_an_id_with_nul_in_it_finds_the_crawl_that_came_with_it(
        self, database: Database, insights: Insights
    ):
        await deliver(database, "odd\x00id", "crawl.started")

        assert (await insights.crawl("odd\x00id")).crawl_id == "odd�id"


class TestSearchable:
    async def test_when_the_last_page_settled_once_the_end_is_known(
        self, database: Database, insights: Insights
    ):
        await deliver_pages(database, "crawl-1", A, at=NOON)
        await index_pages(database, "crawl-1")
        before_the_end = await insights.crawl("crawl-1")
        await deliver(database, "crawl-1", "crawl.completed")

        crawl = await insights.crawl("crawl-1")

        [page] = (await insights.pages("crawl-1")).pages
        assert before_the_end.searchable_at is None
        assert crawl.searchable_at == page.settled_at
        assert crawl.searchable_at is not None
        elapsed = crawl.searchable_at - NOON
        assert crawl.time_to_searchable_ms == pytest.approx(elapsed.total_seconds() * 1000)

    async def test_not_while_pages_wait_after_the_end(self, database: Database, insights: Insights):
        await deliver_pages(database, "crawl-1", A)
        await deliver(database, "crawl-1", "crawl.completed")
        waiting = await insights.crawl("crawl-1")
        await index_pages(database, "crawl-1")

        crawl = await insights.crawl("crawl-1")

        assert waiting.searchable_at is None
        assert crawl.searchable_at is not None
        assert crawl.completed_at is not None
        assert crawl.searchable_at > crawl.completed_at

    async def test_a_crawl_without_pages_when_it_ended(self, database: Database, insights: Insights):
        await deliver(database, "crawl-1", "crawl.started", at=NOON)
        await deliver(database, "crawl-1", "crawl.failed", at=NOON + timedelta(seconds=3), error="no route")

        crawl = await insights.crawl("crawl-1")

        assert (crawl.status, crawl.error_message) == (CrawlStatus.FAILED, "no route")
        assert crawl.searchable_at == crawl.completed_at
        assert crawl.time_to_searchable_ms == pytest.approx(3_000)

    async def test_counts_from_the_initiator_and_never_below_zero(
        self, database: Database, insights: Insights
    ):
        tomorrow = datetime.now(UTC) + timedelta(days=1)
        await deliver_pages(database, "crawl-1", A, metadata={"initiated_at": tomorrow.isoformat()})
        await index_pages(database, "crawl-1")
        await deliver(database, "crawl-1", "crawl.completed")

        crawl = await insights.crawl("crawl-1")

        assert crawl.initiated_at == tomorrow
        assert (crawl.time_to_searchable_ms, crawl.e2e_duration_ms) == (0, 0)


async def test_the_numbers_of_a_running_crawl_agree_at_every_moment(database: Database, insights: Insights):
    await deliver_pages(database, "crawl-1", *(f"{A}{number}" for number in range(20)))
    seen = set()
    async with asyncio.TaskGroup() as group:
        indexing = group.create_task(index_pages(database, "crawl-1"))
        while not indexing.done():
            crawl = await insights.crawl("crawl-1")
            seen.add(crawl.total_pages)
            assert crawl.total_pages + crawl.pages_pending == 20
            if crawl.total_pages:
                embedding = crawl.operations["embedding"]
                assert embedding.count == crawl.total_pages
                assert embedding.total_ms == pytest.approx(crawl.aggregate_timing.embedding_ms)

    assert indexing.result() == 20
    assert len(seen) > 2


async def stored_durations(database: Database, operation_type: str) -> list[float]:
    async with database.transaction() as connection:
        durations = await connection.scalars(
            select(OperationMetric.duration_ms).where(OperationMetric.operation_type == operation_type)
        )
        return list(durations)
