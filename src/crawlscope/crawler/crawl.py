"""One crawl of one website: from its start URL along its links, page by page, as events."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import structlog
from crawlee import Request

from crawlscope.crawler.engine import Engine
from crawlscope.crawler.events import Events
from crawlscope.crawler.fetch import FetchedPage, FetchFailed, PageClient
from crawlscope.crawler.links import names_a_page, normalise, site_of
from crawlscope.crawler.page import read_page
from crawlscope.crawler.robots import RobotsRules
from crawlscope.crawler.sender import DeliveryTooLarge
from crawlscope.errors import UsageError

log = structlog.get_logger(__name__)

Deliver = Callable[[dict[str, Any]], Awaitable[None]]
"""Hands one event to the webhook door. Raises `DeliveryTooLarge` for one that it has no room for, anything
else only when the crawl must stop."""
ShouldStop = Callable[[], Awaitable[bool]]

_ASK_TO_STOP_SECONDS = 0.25
# More threads than this only fight with the event loop over the interpreter.
_READERS = 2


@dataclass(frozen=True)
class CrawlRequest:
    crawl_id: str
    url: str
    urls: Sequence[str] = ()
    """In place of what `url` leads to: these are fetched, and no link is followed."""
    limit: int = 10_000
    """The most pages, the start page included."""
    concurrency: int = 10
    timeout_seconds: float = 30
    """For one page, from the first packet to the last."""
    allow_private: bool = False
    metadata: Mapping[str, str] = field(default_factory=dict)
    """Echoed in each event."""


@dataclass
class CrawlProgress:
    found: int = 0
    """Distinct URLs accepted for this crawl, never more than its limit."""
    fetched: int = 0
    """Pages that answered, with whatever HTTP status."""
    failed: int = 0


@dataclass(frozen=True)
class CrawlSummary:
    status: Literal["completed", "failed", "cancelled"]
    found: int
    fetched: int
    failed: int
    robots_blocked: int
    """URLs within the site that robots.txt keeps crawlers from."""
    error: str | None = None


OnProgress = Callable[[CrawlProgress], None]


async def run_crawl(
    request: CrawlRequest,
    deliver: Deliver,
    on_progress: OnProgress | None = None,
    should_stop: ShouldStop | None = None,
) -> CrawlSummary:
    """Follows the links within the site of `request.url` and delivers each page once.

    When `should_stop` says so, pages in progress are still delivered. Cancelling the task drops them, and no
    final event is sent. Raises `UsageError` for a URL that no crawler can follow, and what `deliver` raises.
    """
    start = normalise(request.url)
    if start is None:
        raise UsageError(f"{request.url} is not an http or https URL")
    if request.limit < 1:
        raise UsageError(f"a crawl needs a limit of at least 1, not {request.limit}")
    async with PageClient(
        timeout_seconds=request.timeout_seconds, allow_private=request.allow_private
    ) as client:
        kind = _CrawlOfListed if request.urls else _Crawl
        return await kind(request, start, client, deliver, on_progress).run(should_stop)


class _Crawl:
    def __init__(
        self,
        request: CrawlRequest,
        start: str,
        client: PageClient,
        deliver: Deliver,
        on_progress: OnProgress | None,
    ) -> None:
        self._request = request
        self._start = start
        self._site = site_of(start)
        self._client = client
        self._deliver = deliver
        self._on_progress = on_progress
        self._events = Events(request.crawl_id, request.metadata)
        self._progress = CrawlProgress(found=1)
        self._found = {start}
        self._blocked: set[str] = set()
        self._after_move: list[str] = []
        self._start_error: str | None = None
        self._reading = asyncio.Semaphore(_READERS)
        self._cancelled = False
        self._broken: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def run(self, should_stop: ShouldStop | None) -> CrawlSummary:
        await self._deliver(self._events.started())
        self._cancelled = should_stop is not None and await should_stop()
        if not self._cancelled:
            await self._follow(should_stop)
        summary = self._summary()
        await self._deliver(self._last_event(summary))
        log.info("crawl_ended", crawl_id=self._request.crawl_id, status=summary.status, pages=summary.fetched)
        return summary

    async def _follow(self, should_stop: ShouldStop | None) -> None:
        self._robots = await RobotsRules.load(self._client, self._start)
        if not self._robots.allows(self._start):
            self._blocked.add(self._start)
            await self._settle_failed(self._start, self._robots.refusal)
            return
        await self._visit_from([self._start], should_stop)
        if self._after_move and not self._cancelled:
            await asyncio.sleep(self._robots.delay_seconds)
            await self._visit_from(self._after_move, should_stop)

    async def _visit_from(self, urls: list[str], should_stop: ShouldStop | None) -> None:
        """At the pace that the site asks for, which an engine keeps for as long as it runs."""
        self._engine = await Engine.create(
            concurrency=self._request.concurrency,
            delay_seconds=self._robots.delay_seconds,
            visit=self._visit,
            give_up=self._give_up,
        )
        await self._engine.enqueue(urls)
        crawl = asyncio.create_task(self._engine.crawl())
        watch = asyncio.create_task(self._watch(should_stop))
        try:
            await asyncio.wait({crawl, watch}, return_when=asyncio.FIRST_COMPLETED)
            for ended in (watch, crawl):
                if ended.done():
                    ended.result()
            if self._broken.done():
                self._broken.result()
        finally:
            for task in (crawl, watch):
                task.cancel()
            await asyncio.wait({crawl, watch})

    async def _watch(self, should_stop: ShouldStop | None) -> None:
        """Ends only by raising: what broke the crawl."""
        while True:
            await asyncio.wait({self._broken}, timeout=_ASK_TO_STOP_SECONDS)
            if self._broken.done():
                self._broken.result()
            if should_stop is not None and not self._cancelled and await should_stop():
                self._cancelled = True
                self._engine.stop()

    async def _visit(self, request: Request) -> None:
        try:
            await self._settle(request.url, await self._client.fetch(request.url, text_only=True))
        except Exception as error:
            request.no_retry = not (isinstance(error, FetchFailed) and error.retryable)
            raise

    async def _give_up(self, request: Request, error: Exception) -> None:
        if self._broken.done():
            return
        if isinstance(error, FetchFailed | DeliveryTooLarge):
            reason = str(error)
        else:
            log.error("page_not_read", crawl_id=self._request.crawl_id, url=request.url, exc_info=error)
            reason = f"the crawler could not read it: {type(error).__name__}: {' '.join(str(error).split())}"
        await self._settle_failed(request.url, reason)

    async def _settle(self, url: str, page: FetchedPage) -> None:
        landed = normalise(page.url) or url
        moved = url == self._start and site_of(landed) != self._site
        if moved:
            # Sites move: whoever asks for the old name wants the site behind it.
            self._site = site_of(landed)
            self._robots = await RobotsRules.load(self._client, landed)
        within = site_of(landed) == self._site
        if within and not self._robots.allows(landed):
            self._blocked.add(landed)
            raise FetchFailed(self._robots.refusal)
        async with self._reading:
            text = await asyncio.to_thread(read_page, page)
        if moved:
            self._after_move = self._accept(text.links)
        elif within:
            await self._engine.enqueue(self._accept(text.links))
        await self._send(self._events.page(url, page, text), DeliveryTooLarge)
        self._progress.fetched += 1
        self._report()

    async def _settle_failed(self, url: str, error: str) -> None:
        if url == self._start:
            self._start_error = error
        await self._send(self._events.failed_page(url, error))
        self._progress.failed += 1
        self._report()

    async def _send(self, event: dict[str, Any], *of_no_concern: type[Exception]) -> None:
        """Any other error ends the crawl."""
        try:
            await self._deliver(event)
        except of_no_concern:
            raise
        except Exception as error:
            if not self._broken.done():
                self._broken.set_exception(error)
            raise

    def _accept(self, links: list[str]) -> list[str]:
        accepted = []
        for link in links:
            if len(self._found) >= self._request.limit:
                break
            url = normalise(link)
            if url is None or url in self._found or site_of(url) != self._site or not names_a_page(url):
                continue
            if not self._robots.allows(url):
                self._blocked.add(url)
                continue
            self._found.add(url)
            accepted.append(url)
        self._progress.found = len(self._found)
        return accepted

    def _report(self) -> None:
        if self._on_progress is not None:
            self._on_progress(self._progress)

    def _summary(self) -> CrawlSummary:
        progress = self._progress
        status: Literal["completed", "failed", "cancelled"] = "completed"
        error = None
        if self._cancelled:
            status = "cancelled"
        elif not progress.fetched:
            status = "failed"
            error = self._failure()
        return CrawlSummary(
            status, progress.found, progress.fetched, progress.failed, len(self._blocked), error
        )

    def _failure(self) -> str:
        return f"{self._start} could not be crawled: {self._start_error}"

    def _last_event(self, summary: CrawlSummary) -> dict[str, Any]:
        match summary.status:
            case "cancelled":
                return self._events.cancelled()
            case "failed":
                return self._events.failed(summary.error or "")
            case _:
                return self._events.completed()


class _CrawlOfListed(_Crawl):
    """Fetches the URLs that the request lists, site by site, each by the rules of its own site."""

    async def _follow(self, should_stop: ShouldStop | None) -> None:
        self._start = ""  # none of them speaks for the site, wherever it redirects
        listed = dict.fromkeys(url for url in map(normalise, self._request.urls) if url)
        self._progress.found = len(listed)
        for site in dict.fromkeys(map(site_of, listed)):
            if not self._cancelled:
                await self._visit_site([url for url in listed if site_of(url) == site], should_stop)

    async def _visit_site(self, urls: list[str], should_stop: ShouldStop | None) -> None:
        self._site = site_of(urls[0])
        self._robots = await RobotsRules.load(self._client, urls[0])
        allowed = [url for url in urls if self._robots.allows(url)]
        for url in set(urls) - set(allowed):
            self._blocked.add(url)
            await self._settle_failed(url, self._robots.refusal)
        if allowed:
            await self._visit_from(allowed, should_stop)

    async def _settle_failed(self, url: str, error: str) -> None:
        self._start_error = self._start_error or f"{url}: {error}"
        await super()._settle_failed(url, error)

    def _accept(self, links: list[str]) -> list[str]:  # noqa: ARG002
        return []

    def _failure(self) -> str:
        return f"none of {self._progress.found} pages could be fetched, the first: {self._start_error}"
