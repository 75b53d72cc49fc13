"""Whether a document is gone or outdated: the newest finding of all crawls counts.

A page of a crawl either brought content or answered 404 or 410; any other failure says nothing about the
document. A finding is as old as its delivery, and never newer than the end of its crawl: a late delivery
neither restores a document, nor removes one, nor replaces a newer one.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from sqlalchemy import ColumnElement, and_, func, or_, select
from sqlalchemy.ext.asyncio import AsyncConnection

from crawlscope import models
from crawlscope.core.values import hash_key
from crawlscope.core.vocabulary import PageState
from crawlscope.sessions.repository import SESSIONS

PAGES = models.table_of(models.Page)
GONE_STATUSES = (404, 410)
GONE_CODES = tuple(f"http_{status}" for status in GONE_STATUSES)
_ANSWERED_GONE = and_(
    ~PAGES.c.delivered,
    or_(
        PAGES.c.status_code.in_(GONE_STATUSES),
        PAGES.c.error_code.in_(GONE_CODES),
    ),
)
FINDINGS = PAGES.join(SESSIONS, SESSIONS.c.crawl_id == PAGES.c.crawl_id)
FOUND_AT = func.least(PAGES.c.received_at, SESSIONS.c.completed_at)
"""The time of a finding, in a select from `FINDINGS`."""


@dataclass(frozen=True)
class GoneAnswer:
    """A source URL led to a page that is gone; `at` is when a crawl found that last."""

    source: UUID
    document: UUID
    at: datetime


def is_outdated(document: UUID, brought: Mapping[UUID, datetime], gone: Iterable[GoneAnswer]) -> bool:
    """Whether the document left its site. `brought` has the time of the last content for each source URL.

    A document stays while one source leads to it and no newer finding says that this source, or the
    document itself, is gone.
    """
    gone = list(gone)

    def still_leads(source: UUID, at: datetime) -> bool:
        about = (document, source)
        return not any(each.at > at and (each.document == document or each.source in about) for each in gone)

    return bool(gone) and not any(still_leads(source, at) for source, at in brought.items())


async def is_gone(connection: AsyncConnection, url: str) -> bool:
    document = hash_key(url)
    rows = await connection.execute(
        select(PAGES.c.source_key, func.max(FOUND_AT).label("at"))
        .select_from(FINDINGS)
        .where(PAGES.c.document_key == document, PAGES.c.delivered)
        .group_by(PAGES.c.source_key)
    )
    brought = {row.source_key: row.at for row in rows}
    gone = await connection.execute(
        select(PAGES.c.source_key, PAGES.c.document_key, func.max(FOUND_AT).label("at"))
        .select_from(FINDINGS)
        .where(_about(document, *brought))
        .group_by(PAGES.c.source_key, PAGES.c.document_key)
    )
    return is_outdated(document, brought, [GoneAnswer(*row) for row in gone])


async def has_newer(connection: AsyncConnection, url: str, crawl_id: str, source_url: str) -> bool:
    """Whether another crawl found the document later than this one, and the index has that content."""
    here = select(FOUND_AT).select_from(FINDINGS)
    here = here.where(PAGES.c.crawl_id == crawl_id, PAGES.c.source_key == hash_key(source_url))
    newer = (
        select(PAGES.c.id)
        .select_from(FINDINGS)
        .where(
            PAGES.c.document_key == hash_key(url),
            PAGES.c.crawl_id != crawl_id,
            PAGES.c.delivered,
            PAGES.c.state.in_([PageState.INDEXED, PageState.UNCHANGED]),
            here.scalar_subquery() < FOUND_AT,
        )
        .limit(1)
    )
    return await connection.scalar(newer) is not None


async def may_be_gone(connection: AsyncConnection, url: str, source_url: str) -> bool:
    """Whether any crawl found a page of the document gone; much cheaper than `is_gone`."""
    gone = select(PAGES.c.id).where(_about(hash_key(url), hash_key(source_url))).limit(1)
    return await connection.scalar(gone) is not None


async def documents_of_gone(connection: AsyncConnection, page_id: int) -> list[str]:
    """URLs of documents that may be gone with this page: its own, and those that its source led to before."""
    page = (
        await connection.execute(
            select(PAGES.c.source_key, PAGES.c.source_url, PAGES.c.url).where(
                PAGES.c.id == page_id, _ANSWERED_GONE
            )
        )
    ).one_or_none()
    if page is None:
        return []
    before = select(PAGES.c.url).where(PAGES.c.source_key == page.source_key, PAGES.c.delivered).distinct()
    return [*{page.source_url, page.url, *await connection.scalars(before)}]


def _about(document: UUID, *sources: UUID) -> ColumnElement[bool]:
    about = or_(PAGES.c.document_key == document, PAGES.c.source_key.in_({document, *sources}))
    return and_(_ANSWERED_GONE, about)
