"""An index in several shards, each in a process of its own: a document is in the shard of its key."""

import asyncio
import time
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from itertools import chain
from operator import attrgetter
from typing import TypeVar

import numpy as np

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
    Rarities,
    SearchIndex,
    SparseVector,
    StoredChunk,
    document_key,
)
from crawlscope.indexing.index.qdrant_common import as_integers, chunks_with_term, idf
from crawlscope.indexing.phrase import Phrase

T = TypeVar("T")

COUNT_AGAIN_SECONDS = 60.0
MAX_FACTORS = 20_000


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
    """Each shard knows only how rare a word is among its own chunks, so queries carry the difference."""

    def __init__(self, shards: Sequence[SearchIndex]) -> None:
        self._shards = shards
        self._factors: dict[int, list[float]] = {}
        """The factors with which each term counts in each shard as in the whole index."""
        self._next_count = 0.0

    async def replace(self, documents: Sequence[IndexedDocument]) -> None:
        parts = self._by_shard((document_key(document.url), document) for document in documents)
        await asyncio.gather(*(shard.replace(part) for shard, part in parts))

    async def set_crawl_ids(self, crawl_ids: Mapping[str, Sequence[str]]) -> None:
        parts = self._by_shard((document_key(url), (url, ids)) for url, ids in crawl_ids.items())
        await asyncio.gather(*(shard.set_crawl_ids(dict(part)) for shard, part in parts))

    async def query(
        self, dense: Floats | None, sparse: SparseVector | None, filters: Filters, limit: int
    ) -> Halves:
        parts: Sequence[SparseVector | None] = [sparse] * len(self._shards)
        if sparse is not None and len(sparse.indices):
            parts = await self._by_rarity(sparse)
        found = await asyncio.gather(
            *(
                shard.query(dense, part, filters, limit)
                for shard, part in zip(self._shards, parts, strict=True)
            )
        )
        return Halves(
            dense=_best((halves.dense for halves in found), limit),
            bm25=_best((halves.bm25 for halves in found), limit),
        )

    async def payloads(self, ids: Sequence[ChunkId]) -> dict[ChunkId, ChunkPayload]:
        parts = self._by_shard((one[:DOCUMENT_KEY_BYTES], one) for one in ids)
        found = await asyncio.gather(*(shard.payloads(part) for shard, part in parts))
        return {one: payload for part in found for one, payload in part.items()}

    async def containing(self, phrase: Phrase, ids: Sequence[ChunkId], fields: Sequence[str]) -> set[ChunkId]:
        parts = self._by_shard((one[:DOCUMENT_KEY_BYTES], one) for one in ids)
        found = await asyncio.gather(*(shard.containing(phrase, part, fields) for shard, part in parts))
        return set().union(*found)

    async def stored(self, ids: Sequence[ChunkId]) -> dict[ChunkId, StoredChunk]:
        parts = self._by_shard((one[:DOCUMENT_KEY_BYTES], one) for one in ids)
        found = await asyncio.gather(*(shard.stored(part) for shard, part in parts))
        return {one: chunk for part in found for one, chunk in part.items()}

    async def rarities(self, terms: Sequence[int]) -> Rarities:
        shards = await self._rarities_in_shards(terms)
        found = {term for each in shards for term in each.idf}
        return Rarities(
            sum(each.chunks for each in shards), {term: _idf_in_all(shards, term) for term in found}
        )

    async def size(self) -> IndexSize:
        sizes = await asyncio.gather(*(shard.size() for shard in self._shards))
        return IndexSize(sum(size.chunks for size in sizes), sum(size.bytes or 0 for size in sizes))

    async def require_writable(self) -> None:
        await asyncio.gather(*(shard.require_writable() for shard in self._shards))

    async def aclose(self) -> None:
        await asyncio.gather(*(shard.aclose() for shard in self._shards))

    async def _by_rarity(self, sparse: SparseVector) -> list[SparseVector]:
        """The query of each shard. A term counts in each as it would in one index of all chunks."""
        terms = as_integers(sparse.indices)
        if time.monotonic() >= self._next_count or len(self._factors) > MAX_FACTORS:
            self._factors.clear()
            self._next_count = time.monotonic() + COUNT_AGAIN_SECONDS
        of_terms = {term: self._factors[term] for term in terms if term in self._factors}
        if new := [term for term in terms if term not in of_terms]:
            shards = await self._rarities_in_shards(new)  # meanwhile another query may forget all factors
            for term in new:
                overall = _idf_in_all(shards, term)
                of_terms[term] = self._factors[term] = [
                    overall / (each.idf.get(term) or overall) for each in shards
                ]
        factors = np.array([of_terms[term] for term in terms], np.float32).T
        return [SparseVector(terms, np.asarray(sparse.values, np.float32) * each) for each in factors]

    async def _rarities_in_shards(self, terms: Sequence[int]) -> list[Rarities]:
        return await asyncio.gather(*(shard.rarities(terms) for shard in self._shards))

    def _by_shard(self, items: Iterable[tuple[DocumentKey, T]]) -> list[tuple[SearchIndex, list[T]]]:
        parts: defaultdict[int, list[T]] = defaultdict(list)
        for key, item in items:
            parts[key[-1] % len(self._shards)].append(item)
        return [(self._shards[number], part) for number, part in parts.items()]


def _idf_in_all(shards: Sequence[Rarities], term: int) -> float:
    chunks = sum(each.chunks for each in shards)
    found = sum(chunks_with_term(each.chunks, each.idf[term]) for each in shards if term in each.idf)
    return idf(chunks, min(found, chunks))


def _best(hits: Iterable[list[Hit]], limit: int) -> list[Hit]:
    return sorted(chain.from_iterable(hits), key=attrgetter("score"), reverse=True)[:limit]
