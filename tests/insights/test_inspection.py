"""The data of the dashboard that the API does not answer."""

import pytest

from crawlscope.core.errors import NotFoundError
from crawlscope.core.vocabulary import PageState
from crawlscope.database.engine import Database
from crawlscope.insights.inspection import Inspection
from crawlscope.insights.inspection_queries import SpanOrder, WhichPages
from tests.support.producing import A, B, C, deliver, deliver_pages, document, fail_pages, index_pages


@pytest.fixture
def inspection(database: Database) -> Inspection:
    return Inspection(database)


async def test_failures_are_grouped_by_cause(database: Database, inspection: Inspection):
    for number in range(5):
        await deliver(database, "x", "crawl.page", [document(f"{A}{number}", status_code=404)])
    await deliver_pages(database, "x", B)
    await fail_pages(database, "x", "too_long", "The text is too long.")
    gone, long = await inspection.causes("x")
    assert (gone["code"], gone["pages"], gone["with_content"], gone["status_code"]) == ("http_404", 5, 0, 404)
    assert len(gone["examples"]) == 3
    assert (long["code"], long["with_content"], long["examples"]) == ("too_long", 1, [B])
    assert long["reason"] == "The text is too long."
    assert await inspection.urls_of_cause("x", "http_404") == [f"{A}{number}" for number in range(5)]
    assert await inspection.urls_of_cause("x", None) == []


async def test_spans_are_filtered_sorted_and_sliced(database: Database, inspection: Inspection):
    await deliver_pages(database, "x", A, B)
    await index_pages(database, "x")
    await deliver_pages(database, "x", C)
    begun = await inspection.spans("x")
    assert ([row["url"] for row in begun.rows], begun.total) == ([A, B, C], 3)
    assert begun.rows[2]["total_ms"] is None
    assert [row["url"] for row in (await inspection.spans("x", order=SpanOrder.SLOWEST)).rows][2] == C
    waiting = await inspection.spans("x", WhichPages(PageState.QUEUED))
    assert ([row["url"] for row in waiting.rows], waiting.total) == ([C], 1)
    part = await inspection.spans("x", WhichPages(url="b.ex"), limit=1, offset=1)
    assert (part.rows, part.total) == ([], 1)
    assert len(await inspection.slowest("x", 5)) == 2


async def test_a_page_has_its_history_and_its_delivery(database: Database, inspection: Inspection):
    await deliver_pages(database, "first", A)
    await index_pages(database, "first")
    changed = document(A) | {"markdown": "# Other words"}
    await deliver(database, "second", "crawl.page", [changed], webhookId="of-this-page")
    found = await inspection.page("second", A)
    assert [row["crawl_id"] for row in found.history] == ["second", "first"]
    assert found.history[0]["digest"] != found.history[1]["digest"]
    assert found.page["markdown"] == "# Other words"
    assert found.delivery is not None
    assert found.delivery["webhook_id"] == "of-this-page"
    delivery = await inspection.delivery("second", found.delivery["id"])
    assert delivery["body"] == found.delivery["body"]


async def test_sparklines_count_the_settled_pages(database: Database, inspection: Inspection):
    await deliver_pages(database, "x", A, B)
    await index_pages(database, "x")
    crawl = {"crawl_id": "x", "total_pages": 2, "searchable_at": None}
    assert sum((await inspection.sparklines([crawl]))["x"]) == 2
    await deliver_pages(database, "x", C)
    await index_pages(database, "x")
    assert sum((await inspection.sparklines([crawl]))["x"]) == 2  # remembered
    assert sum((await inspection.sparklines([{**crawl, "total_pages": 3}]))["x"]) == 3


async def test_unknown_crawls_and_pages_are_said_to_be(database: Database, inspection: Inspection):
    await deliver_pages(database, "x", A)
    for asked in (inspection.causes("y"), inspection.page("x", B), inspection.delivery("x", 99)):
        with pytest.raises(NotFoundError):
            await asked


async def test_the_activity_names_the_queue_and_its_age(database: Database, inspection: Inspection):
    await deliver_pages(database, "x", A, B)
    activity = await inspection.activity()
    assert (activity.queue["queued"], activity.queue["indexing"]) == (2, 0)
    assert activity.queue["oldest_queued_at"] is not None
    await fail_pages(database, "x", "broken", "It is broken.")
    activity = await inspection.activity()
    assert activity.throughput["attempts"] == 2
    assert {row["operation_type"] for row in activity.errors} == {"embedding"}
    assert all("It is broken." in row["error_message"] for row in activity.errors)
