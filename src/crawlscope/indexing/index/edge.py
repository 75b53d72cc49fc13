"""The embedded index: a Qdrant Edge shard in this process."""

import asyncio
import ctypes
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any, NamedTuple, ParamSpec, Self, TypeAlias, TypeVar, cast
from uuid import UUID

import numpy as np
import qdrant_edge as engine
import structlog

from crawlscope.core.batcher import Batcher
from crawlscope.core.batches import batches
from crawlscope.core.errors import IndexUnavailable, one_line
from crawlscope.indexing.index import optimizing
from crawlscope.indexing.index.edge_shard import LOG, load, sync
from crawlscope.indexing.index.fields import BM25, DENSE, PREFIX_FIELD
from crawlscope.indexing.index.optimizing import Goal, Segment
from crawlscope.indexing.index.port import (
    ChunkId,
    ChunkPayload,
    ChunkText,
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
    chunk_id,
    chunk_payload,
)
from crawlscope.indexing.index.qdrant_common import (
    TEXT_FIELDS,
    as_floats,
    as_integers,
    by_crawl_ids,
    check_dimension,
    conditions,
    halves,
    has_phrase,
    portions,
    vectors_by_name,
)
from crawlscope.indexing.phrase import Phrase

POINTS_PER_UPDATE = 16
"""16 points are about 2 ms."""
URLS_PER_UPDATE = 32
HALVES_AT_ONCE = 8
"""Four queries that share one pass over the dense vectors take two thirds of their time."""
FLUSH_AFTER_POINTS = 16_384
"""A flush takes up to 0.3 s for any number of points, in which the engine holds the interpreter."""
FLUSH_AFTER_SECONDS = 5.0
"""The log of the changes is on the disk so soon, and all files if nothing else was written."""
OWN_FIELDS = tuple(ChunkText.__annotations__)
MAX_CHUNKS_PER_SECOND = 500.0
"""Optimisations wait while more are written: they need the processors, and links cannot follow."""
HASTE_SECONDS = 10.0
"""They wait so long after it, because crawls follow each other, and what comes meanwhile is written twice."""
RETRY_SECONDS = 600.0
"""After a failed optimisation, because the next one may fail as late."""

