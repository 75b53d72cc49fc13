"""Stores documents in the index that serves, and removes them from it."""

from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
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
    NotFoundError,
    PageError,
)
from crawlscope.core.vocabulary import OperationType, PageState
from crawlscope.database.engine import Database
from crawlscope.indexing import contents, documents, freshness
from crawlscope.indexing.documents import KnownDocument
from crawlscope.indexing.freshness import FoundPage, Superseded
from crawlscope.indexing.generations import repository as generations
from crawlscope.indexing.generations.opened import NO_INDEX, OpenGenerations
from crawlscope.indexing.generations.repository import Generation, Live
from crawlscope.indexing.index.port import IndexedDocument, SearchIndex
from crawlscope.indexing.prepare import PreparedDocument
from crawlscope.indexing.schemas import DocumentMetadata, IndexDocumentRequest
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


def is_overtaken(error: Exception) -> bool:
    """Whether the document has to be prepared again, because something else was stored meanwhile."""
    return isinstance(error, DocumentChanged | IndexChanged)


GONE_SINCE = PageError("gone_since", "a later crawl found that the page is gone: HTTP 404 or 410")
OUTDATED = PageError("outdated", "a later crawl brought a newer content of the page")


@dataclass(frozen=True)
class FoundDocument:
    prepared: PreparedDocument
    crawl_id: str | None = None
    source_url: str | None = None
    """If given, it is not stored if a later crawl found the document gone or changed."""
    brought: IndexDocumentRequest | None = None
    """The document as a program brought it. Pages have their contents in another table."""


@dataclass(frozen=True)
class StoredDocument:
    state: PageState
    chunks: int
    reason: PageError | None = None
    """Why a document with text is not in the index."""


EMPTY = StoredDocument(PageState.EMPTY, 0)


@dataclass(frozen=True)
class Decision:
    """The outcome of a document, and the rows that it writes."""

    outcome: StoredDocument | CrawlscopeError
    made: KnownDocument | None = None
    """Its new content."""
    confirmed: bool = False
    """Whether the crawl found the content that the index has."""
    removed: bool = False


def decide(
    found: FoundDocument, serving: Generation, known: KnownDocument | None, superseded: Superseded | None
) -> Decision:
    """`known` are the records of the serving index."""
    prepared, crawl_id = found.prepared, found.crawl_id
    if serving.id != prepared.generation_id:
        return Decision(IndexChanged(f"another index took over before {prepared.document.url} was stored"))
    if known:  # by this crawl, if it brought the document under another source URL
        by_this = crawl_id is not None and crawl_id == known.crawl_id
        kept = StoredDocument(PageState.INDEXED if by_this else PageState.UNCHANGED, known.chunks)
        if known.holds(prepared.content_hash, prepared.fingerprint):
            return Decision(kept, confirmed=True)
        if superseded is Superseded.REPLACED:
            return Decision(replace(kept, reason=OUTDATED) if prepared.text else EMPTY, confirmed=True)
    if superseded is Superseded.GONE:
        return Decision(StoredDocument(PageState.UNCHANGED, 0, GONE_SINCE) if prepared.text else EMPTY)
    if not prepared.text:
        return Decision(EMPTY, removed=known is not None)
    if prepared.unchanged:
        return Decision(DocumentChanged(f"{prepared.document.url} was replaced meanwhile"))
    made = KnownDocument(
        prepared.content_hash,
        prepared.fingerprint,
        len(prepared.document.texts),
        crawl_id,
        prepared.text_language,
        known.revision + 1 if known else 1,
    )
    return Decision(StoredDocument(PageState.INDEXED, made.chunks), made=made)


