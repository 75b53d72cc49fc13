"""The way of a page into the index: clean → chunk → embed → store, each step measured."""

import asyncio
import re
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import sha256
from typing import Any
from uuid import UUID

from pydantic import BaseModel, ConfigDict
from sqlalchemy.ext.asyncio import AsyncConnection

from crawlscope.database.engine import Database
from crawlscope.errors import (
    CrawlscopeError,
    DatabaseUnavailable,
    EmbedderUnavailable,
    IndexUnavailable,
    PageError,
)
from crawlscope.indexing import documents
from crawlscope.indexing.chunk import Chunk, split
from crawlscope.indexing.clean import clean
from crawlscope.indexing.documents import KnownDocument
from crawlscope.indexing.embedding import Embedder, Vectors
from crawlscope.indexing.index.port import (
    ChunkPayload,
    IndexedChunk,
    SearchIndex,
    SparseVector,
    chunk_id,
)
from crawlscope.indexing.index.urls import domain_of, url_prefixes
from crawlscope.indexing.sparse import Bm25Encoder
from crawlscope.sessions.store import ensure_session
from crawlscope.timing import TimingContext, scope
from crawlscope.timing.store import record_operations
from crawlscope.vocabulary import OperationType, PageState

CHUNKING_VERSION = 1
"""Goes up when cleaning or chunking changes, so that unchanged pages are indexed anew."""
HEADING = re.compile(r"^#{1,6}\s+(.+?)\s*#*\s*$|^(.+)\n[=-]{3,}\s*$", re.MULTILINE)


class DocumentChanged(CrawlscopeError):
    """Another page replaced the document while this one was found unchanged."""

    retryable = True
    code = "document_changed"


class DocumentMetadata(BaseModel):
    """What is known of a document besides its text; further fields are ignored."""

    model_config = ConfigDict(extra="ignore")

    url: str
    title: str | None = None
    language: str | None = None
    description: str | None = None


class IndexDocumentRequest(BaseModel):
    url: str
    markdown: str
    metadata: DocumentMetadata | None = None


@dataclass(frozen=True)
class PreparedDocument:
    """All that the index needs of a document; without chunks where the index has it already."""

    url: str
    title: str
    language: str
    text: str
    content_hash: str
    unchanged: bool
    chunks: Sequence[Chunk] = ()
    vectors: Vectors | None = None
    sparse: Sequence[SparseVector] = ()
    unreadable: PageError | None = None
    """Why a page that brought something has no text."""


@dataclass(frozen=True)
class StoredDocument:
    state: PageState
    chunks: int


