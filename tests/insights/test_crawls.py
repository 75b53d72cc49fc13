from datetime import timedelta

import pytest

from crawlscope.core.vocabulary import CrawlStatus
from crawlscope.database.engine import Database
from crawlscope.insights.service import Insights
from crawlscope.sessions.recount import recount
from tests.support.producing import (
    NOON,
    A,
    B,
    C,
    deliver,
    deliver_pages,
    index_pages,
)


class TestCrawls:
    async def test_newest_first_and_total_counts_all_matches(self, database: Database, insights: Insights):
        for number in (2, 0, 1):
            await deliver(database, f"crawl-{number}", "crawl.started", at=NOON + timedelta(hours=number))

        first = await insights.crawls(limit=2)
        rest = await insights.crawls(limit=2, offset=2)
        beyond = await insights.crawls(offset=2**63 - 1, limit=1_000)

        assert [crawl.crawl_id for crawl in first.crawls] == ["crawl-2", "crawl-1"]
        assert [crawl.crawl_id for crawl in rest.crawls] == ["crawl-0"]
        assert (first.total, rest.total, beyond.total) == (3, 3, 3)
        assert beyond.crawls == []

    async def test_each_is_what_is_known_of_it_alone(self, database: Database, insights: Insights):
        await deliver_pages(database, "crawl-1", A, B)
        await index_pages(database, "crawl-1")
        await deliver_pages(database, "crawl-2", C)
        await deliver(database, "crawl-3", "crawl.started")

        listed = (await insights.crawls()).crawls

        assert {crawl.crawl_id for crawl in listed} == {"crawl-1", "crawl-2", "crawl-3"}
        words = {"verdict": {"reason"}}  # they say how many seconds ago
        for crawl in listed:
            alone = await insights.crawl(crawl.crawl_id)
            assert crawl.model_dump(exclude=words) == alone.model_dump(exclude=words)

    async def test_narrowed_by_status(self, database: Database, insights: Insights):
        await deliver(database, "done", "crawl.completed")
        await deliver(database, "running", "crawl.started")

        completed = await insights.crawls(status=CrawlStatus.COMPLETED)

        assert [crawl.crawl_id for crawl in completed.crawls] == ["done"]
        assert completed.total == 1

    async def test_narrowed_by_any_part_of_the_url_taken_literally(
        self, database: Database, insights: Insights
    ):
        paths = {"percent": "100%", "underscore": "a_b", "plain": "1000/axb", "backslash": "a\\c"}
        for crawl_id, path in paths.items():
            await deliver(
                database, crawl_id, "crawl.started", metadata={"url": f"https://example.org/{path}"}
            )

        async def found(part: str) -> set[str]:
            matching = await insights.crawls(url=part)
            assert matching.total == len(matching.crawls)
            return {crawl.crawl_id for crawl in matching.crawls}

        assert await found("100%") == await found("%") == {"percent"}
        assert await found("a_b") == {"underscore"}
        assert await found("\\") == {"backslash"}
        assert await found("example.org/") == set(paths)
        assert await found("no\x00such") == set()

    async def test_narrowed_by_the_time_they_started(self, database: Database, insights: Insights):
        for number in range(4):
            await deliver(database, f"crawl-{number}", "crawl.started", at=NOON + timedelta(hours=number))

        matching = await insights.crawls(since=NOON + timedelta(hours=1), until=NOON + timedelta(hours=3))

        assert [crawl.crawl_id for crawl in matching.crawls] == ["crawl-2", "crawl-1"]

    async def test_none(self, insights: Insights):
        nothing = await insights.crawls()

        assert (nothing.crawls, nothing.total) == ([], 0)

    @pytest.mark.parametrize(
        "nothing", ["0001-01-01T00:00:00Z", "0001-01-01T05:00:00+05:00", "9999-12-31T23:59:59.999999Z"]
    )
    async def test_a_time_that_means_none_is_left_out(
        self, database: Database, insights: Insights, nothing: str
    ):
        await deliver(database, "crawl-1", "crawl.completed", metadata={"initiated_at": nothing})

        [listed] = (await insights.crawls()).crawls

        assert listed == (await insights.crawl("crawl-1")).model_copy(update={"baseline": None})
        assert (listed.initiated_at, listed.e2e_duration_ms) == (None, None)
        assert listed.time_to_searchable_ms == 0
        assert "initiated_at" in listed.lacks
        assert await database.run(lambda connection: recount(connection, "crawl-1")) == {}
