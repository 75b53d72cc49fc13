"""The events of a live feed: each page that settles comes once, through any interruption."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Iterable
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any, cast

import pytest
from pydantic import BaseModel
from sqlalchemy import event
from sqlalchemy.ext.asyncio import AsyncConnection

from crawlscope.core.errors import NotFoundError, UsageError
from crawlscope.core.periodic import in_background
from crawlscope.core.vocabulary import PageState
from crawlscope.crawls.repository import delete_crawl
from crawlscope.database.engine import Database
from crawlscope.indexing import IndexingService
from crawlscope.insights import live as live_module
from crawlscope.insights import viewers
from crawlscope.insights.live import Live
from crawlscope.insights.news import Position
from crawlscope.insights.schemas import CrawlState, LiveCrawls, LiveEnd, LivePages
from crawlscope.insights.service import Insights
from crawlscope.pages.index_page import EndedAttempt, Outcome, end_attempts, still_claimed
from tests.support.polling import eventually
from tests.support.producing import A, B, C, attempt, deliver, document, index_pages, queued

Sent = tuple[str, Any, Position | None]
LONG_AGO = datetime.now(UTC) - timedelta(minutes=5)


class Feeds:
    """Live feeds whose events are not encoded: each is kept under the number that is sent for it."""

    def __init__(self, insights: Insights) -> None:
        self.sent: list[Sent] = []
        self.live = Live(insights, self._keep)

    def _keep(self, name: str, content: BaseModel, position: Position | None) -> bytes:
        self.sent.append((name, content, position))
        return b"%d," % (len(self.sent) - 1)

    def have_sent(self, pages: int) -> bool:
        return len(pages_of(self.sent)) >= pages

    async def crawl(self, crawl_id: str, after: Position | None = None) -> AsyncGenerator[Sent, None]:
        events = await self.live.crawl(crawl_id, after)
        assert events is not None
        async with aclosing(self._read(events)) as read:
            async for sent in read:
                yield sent

    async def crawls(self) -> AsyncGenerator[Sent, None]:
        async with aclosing(self._read(await self.live.crawls())) as read:
            async for sent in read:
                yield sent

    async def _read(self, events: Any) -> AsyncGenerator[Sent, None]:
        async with aclosing(events):
            async for numbers in events:
                for number in numbers.split(b",")[:-1]:
                    yield self.sent[int(number)]


@pytest.fixture
async def feeds(insights: Insights, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Feeds]:
    monkeypatch.setattr(live_module, "POLL_SECONDS", 0.02)
    feeds = Feeds(insights)
    async with in_background(feeds.live.run()):
        yield feeds


async def receive_all(feed: AsyncIterator[Sent]) -> list[Sent]:
    return [sent async for sent in feed]


@asynccontextmanager
async def following(feed: AsyncIterator[Sent]) -> AsyncIterator["asyncio.Task[list[Sent]]"]:
    """Receives in the background, from a moment at which the feed has begun."""
    first = await anext(feed)

    async def rest() -> list[Sent]:
        return [first, *await receive_all(feed)]

    task = asyncio.create_task(rest())
    yield task
    task.cancel()


def pages_of(sent: Iterable[Sent]) -> list[str]:
    return [page.url for _, content, _ in sent if isinstance(content, LivePages) for page in content.pages]


def states_of(sent: Iterable[Sent]) -> list[CrawlState]:
    return [content for _, content, _ in sent if isinstance(content, CrawlState)]


async def end_crawl(database: Database, crawl_id: str = "crawl-1") -> None:
    """So long ago that no late page is expected."""
    await deliver(database, crawl_id, "crawl.completed", at=LONG_AGO)


def urls(first: int, last: int) -> list[str]:
    return [f"{A}{number:04}" for number in range(first, last)]


async def fail_at_crawler(database: Database, crawl_id: str, some: Iterable[str]) -> None:
    """Pages that settle with their delivery, all in one transaction."""
    documents = [document(url, status_code=404) for url in some]
    await deliver(database, crawl_id, "batch_scrape.page", documents, at=LONG_AGO)


async def test_a_viewer_sees_each_page_settle_and_the_end(database: Database, feeds: Feeds):
    await deliver(database, "crawl-1", "crawl.page", [document(A)], at=LONG_AGO)
    async with following(feeds.crawl("crawl-1")) as sent:
        await index_pages(database, "crawl-1")
        await deliver(database, "crawl-1", "crawl.page", [document(B, status_code=404)], at=LONG_AGO)
        await end_crawl(database)
        events = await asyncio.wait_for(sent, 60)

    assert pages_of(events) == [A, B]
    settled = [content for _, content, _ in events if isinstance(content, LivePages)]
    states = {page.url: page.state for content in settled for page in content.pages}
    assert states == {A: PageState.INDEXED, B: PageState.FAILED}
    first, *_, last = states_of(events)
    assert (first.pages_pending, first.total_pages, first.sealed) == (1, 0, False)
    assert (last.pages_indexed, last.pages_failed, last.sealed, last.verdict) == (1, 1, True, None)
    assert events[-1][1] == LiveEnd(crawl_id="crawl-1", reason="sealed")
    assert [name for name, _, _ in events].count("end") == 1


async def test_after_an_interruption_nothing_is_lost_and_nothing_sent_twice(database: Database, feeds: Feeds):
    await fail_at_crawler(database, "crawl-1", urls(0, 250))
    known: list[str] = []
    position = Position()
    for start in range(250, 1000, 250):
        async with aclosing(feeds.crawl("crawl-1", position)) as feed:
            async for name, content, place in feed:
                if name == "pages":
                    known += [page.url for page in content.pages]
                    assert place is not None
                    position = Position.parse(str(place))
                    break  # the connection is lost right after
        await fail_at_crawler(database, "crawl-1", urls(start, start + 250))
    await end_crawl(database)

    known += pages_of(await asyncio.wait_for(receive_all(feeds.crawl("crawl-1", position)), 60))

    assert sorted(known) == urls(0, 1000)


async def test_a_page_whose_transaction_ends_later_than_that_of_another_is_sent(
    database: Database, feeds: Feeds
):
    await deliver(database, "crawl-1", "crawl.page", [document(A)], at=LONG_AGO)
    [job] = await queued(database, "crawl-1")
    claim, measured = await attempt(database, job)
    async with following(feeds.crawl("crawl-1")) as sent:
        async with database.transaction() as slow:
            assert await still_claimed(slow, [claim]) == [True]
            await fail_at_crawler(database, "crawl-1", [B])  # begins later, and commits first
            await asyncio.sleep(0.2)  # some polls
            await end_attempts(slow, [EndedAttempt(claim, Outcome(PageState.INDEXED, 1), measured)])
        await fail_at_crawler(database, "crawl-1", [C])
        await end_crawl(database)
        events = await asyncio.wait_for(sent, 60)

    assert sorted(pages_of(events)) == [A, B, C]


async def test_a_page_that_settles_again_is_sent_again(database: Database, feeds: Feeds):
    await fail_at_crawler(database, "crawl-1", [A])
    async with following(feeds.crawl("crawl-1")) as sent:
        await deliver(database, "crawl-1", "crawl.page", [document(A)], at=LONG_AGO)
        await index_pages(database, "crawl-1")
        await end_crawl(database)
        events = await asyncio.wait_for(sent, 60)

    assert pages_of(events) == [A]
    assert states_of(events)[-1].pages_failed == 0


async def test_a_viewer_that_reads_too_slowly_is_disconnected_and_misses_nothing(
    database: Database, feeds: Feeds, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(viewers, "MAX_WAITING", 3)
    await deliver(database, "crawl-1", "crawl.started", at=LONG_AGO)
    async with following(feeds.crawl("crawl-1")), aclosing(feeds.crawl("crawl-1")) as slow:
        begin = await anext(slow)
        for some in range(0, 100, 10):
            await fail_at_crawler(database, "crawl-1", urls(some, some + 10))
            await eventually(partial(feeds.have_sent, some + 10))
        assert await receive_all(slow) == []
        rest = feeds.crawl("crawl-1", begin[2])
        await end_crawl(database)
        events = await asyncio.wait_for(receive_all(rest), 60)

    assert sorted(pages_of(events)) == urls(0, 100)


async def test_a_hundred_viewers_cost_the_queries_of_one(database: Database, feeds: Feeds):
    """In each poll; each begins with a few of its own, to read what it missed."""
    await deliver(database, "crawl-1", "crawl.started", at=LONG_AGO)
    statements: list[str] = []
    event.listen(database.engine.sync_engine, "after_cursor_execute", lambda *a: statements.append(a[2]))

    def poll_count() -> int:
        return sum("pg_snapshot_xmin" in each for each in statements)

    async def statements_of_a_poll(viewers: int) -> float:
        async with AsyncExitStack() as stack:
            for _ in range(viewers):
                await anext(await stack.enter_async_context(aclosing(feeds.crawl("crawl-1"))))
            before = len(statements)
            polls = 5
            until = poll_count() + polls
            await eventually(lambda: poll_count() >= until)
            return (len(statements) - before) / polls

    alone, together = await statements_of_a_poll(1), await statements_of_a_poll(100)

    assert together <= alone + 2


async def test_a_sealed_crawl_of_which_everything_is_known_has_no_feed(database: Database, feeds: Feeds):
    await fail_at_crawler(database, "crawl-1", [A])
    await end_crawl(database)

    events = await asyncio.wait_for(receive_all(feeds.crawl("crawl-1", Position())), 60)

    assert [name for name, _, _ in events] == ["pages", "crawl", "end"]
    assert await feeds.live.crawl("crawl-1", events[-1][2]) is None
    again = await asyncio.wait_for(receive_all(feeds.crawl("crawl-1")), 60)
    assert [name for name, _, _ in again] == ["crawl", "end"]


async def test_a_crawl_that_nobody_watched_for_a_while_is_asked_for_anew(database: Database, feeds: Feeds):
    await fail_at_crawler(database, "crawl-1", [A])
    await end_crawl(database)
    events = await asyncio.wait_for(receive_all(feeds.crawl("crawl-1", Position())), 60)
    assert await feeds.live.crawl("crawl-1", events[-1][2]) is None

    await deliver(database, "crawl-1", "crawl.page", data=[document(B)])
    assert await feeds.live.crawl("crawl-1", events[-1][2]) is not None

    await delete(database, "crawl-1")
    with pytest.raises(NotFoundError):
        await feeds.live.crawl("crawl-1")


async def test_an_unknown_crawl_has_no_feed(database: Database, feeds: Feeds):
    with pytest.raises(NotFoundError, match="Crawl not found: nobody's"):
        await feeds.live.crawl("nobody's")


async def test_the_feed_of_a_deleted_crawl_ends(database: Database, feeds: Feeds):
    await deliver(database, "crawl-1", "crawl.started", at=LONG_AGO)
    async with following(feeds.crawl("crawl-1")) as one, aclosing(feeds.crawls()) as every:
        assert [crawl.crawl_id for crawl in (await anext(every))[1].crawls] == ["crawl-1"]
        await delete(database, "crawl-1")
        events = await asyncio.wait_for(one, 60)
        name, content, _ = await asyncio.wait_for(anext(every), 60)

    assert events[-1][1] == content == LiveEnd(crawl_id="crawl-1", reason="deleted")
    assert name == "end"


async def test_all_feeds_end_when_the_service_stops(database: Database, feeds: Feeds):
    await deliver(database, "crawl-1", "crawl.started", at=LONG_AGO)
    async with following(feeds.crawl("crawl-1")) as one, following(feeds.crawls()) as every:
        feeds.live.close()

        ended = await asyncio.wait_for(asyncio.gather(one, every), 60)

    assert [[name for name, _, _ in sent] for sent in ended] == [["crawl"], ["crawls"]]


async def test_the_list_tells_which_crawls_begin_change_and_end(database: Database, feeds: Feeds):
    await deliver(database, "crawl-1", "crawl.started", at=LONG_AGO)
    async with aclosing(feeds.crawls()) as feed:
        _, known, _ = await anext(feed)
        assert isinstance(known, LiveCrawls)
        assert [crawl.crawl_id for crawl in known.crawls] == ["crawl-1"]

        async def until(crawl_id: str, **values: Any) -> None:
            async for name, crawl, _ in feed:
                assert name == "crawl"
                if crawl.crawl_id == crawl_id and values.items() <= vars(crawl).items():
                    return

        await deliver(database, "crawl-2", "crawl.page", [document(A)], at=LONG_AGO)
        await asyncio.wait_for(until("crawl-2", pages_pending=1), 60)
        await index_pages(database, "crawl-2")
        await asyncio.wait_for(until("crawl-2", pages_pending=0, pages_indexed=1), 60)
        await end_crawl(database, "crawl-1")
        await asyncio.wait_for(until("crawl-1", sealed=True), 60)


@pytest.mark.parametrize("text", ["", "x", "1.2.3", "-1", "9" * 25, "1.", "٣"])
def test_an_id_that_no_event_has_is_refused(text: str):
    with pytest.raises(UsageError, match="Last-Event-ID"):
        Position.parse(text)


def test_ids_are_read_as_they_are_written():
    assert Position.parse(str(Position(7, 9))) == Position(7, 9)
    assert Position.parse("0") == Position()


async def delete(database: Database, crawl_id: str) -> None:
    class NothingIndexed:
        async def forget_crawl(self, connection: AsyncConnection, crawl_id: str) -> None: ...

    indexing = cast(IndexingService, NothingIndexed())
    await database.run(lambda connection: delete_crawl(connection, crawl_id, indexing))
