"""Failed pages tried again: what was received is indexed anew, the rest only a crawler can bring."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from sqlalchemy import ARRAY, Row, Uuid, any_, cast, or_, select
from sqlalchemy.ext.asyncio import AsyncConnection

from crawlscope.core.values import hash_key, storable
from crawlscope.core.vocabulary import NotRetried, PageState
from crawlscope.pages.page_rows import LOCK_ORDER, PAGES
from crawlscope.pages.pages import requeue_failed
from crawlscope.sessions.store import SESSIONS, keep_action, require_session


@dataclass(frozen=True)
class LeftPage:
    url: str
    reason: NotRetried
    error_code: str | None = None
    error: str | None = None


@dataclass(frozen=True)
class Retry:
    """What trying again comes to."""

    queued: int = 0
    left: Sequence[LeftPage] = field(default_factory=list)
    """Pages that are not indexed anew, by URL."""
    failures_without_url: int = 0

    @property
    def to_scrape(self) -> list[str]:
        """Of those, the ones that their crawler can be asked for."""
        return [page.url for page in self.left if page.reason.can_be_scraped]


async def retry_pages(connection: AsyncConnection, crawl_id: str, urls: Sequence[str] | None = None) -> Retry:
    """Queues the crawl's failed pages whose content is known: all, or those of `urls`, which name them by
    source URL or by where that led. Raises `NotFoundError`.
    """
    crawl_id = storable(crawl_id)
    await require_session(connection, crawl_id)
    rows = await _asked_for(connection, crawl_id, urls)
    again = [row.source_url for row in rows if _can_be_indexed(row)]
    queued = await requeue_failed(connection, crawl_id, again) if again else 0
    nameless = select(SESSIONS.c.failures_without_url).where(SESSIONS.c.crawl_id == crawl_id)
    without_url = await connection.scalar(nameless) if urls is None else 0
    return Retry(queued, _left_of(rows, urls), without_url or 0)


async def pages_to_scrape(
    connection: AsyncConnection, crawl_id: str, urls: Sequence[str] | None = None
) -> list[str]:
    """The source URLs that `retry_pages` leaves to the crawler. Raises `NotFoundError`."""
    crawl_id = storable(crawl_id)
    await require_session(connection, crawl_id)
    return Retry(left=_left_of(await _asked_for(connection, crawl_id, urls), urls)).to_scrape


async def note_rescrape(connection: AsyncConnection, crawl_id: str, rescrape_id: str, pages: int) -> None:
    """Keeps that pages of the crawl are fetched again, and by which crawl. Raises `NotFoundError`."""
    crawl_id = storable(crawl_id)
    await require_session(connection, crawl_id)
    details = {"crawl_id": rescrape_id, "pages": pages}
    await keep_action(connection, crawl_id, datetime.now(UTC), "rescrape", **details)


async def _asked_for(
    connection: AsyncConnection, crawl_id: str, urls: Sequence[str] | None
) -> Sequence[Row[Any]]:
    """Locked until the commit."""
    columns = ("source_key", "document_key", "source_url", "state", "delivered", "error_code", "error")
    pages = select(*(PAGES.c[name] for name in columns)).where(PAGES.c.crawl_id == crawl_id)
    if urls is None:
        pages = pages.where(PAGES.c.state == PageState.FAILED)
    else:
        keys = any_(cast(list(_keys(urls)), ARRAY(Uuid)))
        pages = pages.where(or_(PAGES.c.source_key == keys, PAGES.c.document_key == keys))
    return (await connection.execute(pages.order_by(LOCK_ORDER).with_for_update())).all()


def _can_be_indexed(row: Row[Any]) -> bool:
    return row.state == PageState.FAILED and bool(row.delivered)


def _left_of(rows: Sequence[Row[Any]], urls: Sequence[str] | None) -> list[LeftPage]:
    known = {row.source_key for row in rows} | {row.document_key for row in rows}
    unknown = [
        LeftPage(url, NotRetried.UNKNOWN) for key, url in _keys(urls or ()).items() if key not in known
    ]
    return [_left(row) for row in rows if not _can_be_indexed(row)] + unknown


def _left(row: Row[Any]) -> LeftPage:
    match PageState(row.state):
        case PageState.FAILED:
            reason = NotRetried.NOT_RECEIVED
        case PageState.CANCELLED:
            reason = NotRetried.DROPPED
        case state if not state.settled:
            reason = NotRetried.PENDING
        case _:
            reason = NotRetried.NOT_FAILED
    return LeftPage(row.source_url, reason, row.error_code, row.error)


def _keys(urls: Sequence[str]) -> dict[UUID, str]:
    return {hash_key(url): url for url in map(storable, urls)}
