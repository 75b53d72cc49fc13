from unittest.mock import AsyncMock

import pytest
from sqlalchemy import event

from crawlscope.database.engine import Database
from crawlscope.insights import answer_cache
from crawlscope.insights.service import Insights
from tests.support.producing import A, B, deliver, deliver_pages, index_pages


async def test_the_course_of_a_large_ended_crawl_is_read_once_until_it_changes(
    database: Database, insights: Insights, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(answer_cache, "LARGE_PAGES", 1)
    read = list[str]()
    event.listen(
        database.engine.sync_engine,
        "before_cursor_execute",
        lambda _connection, _cursor, statement, *_: read.append(statement),
    )

    async def times_read() -> int:
        read.clear()
        course, found = await insights.timeline("crawl-1"), await insights.diagnosis("crawl-1")
        assert course.crawl_id == found.crawl_id == "crawl-1"
        assert sum(bucket.indexed for bucket in course.buckets) == indexed
        return sum("webhook.operation_metrics" in statement for statement in read)

    await deliver_pages(database, "crawl-1", A)
    indexed = await index_pages(database, "crawl-1")
    assert [await times_read() for _ in range(2)] == [2, 2]  # while it runs
    await deliver(database, "crawl-1", "crawl.completed")
    assert [await times_read() for _ in range(3)] == [2, 0, 0]
    await deliver_pages(database, "crawl-1", B)
    indexed += await index_pages(database, "crawl-1")
    assert [await times_read() for _ in range(2)] == [2, 0]
    monkeypatch.setattr(answer_cache, "MAX_AGE_SECONDS", 0.0)
    await deliver_pages(database, "crawl-1", A)
    indexed += await index_pages(database, "crawl-1") - 1
    assert [await times_read() for _ in range(2)] == [2, 2]


async def test_the_cached_answers_are_few(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(answer_cache, "MAX_ANSWERS", 2)
    answers, make = answer_cache.AnswerCache(), AsyncMock(side_effect=range(10))
    over = {"completed_at": 1, "pages_pending": 0, "total_pages": answer_cache.LARGE_PAGES}

    made = [await answers.get(over | {"crawl_id": name}, "it", make) for name in "abacbca"]

    assert made == [0, 1, 0, 2, 1, 2, 3]
