"""Notices what is to be told, by looking at the crawls: also what happened while no process ran."""

import math
import time
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

from sqlalchemy import RowMapping
from sqlalchemy.ext.asyncio import AsyncConnection

from crawlscope.core.vocabulary import CrawlStatus
from crawlscope.database.engine import Database
from crawlscope.insights.sealing import Sealing, sealing
from crawlscope.insights.searchable import Session, time_to_searchable_ms
from crawlscope.insights.verdict import VerdictName
from crawlscope.insights.verdicts import verdicts_of
from crawlscope.notifications import messages, outbox
from crawlscope.notifications.baseline import Run, exceeded_baseline

GRACE_SECONDS = 2.0
"""Crawlers tell the end before the last page, too: what is sealed for so long has a chance to stay so."""
STALL_PATIENCE_SECONDS = 30.0
"""After a restart nothing is done for a moment: a crawl stalls when it is found stalled for so long."""

ALL_SECONDS = 600.0
OVERLAP = timedelta(minutes=3)
"""Longer than a transaction takes that wrote down what was heard before it ended."""
EVER = datetime.min.replace(tzinfo=UTC)

Stall = tuple[str, datetime | None]
"""A crawl, and when its last page had settled."""


class Noticer:
    def __init__(
        self,
        database: Database,
        quiet_seconds: float,
        grace_seconds: float = GRACE_SECONDS,
        stall_patience_seconds: float = STALL_PATIENCE_SECONDS,
        *,
        asks_firecrawl: bool = False,
    ) -> None:
        """`quiet_seconds` is how long a crawl may be silent before that says something; `asks_firecrawl`,
        whether crawls are compared with a Firecrawl, which is told of after that."""
        self._asks_firecrawl = asks_firecrawl
        self._database = database
        self._quiet_seconds = quiet_seconds
        self._grace = timedelta(seconds=grace_seconds)
        self._stall_patience_seconds = stall_patience_seconds
        self._stalls: dict[Stall, float] = {}
        """When they were first found, by the monotonic clock."""
        self._heard_since = EVER
        """Whatever was heard before is told, as far as it is news."""
        self._all_looked_at = -math.inf

    async def notice(self) -> int:
        """Puts what is new into the outbox; returns how much that was."""
        return await self._database.run(self._notice)

    async def _notice(self, connection: AsyncConnection) -> int:
        began = datetime.now(UTC)
        since = await outbox.begin_telling(connection)
        heard_since = self._look_back()
        told = await self._searchable(connection, since, heard_since)
        told += await self._failed(connection, since, heard_since)
        if not told:
            self._heard_since = began - OVERLAP
        return told + await self._stalled(connection)

    def _look_back(self) -> datetime:
        """Once in a while at all crawls."""
        now = time.monotonic()
        if now - self._all_looked_at > ALL_SECONDS:
            self._all_looked_at, self._heard_since = now, EVER
        return self._heard_since

    async def _searchable(self, connection: AsyncConnection, since: datetime, heard_since: datetime) -> int:
        quiet_since = datetime.now(UTC) - self._grace
        told = 0
        for session in await outbox.news_searchable(
            connection, since, quiet_since, heard_since, self._asks_firecrawl
        ):
            payload, settled_at = (
                messages.searchable(session, self._sealing(session)),
                session["last_settled_at"],
            )
            if await outbox.put(connection, session, payload, settled_at):
                told += 1 + await self._slow(connection, session)
        return told

    async def _slow(self, connection: AsyncConnection, session: Session) -> int:
        took_ms = time_to_searchable_ms(session)
        if session["status"] != CrawlStatus.COMPLETED or took_ms is None:
            return 0
        run = Run(session["total_pages"], took_ms)
        baseline = exceeded_baseline(run, await outbox.earlier_runs(connection, session))
        if baseline is None:
            return 0
        payload = messages.slow(session, baseline)
        return await outbox.put(connection, session, payload, session["last_settled_at"])

    async def _failed(self, connection: AsyncConnection, since: datetime, heard_since: datetime) -> int:
        sessions = await outbox.news_failed(connection, since, heard_since)
        return sum([await outbox.put(connection, each, messages.failed(each), None) for each in sessions])

    async def _stalled(self, connection: AsyncConnection) -> int:
        sessions = await outbox.waiting_for_workers(connection)
        checks = {each["crawl_id"]: check for each in sessions if (check := outbox.check_in(each))}
        sealings = {each["crawl_id"]: self._sealing(each) for each in sessions}
        verdicts = await verdicts_of(connection, sessions, checks, sealings, self._quiet_seconds)
        stalled = {key: each for key, each in verdicts.items() if each.verdict is VerdictName.STALLED}
        lasting = self._lasting([each for each in sessions if each["crawl_id"] in stalled])
        told = 0
        for session in lasting:
            payload = messages.stalled(session, stalled[session["crawl_id"]])
            told += await outbox.put(connection, session, payload, session["last_settled_at"])
        return told

    def _sealing(self, session: RowMapping) -> Sealing:
        return sealing(session, outbox.check_in(session), self._asks_firecrawl)

    def _lasting(self, stalled: Sequence[RowMapping]) -> list[RowMapping]:
        """Those that were found stalled each time for long enough; others are forgotten."""
        now = time.monotonic()
        found = {(each["crawl_id"], each["last_settled_at"]): each for each in stalled}
        self._stalls = {stall: self._stalls.get(stall, now) for stall in found}
        return [
            session
            for stall, session in found.items()
            if now - self._stalls[stall] >= self._stall_patience_seconds
        ]
