"""Starts, cancels, retries, reconciles and deletes crawls, whichever crawler runs them."""

from collections import Counter
from collections.abc import Set
from dataclasses import dataclass, replace
from datetime import UTC, datetime

import structlog
from sqlalchemy.ext.asyncio import AsyncConnection

from crawlscope.core.errors import FirecrawlJobUnknown, NotFoundError, SettingsError, UsageError
from crawlscope.core.settings import Settings
from crawlscope.core.values import storable
from crawlscope.core.vocabulary import CrawlStatus, Engine, NotRetried
from crawlscope.crawls import at_firecrawl, repository
from crawlscope.crawls.reconcile import Reconciler
from crawlscope.crawls.requests import RequestedCrawl, batch_request, check_target, crawl_request
from crawlscope.crawls.schemas import (
    MAX_BATCH_URLS,
    CrawlReconciled,
    CrawlStarted,
    PageNotRetried,
    PagesQueued,
    RetryPages,
    StartCrawl,
)
from crawlscope.database.engine import Database
from crawlscope.firecrawl.client import SharedFirecrawl
from crawlscope.firecrawl.schemas import JobKind
from crawlscope.indexing.service import IndexingService
from crawlscope.pages.retry import note_rescrape, pages_to_scrape, retry_pages
from crawlscope.sessions.fold import CrawlSeen
from crawlscope.sessions.repository import ensure_session, find_session, keep_action, keep_fact
from crawlscope.timing.telemetry.traces import propagated

MAX_PAGES_NAMED = 1_000
ONE_OF_BOTH = "give either `url`, the start of a crawl, or `urls`, the pages to scrape"

log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class Rescrape:
    crawl_id: str
    urls: Set[str]
    """URLs that the crawler accepted."""


