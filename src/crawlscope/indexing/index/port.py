"""The port to search indexes: named vectors `dense` and `bm25` over the chunks of all documents."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import Any, NamedTuple, NotRequired, Protocol, Self, TypeAlias, TypedDict, cast
from uuid import UUID

import numpy as np
import numpy.typing as npt

from crawlscope.core.values import hash_key
from crawlscope.indexing.index.urls import domain_of, url_prefixes
from crawlscope.indexing.phrase import Phrase

Floats: TypeAlias = Sequence[float] | npt.NDArray[np.float32]
Integers: TypeAlias = Sequence[int] | npt.NDArray[np.uint32]

EMPTY: npt.NDArray[np.float32] = np.empty((0, 0), np.float32)
ChunkId: TypeAlias = bytes
"""The 16 bytes of the UUID: unlike that, hashed and compared without Python code."""
DocumentKey: TypeAlias = bytes
"""The beginning of the ids of all chunks of a document; their numbers follow."""
DOCUMENT_KEY_BYTES = 12

FIRST_NAME = "index"
"""The name of an installation's first index."""


def document_key(url: str) -> DocumentKey:
    return hash_key(url).bytes[:DOCUMENT_KEY_BYTES]


def chunk_id(url: str, chunk_index: int) -> ChunkId:
    """The same chunk of the same document always has the same id."""
    return document_key(url) + chunk_index.to_bytes(4)


class ChunkText(TypedDict):
    """The fields that each chunk has for itself in the index."""

    text: str
    parts: NotRequired[str]
    """As `pack_parts` packs them, if the embedder knows them."""


class DocumentPayload(TypedDict):
    """The fields that all chunks of a document have in common."""

    url: str
    title: str
    domain: str
    url_prefixes: list[str]
    """`urls.url_prefixes` of the URL."""
    language: str
    crawl_ids: list[str]
    """The crawls that found the document, the latest last."""


class ChunkPayload(ChunkText, DocumentPayload):
    """All that the index knows of a chunk."""

    chunk_index: int


def chunk_payload(chunk: ChunkId, stored: Mapping[str, Any]) -> ChunkPayload:
    return cast("ChunkPayload", {**stored, "chunk_index": int.from_bytes(chunk[DOCUMENT_KEY_BYTES:])})


@dataclass(frozen=True)
class SparseVector:
    indices: Integers
    values: Floats


@dataclass(frozen=True)
class IndexedDocument:
    """A document with all its chunks: text, row of `dense` and element of `sparse` number i make chunk i.

    `IndexedDocument(url)` has no chunks: the index is to hold nothing of it.
    """

    url: str
    title: str = ""
    language: str = ""
    crawl_ids: Sequence[str] = ()
    texts: Sequence[str] = ()
    dense: npt.NDArray[np.float32] = field(default_factory=lambda: EMPTY)
    """Shape (chunks, dimension)."""
    sparse: Sequence[SparseVector] = ()
    parts: Sequence[str] = ()
    """The parts of each chunk, or of none: see `ChunkText`."""

    @cached_property
    def chunk_texts(self) -> list[ChunkText]:
        if not self.parts:
            return [ChunkText(text=text) for text in self.texts]
        pairs = zip(self.texts, self.parts, strict=True)
        return [ChunkText(text=text, parts=parts) for text, parts in pairs]

    @cached_property
    def ids(self) -> list[UUID]:
        key = document_key(self.url)
        return [UUID(bytes=key + number.to_bytes(4)) for number in range(len(self.texts))]

    @cached_property
    def payload(self) -> DocumentPayload:
        return DocumentPayload(
            url=self.url,
            title=self.title,
            domain=domain_of(self.url),
            url_prefixes=url_prefixes(self.url),
            language=self.language,
            crawl_ids=list(self.crawl_ids),
        )


@dataclass(frozen=True)
class Filters:
    """All given filters must match. `url_prefix` is any beginning of a URL, also inside a path segment."""

    domain: str | None = None
    crawl_id: str | None = None
    language: str | None = None
    url_prefix: str | None = None
    urls: Sequence[str] | None = None
    """Only these documents."""
    other_than: Sequence[str] = ()
    """All but these documents."""


class Hit(NamedTuple):
    id: ChunkId
    score: float
    document: DocumentKey

    @classmethod
    def all_of(cls, chunks: Sequence[ChunkId], scores: Iterable[float]) -> list[Self]:
        keys = [chunk[:DOCUMENT_KEY_BYTES] for chunk in chunks]
        # `_make` would call a function of Python for each
        return [*map(partial(tuple.__new__, cls), zip(chunks, scores, keys, strict=True))]


@dataclass(frozen=True)
class Halves:
    """The hits of each half of a hybrid query, best first; empty for a half that was not queried."""

    dense: list[Hit]
    bm25: list[Hit]


class StoredChunk(NamedTuple):
    text: str
    dense: npt.NDArray[np.float32]
    """A vector of length 1."""
    parts: str = ""


class Rarities(NamedTuple):
    chunks: int
    """The number of chunks in the whole index."""
    idf: Mapping[int, float]
    """The factor of each term in the score of a chunk; without terms that no chunk has."""


@dataclass(frozen=True)
class IndexSize:
    chunks: int
    bytes: int | None


class SearchIndex(Protocol):
    """Every call raises `IndexUnavailable` if the index cannot be reached or does not answer in time, and
    `IndexUnusable` if it was made for vectors of another dimension.
    """

    async def replace(self, documents: Sequence[IndexedDocument]) -> None:
        """Durable when it returns. Replaces all chunks of each document, also those that the database does
        not know. The last of several documents with one URL counts.
        """
        ...

    async def set_crawl_ids(self, crawl_ids: Mapping[str, Sequence[str]]) -> None:
        """Replaces the crawls of all chunks of each document, by its URL; ignores unknown URLs."""
        ...

    async def query(
        self, dense: Floats | None, sparse: SparseVector | None, filters: Filters, limit: int
    ) -> Halves:
        """At most `limit` hits in each half; a half without a vector is not queried."""
        ...

    async def payloads(self, ids: Sequence[ChunkId]) -> dict[ChunkId, ChunkPayload]:
        """Only for chunks that exist."""
        ...

    async def containing(self, phrase: Phrase, ids: Sequence[ChunkId], fields: Sequence[str]) -> set[ChunkId]:
        """The chunks of these that have the phrase in one of the fields."""
        ...

    async def stored(self, ids: Sequence[ChunkId]) -> dict[ChunkId, StoredChunk]:
        """Only for chunks that exist."""
        ...

    async def rarities(self, terms: Sequence[int]) -> Rarities:
        """Deleted chunks may count until the index is optimised."""
        ...

    async def size(self) -> IndexSize: ...

    async def require_writable(self) -> None:
        """Writes without effect: an index whose disk is full still answers queries."""
        await self.replace([IndexedDocument("crawlscope:probe")])

    async def aclose(self) -> None: ...


class Indexes(Protocol):
    """The indexes of all generations, by name."""

    async def open(self, name: str, dimension: int) -> SearchIndex:
        """The same object each time. A missing index raises on its first call, not here."""
        ...

    async def aclose(self) -> None: ...


class OwnedIndexes(Indexes, Protocol):
    """For the process that makes and drops indexes."""

    async def make(self, name: str, dimension: int) -> None:
        """Makes an empty index; replaces an existing one of that name."""
        ...

    async def drop(self, name: str) -> None:
        """Closes and deletes it, also if only parts of it exist."""
        ...
