"""The SQL of documents: what the index holds under each URL, and which crawls found it."""

from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

from sqlalchemy import delete, func, select, update
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.ext.asyncio import AsyncConnection

from crawlscope.database.values import hash_key
from crawlscope.models import Document, DocumentCrawl


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
            select(Document.content_hash, Document.fingerprint, Document.chunks, Document.crawl_id).where(
                Document.key == hash_key(url)
            )
        )
    ).one_or_none()
    return KnownDocument(*row) if row else None


async def keep_document(connection: AsyncConnection, url: str, document: KnownDocument) -> None:
    values = {**vars(document), "indexed_at": func.now()}
    await connection.execute(
        upsert(Document)
        .values(key=hash_key(url), url=url, **values)
        .on_conflict_do_update(index_elements=["key"], set_=values)
    )


async def drop_document(connection: AsyncConnection, url: str) -> None:
    await connection.execute(delete(Document).where(Document.key == hash_key(url)))


async def add_finder(connection: AsyncConnection, url: str, crawl_id: str) -> bool:
    """Remembers that the crawl found the document; false where that was known."""
    added = await connection.execute(
        upsert(DocumentCrawl)
        .values(document_key=hash_key(url), crawl_id=crawl_id)
        .on_conflict_do_nothing()
        .returning(DocumentCrawl.crawl_id)
    )
    return added.one_or_none() is not None


async def finders(connection: AsyncConnection, url: str) -> list[str]:
    """The crawls that found the document, the first one first."""
    found = await connection.scalars(
        select(DocumentCrawl.crawl_id)
        .where(DocumentCrawl.document_key == hash_key(url))
        .order_by(DocumentCrawl.found_at, DocumentCrawl.crawl_id)
    )
    return list(found)


async def found_by(connection: AsyncConnection, crawl_id: str) -> Sequence[tuple[UUID, str, int]]:
    """Key, URL and number of chunks of each document the crawl found, in the order to lock them."""
    rows = await connection.execute(
        select(Document.key, Document.url, Document.chunks)
        .join(DocumentCrawl, DocumentCrawl.document_key == Document.key)
        .where(DocumentCrawl.crawl_id == crawl_id)
        .order_by(Document.key)
    )
    return [(row.key, row.url, row.chunks) for row in rows]


async def remove_finder(connection: AsyncConnection, url: str, crawl_id: str) -> None:
    await connection.execute(
        delete(DocumentCrawl).where(
            DocumentCrawl.document_key == hash_key(url), DocumentCrawl.crawl_id == crawl_id
        )
    )


async def distrust_all(connection: AsyncConnection) -> int:
    """The index is new: whatever is delivered again is indexed again. Returns how many were known."""
    changed = await connection.execute(update(Document).values(fingerprint="", chunks=0))
    return changed.rowcount


async def count_documents(connection: AsyncConnection) -> int:
    return await connection.scalar(select(func.count()).select_from(Document)) or 0
