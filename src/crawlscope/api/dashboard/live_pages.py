"""Pages that browsers follow live: each is rendered once for all its viewers, after its crawl has changed.

A browser opens a feed at the page's own address. It gets the events of the crawl, and as `page` the whole
page anew, which it lays over the old one. It requests nothing else, so a further viewer costs no query.
"""

import asyncio
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

from fastapi import Request
from sse_starlette import ServerSentEvent
from starlette.types import ASGIApp, Message, Scope

from crawlscope.core.backoff import backoff
from crawlscope.core.errors import CrawlscopeError
from crawlscope.core.periodic import in_background, run_periodically
from crawlscope.insights.viewers import Viewers

FEED = "text/event-stream"
PAGE = "page"
"""The name of the event with the whole page."""
NEWS_SECONDS = 1.0
"""The shortest time between two sends of counts: what happens in between is sent together."""
REFRESH_SECONDS = 4.0
"""The shortest time between two renderings of a page."""
COST_FACTOR = 10
"""Pages that take long to render are rendered less often: all together for at most a tenth of the time."""
RETRY_MAX_SECONDS = 60.0
MAX_PAGES = 64
"""The maximum number of pages that are followed at once. Browsers with the one that was opened longest ago go
back to asking for it."""
UNFOLLOWED = ServerSentEvent("too many pages are followed", event="page_unfollowed").encode()


@dataclass(eq=False)
class _Page:
    """A page that is followed, with the requests of its viewers: it is rendered as for one of them."""

    route: ASGIApp
    requests: list[Scope] = field(default_factory=list)
    viewers: Viewers = field(default_factory=Viewers)
    news: asyncio.Queue[bytes] = field(default_factory=asyncio.Queue)
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    following: "asyncio.Task[None] | None" = None


class FollowedPages:
    """The pages that browsers follow at this moment, by address."""

    def __init__(self) -> None:
        self._pages: dict[str, _Page] = {}

    async def follow(
        self, request: Request, route: ASGIApp, news: AsyncIterator[bytes]
    ) -> AsyncIterator[bytes]:
        """The feed of the page for one viewer. `news` of its crawl is only read for the first one."""
        address = f"{request.url.path}?{request.url.query}"
        page = self._pages.pop(address, None) or _Page(route)
        self._pages[address] = page  # the last one of those in order
        if page.following is None:
            page.following = asyncio.create_task(self._keep(address, page, news))
            if len(self._pages) > MAX_PAGES:
                self._unfollow(*next(iter(self._pages.items())))
        page.changed.set()  # the viewer has the page of a moment ago
        page.requests.append(request.scope)
        try:
            with page.viewers.joined() as viewer:
                async for events in viewer.events():
                    yield events
        finally:
            page.requests.remove(request.scope)
            if not page.viewers:
                self._forget(address, page)

    async def _keep(self, address: str, page: _Page, news: AsyncIterator[bytes]) -> None:
        """Runs until the crawl's feed ends; then shows the page as it is at the end."""
        sending = run_periodically(
            lambda: _send_news(page),
            interval_seconds=NEWS_SECONDS,
            retry_seconds=NEWS_SECONDS,
            failure_event="followed_page_failed",
        )
        try:
            async with in_background(sending, self._refresh(page)):
                async for events in news:
                    page.news.put_nowait(events)
                    page.changed.set()
            if not page.news.empty():
                await _send_news(page)
            await _send_page(page)
        finally:
            self._forget(address, page)
            page.viewers.end()

    async def _refresh(self, page: _Page) -> None:
        """Runs until it is cancelled."""

        async def refresh_once() -> float:
            await page.changed.wait()
            page.changed.clear()
            began = time.monotonic()
            if not await _send_page(page):
                page.changed.set()
                raise CrawlscopeError("the page could not be rendered")
            return (time.monotonic() - began) * len(self._pages)

        await asyncio.sleep(REFRESH_SECONDS)  # the first viewer has the page of a moment ago
        await run_periodically(
            refresh_once,
            interval_seconds=lambda took: max(REFRESH_SECONDS, COST_FACTOR * took),
            retry_seconds=lambda failures: backoff(
                failures, first_seconds=REFRESH_SECONDS, max_seconds=RETRY_MAX_SECONDS
            ),
            failure_event="followed_page_failed",
        )

    def _unfollow(self, address: str, page: _Page) -> None:
        page.viewers.send(UNFOLLOWED)
        page.viewers.end()
        self._forget(address, page)

    def _forget(self, address: str, page: _Page) -> None:
        if self._pages.get(address) is page:
            del self._pages[address]
        if page.following and page.following is not asyncio.current_task():
            page.following.cancel()


async def _send_news(page: _Page) -> None:
    """Sends all news that wait, or the next."""
    news = [await page.news.get()]
    while not page.news.empty():
        news.append(page.news.get_nowait())
    page.viewers.send(b"".join(news))


async def _send_page(page: _Page) -> bool:
    """False if it is an error at the moment."""
    if not page.requests:
        return True
    html = await _rendered(page.route, page.requests[-1])
    if html is not None:
        page.viewers.send(ServerSentEvent(html, event=PAGE).encode(), is_whole=True)
    return html is not None


async def _rendered(route: ASGIApp, viewer: Scope) -> str | None:
    """The page as htmx gets it, without messages for a single viewer; None if it is an error."""
    headers = [each for each in viewer["headers"] if each[0] not in (b"accept", b"cookie")]
    asked = {**viewer, "headers": [*headers, (b"accept", b"text/html"), (b"hx-request", b"true")]}
    status, body = 0, bytearray()

    async def receive() -> Message:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Message) -> None:
        nonlocal status
        status = message.get("status", status)
        body.extend(message.get("body", b""))

    await route(asked, receive, send)
    return body.decode() if status == 200 else None
