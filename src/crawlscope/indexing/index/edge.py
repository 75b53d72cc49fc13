"""The embedded index: a Qdrant Edge shard in this process."""

import asyncio
import os
import shutil
import time
from array import array
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, Self, TypeAlias, TypeVar, cast
from uuid import UUID

import numpy as np
import qdrant_edge as engine
import structlog

from crawlscope.core.batcher import Batcher
from crawlscope.core.batches import batches
from crawlscope.core.errors import CrawlscopeError, IndexUnavailable, IndexUnusable
from crawlscope.indexing.index import optimizing
from crawlscope.indexing.index.port import (
    BM25,
    DENSE,
    ChunkId,
    ChunkPayload,
    Filters,
    Floats,
    Halves,
    Hit,
    IndexedDocument,
    IndexSize,
    Rarities,
    SearchIndex,
    SparseVector,
    StoredChunk,
    chunk_payload,
)
from crawlscope.indexing.index.qdrant_common import (
    KEYWORD_FIELDS,
    PREFIX_FIELD,
    as_floats,
    as_integers,
    by_crawl_ids,
    check_dimension,
    conditions,
    halves,
    one_line,
    portions,
    vectors_by_name,
)

POINTS_PER_UPDATE = 16
"""16 points are about 2 ms."""
URLS_PER_UPDATE = 32
HALVES_AT_ONCE = 8
"""Four queries that share one pass over the dense vectors take two thirds of their time."""
FLUSH_AFTER_POINTS = 16_384
"""A flush takes up to 0.3 s for any number of points."""
FLUSH_AFTER_SECONDS = 5.0
IDLE_SECONDS = 60.0
MIN_UNOPTIMIZED_CHUNKS = 20_000
"""A query over fewer takes about 2 ms."""

Answer = TypeVar("Answer")
Change: TypeAlias = Callable[[engine.EdgeShard], int]
"""Changes the shard; returns the number of changed points."""
log = structlog.get_logger(__name__)


class _Half(NamedTuple):
    """A half of a query."""

    vector: str
    """The name of the vector."""
    request: engine.QueryRequest