class IndexingService:
    """Indexes documents. Transactions belong to the caller, except in `index_document`."""

    def __init__(
        self,
        database: Database,
        embedder: Embedder,
        index: SearchIndex,
        bm25: Bm25Encoder,
        chunk_tokens: int = 200,
    ) -> None:
        self._database = database
        self._embedder = embedder
        self._index = index
        self._bm25 = bm25
        self._chunk_tokens = min(chunk_tokens, embedder.max_tokens)

    @property
    def fingerprint(self) -> str:
        """Documents with another one are indexed anew when they are delivered again."""
        return "|".join(
            [
                self._embedder.identity.fingerprint,
                self._bm25.fingerprint,
                f"chunks:{CHUNKING_VERSION}:{self._chunk_tokens}",
            ]
        )

    @property
    def probes(self) -> dict[str, Callable[[], Awaitable[object]]]:
        """For each part that a page needs a call that raises while it is away."""
        return {
            EmbedderUnavailable.part: lambda: self._embedder.embed(["probe"]),
            # Writes, where there is nothing to delete: an index whose disk is full still answers questions.
            IndexUnavailable.part: lambda: self._index.cut("crawlscope:probe", keep=0),
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
            known = await documents.find_document(connection, document.url)
        with TimingContext(OperationType.CHUNKING, "chunk_text") as chunking:
            text, unreadable = await _cleaned(document.markdown)
            content_hash = sha256(text.encode()).hexdigest()
            unchanged = known is not None and known.holds(content_hash, self.fingerprint)
            chunks = [] if unchanged or not text else await self._split(text)
            chunking.metadata["chunks"] = len(chunks)
        vectors, sparse = await self._encode(chunks) if chunks else (None, [])
        metadata = document.metadata or DocumentMetadata(url=document.url)
        return PreparedDocument(
            url=document.url,
            title=metadata.title or _first_heading(text) or document.url,
            language=_primary_tag(metadata.language),
            text=text,
            content_hash=content_hash,
            unchanged=unchanged,
            chunks=chunks,
            vectors=vectors,
            sparse=sparse,
            unreadable=unreadable,
        )

    async def store(
        self, connection: AsyncConnection, prepared: PreparedDocument, crawl_id: str | None
    ) -> StoredDocument:
        """Puts the document into the index and notes it in the transaction, which the caller commits."""
        await documents.lock_document(connection, prepared.url)
        known = await documents.find_document(connection, prepared.url)
        with TimingContext(OperationType.QDRANT, "index_chunks"):
            if not prepared.text:
                return await self._remove(connection, prepared.url, known)
            if known and known.holds(prepared.content_hash, self.fingerprint):
                return await self._confirm(connection, prepared.url, known, crawl_id)
            if prepared.unchanged:
                raise DocumentChanged(f"{prepared.url} was replaced meanwhile")
            return await self._replace(connection, prepared, crawl_id)

    async def forget_crawl(self, connection: AsyncConnection, crawl_id: str) -> None:
        """Takes a crawl off its documents; those that no other crawl found leave the index."""
        for _, url, chunks in await documents.found_by(connection, crawl_id):
            await documents.lock_document(connection, url)
            await documents.remove_finder(connection, url, crawl_id)
            left = await documents.finders(connection, url)
            if left:
                await self._index.set_crawl_ids(_chunk_ids(url, chunks), left)
            else:
                await self._index.cut(url, keep=0)
                await documents.drop_document(connection, url)

    async def _split(self, text: str) -> list[Chunk]:
        return await asyncio.to_thread(split, text, self._embedder.tokenizer, self._chunk_tokens)

    async def _encode(self, chunks: Sequence[Chunk]) -> tuple[Vectors, list[SparseVector]]:
        texts = [chunk.text for chunk in chunks]
        with TimingContext(OperationType.EMBEDDING, "embed_batch", metadata={"chunks": len(texts)}):
            vectors = await self._embedder.embed(texts)
        with TimingContext(OperationType.BM25, "index_document", metadata={"chunks": len(texts)}):
            sparse = await asyncio.to_thread(self._encode_sparse, texts)
        return vectors, sparse

    def _encode_sparse(self, texts: Sequence[str]) -> list[SparseVector]:
        return [self._bm25.encode_document(text) for text in texts]

    async def _store_alone(self, prepared: PreparedDocument, crawl_id: str | None) -> StoredDocument:
        async with self._database.transaction() as connection:
            if crawl_id:
                await ensure_session(connection, crawl_id, datetime.now(UTC))
            return await self.store(connection, prepared, crawl_id)

    async def _remove(
        self, connection: AsyncConnection, url: str, known: KnownDocument | None
    ) -> StoredDocument:
        if known:
            await self._index.cut(url, keep=0)
            await documents.drop_document(connection, url)
        return StoredDocument(PageState.EMPTY, 0)

    async def _confirm(
        self, connection: AsyncConnection, url: str, known: KnownDocument, crawl_id: str | None
    ) -> StoredDocument:
        """Only who found it is new. What this same crawl brought under another source is no repetition."""
        if crawl_id and await documents.add_finder(connection, url, crawl_id):
            found_by = await documents.finders(connection, url)
            await self._index.set_crawl_ids(_chunk_ids(url, known.chunks), found_by)
        same_crawl = crawl_id is not None and crawl_id == known.crawl_id
        return StoredDocument(PageState.INDEXED if same_crawl else PageState.UNCHANGED, known.chunks)

    async def _replace(
        self,
        connection: AsyncConnection,
        prepared: PreparedDocument,
        crawl_id: str | None,
    ) -> StoredDocument:
        count = len(prepared.chunks)
        await documents.keep_document(
            connection,
            prepared.url,
            KnownDocument(prepared.content_hash, self.fingerprint, count, crawl_id),
        )
        if crawl_id:
            await documents.add_finder(connection, prepared.url, crawl_id)
        crawl_ids = await documents.finders(connection, prepared.url)
        await self._index.upsert(_indexed_chunks(prepared, crawl_ids))
        await self._index.cut(prepared.url, keep=count)
        return StoredDocument(PageState.INDEXED, count)


def _indexed_chunks(prepared: PreparedDocument, crawl_ids: list[str]) -> list[IndexedChunk]:
    assert prepared.vectors is not None
    domain, prefixes = domain_of(prepared.url), url_prefixes(prepared.url)
    return [
        IndexedChunk(
            id=chunk_id(prepared.url, chunk.index),
            dense=vector,
            sparse=sparse,
            payload=ChunkPayload(
                url=prepared.url,
                title=prepared.title,
                text=chunk.text,
                chunk_index=chunk.index,
                domain=domain,
                url_prefixes=prefixes,
                language=prepared.language,
                crawl_ids=crawl_ids,
            ),
        )
        for chunk, vector, sparse in zip(prepared.chunks, prepared.vectors, prepared.sparse, strict=True)
    ]


async def _cleaned(markdown: str) -> tuple[str, PageError | None]:
    """What is no text at all, such as an image, is a page without text, and says why."""
    try:
        return await asyncio.to_thread(clean, markdown), None
    except PageError as error:
        return "", error


def _chunk_ids(url: str, count: int) -> list[UUID]:
    return [chunk_id(url, number) for number in range(count)]


def _first_heading(text: str) -> str | None:
    found = HEADING.search(text[:4_000])
    return (found[1] or found[2]).strip() if found else None


def _primary_tag(language: str | None) -> str:
    """`en` of `en-US`: what the language filter compares."""
    return (language or "").replace("_", "-").split("-")[0].strip().lower()