class IndexingService:
    """Indexes documents. The caller owns the transactions; only `index_document` has its own.

    During reindexing, documents are stored in the serving index, and `pages.reindexing` brings them into its
    replacement. Cheap changes (which crawls found a document, that it is gone) are made in both at once.
    """

    def __init__(self, database: Database, opened: OpenGenerations) -> None:
        self._database = database
        self.opened = opened

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
                if prepared.unreadable:
                    raise prepared.unreadable
                async with self._database.transaction() as connection:
                    if crawl_id:
                        await ensure_session(connection, crawl_id, datetime.now(UTC))
                    with TimingContext(OperationType.QDRANT, "index_chunks"):
                        found = FoundDocument(prepared, crawl_id, brought=document)
                        [stored] = await self.store(connection, [found])
                    if isinstance(stored, CrawlscopeError):
                        raise stored
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
        """See `OpenGenerations.prepare`."""
        async with self._database.transaction() as connection:
            live = await generations.live(connection, [document.url])
        known = live.documents.get(document.url)
        return await self.opened.prepare(self._database, document, _serving(live).id, known)

    async def store(
        self, connection: AsyncConnection, found: Sequence[FoundDocument]
    ) -> list[StoredDocument | CrawlscopeError]:
        """Puts documents, at most one of each URL, into the index and records them in the transaction, which
        the caller commits.

        `IndexChanged` or `DocumentChanged` is the result for one that has to be prepared again.
        """
        by_url = {each.prepared.document.url: each for each in found}
        pages = [
            FoundPage(url, each.crawl_id, each.source_url)
            for url, each in by_url.items()
            if each.crawl_id and each.source_url
        ]
        live = await generations.lock_shared(connection, by_url, pages)
        serving = _serving(live)
        gone = await freshness.gone_among(connection, live.answered_gone) if live.answered_gone else set()
        superseded = dict.fromkeys(live.replaced, Superseded.REPLACED) | dict.fromkeys(gone, Superseded.GONE)
        decisions = {
            url: decide(each, serving, live.documents.get(url), superseded.get(url))
            for url, each in by_url.items()
        }
        await self._carry_out(connection, live, by_url, decisions)
        return [decisions[each.prepared.document.url].outcome for each in found]

    async def _carry_out(
        self,
        connection: AsyncConnection,
        live: Live,
        found: Mapping[str, FoundDocument],
        decisions: Mapping[str, Decision],
    ) -> None:
        removed = [url for url, decision in decisions.items() if decision.removed]
        made = {url: decision.made for url, decision in decisions.items() if decision.made}
        confirmed = {url: found[url].crawl_id for url, decision in decisions.items() if decision.confirmed}
        if removed:
            await self._remove(connection, live, removed)
        serving, now = _serving(live), confirmed | {url: found[url].crawl_id for url in made}
        found_by = await documents.save_documents(connection, serving.id, made, now)
        await _keep_contents(connection, live, found, made, confirmed)
        if made:
            new = [replace(found[url].prepared.document, crawl_ids=found_by[url].crawl_ids) for url in made]
            await (await self._index(serving)).replace(new)
        if found_again := {url: found_by[url].crawl_ids for url in confirmed if found_by[url].is_new}:
            await self._update_crawl_ids(live, found_again)

    async def forget_crawl(self, connection: AsyncConnection, crawl_id: str) -> None:
        """Removes a crawl from its documents, and from the index those that no other crawl found, unless a
        program brought them for none."""
        live = await generations.lock_shared(connection)
        urls = await documents.urls_of_crawl(connection, _serving(live).id, crawl_id)
        live = await generations.lock_shared(connection, urls)
        left = await documents.remove_crawl(connection, urls, crawl_id)
        independent = {url for url, content in live.contents.items() if content.is_independent}
        kept = {url: crawl_ids for url, crawl_ids in left.items() if crawl_ids or url in independent}
        if kept:
            await self._update_crawl_ids(live, kept)
        await self._remove(connection, live, [url for url in left if url not in kept])

    async def remove_document(self, url: str) -> None:
        """Removes a document from the index, even if a crawl found it. Raises `NotFoundError`."""
        async with self._database.transaction() as connection:
            live = await generations.lock_shared(connection, [url])
            # Also one that is not recorded, because a process died before it committed.
            await self._remove(connection, live, [url])
        if url not in live.documents:
            raise NotFoundError(f"Document not found: {url}")

    async def remove_gone(self, connection: AsyncConnection, page_id: int) -> None:
        """Removes the documents that are gone from their site because this page is. Can be repeated."""
        await self.remove_if_gone(connection, await freshness.documents_of_gone(connection, page_id))

    async def remove_if_gone(self, connection: AsyncConnection, urls: Sequence[str]) -> set[str]:
        """Removes those of the documents that are gone; returns them."""
        live = await generations.lock_shared(connection, urls)
        if not live.documents:
            return set()
        gone = await freshness.gone_among(connection, live.documents)
        await self._remove(connection, live, sorted(gone))
        for url in sorted(gone):
            log.info("document_removed", url=url, reason="gone from its site")
        return gone

    async def _probe_embedder(self) -> None:
        await self.opened.embedder(await self._serving_now()).embed(["probe"])

    async def _probe_index(self) -> None:
        await (await self._index(await self._serving_now())).require_writable()

    async def _serving_now(self) -> Generation:
        async with self._database.transaction() as connection:
            return _serving(await generations.live(connection))

    async def _index(self, generation: Generation) -> SearchIndex:
        return await self.opened.indexes.open(generation.name, generation.recipe.identity.dimension)

    async def _update_crawl_ids(self, live: Live, crawl_ids: Mapping[str, Sequence[str]]) -> None:
        for generation in live.all:
            await (await self._index(generation)).set_crawl_ids(crawl_ids)

    async def _remove(self, connection: AsyncConnection, live: Live, urls: Sequence[str]) -> None:
        if urls:
            await documents.delete_documents(connection, urls)
            for generation in live.all:
                await (await self._index(generation)).replace([IndexedDocument(url) for url in urls])


async def _keep_contents(
    connection: AsyncConnection,
    live: Live,
    found: Mapping[str, FoundDocument],
    made: Mapping[str, KnownDocument],
    confirmed: Collection[str],
) -> None:
    """Stores what programs brought, and deletes it of documents that pages replaced."""
    for url in (*made, *confirmed):
        each, known = found[url], live.contents.get(url)
        if each.brought and (url in made or not known or not known.covers(each.crawl_id)):
            revision = (made.get(url) or live.documents[url]).revision
            await contents.save_content(connection, each.brought, revision, each.crawl_id)
    if replaced := [url for url in made if url in live.contents and not found[url].brought]:
        await contents.delete_contents(connection, replaced)


def _serving(live: Live) -> Generation:
    if live.serving is None:
        raise IndexUnavailable(NO_INDEX)
    return live.serving
