"""The circuit breaker of a worker: it takes no pages while a dependency is unavailable.

An outage costs a page in progress one attempt.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime, timedelta

import structlog
from sqlalchemy import func, text
from sqlalchemy.dialects.postgresql import insert as upsert

from crawlscope import models
from crawlscope.core.backoff import backoff, retry_context
from crawlscope.core.errors import CrawlscopeError, DependencyError
from crawlscope.core.periodic import in_background
from crawlscope.core.values import storable
from crawlscope.database.engine import Database

OUTAGES = models.table_of(models.Outage)
_END_OUTAGE = text("""
    WITH ended AS (DELETE FROM webhook.outages WHERE part = :part AND worker = :worker)
    INSERT INTO webhook.past_outages (part, worker, since, until, reason)
    VALUES (:part, :worker, :since, greatest(:since, now()), :reason)
""")
_END_REPORTS = text("""
    WITH ended AS (
        DELETE FROM webhook.outages WHERE reported_at < now() - CAST(:max_age AS interval) RETURNING *
    )
    INSERT INTO webhook.past_outages (part, worker, since, until, reason)
    SELECT part, worker, since, reported_at, reason FROM ended
""")
MAX_REPORT_AGE = timedelta(minutes=10)
"""A waiting worker reports more often: an older row is of a worker that is gone."""
FIRST_DELAY_SECONDS = 1.0
MAX_DELAY_SECONDS = 30.0

log = structlog.get_logger(__name__)


class Outages:
    """The outages that one worker knows of. Without the database they are only logged until they are over."""

    def __init__(self, database: Database, worker: str) -> None:
        self._database = database
        self._worker = worker
        self._unavailable: dict[str, tuple[datetime, str]] = {}
        """By part, the start of the outage and its last reason."""

    async def note(self, part: str, reason: str) -> None:
        """May be called again for as long as it lasts."""
        reason = storable(reason)
        if part not in self._unavailable:
            log.warning("dependency_lost", part=part, reason=reason)
        since, _ = self._unavailable.get(part, (datetime.now(UTC), ""))
        self._unavailable[part] = since, reason
        row = upsert(OUTAGES).values(part=part, worker=self._worker, reason=reason)
        try:
            async with self._database.transaction() as connection:
                await connection.execute(_END_REPORTS, {"max_age": MAX_REPORT_AGE})
                await connection.execute(
                    row.on_conflict_do_update(
                        index_elements=["part", "worker"],
                        set_={"reported_at": func.now(), "reason": reason},
                    )
                )
        except DependencyError as error:
            log.debug("outage_storage_failed", part=part, reason=str(error))

    async def end(self, part: str) -> None:
        """Raises `DatabaseUnavailable` where the end of a known outage cannot be written."""
        if part not in self._unavailable:
            return
        since, reason = self._unavailable[part]
        ended = {"part": part, "worker": self._worker, "since": since, "reason": reason}
        async with self._database.transaction() as connection:
            await connection.execute(_END_OUTAGE, ended)
        self._unavailable.pop(part, None)
        log.info("dependency_restored", part=part)

    async def end_all(self) -> None:
        """When the worker ends: the next one probes for itself. Never raises."""
        with suppress(DependencyError):
            for part in sorted(self._unavailable):
                await self.end(part)


class Circuit:
    """Opened by a page that a dependency failed; closes when every dependency passes its probe.

    It begins open, so that no page is tried before all are available. An error while it probes does not end
    the probing.
    """

    def __init__(
        self,
        probes: Mapping[str, Callable[[], Awaitable[object]]],
        outages: Outages,
        on_open: Callable[[], None],
        on_close: Callable[[], None],
        tolerated_pages: int,
    ) -> None:
        """`probes` raise while their dependency is unavailable.

        `tolerated_pages` may fail without a longer pause, as those in progress do at one outage. More in a
        row are a sign of a dependency that works for no page.
        """
        self._tolerated_pages = tolerated_pages
        self._probes = probes
        self._outages = outages
        self._on_open = on_open
        self._on_close = on_close
        self._opened = asyncio.Event()
        self.failed_pages: set[int] = set()
        """Pages that a dependency failed since one was settled; to be cleared when one is."""

    @asynccontextmanager
    async def closing_automatically(self) -> AsyncIterator[None]:
        """Opens the circuit; while the block runs, it closes automatically."""
        self._open()
        async with in_background(self._close_after_probes()):
            yield

    def page_failed(self, page_id: int) -> None:
        """A dependency failed the page: no other page is taken until all have passed their probes."""
        self.failed_pages.add(page_id)
        self._open()

    async def probe(self) -> None:
        """Probes all dependencies at once, and notes outages. Raises `DependencyError` if one is down."""

        async def problem_of(part: str) -> str:
            try:
                await self._probes[part]()
            except Exception as error:  # noqa: BLE001 - however it fails, pages would as well
                kind = "" if isinstance(error, CrawlscopeError) else f"{type(error).__name__}: "
                await self._outages.note(part, f"{kind}{error}")
                return f"{kind}{error}"
            try:
                await self._outages.end(part)
            except DependencyError as error:
                return str(error)
            return ""

        problems = await asyncio.gather(*[problem_of(part) for part in self._probes])
        if any(problems):
            raise DependencyError("; ".join(filter(None, problems)))

    def _open(self) -> None:
        self._opened.set()
        self._on_open()

    async def _close_after_probes(self) -> None:
        while True:
            await self._opened.wait()
            # A dependency can pass its probe and yet work for no page: a server that limits its use.
            beyond = len(self.failed_pages) - self._tolerated_pages
            await asyncio.sleep(
                backoff(beyond, first_seconds=FIRST_DELAY_SECONDS, max_seconds=MAX_DELAY_SECONDS)
            )
            probes = retry_context(
                DependencyError,
                attempts=None,
                timeout=None,
                wait_initial=FIRST_DELAY_SECONDS,
                wait_max=MAX_DELAY_SECONDS,
            )
            try:
                async for attempt in probes:
                    with attempt:
                        await self.probe()
            except Exception:
                log.exception("circuit_probe_failed")
                await asyncio.sleep(MAX_DELAY_SECONDS)
                continue
            if attempt.num > 1:
                self.failed_pages.clear()
            self._opened.clear()
            self._on_close()
