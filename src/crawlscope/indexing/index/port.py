"""The port to the search index: named vectors `dense` and `bm25` over the chunks of all documents."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, TypeAlias, TypedDict
from uuid import NAMESPACE_URL, UUID, uuid5

import numpy as np
import numpy.typing as npt

Floats: TypeAlias = Sequence[float] | npt.NDArray[np.float32]
Integers: TypeAlias = Sequence[int] | npt.NDArray[np.uint32]

FIRST_NAME = "index"
"""Of the index of an installation, until another takes its place."""
DENSE = "dense"
BM25 = "bm25"


def chunk_id(url: str, chunk_index: int) -> UUID:
    """The same chunk of the same document has the same id wherever and whenever it is made."""
    return uuid5(NAMESPACE_URL, f"{url}#{chunk_index}")


class ChunkPayload(TypedDict):
    url: str
    title: str
    text: str
    chunk_index: int
    domain: str
    url_prefixes: list[str]
    """What `urls.url_prefixes` says of the URL."""
    language: str
    crawl_ids: list[str]
    """Every crawl that found this document, the latest last."""


@dataclass(frozen=True)
class SparseVector:
    indices: Integers
    values: Floats


@dataclass(frozen=True)
class IndexedChunk:
    id: UUID
    dense: Floats
    sparse: SparseVector
    payload: ChunkPayload


@dataclass(frozen=True)
class Filters:
    """All that are given must hold. `url_prefix` is any beginning of a URL, also inside a path segment."""

    domain: str | None = None
    crawl_id: str | None = None
    language: str | None = None
    url_prefix: str | None = None


@dataclass(frozen=True)
class Hit:
    id: UUID
    score: float
    payload: ChunkPayload


@dataclass(frozen=True)
class Halves:
    """What each half of one hybrid query found, best first; a half that was not asked is empty."""

    dense: list[Hit]
    bm25: list[Hit]


@dataclass(frozen=True)
class IndexSize:
    chunks: int
    bytes: int | None


class SearchIndex(Protocol):
    """Every call raises `IndexUnavailable` when the index cannot be reached or does not answer in time,
    and `IndexUnusable` when it was made for vectors of another dimension.
    """

    async def upsert(self, chunks: Sequence[IndexedChunk]) -> None:
        """Durable when it returns; the same chunk again replaces the old one."""
        ...

    async def cut(self, url: str, keep: int) -> None:
        """Deletes the document's chunks from number `keep` on, also those that nobody remembers storing."""
        ...

    async def set_crawl_ids(self, ids: Sequence[UUID], crawl_ids: Sequence[str]) -> None:
        """Replaces who found these chunks, leaves the rest of them as it is; unknown ids are passed over."""
        ...

    async def query(
        self, dense: Floats | None, sparse: SparseVector | None, filters: Filters, limit: int
    ) -> Halves:
        """At most `limit` hits in each half; a half without a vector is not asked."""
        ...

    async def size(self) -> IndexSize: ...

    async def aclose(self) -> None: ...


class Indexes(Protocol):
    """The indexes of all generations, each under its name."""

    async def open(self, name: str, dimension: int) -> SearchIndex:
        """The same object each time. Does not mind whether the index is there: its first call says so."""
        ...

    async def aclose(self) -> None: ...


class OwnedIndexes(Indexes, Protocol):
    """As the process sees them that makes and drops them."""

    async def make(self, name: str, dimension: int) -> None:
        """Makes an empty index, in place of whatever is there under that name."""
        ...

    async def drop(self, name: str) -> None:
        """Closes and deletes it, however much of it is there."""
        ...
