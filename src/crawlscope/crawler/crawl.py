"""One crawl of one website: follows links from its start URL and delivers each page as an event."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import aclosing, suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal

import structlog

from crawlscope.core.errors import UsageError
from crawlscope.crawler.duplicates import Originals
from crawlscope.crawler.engine import Engine
from crawlscope.crawler.events import Events
from crawlscope.crawler.fetch import FetchFailed, PageClient
from crawlscope.crawler.links import (
    like,
    moved_to,
    names_a_page,
    normalise,
    repeats_itself,
    same_name,
    site_of,
)
from crawlscope.crawler.pace import Clock, Stopped
from crawlscope.crawler.polite import Forbidden, PoliteClient, RequestTimes
from crawlscope.crawler.robots import RobotsRules
from crawlscope.crawler.sender import DeliveryTooLarge
from crawlscope.crawler.sitemaps import listed_pages
from crawlscope.crawler.traps import Traps
from crawlscope.crawler.visited import VisitedPage

log = structlog.get_logger(__name__)

Deliver = Callable[[dict[str, Any]], Awaitable[None]]
"""Hands one event to the webhook endpoint. Raises `DeliveryTooLarge` for one that is too large, anything else
only when the crawl must stop."""
ShouldStop = Callable[[], Awaitable[bool]]

_STOP_POLL_INTERVAL_SECONDS = 0.25
# More threads than this only fight with the event loop over the interpreter.
_READERS = 2
_MAX_SMALL_BODY_BYTES = 1024 * 1024
"""A larger page takes seconds to read. Such pages wait for each other, and no other waits for them."""


@dataclass(frozen=True)
class CrawlPlan:
    """The task of the built-in crawler."""

    crawl_id: str
    url: str
    urls: Sequence[str] = ()
    """In place of `url`: these pages are fetched, and no link is followed."""
    limit: int = 10_000
    """Maximum number of pages, with the start page."""
    concurrency: int = 10
    timeout_seconds: float = 30
    """For one answer, from the first packet to the last."""
    allow_private: bool = False
    metadata: Mapping[str, str] = field(default_factory=dict)
    """Echoed in each event."""


@dataclass
class CrawlProgress:
    found: int = 0
    """Distinct URLs accepted for this crawl, never more than its limit."""
    fetched: int = 0
    """Pages that answered, with any HTTP status."""
    failed: int = 0
    times: RequestTimes = field(default_factory=RequestTimes)


@dataclass(frozen=True)
class CrawlSummary:
    status: Literal["completed", "failed", "cancelled"]
    found: int
    fetched: int
    failed: int
    robots_blocked: int
    """URLs within the site that robots.txt forbids."""
    kept_back: int
    """URLs within the site that were found only on pages that repeat without end."""
    error: str | None = None


OnProgress = Callable[[CrawlProgress], None]


async def run_crawl(
    request: CrawlPlan,
    deliver: Deliver,
    on_progress: OnProgress | None = None,
    should_stop: ShouldStop | None = None,
    clock: Clock | None = None,
) -> CrawlSummary:
    """Follows the links within the site of `request.url`, then its sitemaps, and delivers each page once.

    When `should_stop` says so, pages in progress are still delivered. Cancelling the task drops them, and no
    final event is sent. Raises `UsageError` for a URL that no crawler can follow, and the errors of
    `deliver`.
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
        crawl = kind(request, start, client, deliver, on_progress, clock or Clock())
        return await crawl.run(should_stop)


