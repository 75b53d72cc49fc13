"""The SQL of reconciliations: the crawls to check, the time of the next check, and the result of the last
one."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, Row, and_, exists, literal, or_, select, update
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.ext.asyncio import AsyncConnection

from crawlscope import models
from crawlscope.core.backoff import backoff
from crawlscope.core.vocabulary import CrawlStatus, Engine, ReconcileState
from crawlscope.crawls.repository import REQUESTS
from crawlscope.sessions.changes import lock_session
from crawlscope.sessions.repository import SESSIONS, find_session, was_delivered_since

CHECKS = models.table_of(models.Reconciliation)

LEASE = timedelta(seconds=30)
"""Without a renewal for so long, another process may begin the check."""
FIRST_CHECK = timedelta(seconds=5)
"""From a crawl's first event to its first check; also the shortest delay while it runs."""
AFTER_THE_END = timedelta(seconds=2)
"""The delay before a crawl that has ended is checked again: the last pages can be missing for a moment."""
MAX_DELAY_OF_ACTIVE = timedelta(seconds=15)
MAX_DELAY = timedelta(hours=1)
FIRST_BACKOFF_SECONDS = 2.0
"""After a check without an answer."""
CHECKS_OF_INCOMPLETE = 4
"""Documents that Firecrawl has not returned by then never come."""
RECENT = timedelta(hours=1)
"""Crawls with an event since then are checked again after an outage, even if they had ended before."""
MAX_URLS_NAMED = 100
FORGOTTEN = (ReconcileState.EXPIRED, ReconcileState.UNKNOWN)


@dataclass(frozen=True)
class Claim:
    """A check that this process is to make."""

    crawl_id: str
    in_full: bool
    """Whether its pages are compared even if it still runs."""


@dataclass(frozen=True)
class Found:
    """The result of a full comparison."""

    state: ReconcileState
    added: int = 0
    note: str | None = None
    missing: int = 0
    missing_urls: Sequence[str] = ()
    completed: int | None = None
    total: int | None = None


async def claim_due(connection: AsyncConnection, quiet: timedelta) -> Claim | None:
    """A crawl to be checked now, for this process alone; those that have ended come first. None for none.

    One that runs is compared in full once it was silent for `quiet`.
    """
    while True:
        now = datetime.now(UTC)
        is_due = CHECKS.c.next_check_at <= now
        is_free = or_(CHECKS.c.leased_until.is_(None), CHECKS.c.leased_until <= now)
        due = (
            select(CHECKS.c.crawl_id, CHECKS.c.in_full, CHECKS.c.checked_at, SESSIONS.c.last_fact_at)
            .join(SESSIONS, SESSIONS.c.crawl_id == CHECKS.c.crawl_id)
            .where(is_due, is_free, ~_is_builtin())
            .order_by(SESSIONS.c.status == CrawlStatus.IN_PROGRESS, CHECKS.c.next_check_at)
            .limit(1)
        )
        found = (await connection.execute(due)).one_or_none()
        if found is None:
            return None
        lease = (
            update(CHECKS)
            .where(CHECKS.c.crawl_id == found.crawl_id, is_due, is_free)
            .values(leased_until=now + LEASE)
            .returning(CHECKS.c.crawl_id)
        )
        if await connection.scalar(lease):  # else another process has claimed it in the same moment
            silence = now - found.last_fact_at
            compared = found.checked_at and found.checked_at > now - max(quiet, silence / 2)
            silent = silence >= quiet and not compared
            return Claim(found.crawl_id, found.in_full or silent)


async def enrol_open_crawls(connection: AsyncConnection) -> None:
    """Crawls that run are checked from now on. Cheap if all are enrolled already."""
    first_check_at = SESSIONS.c.created_at + FIRST_CHECK
    await _enrol(connection, first_check_at, SESSIONS.c.status == CrawlStatus.IN_PROGRESS)


async def enrol_all(connection: AsyncConnection) -> None:
    """Crawls that ended while no process ran are checked, too."""
    await _enrol(connection, literal(datetime.now(UTC)))


