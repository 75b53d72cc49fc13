"""Pages that browsers follow live: each is rendered once for all its viewers, after its crawl has changed.

A browser opens a feed at the page's own address. It gets the events of the crawl, and as `page` the whole
page anew, which it lays over the old one. It asks for nothing else, so a further viewer costs no query.
"""

import asyncio
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

from fastapi import Request
from sse_starlette import ServerSentEvent
from starlette.types import ASGIApp, Message, Scope

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
"""A page that takes long to render is rendered less often: for at most a tenth of the time."""


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
        page = self._pages.get(address)
        if page is None:
            page = self._pages[address] = _Page(route)
            page.following = asyncio.create_task(self._keep(address, page, news))
        page.changed.set()  # the viewer has the page of a moment ago
        page.requests.append(request.scope)
        try:
            with page.viewers.joined() as viewer:
                async for events in viewer.events():
                    yield events
        finally:
            page.requests.remove(request.scope)
            if not page.viewers and page.following:
                self._forget(address, page)
                page.following.cancel()

    async def _keep(self, address: str, page: _Page, news: AsyncIterator[bytes]) -> None:
        """Until the crawl's feed ends; then shows the page as it is at the end."""
        sending = run_periodically(
            lambda: _send_news(page),
            interval_seconds=NEWS_SECONDS,
            retry_seconds=NEWS_SECONDS,
            failure_event="followed_page_failed",
        )
        try:
            async with in_background(sending, _refresh(page)):
                async for events in news:
                    page.news.put_nowait(events)
                    page.changed.set()
            if not page.news.empty():
                await _send_news(page)
            await _send_page(page)
        finally:
            self._forget(address, page)
            page.viewers.end()

    def _forget(self, address: str, page: _Page) -> None:
        if self._pages.get(address) is page:
            del self._pages[address]


async def _send_news(page: _Page) -> None:
    """Sends all news that wait, or the next."""
    news = [await page.news.get()]
    while not page.news.empty():
        news.append(page.news.get_nowait())
    page.viewers.send(b"".join(news))


async def _refresh(page: _Page) -> None:
    """Until it is cancelled."""

    async def refresh_once() -> float:
        await page.changed.wait()
        page.changed.clear()
        began = time.monotonic()
        await _send_page(page)
        return time.monotonic() - began

    await asyncio.sleep(REFRESH_SECONDS)  # the first viewer has the page of a moment ago
    await run_periodically(
        refresh_once,
        interval_seconds=lambda took: max(REFRESH_SECONDS, COST_FACTOR * took),
        retry_seconds=REFRESH_SECONDS,
        failure_event="followed_page_failed",
    )


async def _send_page(page: _Page) -> None:
    if page.requests and (html := await _rendered(page.route, page.requests[-1])):
        page.viewers.send(ServerSentEvent(html, event=PAGE).encode())


async def _rendered(route: ASGIApp, viewer: Scope) -> str | None:
    """The page as htmx gets it, without what only its viewer is told; None if it is an error."""
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
