"""A page that answers 404 or 410 leaves search: the newest that crawls found at a URL counts."""

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import select, text

from crawlscope.core.errors import IndexUnavailable
from crawlscope.crawls.repository import delete_crawl
from crawlscope.firecrawl.documents import scraped_page
from crawlscope.indexing.freshness import GoneAnswer, is_outdated
from crawlscope.indexing.service import IndexDocumentRequest, IndexingService
from crawlscope.models import Page
from crawlscope.pages.receive import PageDelivery, receive_pages
from tests.support.installation import Installation
from tests.support.producing import NOON, deliver

OLD = "https://shop.example/prices-old"
NEW = "https://shop.example/prices"


def minutes(count: float) -> datetime:
    return NOON + timedelta(minutes=count)


@pytest.mark.parametrize("status_code", [404, 410])
async def test_a_page_that_is_gone_in_a_later_crawl_is_not_found(
    here: Installation, status_code: int
) -> None:
    await here.crawl("monday", OLD, minutes(0))
    assert await here.found() == [OLD]
    answer = await here.deliver("tuesday", OLD, minutes(5), status_code)
    assert answer["queued_jobs"] == 0
    await here.work()
    assert await here.found() == []
    assert await here.found(crawl_id="monday") == []
    assert await here.page("tuesday") == ("failed", f"http_{status_code}")
    assert await here.counts("tuesday") == (1, 0, 1)
    assert await here.counts("monday") == (1, 1, 0)


@pytest.mark.parametrize("status_code", [401, 403, 429, 500, 503])
async def test_any_other_failure_leaves_it_there(here: Installation, status_code: int) -> None:
    await here.crawl("monday", OLD, minutes(0))
    await here.crawl("tuesday", OLD, minutes(5), status_code)
    assert await here.found() == [OLD]


async def test_a_failed_scrape_leaves_it_there(here: Installation) -> None:
    await here.crawl("monday", OLD, minutes(0))
    metadata = {"sourceURL": OLD, "url": OLD}
    page = {"markdown": "", "metadata": metadata}
    await deliver(
        here.database, "tuesday", "crawl.page", [page], at=minutes(5), success=False, error="timed out"
    )
    await here.work()
    assert await here.found() == [OLD]


async def test_it_comes_back_with_the_page(here: Installation) -> None:
    await here.crawl("monday", OLD, minutes(0))
    await here.crawl("tuesday", OLD, minutes(5), 404)
    await here.crawl("wednesday", OLD, minutes(10))
    assert await here.found() == [OLD]
    assert await here.page("wednesday") == ("indexed", None)
    assert await here.found(crawl_id="wednesday") == [OLD]
    assert await here.found(crawl_id="monday") == []


async def test_an_old_crawl_that_is_delivered_late_does_not_bring_it_back(here: Installation) -> None:
    await here.deliver("monday", NEW, minutes(0), words="Other words.")
    await here.end("monday", minutes(1))
    await here.crawl("tuesday", OLD, minutes(5), 404)
    await here.crawl("monday", OLD, minutes(20))
    assert await here.found() == []
    async with here.database.transaction() as connection:
        late = select(Page.state, Page.error_code).where(Page.source_url == OLD, Page.crawl_id == "monday")
        assert tuple((await connection.execute(late)).one()) == ("unchanged", "gone_since")
    assert await here.counts("monday") == (2, 2, 0)


async def test_an_old_crawl_that_is_delivered_late_removes_nothing(here: Installation) -> None:
    await here.deliver("monday", NEW, minutes(0), words="Other words.")
    await here.end("monday", minutes(1))
    await here.crawl("tuesday", OLD, minutes(5))
    await here.crawl("monday", OLD, minutes(20), 404)
    assert await here.found() == [OLD]


async def test_an_old_content_that_comes_late_replaces_no_newer_one(here: Installation) -> None:
    await here.deliver("monday", NEW, minutes(0), words="Other words.")
    await here.end("monday", minutes(1))
    await here.crawl("tuesday", OLD, minutes(5), words="The dolphin plan costs five coins.")
    await here.crawl("monday", OLD, minutes(20))
    assert (await here.found(), await here.found("dolphin")) == ([], [OLD])
    assert await here.found("dolphin", crawl_id="monday") == [OLD]
    async with here.database.transaction() as connection:
        late = select(Page.state, Page.error_code).where(Page.source_url == OLD, Page.crawl_id == "monday")
        assert tuple((await connection.execute(late)).one()) == ("unchanged", "outdated")
    await here.reindex()
    assert (await here.found(), await here.found("dolphin")) == ([], [OLD])


async def test_an_old_page_without_text_that_comes_late_removes_no_newer_one(here: Installation) -> None:
    await here.deliver("monday", NEW, minutes(0), words="Other words.")
    await here.end("monday", minutes(1))
    await here.crawl("tuesday", OLD, minutes(5))
    await here.crawl("monday", OLD, minutes(20), words="")
    assert await here.found() == [OLD]


async def test_a_page_that_waits_in_the_queue_when_it_is_gone_stays_out(here: Installation) -> None:
    await here.deliver("monday", OLD, minutes(0))
    await here.deliver("tuesday", OLD, minutes(5), 404)
    await here.work()
    assert await here.found() == []
    assert await here.page("monday") == ("unchanged", "gone_since")


