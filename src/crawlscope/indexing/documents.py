"""The SQL of documents: what the index holds under each URL, and which crawls found it."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from sqlalchemy import delete, func, select, update
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.ext.asyncio import AsyncConnection

from crawlscope import models
from crawlscope.database.values import hash_key

FINDERS = models.table_of(models.DocumentCrawl)
DOCUMENTS = models.table_of(models.Document)


@dataclass(frozen=True)
class KnownDocument:
    content_hash: str
    fingerprint: str
    chunks: int
    crawl_id: str | None
    """The crawl that brought the content."""

    def holds(self, content_hash: str, fingerprint: str) -> bool:
        return (self.content_hash, self.fingerprint) == (content_hash, fingerprint)


async def lock_document(connection: AsyncConnection, url: str) -> None:
    """One transaction at a time replaces the chunks of a URL; held until the commit."""
    key = hash_key(url).int & 0x7FFF_FFFF_FFFF_FFFF
    await connection.execute(select(func.pg_advisory_xact_lock(key)))


async def find_document(connection: AsyncConnection, url: str) -> KnownDocument | None:
    row = (
        await connection.execute(
            select(
                DOCUMENTS.c.content_hash, DOCUMENTS.c.fingerprint, DOCUMENTS.c.chunks, DOCUMENTS.c.crawl_id
            ).where(DOCUMENTS.c.key == hash_key(url))
        )
    ).one_or_none()
    return KnownDocument(*row) if row else None


async def keep_document(connection: AsyncConnection, url: str, document: KnownDocument) -> None:
    values = {**vars(document), "indexed_at": func.now()}
    await connection.execute(
        upsert(DOCUMENTS)
        .values(key=hash_key(url), url=url, **values)
        .on_conflict_do_update(index_elements=["key"], set_=values)
    )


async def drop_document(connection: AsyncConnection, url: str) -> None:
    await connection.execute(delete(DOCUMENTS).where(DOCUMENTS.c.key == hash_key(url)))


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


async def found_by(connection: AsyncConnection, crawl_id: str) -> Sequence[tuple[UUID, str, int]]:
    """Key, URL and number of chunks of each document the crawl found, in the order to lock them."""
    rows = await connection.execute(
        select(DOCUMENTS.c.key, DOCUMENTS.c.url, DOCUMENTS.c.chunks)
        .join(FINDERS, FINDERS.c.document_key == DOCUMENTS.c.key)
        .where(FINDERS.c.crawl_id == crawl_id)
        .order_by(DOCUMENTS.c.key)
    )
    return [(row.key, row.url, row.chunks) for row in rows]


async def remove_finder(connection: AsyncConnection, url: str, crawl_id: str) -> None:
    await connection.execute(
        delete(FINDERS).where(FINDERS.c.document_key == hash_key(url), FINDERS.c.crawl_id == crawl_id)
    )


async def distrust_all(connection: AsyncConnection) -> int:
    """The index is new: whatever is delivered again is indexed again. Returns how many were known."""
    changed = await connection.execute(update(DOCUMENTS).values(fingerprint="", chunks=0))
    return changed.rowcount


async def stored_since(connection: AsyncConnection, moment: datetime) -> bool:
    """Whether any document was embedded and put into the index: then both worked."""
    stored = select(DOCUMENTS.c.key).where(DOCUMENTS.c.indexed_at > moment)
    return bool(await connection.scalar(select(stored.exists())))


async def count_documents(connection: AsyncConnection) -> int:
    return await connection.scalar(select(func.count()).select_from(DOCUMENTS)) or 0
