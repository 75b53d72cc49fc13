"""The port to search indexes: named vectors `dense` and `bm25` over the chunks of all documents."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, TypeAlias, TypedDict
from uuid import NAMESPACE_URL, UUID, uuid5

import numpy as np
import numpy.typing as npt

Floats: TypeAlias = Sequence[float] | npt.NDArray[np.float32]
Integers: TypeAlias = Sequence[int] | npt.NDArray[np.uint32]

FIRST_NAME = "index"
"""The name of an installation's first index."""
DENSE = "dense"
BM25 = "bm25"


def chunk_id(url: str, chunk_index: int) -> UUID:
    """The same chunk of the same document always has the same id."""
    return uuid5(NAMESPACE_URL, f"{url}#{chunk_index}")


class ChunkPayload(TypedDict):
    url: str
    title: str
    text: str
    chunk_index: int
    domain: str
    url_prefixes: list[str]
    """`urls.url_prefixes` of the URL."""
    language: str
    crawl_ids: list[str]
    """The crawls that found the document, the latest last."""


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
    """All given filters must match. `url_prefix` is any beginning of a URL, also inside a path segment."""

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
    """The hits of each half of a hybrid query, best first; empty for a half that was not queried."""

    dense: list[Hit]
    bm25: list[Hit]


@dataclass(frozen=True)
class IndexSize:
    chunks: int
    bytes: int | None


class SearchIndex(Protocol):
    """Every call raises `IndexUnavailable` if the index cannot be reached or does not answer in time, and
    `IndexUnusable` if it was made for vectors of another dimension.
    """

    async def upsert(self, chunks: Sequence[IndexedChunk]) -> None:
        """Durable when it returns. Replaces chunks of the same ids."""
        ...

    async def truncate(self, url: str, keep: int) -> None:
        """Deletes the document's chunks from number `keep` on, also those that the database does not know."""
        ...

    async def set_crawl_ids(self, ids: Sequence[UUID], crawl_ids: Sequence[str]) -> None:
        """Replaces the `crawl_ids` of these chunks; ignores unknown ids."""
        ...

    async def query(
        self, dense: Floats | None, sparse: SparseVector | None, filters: Filters, limit: int
    ) -> Halves:
        """At most `limit` hits in each half; a half without a vector is not queried."""
        ...

    async def size(self) -> IndexSize: ...

    async def aclose(self) -> None: ...


class Indexes(Protocol):
    """The indexes of all generations, by name."""

    async def open(self, name: str, dimension: int) -> SearchIndex:
        """The same object each time. A missing index raises on its first call, not here."""
        ...

    async def aclose(self) -> None: ...


class OwnedIndexes(Indexes, Protocol):
    """The indexes in the process that makes and drops them."""

    async def make(self, name: str, dimension: int) -> None:
        """Makes an empty index; replaces an existing one of that name."""
        ...

    async def drop(self, name: str) -> None:
        """Closes and deletes it, also if only parts of it exist."""
        ...
