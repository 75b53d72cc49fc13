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

DOCUMENT_CRAWLS = models.table_of(models.DocumentCrawl)
DOCUMENTS = models.table_of(models.Document)
GENERATIONS = models.table_of(models.IndexGeneration)
PAGES = models.table_of(models.Page)
NO_REVISION = 0
"""A revision that no document has: reindexing makes the document again."""


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
class DocumentToReindex:
    key: UUID
    url: str
    revision: int
    crawl_id: str | None


@dataclass(frozen=True)
class DocumentCounts:
    """What one index should hold."""

    documents: int
    chunks: int
    failed: int
    """Documents of an earlier index that this one could not take."""


async def lock_document(connection: AsyncConnection, url: str) -> None:
    """One transaction at a time replaces the chunks of a URL; the lock ends with the transaction."""
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


async def save_document(
    connection: AsyncConnection, generation_id: int, url: str, document: KnownDocument
) -> None:
    values = {**vars(document), "indexed_at": func.now()}
    await connection.execute(
        upsert(DOCUMENTS)
        .values(generation_id=generation_id, key=hash_key(url), url=url, **values)
        .on_conflict_do_update(index_elements=["generation_id", "key"], set_=values)
    )


async def delete_document(connection: AsyncConnection, url: str) -> None:
    """Deletes it from every index, with the record of the crawls that found it."""
    key = hash_key(url)
    await connection.execute(delete(DOCUMENTS).where(DOCUMENTS.c.key == key))
    await connection.execute(delete(DOCUMENT_CRAWLS).where(DOCUMENT_CRAWLS.c.document_key == key))


async def add_crawl(connection: AsyncConnection, url: str, crawl_id: str) -> bool:
    """Records that the crawl found the document; false if that was recorded already."""
    added = await connection.execute(
        upsert(DOCUMENT_CRAWLS)
        .values(document_key=hash_key(url), crawl_id=crawl_id)
        .on_conflict_do_nothing()
        .returning(DOCUMENT_CRAWLS.c.crawl_id)
    )
    return added.one_or_none() is not None


async def remove_crawl(connection: AsyncConnection, url: str, crawl_id: str) -> None:
    await connection.execute(
        delete(DOCUMENT_CRAWLS).where(
            DOCUMENT_CRAWLS.c.document_key == hash_key(url), DOCUMENT_CRAWLS.c.crawl_id == crawl_id
        )
    )


async def crawl_ids(connection: AsyncConnection, url: str) -> list[str]:
    """The crawls that found the document, in the order in which they found it."""
    found = await connection.scalars(
        select(DOCUMENT_CRAWLS.c.crawl_id)
        .where(DOCUMENT_CRAWLS.c.document_key == hash_key(url))
        .order_by(DOCUMENT_CRAWLS.c.found_at, DOCUMENT_CRAWLS.c.crawl_id)
    )
    return list(found)


async def urls_of_crawl(connection: AsyncConnection, generation_id: int, crawl_id: str) -> Sequence[str]:
    """The URLs of the documents that the crawl found, in the order to lock them."""
    urls = await connection.scalars(
        select(DOCUMENTS.c.url)
        .join(DOCUMENT_CRAWLS, DOCUMENT_CRAWLS.c.document_key == DOCUMENTS.c.key)
        .where(DOCUMENTS.c.generation_id == generation_id, DOCUMENT_CRAWLS.c.crawl_id == crawl_id)
        .order_by(DOCUMENTS.c.key)
    )
    return urls.all()


async def stored_since(connection: AsyncConnection, moment: datetime) -> bool:
    """Whether the serving index took any document: then embedder and index both worked."""
    serving = select(GENERATIONS.c.id).where(GENERATIONS.c.state == "serving")
    stored = select(DOCUMENTS.c.key).where(
        DOCUMENTS.c.generation_id.in_(serving), DOCUMENTS.c.indexed_at > moment
    )
    return bool(await connection.scalar(select(stored.exists())))


async def count(connection: AsyncConnection, generation_id: int) -> DocumentCounts:
    held = DOCUMENTS.c.error.is_(None)
    documents, chunks, failed = (
        await connection.execute(
            select(
                func.count().filter(held),
                func.coalesce(func.sum(DOCUMENTS.c.chunks).filter(held), 0),
                func.count().filter(~held),
            ).where(DOCUMENTS.c.generation_id == generation_id)
        )
    ).one()
    return DocumentCounts(documents, int(chunks), failed)


async def can_be_rebuilt(connection: AsyncConnection, generation_id: int) -> bool:
    """Whether a stored page exists for each document of the index."""
    page = exists().where(PAGES.c.document_key == DOCUMENTS.c.key, PAGES.c.delivered)
    lost = exists().where(DOCUMENTS.c.generation_id == generation_id, DOCUMENTS.c.chunks > 0, ~page)
    return not await connection.scalar(select(lost))


async def to_reindex(
    connection: AsyncConnection, source: int, target: int, after: UUID, limit: int
) -> list[DocumentToReindex]:
    """Documents of the index `source` that `target` lacks or has with an earlier content, by key from
    `after` on."""
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
    return [DocumentToReindex(*row) for row in rows]


async def latest_stored(connection: AsyncConnection, generation_id: int) -> DocumentToReindex | None:
    """The document that was put into this index last."""
    latest = (
        select(DOCUMENTS.c.key, DOCUMENTS.c.url, DOCUMENTS.c.revision, DOCUMENTS.c.crawl_id)
        .where(DOCUMENTS.c.generation_id == generation_id, DOCUMENTS.c.chunks > 0)
        .order_by(DOCUMENTS.c.indexed_at.desc())
        .limit(1)
    )
    row = (await connection.execute(latest)).one_or_none()
    return DocumentToReindex(*row) if row else None


async def invalidate(connection: AsyncConnection, generation_id: int) -> None:
    """Has each document indexed again when a page of it is delivered: the index lost some of them."""
    await connection.execute(
        update(DOCUMENTS).where(DOCUMENTS.c.generation_id == generation_id).values(fingerprint="")
    )


async def restart_reindexing(connection: AsyncConnection, generation_id: int) -> None:
    """Has reindexing make every document of this index again."""
    await connection.execute(
        update(DOCUMENTS)
        .where(DOCUMENTS.c.generation_id == generation_id)
        .values(fingerprint="", revision=NO_REVISION)
    )


async def move_all(connection: AsyncConnection, source: int, target: int) -> None:
    await connection.execute(
        update(DOCUMENTS).where(DOCUMENTS.c.generation_id == source).values(generation_id=target)
    )


async def delete_all(connection: AsyncConnection, generation_id: int) -> None:
    """Locks the documents by key, as the deletion of a crawl does: another order could deadlock."""
    of_index = DOCUMENTS.c.generation_id == generation_id
    in_order = select(DOCUMENTS.c.key).where(of_index).order_by(DOCUMENTS.c.key).with_for_update()
    await connection.execute(delete(DOCUMENTS).where(of_index, DOCUMENTS.c.key.in_(in_order)))
