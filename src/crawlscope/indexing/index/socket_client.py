"""The index as a worker process sees it: calls to the process that owns it."""

import asyncio
from collections.abc import Sequence
from itertools import count
from pathlib import Path
from typing import Any
from uuid import UUID

from crawlscope.core.errors import CrawlscopeError, IndexUnavailable
from crawlscope.indexing.index import wire
from crawlscope.indexing.index.port import (
    FIRST_NAME,
    Filters,
    Floats,
    Halves,
    IndexedChunk,
    Indexes,
    IndexSize,
    SearchIndex,
    SparseVector,
)

BYTES_PER_UPSERT = 4 * 1024 * 1024
IDS_PER_CALL = 100_000
CONNECT_TIMEOUT_SECONDS = 2.0
CALL_TIMEOUT_SECONDS = 60.0


class RemoteIndex(SearchIndex):
    """Connects when first called, and again by itself after the owner was restarted.

    A call that was under way when the connection broke raises `IndexUnavailable`; it may or may not
    have been carried out. Every call can be repeated without harm.
    """

    def __init__(
        self,
        socket_path: Path,
        name: str = FIRST_NAME,
        connect_timeout_seconds: float = CONNECT_TIMEOUT_SECONDS,
        call_timeout_seconds: float = CALL_TIMEOUT_SECONDS,
    ) -> None:
        self._path = socket_path
        self._name = name
        self._connect_timeout_seconds = connect_timeout_seconds
        self._call_timeout_seconds = call_timeout_seconds
        self._connection: _Connection | None = None
        self._connecting = asyncio.Lock()

    async def upsert(self, chunks: Sequence[IndexedChunk]) -> None:
        for load in wire.in_loads(map(wire.pack_chunk, chunks), BYTES_PER_UPSERT):
            await self._call("upsert", chunks=load)

    async def cut(self, url: str, keep: int) -> None:
        await self._call("cut", url=url, keep=keep)

    async def set_crawl_ids(self, ids: Sequence[UUID], crawl_ids: Sequence[str]) -> None:
        for start in range(0, len(ids), IDS_PER_CALL):
            packed = wire.pack_ids(ids[start : start + IDS_PER_CALL])
            await self._call("set_crawl_ids", ids=packed, crawl_ids=list(crawl_ids))

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
        return wire.unpack_halves(answer)

    async def size(self) -> IndexSize:
        chunks, size_bytes = await self._call("size")
        return IndexSize(chunks, size_bytes)

    async def aclose(self) -> None:
        """Hangs up; the index itself belongs to the other process."""
        if self._connection is not None:
            await self._connection.aclose()
            self._connection = None

    async def _call(self, verb: str, **arguments: Any) -> Any:
        connection = await self._connected()
        try:
            async with asyncio.timeout(self._call_timeout_seconds):
                return await connection.call({"index": self._name, "verb": verb, **arguments})
        except TimeoutError:
            raise IndexUnavailable(
                f"the index did not answer within {self._call_timeout_seconds:g} s"
            ) from None

    async def _connected(self) -> "_Connection":
        async with self._connecting:
            if self._connection is None or self._connection.broken:
                self._connection = await self._connect()
            return self._connection

    async def _connect(self) -> "_Connection":
        try:
            async with asyncio.timeout(self._connect_timeout_seconds):
                reader, writer = await asyncio.open_unix_connection(self._path)
        except (OSError, TimeoutError) as error:
            reason = str(error) or f"no answer within {self._connect_timeout_seconds:g} s"
            raise IndexUnavailable(
                f"the process that owns the index does not answer at {self._path}: {reason}"
            ) from error
        return _Connection(reader, writer)


class RemoteIndexes(Indexes):
    """All indexes of the process that listens at the socket."""

    def __init__(self, socket_path: Path) -> None:
        self._path = socket_path
        self._opened: dict[str, RemoteIndex] = {}

    async def open(self, name: str, dimension: int) -> SearchIndex:  # noqa: ARG002 - its owner knows
        return self._opened.setdefault(name, RemoteIndex(self._path, name))

    async def aclose(self) -> None:
        for index in self._opened.values():
            await index.aclose()


class _Connection:
    """Many calls at once over one stream: answers find their call by its number, in any order."""

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
            raise _hung_up() from error
        finally:
            del self._waiting[number]
            if answer.done() and not answer.cancelled():
                answer.exception()  # counts as heard, also where writing failed first

    async def aclose(self) -> None:
        self._listening.cancel()
        await asyncio.wait([self._listening])

    async def _listen(self, reader: asyncio.StreamReader) -> None:
        try:
            while True:
                self._hand_over(await wire.read_frame(reader))
        except (asyncio.IncompleteReadError, ConnectionError, ValueError, CrawlscopeError):
            return  # whoever waits is told below, and the next call connects anew
        finally:
            self._writer.close()
            for answer in self._waiting.values():
                if not answer.done():
                    answer.set_exception(_hung_up())

    def _hand_over(self, message: wire.Message) -> None:
        answer = self._waiting.get(message["id"])
        if answer is None or answer.done():
            return  # its caller has given up
        if "error" in message:
            answer.set_exception(wire.unpack_error(message["error"]))
        else:
            answer.set_result(message["result"])


def _hung_up() -> IndexUnavailable:
    return IndexUnavailable("the process that owns the index hung up during a call")
