"""What goes on beside the crawler: noticing what is to be told, and telling it."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

import structlog

from crawlscope.core.errors import CrawlscopeError
from crawlscope.core.secrets import notify_secret
from crawlscope.core.settings import Settings
from crawlscope.database.engine import Database
from crawlscope.notifications.detection import Noticer
from crawlscope.notifications.outbox import stop_telling
from crawlscope.notifications.sending import Receiver, send_due

LOOK_SECONDS = 1.0
IDLE_TIMES_BUSY = 10.0
LONGEST_PAUSE_SECONDS = 10.0
AFTER_TROUBLE_SECONDS = 10.0

T = TypeVar("T")

log = structlog.get_logger(__name__)


async def tell_of_crawls(settings: Settings, database: Database) -> None:
    """Goes on until it is cancelled, in any number of processes; returns where there is nobody to tell."""
    if settings.notify_url is None:
        await _until_done(lambda: database.run(stop_telling))
        return
    url = settings.notify_url.get_secret_value()
    noticer = Noticer(
        database, settings.reconcile_after_seconds, asks_firecrawl=settings.firecrawl_url is not None
    )
    secret = await _until_done(lambda: asyncio.to_thread(notify_secret, settings))
    async with await asyncio.to_thread(Receiver, url, secret) as receiver:  # reads the certificates
        await asyncio.gather(
            _again_and_again(noticer.notice), _again_and_again(lambda: send_due(database, receiver))
        )


async def _again_and_again(step: Callable[[], Awaitable[int]]) -> None:
    """At once, as long as there is something to do; else less often where looking takes long."""
    while True:
        began = time.monotonic()
        if not await _until_done(step):
            pause_seconds = (time.monotonic() - began) * IDLE_TIMES_BUSY
            await asyncio.sleep(min(max(LOOK_SECONDS, pause_seconds), LONGEST_PAUSE_SECONDS))


async def _until_done(step: Callable[[], Awaitable[T]]) -> T:
    while True:
        try:
            return await step()
        except CrawlscopeError as error:
            log.warning("telling_waits", reason=str(error))
        except Exception:
            log.exception("telling_waits")
        await asyncio.sleep(AFTER_TROUBLE_SECONDS)
