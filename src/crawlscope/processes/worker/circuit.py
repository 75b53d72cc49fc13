"""A worker takes no pages while a part that they need is away: an outage costs a page in hand one try."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from datetime import timedelta

import structlog
from sqlalchemy import delete, func
from sqlalchemy.dialects.postgresql import insert as upsert

from crawlscope import models
from crawlscope.core.backoff import retry_context
from crawlscope.core.errors import CrawlscopeError, DependencyError
from crawlscope.core.values import storable
from crawlscope.database.engine import Database

OUTAGES = models.table_of(models.Outage)
FORGOTTEN_AFTER = timedelta(minutes=10)
"""Who waits reports more often: such a row is of a worker that is gone."""


class Outages:
    """Those that one worker knows of. Without the database they are only logged."""

    def __init__(self, database: Database, worker: str) -> None:
        self._database = database
        self._worker = worker
        self._away: set[str] = set()

    async def note(self, part: str, reason: str) -> None:
        """May be called again for as long as it lasts."""
        reason = storable(reason)
        if part not in self._away:
            log.warning("part_away", part=part, reason=reason)
            self._away.add(part)
        row = upsert(OUTAGES).values(part=part, worker=self._worker, reason=reason)
        try:
            async with self._database.transaction() as connection:
                await connection.execute(
                    delete(OUTAGES).where(OUTAGES.c.reported_at < func.now() - FORGOTTEN_AFTER)
                )
                await connection.execute(
                    row.on_conflict_do_update(
                        index_elements=["part", "worker"],
                        set_={"reported_at": func.now(), "reason": reason},
                    )
                )
        except DependencyError as error:
            log.debug("outage_not_noted", part=part, reason=str(error))

    async def end(self, part: str) -> None:
        """Forgets a part that is back. Raises `DatabaseUnavailable` where it was known to be away."""
        if part not in self._away:
            return
        async with self._database.transaction() as connection:
            await connection.execute(
                delete(OUTAGES).where(OUTAGES.c.part == part, OUTAGES.c.worker == self._worker)
            )
        self._away.discard(part)
        log.info("part_back", part=part)

    async def end_all(self) -> None:
        """When the worker ends: who takes over sees for itself. Never raises."""
        with suppress(DependencyError):
            for part in sorted(self._away):
                await self.end(part)


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
