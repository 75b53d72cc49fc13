"""The SQL of reconciling: which crawls are to be checked, when, and what the last check said."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, Select, and_, exists, literal, or_, select, update
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.ext.asyncio import AsyncConnection

from crawlscope import models
from crawlscope.core.vocabulary import CrawlStatus, Engine, ReconcileState
from crawlscope.sessions.store import SESSIONS, lock_session

DELIVERIES = models.table_of(models.Delivery)
CHECKS = models.table_of(models.Reconciliation)
REQUESTS = models.table_of(models.CrawlRequest)

LEASE = timedelta(seconds=30)
"""How long after the last sign of whoever checks another process may begin to."""
FIRST_CHECK = timedelta(seconds=5)
"""After a crawl was heard of; also the shortest pause while it goes on."""
AFTER_THE_END = timedelta(seconds=2)
"""Until a crawl that has ended is checked again: what was scraped last can be missing for a moment."""
LONGEST_PAUSE_OF_ACTIVE = timedelta(seconds=15)
LONGEST_PAUSE = timedelta(hours=1)
FIRST_PAUSE_SECONDS = 2.0
"""After a check that got no answer; doubles with each one."""
TRIES_OF_INCOMPLETE = 4
"""What Firecrawl did not hand out by then, it never does."""
LATELY = timedelta(hours=1)
"""Crawls that were heard of since are checked again after an outage, also where they had ended before."""
MOST_URLS_NAMED = 100
FORGOTTEN = (ReconcileState.EXPIRED, ReconcileState.UNKNOWN)


@dataclass(frozen=True)
class Claim:
    """A check that this process is to make."""

    crawl_id: str
    in_full: bool
    """Its pages are compared also if it goes on."""


@dataclass(frozen=True)
class Found:
    """What a check in full has found."""

    state: ReconcileState
    added: int = 0
    note: str | None = None
    missing: int = 0
    missing_urls: Sequence[str] = ()
    completed: int | None = None
    total: int | None = None


async def claim_due(connection: AsyncConnection, quiet: timedelta) -> Claim | None:
    """A crawl to be checked now, for this process alone; those that have ended come first. None for none.

    One that goes on is compared in full once it was silent for `quiet`.
    """
    while True:
        now = datetime.now(UTC)
        found = (await connection.execute(_due(now))).one_or_none()
        if found is None:
            return None
        if await _lease(connection, found.crawl_id, now):
            silence = now - found.last_fact_at
            compared = found.checked_at and found.checked_at > now - max(quiet, silence / 2)
            silent = silence >= quiet and not compared
            return Claim(found.crawl_id, found.in_full or silent)


async def enrol_open_crawls(connection: AsyncConnection) -> None:
    """From now on those that go on are asked after; cheap where there is none that is not yet."""
    first_check_at = SESSIONS.c.created_at + FIRST_CHECK
    await _enrol(connection, first_check_at, SESSIONS.c.status == CrawlStatus.IN_PROGRESS)


async def enrol_all(connection: AsyncConnection) -> None:
    """Also crawls that ended while nobody asked Firecrawl."""
    await _enrol(connection, literal(datetime.now(UTC)))


async def compare_after_outage(connection: AsyncConnection) -> None:
    """Deliveries may have been lost of all crawls that go on, or were heard of lately."""
    await enrol_open_crawls(connection)
    now = datetime.now(UTC)
    concerned = and_(
        SESSIONS.c.crawl_id == CHECKS.c.crawl_id,
        or_(~CHECKS.c.settled, SESSIONS.c.last_fact_at > now - LATELY),
    )
    await connection.execute(update(CHECKS).where(concerned).values(in_full=True, next_check_at=now))


async def note_end(connection: AsyncConnection, crawl_id: str) -> None:
    """It was told to have ended: checked at once, unless it was since."""
    due = {"next_check_at": datetime.now(UTC)}
    source = select(SESSIONS.c.crawl_id, literal(ReconcileState.DUE), literal(due["next_check_at"])).where(
        SESSIONS.c.crawl_id == crawl_id, ~_is_builtin()
    )
    row = upsert(CHECKS).from_select(["crawl_id", "state", "next_check_at"], source)
    await connection.execute(
        row.on_conflict_do_update(index_elements=["crawl_id"], set_=due, where=~CHECKS.c.settled)
    )


async def note_news(connection: AsyncConnection, crawl_id: str) -> None:
    """Something came of a crawl that had ended, or was lost: more may have."""
    await connection.execute(
        update(CHECKS)
        .where(CHECKS.c.crawl_id == crawl_id)
        .values(settled=False, in_full=True, failures=0, next_check_at=datetime.now(UTC) + AFTER_THE_END)
    )


async def renew_lease(connection: AsyncConnection, crawl_id: str) -> None:
    """The check goes on."""
    leased = update(CHECKS).where(CHECKS.c.crawl_id == crawl_id)
    await connection.execute(leased.values(leased_until=datetime.now(UTC) + LEASE))


async def end_lease(connection: AsyncConnection, crawl_id: str) -> None:
    await connection.execute(update(CHECKS).where(CHECKS.c.crawl_id == crawl_id).values(leased_until=None))


async def note_running(
    connection: AsyncConnection, crawl_id: str, completed: int, total: int, took: timedelta
) -> None:
    """Writes down that Firecrawl says that it goes on; asking took so long."""
    await lock_session(connection, crawl_id)  # an end that is being told brings the next check forward
    now, before = datetime.now(UTC), await _row(connection, crawl_id)
    moved = before is None or (before.completed, before.total) != (completed, total)
    moved_at = now if before is None or moved else before.moved_at
    values = {
        "settled": False,
        "running_at": now,
        "completed": completed,
        "total": total,
        "moved_at": moved_at,
        "failures": 0,
        "error": None,
        "state": ReconcileState.RUNNING,
        "next_check_at": now + await _pause_while_open(connection, crawl_id, moved_at, took),
    }
    await _put(connection, crawl_id, values)


async def note_check(connection: AsyncConnection, crawl_id: str, found: Found, asked_at: datetime) -> None:
    """Writes down an answered check. What was delivered since `asked_at` may be of pages it did not see."""
    await lock_session(connection, crawl_id)  # deliveries under way are through, or will see it
    now, before = datetime.now(UTC), await _row(connection, crawl_id)
    if before and before.settled and found.state in FORGOTTEN:  # that it forgets takes nothing back
        await _put(connection, crawl_id, {"in_full": False, "next_check_at": None})
        return
    in_vain = found.state in (ReconcileState.INCOMPLETE, ReconcileState.UNKNOWN)
    failures = (before.failures if before else 0) + 1 if in_vain else 0
    settled = await _is_settled(connection, crawl_id, found, failures, asked_at, now)
    values: dict[str, Any] = {
        "state": found.state,
        "settled": settled,
        "checked_at": now,
        "failures": failures,
        "in_full": False,
        "missing": found.missing,
        "missing_urls": list(found.missing_urls[:MOST_URLS_NAMED]),
        "error": found.note,
    }
    if found.total is not None:
        moved = before is None or (before.completed, before.total) != (found.completed, found.total)
        values |= {"completed": found.completed, "total": found.total}
        values |= {"moved_at": now} if moved else {}
    if found.state is ReconcileState.RUNNING:
        values["running_at"] = now
    moved_at = values.get("moved_at") or (before.moved_at if before else None)
    values["next_check_at"] = None
    if not settled:
        pause = await _pause_while_open(connection, crawl_id, moved_at, now - asked_at)
        if found.state is ReconcileState.UNKNOWN:
            pause = max(pause, min(FIRST_CHECK * 2.0 ** min(failures, 20), LONGEST_PAUSE))
        values["next_check_at"] = now + pause
    await _put(connection, crawl_id, values)
    await connection.execute(
        update(CHECKS)
        .where(CHECKS.c.crawl_id == crawl_id)
        .values(checks=CHECKS.c.checks + 1, added=CHECKS.c.added + found.added)
    )


async def note_failure(
    connection: AsyncConnection, crawl_id: str, reason: str, retry_after_seconds: float | None
) -> None:
    """Writes down a check that got no answer: the next one waits longer, and as long as it was asked to."""
    before = await _row(connection, crawl_id)
    failures = before.failures if before else 0
    seconds = FIRST_PAUSE_SECONDS * 2.0 ** min(failures, 20)
    pause = min(timedelta(seconds=max(seconds, retry_after_seconds or 0)), LONGEST_PAUSE)
    values: dict[str, Any] = {"failures": failures + 1, "next_check_at": datetime.now(UTC) + pause}
    if before is None or not before.settled:  # what was found before still holds
        values |= {"state": ReconcileState.FAILING, "error": reason}
    await _put(connection, crawl_id, values)


def _due(now: datetime) -> Select[Any]:
    return (
        select(
            CHECKS.c.crawl_id,
            CHECKS.c.in_full,
            CHECKS.c.checked_at,
            SESSIONS.c.last_fact_at,
        )
        .join(SESSIONS, SESSIONS.c.crawl_id == CHECKS.c.crawl_id)
        .where(CHECKS.c.next_check_at <= now, _is_free(now), ~_is_builtin())
        .order_by(SESSIONS.c.status == CrawlStatus.IN_PROGRESS, CHECKS.c.next_check_at)
        .limit(1)
    )


async def _lease(connection: AsyncConnection, crawl_id: str, now: datetime) -> bool:
    """Whether this process got the check; another one may have found the crawl due in the same moment."""
    claim = (
        update(CHECKS)
        .where(CHECKS.c.crawl_id == crawl_id, CHECKS.c.next_check_at <= now, _is_free(now))
        .values(leased_until=now + LEASE)
        .returning(CHECKS.c.crawl_id)
    )
    return await connection.scalar(claim) is not None


def _is_free(now: datetime) -> ColumnElement[bool]:
    return or_(CHECKS.c.leased_until.is_(None), CHECKS.c.leased_until <= now)


def _is_builtin() -> ColumnElement[bool]:
    """Of a session's crawl: its own end is exact, there is nothing to compare it with."""
    return exists().where(REQUESTS.c.crawl_id == SESSIONS.c.crawl_id, REQUESTS.c.engine == Engine.BUILTIN)


