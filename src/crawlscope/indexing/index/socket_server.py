"""Serves the embedded indexes to other processes of the machine, over a local socket."""

import asyncio
import os
import socket
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import structlog

from crawlscope.core.errors import CrawlscopeError, IndexUnavailable
from crawlscope.indexing.index import wire
from crawlscope.indexing.index.port import Filters, OwnedIndexes, SearchIndex
from crawlscope.indexing.phrase import Phrase

MAX_CALLS_IN_PROGRESS = 32
"""Maximum number of calls in progress per connection; further frames stay in the socket."""

log = structlog.get_logger(__name__)


class IndexServer:
    """Only the user of this process may open the socket file; its callers have full access to the indexes.

    An index is opened by its first call.
    """

    def __init__(self, indexes: OwnedIndexes, socket_path: Path) -> None:
        self._indexes = indexes
        self._path = socket_path
        self._server: asyncio.Server | None = None
        self._connections: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Replaces the socket of a killed server; raises `IndexUnavailable` if another process listens."""
        self._server = await asyncio.start_unix_server(self._accept, sock=_bind(self._path))

    async def stop(self) -> None:
        """Callers with a call in progress get `IndexUnavailable`. The indexes stay open."""
        if self._server is None:
            return
        self._path.unlink(missing_ok=True)  # while it listens: later it may be the file of a successor
        self._server.close()
        for connection in self._connections:
            connection.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)
        await self._server.wait_closed()
        self._server = None

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = asyncio.create_task(self._serve(reader, writer))
        self._connections.add(connection)
        connection.add_done_callback(self._connections.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        in_progress = asyncio.Semaphore(MAX_CALLS_IN_PROGRESS)
        try:
            async with asyncio.TaskGroup() as calls:
                async for call in _calls(reader):
                    await in_progress.acquire()
                    answer = calls.create_task(self._answer(call, writer))
                    answer.add_done_callback(lambda _: in_progress.release())
        finally:
            writer.close()

    async def _answer(self, call: wire.Message, writer: asyncio.StreamWriter) -> None:
        answer: wire.Message = {"id": call.get("id")}
        try:
            framed = wire.frame({**answer, "result": await self._carry_out(call)})
        except CrawlscopeError as error:
            framed = wire.frame({**answer, "error": wire.pack_error(error)})
        except Exception as error:
            log.exception("index_call_failed", verb=call.get("verb"))
            failure = CrawlscopeError(f"the index call failed: {error!r}")
            framed = wire.frame({**answer, "error": wire.pack_error(failure)})
        try:
            writer.write(framed)
            await writer.drain()
        except ConnectionError:
            log.info("index_caller_disconnected", verb=call.get("verb"))

    async def _carry_out(self, call: wire.Message) -> Any:
        name, dimension = call["index"], call["dimension"]
        match call["verb"]:
            case "make":
                return await self._indexes.make(name, dimension)
            case "drop":
                return await self._indexes.drop(name)
        return await _ask(await self._indexes.open(name, dimension), call)


async def _ask(index: SearchIndex, call: wire.Message) -> Any:
    match call["verb"]:
        case "replace":
            await index.replace([wire.unpack_document(each) for each in call["documents"]])
        case "set_crawl_ids":
            await index.set_crawl_ids(call["crawl_ids"])
        case "query":
            dense, sparse = call["dense"], call["sparse"]
            found = await index.query(
                None if dense is None else wire.unpack_floats(dense),
                None if sparse is None else wire.unpack_sparse(sparse),
                Filters(**call["filters"]),
                call["limit"],
            )
            return [wire.pack_hits(found.dense), wire.pack_hits(found.bm25)]
        case "payloads":
            return await index.payloads(call["ids"])
        case "containing":
            return list(await index.containing(Phrase(tuple(call["words"])), call["ids"], call["fields"]))
        case "stored":
            return wire.pack_stored(await index.stored(call["ids"]))
        case "rarities":
            rarities = await index.rarities(call["terms"])
            return [rarities.chunks, list(rarities.idf.items())]
        case "size":
            size = await index.size()
            return [size.chunks, size.bytes]
        case verb:
            raise ValueError(f"no such call: {verb}")
    return None


async def _calls(reader: asyncio.StreamReader) -> AsyncIterator[wire.Message]:
    """Ends with the connection, or with data that is no call."""
    while True:
        try:
            yield await wire.read_frame(reader)
        except (asyncio.IncompleteReadError, ConnectionError):
            return
        except (wire.FrameTooLarge, ValueError) as error:
            log.warning("index_call_rejected", error=str(error))
            return


def _bind(path: Path) -> socket.socket:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    _remove_stale(path)
    listener = socket.socket(socket.AF_UNIX)
    old_umask = os.umask(0o177)
    try:
        listener.bind(str(path))
        listener.listen()  # at once: a socket that does not listen looks like that of a killed server
    except OSError as error:
        listener.close()
        raise IndexUnavailable(f"cannot listen at {path}: {error}") from error
    finally:
        os.umask(old_umask)
    return listener


def _remove_stale(path: Path) -> None:
    """Removes the socket file of a killed server; raises `IndexUnavailable` if a server answers there."""
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
