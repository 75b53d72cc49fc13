"""How often a document is tried in vain until it is taken for the reason, and how long a try may last."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from crawlscope.core.errors import CrawlscopeError

TIMEOUTS_ALLOWED = 3
FAILURES_BY_PARTS = 20
"""Only while the part works for others; one that works for nobody makes no document fail."""
LONGEST_PAUSE_SECONDS = 60.0


class PageTimeout(CrawlscopeError):
    code = "page_timeout"


@asynccontextmanager
async def in_time(seconds: float) -> AsyncIterator[None]:
    """Breaks the block off after so long, and raises `PageTimeout`."""
    try:
        async with asyncio.timeout(seconds) as limit:
            yield
    except TimeoutError:
        if not limit.expired():
            raise
        raise PageTimeout(f"it was not done after {seconds:g} s") from None


def tries_allowed(error: Exception, max_attempts: int) -> int:
    """`max_attempts` is for errors that nobody thought of."""
    if isinstance(error, PageTimeout):
        return TIMEOUTS_ALLOWED
    return FAILURES_BY_PARTS if isinstance(error, CrawlscopeError) else max_attempts


def pause_seconds(tries: int) -> float:
    """Between so many tries in vain and the next one."""
    return min(2.0 ** min(tries - 1, 10), LONGEST_PAUSE_SECONDS)
