"""Serves the indexes that this process owns to the other processes of the machine, over a local socket."""

import asyncio
import os
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

import structlog

from crawlscope.core.errors import CrawlscopeError, IndexUnavailable
from crawlscope.indexing.index import wire
from crawlscope.indexing.index.port import Filters, SearchIndex

CALLS_IN_FLIGHT = 32
"""Per connection; the frames after these stay in the socket until one is answered."""

log = structlog.get_logger(__name__)


class IndexServer:
    """Whoever may open the socket file, which is this user alone, may do all that an index can.

    `indexes` by name; it may change meanwhile.
    """

    def __init__(self, indexes: Mapping[str, SearchIndex], socket_path: Path) -> None:
        self._indexes = indexes
        self._path = socket_path
        self._server: asyncio.Server | None = None
        self._connections: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Takes the place of a killed server; raises `IndexUnavailable` where a living one listens."""
        self._server = await asyncio.start_unix_server(self._accept, sock=_bind(self._path))

    async def stop(self) -> None:
        """Calls in flight are cut off: their callers get `IndexUnavailable`. The indexes stay open."""
        if self._server is None:
            return
        self._server.close()
        for connection in self._connections:
            connection.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)
        await self._server.wait_closed()
        self._server = None
        self._path.unlink(missing_ok=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = asyncio.create_task(self._serve(reader, writer))
        self._connections.add(connection)
        connection.add_done_callback(self._connections.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        in_flight = asyncio.Semaphore(CALLS_IN_FLIGHT)
        try:
            async with asyncio.TaskGroup() as calls:
                async for call in _calls(reader):
                    await in_flight.acquire()
                    answer = calls.create_task(self._answer(call, writer))
                    answer.add_done_callback(lambda _: in_flight.release())
        finally:
            writer.close()

    async def _answer(self, call: wire.Message, writer: asyncio.StreamWriter) -> None:
        answer = {"id": call.get("id"), **await self._outcome(call)}
        try:
            writer.write(_framed(answer))
            await writer.drain()
        except ConnectionError:
            log.info("index_caller_gone", verb=call.get("verb"))

    async def _outcome(self, call: wire.Message) -> wire.Message:
        try:
            return {"result": await _VERBS[call["verb"]](self._index(call["index"]), call)}
        except CrawlscopeError as error:
            return {"error": wire.pack_error(error)}
        except Exception as error:
            log.exception("index_call_failed", verb=call.get("verb"))
            return {"error": wire.pack_error(CrawlscopeError(f"the index call failed: {error!r}"))}

    def _index(self, name: str) -> SearchIndex:
        if name not in self._indexes:
            raise IndexUnavailable(f"the index {name} is not open")
        return self._indexes[name]


async def _upsert(index: SearchIndex, call: wire.Message) -> None:
    await index.upsert([wire.unpack_chunk(chunk) for chunk in call["chunks"]])


async def _cut(index: SearchIndex, call: wire.Message) -> None:
    await index.cut(call["url"], call["keep"])


async def _set_crawl_ids(index: SearchIndex, call: wire.Message) -> None:
    await index.set_crawl_ids(wire.unpack_ids(call["ids"]), call["crawl_ids"])


async def _query(index: SearchIndex, call: wire.Message) -> dict[str, list[Any]]:
    dense, sparse = call["dense"], call["sparse"]
    halves = await index.query(
        None if dense is None else wire.unpack_floats(dense),
        None if sparse is None else wire.unpack_sparse(sparse),
        Filters(**call["filters"]),
        call["limit"],
    )
    return wire.pack_halves(halves)


async def _size(index: SearchIndex, _: wire.Message) -> list[int | None]:
    size = await index.size()
    return [size.chunks, size.bytes]


_VERBS: dict[str, Callable[[SearchIndex, wire.Message], Awaitable[Any]]] = {
    "upsert": _upsert,
    "cut": _cut,
    "set_crawl_ids": _set_crawl_ids,
    "query": _query,
    "size": _size,
}


async def _calls(reader: asyncio.StreamReader) -> AsyncIterator[wire.Message]:
    """Ends with the connection, and where what arrives is not a call."""
    while True:
        try:
            yield await wire.read_frame(reader)
        except (asyncio.IncompleteReadError, ConnectionError):
            return
        except (wire.FrameTooLarge, ValueError) as error:
            log.warning("index_call_unreadable", error=str(error))
            return


def _framed(answer: wire.Message) -> bytes:
    try:
        return wire.frame(answer)
    except wire.FrameTooLarge as error:
        return wire.frame({"id": answer["id"], "error": wire.pack_error(error)})


def _bind(path: Path) -> socket.socket:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    _remove_stale(path)
    listener = socket.socket(socket.AF_UNIX)
    old_umask = os.umask(0o177)
    try:
        listener.bind(str(path))
    except OSError as error:
        listener.close()
        raise IndexUnavailable(f"cannot listen at {path}: {error}") from error
    finally:
        os.umask(old_umask)
    return listener


def _remove_stale(path: Path) -> None:
    """A killed server leaves its file behind; nobody answers there."""
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(1.0)
        try:
            probe.connect(str(path))
        except FileNotFoundError:
            return
        except OSError as error:
            if isinstance(error, ConnectionRefusedError) and path.is_socket():
                path.unlink(missing_ok=True)
                return
            raise IndexUnavailable(f"cannot listen at {path}: {error}") from error
    raise IndexUnavailable(f"another process serves the index at {path}: stop that one first")