class _Crawl:
    def __init__(
        self,
        request: CrawlPlan,
        start: str,
        client: PageClient,
        deliver: Deliver,
        on_progress: OnProgress | None,
        clock: Clock,
    ) -> None:
        self._request = request
        self._start = start
        self._home = start
        """The address that the start led to; its site is crawled."""
        self._stopping = asyncio.Event()
        self._client = PoliteClient(client, clock, self._stopping)
        self._deliver = deliver
        self._on_progress = on_progress
        self._events = Events(request.crawl_id, request.metadata)
        self._progress = CrawlProgress(found=1, times=self._client.times)
        self._found_on: dict[str, str | None] = {start: None}
        """The URLs of this crawl, with the page that each was found on."""
        self._former_site: str | None = None
        """The start's host, if that is the same name with or without `www.`."""
        self._blocked: set[str] = set()
        self._kept_back: set[str] = set()
        self._originals = Originals()
        self._originals.expect(start)
        self._traps = Traps()
        self._start_error: str | None = None
        self._start_answered_well = False
        self._engine: Engine | None = None
        self._reading = asyncio.Semaphore(_READERS)
        self._reading_large = asyncio.Semaphore(1)
        self._broken: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def run(self, should_stop: ShouldStop | None) -> CrawlSummary:
        await self._deliver(self._events.started())
        if should_stop is not None and await should_stop():
            self._stopping.set()
        else:
            await self._follow_until_stopped(should_stop)
        summary = self._summary()
        match summary.status:
            case "cancelled":
                await self._deliver(self._events.cancelled())
            case "failed":
                await self._deliver(self._events.failed(summary.error or ""))
            case _:
                await self._deliver(self._events.completed())
        log.info(
            "crawl_ended",
            crawl_id=self._request.crawl_id,
            status=summary.status,
            pages=summary.fetched,
            kept_back=summary.kept_back,
        )
        return summary

    async def _follow_until_stopped(self, should_stop: ShouldStop | None) -> None:
        """Cancelling it drops the pages in progress at once."""
        follow = asyncio.create_task(self._follow())
        watch = asyncio.create_task(self._watch(should_stop))
        try:
            await asyncio.wait({follow, watch}, return_when=asyncio.FIRST_COMPLETED)
            for ended in (watch, follow):
                if ended.done():
                    ended.result()
            if self._broken.done():
                self._broken.result()
        finally:
            for task in (follow, watch):
                task.cancel()
            await asyncio.wait({follow, watch})

    async def _watch(self, should_stop: ShouldStop | None) -> None:
        """Ends only by raising: what broke the crawl."""
        while True:
            await asyncio.wait({self._broken}, timeout=_STOP_POLL_INTERVAL_SECONDS)
            if self._broken.done():
                self._broken.result()
            if should_stop is not None and not self._stopping.is_set() and await should_stop():
                self._stopping.set()
                if self._engine is not None:
                    self._engine.stop()

    async def _follow(self) -> None:
        await self._visit_from([self._start])
        if self._start_answered_well:
            # The pages of the site's sitemaps that no link led to, as many as the limit leaves room for.
            accepted: list[str] = []
            rules = await self._client.rules(self._home)
            with suppress(Stopped):
                async with aclosing(listed_pages(self._client, self._home)) as listed:
                    while self._has_room and (pages := await anext(listed, None)) is not None:
                        accepted += self._accept(pages, None, rules)
            await self._visit_from(accepted)
        for page in self._originals.rest():
            await self._deliver_page(page)

    async def _visit_from(self, urls: list[str]) -> None:
        if not urls or self._stopping.is_set():
            return
        self._engine = await Engine.create(
            concurrency=self._request.concurrency, visit=self.visit, give_up=self.give_up
        )
        await self._enqueue(urls)
        await self._engine.crawl()

    async def _enqueue(self, urls: list[str], *, first: bool = False) -> None:
        if self._engine is not None:
            await self._engine.enqueue(urls, first=first)

    async def visit(self, url: str) -> None:
        visited = await self._read(url, url)
        if url == self._start:
            if other_site := visited.other_site:
                visited = await self._read(url, other_site)
            self._home = visited.page.url
            site, home = site_of(url), site_of(self._home)
            if site != home and same_name(site, home):
                self._former_site = site
            self._start_answered_well = visited.page.status_code < 400
        await self._settle(visited)

    async def _read(self, source_url: str, url: str) -> VisitedPage:
        page = await self._client.fetch(url, partial(self._may_follow, source_url), text_only=True)
        is_large = len(page.body) > _MAX_SMALL_BODY_BYTES
        async with self._reading_large if is_large else self._reading:
            return await asyncio.to_thread(VisitedPage.read, source_url, page, self._found_on[source_url])

    def _may_follow(self, source_url: str, target: str) -> bool:
        """Sites move: a crawl of the old name of one is a crawl of the site behind it."""
        site, home = site_of(target), site_of(self._home)
        return source_url == self._start or site == home or same_name(site, home)

    async def _settle(self, visited: VisitedPage) -> None:
        """Follows its links and delivers each page whose document is decided now."""
        url, canonical = visited.source_url, visited.canonical
        if site_of(visited.page.url) == site_of(self._home):
            rules = await self._client.rules(self._home)
            if canonical:
                await self._enqueue(self._accept([canonical], url, rules), first=True)
            digest = visited.fingerprint.digest
            links = self._traps.links_of(url, digest, visited.found_on, visited.links)
            await self._enqueue(self._accept(links, url, rules))
        for page in self._originals.read(visited, canonical in self._found_on):
            await self._deliver_page(page)

    async def give_up(self, url: str, error: Exception) -> None:
        if self._broken.done() or isinstance(error, Stopped):
            return
        if isinstance(error, Forbidden):
            self._blocked.add(error.url)
        if isinstance(error, FetchFailed):
            await self._settle_failed(url, str(error), error.code)
        else:
            log.error("page_parse_failed", crawl_id=self._request.crawl_id, url=url, exc_info=error)
            words = " ".join(str(error).split())
            await self._settle_failed(url, f"the crawler could not read it: {type(error).__name__}: {words}")
        for page in self._originals.missed(url):
            await self._deliver_page(page)

    async def _deliver_page(self, visited: VisitedPage) -> None:
        try:
            await self._send(
                self._events.page(visited.source_url, visited.page, visited.text), DeliveryTooLarge
            )
        except DeliveryTooLarge as error:
            await self._settle_failed(visited.source_url, str(error))
            return
        self._progress.fetched += 1
        self._report()

    async def _settle_failed(self, url: str, error: str, code: str | None = None) -> None:
        if url == self._start:
            self._start_error = error
        await self._send(self._events.failed_page(url, error, code))
        self._progress.failed += 1
        self._report()

    async def _send(self, event: dict[str, Any], *expected: type[Exception]) -> None:
        """Any error that is not expected ends the crawl."""
        try:
            await self._deliver(event)
        except expected:
            raise
        except Exception as error:
            if not self._broken.done():
                self._broken.set_exception(error)
            raise

    @property
    def _has_room(self) -> bool:
        return len(self._found_on) < self._request.limit

    def _accept(self, links: list[str], found_on: str | None, rules: RobotsRules) -> list[str]:
        accepted = []
        site, secure = site_of(self._home), self._home.startswith("https:")
        for link in links:
            if not self._has_room:
                break
            url = normalise(link)
            if url is None or url in self._found_on:
                continue
            if site_of(url) == self._former_site:
                url = moved_to(url, self._home)
            elif secure:
                url = like(url, self._home)
            if url in self._found_on or site_of(url) != site or not names_a_page(url):
                continue
            if repeats_itself(url):
                self._kept_back.add(url)
            elif not rules.allows(url):
                self._blocked.add(url)
            else:
                self._found_on[url] = found_on
                self._originals.expect(url)
                accepted.append(url)
        self._progress.found = len(self._found_on)
        return accepted

    def _report(self) -> None:
        if self._on_progress is not None:
            self._on_progress(self._progress)

    def _summary(self) -> CrawlSummary:
        progress = self._progress
        status: Literal["completed", "failed", "cancelled"] = "completed"
        error = None
        if self._stopping.is_set():
            status = "cancelled"
        elif not progress.fetched:
            status = "failed"
            error = self._failure()
        kept_back = (self._kept_back | self._traps.kept_back).difference(self._found_on)
        return CrawlSummary(
            status,
            progress.found,
            progress.fetched,
            progress.failed,
            robots_blocked=len(self._blocked),
            kept_back=len(kept_back),
            error=error,
        )

    def _failure(self) -> str:
        return f"{self._start} could not be crawled: {self._start_error}"


class _CrawlOfListed(_Crawl):
    """Fetches the URLs that the request lists, each by the rules of its own site, and follows no link."""

    async def _follow(self) -> None:
        self._start = ""  # none of them speaks for the site
        listed = dict.fromkeys(url for url in map(normalise, self._request.urls) if url)
        self._found_on = dict.fromkeys(listed)
        self._progress.found = len(listed)
        await self._visit_from(list(listed))

    def _may_follow(self, source_url: str, target: str) -> bool:  # noqa: ARG002
        """A page that was requested by its URL is wanted at any target of its redirects."""
        return True

    async def _settle(self, visited: VisitedPage) -> None:
        await self._deliver_page(visited)

    async def _settle_failed(self, url: str, error: str, code: str | None = None) -> None:
        self._start_error = self._start_error or f"{url}: {error}"
        await super()._settle_failed(url, error, code)

    def _failure(self) -> str:
        return f"none of {self._progress.found} pages could be fetched, the first: {self._start_error}"
