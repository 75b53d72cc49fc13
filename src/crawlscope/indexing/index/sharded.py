"""An index in several shards, each in a process of its own: a document is in the shard of its key."""

import asyncio
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from itertools import chain
from operator import attrgetter
from typing import TypeVar

from crawlscope.indexing.index.port import (
    DOCUMENT_KEY_BYTES,
    ChunkId,
    ChunkPayload,
    DocumentKey,
    Filters,
    Floats,
    Halves,
    Hit,
    IndexedDocument,
    IndexSize,
    OwnedIndexes,
    SearchIndex,
    SparseVector,
    StoredChunk,
    document_key,
)

T = TypeVar("T")


class ShardedIndexes(OwnedIndexes):
    def __init__(self, shards: Sequence[OwnedIndexes]) -> None:
        self._shards = shards
        self._opened: dict[str, SearchIndex] = {}

    async def open(self, name: str, dimension: int) -> SearchIndex:
        if name not in self._opened:
            opened = [await shard.open(name, dimension) for shard in self._shards]
            self._opened[name] = ShardedIndex(opened)
        return self._opened[name]

    async def make(self, name: str, dimension: int) -> None:
        await asyncio.gather(*(shard.make(name, dimension) for shard in self._shards))

    async def drop(self, name: str) -> None:
        self._opened.pop(name, None)
        await asyncio.gather(*(shard.drop(name) for shard in self._shards))

    async def aclose(self) -> None:
        await asyncio.gather(*(shard.aclose() for shard in self._shards))


class ShardedIndex(SearchIndex):
    """Each shard knows how rare a word is among its own chunks, which are a random part of all."""

    def __init__(self, shards: Sequence[SearchIndex]) -> None:
        self._shards = shards

    async def replace(self, documents: Sequence[IndexedDocument]) -> None:
        parts = self._by_shard((document_key(document.url), document) for document in documents)
        await asyncio.gather(*(shard.replace(part) for shard, part in parts))

    async def set_crawl_ids(self, crawl_ids: Mapping[str, Sequence[str]]) -> None:
        parts = self._by_shard((document_key(url), (url, ids)) for url, ids in crawl_ids.items())
        await asyncio.gather(*(shard.set_crawl_ids(dict(part)) for shard, part in parts))

    async def query(
        self, dense: Floats | None, sparse: SparseVector | None, filters: Filters, limit: int
    ) -> Halves:
        found = await asyncio.gather(*(each.query(dense, sparse, filters, limit) for each in self._shards))
        return Halves(
            dense=_best((halves.dense for halves in found), limit),
            bm25=_best((halves.bm25 for halves in found), limit),
        )

    async def payloads(self, ids: Sequence[ChunkId]) -> dict[ChunkId, ChunkPayload]:
        parts = self._by_shard((one[:DOCUMENT_KEY_BYTES], one) for one in ids)
        found = await asyncio.gather(*(shard.payloads(part) for shard, part in parts))
        return {one: payload for part in found for one, payload in part.items()}

    async def stored(self, ids: Sequence[ChunkId]) -> dict[ChunkId, StoredChunk]:
        parts = self._by_shard((one[:DOCUMENT_KEY_BYTES], one) for one in ids)
        found = await asyncio.gather(*(shard.stored(part) for shard, part in parts))
        return {one: chunk for part in found for one, chunk in part.items()}

    async def size(self) -> IndexSize:
        sizes = await asyncio.gather(*(shard.size() for shard in self._shards))
        return IndexSize(sum(size.chunks for size in sizes), sum(size.bytes or 0 for size in sizes))

    async def require_writable(self) -> None:
        await asyncio.gather(*(shard.require_writable() for shard in self._shards))

    async def aclose(self) -> None:
        await asyncio.gather(*(shard.aclose() for shard in self._shards))

    def _by_shard(self, items: Iterable[tuple[DocumentKey, T]]) -> list[tuple[SearchIndex, list[T]]]:
        parts: defaultdict[int, list[T]] = defaultdict(list)
        for key, item in items:
            parts[key[-1] % len(self._shards)].append(item)
        return [(self._shards[number], part) for number, part in parts.items()]


def _best(hits: Iterable[list[Hit]], limit: int) -> list[Hit]:
    return sorted(chain.from_iterable(hits), key=attrgetter("score"), reverse=True)[:limit]
