"""The way of a document into the index that serves, and out of it."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import structlog
from sqlalchemy.ext.asyncio import AsyncConnection

from crawlscope.core.errors import (
    CrawlscopeError,
    DatabaseUnavailable,
    EmbedderUnavailable,
    IndexUnavailable,
    PageError,
)
from crawlscope.core.values import hash_key
from crawlscope.core.vocabulary import OperationType, PageState
from crawlscope.database.engine import Database
from crawlscope.indexing import documents, freshness
from crawlscope.indexing.documents import KnownDocument
from crawlscope.indexing.generations import repository as generations
from crawlscope.indexing.generations.opened import OpenGenerations
from crawlscope.indexing.generations.repository import Generation, Live
from crawlscope.indexing.index.port import chunk_id
from crawlscope.indexing.prepare import DocumentMetadata, IndexDocumentRequest, PreparedDocument
from crawlscope.sessions.store import ensure_session
from crawlscope.timing import TimingContext, scope
from crawlscope.timing.store import record_operations

__all__ = ["DocumentMetadata", "IndexDocumentRequest", "IndexingService", "PreparedDocument"]

log = structlog.get_logger(__name__)


class DocumentChanged(CrawlscopeError):
    """Another page replaced the document while this one was found unchanged."""

    retryable = True
    code = "document_changed"


class IndexChanged(CrawlscopeError):
    """Another index took over while the document was prepared for the former one."""

    retryable = True
    code = "index_changed"


GONE_SINCE = PageError("gone_since", "a later crawl found that the page is gone: HTTP 404 or 410")
OUTDATED = PageError("outdated", "a later crawl brought a newer content of the page")


@dataclass(frozen=True)
class StoredDocument:
    state: PageState
    chunks: int
    reason: PageError | None = None
    """Why it is not in the index, though it has text."""


@dataclass(frozen=True)
class _Found:
    """A document, and the page of a crawl that brought it."""

    url: str
    crawl_id: str
    source_url: str


class IndexingService:
    """Indexes documents. Transactions belong to the caller, except in `index_document`.

    While another index is filled beside the one that serves, documents go into the latter; `Reindexing`
    brings them into the other. What is cheap (who found a document, that it is gone) goes into both at once.
    """

    def __init__(self, database: Database, opened: OpenGenerations) -> None:
        self._database = database
        self._opened = opened

    @property
    def probes(self) -> dict[str, Callable[[], Awaitable[object]]]:
        """For each part that a page needs a call that raises while it is away."""
        return {
            EmbedderUnavailable.part: self._probe_embedder,
            IndexUnavailable.part: self._probe_index,
            DatabaseUnavailable.part: self._database.ping,
        }

    async def index_document(
        self, document: IndexDocumentRequest, job_id: str | None = None, crawl_id: str | None = None
    ) -> dict[str, Any]:
        """Indexes one document by itself: `{success, url, chunks, state}`; its metrics are stored too.

        Raises `PageError` for what cannot be indexed and a retryable error while a part is away.
        """
        measured: list[TimingContext] = []
        try:
            with scope(crawl_id=crawl_id, job_id=job_id, document_url=document.url, collect=measured.append):
                prepared = await self.prepare(document)
                stored = await self._store_alone(prepared, crawl_id)
        finally:
            async with self._database.transaction() as connection:
                await record_operations(connection, measured)
        return {
            "success": True,
            "url": document.url,
            "chunks": stored.chunks,
            "state": stored.state.value,
        }

    async def prepare(self, document: IndexDocumentRequest) -> PreparedDocument:
        """Everything that needs no lock: reads what is known, cleans, chunks, embeds, encodes."""
        async with self._database.transaction() as connection:
            live = await generations.live(connection)
            serving = _serving(live)
            known = await documents.find_document(connection, serving.id, document.url)
        await self._opened.close_others(live)
        return await self._opened.workshop(serving).prepare(document, known)

    async def store(
        self,
        connection: AsyncConnection,
        prepared: PreparedDocument,
        crawl_id: str | None,
        source_url: str | None = None,
    ) -> StoredDocument:
        """Puts the document into the index and notes it in the transaction, which the caller commits.

        One that was found at `source_url`, and that a later crawl has found in another state, stays out.
        Raises `IndexChanged` or `DocumentChanged` where it has to be prepared anew.
        """
        live = await generations.hold(connection)
        serving = _serving(live)
        if serving.id != prepared.generation_id:
            raise IndexChanged(f"another index took over before {prepared.url} was stored")
        await documents.lock_document(connection, prepared.url)
        known = await documents.find_document(connection, serving.id, prepared.url)
        with TimingContext(OperationType.QDRANT, "index_chunks"):
            if known and known.holds(prepared.content_hash, prepared.fingerprint):
                return await self._confirm(connection, live, prepared.url, known, crawl_id)
            if crawl_id and source_url:
                found = _Found(prepared.url, crawl_id, source_url)
                if late := await self._come_late(connection, live, found, known):
                    return late if prepared.text else StoredDocument(PageState.EMPTY, 0)
            if not prepared.text:
                return await self._remove(connection, live, prepared.url, known)
            if prepared.unchanged:
                raise DocumentChanged(f"{prepared.url} was replaced meanwhile")
            if crawl_id:
                await documents.add_finder(connection, prepared.url, crawl_id)
            made = KnownDocument(
                prepared.content_hash,
                prepared.fingerprint,
                len(prepared.chunks),
                crawl_id,
                known.revision + 1 if known else 1,
            )
            await self.put(connection, serving, prepared, made)
            return StoredDocument(PageState.INDEXED, made.chunks)

    async def put(
        self,
        connection: AsyncConnection,
        generation: Generation,
        prepared: PreparedDocument,
        made: KnownDocument,
    ) -> None:
        """Replaces what an index holds of the document. The caller holds generations and document."""
        await documents.keep_document(connection, generation.id, prepared.url, made)
        crawl_ids = await documents.finders(connection, prepared.url)
        index = await self._opened.index(generation)
        await index.upsert(prepared.indexed_chunks(crawl_ids))
        await index.cut(prepared.url, keep=made.chunks)

    async def forget_crawl(self, connection: AsyncConnection, crawl_id: str) -> None:
        """Takes a crawl off its documents; those that no other crawl found leave the index."""
        live = await generations.hold(connection)
        for url in await documents.found_by(connection, _serving(live).id, crawl_id):
            await documents.lock_document(connection, url)
            await documents.remove_finder(connection, url, crawl_id)
            if await documents.finders(connection, url):
                await self._tell_finders(connection, live, url)
            else:
                await self._drop(connection, live, url)

    async def remove_gone(self, connection: AsyncConnection, page_id: int) -> None:
        """Takes out of the indexes what is gone from its site, since this page is. Safe again at any time."""
        for url in sorted(await freshness.documents_of_gone(connection, page_id), key=hash_key):
            await self.drop_if_gone(connection, url)

    async def drop_if_gone(self, connection: AsyncConnection, url: str) -> bool:
        live = await generations.hold(connection)
        await documents.lock_document(connection, url)
        known = live.serving and await documents.find_document(connection, live.serving.id, url)
        if not known or not await freshness.is_gone(connection, url):
            return False
        await self._drop(connection, live, url)
        log.info("document_gone", url=url)
        return True

    async def _probe_embedder(self) -> None:
        await self._opened.embedder(await self._serving_now()).embed(["probe"])

    async def _probe_index(self) -> None:
        """Writes, where there is nothing to delete: an index whose disk is full still answers questions."""
        index = await self._opened.index(await self._serving_now())
        await index.cut("crawlscope:probe", keep=0)

    async def _serving_now(self) -> Generation:
        async with self._database.transaction() as connection:
            return _serving(await generations.live(connection))

    async def _store_alone(self, prepared: PreparedDocument, crawl_id: str | None) -> StoredDocument:
        async with self._database.transaction() as connection:
            if crawl_id:
                await ensure_session(connection, crawl_id, datetime.now(UTC))
            return await self.store(connection, prepared, crawl_id)

    async def _remove(
        self, connection: AsyncConnection, live: Live, url: str, known: KnownDocument | None
    ) -> StoredDocument:
        if known:
            await self._drop(connection, live, url)
        return StoredDocument(PageState.EMPTY, 0)

    async def _confirm(
        self, connection: AsyncConnection, live: Live, url: str, known: KnownDocument, crawl_id: str | None
    ) -> StoredDocument:
        """Only who found it is new. What this same crawl brought under another source is no repetition."""
        if crawl_id and await documents.add_finder(connection, url, crawl_id):
            await self._tell_finders(connection, live, url)
        same_crawl = crawl_id is not None and crawl_id == known.crawl_id
        return StoredDocument(PageState.INDEXED if same_crawl else PageState.UNCHANGED, known.chunks)

    async def _come_late(
        self, connection: AsyncConnection, live: Live, found: _Found, known: KnownDocument | None
    ) -> StoredDocument | None:
        """What becomes of it where another crawl has found something newer since; None where none has."""
        if await freshness.may_be_gone(connection, found.url, found.source_url) and await freshness.is_gone(
            connection, found.url
        ):
            return StoredDocument(PageState.UNCHANGED, 0, GONE_SINCE)
        if known is None or not await freshness.has_newer(
            connection, found.url, found.crawl_id, found.source_url
        ):
            return None
        confirmed = await self._confirm(connection, live, found.url, known, found.crawl_id)
        return replace(confirmed, reason=OUTDATED)

    async def _tell_finders(self, connection: AsyncConnection, live: Live, url: str) -> None:
        found_by = await documents.finders(connection, url)
        for generation in live.all:
            if known := await documents.find_document(connection, generation.id, url):
                index = await self._opened.index(generation)
                await index.set_crawl_ids(_chunk_ids(url, known.chunks), found_by)

    async def _drop(self, connection: AsyncConnection, live: Live, url: str) -> None:
        for generation in live.all:
            await (await self._opened.index(generation)).cut(url, keep=0)
        await documents.drop_document(connection, url)


def _serving(live: Live) -> Generation:
    if live.serving is None:
        raise IndexUnavailable("there is no index yet: it is made when the service has its embedder")
    return live.serving


def _chunk_ids(url: str, count: int) -> Sequence[UUID]:
    return [chunk_id(url, number) for number in range(count)]
