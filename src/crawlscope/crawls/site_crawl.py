"""Runs a crawl that was asked for with the built-in crawler, and keeps its progress where others see it."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime

import structlog

from crawlscope.core import service_file
from crawlscope.core.errors import DependencyError
from crawlscope.core.secrets import api_secret
from crawlscope.core.settings import Settings
from crawlscope.core.vocabulary import CrawlStatus
from crawlscope.crawler.crawl import CrawlProgress, CrawlRequest, ShouldStop, run_crawl
from crawlscope.crawler.sender import WebhookSender
from crawlscope.crawls.requests import RunningRequest, note_progress, running_request
from crawlscope.database.engine import Database
from crawlscope.sessions.fold import Ended
from crawlscope.sessions.store import ensure_session, keep_fact

NOTE_SECONDS = 0.5

log = structlog.get_logger(__name__)


class SiteCrawl:
    """Its events go through the webhook door of the running service, like any crawler's."""

    def __init__(self, settings: Settings, database: Database) -> None:
        self._settings = settings
        self._database = database

    async def run(self, crawl_id: str) -> None:
        """Returns when the crawl has ended, however. Run again after a crash it delivers the same events.

        Raises `ServiceUnavailable` while no service takes them.
        """
        order = await self._database.run(lambda connection: running_request(connection, crawl_id))
        if order is None:
            return
        progress = CrawlProgress()
        async with (
            WebhookSender(self._service_url, api_secret(self._settings)) as sender,
            self._noted(crawl_id, progress) as cancelled,
        ):
            try:
                await run_crawl(
                    self._request(order),
                    sender.send,
                    lambda latest: vars(progress).update(vars(latest)),
                    _asked(cancelled),
                )
            except DependencyError:
                raise
            except Exception as error:
                log.exception("crawl_failed", crawl_id=crawl_id)
                await self._fail(crawl_id, f"the crawler failed: {error}")

    def _service_url(self) -> str:
        running = service_file.read(self._settings.data_dir)
        if running:
            return running.url
        return self._settings.public_url or f"http://{self._settings.host}:{self._settings.port}"

    def _request(self, order: RunningRequest) -> CrawlRequest:
        return CrawlRequest(
            crawl_id=order.crawl_id,
            url=order.url,
            urls=order.options.get("urls", ()),
            limit=order.options["limit"],
            concurrency=self._settings.crawl_concurrency,
            timeout_seconds=self._settings.crawl_timeout_seconds,
            allow_private=order.options["allow_private"],
            metadata=order.metadata,
        )

    @asynccontextmanager
    async def _noted(self, crawl_id: str, progress: CrawlProgress) -> AsyncIterator[asyncio.Event]:
        """Writes progress down while the block runs; the event says that the crawl was cancelled."""
        cancelled = asyncio.Event()
        noting = asyncio.create_task(self._note_on(crawl_id, progress, cancelled))
        try:
            yield cancelled
        finally:
            noting.cancel()
            await self._note(crawl_id, progress)

    async def _note_on(self, crawl_id: str, progress: CrawlProgress, cancelled: asyncio.Event) -> None:
        while True:
            if not await self._note(crawl_id, progress):
                cancelled.set()
            await asyncio.sleep(NOTE_SECONDS)

    async def _note(self, crawl_id: str, progress: CrawlProgress) -> bool:
        """Progress is for show: the crawl goes on without it."""
        found, fetched = progress.found, progress.fetched
        try:
            return await self._database.run(
                lambda connection: note_progress(connection, crawl_id, found, fetched)
            )
        except DependencyError as error:
            log.warning("progress_not_noted", crawl_id=crawl_id, reason=str(error))
            return True

    async def _fail(self, crawl_id: str, reason: str) -> None:
        now = datetime.now(UTC)
        async with self._database.transaction() as connection:
            if await ensure_session(connection, crawl_id, now):
                await keep_fact(
                    connection, crawl_id, Ended(now, CrawlStatus.FAILED, reason), "crawler failed"
                )


def _asked(cancelled: asyncio.Event) -> ShouldStop:
    async def should_stop() -> bool:
        return cancelled.is_set()

    return should_stop
