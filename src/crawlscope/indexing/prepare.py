"""Document preparation: clean → chunk → embed, each step measured."""

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
from crawlscope.indexing.index.port import IndexedDocument, SparseVector
from crawlscope.indexing.language import language_of, primary_language
from crawlscope.indexing.passages import passages
from crawlscope.indexing.sparse import Bm25Encoder
from crawlscope.timing import TimingContext, waits_apart

FIRST_HEADING = re.compile(r"^#{1,6}\s+(.+?)\s*#*\s*$|^(.+)\n[=-]{3,}\s*$", re.MULTILINE)


class DocumentMetadata(BaseModel):
    """Facts about a document besides its text; further fields are ignored."""

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
    """All that an index needs of a document; without chunks if the index has them already."""

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
    """Why a document with content has no text."""

    def indexed_document(self, crawl_ids: Sequence[str]) -> IndexedDocument:
        assert self.vectors is not None
        return IndexedDocument(
            url=self.url,
            title=self.title,
            language=self.language,
            crawl_ids=crawl_ids,
            texts=[chunk.text for chunk in self.chunks],
            dense=self.vectors,
            sparse=self.sparse,
        )


@dataclass(frozen=True)
class DocumentPreparer:
    """Prepares documents for one index, by its recipe."""

    generation_id: int
    recipe: Recipe
    embedder: IndexEmbedder
    bm25: Bm25Encoder

    async def prepare(self, document: IndexDocumentRequest, known: KnownDocument | None) -> PreparedDocument:
        """Makes no chunks if `known` holds the same content already.

        A document that is no text, such as an image, has an empty `text` and the reason in `unreadable`.
        """
        metadata = document.metadata or DocumentMetadata(url=document.url)
        unreadable, fingerprint = None, self.recipe.fingerprint
        async with self.embedder.in_use() as embedder:
            with TimingContext(OperationType.CHUNKING, "chunk_text") as chunking:
                try:
                    text = await in_thread(clean, document.markdown)
                except PageError as error:
                    text, unreadable = "", error
                title = metadata.title or _first_heading(text)
                language = primary_language(metadata.language) or await in_thread(language_of, text)
                content_hash = sha256("\0".join([title or "", language, text]).encode()).hexdigest()
                unchanged = known is not None and known.holds(content_hash, fingerprint)
                chunks: list[Chunk] = []
                if text and not unchanged:
                    chunks = await in_thread(split, text, embedder.tokenizer, self.recipe.chunk_tokens)
                chunking.metadata["chunks"] = len(chunks)
            vectors, sparse = None, list[SparseVector]()
            if chunks:
                texts = passages(title or "", text, chunks, embedder.tokenizer)
                vectors, sparse = await self._encode(texts, embedder)
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

    async def _encode(self, texts: Sequence[str], embedder: Embedder) -> tuple[Vectors, list[SparseVector]]:
        with (
            TimingContext(OperationType.EMBEDDING, "embed_batch", metadata={"chunks": len(texts)}) as whole,
            waits_apart(whole, OperationType.EMBEDDING_WAIT, "wait_for_embedder"),
        ):
            vectors = await embedder.embed(texts)
        with TimingContext(OperationType.BM25, "index_document", metadata={"chunks": len(texts)}):
            sparse = await in_thread(lambda: [self.bm25.encode_document(text) for text in texts])
        return vectors, sparse


def _first_heading(text: str) -> str | None:
    found = FIRST_HEADING.search(text[:4_000])
    return (found[1] or found[2]).strip() if found else None
