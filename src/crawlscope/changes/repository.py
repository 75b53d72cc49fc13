"""The SQL of changes that a watcher saw: taken in, fetched again, searchable."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import and_, case, exists, func, insert, or_, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from crawlscope import models
from crawlscope.core.vocabulary import CrawlStatus, PageState, RescrapeStatus
from crawlscope.pages.repository import PAGES
from crawlscope.sessions.repository import SESSIONS

EVENTS = models.table_of(models.ChangeEvent)

LEASE = timedelta(minutes=2)
"""How long asking Firecrawl may take before another process may do it."""
LATE_PAGE = timedelta(minutes=1)
"""Crawlers tell the end before the page, too."""
SAME_WITHIN = timedelta(minutes=5)
"""Notifications that say the same, and not when, are one within this time."""


@dataclass(frozen=True)
class KnownChange:
    id: UUID
    crawl_id: str | None
    status: str | None


@dataclass(frozen=True)
class WaitingChange:
    id: UUID
    url: str


async def same_change(connection: AsyncConnection, identity: UUID, dated: bool) -> KnownChange | None:
    """What was taken in of it before; others that ask for the same wait until the commit."""
    await connection.execute(select(func.pg_advisory_xact_lock(identity.int % 2**63)))
    known = select(EVENTS.c.id, EVENTS.c.rescrape_job_id, EVENTS.c.rescrape_status).where(
        EVENTS.c.identity == identity
    )
    if not dated:
        known = known.where(EVENTS.c.created_at > datetime.now(UTC) - SAME_WITHIN)
    row = (await connection.execute(known.limit(1))).one_or_none()
    return KnownChange(*row) if row else None


async def record_change(connection: AsyncConnection, values: dict[str, Any]) -> UUID:
    entered = await connection.execute(insert(EVENTS).values(values).returning(EVENTS.c.id))
    change_id: UUID = entered.scalar_one()
    return change_id


async def claim_waiting(connection: AsyncConnection) -> WaitingChange | None:
    """A change whose page is to be fetched, for this process alone."""
    now = datetime.now(UTC)
    waiting = (
        select(EVENTS.c.id)
        .where(EVENTS.c.rescrape_status == RescrapeStatus.WAITING, EVENTS.c.next_try_at <= now)
        .order_by(EVENTS.c.next_try_at)
        .limit(1)
        .with_for_update(skip_locked=True)
        .scalar_subquery()
    )
    claimed = await connection.execute(
        update(EVENTS)
        .where(EVENTS.c.id == waiting)
        .values(next_try_at=now + LEASE)
        .returning(EVENTS.c.id, EVENTS.c.watch_url)
    )
    row = claimed.one_or_none()
    return WaitingChange(*row) if row else None


async def note_started(connection: AsyncConnection, change_id: UUID, crawl_id: str) -> None:
    running = {"rescrape_status": RescrapeStatus.RUNNING, "rescrape_job_id": crawl_id}
    await _set(connection, change_id, {**running, "rescrape_error": None})


async def note_deferred(connection: AsyncConnection, change_id: UUID, reason: str, delay: timedelta) -> None:
    await _set(connection, change_id, {"rescrape_error": reason, "next_try_at": datetime.now(UTC) + delay})


async def note_failed(connection: AsyncConnection, change_id: UUID, reason: str) -> None:
    await _set(connection, change_id, {"rescrape_status": PageState.FAILED, "rescrape_error": reason})


async def settle_changes(connection: AsyncConnection) -> int:
    """Writes down what became of the pages that were fetched again; returns of how many."""
    settled = 0
    for statement in (_with_their_page(), _without_a_page(), _whose_crawl_is_gone()):
        settled += (await connection.execute(statement)).rowcount
    return settled


def _with_their_page() -> Any:
    """A page that failed may still succeed when it is tried again."""
    searchable = PAGES.c.state.in_([PageState.INDEXED, PageState.UNCHANGED])
    failed = EVENTS.c.rescrape_status == PageState.FAILED
    return (
        update(EVENTS)
        .where(
            or_(_RUNNING, and_(failed, searchable)),
            PAGES.c.crawl_id == EVENTS.c.rescrape_job_id,
            PAGES.c.settled_at.is_not(None),
        )
        .values(
            rescrape_status=PAGES.c.state,
            rescrape_error=PAGES.c.error,
            indexed_at=case((searchable, PAGES.c.settled_at)),
        )
    )


def _without_a_page() -> Any:
    has_page = exists().where(PAGES.c.crawl_id == SESSIONS.c.crawl_id)
    cancelled = SESSIONS.c.status == CrawlStatus.CANCELLED
    return (
        update(EVENTS)
        .where(
            _RUNNING,
            SESSIONS.c.crawl_id == EVENTS.c.rescrape_job_id,
            SESSIONS.c.completed_at.is_not(None),
            or_(
                SESSIONS.c.status != CrawlStatus.COMPLETED,
                SESSIONS.c.last_fact_at < datetime.now(UTC) - LATE_PAGE,
            ),
            ~has_page,
        )
        .values(
            rescrape_status=case((cancelled, PageState.CANCELLED), else_=PageState.FAILED),
            rescrape_error=func.coalesce(SESSIONS.c.error_message, "the crawl ended without the page"),
        )
    )


def _whose_crawl_is_gone() -> Any:
    return (
        update(EVENTS)
        .where(_RUNNING, ~exists().where(SESSIONS.c.crawl_id == EVENTS.c.rescrape_job_id))
        .values(rescrape_status=PageState.CANCELLED, rescrape_error="the crawl was deleted")
    )


_RUNNING = EVENTS.c.rescrape_status == RescrapeStatus.RUNNING


async def _set(connection: AsyncConnection, change_id: UUID, values: dict[str, Any]) -> None:
    await connection.execute(update(EVENTS).where(EVENTS.c.id == change_id).values(values))