class EdgeIndex(SearchIndex):
    """Owns its folder: a second process cannot open it.

    A write is in the engine's write-ahead log when it returns, so it survives a crash of the process. It
    survives a power failure once flushed, a few seconds later.

    Queries take time in proportion to the chunks that were written since the last `optimize`.

    The engine holds the interpreter lock while it works, so that a thread of its own would save nobody a
    wait. Each call and each change of a write takes one turn of the event loop instead.
    """

    def __init__(self, shard: engine.EdgeShard, path: Path, dimension: int) -> None:
        self._shard = shard
        self._path = path
        self._dimension = dimension
        self._writing = asyncio.Lock()
        self._writes = 0
        self._reads = 0
        self._written_at = time.monotonic()
        self._optimized_writes = -1
        self._unflushed = 0
        self._flush_timer: asyncio.TimerHandle | None = None
        self._closed = False
        self._halves = Batcher[_Half, list[Hit]](self._ask, max_items=HALVES_AT_ONCE)

    @classmethod
    def open(cls, path: Path, dimension: int) -> Self:
        """Blocks while the shard is loaded, about 0.3 s for 20,000 chunks.

        Raises `IndexUnavailable` if another process owns the folder, `IndexUnusable` if its content cannot be
        read or holds vectors of another dimension.
        """
        optimizing.restore(path)
        shard = _load(path, dimension)
        optimizing.clean_up(path)
        return cls(shard, path, dimension)

    async def replace(self, documents: Sequence[IndexedDocument]) -> None:
        by_url = {document.url: document for document in documents}
        for document in by_url.values():
            check_dimension(document.dense, self._dimension)
        await self._write(_replacements(list(by_url.values())))

    async def set_crawl_ids(self, crawl_ids: Mapping[str, Sequence[str]]) -> None:
        changes = (
            partial(_set_crawl_ids, some, ids)
            for ids, urls in by_crawl_ids(crawl_ids).items()
            for some in portions(urls, URLS_PER_UPDATE)
        )
        await self._write(changes)

    async def query(
        self, dense: Floats | None, sparse: SparseVector | None, filters: Filters, limit: int
    ) -> Halves:
        if dense is not None:
            check_dimension(dense, self._dimension)
        where, vectors = _filter(filters), vectors_by_name(dense, sparse)
        asked = [
            _Half(
                name,
                engine.QueryRequest(
                    limit=limit, query=engine.Query.Nearest(_engine_vector(vector), using=name), filter=where
                ),
            )
            for name, vector in vectors.items()
        ]
        return halves(vectors, await self._halves.add_all(asked))

    async def payloads(self, ids: Sequence[ChunkId]) -> dict[ChunkId, ChunkPayload]:
        def retrieve(shard: engine.EdgeShard) -> dict[ChunkId, ChunkPayload]:
            uuids: list[int | UUID | str] = [UUID(bytes=one) for one in ids]
            found = shard.retrieve(uuids, with_payload=True, with_vector=False)
            return {
                one: chunk_payload(one, payload)
                for one, payload in ((_bytes_of(point.id), point.payload or {}) for point in found)
                if "crawl_ids" in payload  # else its writer was killed
            }

        return await self._in_turn(retrieve)

    async def stored(self, ids: Sequence[ChunkId]) -> dict[ChunkId, StoredChunk]:
        def retrieve(shard: engine.EdgeShard) -> dict[ChunkId, StoredChunk]:
            uuids: list[int | UUID | str] = [UUID(bytes=one) for one in ids]
            found = shard.retrieve(uuids, with_payload=True, with_vector=True)
            return {
                _bytes_of(point.id): StoredChunk(
                    payload["text"],
                    np.asarray(cast("Any", point.vector)[DENSE], np.float32),
                    payload.get("parts", ""),
                )
                for point, payload in ((point, point.payload or {}) for point in found)
            }

        return await self._in_turn(retrieve)

    async def rarities(self, terms: Sequence[int]) -> Rarities:
        def measure(shard: engine.EdgeShard) -> Rarities:
            chunks, found = shard.count(engine.CountRequest()), dict[int, float]()
            requests = [
                engine.QueryRequest(
                    limit=1,
                    query=engine.Query.Nearest(engine.SparseVector([term], [1.0]), using=BM25),
                    with_vector=[BM25],
                )
                for term in terms
            ]
            answers = shard.query_batch(engine.QueryBatchRequest(requests)) if requests else []
            for term, points in zip(terms, answers, strict=True):
                for point in points:
                    vector = cast("Any", point.vector)[BM25]
                    found[term] = point.score / vector.values[vector.indices.index(term)]
            return Rarities(chunks, found)

        return await self._in_turn(measure)

    async def size(self) -> IndexSize:
        chunks = await self._in_turn(lambda shard: shard.count(engine.CountRequest()))
        return IndexSize(chunks, await asyncio.to_thread(_bytes_on_disk, self._path))

    async def optimize_when_idle(self) -> None:
        """Optimises what many writes have left, if there was no write for a while; one meanwhile stops it.

        At its end, searches wait while the result is loaded, about a second for 100,000 chunks.
        """
        if self._writes == self._optimized_writes or time.monotonic() - self._written_at < IDLE_SECONDS:
            return
        if await self._in_turn(_unoptimized) < MIN_UNOPTIMIZED_CHUNKS:
            return
        size_bytes = await asyncio.to_thread(_bytes_on_disk, self._path)
        if not await asyncio.to_thread(optimizing.has_space, self._path, size_bytes):
            return
        began = time.monotonic()
        async with self._writing:
            writes = self._writes
            await self._in_turn(engine.EdgeShard.flush)
            copy = await asyncio.to_thread(optimizing.make_copy, self._path)

        def unchanged() -> bool:
            return self._writes == writes and not self._closed

        async with optimizing.optimized(copy, unchanged) as done, self._writing:
            if not unchanged():
                log.info("index_optimization_stopped", index=self._path.name)
                return
            self._optimized_writes = writes  # also if it failed: it would fail again
            if not done:
                raise IndexUnusable(f"the copy of the index in {self._path} could not be optimised")
            await self._in_turn(partial(self._replace_by, copy))
        log.info("index_optimized", index=self._path.name, seconds=round(time.monotonic() - began, 1))

    async def aclose(self) -> None:
        if self._closed:
            return

        self._stop_flush_timer()
        try:
            self._call(engine.EdgeShard.flush)
        finally:
            self._closed = True
            self._shard.close()

    async def _ask(self, asked: Sequence[_Half]) -> list[list[Hit]]:
        """The engine compares halves in one pass that follow each other and differ only in their vector."""
        order = sorted(range(len(asked)), key=lambda number: asked[number].vector)
        requests = [asked[number].request for number in order]
        answers = await self._in_turn(lambda shard: shard.query_batch(engine.QueryBatchRequest(requests)))
        found = dict(zip(order, answers, strict=True))
        return [_hits(found[number]) for number in range(len(asked))]

    async def _in_turn(self, call: Callable[[engine.EdgeShard], Answer]) -> Answer:
        await asyncio.sleep(0)
        self._reads += 1
        return self._call(call)

    def _call(self, call: Callable[[engine.EdgeShard], Answer]) -> Answer:
        if self._closed:
            raise IndexUnavailable(f"the index in {self._path} is closed")
        try:
            return call(self._shard)
        except Exception as error:
            raise IndexUnavailable(f"the index failed: {one_line(error)}") from error
        except BaseException as error:
            # A panic in the engine arrives as a BaseException, which would take the whole process down.
            if type(error).__name__ != "PanicException":
                raise
            raise IndexUnavailable(f"the index engine panicked: {one_line(error)}") from error

    async def _write(self, changes: Iterator[Change]) -> None:
        async with self._writing:
            self._writes += 1
            self._written_at = time.monotonic()
            reads = self._reads
            for change in changes:
                began = time.perf_counter()
                self._unflushed += self._call(change)
                # Searches have half of the time, if there are any: each takes several turns of the loop.
                is_searched, reads = self._reads > reads, self._reads
                await asyncio.sleep(time.perf_counter() - began if is_searched else 0)
        if self._unflushed >= FLUSH_AFTER_POINTS:
            self._flush()
        elif self._flush_timer is None:
            self._flush_timer = asyncio.get_running_loop().call_later(FLUSH_AFTER_SECONDS, self._flush)

    def _replace_by(self, copy: Path, shard: engine.EdgeShard) -> None:
        """`copy` holds the same; if it cannot be loaded, the former shard stays."""
        chunks, former = shard.count(engine.CountRequest()), optimizing.former_of(self._path)
        shard.close()
        try:
            self._path.rename(former)
            copy.rename(self._path)
            self._shard = _load(self._path, self._dimension, chunks)
        except BaseException:  # a panic of the engine is no Exception
            if former.exists():
                if self._path.exists():
                    self._path.rename(copy)
                former.rename(self._path)
            self._shard = _load(self._path, self._dimension)
            raise
        shutil.rmtree(former, ignore_errors=True)

    def _flush(self) -> None:
        self._stop_flush_timer()
        if self._closed:
            return
        self._unflushed = 0
        try:
            self._call(engine.EdgeShard.flush)
        except IndexUnavailable as error:
            log.error("index_flush_failed", error=str(error))  # noqa: TRY400 - the reason says it all

    def _stop_flush_timer(self) -> None:
        if self._flush_timer is not None:
            self._flush_timer.cancel()
            self._flush_timer = None


