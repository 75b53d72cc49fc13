"""Live feeds of crawls: one poll of the database sends any number of viewers what is new.

The poll runs while anyone watches, and reads all watched crawls at once. PostgreSQL's notifications would
bring news earlier, but every transaction that notifies waits for all others of the server as it commits:
each page would pay for viewers that are usually not there.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import NoReturn

from pydantic import BaseModel

from crawlscope.core.backoff import backoff
from crawlscope.core.errors import NotFoundError
from crawlscope.core.periodic import run_periodically
from crawlscope.insights.news import News, Position
from crawlscope.insights.progress import is_settled, poll_interval
from crawlscope.insights.schemas import CrawlState, LiveCrawls, LiveEnd, LivePages
from crawlscope.insights.service import SETTLED_AT_ONCE, Insights
from crawlscope.insights.viewers import Viewers

POLL_SECONDS = 0.5
"""The shortest time between two polls. All changes in between are sent together."""
RETRY_MAX_SECONDS = 5.0
REASON_SECONDS = 5.0
"""How often an event is sent of which only the words of the verdict are new."""
NEWEST_CRAWLS = 50
"""The crawls in the feed of all, besides those in progress: as many as a list shows first."""
MAX_LISTED = 150

Encode = Callable[[str, BaseModel, Position | None], bytes]
"""Encodes an event from its name, its content and its id, once for all viewers."""


@dataclass(frozen=True)
class _Sent:
    """The last state that viewers have seen."""

    state: CrawlState
    at_seconds: float

    def is_outdated_by(self, state: CrawlState, now_seconds: float) -> bool:
        """The words of a verdict and the expected end change with each second."""
        if state == self.state:
            return False
        return _without_seconds(state) != _without_seconds(self.state) or (
            now_seconds - self.at_seconds >= REASON_SECONDS
        )


@dataclass
class _Channel:
    """The feed of one crawl."""

    sent: _Sent
    position: Position
    """All pages up to here have been sent."""
    viewers: Viewers = field(default_factory=Viewers)


class Live:
    """The feeds of one process. `run` has to run beside them."""

    def __init__(self, insights: Insights, encode: Encode) -> None:
        self._insights = insights
        self._encode = encode
        self._channels: dict[str, _Channel] = {}
        self._all = Viewers()
        self._listed: dict[str, _Sent] = {}
        self._opening = asyncio.Lock()
        self._watched = asyncio.Event()
        self._closed = False

    async def run(self) -> NoReturn:
        await run_periodically(
            self._poll,
            interval_seconds=lambda delay: delay,
            retry_seconds=lambda failures: backoff(
                failures, first_seconds=POLL_SECONDS, max_seconds=RETRY_MAX_SECONDS
            ),
            failure_event="live_poll_failed",
        )

    def close(self) -> None:
        """Ends all feeds. Their viewers can resume at the next service."""
        self._closed = True
        for viewers in (self._all, *(channel.viewers for channel in self._channels.values())):
            viewers.end()

    async def crawl(
        self, crawl_id: str, after: Position | None = None, *, with_pages: bool = True
    ) -> AsyncIterator[bytes] | None:
        """The feed of a crawl: its state as `crawl`, `pages` that settle after `after` (or from now on), and
        `end` when it is sealed. None for a sealed crawl of which nothing is left to report.

        Raises `NotFoundError` for an unknown crawl.
        """
        channel = await self._channel(crawl_id)
        if after is not None and _is_over(channel.sent.state):
            missed = await self._insights.settled_pages(crawl_id, after)
            if missed.is_all and not missed.pages:
                return None
        return self._crawl_events(crawl_id, after, with_pages)

    async def crawls(self) -> AsyncIterator[bytes]:
        """The feed of all: the newest crawls and those in progress as `crawls`, then each that changes or
        begins as `crawl`, and `end` for one that is deleted.
        """
        async with self._opening:
            if not self._all:
                now = time.monotonic()
                news = await self._insights.news({}, newest=NEWEST_CRAWLS)
                self._listed = {crawl_id: _Sent(state, now) for crawl_id, state in news.states.items()}
        return self._all_events()

    async def _channel(self, crawl_id: str) -> _Channel:
        async with self._opening:
            channel = self._channels.get(crawl_id)
            if channel and channel.viewers:  # without any, it is not polled, and its state is of long ago
                return channel
            news = await self._insights.news({crawl_id: Position.end()})
            if crawl_id not in news.states:
                raise NotFoundError(f"Crawl not found: {crawl_id}")
            sent = _Sent(news.states[crawl_id], time.monotonic())
            channel = self._channels[crawl_id] = _Channel(sent, news.horizon)
            return channel

    async def _crawl_events(
        self, crawl_id: str, after: Position | None, with_pages: bool
    ) -> AsyncIterator[bytes]:
        channel = await self._channel(crawl_id)
        with channel.viewers.joined(wants_pages=with_pages) as viewer:
            self._watched.set()
            if self._closed:
                return
            state, known = channel.sent.state, channel.position
            if after is not None:
                while after < known:  # until the database is lost: the viewer has the id of what it has seen
                    settled = await self._insights.settled_pages(crawl_id, after, known)
                    after = settled.position
                    if settled.pages:
                        pages = LivePages(crawl_id=crawl_id, pages=list(settled.pages))
                        yield self._encode("pages", pages, after)
            yield self._encode("crawl", state, known)
            async for events in viewer.events():
                yield events

    async def _all_events(self) -> AsyncIterator[bytes]:
        with self._all.joined() as viewer:
            self._watched.set()
            if self._closed:
                return
            listed = LiveCrawls(crawls=[sent.state for sent in self._listed.values()])
            yield self._encode("crawls", listed, None)
            async for events in viewer.events():
                yield events

    async def _poll(self) -> float:
        """Returns the seconds until the next poll."""
        self._channels = {name: channel for name, channel in self._channels.items() if channel.viewers}
        if not self._channels and not self._all:
            self._watched.clear()
        await self._watched.wait()
        began = time.monotonic()
        asked = {crawl_id: channel.position for crawl_id, channel in self._channels.items()}
        listed = list(self._listed) if self._all else []
        news = await self._insights.news(asked, listed, NEWEST_CRAWLS if self._all else 0)
        if self._all:
            self._send_all(listed, news)
        for crawl_id, position in asked.items():
            channel = self._channels.get(crawl_id)
            if channel and channel.position == position:  # else another viewer has opened it anew
                self._send(channel, crawl_id, news)
        if any(len(settled.pages) == SETTLED_AT_ONCE for settled in news.settled.values()):
            return 0.0
        return max(POLL_SECONDS, poll_interval(time.monotonic() - began))

    def _send(self, channel: _Channel, crawl_id: str, news: News) -> None:
        settled, now = news.settled[crawl_id], time.monotonic()
        channel.position = settled.position
        if settled.pages and channel.viewers.want_pages:
            pages = LivePages(crawl_id=crawl_id, pages=list(settled.pages))
            channel.viewers.send(self._encode("pages", pages, settled.position), is_of_pages=True)
        state = news.states.get(crawl_id)
        if state and channel.sent.is_outdated_by(state, now):
            channel.sent = _Sent(state, now)
            channel.viewers.send(self._encode("crawl", state, settled.position))
        if state is None or (_is_over(state) and settled.is_all):
            end = LiveEnd(crawl_id=crawl_id, reason="sealed" if state else "deleted")
            channel.viewers.send(self._encode("end", end, settled.position))
            channel.viewers.end()

    def _send_all(self, listed: list[str], news: News) -> None:
        now = time.monotonic()
        for crawl_id, state in news.states.items():
            sent = self._listed.get(crawl_id)
            if sent is None or sent.is_outdated_by(state, now):
                self._listed[crawl_id] = _Sent(state, now)
                self._all.send(self._encode("crawl", state, None))
        for crawl_id in listed:
            if crawl_id not in news.states:
                self._all.send(self._encode("end", LiveEnd(crawl_id=crawl_id, reason="deleted"), None))
        self._listed = {
            crawl_id: self._listed[crawl_id]
            for place, (crawl_id, state) in enumerate(news.states.items())
            if place < NEWEST_CRAWLS or (place < MAX_LISTED and not state.sealed)
        }


def _is_over(state: CrawlState) -> bool:
    return state.sealed and is_settled(state)


def _without_seconds(state: CrawlState) -> CrawlState:
    verdict = state.verdict and state.verdict.model_copy(update={"reason": ""})
    return state.model_copy(update={"verdict": verdict, "eta": None})
