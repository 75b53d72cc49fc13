"""The embedded index: a Qdrant Edge shard in this process, on a thread of its own."""

import asyncio
import os
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import TypeVar, cast
from uuid import UUID

import qdrant_edge as engine
import structlog

from crawlscope.core.errors import CrawlscopeError, IndexUnavailable, IndexUnusable
from crawlscope.indexing.index.port import (
    BM25,
    DENSE,
    ChunkPayload,
    Filters,
    Floats,
    Halves,
    Hit,
    IndexedChunk,
    IndexSize,
    SearchIndex,
    SparseVector,
)
from crawlscope.indexing.index.qdrant_common import (
    KEYWORD_FIELDS,
    PREFIX_FIELD,
    Condition,
    as_floats,
    as_integers,
    asked,
    check_dimension,
    conditions,
    gathered,
)

POINTS_PER_UPDATE = 64
"""The engine holds the interpreter lock while it works: 64 points are about 10 ms."""
IDS_PER_UPDATE = 1_000
FLUSH_AFTER_POINTS = 2_048
FLUSH_AFTER_SECONDS = 5.0

Answer = TypeVar("Answer")
log = structlog.get_logger(__name__)


class EdgeIndex(SearchIndex):
    """Owns its folder: a second process that opens it is refused.

    A write is in the engine's write-ahead log when it returns and so outlives the process, however
    that ends. It outlives the machine's power once flushed, a few seconds later.

    The engine's `optimize` is not used: it would hold the interpreter lock for seconds.
    """

    def __init__(
        self, shard: engine.EdgeShard, thread: ThreadPoolExecutor, path: Path, dimension: int
    ) -> None:
        self._shard = shard
        self._thread = thread
        self._path = path
        self._dimension = dimension
        self._unflushed = 0
        self._flush_timer: asyncio.TimerHandle | None = None
        self._closed = False

    @classmethod
    def open(cls, path: Path, dimension: int) -> "EdgeIndex":
        """Blocks while the shard is loaded, about 0.3 s for 20,000 chunks.

        Raises `IndexUnavailable` where another process owns the folder, `IndexUnusable` where what
        is in it cannot be read or holds vectors of another dimension.
        """
        thread = ThreadPoolExecutor(1, thread_name_prefix="index")
        try:
            shard = thread.submit(_load, path, dimension).result()
        except BaseException:
            thread.shutdown()
            raise
        return cls(shard, thread, path, dimension)

    async def upsert(self, chunks: Sequence[IndexedChunk]) -> None:
        for chunk in chunks:
            check_dimension(chunk.dense, self._dimension)
        for start in range(0, len(chunks), POINTS_PER_UPDATE):
            await self._write(partial(_upsert, chunks[start : start + POINTS_PER_UPDATE]))

    async def cut(self, url: str, keep: int) -> None:
        await self._write(partial(_cut, url, keep))

    async def set_crawl_ids(self, ids: Sequence[UUID], crawl_ids: Sequence[str]) -> None:
        for start in range(0, len(ids), IDS_PER_UPDATE):
            await self._write(partial(_set_crawl_ids, ids[start : start + IDS_PER_UPDATE], crawl_ids))

    async def query(
        self, dense: Floats | None, sparse: SparseVector | None, filters: Filters, limit: int
    ) -> Halves:
        if dense is not None:
            check_dimension(dense, self._dimension)
        return await self._on_thread(partial(_query, dense, sparse, _filter(filters), limit))

    async def size(self) -> IndexSize:
        chunks = await self._on_thread(lambda shard: shard.count(engine.CountRequest()))
        return IndexSize(chunks, await asyncio.to_thread(_bytes_on_disk, self._path))

    async def aclose(self) -> None:
        if self._closed:
            return
        self._stop_flush_timer()
        try:
            await self._on_thread(_close)
        finally:
            self._closed = True
            self._thread.shutdown(wait=False)

    async def _on_thread(self, call: Callable[[engine.EdgeShard], Answer]) -> Answer:
        if self._closed:
            raise IndexUnavailable(f"the index in {self._path} is closed")
        return await asyncio.wrap_future(self._submit(call))

    def _submit(self, call: Callable[[engine.EdgeShard], Answer]) -> Future[Answer]:
        return self._thread.submit(_translated, call, self._shard)

    async def _write(self, change: Callable[[engine.EdgeShard], int]) -> None:
        self._unflushed += await self._on_thread(change)
        if self._unflushed >= FLUSH_AFTER_POINTS:
            self._flush()
        elif self._flush_timer is None:
            self._flush_timer = asyncio.get_running_loop().call_later(FLUSH_AFTER_SECONDS, self._flush)

    def _flush(self) -> None:
        self._stop_flush_timer()
        if not self._closed:
            self._unflushed = 0
            self._submit(engine.EdgeShard.flush).add_done_callback(_report_flush)

    def _stop_flush_timer(self) -> None:
        if self._flush_timer is not None:
            self._flush_timer.cancel()
            self._flush_timer = None


def _load(path: Path, dimension: int) -> engine.EdgeShard:
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        shard = engine.EdgeShard.load(str(path), _config(dimension))
        _index_fields(shard)
    except Exception as error:
        raise _refusal(path, dimension, error) from error
    return shard


