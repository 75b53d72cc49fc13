"""What a document takes before the index can have it: clean → chunk → embed, each step measured."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256

from pydantic import BaseModel, ConfigDict

from crawlscope.core.errors import PageError
from crawlscope.core.vocabulary import OperationType
from crawlscope.indexing.chunk import Chunk, split
from crawlscope.indexing.clean import clean
from crawlscope.indexing.documents import KnownDocument
from crawlscope.indexing.embedders.port import Embedder, Vectors
from crawlscope.indexing.generations.embedder import IndexEmbedder
from crawlscope.indexing.generations.recipe import Recipe
from crawlscope.indexing.in_thread import in_thread
from crawlscope.indexing.index.port import ChunkPayload, IndexedChunk, SparseVector, chunk_id
from crawlscope.indexing.index.urls import domain_of, url_prefixes
from crawlscope.indexing.language import language_of, primary_language
from crawlscope.indexing.passages import passages
from crawlscope.indexing.sparse import Bm25Encoder
from crawlscope.timing import TimingContext, waits_apart

HEADING = re.compile(r"^#{1,6}\s+(.+?)\s*#*\s*$|^(.+)\n[=-]{3,}\s*$", re.MULTILINE)


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
    """All that an index needs of a document; without chunks where it has them already."""

    generation_id: int
    fingerprint: str
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

    def indexed_chunks(self, crawl_ids: list[str]) -> list[IndexedChunk]:
        assert self.vectors is not None
        domain, prefixes = domain_of(self.url), url_prefixes(self.url)
        return [
            IndexedChunk(
                id=chunk_id(self.url, chunk.index),
                dense=vector,
                sparse=sparse,
                payload=ChunkPayload(
                    url=self.url,
                    title=self.title,
                    text=chunk.text,
                    chunk_index=chunk.index,
                    domain=domain,
                    url_prefixes=prefixes,
                    language=self.language,
                    crawl_ids=crawl_ids,
                ),
            )
            for chunk, vector, sparse in zip(self.chunks, self.vectors, self.sparse, strict=True)
        ]


@dataclass(frozen=True)
class Workshop:
    """Prepares documents for one index, by its recipe."""

    generation_id: int
    recipe: Recipe
    embedder: IndexEmbedder
    bm25: Bm25Encoder

    async def prepare(self, document: IndexDocumentRequest, known: KnownDocument | None) -> PreparedDocument:
        metadata = document.metadata or DocumentMetadata(url=document.url)
        async with self.embedder.in_use() as embedder:
            with TimingContext(OperationType.CHUNKING, "chunk_text") as chunking:
                text, unreadable = await _cleaned(document.markdown)
                title = metadata.title or _first_heading(text)
                language = primary_language(metadata.language) or await in_thread(language_of, text)
                content_hash = _hash(title or "", language, text)
                fingerprint = self.recipe.fingerprint
                unchanged = known is not None and known.holds(content_hash, fingerprint)
                chunks = [] if unchanged or not text else await self._split(text, embedder)
                chunking.metadata["chunks"] = len(chunks)
            vectors, sparse = (
                await self._encode(title or "", text, chunks, embedder) if chunks else (None, [])
            )
        return PreparedDocument(
            generation_id=self.generation_id,
            fingerprint=fingerprint,
            url=document.url,
            title=title or document.url,
            language=language,
            text=text,
            content_hash=content_hash,
            unchanged=unchanged,
            chunks=chunks,
            vectors=vectors,
            sparse=sparse,
            unreadable=unreadable,
        )

    async def _split(self, text: str, embedder: Embedder) -> list[Chunk]:
        return await in_thread(split, text, embedder.tokenizer, self.recipe.chunk_tokens)

    async def _encode(
        self, title: str, text: str, chunks: Sequence[Chunk], embedder: Embedder
    ) -> tuple[Vectors, list[SparseVector]]:
        texts = passages(title, text, chunks, embedder.tokenizer)
        with (
            TimingContext(OperationType.EMBEDDING, "embed_batch", metadata={"chunks": len(texts)}) as whole,
            waits_apart(whole, OperationType.EMBEDDING_WAIT, "wait_for_embedder"),
        ):
            vectors = await embedder.embed(texts)
        with TimingContext(OperationType.BM25, "index_document", metadata={"chunks": len(texts)}):
            sparse = await in_thread(self._encode_sparse, texts)
        return vectors, sparse

    def _encode_sparse(self, texts: Sequence[str]) -> list[SparseVector]:
        return [self.bm25.encode_document(text) for text in texts]


async def _cleaned(markdown: str) -> tuple[str, PageError | None]:
    """What is no text at all, such as an image, is a page without text, and says why."""
    try:
        return await in_thread(clean, markdown), None
    except PageError as error:
        return "", error


def _first_heading(text: str) -> str | None:
    found = HEADING.search(text[:4_000])
    return (found[1] or found[2]).strip() if found else None


def _hash(*parts: str) -> str:
    return sha256("\0".join(parts).encode()).hexdigest()