async def _enrol(
    connection: AsyncConnection, first_check_at: ColumnElement[Any], *which: ColumnElement[bool]
) -> None:
    known = exists().where(CHECKS.c.crawl_id == SESSIONS.c.crawl_id)
    source = select(SESSIONS.c.crawl_id, literal(ReconcileState.DUE), first_check_at).where(
        *which, ~known, ~_is_builtin()
    )
    row = upsert(CHECKS).from_select(["crawl_id", "state", "next_check_at"], source)
    await connection.execute(row.on_conflict_do_nothing())


async def _is_settled(
    connection: AsyncConnection,
    crawl_id: str,
    found: Found,
    failures: int,
    asked_at: datetime,
    now: datetime,
) -> bool:
    """Whether nothing more can come of asking."""
    if not found.state.final or await _was_delivered_since(connection, crawl_id, asked_at):
        return False
    if found.state is ReconcileState.INCOMPLETE:
        return failures >= TRIES_OF_INCOMPLETE
    if found.state is ReconcileState.UNKNOWN:  # it can take a moment until a crawl that begins is known
        session = await _session(connection, crawl_id)
        return session.completed_at is not None or now - session.last_fact_at > timedelta(minutes=5)
    return True


async def _was_delivered_since(connection: AsyncConnection, crawl_id: str, moment: datetime) -> bool:
    delivered = select(DELIVERIES.c.id).where(
        DELIVERIES.c.crawl_id == crawl_id, DELIVERIES.c.received_at >= moment
    )
    return bool(await connection.scalar(select(delivered.exists())))


