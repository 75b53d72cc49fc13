"""Document preparation: clean → chunk → encode → embed, each step measured."""

import asyncio
import re
from collections.abc import Awaitable, Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import ParamSpec, TypeVar

import numpy as np

from crawlscope.core.errors import PageError
from crawlscope.core.in_thread import in_thread
from crawlscope.core.vocabulary import OperationType
from crawlscope.indexing.chunk import split
from crawlscope.indexing.clean import clean
from crawlscope.indexing.documents import KnownDocument
from crawlscope.indexing.embedders.models import page_share, text_prefixes
from crawlscope.indexing.embedders.port import Embedder, PartEmbedder, Vectors
from crawlscope.indexing.generations.recipe import Recipe
from crawlscope.indexing.index.port import (
    IndexedDocument,
    SearchIndex,
    SparseVector,
    StoredChunk,
    chunk_id,
)
from crawlscope.indexing.language import language_of, primary_language
from crawlscope.indexing.passages import passages
from crawlscope.indexing.schemas import DocumentMetadata, IndexDocumentRequest
from crawlscope.indexing.sparse import Bm25Encoder
from crawlscope.indexing.vocabulary import WordCounts
from crawlscope.timing import TimingContext, waits_apart

P = ParamSpec("P")
T = TypeVar("T")

LARGE = 200_000
"""More characters than most pages have; these take about 50 ms."""
FIRST_HEADING = re.compile(r"^#{1,6}\s+(.+?)\s*#*\s*$|^(.+)\n[=-]{3,}\s*$", re.MULTILINE)


@dataclass(frozen=True)
class PreparedDocument:
    """All that an index needs of a document; without chunks if the index has them already."""

    generation_id: int
    fingerprint: str
    document: IndexedDocument
    """With its chunks; no crawl is in it."""
    text_language: str
    """By its words, else as declared: many pages in other languages declare English."""
    text: str
    content_hash: str
    unchanged: bool
    unreadable: PageError | None = None
    """Why a document with content has no text."""


