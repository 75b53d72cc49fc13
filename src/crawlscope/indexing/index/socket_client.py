"""The embedded indexes in API and workers: calls over a local socket to the index process."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any, cast

from crawlscope.core.batches import batches
from crawlscope.core.errors import CrawlscopeError, IndexUnavailable
from crawlscope.indexing.index import wire
from crawlscope.indexing.index.port import (
    ChunkId,
    ChunkPayload,
    Filters,
    Floats,
    Halves,
    IndexedDocument,
    IndexSize,
    OwnedIndexes,
    Rarities,
    SearchIndex,
    SparseVector,
    StoredChunk,
)
from crawlscope.indexing.phrase import Phrase

BYTES_PER_CALL = 4 * 1024 * 1024
CONNECT_TIMEOUT_SECONDS = 2.0
CALL_TIMEOUT_SECONDS = 60.0


class RemoteIndexes(OwnedIndexes):
    """Connects on the first call, and again after the index process was restarted.

    A call in progress when the connection breaks raises `IndexUnavailable`; it may or may not have been
    carried out. Every call can be repeated without harm.
    """

    def __init__(
        self,
        socket_path: Path,
        connect_timeout_seconds: float = CONNECT_TIMEOUT_SECONDS,
        call_timeout_seconds: float = CALL_TIMEOUT_SECONDS,
    ) -> None:
        self._path = socket_path
        self._connect_timeout_seconds = connect_timeout_seconds
        self._call_timeout_seconds = call_timeout_seconds
        self._opened: dict[str, RemoteIndex] = {}
        self._connection: _Connection | None = None
        self._connecting = asyncio.Lock()

    async def open(self, name: str, dimension: int) -> SearchIndex:
        return self._opened.setdefault(name, RemoteIndex(partial(self._call, name, dimension)))

    async def make(self, name: str, dimension: int) -> None:
        await self._call(name, dimension, "make")

    async def drop(self, name: str) -> None:
        self._opened.pop(name, None)
        await self._call(name, 0, "drop")

    async def aclose(self) -> None:
        if self._connection is not None:
            await self._connection.aclose()
            self._connection = None

    async def _call(self, name: str, dimension: int, verb: str, **arguments: Any) -> Any:
        connection = await self._connect()
        call = {"index": name, "dimension": dimension, "verb": verb, **arguments}
        try:
            async with asyncio.timeout(self._call_timeout_seconds):
                return await connection.call(call)
        except TimeoutError:
            raise IndexUnavailable(
                f"the index did not answer within {self._call_timeout_seconds:g} s"
            ) from None

    async def _connect(self) -> "_Connection":
        """The open connection, or a new one."""
        if self._connection and not self._connection.broken:
            return self._connection
        async with self._connecting:
            if self._connection and not self._connection.broken:
                return self._connection
            loop = asyncio.get_running_loop()
            try:
                async with asyncio.timeout(self._connect_timeout_seconds):
                    _, connection = await loop.create_unix_connection(_Connection, str(self._path))
            except (OSError, TimeoutError) as error:
                reason = str(error) or f"no answer within {self._connect_timeout_seconds:g} s"
                raise IndexUnavailable(f"no index process answers at {self._path}: {reason}") from error
            self._connection = connection
            return connection


class RemoteIndex(SearchIndex):
    def __init__(self, call: Callable[..., Awaitable[Any]]) -> None:
        self._call = call

    async def replace(self, documents: Sequence[IndexedDocument]) -> None:
        for batch in batches(map(wire.pack_document, documents), len, BYTES_PER_CALL):
            await self._call("replace", documents=batch)

    async def set_crawl_ids(self, crawl_ids: Mapping[str, Sequence[str]]) -> None:
        await self._call("set_crawl_ids", crawl_ids={url: list(ids) for url, ids in crawl_ids.items()})

    async def query(
        self, dense: Floats | None, sparse: SparseVector | None, filters: Filters, limit: int
    ) -> Halves:
        answer = await self._call(
            "query",
            dense=None if dense is None else wire.pack_floats(dense),
            sparse=None if sparse is None else wire.pack_sparse(sparse),
            filters=wire.pack_filters(filters),
            limit=limit,
        )
        return Halves(dense=wire.unpack_hits(answer[0]), bm25=wire.unpack_hits(answer[1]))

    async def payloads(self, ids: Sequence[ChunkId]) -> dict[ChunkId, ChunkPayload]:
        found: dict[ChunkId, ChunkPayload] = await self._call("payloads", ids=list(ids))
        return found

    async def containing(self, phrase: Phrase, ids: Sequence[ChunkId], fields: Sequence[str]) -> set[ChunkId]:
        call = {"words": phrase.words, "ids": list(ids), "fields": list(fields)}
        return set(await self._call("containing", **call))

    async def stored(self, ids: Sequence[ChunkId]) -> dict[ChunkId, StoredChunk]:
        return wire.unpack_stored(await self._call("stored", ids=list(ids)))

    async def rarities(self, terms: Sequence[int]) -> Rarities:
        chunks, idf = await self._call("rarities", terms=list(terms))
        return Rarities(chunks, dict(idf))

    async def size(self) -> IndexSize:
        chunks, size_bytes = await self._call("size")
        return IndexSize(chunks, size_bytes)

    async def aclose(self) -> None:
        """The connection belongs to all indexes of the process."""


class _Connection(asyncio.Protocol):
    """Many calls at once over one connection: each answer has the number of its call.

    A protocol takes half of the time of a stream with a task that reads it.
    """

    _transport: asyncio.Transport

    def __init__(self) -> None:
        self._frames = wire.Frames()
        self._numbers = count()
        self._waiting: dict[int, asyncio.Future[Any]] = {}
        self._lost = asyncio.get_running_loop().create_future()

    @property
    def broken(self) -> bool:
        return self._transport.is_closing()

    async def call(self, message: wire.Message) -> Any:
        number = next(self._numbers)
        framed = wire.frame({"id": number, **message})
        answer = self._waiting[number] = asyncio.get_running_loop().create_future()
        try:
            self._transport.write(framed)
            return await answer
        finally:
            del self._waiting[number]

    async def aclose(self) -> None:
        self._transport.abort()
        await self._lost

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        self._frames.add(data)
        try:
            while (message := self._frames.next()) is not None:
                self._take(message)
        except (ValueError, CrawlscopeError):
            self._transport.abort()  # the next call connects again

    def connection_lost(self, _: Exception | None) -> None:
        for answer in self._waiting.values():
            if not answer.done():
                answer.set_exception(_disconnected())
        self._lost.set_result(None)

    def _take(self, message: wire.Message) -> None:
        answer = self._waiting.get(message["id"])
        if answer is None or answer.done():
            return  # its caller was cancelled
        if "error" in message:
            answer.set_exception(wire.unpack_error(message["error"]))
        else:
            answer.set_result(message["result"])


def _disconnected() -> IndexUnavailable:
    return IndexUnavailable("the index process closed the connection during a call")
