"""The SQL of reconciling: which crawls are to be checked, when, and what the last check said."""

from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import or_, select, update
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.ext.asyncio import AsyncConnection

from crawlscope import models
from crawlscope.sessions.store import SESSIONS
from crawlscope.vocabulary import Engine, ReconcileState

DELIVERIES = models.table_of(models.Delivery)
CHECKS = models.table_of(models.Reconciliation)
REQUESTS = models.table_of(models.CrawlRequest)

LEASE = timedelta(seconds=30)
"""How long after the last sign of whoever checks another process may begin to."""
LONGEST_PAUSE = timedelta(hours=1)
FIRST_PAUSE_SECONDS = 30.0
"""After a check that got no answer; doubles with each one."""


async def claim_due(connection: AsyncConnection, quiet: timedelta) -> str | None:
    """A crawl that was quiet for so long and is not settled, for this process to check; None for none."""
    while True:
        now = datetime.now(UTC)
        crawl_id = await _find_due(connection, quiet, now)
        if crawl_id is None or await _lease(connection, crawl_id, now):
            return crawl_id


async def _find_due(connection: AsyncConnection, quiet: timedelta, now: datetime) -> str | None:
    unsettled = or_(
        CHECKS.c.crawl_id.is_(None),
        ~CHECKS.c.settled,
        CHECKS.c.covers_until < SESSIONS.c.last_fact_at,
    )
    found: str | None = await connection.scalar(
        select(SESSIONS.c.crawl_id)
        .outerjoin(CHECKS, CHECKS.c.crawl_id == SESSIONS.c.crawl_id)
        .outerjoin(REQUESTS, REQUESTS.c.crawl_id == SESSIONS.c.crawl_id)
        .where(
            SESSIONS.c.last_fact_at < now - quiet,
            or_(CHECKS.c.next_check_at.is_(None), CHECKS.c.next_check_at <= now),
            or_(REQUESTS.c.engine.is_(None), REQUESTS.c.engine != Engine.BUILTIN),
            unsettled,
        )
        .order_by(SESSIONS.c.last_fact_at.desc())
        .limit(1)
    )
    return found


async def _lease(connection: AsyncConnection, crawl_id: str, now: datetime) -> bool:
    """Whether this process got the check; another one may have found the crawl due in the same moment."""
    leased = {"next_check_at": now + LEASE}
    claim = (
        upsert(CHECKS)
        .values(crawl_id=crawl_id, state=ReconcileState.DUE, **leased)
        .on_conflict_do_update(
            index_elements=["crawl_id"],
            set_=leased,
            where=or_(CHECKS.c.next_check_at.is_(None), CHECKS.c.next_check_at <= now),
        )
        .returning(CHECKS.c.crawl_id)
    )
    return await connection.scalar(claim) is not None


async def renew_lease(connection: AsyncConnection, crawl_id: str) -> None:
    """The check goes on."""
    leased = update(CHECKS).where(CHECKS.c.crawl_id == crawl_id)
    await connection.execute(leased.values(next_check_at=datetime.now(UTC) + LEASE))


async def note_check(
    connection: AsyncConnection,
    crawl_id: str,
    state: ReconcileState,
    added: int,
    note: str | None,
    quiet_seconds: float,
    asked_at: datetime,
) -> None:
    """Writes down an answered check. What was delivered since `asked_at` may be of pages it did not see."""
    now = datetime.now(UTC)
    last_fact_at = await connection.scalar(
        select(SESSIONS.c.last_fact_at).where(SESSIONS.c.crawl_id == crawl_id)
    )
    assert last_fact_at is not None
    delivered = select(DELIVERIES.c.id).where(
        DELIVERIES.c.crawl_id == crawl_id, DELIVERIES.c.received_at >= asked_at
    )
    delivered_meanwhile = await connection.scalar(select(delivered.exists()))
    values: dict[str, Any] = {
        "state": state,
        "settled": state.settled,
        "checked_at": now,
        "failures": 0,
        "next_check_at": now if state.settled else now + _pause(now - last_fact_at, quiet_seconds),
        "covers_until": min(asked_at, last_fact_at) if delivered_meanwhile else last_fact_at,
        "error": note,
    }
    await _put(connection, crawl_id, values)
    await connection.execute(
        update(CHECKS)
        .where(CHECKS.c.crawl_id == crawl_id)
        .values(checks=CHECKS.c.checks + 1, added=CHECKS.c.added + added)
    )


async def note_failure(
    connection: AsyncConnection,
    crawl_id: str,
    reason: str,
    retry_after_seconds: float | None,
    quiet_seconds: float,
) -> None:
    """Writes down a check that got no answer: the next one waits longer, and as long as it was asked to."""
    failures = await connection.scalar(select(CHECKS.c.failures).where(CHECKS.c.crawl_id == crawl_id)) or 0
    seconds = min(FIRST_PAUSE_SECONDS, quiet_seconds) * 2.0 ** min(failures, 20)
    pause = min(timedelta(seconds=max(seconds, retry_after_seconds or 0)), LONGEST_PAUSE)
    values = {
        "state": ReconcileState.FAILING,
        "settled": False,
        "failures": failures + 1,
        "next_check_at": datetime.now(UTC) + pause,
        "error": reason,
    }
    await _put(connection, crawl_id, values)


async def _put(connection: AsyncConnection, crawl_id: str, values: dict[str, Any]) -> None:
    await connection.execute(
        upsert(CHECKS)
        .values(crawl_id=crawl_id, **{"state": ReconcileState.DUE, **values})
        .on_conflict_do_update(index_elements=["crawl_id"], set_=values)
    )


def _pause(silence: timedelta, quiet_seconds: float) -> timedelta:
    """Half as long as the crawl has been silent: the longer it says nothing, the less often it is asked."""
    return min(max(silence / 2, timedelta(seconds=quiet_seconds)), LONGEST_PAUSE)
