"""Which pages of a crawl have no watch yet."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from uuid import UUID

from sqlalchemy import ARRAY, ColumnElement, Uuid, all_, and_, any_, func, literal, or_, select
from sqlalchemy.ext.asyncio import AsyncConnection

from crawlscope import models
from crawlscope.core.values import hash_key
from crawlscope.core.vocabulary import PageState

PAGES = models.table_of(models.Page)
SEARCHABLE = (PageState.INDEXED, PageState.UNCHANGED)


@dataclass(frozen=True)
class SearchablePage:
    url: str
    title: str | None


@dataclass(frozen=True)
class PagesToWatch:
    """Of the crawl's searchable pages; several sources that led to one URL are one page."""

    known: int
    """Those that are watched already."""
    without: Sequence[SearchablePage]
    """Those that are not, in the order in which the crawl came upon them."""
    beyond: int
    """How many more of them there are than the limit."""
    not_searchable: Sequence[str]
    """What was named and is no searchable page of the crawl."""


async def pages_to_watch(
    connection: AsyncConnection,
    crawl_id: str,
    watched: Collection[str],
    limit: int,
    urls: Sequence[str] | None = None,
) -> PagesToWatch:
    """`urls` are the pages' own or their sources; all searchable pages without them."""
    pages = _searchable(crawl_id, urls)
    all_of_them = await _count(connection, pages)
    missing = and_(pages, PAGES.c.document_key != all_(_keys(watched)))
    without = await _count(connection, missing)
    found = await _first(connection, missing, limit)
    return PagesToWatch(
        known=all_of_them - without,
        without=found,
        beyond=without - len(found),
        not_searchable=await _not_among(connection, pages, urls or ()),
    )


def _searchable(crawl_id: str, urls: Sequence[str] | None) -> ColumnElement[bool]:
    pages = and_(PAGES.c.crawl_id == crawl_id, PAGES.c.state.in_(SEARCHABLE))
    if urls is None:
        return pages
    named = any_(_keys(urls))
    return and_(pages, or_(PAGES.c.document_key == named, PAGES.c.source_key == named))


def _keys(urls: Collection[str]) -> ColumnElement[Sequence[UUID]]:
    """One parameter, however many they are."""
    return literal([hash_key(url) for url in urls], ARRAY(Uuid()))


async def _count(connection: AsyncConnection, pages: ColumnElement[bool]) -> int:
    counted = await connection.execute(select(func.count(PAGES.c.document_key.distinct())).where(pages))
    return counted.scalar_one()


async def _first(
    connection: AsyncConnection, pages: ColumnElement[bool], limit: int
) -> Sequence[SearchablePage]:
    first = func.min(PAGES.c.id)
    ids = select(first).where(pages).group_by(PAGES.c.document_key).order_by(first).limit(limit)
    rows = await connection.execute(
        select(PAGES.c.url, PAGES.c.title).where(PAGES.c.id.in_(ids)).order_by(PAGES.c.id)
    )
    return [SearchablePage(row.url, row.title) for row in rows]


async def _not_among(
    connection: AsyncConnection, pages: ColumnElement[bool], urls: Sequence[str]
) -> Sequence[str]:
    if not urls:
        return []
    rows = (await connection.execute(select(PAGES.c.document_key, PAGES.c.source_key).where(pages))).all()
    found = {key for row in rows for key in row}
    return [url for url in dict.fromkeys(urls) if hash_key(url) not in found]