class Crawls:
    def __init__(
        self, settings: Settings, database: Database, secret: str, firecrawl: SharedFirecrawl
    ) -> None:
        """`secret` is the API secret, which Firecrawl sends with its deliveries."""
        self._settings = settings
        self._database = database
        self._secret = secret
        self._firecrawl = firecrawl

    async def start(self, wanted: StartCrawl, allow_private: bool, traceparent: str | None) -> CrawlStarted:
        """Starts a crawl or batch scrape, with the requested crawler or else the configured one.

        Raises `UsageError` if it cannot be crawled, and the errors of `at_firecrawl.start`.
        """
        default = Engine.FIRECRAWL if self._settings.firecrawl_url else Engine.BUILTIN
        if (wanted.engine or default) is Engine.BUILTIN:
            request = _builtin_request(wanted, allow_private)
            if context := propagated(traceparent):
                request = replace(request, metadata={**request.metadata, "traceparent": context})
            crawl_id = await self._database.run(lambda c: repository.start_crawl(c, request))
            invalid_urls = None
        else:
            request = _firecrawl_request(wanted, allow_private)
            started = await self.start_at_firecrawl(request, traceparent)
            crawl_id = started.crawl_id
            invalid_urls = None if wanted.urls is None else list(started.invalid_urls)
        return CrawlStarted(
            crawl_id=crawl_id,
            crawl_url=request.url,
            status=CrawlStatus.IN_PROGRESS,
            invalid_urls=invalid_urls,
        )

    async def start_at_firecrawl(
        self, request: RequestedCrawl, traceparent: str | None = None
    ) -> at_firecrawl.Started:
        """Raises `SettingsError` if no Firecrawl is set, and the errors of `at_firecrawl.start`."""
        firecrawl = await self._firecrawl.client()
        endpoint = at_firecrawl.webhook_endpoint(self._settings, self._secret)
        if not request.allow_private:
            await at_firecrawl.require_public_targets(request)
        return await at_firecrawl.start(self._database, firecrawl, request, endpoint, traceparent)

    async def cancel(self, crawl_id: str) -> bool:
        """False where the crawl has ended. Pages that were received are indexed all the same.

        Raises `NotFoundError`, `UsageError` if it runs elsewhere, and the errors of `at_firecrawl.cancel`.
        """
        known = await self._database.run(lambda c: repository.known_crawl(c, crawl_id))
        if known.engine == Engine.BUILTIN:
            await self._database.run(lambda c: repository.note_cancel(c, storable(crawl_id)))
            return not known.ended
        if known.ended:
            return False
        if self._settings.firecrawl_url is None:
            raise UsageError(
                f"crawl {crawl_id} runs elsewhere: set CRAWLSCOPE_FIRECRAWL_URL to it, or cancel it there"
            )
        firecrawl = await self._firecrawl.client()
        reconciler = Reconciler(self._database, firecrawl)
        return await at_firecrawl.cancel(self._database, firecrawl, reconciler, crawl_id)

    async def retry(
        self, crawl_id: str, which: RetryPages, allow_private: bool, traceparent: str | None
    ) -> PagesQueued:
        """Indexes failed pages anew whose content is known; with `rescrape` others are fetched again.

        Raises `NotFoundError` and the errors of `start`.
        """
        rescrape = None
        if which.rescrape:
            rescrape = await self._rescrape(crawl_id, which.urls, allow_private, traceparent)
        retry = await self._database.run(lambda c: retry_pages(c, crawl_id, which.urls))
        left = [page for page in retry.left if rescrape is None or page.url not in rescrape.urls]
        if rescrape:
            left = [
                replace(page, reason=NotRetried.NOT_TAKEN) if page.reason.can_be_scraped else page
                for page in left
            ]
        reasons = Counter(page.reason.value for page in left)
        reasons[NotRetried.NO_URL.value] += retry.failures_without_url
        return PagesQueued(
            crawl_id=crawl_id,
            queued=retry.queued,
            rescraped=len(rescrape.urls) if rescrape else 0,
            rescrape_crawl_id=rescrape.crawl_id if rescrape else None,
            left=dict(+reasons),
            pages=[PageNotRetried(**vars(page)) for page in left[:MAX_PAGES_NAMED]],
        )

    async def _rescrape(
        self, crawl_id: str, urls: list[str] | None, allow_private: bool, traceparent: str | None
    ) -> Rescrape | None:
        """Has the crawl's own crawler fetch the pages that were not received, in a crawl of their own."""
        known = await self._database.run(lambda c: repository.known_crawl(c, crawl_id))
        wanted = await self._database.run(lambda c: pages_to_scrape(c, crawl_id, urls))
        if not wanted:
            return None
        metadata = {"retry_of": crawl_id}
        if known.engine == Engine.BUILTIN:
            request = RequestedCrawl(
                JobKind.BATCH_SCRAPE,
                [check_target(wanted[0]), *wanted[1:]],
                len(wanted),
                allow_private,
                metadata=metadata,
            )
            begun = await self._database.run(lambda c: repository.start_crawl(c, request))
            rescrape = Rescrape(begun, set(wanted))
        else:
            request = batch_request(wanted[:MAX_BATCH_URLS], allow_private=allow_private, metadata=metadata)
            started = await self.start_at_firecrawl(request, traceparent)
            rescrape = Rescrape(started.crawl_id, set(request.urls) - set(started.invalid_urls))
        await self._database.run(lambda c: note_rescrape(c, crawl_id, rescrape.crawl_id, len(rescrape.urls)))
        return rescrape

    async def reconcile(self, crawl_id: str) -> CrawlReconciled:
        """Compares the crawl with Firecrawl. One that only Firecrawl knows is taken into the records first.

        Raises `SettingsError`, `NotFoundError` if neither side knows it or it was deleted here, and the
        errors of `Reconciler.reconcile`.
        """
        crawl_id, now = storable(crawl_id), datetime.now(UTC)

        async def adopt(connection: AsyncConnection) -> None:
            if not await ensure_session(connection, crawl_id, now):
                raise NotFoundError(f"Crawl not found: {crawl_id}, it was deleted here")
            await keep_fact(connection, crawl_id, CrawlSeen(now, what="adopted"), "adopted")
            await keep_action(connection, crawl_id, now, "adopt")

        firecrawl = await self._firecrawl.client()
        adopted = await self._database.run(lambda c: find_session(c, crawl_id)) is None
        if adopted:
            try:
                await firecrawl.status(crawl_id)
            except FirecrawlJobUnknown as error:
                raise NotFoundError(f"Crawl not found: {crawl_id}, neither here nor there: {error}") from None
            await self._database.run(adopt)
            log.info("crawl_adopted", crawl_id=crawl_id)
        reconciled = await Reconciler(self._database, firecrawl).reconcile(crawl_id)
        return CrawlReconciled(**vars(reconciled), adopted=adopted)

    async def delete(self, crawl_id: str, indexing: IndexingService) -> str | None:
        """Stops and removes the crawl. Returns why it may still run at Firecrawl; None if it does not.

        Raises `NotFoundError`.
        """
        known = await self._database.run(lambda c: repository.known_crawl(c, crawl_id))
        goes_on = None
        if known.ended or known.engine == Engine.BUILTIN:
            pass  # deleting stops the built-in crawler
        elif self._settings.firecrawl_url is None:
            goes_on = "it runs elsewhere, and CRAWLSCOPE_FIRECRAWL_URL is not set"
        else:
            try:
                firecrawl = await self._firecrawl.client()
                goes_on = await at_firecrawl.stop_before_deletion(self._database, firecrawl, crawl_id)
            except SettingsError as error:
                goes_on = str(error)
        await self._database.run(lambda c: repository.delete_crawl(c, crawl_id, indexing))
        if goes_on:
            log.warning("deleted_crawl_continued", crawl_id=crawl_id, reason=goes_on)
        return goes_on


def _builtin_request(wanted: StartCrawl, allow_private: bool) -> RequestedCrawl:
    if wanted.urls is not None:
        raise UsageError(
            "the built-in crawler scrapes no batches: leave `engine` out and set CRAWLSCOPE_FIRECRAWL_URL, "
            "or start a crawl for each of the urls"
        )
    if wanted.scrape_options or wanted.crawl_options:
        raise UsageError("scrape_options and crawl_options are Firecrawl's; the built-in crawler has none")
    if wanted.url is None:
        raise UsageError(ONE_OF_BOTH)
    return crawl_request(wanted.url, wanted.limit, allow_private=allow_private)


def _firecrawl_request(wanted: StartCrawl, allow_private: bool) -> RequestedCrawl:
    if (wanted.urls is None) == (wanted.url is None):
        raise UsageError(ONE_OF_BOTH)
    if wanted.url is not None:
        return crawl_request(
            wanted.url,
            wanted.limit,
            wanted.scrape_options,
            wanted.crawl_options,
            allow_private=allow_private,
        )
    if wanted.limit is not None or wanted.crawl_options:
        raise UsageError(
            "limit and crawl_options are for crawls; a batch scrape takes its urls and no others"
        )
    return batch_request(wanted.urls or (), wanted.scrape_options, allow_private=allow_private)