async def _pause_while_open(
    connection: AsyncConnection, crawl_id: str, moved_at: datetime | None, took: timedelta
) -> timedelta:
    """The longer it is silent the less often it is asked after; one that moves, as often as costs little."""
    now, session = datetime.now(UTC), await _session(connection, crawl_id)
    silence: timedelta = now - max(session.last_fact_at, moved_at or session.last_fact_at)
    if session.completed_at is not None:
        for_its_age: timedelta = min((now - session.completed_at) / 10, LONGEST_PAUSE_OF_ACTIVE)
        return min(max(silence / 2, for_its_age, took, AFTER_THE_END), LONGEST_PAUSE)
    for_its_size: timedelta = min((now - session.started_at) / 60, LONGEST_PAUSE_OF_ACTIVE)
    return min(max(silence / 10, for_its_size, took * 10, FIRST_CHECK), LONGEST_PAUSE)


async def _session(connection: AsyncConnection, crawl_id: str) -> Any:
    columns = (SESSIONS.c.started_at, SESSIONS.c.completed_at, SESSIONS.c.last_fact_at)
    return (await connection.execute(select(*columns).where(SESSIONS.c.crawl_id == crawl_id))).one()


async def _row(connection: AsyncConnection, crawl_id: str) -> Any:
    """None before the first check."""
    return (await connection.execute(select(*CHECKS.c).where(CHECKS.c.crawl_id == crawl_id))).one_or_none()


async def _put(connection: AsyncConnection, crawl_id: str, values: dict[str, Any]) -> None:
    await connection.execute(
        upsert(CHECKS)
        .values(crawl_id=crawl_id, **{"state": ReconcileState.DUE, **values})
        .on_conflict_do_update(index_elements=["crawl_id"], set_=values)
    )