Answer = TypeVar("Answer")
P = ParamSpec("P")
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
    survives a power failure once the log is on the disk, a few seconds later.

    Chunks are in memory, and queries take time in proportion to their number, until `optimize`.

    The engine holds the interpreter lock while it works, so that a thread of its own would save nobody a
    wait. Each call and each change of a write takes one turn of the event loop instead.
    """

    def __init__(self, shard: engine.EdgeShard, path: Path, dimension: int) -> None:
        self._shard = shard
        self.path = path
        self._dimension = dimension
        self._writing = asyncio.Lock()
        self._reads = 0
        self._writes = 0
        """Chunks since it was opened."""
        self._looked: dict[Goal, tuple[int, float]] = dict.fromkeys(Goal, (0, time.monotonic()))
        """`_writes` and the time at the last look whether an optimisation is due."""
        self._in_haste_until = 0.0
        self._rebuilding: dict[Goal, list[Segment]] = {}
        self._changed: dict[Goal, set[str]] = {}
        """The URLs of what was written since the copy was made, for each optimisation in progress."""
        self._not_before = dict.fromkeys(Goal, 0.0)
        self._unflushed = 0
        self._flushing: asyncio.Task[None] | None = None
        self._closed = False
        self._halves = Batcher[_Half, list[Hit]](self._ask, max_items=HALVES_AT_ONCE)

    @classmethod
    def open(cls, path: Path, dimension: int) -> Self:
        """Blocks while the shard is loaded, about 0.3 s for 20,000 chunks.

        Raises `IndexUnavailable` if another process owns the folder, `IndexUnusable` if its content cannot be
        read or holds vectors of another dimension.
        """
        optimizing.install(path)
        shard = load(path, dimension)
        unfinished = engine.Filter(must=[engine.IsEmptyCondition(PREFIX_FIELD)])  # their writer was killed
        _safely(shard.update, engine.UpdateOperation.delete_points_by_filter(unfinished))
        optimizing.clean_up(path)
        return cls(shard, path, dimension)

    async def replace(self, documents: Sequence[IndexedDocument]) -> None:
        by_url = {document.url: document for document in documents}
        for document in by_url.values():
            check_dimension(document.dense, self._dimension)
        await self._write(by_url, _replacements(list(by_url.values())))

    async def set_crawl_ids(self, crawl_ids: Mapping[str, Sequence[str]]) -> None:
        changes = (
            partial(_set_crawl_ids, some, ids)
            for ids, urls in by_crawl_ids(crawl_ids).items()
            for some in portions(urls, URLS_PER_UPDATE)
        )
        await self._write(crawl_ids, changes)

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
            found = shard.retrieve(_points_of(ids), with_payload=True, with_vector=False)
            return {
                one: chunk_payload(one, payload)
                for one, payload in ((_bytes_of(point.id), point.payload or {}) for point in found)
                if "crawl_ids" in payload  # else its writer was killed
            }

        return await self._in_turn(retrieve)

    async def containing(self, phrase: Phrase, ids: Sequence[ChunkId], fields: Sequence[str]) -> set[ChunkId]:
        def compare(shard: engine.EdgeShard) -> set[ChunkId]:
            found = shard.retrieve(_points_of(ids), with_payload=TEXT_FIELDS, with_vector=False)
            return {_bytes_of(point.id) for point in found if has_phrase(phrase, point.payload, fields)}

        return await self._in_turn(compare)

    async def stored(self, ids: Sequence[ChunkId]) -> dict[ChunkId, StoredChunk]:
        def retrieve(shard: engine.EdgeShard) -> dict[ChunkId, StoredChunk]:
            found = shard.retrieve(_points_of(ids), with_payload=True, with_vector=True)
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
        return IndexSize(chunks, await asyncio.to_thread(optimizing.bytes_on_disk, self.path))

    async def optimize(self, goal: Goal) -> None:
        """Rebuilds segments that are due, in a process of its own; one call at a time for each goal.

        Searches and writes go on. At the end, writes wait until what was written meanwhile is in the new
        segments too, and searches wait while the shard is loaded.
        """
        if self._closed or time.monotonic() < self._not_before[goal]:
            return
        began, in_haste = time.monotonic(), self._is_in_haste(goal)
        try:
            async with self._writing:
                others = [each.folder for rebuilt in self._rebuilding.values() for each in rebuilt]
                segments = await asyncio.to_thread(optimizing.due, self.path, goal, others, in_haste)
                if not segments or not optimizing.has_space(self.path, segments):
                    return
                await self._flush()
                copy = await asyncio.to_thread(optimizing.make_copy, self.path, goal, segments)
                self._rebuilding[goal], self._changed[goal] = segments, set()
            if not await optimizing.optimize(copy, self._dimension, goal, lambda: not self._closed):
                return
            await self._replace_segments(copy, goal)
        except BaseException:
            self._not_before[goal] = time.monotonic() + RETRY_SECONDS
            raise
        finally:
            self._changed.pop(goal, None)
            self._rebuilding.pop(goal, None)
            await asyncio.to_thread(shutil.rmtree, optimizing.copy_of(self.path, goal), ignore_errors=True)
        log.info(
            "index_optimized",
            index=self.path.name,
            goal=goal,
            chunks=sum(each.chunks for each in segments),
            seconds=round(time.monotonic() - began, 1),
        )

    def _is_in_haste(self, goal: Goal) -> bool:
        """Whether many chunks came since the last call, or a short time before."""
        (writes, at), now = self._looked[goal], time.monotonic()
        self._looked[goal] = self._writes, now
        if self._writes - writes > MAX_CHUNKS_PER_SECOND * max(1.0, now - at):
            self._in_haste_until = now + HASTE_SECONDS
        return now < self._in_haste_until

    async def aclose(self) -> None:
        if self._closed:
            return

        if self._flushing is not None:
            self._flushing.cancel()
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
            raise IndexUnavailable(f"the index in {self.path} is closed")
        return _safely(call, self._shard)

    async def _write(self, urls: Iterable[str], changes: Iterator[Change]) -> None:
        async with self._writing:
            try:
                await self._apply(changes)
            finally:  # also if only some of the changes were made
                for changed in self._changed.values():
                    changed.update(urls)
        if self._flushing is None or self._flushing.done():
            self._flushing = asyncio.create_task(self._flush_later())

    async def _apply(self, changes: Iterator[Change]) -> None:
        reads = self._reads
        for change in changes:
            began = time.perf_counter()
            changed = self._call(change)
            self._unflushed += changed
            self._writes += changed
            # Searches have half of the time, if there are any: each takes several turns of the loop.
            is_searched, reads = self._reads > reads, self._reads
            await asyncio.sleep(time.perf_counter() - began if is_searched else 0)

    async def _replace_segments(self, copy: Path, goal: Goal) -> None:
        new = _safely(load, copy, self._dimension)
        try:
            await self._catch_up(new, goal)  # writes go on, so that they wait only for the rest
            async with self._writing:
                await self._catch_up(new, goal)
                new.close()
                await asyncio.to_thread(sync, self.path)  # or searches would wait for the disk
                more = optimizing.newest_change(copy) - optimizing.newest_change(self.path)
                await self._in_turn(partial(_pass_over, more))
                optimizing.finish(self.path, goal)
                await self._in_turn(self._reload)
        finally:
            new.close()

    async def _catch_up(self, new: engine.EdgeShard, goal: Goal) -> None:
        """Brings what was written meanwhile into a rebuilt copy."""
        changed, self._changed[goal] = self._changed[goal], set()
        for urls in portions(list(changed), URLS_PER_UPDATE):
            _safely(_delete_others, urls, set(), new)
            for url in urls if goal is Goal.FROZEN else ():
                numbers = count(step=POINTS_PER_UPDATE)
                while await self._in_turn(partial(_copy_chunks, url, next(numbers), new)):
                    pass
            await asyncio.sleep(0)

    def _reload(self, shard: engine.EdgeShard) -> None:
        shard.close()
        optimizing.install(self.path)
        optimizing.read_flags(self.path)
        self._shard = load(self.path, self._dimension)
        with suppress(AttributeError):  # glibc only, which keeps the memory of the segment that grew
            ctypes.CDLL(None).malloc_trim(0)

    async def _flush_later(self) -> None:
        """Once nothing is written for a while, or much was: a flush holds up searches."""
        try:
            while True:
                writes = self._writes
                await asyncio.sleep(FLUSH_AFTER_SECONDS)
                if writes == self._writes or self._unflushed >= FLUSH_AFTER_POINTS:
                    return await self._flush()
                await asyncio.to_thread(sync, self.path / LOG)
        except (IndexUnavailable, OSError) as error:
            log.error("index_flush_failed", error=str(error))  # noqa: TRY400 - the reason says it all

    async def _flush(self) -> None:
        await asyncio.to_thread(sync, self.path)  # or searches would wait for the disk
        self._unflushed = 0
        await self._in_turn(engine.EdgeShard.flush)


def _safely(call: Callable[P, Answer], *arguments: P.args, **named: P.kwargs) -> Answer:
    """Calls the engine."""
    try:
        return call(*arguments, **named)
    except Exception as error:
        raise IndexUnavailable(f"the index failed: {one_line(error)}") from error
    except BaseException as error:
        # A panic in the engine arrives as a BaseException, which would take the whole process down.
        if type(error).__name__ != "PanicException":
            raise
        raise IndexUnavailable(f"the index engine panicked: {one_line(error)}") from error


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
            # A view makes its numbers one by one: a list of them takes longer.
            vector: Any = np.asarray(dense, np.float32).data
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
    """The fields that the chunks have in common are set separately: to convert them for each chunk takes
    longer."""
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


def _copy_chunks(url: str, start: int, to: engine.EdgeShard, shard: engine.EdgeShard) -> bool:
    """False if the document has no chunk after these."""
    numbers = range(start, start + POINTS_PER_UPDATE)
    ids = _points_of(chunk_id(url, number) for number in numbers)
    found = shard.retrieve(ids, with_payload=True, with_vector=True)
    points, shared = list[engine.Point](), dict[str, Any]()
    for one in found:
        payload = one.payload or {}
        own = {field: payload.pop(field) for field in OWN_FIELDS if field in payload}
        points.append(engine.Point(one.id, cast("Any", one.vector), own))
        shared = payload
    to.update(engine.UpdateOperation.upsert_points(points))
    to.update(engine.UpdateOperation.set_payload([one.id for one in found], shared))
    return len(found) == POINTS_PER_UPDATE


def _pass_over(changes: int, shard: engine.EdgeShard) -> None:
    """The next change gets a number that is higher by so many."""
    for _ in range(changes):
        shard.update(engine.UpdateOperation.delete_points([]))


def _any_of(urls: Sequence[str]) -> engine.FieldCondition:
    return engine.FieldCondition(PREFIX_FIELD, match=engine.MatchAny(list(urls)))


def _hits(points: Sequence[engine.ScoredPoint]) -> list[Hit]:
    ids = cast("list[UUID]", [point.id for point in points])
    return Hit.all_of([one.int.to_bytes(16) for one in ids], [point.score for point in points])


def _points_of(ids: Iterable[ChunkId]) -> list[int | UUID | str]:
    """As the engine takes them: a UUID of Python takes ten times as long to make."""
    return [one.hex() for one in ids]


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
