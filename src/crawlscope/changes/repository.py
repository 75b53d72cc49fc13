"""The SQL of changes: their records, their rescrapes, and the pages of a crawl that have no watch yet."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import (
    ARRAY,
    ColumnElement,
    Uuid,
    all_,
    and_,
    any_,
    case,
    exists,
    func,
    insert,
    literal,
    or_,
    select,
    update,
)
from sqlalchemy.ext.asyncio import AsyncConnection

from crawlscope import models
from crawlscope.core.values import hash_key
from crawlscope.core.vocabulary import CrawlStatus, PageState, RescrapeStatus
from crawlscope.database.queue import CHANGED_PAGES, notify
from crawlscope.pages.repository import PAGES
from crawlscope.sessions.repository import SESSIONS

EVENTS = models.table_of(models.ChangeEvent)
SEARCHABLE = (PageState.INDEXED, PageState.UNCHANGED)
_ANY_OPEN = select(
    exists().where(
        EVENTS.c.rescrape_status.in_([RescrapeStatus.WAITING, RescrapeStatus.RUNNING, PageState.FAILED])
    )
)

LEASE = timedelta(minutes=2)
"""How long asking Firecrawl may take before another process may ask."""
LATE_PAGE = timedelta(minutes=1)
"""A crawler's end can arrive before its page."""
SAME_WITHIN = timedelta(minutes=5)
"""Equal notifications without a time are one change within this time."""


@dataclass(frozen=True)
class KnownChange:
    id: UUID
    crawl_id: str | None
    status: str | None


@dataclass(frozen=True)
class WaitingChange:
    id: UUID
    url: str


@dataclass(frozen=True)
class SearchablePage:
    url: str
    title: str | None


@dataclass(frozen=True)
class PagesToWatch:
    """The crawl's searchable pages. Several source URLs that led to one URL are one page."""

    known: int
    """Pages that are watched already."""
    without: Sequence[SearchablePage]
    """Pages that are not, in the order in which the crawl found them."""
    beyond: int
    """How many more of these there are than the limit."""
    not_searchable: Sequence[str]
    """Named URLs that are no searchable page of the crawl."""


async def same_change(connection: AsyncConnection, identity: UUID, dated: bool) -> KnownChange | None:
    """Its earlier record. Other transactions with the same change wait until the commit."""
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
    await notify(connection, CHANGED_PAGES)
    change_id: UUID = entered.scalar_one()
    return change_id


async def any_open(connection: AsyncConnection) -> bool:
    """Whether a change may have to be claimed or settled: one statement for most times, not four."""
    return bool(await connection.scalar(_ANY_OPEN))


async def claim_waiting(connection: AsyncConnection) -> WaitingChange | None:
    """A change whose page is to be fetched now, for this process alone."""
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
    """Records the outcomes of rescrapes; returns how many."""
    running = EVENTS.c.rescrape_status == RescrapeStatus.RUNNING
    failed = EVENTS.c.rescrape_status == PageState.FAILED
    searchable = PAGES.c.state.in_(SEARCHABLE)
    with_page = (  # a page that failed may still succeed when it is retried
        update(EVENTS)
        .where(
            or_(running, and_(failed, searchable)),
            PAGES.c.crawl_id == EVENTS.c.rescrape_job_id,
            PAGES.c.settled_at.is_not(None),
        )
        .values(
            rescrape_status=PAGES.c.state,
            rescrape_error=PAGES.c.error,
            indexed_at=case((searchable, PAGES.c.settled_at)),
        )
    )
    cancelled = SESSIONS.c.status == CrawlStatus.CANCELLED
    no_page_comes = or_(
        SESSIONS.c.status != CrawlStatus.COMPLETED, SESSIONS.c.last_fact_at < datetime.now(UTC) - LATE_PAGE
    )
    without_page = (
        update(EVENTS)
        .where(
            running,
            SESSIONS.c.crawl_id == EVENTS.c.rescrape_job_id,
            SESSIONS.c.completed_at.is_not(None),
            no_page_comes,
            ~exists().where(PAGES.c.crawl_id == SESSIONS.c.crawl_id),
        )
        .values(
            rescrape_status=case((cancelled, PageState.CANCELLED), else_=PageState.FAILED),
            rescrape_error=func.coalesce(SESSIONS.c.error_message, "the crawl ended without the page"),
        )
    )
    deleted = (
        update(EVENTS)
        .where(running, ~exists().where(SESSIONS.c.crawl_id == EVENTS.c.rescrape_job_id))
        .values(rescrape_status=PageState.CANCELLED, rescrape_error="the crawl was deleted")
    )
    settled = 0
    for statement in (with_page, without_page, deleted):
        settled += (await connection.execute(statement)).rowcount
    return settled


async def pages_to_watch(
    connection: AsyncConnection,
    crawl_id: str,
    watched: Collection[str],
    limit: int,
    urls: Sequence[str] | None = None,
) -> PagesToWatch:
    """`urls` are the pages' own or their sources; all searchable pages without them."""
    pages = and_(PAGES.c.crawl_id == crawl_id, PAGES.c.state.in_(SEARCHABLE))
    if urls is not None:
        named = any_(_keys(urls))
        pages = and_(pages, or_(PAGES.c.document_key == named, PAGES.c.source_key == named))
    is_missing = (PAGES.c.document_key != all_(_keys(watched))).label("is_missing")
    number = func.count(PAGES.c.document_key.distinct())
    counted = await connection.execute(select(is_missing, number).where(pages).group_by("is_missing"))
    counts = {row[0]: row[1] for row in counted}
    first = func.min(PAGES.c.id)
    ids = select(first).where(pages, is_missing).group_by(PAGES.c.document_key).order_by(first).limit(limit)
    found = await connection.execute(
        select(PAGES.c.url, PAGES.c.title).where(PAGES.c.id.in_(ids)).order_by(PAGES.c.id)
    )
    without = [SearchablePage(row.url, row.title) for row in found]
    keys = select(PAGES.c.document_key, PAGES.c.source_key).where(pages)
    known = {key for row in await connection.execute(keys) for key in row} if urls else set()
    return PagesToWatch(
        known=counts.get(False, 0),
        without=without,
        beyond=counts.get(True, 0) - len(without),
        not_searchable=[url for url in dict.fromkeys(urls or ()) if hash_key(url) not in known],
    )


def _keys(urls: Collection[str]) -> ColumnElement[Sequence[UUID]]:
    """One parameter, however many they are."""
    return literal([hash_key(url) for url in urls], ARRAY(Uuid()))


async def _set(connection: AsyncConnection, change_id: UUID, values: dict[str, Any]) -> None:
    await connection.execute(update(EVENTS).where(EVENTS.c.id == change_id).values(values))
