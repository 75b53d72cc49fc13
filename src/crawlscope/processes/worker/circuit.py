"""A worker takes no pages while a part that they need is away: an outage costs a page in hand one try."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager, suppress

import structlog

from crawlscope.core.backoff import retry_context
from crawlscope.core.errors import CrawlscopeError, DependencyError
from crawlscope.pages.outages import Outages

FIRST_PAUSE_SECONDS = 1.0
LONGEST_PAUSE_SECONDS = 30.0
PAGES_OF_NO_CONCERN = 2
"""So many pages may fail by themselves; more in a row are a sign of a part that works for nobody."""

log = structlog.get_logger(__name__)


class Circuit:
    """Opened by a page that a part failed; closes by itself when every part passes its probe.

    It begins open, so that no page is tried before all are there. What it cannot find out, for whatever
    reason, it tries to find out again.
    """

    def __init__(
        self,
        probes: Mapping[str, Callable[[], Awaitable[object]]],
        outages: Outages,
        on_open: Callable[[], None],
        on_close: Callable[[], None],
    ) -> None:
        """`probes` raise while their part is away."""
        self._probes = probes
        self._outages = outages
        self._on_open = on_open
        self._on_close = on_close
        self._opened = asyncio.Event()
        self._failed_pages: set[int] = set()

    @asynccontextmanager
    async def watched(self) -> AsyncIterator[None]:
        """While the block runs, the circuit closes by itself."""
        self._open()
        watching = asyncio.create_task(self._watch())
        try:
            yield
        finally:
            watching.cancel()
            with suppress(asyncio.CancelledError):
                await watching

    def page_failed(self, page_id: int) -> None:
        """By a part: the worker takes no other page until all parts were seen to work."""
        self._failed_pages.add(page_id)
        self._open()

    def page_passed(self) -> None:
        self._failed_pages.clear()

    async def probe(self) -> None:
        """Asks all parts at once, and keeps note of outages; raises `DependencyError` where one is away."""
        problems = await asyncio.gather(*[self._problem_of(part) for part in self._probes])
        away = [problem for problem in problems if problem]
        if away:
            raise DependencyError("; ".join(away))

    def _open(self) -> None:
        self._opened.set()
        self._on_open()

    async def _watch(self) -> None:
        while True:
            await self._opened.wait()
            try:
                await self._close_when_parts_work()
            except Exception:
                log.exception("circuit_not_closed")
                await asyncio.sleep(LONGEST_PAUSE_SECONDS)

    async def _close_when_parts_work(self) -> None:
        await asyncio.sleep(self._pause_seconds())
        if await self._wait_for_parts():
            self._failed_pages.clear()
        self._opened.clear()
        self._on_close()

    def _pause_seconds(self) -> float:
        """A part can pass its probe and yet work for no page, such as a server that limits its use."""
        beyond = len(self._failed_pages) - PAGES_OF_NO_CONCERN
        return min(2.0 ** min(beyond - 1, 10), LONGEST_PAUSE_SECONDS) if beyond > 0 else 0.0

    async def _wait_for_parts(self) -> bool:
        """Whether there was anything to wait for."""
        probes = retry_context(
            DependencyError,
            attempts=None,
            timeout=None,
            wait_initial=FIRST_PAUSE_SECONDS,
            wait_max=LONGEST_PAUSE_SECONDS,
        )
        async for attempt in probes:
            with attempt:
                await self.probe()
        return attempt.num > 1

    async def _problem_of(self, part: str) -> str:
        try:
            await self._probes[part]()
        except Exception as error:  # noqa: BLE001 - however it fails, pages would as well
            reason = str(error) if isinstance(error, CrawlscopeError) else f"{type(error).__name__}: {error}"
            await self._outages.note(part, reason)
            return reason
        try:
            await self._outages.end(part)
        except DependencyError as error:
            return str(error)
        return ""
