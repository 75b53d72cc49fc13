"""Whether a document is gone or outdated: the newest finding of all crawls counts.

A page of a crawl either brought content or answered 404 or 410; any other failure says nothing about the
document. A program brings content under the document's own URL. A finding is as old as its delivery, and
never newer than the end of its crawl: a late delivery neither restores a document, nor removes one, nor
replaces a newer one.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import Enum
from itertools import chain
from uuid import UUID

from sqlalchemy import and_, func, or_, select
from sqlalchemy.ext.asyncio import AsyncConnection

from crawlscope import models
from crawlscope.core.values import hash_key
from crawlscope.indexing.contents import CONTENTS
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


LATER_FINDINGS = """
    SELECT here.document,
        EXISTS (
            SELECT FROM webhook.pages AS page
            WHERE NOT page.delivered
                AND (page.status_code IN (404, 410) OR page.error_code IN ('http_404', 'http_410'))
                AND (page.document_key = here.document OR page.source_key IN (here.document, here.source))
        ) AS answered_gone,
        EXISTS (
            SELECT FROM webhook.pages AS page
            JOIN webhook.crawl_sessions AS session ON session.crawl_id = page.crawl_id
            WHERE page.document_key = here.document
                AND page.crawl_id <> here.crawl_id
                AND page.delivered
                AND page.state IN ('indexed', 'unchanged')
                AND least(page.received_at, session.completed_at) > least(found.received_at, own.completed_at)
        ) AS replaced
    FROM unnest(CAST(:documents AS uuid[]), CAST(:sources AS uuid[]), CAST(:crawl_ids AS text[]))
        AS here (document, source, crawl_id)
    LEFT JOIN webhook.pages AS found ON found.crawl_id = here.crawl_id AND found.source_key = here.source
    LEFT JOIN webhook.crawl_sessions AS own ON own.crawl_id = here.crawl_id
"""
"""A query: whether any crawl found a document gone (much cheaper than `gone_among`), and whether another one
found it later with the content that the index has.
"""


class Superseded(Enum):
    GONE = "gone"
    REPLACED = "replaced"


@dataclass(frozen=True)
class FoundPage:
    """A page of a crawl that led to a document."""

    url: str
    crawl_id: str
    source_url: str


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


async def gone_among(connection: AsyncConnection, urls: Iterable[str]) -> set[str]:
    """Those of the documents that are gone."""
    keys = {hash_key(url): url for url in urls}
    rows = await connection.execute(
        select(PAGES.c.document_key, PAGES.c.source_key, func.max(FOUND_AT).label("at"))
        .select_from(FINDINGS)
        .where(PAGES.c.document_key.in_(keys), PAGES.c.delivered)
        .group_by(PAGES.c.document_key, PAGES.c.source_key)
    )
    by_programs = await connection.execute(
        select(CONTENTS.c.key, CONTENTS.c.key, CONTENTS.c.stored_at).where(CONTENTS.c.key.in_(keys))
    )
    brought: dict[UUID, dict[UUID, datetime]] = {key: {} for key in keys}
    for document, source, at in (*rows, *by_programs):
        brought[document][source] = max(at, brought[document].get(source, at))
    about = {*keys, *chain.from_iterable(brought.values())}
    answers = await connection.execute(
        select(PAGES.c.source_key, PAGES.c.document_key, func.max(FOUND_AT).label("at"))
        .select_from(FINDINGS)
        .where(_ANSWERED_GONE, or_(PAGES.c.document_key.in_(keys), PAGES.c.source_key.in_(about)))
        .group_by(PAGES.c.source_key, PAGES.c.document_key)
    )
    gone = [GoneAnswer(*row) for row in answers]

    def concerns(answer: GoneAnswer, document: UUID) -> bool:
        return answer.document == document or answer.source in (document, *brought[document])

    return {
        url
        for key, url in keys.items()
        if is_outdated(key, brought[key], [each for each in gone if concerns(each, key)])
    }


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