def _load(path: Path, dimension: int, chunks: int | None = None) -> engine.EdgeShard:
    """Raises `IndexUnusable` if it does not hold `chunks`, if these are given."""
    config = engine.EdgeConfig(
        vectors={DENSE: engine.EdgeVectorParams(dimension, engine.Distance.Cosine)},
        sparse_vectors={BM25: engine.EdgeSparseVectorParams(modifier=engine.Modifier.Idf)},
        wal_enabled=True,
    )
    schemas: dict[str, engine.PayloadSchemaType | engine.KeywordIndexParams] = {
        PREFIX_FIELD: engine.KeywordIndexParams(prefix=True),
        **dict.fromkeys(KEYWORD_FIELDS, engine.PayloadSchemaType.Keyword),
    }
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        shard = engine.EdgeShard.load(str(path), config)
        # Some are missing if a process was killed while it made the shard.
        for field in schemas.keys() - shard.info().payload_schema.keys():
            shard.update(engine.UpdateOperation.create_field_index(field, schemas[field]))
    except Exception as error:
        raise _refusal(path, dimension, error) from error
    if chunks is not None and (found := shard.count(engine.CountRequest())) != chunks:
        shard.close()
        raise IndexUnusable(f"the index in {path} holds {found} chunks, not {chunks}")
    return shard


def _unoptimized(shard: engine.EdgeShard) -> int:
    """Chunks that a query compares one by one. The engine counts both vectors of the others as indexed."""
    info = shard.info()
    return 2 * info.points_count - info.indexed_vectors_count


def _refusal(path: Path, dimension: int, error: Exception) -> CrawlscopeError:
    """Distinguishes the engine's errors by their text, because it has one exception for all."""
    reason = one_line(error)
    if "WouldBlock" in reason:
        return IndexUnavailable(f"the index in {path} is in use by another process: stop that one first")
    if "config is incompatible" in reason:
        return IndexUnusable(
            f"the index in {path} does not hold vectors of {dimension} dimensions: run `crawlscope reindex`"
        )
    return IndexUnusable(f"the index in {path} cannot be read: run `crawlscope reindex` ({reason})")


