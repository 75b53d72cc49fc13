"""Runs a requested crawl with the built-in crawler, and keeps its progress in the database."""

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
from crawlscope.crawler.crawl import CrawlPlan, CrawlProgress, run_crawl
from crawlscope.crawler.sender import WebhookSender
from crawlscope.crawls.repository import DEFAULT_LIMIT, note_progress, running_request
from crawlscope.database.engine import Database
from crawlscope.firecrawl.schemas import JobKind
from crawlscope.sessions.fold import Ended
from crawlscope.sessions.repository import ensure_session, keep_fact

NOTE_INTERVAL_SECONDS = 0.5

log = structlog.get_logger(__name__)


class SiteCrawl:
    """Delivers events to the webhook endpoint of the running service, like any crawler."""

    def __init__(self, settings: Settings, database: Database) -> None:
        self._settings = settings
        self._database = database

    async def run(self, crawl_id: str) -> None:
        """Returns when the crawl has ended, however. Run again after a crash it delivers the same events.

        Raises `ServiceUnavailable` while no service takes them.
        """
        requested = await self._database.run(lambda connection: running_request(connection, crawl_id))
        if requested is None:
            return
        request = CrawlPlan(
            crawl_id=crawl_id,
            url=requested.url,
            urls=requested.urls if requested.kind is JobKind.BATCH_SCRAPE else (),
            limit=requested.limit or DEFAULT_LIMIT,
            concurrency=self._settings.crawl_concurrency,
            timeout_seconds=self._settings.crawl_timeout_seconds,
            allow_private=requested.allow_private,
            metadata=dict(requested.metadata),
        )
        progress, cancelled = CrawlProgress(), asyncio.Event()

        async def should_stop() -> bool:
            return cancelled.is_set()

        def service_url() -> str:
            running = service_file.read(self._settings.data_dir)
            address = f"http://{self._settings.host}:{self._settings.port}"
            return running.url if running else self._settings.public_url or address

        async with (
            WebhookSender(service_url, api_secret(self._settings)) as sender,
            self._progress_noted(crawl_id, progress, cancelled),
        ):
            try:
                await run_crawl(
                    request, sender.send, lambda latest: vars(progress).update(vars(latest)), should_stop
                )
            except DependencyError:
                raise
            except Exception as error:
                log.exception("crawl_failed", crawl_id=crawl_id)
                failed = Ended(datetime.now(UTC), CrawlStatus.FAILED, f"the crawler failed: {error}")
                async with self._database.transaction() as connection:
                    if await ensure_session(connection, crawl_id, failed.at):
                        await keep_fact(connection, crawl_id, failed, "crawler failed")

    @asynccontextmanager
    async def _progress_noted(
        self, crawl_id: str, progress: CrawlProgress, cancelled: asyncio.Event
    ) -> AsyncIterator[None]:
        """Keeps the progress while the block runs; sets `cancelled` when the crawl was cancelled."""

        async def note_regularly() -> None:
            while True:
                if not await self._note(crawl_id, progress):
                    cancelled.set()
                await asyncio.sleep(NOTE_INTERVAL_SECONDS)

        noting = asyncio.create_task(note_regularly())
        try:
            yield
        finally:
            noting.cancel()
            await self._note(crawl_id, progress)

    async def _note(self, crawl_id: str, progress: CrawlProgress) -> bool:
        """False for a crawl that was cancelled. True also where the progress cannot be kept."""
        counts = {"found": progress.found, "fetched": progress.fetched, **vars(progress.times)}
        try:
            return await self._database.run(lambda connection: note_progress(connection, crawl_id, **counts))
        except DependencyError as error:
            log.warning("progress_update_failed", crawl_id=crawl_id, reason=str(error))
            return True
