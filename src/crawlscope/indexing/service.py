"""Stores documents in the index that serves, and removes them from it."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

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
from crawlscope.indexing.index.port import IndexedDocument
from crawlscope.indexing.prepare import DocumentMetadata, IndexDocumentRequest, PreparedDocument
from crawlscope.sessions.repository import ensure_session
from crawlscope.timing import TimingContext, scope
from crawlscope.timing.store import record_operations

__all__ = ["DocumentMetadata", "IndexDocumentRequest", "IndexingService", "PreparedDocument"]

log = structlog.get_logger(__name__)


class DocumentChanged(CrawlscopeError):
    """Another page replaced the document after this one was found to be unchanged."""

    retryable = True
    code = "document_changed"


class IndexChanged(CrawlscopeError):
    """Another index began to serve after the document was prepared for the former one."""

    retryable = True
    code = "index_changed"


GONE_SINCE = PageError("gone_since", "a later crawl found that the page is gone: HTTP 404 or 410")
OUTDATED = PageError("outdated", "a later crawl brought a newer content of the page")


@dataclass(frozen=True)
class StoredDocument:
    state: PageState
    chunks: int
    reason: PageError | None = None
    """Why a document with text is not in the index."""


class IndexingService:
    """Indexes documents. The caller owns the transactions, except that of `index_document`.

    During reindexing, documents are stored in the serving index, and `pages.reindexing` brings them into its
    replacement. Cheap changes (which crawls found a document, that it is gone) are made in both at once.
    """

    def __init__(self, database: Database, opened: OpenGenerations) -> None:
        self._database = database
        self._opened = opened

    @property
    def probes(self) -> dict[str, Callable[[], Awaitable[object]]]:
        """For each dependency of indexing, a call that raises while the dependency is unavailable."""
        return {
            EmbedderUnavailable.part: self._probe_embedder,
            IndexUnavailable.part: self._probe_index,
            DatabaseUnavailable.part: self._database.ping,
        }

    async def index_document(
        self, document: IndexDocumentRequest, job_id: str | None = None, crawl_id: str | None = None
    ) -> dict[str, Any]:
        """Indexes one document: `{success, url, chunks, state}`. Stores its metrics too.

        Raises `PageError` for a document that cannot be indexed, and a retryable error while a dependency is
        unavailable.
        """
        measured: list[TimingContext] = []
        try:
            with scope(crawl_id=crawl_id, job_id=job_id, document_url=document.url, collect=measured.append):
                prepared = await self.prepare(document)
                async with self._database.transaction() as connection:
                    if crawl_id:
                        await ensure_session(connection, crawl_id, datetime.now(UTC))
                    stored = await self.store(connection, prepared, crawl_id)
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
        """Cleans, chunks, embeds and encodes, without any lock."""
        async with self._database.transaction() as connection:
            live = await generations.live(connection)
            serving = _serving(live)
            known = await documents.find_document(connection, serving.id, document.url)
        await self._opened.close_others(live)
        async with self._opened.preparer(serving) as preparer:
            return await preparer.prepare(document, known)

    async def store(
        self,
        connection: AsyncConnection,
        prepared: PreparedDocument,
        crawl_id: str | None,
        source_url: str | None = None,
    ) -> StoredDocument:
        """Puts the document into the index and records it in the transaction, which the caller commits.

        A document that was found at `source_url` is not stored if a later crawl found it gone or changed.
        Raises `IndexChanged` or `DocumentChanged` if it has to be prepared again.
        """
        live = await generations.lock_shared(connection)
        serving, url = _serving(live), prepared.url
        if serving.id != prepared.generation_id:
            raise IndexChanged(f"another index took over before {url} was stored")
        await documents.lock_document(connection, url)
        known = await documents.find_document(connection, serving.id, url)
        with TimingContext(OperationType.QDRANT, "index_chunks"):
            if known and known.holds(prepared.content_hash, prepared.fingerprint):
                return await self._confirm(connection, live, url, known, crawl_id)
            if crawl_id and source_url:
                superseded = await self._superseded(connection, live, url, known, crawl_id, source_url)
                if superseded:
                    return superseded if prepared.text else StoredDocument(PageState.EMPTY, 0)
            if not prepared.text:
                if known:
                    await self._remove(connection, live, url)
                return StoredDocument(PageState.EMPTY, 0)
            if prepared.unchanged:
                raise DocumentChanged(f"{url} was replaced meanwhile")
            if crawl_id:
                await documents.add_crawl(connection, url, crawl_id)
            made = KnownDocument(
                prepared.content_hash,
                prepared.fingerprint,
                len(prepared.chunks),
                crawl_id,
                known.revision + 1 if known else 1,
            )
            await self.replace_document(connection, serving, prepared, made)
            return StoredDocument(PageState.INDEXED, made.chunks)

    async def replace_document(
        self,
        connection: AsyncConnection,
        generation: Generation,
        prepared: PreparedDocument,
        made: KnownDocument,
    ) -> None:
        """Replaces the document's chunks in an index. The caller has locked generations and document."""
        await documents.save_document(connection, generation.id, prepared.url, made)
        crawl_ids = await documents.crawl_ids(connection, prepared.url)
        index = await self._opened.index(generation)
        await index.replace([prepared.indexed_document(crawl_ids)])

    async def forget_crawl(self, connection: AsyncConnection, crawl_id: str) -> None:
        """Removes a crawl from its documents, and documents that no other crawl found from the index."""
        live = await generations.lock_shared(connection)
        for url in await documents.urls_of_crawl(connection, _serving(live).id, crawl_id):
            await documents.lock_document(connection, url)
            await documents.remove_crawl(connection, url, crawl_id)
            if await documents.crawl_ids(connection, url):
                await self._update_crawl_ids(connection, live, url)
            else:
                await self._remove(connection, live, url)

    async def remove_gone(self, connection: AsyncConnection, page_id: int) -> None:
        """Removes the documents that are gone from their site because this page is. Can be repeated."""
        for url in sorted(await freshness.documents_of_gone(connection, page_id), key=hash_key):
            await self.remove_if_gone(connection, url)

    async def remove_if_gone(self, connection: AsyncConnection, url: str) -> bool:
        live = await generations.lock_shared(connection)
        await documents.lock_document(connection, url)
        known = live.serving and await documents.find_document(connection, live.serving.id, url)
        if not known or not await freshness.is_gone(connection, url):
            return False
        await self._remove(connection, live, url)
        log.info("document_removed", url=url, reason="gone from its site")
        return True

    async def _probe_embedder(self) -> None:
        await self._opened.embedder(await self._serving_now()).embed(["probe"])

    async def _probe_index(self) -> None:
        """Writes without effect: an index whose disk is full still answers searches."""
        index = await self._opened.index(await self._serving_now())
        await index.replace([IndexedDocument("crawlscope:probe")])

    async def _serving_now(self) -> Generation:
        async with self._database.transaction() as connection:
            return _serving(await generations.live(connection))

    async def _confirm(
        self, connection: AsyncConnection, live: Live, url: str, known: KnownDocument, crawl_id: str | None
    ) -> StoredDocument:
        """Records that the crawl found the document that the index has.

        `INDEXED` if the same crawl brought it under another source URL, else `UNCHANGED`.
        """
        if crawl_id and await documents.add_crawl(connection, url, crawl_id):
            await self._update_crawl_ids(connection, live, url)
        same_crawl = crawl_id is not None and crawl_id == known.crawl_id
        return StoredDocument(PageState.INDEXED if same_crawl else PageState.UNCHANGED, known.chunks)

    async def _superseded(
        self,
        connection: AsyncConnection,
        live: Live,
        url: str,
        known: KnownDocument | None,
        crawl_id: str,
        source_url: str,
    ) -> StoredDocument | None:
        """The outcome if a later crawl found the document gone or changed, else None."""
        if await freshness.may_be_gone(connection, url, source_url) and await freshness.is_gone(
            connection, url
        ):
            return StoredDocument(PageState.UNCHANGED, 0, GONE_SINCE)
        if known and await freshness.has_newer(connection, url, crawl_id, source_url):
            return replace(await self._confirm(connection, live, url, known, crawl_id), reason=OUTDATED)
        return None

    async def _update_crawl_ids(self, connection: AsyncConnection, live: Live, url: str) -> None:
        crawl_ids = await documents.crawl_ids(connection, url)
        for generation in live.all:
            await (await self._opened.index(generation)).set_crawl_ids({url: crawl_ids})

    async def _remove(self, connection: AsyncConnection, live: Live, url: str) -> None:
        for generation in live.all:
            await (await self._opened.index(generation)).replace([IndexedDocument(url)])
        await documents.delete_document(connection, url)


def _serving(live: Live) -> Generation:
    if live.serving is None:
        raise IndexUnavailable("there is no index yet: it is made when the service has its embedder")
    return live.serving
