"""The SQL of documents: what each index holds under each URL, and which crawls found it."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from sqlalchemy import and_, delete, exists, func, select, update
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.ext.asyncio import AsyncConnection

from crawlscope import models
from crawlscope.core.values import hash_key

FINDERS = models.table_of(models.DocumentCrawl)
DOCUMENTS = models.table_of(models.Document)
GENERATIONS = models.table_of(models.IndexGeneration)
PAGES = models.table_of(models.Page)
NOT_MADE = 0
"""A revision that no document has: what was made of it is to be made again."""


@dataclass(frozen=True)
class KnownDocument:
    content_hash: str
    fingerprint: str
    chunks: int
    crawl_id: str | None
    """The crawl that brought the content."""
    revision: int = 1
    error: str | None = None

    def holds(self, content_hash: str, fingerprint: str) -> bool:
        return (self.content_hash, self.fingerprint) == (content_hash, fingerprint)


@dataclass(frozen=True)
class DocumentToFill:
    key: UUID
    url: str
    revision: int
    crawl_id: str | None


async def lock_document(connection: AsyncConnection, url: str) -> None:
    """One transaction at a time replaces the chunks of a URL; held until the commit."""
    key = hash_key(url).int & 0x7FFF_FFFF_FFFF_FFFF
    await connection.execute(select(func.pg_advisory_xact_lock(key)))


async def find_document(connection: AsyncConnection, generation_id: int, url: str) -> KnownDocument | None:
    row = (
        await connection.execute(
            select(
                DOCUMENTS.c.content_hash,
                DOCUMENTS.c.fingerprint,
                DOCUMENTS.c.chunks,
                DOCUMENTS.c.crawl_id,
                DOCUMENTS.c.revision,
                DOCUMENTS.c.error,
            ).where(DOCUMENTS.c.generation_id == generation_id, DOCUMENTS.c.key == hash_key(url))
        )
    ).one_or_none()
    return KnownDocument(*row) if row else None


async def keep_document(
    connection: AsyncConnection, generation_id: int, url: str, document: KnownDocument
) -> None:
    values = {**vars(document), "indexed_at": func.now()}
    await connection.execute(
        upsert(DOCUMENTS)
        .values(generation_id=generation_id, key=hash_key(url), url=url, **values)
        .on_conflict_do_update(index_elements=["generation_id", "key"], set_=values)
    )


async def drop_document(connection: AsyncConnection, url: str) -> None:
    """From every index, with those who found it."""
    key = hash_key(url)
    await connection.execute(delete(DOCUMENTS).where(DOCUMENTS.c.key == key))
    await connection.execute(delete(FINDERS).where(FINDERS.c.document_key == key))


async def add_finder(connection: AsyncConnection, url: str, crawl_id: str) -> bool:
    """Remembers that the crawl found the document; false where that was known."""
    added = await connection.execute(
        upsert(FINDERS)
        .values(document_key=hash_key(url), crawl_id=crawl_id)
        .on_conflict_do_nothing()
        .returning(FINDERS.c.crawl_id)
    )
    return added.one_or_none() is not None


async def finders(connection: AsyncConnection, url: str) -> list[str]:
    """The crawls that found the document, the first one first."""
    found = await connection.scalars(
        select(FINDERS.c.crawl_id)
        .where(FINDERS.c.document_key == hash_key(url))
        .order_by(FINDERS.c.found_at, FINDERS.c.crawl_id)
    )
    return list(found)


async def found_by(connection: AsyncConnection, generation_id: int, crawl_id: str) -> Sequence[str]:
    """The URL of each document that the crawl found, in the order to lock them."""
    urls = await connection.scalars(
        select(DOCUMENTS.c.url)
        .join(FINDERS, FINDERS.c.document_key == DOCUMENTS.c.key)
        .where(DOCUMENTS.c.generation_id == generation_id, FINDERS.c.crawl_id == crawl_id)
        .order_by(DOCUMENTS.c.key)
    )
    return urls.all()


async def remove_finder(connection: AsyncConnection, url: str, crawl_id: str) -> None:
    await connection.execute(
        delete(FINDERS).where(FINDERS.c.document_key == hash_key(url), FINDERS.c.crawl_id == crawl_id)
    )


async def distrust(connection: AsyncConnection, generation_id: int) -> None:
    """Something of this index is lost: whatever is delivered again is indexed again."""
    await connection.execute(
        update(DOCUMENTS).where(DOCUMENTS.c.generation_id == generation_id).values(fingerprint="")
    )


async def all_kept(connection: AsyncConnection, generation_id: int) -> bool:
    """Whether there is a page to make each document of this index from again."""
    page = exists().where(PAGES.c.document_key == DOCUMENTS.c.key, PAGES.c.delivered)
    lost = exists().where(DOCUMENTS.c.generation_id == generation_id, DOCUMENTS.c.chunks > 0, ~page)
    return not await connection.scalar(select(lost))


async def stored_since(connection: AsyncConnection, moment: datetime) -> bool:
    """Whether any document was embedded and put into the index that serves: then both worked."""
    serving = select(GENERATIONS.c.id).where(GENERATIONS.c.state == "serving")
    stored = select(DOCUMENTS.c.key).where(
        DOCUMENTS.c.generation_id.in_(serving), DOCUMENTS.c.indexed_at > moment
    )
    return bool(await connection.scalar(select(stored.exists())))


async def refill(connection: AsyncConnection, generation_id: int) -> None:
    """Has everything made again of an index that is being filled."""
    await connection.execute(
        update(DOCUMENTS)
        .where(DOCUMENTS.c.generation_id == generation_id)
        .values(fingerprint="", revision=NOT_MADE)
    )


async def last_made(connection: AsyncConnection, generation_id: int) -> DocumentToFill | None:
    """The document that was put into this index last."""
    made = (
        select(DOCUMENTS.c.key, DOCUMENTS.c.url, DOCUMENTS.c.revision, DOCUMENTS.c.crawl_id)
        .where(DOCUMENTS.c.generation_id == generation_id, DOCUMENTS.c.chunks > 0)
        .order_by(DOCUMENTS.c.indexed_at.desc())
        .limit(1)
    )
    row = (await connection.execute(made)).one_or_none()
    return DocumentToFill(*row) if row else None


async def to_fill(
    connection: AsyncConnection, source: int, target: int, after: UUID, limit: int
) -> list[DocumentToFill]:
    """Documents of one index that the other lacks or made from an earlier content, by key from `after` on."""
    made = DOCUMENTS.alias()
    up_to_date = exists().where(
        and_(
            made.c.generation_id == target,
            made.c.key == DOCUMENTS.c.key,
            made.c.revision == DOCUMENTS.c.revision,
        )
    )
    rows = await connection.execute(
        select(DOCUMENTS.c.key, DOCUMENTS.c.url, DOCUMENTS.c.revision, DOCUMENTS.c.crawl_id)
        .where(DOCUMENTS.c.generation_id == source, DOCUMENTS.c.key > after, ~up_to_date)
        .order_by(DOCUMENTS.c.key)
        .limit(limit)
    )
    return [DocumentToFill(*row) for row in rows]
