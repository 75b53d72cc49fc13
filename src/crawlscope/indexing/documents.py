"""The SQL of documents: what each index holds under each URL, and which crawls found it."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from sqlalchemy import ARRAY, Uuid, and_, any_, cast, delete, exists, func, select, text, update
from sqlalchemy.ext.asyncio import AsyncConnection

from crawlscope import models
from crawlscope.core.values import arrays, hash_key
from crawlscope.indexing.contents import delete_contents

DOCUMENT_CRAWLS = models.table_of(models.DocumentCrawl)
DOCUMENTS = models.table_of(models.Document)
GENERATIONS = models.table_of(models.IndexGeneration)
_TO_REINDEX = [DOCUMENTS.c[name] for name in ("key", "url", "revision", "crawl_id", "chunks")]
NO_REVISION = 0
"""A revision that no document has: reindexing makes the document again."""
_FIND = text("""
    SELECT key, content_hash, fingerprint, chunks, crawl_id, language, revision, error
    FROM webhook.documents
    WHERE generation_id = :generation_id AND key = ANY(CAST(:keys AS uuid[]))
""")
_SAVED_COLUMNS = (
    *("key", "url", "content_hash", "fingerprint", "chunks", "crawl_id", "language", "revision", "error"),
)
_SAVE = text("""
    WITH saved AS (
        INSERT INTO webhook.documents AS known (
            generation_id, key, url, content_hash, fingerprint, chunks, crawl_id, language, revision, error,
            indexed_at
        )
        SELECT :generation_id, saved.*, now()
        FROM unnest(
            CAST(:key AS uuid[]), CAST(:url AS text[]), CAST(:content_hash AS text[]),
            CAST(:fingerprint AS text[]), CAST(:chunks AS bigint[]), CAST(:crawl_id AS text[]),
            CAST(:language AS text[]), CAST(:revision AS bigint[]), CAST(:error AS text[])
        ) AS saved
        ON CONFLICT (generation_id, key) DO UPDATE SET
            content_hash = excluded.content_hash, fingerprint = excluded.fingerprint,
            chunks = excluded.chunks, crawl_id = excluded.crawl_id, language = excluded.language,
            revision = excluded.revision, error = excluded.error, indexed_at = excluded.indexed_at
    ), added AS (
        INSERT INTO webhook.document_crawls (document_key, crawl_id)
        SELECT key, crawl_id
        FROM unnest(CAST(:found_keys AS uuid[]), CAST(:found_by AS text[])) AS found (key, crawl_id)
        WHERE crawl_id IS NOT NULL
        ON CONFLICT DO NOTHING
        RETURNING document_key, crawl_id, found_at
    )
    SELECT document_key, crawl_id, found_at, false AS is_new FROM webhook.document_crawls
    WHERE document_key = ANY(CAST(:found_keys AS uuid[]))
    UNION ALL SELECT document_key, crawl_id, found_at, true FROM added
    ORDER BY found_at, crawl_id
