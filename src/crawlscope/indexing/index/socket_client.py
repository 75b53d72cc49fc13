"""The embedded indexes in API and workers: calls over a local socket to the index process."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

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
        async with self._connecting:
            if self._connection and not self._connection.broken:
                return self._connection
            try:
                async with asyncio.timeout(self._connect_timeout_seconds):
                    reader, writer = await asyncio.open_unix_connection(self._path)
            except (OSError, TimeoutError) as error:
                reason = str(error) or f"no answer within {self._connect_timeout_seconds:g} s"
                raise IndexUnavailable(f"no index process answers at {self._path}: {reason}") from error
            self._connection = _Connection(reader, writer)
            return self._connection


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


class _Connection:
    """Many calls at once over one stream: each answer has the number of its call."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writer = writer
        self._numbers = count()
        self._waiting: dict[int, asyncio.Future[Any]] = {}
        self._listening = asyncio.create_task(self._listen(reader))

    @property
    def broken(self) -> bool:
        return self._listening.done()

    async def call(self, message: wire.Message) -> Any:
        number = next(self._numbers)
        framed = wire.frame({"id": number, **message})
        answer = self._waiting[number] = asyncio.get_running_loop().create_future()
        try:
            self._writer.write(framed)
            await self._writer.drain()
            return await answer
        except ConnectionError as error:
            raise _disconnected() from error
        finally:
            del self._waiting[number]
            if answer.done() and not answer.cancelled():
                answer.exception()  # retrieved, or asyncio would log it if writing failed first

    async def aclose(self) -> None:
        self._listening.cancel()
        await asyncio.wait([self._listening])

    async def _listen(self, reader: asyncio.StreamReader) -> None:
        try:
            while True:
                message = await wire.read_frame(reader)
                answer = self._waiting.get(message["id"])
                if answer is None or answer.done():
                    continue  # its caller was cancelled
                if "error" in message:
                    answer.set_exception(wire.unpack_error(message["error"]))
                else:
                    answer.set_result(message["result"])
        except (asyncio.IncompleteReadError, ConnectionError, ValueError, CrawlscopeError):
            return  # the next call connects again
        finally:
            self._writer.close()
            for answer in self._waiting.values():
                if not answer.done():
                    answer.set_exception(_disconnected())


def _disconnected() -> IndexUnavailable:
    return IndexUnavailable("the index process closed the connection during a call")