async def compare_after_outage(connection: AsyncConnection) -> None:
    """Checks all crawls that run or had a recent event: they may have lost deliveries."""
    await enrol_open_crawls(connection)
    now = datetime.now(UTC)
    concerned = and_(
        SESSIONS.c.crawl_id == CHECKS.c.crawl_id,
        or_(~CHECKS.c.settled, SESSIONS.c.last_fact_at > now - RECENT),
    )
    await connection.execute(update(CHECKS).where(concerned).values(in_full=True, next_check_at=now))


async def note_end(connection: AsyncConnection, crawl_id: str) -> None:
    """A delivery or a cancel ended the crawl: it is checked at once, unless it was since."""
    due = {"next_check_at": datetime.now(UTC)}
    source = select(SESSIONS.c.crawl_id, literal(ReconcileState.DUE), literal(due["next_check_at"])).where(
        SESSIONS.c.crawl_id == crawl_id, ~_is_builtin()
    )
    row = upsert(CHECKS).from_select(["crawl_id", "state", "next_check_at"], source)
    await connection.execute(
        row.on_conflict_do_update(index_elements=["crawl_id"], set_=due, where=~CHECKS.c.settled)
    )


async def note_news(connection: AsyncConnection, crawl_id: str) -> None:
    """A delivery came after the crawl's end, or was lost: the crawl is compared once more."""
    await connection.execute(
        update(CHECKS)
        .where(CHECKS.c.crawl_id == crawl_id)
        .values(settled=False, in_full=True, failures=0, next_check_at=datetime.now(UTC) + AFTER_THE_END)
    )


async def renew_lease(connection: AsyncConnection, crawl_id: str) -> None:
    """The check is still in progress."""
    leased = update(CHECKS).where(CHECKS.c.crawl_id == crawl_id)
    await connection.execute(leased.values(leased_until=datetime.now(UTC) + LEASE))


async def end_lease(connection: AsyncConnection, crawl_id: str) -> None:
    await connection.execute(update(CHECKS).where(CHECKS.c.crawl_id == crawl_id).values(leased_until=None))


async def last_running_at(connection: AsyncConnection, crawl_id: str) -> datetime | None:
    """When Firecrawl last said that the crawl runs."""
    return await connection.scalar(select(CHECKS.c.running_at).where(CHECKS.c.crawl_id == crawl_id))


async def note_running(
    connection: AsyncConnection, crawl_id: str, completed: int, total: int, took: timedelta
) -> None:
    """Firecrawl says that the crawl runs; `took` is how long asking took."""
    await lock_session(connection, crawl_id)  # a concurrent end of the crawl brings the next check forward
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
        "next_check_at": now + await _delay_while_open(connection, crawl_id, moved_at, took),
    }
    await _put(connection, crawl_id, values)