""")


@dataclass(frozen=True)
class KnownDocument:
    content_hash: str
    fingerprint: str
    chunks: int
    crawl_id: str | None
    """The crawl that brought the content."""
    language: str = ""
    """The primary tag of the language that its text is written in; empty if unknown."""
    revision: int = 1
    error: str | None = None

    def holds(self, content_hash: str, fingerprint: str) -> bool:
        return (self.content_hash, self.fingerprint) == (content_hash, fingerprint)


@dataclass(frozen=True)
class FoundBy:
    crawl_ids: list[str]
    """The crawls that found the document, in the order in which they found it."""
    is_new: bool
    """Whether the last one has not found it before."""


@dataclass(frozen=True)
class DocumentToReindex:
    key: UUID
    url: str
    revision: int
    crawl_id: str | None
    chunks: int


@dataclass(frozen=True)
class DocumentCounts:
    """The number of documents and chunks that one index should have."""

    documents: int
    chunks: int
    failed: int
    """Documents of an earlier index that this one could not take."""


async def find_documents(
    connection: AsyncConnection, generation_id: int, urls: Iterable[str]
) -> dict[str, KnownDocument]:
    keys = {hash_key(url): url for url in urls}
    rows = await connection.execute(_FIND, {"generation_id": generation_id, "keys": list(keys)})
    return {keys[key]: KnownDocument(*values) for key, *values in rows}


async def save_documents(
    connection: AsyncConnection,
    generation_id: int,
    saved: Mapping[str, KnownDocument],
    found: Mapping[str, str | None] | None = None,
) -> dict[str, FoundBy]:
    """Records documents, by their URLs, and which crawl `found` each of them now; None for none."""
    found = found or {}
    if not saved and not found:
        return {}
    keys = {hash_key(url): url for url in found}
    rows = [(hash_key(url), url, *vars(document).values()) for url, document in saved.items()]
    documents = {"generation_id": generation_id, **arrays(_SAVED_COLUMNS, rows)}
    crawls = {"found_keys": list(keys), "found_by": list(found.values())}
    crawl_ids: dict[str, list[str]] = {url: [] for url in found}
    new = set()
    for row in await connection.execute(_SAVE, documents | crawls):
        crawl_ids[keys[row.document_key]].append(row.crawl_id)
        if row.is_new:
            new.add(keys[row.document_key])
    return {url: FoundBy(ids, url in new) for url, ids in crawl_ids.items()}


async def delete_documents(connection: AsyncConnection, urls: Iterable[str]) -> None:
    """Deletes them from every index, with the record of the crawls that found them and the contents that
    programs brought."""
    urls = list(urls)
    keys = any_(cast([hash_key(url) for url in urls], ARRAY(Uuid)))
    in_order = select(DOCUMENTS.c.key).where(DOCUMENTS.c.key == keys).order_by(DOCUMENTS.c.key)
    await connection.execute(delete(DOCUMENTS).where(DOCUMENTS.c.key.in_(in_order.with_for_update())))
    await connection.execute(delete(DOCUMENT_CRAWLS).where(DOCUMENT_CRAWLS.c.document_key == keys))
    await delete_contents(connection, urls)


async def remove_crawl(
    connection: AsyncConnection, urls: Sequence[str], crawl_id: str
) -> dict[str, list[str]]:
    """Removes it from the crawls that found these documents; returns the others."""
    keys = {hash_key(url): url for url in urls}
    of_these = DOCUMENT_CRAWLS.c.document_key == any_(cast(list(keys), ARRAY(Uuid)))
    await connection.execute(delete(DOCUMENT_CRAWLS).where(of_these, DOCUMENT_CRAWLS.c.crawl_id == crawl_id))
    left: dict[str, list[str]] = {url: [] for url in urls}
    for row in await connection.execute(
        select(DOCUMENT_CRAWLS.c.document_key, DOCUMENT_CRAWLS.c.crawl_id)
        .where(of_these)
        .order_by(DOCUMENT_CRAWLS.c.found_at, DOCUMENT_CRAWLS.c.crawl_id)
    ):
        left[keys[row.document_key]].append(row.crawl_id)
    return left


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


async def count_languages(connection: AsyncConnection, generation_id: int) -> dict[str, int]:
    """The number of documents of each language, `""` for those of unknown language."""
    rows = await connection.execute(
        select(DOCUMENTS.c.language, func.count().label("documents"))
        .where(DOCUMENTS.c.generation_id == generation_id, DOCUMENTS.c.chunks > 0)
        .group_by(DOCUMENTS.c.language)
    )
    return {row.language: row.documents for row in rows}


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
        select(*_TO_REINDEX)
        .where(DOCUMENTS.c.generation_id == source, DOCUMENTS.c.key > after, ~up_to_date)
        .order_by(DOCUMENTS.c.key)
        .limit(limit)
    )
    return [DocumentToReindex(*row) for row in rows]


async def latest_stored(connection: AsyncConnection, generation_id: int) -> DocumentToReindex | None:
    """The document that was put into this index last."""
    latest = (
        select(*_TO_REINDEX)
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
    """Locks the documents by key, as `delete_documents` does: another order could deadlock."""
    of_index = DOCUMENTS.c.generation_id == generation_id
    in_order = select(DOCUMENTS.c.key).where(of_index).order_by(DOCUMENTS.c.key).with_for_update()
    await connection.execute(delete(DOCUMENTS).where(of_index, DOCUMENTS.c.key.in_(in_order)))