def _config(dimension: int) -> engine.EdgeConfig:
    return engine.EdgeConfig(
        vectors={DENSE: engine.EdgeVectorParams(dimension, engine.Distance.Cosine)},
        sparse_vectors={BM25: engine.EdgeSparseVectorParams(modifier=engine.Modifier.Idf)},
        wal_enabled=True,
    )


def _index_fields(shard: engine.EdgeShard) -> None:
    """Those that a process killed while it made the shard did not get to, or all."""
    schemas: dict[str, engine.PayloadSchemaType | engine.KeywordIndexParams] = {
        PREFIX_FIELD: engine.KeywordIndexParams(prefix=True),
        **dict.fromkeys(KEYWORD_FIELDS, engine.PayloadSchemaType.Keyword),
    }
    for field in schemas.keys() - shard.info().payload_schema.keys():
        shard.update(engine.UpdateOperation.create_field_index(field, schemas[field]))


def _refusal(path: Path, dimension: int, error: Exception) -> CrawlscopeError:
    """Tells the engine's refusals apart by their text: it has one exception for all."""
    reason = _one_line(error)
    if "WouldBlock" in reason:
        return IndexUnavailable(f"the index in {path} is in use by another process: stop that one first")
    if "config is incompatible" in reason:
        return IndexUnusable(
            f"the index in {path} does not hold vectors of {dimension} dimensions: run `crawlscope reindex`"
        )
    return IndexUnusable(f"the index in {path} cannot be read: run `crawlscope reindex` ({reason})")


def _translated(call: Callable[[engine.EdgeShard], Answer], shard: engine.EdgeShard) -> Answer:
    try:
        return call(shard)
    except Exception as error:
        raise IndexUnavailable(f"the index failed: {_one_line(error)}") from error
    except BaseException as error:
        # A panic in the engine arrives as a BaseException, which would take the whole process down.
        if type(error).__name__ != "PanicException":
            raise
        raise IndexUnavailable(f"the index engine panicked: {_one_line(error)}") from error


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())


def _upsert(chunks: Sequence[IndexedChunk], shard: engine.EdgeShard) -> int:
    shard.update(engine.UpdateOperation.upsert_points([_point(chunk) for chunk in chunks]))
    return len(chunks)


def _cut(url: str, keep: int, shard: engine.EdgeShard) -> int:
    of_document = engine.FieldCondition("url", match=engine.MatchValue(url))
    beyond = engine.FieldCondition("chunk_index", range=engine.RangeFloat(gte=keep))
    shard.update(engine.UpdateOperation.delete_points_by_filter(engine.Filter(must=[of_document, beyond])))
    return 1


def _set_crawl_ids(ids: Sequence[UUID], crawl_ids: Sequence[str], shard: engine.EdgeShard) -> int:
    """Through a filter, because an unknown id in a plain list of ids is an error to the engine."""
    known = engine.Filter(must=[engine.HasIdCondition(set(ids))])
    shard.update(engine.UpdateOperation.set_payload_by_filter(known, {"crawl_ids": list(crawl_ids)}))
    return len(ids)


def _point(chunk: IndexedChunk) -> engine.Point:
    vectors: dict[str, engine.NamedVector] = {
        DENSE: as_floats(chunk.dense),
        BM25: _sparse(chunk.sparse),
    }
    return engine.Point(chunk.id, vectors, dict(chunk.payload))


def _sparse(vector: SparseVector) -> engine.SparseVector:
    return engine.SparseVector(as_integers(vector.indices), as_floats(vector.values))


def _query(
    dense: Floats | None,
    sparse: SparseVector | None,
    where: engine.Filter | None,
    limit: int,
    shard: engine.EdgeShard,
) -> Halves:
    vectors = asked(dense, sparse)
    requests = [_request(name, vector, where, limit) for name, vector in vectors.items()]
    answers = shard.query_batch(engine.QueryBatchRequest(requests)) if requests else []
    return gathered(vectors, map(_hits, answers))


def _request(
    name: str, vector: Floats | SparseVector, where: engine.Filter | None, limit: int
) -> engine.QueryRequest:
    plain = _sparse(vector) if isinstance(vector, SparseVector) else as_floats(vector)
    return engine.QueryRequest(
        limit=limit, query=engine.Query.Nearest(plain, using=name), filter=where, with_payload=True
    )


def _hits(points: list[engine.ScoredPoint]) -> list[Hit]:
    return [Hit(cast("UUID", point.id), point.score, cast("ChunkPayload", point.payload)) for point in points]


def _filter(filters: Filters) -> engine.Filter | None:
    must: list[engine.ConditionType] = [_condition(condition) for condition in conditions(filters)]
    return engine.Filter(must=must) if must else None


def _condition(condition: Condition) -> engine.FieldCondition:
    match = (
        engine.MatchPrefix(*condition.texts)
        if condition.match == "prefix"
        else engine.MatchAny(list(condition.texts))
    )
    return engine.FieldCondition(condition.key, match=match)


def _bytes_on_disk(path: Path) -> int:
    """What the files take up: the engine makes some far larger than what is written in them."""
    total = 0
    for folder, _, names in os.walk(path):
        for name in names:
            try:
                total += Path(folder, name).stat().st_blocks * 512
            except FileNotFoundError:  # a log file that the engine has just dropped
                continue
    return total


def _close(shard: engine.EdgeShard) -> None:
    try:
        shard.flush()
    finally:
        shard.close()


def _report_flush(flushed: Future[None]) -> None:
    if error := flushed.exception():
        log.error("index_flush_failed", error=str(error))