@dataclass(frozen=True)
class _Part:
    """Chunks of a document, from number `start` to before `stop`."""

    document: IndexedDocument
    start: int
    stop: int

    def __len__(self) -> int:
        return self.stop - self.start

    @property
    def ids(self) -> list[UUID]:
        return self.document.ids[self.start : self.stop]

    def points(self) -> Iterator[engine.Point]:
        document, chunks = self.document, slice(self.start, self.stop)
        rows = zip(
            *(self.ids, document.chunk_texts[chunks], document.dense[chunks], document.sparse[chunks]),
            strict=True,
        )
        for one, text, dense, sparse in rows:
            # An array makes its numbers one by one: a list of them takes twice the time.
            vector: Any = array("f", np.asarray(dense, np.float32).tobytes())
            yield engine.Point(one, {DENSE: vector, BM25: _engine_vector(sparse)}, dict(text))


def _replacements(documents: Sequence[IndexedDocument]) -> Iterator[Change]:
    for some in portions(documents, URLS_PER_UPDATE):
        parts = (
            _Part(document, start, min(start + POINTS_PER_UPDATE, len(document.texts)))
            for document in some
            for start in range(0, len(document.texts), POINTS_PER_UPDATE)
        )
        for batch in batches(parts, len, POINTS_PER_UPDATE):
            yield partial(_upsert, batch)
        stored = {one for document in some for one in document.ids}
        yield partial(_delete_others, [document.url for document in some], stored)


def _upsert(parts: Sequence[_Part], shard: engine.EdgeShard) -> int:
    """The fields that the chunks have in common are set separately: converting them for each chunk would take
    longer than all the rest."""
    points = [point for part in parts for point in part.points()]
    shard.update(engine.UpdateOperation.upsert_points(points))
    for part in parts:
        ids: list[int | UUID | str] = [*part.ids]
        shard.update(engine.UpdateOperation.set_payload(ids, dict(part.document.payload)))
    return len(points)


def _delete_others(urls: Sequence[str], stored: set[UUID], shard: engine.EdgeShard) -> int:
    """Deletes the chunks of these URLs except the stored ones."""
    others = engine.Filter(must=[_any_of(urls)], must_not=[engine.HasIdCondition({*stored})])
    shard.update(engine.UpdateOperation.delete_points_by_filter(others))
    return len(urls)


def _set_crawl_ids(urls: Sequence[str], crawl_ids: Sequence[str], shard: engine.EdgeShard) -> int:
    which = engine.Filter(must=[_any_of(urls)])
    shard.update(engine.UpdateOperation.set_payload_by_filter(which, {"crawl_ids": list(crawl_ids)}))
    return len(urls)


def _any_of(urls: Sequence[str]) -> engine.FieldCondition:
    return engine.FieldCondition(PREFIX_FIELD, match=engine.MatchAny(list(urls)))


def _hits(points: Sequence[engine.ScoredPoint]) -> list[Hit]:
    return Hit.all_of([_bytes_of(point.id) for point in points], [point.score for point in points])


def _bytes_of(identity: int | UUID | str) -> ChunkId:
    return cast("UUID", identity).bytes


def _engine_vector(vector: Floats | SparseVector) -> list[float] | engine.SparseVector:
    if isinstance(vector, SparseVector):
        return engine.SparseVector(as_integers(vector.indices), as_floats(vector.values))
    return as_floats(vector)


def _filter(filters: Filters) -> engine.Filter | None:
    must: list[engine.ConditionType] = []
    must_not: list[engine.ConditionType] = []
    for condition in conditions(filters):
        prefix = condition.match == "prefix"
        match = engine.MatchPrefix(*condition.texts) if prefix else engine.MatchAny(list(condition.texts))
        (must_not if condition.match == "none" else must).append(
            engine.FieldCondition(condition.key, match=match)
        )
    return engine.Filter(must=must, must_not=must_not) if must or must_not else None


def _bytes_on_disk(path: Path) -> int:
    """The blocks that the files occupy: the engine makes some far larger than their content."""
    total = 0
    for folder, _, names in os.walk(path):
        for name in names:
            try:
                total += Path(folder, name).stat().st_blocks * 512
            except FileNotFoundError:  # a log file that the engine has just dropped
                continue
    return total