class Lanes:
    """Computes one piece of large work and one of other work at a time: in threads, besides work of up to
    `inline` characters, which delays the event loop as little as a thread would.

    Threads that compute at the same time only take the interpreter from each other and from the event loop.
    """

    def __init__(self, inline: int = 0) -> None:
        self._inline = inline
        self._lanes = asyncio.Lock(), asyncio.Lock()

    async def compute(self, size: int, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """`size` is in characters. The wait for other work is measured, if there is one."""
        lane = self._lanes[size > LARGE]
        with (
            TimingContext(OperationType.CHUNKING_WAIT, "wait_for_thread") if lane.locked() else nullcontext()
        ):
            await lane.acquire()
        try:
            if size > self._inline:
                return await in_thread(work, *args, **kwargs)
            await asyncio.sleep(0)  # what else is ready comes first, and others find the lane taken
            return work(*args, **kwargs)
        finally:
            lane.release()


@dataclass(frozen=True)
class DocumentPreparer:
    """Prepares documents for one index, by its recipe."""

    generation_id: int
    recipe: Recipe
    embedder: Embedder
    bm25: Bm25Encoder
    lanes: Lanes
    words: WordCounts | None = None
    """Counts the words of prepared documents."""
    open_index: Callable[[], Awaitable[SearchIndex]] | None = None
    """If given, the document's vectors in this index are used again."""
    data_dir: Path | None = None
    """If given, its processes share the model that detects languages."""

    async def prepare(self, document: IndexDocumentRequest, known: KnownDocument | None) -> PreparedDocument:
        """Makes no chunks if `known` holds the same content already.

        A document that is no text, such as an image, has an empty `text` and the reason in `unreadable`.
        """
        prepared, texts = await self.lanes.compute(len(document.markdown), self._read, document, known)
        if not texts:
            return prepared
        kept = await self._kept_chunks(prepared, known)
        if kept is not None:
            texts = texts[:1]
        model = self.recipe.identity.model
        with (
            TimingContext(OperationType.EMBEDDING, "embed_batch", metadata={"chunks": len(texts)}) as whole,
            waits_apart(whole, OperationType.EMBEDDING_WAIT, "wait_for_embedder"),
        ):
            prefix = text_prefixes(model).passage
            vectors, parts = await self._embed([f"{prefix}{text}" for text in texts])
        if kept is None:
            made = within_page(vectors, page_share(model))
        else:
            made = with_new_first(vectors, np.stack([chunk.dense for chunk in kept]), page_share(model))
            parts += [chunk.parts for chunk in kept[1:]] if parts else []
        return replace(prepared, document=replace(prepared.document, dense=made, parts=parts))

    async def _embed(self, texts: Sequence[str]) -> tuple[Vectors, list[str]]:
        """Without parts if the embedder knows none."""
        if isinstance(self.embedder, PartEmbedder):
            return await self.embedder.embed_in_parts(texts)
        return await self.embedder.embed(texts), []

    async def _kept_chunks(
        self, prepared: PreparedDocument, known: KnownDocument | None
    ) -> list[StoredChunk] | None:
        """The stored chunks of the document, if only its title or language is new: then one chunk that is
        embedded with the new title is enough to be found by its meaning.
        """
        count = len(prepared.document.texts)
        if self.open_index is None or known is None or count < 2:
            return None
        if (known.chunks, known.fingerprint) != (count, prepared.fingerprint):
            return None
        ids = [chunk_id(prepared.document.url, number) for number in range(count)]
        stored = await (await self.open_index()).stored(ids)
        texts = [stored[one].text if one in stored else None for one in ids]
        if texts != prepared.document.texts:
            return None
        return [stored[one] for one in ids]

    def _read(
        self, document: IndexDocumentRequest, known: KnownDocument | None
    ) -> tuple[PreparedDocument, list[str]]:
        """The document without its dense vectors, and the texts to embed. Takes seconds for megabytes."""
        metadata = document.metadata or DocumentMetadata(url=document.url)
        unreadable, fingerprint, tokenizer = None, self.recipe.fingerprint, self.embedder.tokenizer
        with TimingContext(OperationType.CHUNKING, "chunk_text") as chunking:
            try:
                text = clean(document.markdown)
            except PageError as error:
                text, unreadable = "", error
            title = metadata.title or _first_heading(text)
            declared = primary_language(metadata.language)
            language = declared or language_of(text, self.data_dir)
            content_hash = sha256("\0".join([title or "", language, text]).encode()).hexdigest()
            unchanged = known is not None and known.holds(content_hash, fingerprint)
            text_language = (declared and not unchanged and language_of(text, self.data_dir)) or language
            chunks = [] if unchanged else split(text, tokenizer, self.recipe.chunk_tokens)
            texts = passages(title or "", text, chunks, tokenizer)
            chunking.metadata["chunks"] = len(chunks)
        if self.words and texts:
            self.words.count(self.generation_id, f"{title} {text}")
        sparse = list[SparseVector]()
        if texts:
            with TimingContext(OperationType.BM25, "index_document", metadata={"chunks": len(texts)}):
                sparse = self.bm25.encode_documents(texts, text_language)
        prepared = PreparedDocument(
            generation_id=self.generation_id,
            fingerprint=fingerprint,
            document=IndexedDocument(
                url=document.url,
                title=title or document.url,
                language=language,
                texts=[chunk.text for chunk in chunks],
                sparse=sparse,
            ),
            text_language=text_language,
            text=text,
            content_hash=content_hash,
            unchanged=unchanged,
            unreadable=unreadable,
        )
        return prepared, texts


def within_page(vectors: Vectors, share: float) -> Vectors:
    """The vectors of all chunks of a page, each with a share of their mean: what the page is about.

    The mean of chunks that differ is short, and moves them little.
    """
    return np.asarray((1 - share) * vectors + share * vectors.mean(axis=0), np.float32)


def with_new_first(first: Vectors, kept: Vectors, share: float) -> Vectors:
    """The vectors of a page as the index has them, with a new one of its first chunk: shape (1, dimension).

    The mean of the stored vectors is close to the page's, because each of them has the length 1.
    """
    own = first / np.linalg.norm(first)
    new = (1 - share) * own + share * kept.mean(axis=0)
    return np.asarray(np.vstack([new, kept[1:]]), np.float32)


def _first_heading(text: str) -> str | None:
    found = FIRST_HEADING.search(text[:4_000])
    return (found[1] or found[2]).strip() if found else None
