"""The timeline divides what the recorder knows of a crawl, and loses nothing of it."""

from datetime import UTC, datetime, timedelta

import pytest

from crawlscope.core.errors import NotFoundError
from crawlscope.core.vocabulary import EventKind
from crawlscope.database.engine import Database
from crawlscope.insights.service import Insights
from crawlscope.timing import TimingContext
from crawlscope.timing.store import record_operations
from tests.support.producing import (
    A,
    B,
    C,
    attempt,
    deliver,
    deliver_pages,
    document,
    fail_pages,
    index_pages,
    put_pages_back,
    queued,
)


@pytest.mark.parametrize("buckets", [1, 7, 1_000])
async def test_its_buckets_sum_up_to_the_crawl(database: Database, insights: Insights, buckets: int):
    began = datetime.now(UTC) - timedelta(seconds=3)
    await deliver(database, "crawl-1", "crawl.started", at=began)
    await deliver_pages(database, "crawl-1", A)
    await put_pages_back(database, "crawl-1", "embedder_unavailable", "down")
    await index_pages(database, "crawl-1")
    await deliver_pages(database, "crawl-1", B)
    await fail_pages(database, "crawl-1", "bad_text", "cannot embed")
    await deliver(database, "crawl-1", "crawl.page", [document(C, status_code=404)])
    await deliver(database, "crawl-1", "crawl.completed")

    found, crawl = await insights.timeline("crawl-1", buckets), await insights.crawl("crawl-1")

    assert len(found.buckets) == buckets
    assert (found.began_at, found.ended_at) == (began, max(crawl.last_fact_at, crawl.searchable_at or began))
    assert found.bucket_seconds * buckets == pytest.approx((found.ended_at - began).total_seconds())
    sums = [sum(getattr(each, name) for each in found.buckets) for name in ("received", "indexed", "failed")]
    assert sums == [3, 1, 2]
    pages = sum(each.received_per_second * found.bucket_seconds for each in found.buckets)
    assert pages == pytest.approx(3)
    operations = (await insights.operations("crawl-1")).operations
    for kind in ("worker", "chunking", "embedding"):
        measured = sum(each.duration_ms for each in operations if each.operation_type == kind)
        assert sum(each.stages.get(kind, 0) for each in found.buckets) == pytest.approx(measured, rel=1e-3)
    assert (found.buckets[-1].queued, found.buckets[-1].indexing) == (0, 0)
    assert [(each.kind, each.what, each.count) for each in found.events if each.kind is EventKind.RETRY] == [
        (EventKind.RETRY, "embedder_unavailable", 1)
    ]
    kinds = {each.kind for each in found.events}
    assert kinds >= {EventKind.STARTED, EventKind.ENDED, EventKind.SEARCHABLE}


async def test_it_counts_what_waits_and_what_is_being_indexed(database: Database, insights: Insights):
    await deliver_pages(database, "crawl-1", A, B, C)
    await attempt(database, (await queued(database, "crawl-1"))[0])

    last = (await insights.timeline("crawl-1", 3)).buckets[-1]

    assert (last.queued, last.indexing) == (2, 1)


async def test_a_crawl_of_one_event_has_a_timeline(database: Database, insights: Insights):
    await deliver(database, "crawl-1", "crawl.started")

    found = await insights.timeline("crawl-1", 2)

    assert [(each.received, each.stages, each.queued) for each in found.buckets] == [(0, {}, 0)] * 2


async def test_an_unknown_crawl_has_neither_timeline_nor_diagnosis(insights: Insights):
    for ask in (insights.timeline, insights.diagnosis):
        with pytest.raises(NotFoundError, match="Crawl not found: nowhere"):
            await ask("nowhere")


async def test_an_operation_that_outlasts_its_crawl_by_far_is_in_the_last_bucket(
    database: Database, insights: Insights
):
    """A bucket is 17 µs long: a row for each would be hundreds of millions."""
    began = datetime.now(UTC)
    measured = TimingContext.past("embedding", "batch", began, began + timedelta(hours=2), crawl_id="library")
    await database.run(lambda connection: record_operations(connection, [measured]))
    buckets = (await insights.timeline("library")).buckets
    assert sum(each.stages.get("embedding", 0.0) for each in buckets) == pytest.approx(measured.duration_ms)
    assert buckets[-1].stages["embedding"] > 0.999 * measured.duration_ms
