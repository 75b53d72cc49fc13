"""Detects and sends notifications for as long as the process runs."""

import asyncio
import time
from collections.abc import Awaitable, Callable

from crawlscope.core.backoff import retry_context
from crawlscope.core.errors import CrawlscopeError
from crawlscope.core.periodic import run_periodically
from crawlscope.core.secrets import notify_secret
from crawlscope.core.settings import Settings
from crawlscope.database.engine import Database
from crawlscope.notifications.detection import Detector
from crawlscope.notifications.outbox import stop_notifying
from crawlscope.notifications.sending import Receiver, send_due

POLL_INTERVAL_SECONDS = 1.0
MAX_INTERVAL_SECONDS = 10.0
IDLE_TIMES_BUSY = 10.0
RETRY_SECONDS = 10.0


async def notify_of_crawls(settings: Settings, database: Database) -> None:
    """Runs until it is cancelled, in any number of processes; returns if no receiver is set."""
    retried = retry_context(
        CrawlscopeError, attempts=None, timeout=None, wait_initial=RETRY_SECONDS, wait_max=RETRY_SECONDS
    )
    async for attempt in retried:
        with attempt:
            if settings.notify_url is None:
                await database.run(stop_notifying)
                return
            secret = await asyncio.to_thread(notify_secret, settings)
            url = settings.notify_url.get_secret_value()
            receiver = await asyncio.to_thread(Receiver, url, secret)  # reads the certificates
    detector = Detector(
        database,
        settings.reconcile_after_seconds,
        asks_firecrawl=settings.firecrawl_url is not None,
        expectations=settings.site_expectations,
    )
    async with receiver:
        await asyncio.gather(
            _poll(detector.detect, "notification_detection_failed"),
            _poll(lambda: send_due(database, receiver), "notification_sending_failed"),
        )


async def _poll(work: Callable[[], Awaitable[int]], failure_event: str) -> None:
    """Again at once after work that did something; else less often the longer looking takes."""

    async def interval_after_work() -> float:
        began = time.monotonic()
        if await work():
            return 0.0
        busy_seconds = time.monotonic() - began
        return min(max(POLL_INTERVAL_SECONDS, busy_seconds * IDLE_TIMES_BUSY), MAX_INTERVAL_SECONDS)

    await run_periodically(
        interval_after_work,
        interval_seconds=lambda seconds: seconds,
        retry_seconds=RETRY_SECONDS,
        failure_event=failure_event,
    )
