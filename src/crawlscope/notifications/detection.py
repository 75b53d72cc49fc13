"""Detects events of crawls to notify of, also those that happened while no process ran."""

import math
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import RowMapping
from sqlalchemy.ext.asyncio import AsyncConnection

from crawlscope.core.vocabulary import CrawlNumber, VerdictName
from crawlscope.database.engine import Database
from crawlscope.insights.schemas import Baseline
from crawlscope.insights.sealing import Sealing, sealing
from crawlscope.insights.states import SiteExpectations, baseline_of, verdicts_of
from crawlscope.notifications import messages, outbox

GRACE_SECONDS = 2.0
"""A crawl's end can arrive before its last page: a crawl that is sealed for so long may stay so."""
STALL_PATIENCE_SECONDS = 30.0
"""After a restart there is no progress for a moment: a crawl must be found stalled for so long."""

FULL_INTERVAL_SECONDS = 600.0
"""The interval at which all crawls are examined. In between, only crawls with new facts are."""
OVERLAP = timedelta(minutes=3)
"""Longer than a transaction takes that stores a fact with a time before its commit."""
EVER = datetime.min.replace(tzinfo=UTC)

Stall = tuple[str, datetime | None]
"""A crawl, and when its last page had settled."""


class Detector:
    def __init__(
        self,
        database: Database,
        quiet_seconds: float,
        grace_seconds: float = GRACE_SECONDS,
        stall_patience_seconds: float = STALL_PATIENCE_SECONDS,
        *,
        asks_firecrawl: bool = False,
        expectations: SiteExpectations | None = None,
    ) -> None:
        """`quiet_seconds` is how long a running crawl may be silent; `asks_firecrawl`, whether crawls are
        compared with a Firecrawl: then they are searchable after that."""
        self._expectations = expectations or {}
        self._asks_firecrawl = asks_firecrawl
        self._database = database
        self._quiet_seconds = quiet_seconds
        self._grace = timedelta(seconds=grace_seconds)
        self._stall_patience_seconds = stall_patience_seconds
        self._stalls: dict[Stall, float] = {}
        """When each was first found, by the monotonic clock."""
        self._facts_since = EVER
        """All events of facts before are in the outbox."""
        self._full_detection_at = -math.inf

    async def detect(self) -> int:
        """Puts new events into the outbox; returns how many."""
        return await self._database.run(self._detect)

    async def _detect(self, connection: AsyncConnection) -> int:
        began, now = datetime.now(UTC), time.monotonic()
        since = await outbox.begin_notifying(connection)
        if now - self._full_detection_at > FULL_INTERVAL_SECONDS:
            self._full_detection_at, self._facts_since = now, EVER
        found = await self._searchable(connection, since)
        for session in await outbox.new_failed(connection, since, self._facts_since):
            found += await outbox.put(connection, session, messages.failed(session), None)
        if not found:
            self._facts_since = began - OVERLAP
        return found + await self._stalled(connection)

    async def _searchable(self, connection: AsyncConnection, since: datetime) -> int:
        """Including crawls that are unusual, or not as expected."""
        found, quiet_since = 0, datetime.now(UTC) - self._grace
        for session in await outbox.new_searchable(
            connection, since, quiet_since, self._facts_since, self._asks_firecrawl
        ):
            settled_at = session["last_settled_at"]
            if not await outbox.put(
                connection, session, messages.searchable(session, self._sealing(session)), settled_at
            ):
                continue
            found += 1
            compared = await baseline_of(connection, session, self._expectations)
            for message in _irregularities(session, compared) if compared else ():
                found += await outbox.put(connection, session, message, settled_at)
        return found

    async def _stalled(self, connection: AsyncConnection) -> int:
        """Only crawls that were found stalled each time for long enough."""
        sessions = await outbox.with_pending_pages(connection)
        checks = {each["crawl_id"]: check for each in sessions if (check := outbox.check_in(each))}
        sealings = {each["crawl_id"]: self._sealing(each) for each in sessions}
        verdicts = await verdicts_of(connection, sessions, checks, sealings, self._quiet_seconds)
        stalled = {
            (each["crawl_id"], each["last_settled_at"]): each
            for each in sessions
            if (verdict := verdicts.get(each["crawl_id"])) and verdict.verdict is VerdictName.STALLED
        }
        now, found = time.monotonic(), 0
        self._stalls = {stall: self._stalls.get(stall, now) for stall in stalled}
        for stall, session in stalled.items():
            if now - self._stalls[stall] >= self._stall_patience_seconds:
                message = messages.stalled(session, verdicts[session["crawl_id"]])
                found += await outbox.put(connection, session, message, session["last_settled_at"])
        return found

    def _sealing(self, session: RowMapping) -> Sealing:
        return sealing(session, outbox.check_in(session), self._asks_firecrawl)


def _irregularities(session: RowMapping, compared: Baseline) -> Iterator[dict[str, Any]]:
    regressed = {name for name, number in compared.numbers.items() if number.regressed}
    if CrawlNumber.DURATION in regressed:
        yield messages.slow(session, compared.numbers[CrawlNumber.DURATION])
    if regressed - {CrawlNumber.DURATION}:
        yield messages.regressed(session, compared)
    if unmet := [each for each in compared.expectations if each.met is False]:
        yield messages.unexpected(session, unmet)
