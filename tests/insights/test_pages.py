from datetime import timedelta

import pytest

from crawlscope.core.errors import NotFoundError
from crawlscope.core.vocabulary import PageState
from crawlscope.database.engine import Database
from crawlscope.insights.queries import PageSort
from crawlscope.insights.service import Insights
from crawlscope.pages.retry import retry_pages
from tests.support.producing import (
    NOON,
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


class TestPages:
    async def test_stages_and_the_unaccounted_rest_sum_to_the_total(
        self, database: Database, insights: Insights
    ):
        await deliver(database, "crawl-1", "crawl.page", [document(A, final_url=B)])
        await index_pages(database, "crawl-1")

        [page] = (await insights.pages("crawl-1")).pages

        assert (page.url, page.final_url) == (A, B)
        assert (page.state, page.attempts, page.status_code) == (PageState.INDEXED, 1, 200)
        assert page.chunks == 3
        assert set(page.stages) == {"chunking", "embedding", "qdrant", "bm25"}
        assert page.total_ms is not None
        assert page.unaccounted_ms is not None
        assert sum(page.stages.values()) + page.unaccounted_ms == pytest.approx(page.total_ms)
        assert page.queued_at is not None
        assert page.settled_at is not None
        assert page.queued_at < page.settled_at

    async def test_by_state(self, database: Database, insights: Insights):
        await deliver_pages(database, "crawl-1", A)
        await index_pages(database, "crawl-1", PageState.EMPTY, chunks=0)
        await deliver(
            database, "crawl-1", "crawl.page", [document(B)], success=False, error="the page timed out"
        )
        await deliver_pages(database, "crawl-1", C)

        failed = await insights.pages("crawl-1", state=PageState.FAILED)
        waiting = await insights.pages("crawl-1", state=PageState.QUEUED)

        assert [(page.url, page.error_code, page.error) for page in failed.pages] == [
            (B, "scrape_timeout", "the page timed out")
        ]
        assert [page.url for page in waiting.pages] == [C]
        assert failed.total == waiting.total == 1
        assert (await insights.pages("crawl-1", state=PageState.CANCELLED)).total == 0

    async def test_sorted(self, database: Database, insights: Insights):
        await deliver_pages(database, "crawl-1", B, A)
        await index_pages(database, "crawl-1")
        await deliver_pages(database, "crawl-1", C)

        async def urls(sort: PageSort) -> list[str]:
            return [page.url for page in (await insights.pages("crawl-1", sort=sort)).pages]

        assert await urls(PageSort.URL) == [A, B, C]
        assert await urls(PageSort.RECENT) == [C, A, B]
        slowest = (await insights.pages("crawl-1", sort=PageSort.SLOWEST)).pages
        times = [page.total_ms for page in slowest[:2] if page.total_ms is not None]
        assert times == sorted(times, reverse=True)
        assert len(times) == 2
        assert slowest[2].url == C

    async def test_in_slices(self, database: Database, insights: Insights):
        await deliver_pages(database, "crawl-1", A, B, C)

        middle = await insights.pages("crawl-1", sort=PageSort.URL, limit=1, offset=1)

        assert ([page.url for page in middle.pages], middle.total) == ([B], 3)

    async def test_a_page_that_waits_again_shows_nothing_of_its_last_outcome(
        self, database: Database, insights: Insights
    ):
        await deliver_pages(database, "crawl-1", A)
        await fail_pages(database, "crawl-1", "bad_text", "cannot embed")
        async with database.transaction() as connection:
            assert (await retry_pages(connection, "crawl-1")).queued == 1

        [page] = (await insights.pages("crawl-1")).pages

        assert (page.state, page.attempts) == (PageState.QUEUED, 1)
        assert (page.total_ms, page.unaccounted_ms, page.queue_wait_ms) == (None, None, None)
        assert (page.stages, page.chunks, page.error) == ({}, None, None)

    async def test_unknown_crawl(self, insights: Insights):
        with pytest.raises(NotFoundError, match=r"^Crawl not found: nobody$"):
            await insights.pages("nobody")


class TestAttempts:
    async def test_every_try_is_there_with_what_it_took(self, database: Database, insights: Insights):
        await deliver_pages(database, "crawl-1", A, B)
        await put_pages_back(database, "crawl-1", "embedder_unavailable", "the embedder is down")
        await index_pages(database, "crawl-1")

        answer = await insights.attempts("crawl-1", A)

        first, second = answer.attempts
        assert answer.total == 2
        assert (first.number, first.outcome, first.error_code) == (1, "retried", "embedder_unavailable")
        assert (second.number, second.outcome, second.error) == (2, "indexed", None)
        assert first.error == "the embedder is down"
        assert first.worker == second.worker == "worker-1"
        for each in (first, second):
            assert each.finished_at is not None
            assert each.total_ms is not None
            assert each.unaccounted_ms is not None
            assert each.queue_wait_ms is not None
            assert each.queue_wait_ms >= 0
            assert sum(each.stages.values()) + each.unaccounted_ms == pytest.approx(each.total_ms)
        assert set(first.stages) == {"chunking", "embedding"}

    async def test_one_under_way_has_no_outcome(self, database: Database, insights: Insights):
        await deliver_pages(database, "crawl-1", A)
        [job] = await queued(database, "crawl-1")
        await attempt(database, job)

        [running] = (await insights.attempts("crawl-1", A)).attempts

        assert (running.outcome, running.finished_at, running.total_ms) == (None, None, None)

    async def test_unknown_page(self, database: Database, insights: Insights):
        await deliver_pages(database, "crawl-1", A)

        with pytest.raises(NotFoundError, match=r"^Page not found in crawl crawl-1: "):
            await insights.attempts("crawl-1", "https://nobody.example/\x00")
        with pytest.raises(NotFoundError, match=r"^Crawl not found: nobody$"):
            await insights.attempts("nobody", A)


class TestDeliveries:
    async def test_newest_first_each_once(self, database: Database, insights: Insights):
        await deliver(database, "crawl-1", "crawl.started", at=NOON, webhookId="one")
        await deliver(database, "crawl-1", "crawl.started", at=NOON, webhookId="one")
        await deliver(database, "crawl-1", "crawl.page", [document(A)], at=NOON + timedelta(seconds=1))
        await deliver(database, "crawl-1", "crawl.page", at=NOON + timedelta(seconds=2), success=False)

        answer = await insights.deliveries("crawl-1")

        assert answer.total == 3
        assert [each.event_type for each in answer.deliveries] == [
            "crawl.page",
            "crawl.page",
            "crawl.started",
        ]
        nameless, page, started = answer.deliveries
        assert nameless.note is not None
        assert (page.pages, page.note) == (1, None)
        assert (started.webhook_id, started.received_at) == ("one", NOON)
        assert all(each.body_bytes > 50 for each in answer.deliveries)
        assert [each.id for each in (await insights.deliveries("crawl-1", 1, 1)).deliveries] == [page.id]

    async def test_unknown_crawl(self, insights: Insights):
        with pytest.raises(NotFoundError, match=r"^Crawl not found: nobody$"):
            await insights.deliveries("nobody")