async def note_check(connection: AsyncConnection, crawl_id: str, found: Found, asked_at: datetime) -> None:
    """Keeps the result of a check. Deliveries since `asked_at` may be of pages that it did not see."""
    await lock_session(connection, crawl_id)  # concurrent deliveries are committed, or will see it
    now, before = datetime.now(UTC), await _row(connection, crawl_id)
    if before and before.settled and found.state in FORGOTTEN:  # that it forgets takes nothing back
        await _put(connection, crawl_id, {"in_full": False, "next_check_at": None})
        return
    failed = found.state in (ReconcileState.INCOMPLETE, ReconcileState.UNKNOWN)
    failures = (before.failures if before else 0) + 1 if failed else 0
    settled = await _is_done(connection, crawl_id, found, failures, asked_at, now)
    values: dict[str, Any] = {
        "state": found.state,
        "settled": settled,
        "checked_at": now,
        "failures": failures,
        "in_full": False,
        "missing": found.missing,
        "missing_urls": list(found.missing_urls[:MAX_URLS_NAMED]),
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
        delay = await _delay_while_open(connection, crawl_id, moved_at, now - asked_at)
        if found.state is ReconcileState.UNKNOWN:
            delay = max(delay, _backoff(failures, FIRST_CHECK.total_seconds() * 2))
        values["next_check_at"] = now + delay
    await _put(connection, crawl_id, values)
    await connection.execute(
        update(CHECKS)
        .where(CHECKS.c.crawl_id == crawl_id)
        .values(checks=CHECKS.c.checks + 1, added=CHECKS.c.added + found.added)
    )


async def note_failure(
    connection: AsyncConnection, crawl_id: str, reason: str, retry_after_seconds: float | None
) -> None:
    """A check got no answer: the next one waits longer, and at least as long as Firecrawl asked for."""
    before = await _row(connection, crawl_id)
    failures = (before.failures if before else 0) + 1
    asked_for = timedelta(seconds=retry_after_seconds or 0)
    delay = min(max(_backoff(failures, FIRST_BACKOFF_SECONDS), asked_for), MAX_DELAY)
    values: dict[str, Any] = {"failures": failures, "next_check_at": datetime.now(UTC) + delay}
    if before is None or not before.settled:  # what was found before still holds
        values |= {"state": ReconcileState.FAILING, "error": reason}
    await _put(connection, crawl_id, values)


def _is_builtin() -> ColumnElement[bool]:
    """Whether the built-in crawler runs a session's crawl: its end is exact and needs no comparison."""
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


async def _is_done(
    connection: AsyncConnection,
    crawl_id: str,
    found: Found,
    failures: int,
    asked_at: datetime,
    now: datetime,
) -> bool:
    """Whether further checks can bring nothing more."""
    if not found.state.final or await was_delivered_since(connection, crawl_id, asked_at):
        return False
    if found.state is ReconcileState.INCOMPLETE:
        return failures >= CHECKS_OF_INCOMPLETE
    if found.state is ReconcileState.UNKNOWN:  # it can take a moment until a crawl that begins is known
        session = await _session(connection, crawl_id)
        return session.completed_at is not None or now - session.last_fact_at > timedelta(minutes=5)
    return True


def _backoff(failures: int, first_seconds: float) -> timedelta:
    seconds = backoff(failures, first_seconds=first_seconds, max_seconds=MAX_DELAY.total_seconds())
    return timedelta(seconds=seconds)


async def _delay_while_open(
    connection: AsyncConnection, crawl_id: str, moved_at: datetime | None, took: timedelta
) -> timedelta:
    """A silent crawl is checked less and less often, one that progresses as often as is cheap."""
    now, session = datetime.now(UTC), await _session(connection, crawl_id)
    silence: timedelta = now - max(session.last_fact_at, moved_at or session.last_fact_at)
    if session.completed_at is not None:
        for_its_age: timedelta = min((now - session.completed_at) / 10, MAX_DELAY_OF_ACTIVE)
        return min(max(silence / 2, for_its_age, took, AFTER_THE_END), MAX_DELAY)
    for_its_size: timedelta = min((now - session.started_at) / 60, MAX_DELAY_OF_ACTIVE)
    return min(max(silence / 10, for_its_size, took * 10, FIRST_CHECK), MAX_DELAY)


async def _session(connection: AsyncConnection, crawl_id: str) -> Row[*tuple[Any, ...]]:
    session = await find_session(connection, crawl_id)
    assert session is not None, "the caller has locked the session"
    return session


async def _row(connection: AsyncConnection, crawl_id: str) -> Any:
    """None before the first check."""
    return (await connection.execute(select(*CHECKS.c).where(CHECKS.c.crawl_id == crawl_id))).one_or_none()


async def _put(connection: AsyncConnection, crawl_id: str, values: dict[str, Any]) -> None:
    await connection.execute(
        upsert(CHECKS)
        .values(crawl_id=crawl_id, **{"state": ReconcileState.DUE, **values})
        .on_conflict_do_update(index_elements=["crawl_id"], set_=values)
    )