async def test_where_a_source_led_before_is_gone_with_it(here: Installation) -> None:
    await here.crawl("monday", OLD, minutes(0), final_url=f"{OLD}/")
    assert await here.found() == [f"{OLD}/"]
    await here.crawl("tuesday", OLD, minutes(5), 404)
    assert await here.found() == []


async def test_what_another_source_still_leads_to_stays(here: Installation) -> None:
    await here.deliver("monday", OLD, minutes(0), final_url=NEW)
    await here.crawl("monday", NEW, minutes(1))
    await here.crawl("tuesday", OLD, minutes(5), 404)
    assert await here.found() == [NEW]
    await here.crawl("wednesday", NEW, minutes(10), 410)
    assert await here.found() == []


async def test_a_redirect_to_a_page_that_is_gone_removes_both(here: Installation) -> None:
    await here.crawl("monday", OLD, minutes(0))
    await here.crawl("monday", NEW, minutes(1))
    await here.crawl("tuesday", OLD, minutes(5), 404, final_url=NEW)
    assert await here.found() == []


async def test_what_reconciling_learns_counts_as_well(here: Installation) -> None:
    await here.crawl("monday", OLD, minutes(0))
    await deliver(here.database, "tuesday", "crawl.started", at=minutes(4))
    document = {"markdown": "gone", "metadata": {"sourceURL": OLD, "url": OLD, "statusCode": 404}}
    page = scraped_page(document, minutes(5), pushed=False)
    assert page is not None
    async with here.database.transaction() as connection:
        await receive_pages(connection, [PageDelivery("tuesday", [page])])
    await here.work()
    assert await here.found() == []


async def test_what_was_put_in_without_a_crawl_is_gone_when_a_crawl_says_so(here: Installation) -> None:
    await here.indexing.index_document(IndexDocumentRequest(url=OLD, markdown="The narwhal plan."))
    await here.crawl("late", OLD, minutes(5), 404)
    assert await here.found() == [OLD], "it was put in after that"
    await here.crawl("tomorrow", OLD, datetime.now(UTC) + timedelta(days=1), 404)
    assert await here.found() == []


async def test_a_removal_that_fails_is_done_again(
    here: Installation, monkeypatch: pytest.MonkeyPatch
) -> None:
    await here.crawl("monday", OLD, minutes(0))
    await here.deliver("tuesday", OLD, minutes(5), 404)

    async def fail(*_: Any) -> None:
        raise IndexUnavailable("unavailable")

    with monkeypatch.context() as outage:
        outage.setattr(IndexingService, "_index", fail)
        with pytest.raises(IndexUnavailable):
            await here.work()
    assert await here.found() == [OLD]
    await here.work()
    assert await here.found() == []


async def test_a_rebuilt_index_has_nothing_that_is_gone(here: Installation) -> None:
    await here.crawl("monday", OLD, minutes(0))
    await here.crawl("monday", NEW, minutes(1))
    await here.crawl("tuesday", OLD, minutes(5), 404)
    await here.reindex()
    assert await here.found() == [NEW]


async def test_a_rebuilt_index_leaves_out_what_was_gone_before_the_index_followed(here: Installation) -> None:
    """As an older version left it: the page is known to be gone, and nothing was queued for that."""
    await here.crawl("monday", OLD, minutes(0))
    await here.crawl("monday", NEW, minutes(1))
    await here.deliver("tuesday", OLD, minutes(5), 404)
    async with here.database.transaction() as connection:
        await connection.execute(text("DELETE FROM queue.pgqueuer"))
    assert OLD in await here.found()
    await here.reindex()
    assert await here.found() == [NEW]


async def test_with_the_crawl_that_found_it_gone_that_is_forgotten(here: Installation) -> None:
    await here.crawl("monday", OLD, minutes(0))
    await here.deliver("tuesday", OLD, minutes(5), 404)
    await here.database.run(lambda connection: delete_crawl(connection, "tuesday", here.indexing))
    await here.work()
    assert await here.found() == [OLD]
    await here.database.run(lambda connection: delete_crawl(connection, "monday", here.indexing))
    assert await here.found() == []


A, B, C = (UUID(int=number) for number in (1, 2, 3))


@pytest.mark.parametrize(
    ("brought", "gone", "outdated"),
    [
        ({A: minutes(0)}, [], False),
        ({A: minutes(0)}, [GoneAnswer(A, A, minutes(1))], True),
        ({A: minutes(2)}, [GoneAnswer(A, A, minutes(1))], False),
        ({A: minutes(1)}, [GoneAnswer(A, A, minutes(1))], False),
        ({B: minutes(0)}, [GoneAnswer(A, A, minutes(1))], True),
        ({B: minutes(0)}, [GoneAnswer(B, C, minutes(1))], True),
        ({A: minutes(0), B: minutes(0)}, [GoneAnswer(B, C, minutes(1))], False),
        ({B: minutes(0)}, [GoneAnswer(C, A, minutes(1))], True),
        ({}, [GoneAnswer(A, A, minutes(1))], True),
    ],
)
def test_the_newest_fact_wins(brought: dict[UUID, datetime], gone: list[GoneAnswer], outdated: bool) -> None:
    assert is_outdated(A, brought, gone) is outdated
