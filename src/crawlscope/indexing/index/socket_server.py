"""Serves the embedded indexes to other processes of the machine, over a local socket."""

import asyncio
import os
import socket
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Any, cast

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
        self._transports: set[asyncio.Transport] = set()
        self._calls: set[asyncio.Task[None]] = set()
        """They are carried out also if their caller disconnects."""

    async def start(self) -> None:
        """Replaces the socket of a killed server; raises `IndexUnavailable` if another process listens."""
        connection = partial(_Connection, self._answer, self._transports, self._calls)
        self._server = await asyncio.get_running_loop().create_unix_server(connection, sock=_bind(self._path))

    async def stop(self) -> None:
        """Callers with a call in progress get `IndexUnavailable`. The indexes stay open."""
        if self._server is None:
            return
        self._path.unlink(missing_ok=True)  # while it listens: later it may be the file of a successor
        self._server.close()
        for call in self._calls:
            call.cancel()
        await asyncio.gather(*self._calls, return_exceptions=True)
        for transport in self._transports:
            transport.close()
        await self._server.wait_closed()
        self._server = None

    async def _answer(self, call: wire.Message) -> bytes:
        answer: wire.Message = {"id": call.get("id")}
        try:
            return wire.frame({**answer, "result": await self._carry_out(call)})
        except CrawlscopeError as error:
            return wire.frame({**answer, "error": wire.pack_error(error)})
        except Exception as error:
            log.exception("index_call_failed", verb=call.get("verb"))
            failure = CrawlscopeError(f"the index call failed: {error!r}")
            return wire.frame({**answer, "error": wire.pack_error(failure)})

    async def _carry_out(self, call: wire.Message) -> Any:
        name, dimension = call["index"], call["dimension"]
        match call["verb"]:
            case "make":
                return await self._indexes.make(name, dimension)
            case "drop":
                return await self._indexes.drop(name)
        return await _ask(await self._indexes.open(name, dimension), call)


class _Connection(asyncio.Protocol):
    """Reads no further calls while many are in progress, or while the caller does not read its answers."""

    _transport: asyncio.Transport

    def __init__(
        self,
        answer: Callable[[wire.Message], Awaitable[bytes]],
        transports: set[asyncio.Transport],
        calls: set[asyncio.Task[None]],
    ) -> None:
        self._answer = answer
        self._transports, self._calls = transports, calls
        self._frames = wire.Frames()
        self._in_progress = 0
        self._answers_wait = False
        self._is_paused = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._transports.add(self._transport)

    def connection_lost(self, _: Exception | None) -> None:
        self._transports.discard(self._transport)

    def data_received(self, data: bytes) -> None:
        self._frames.add(data)
        self._begin_calls()

    def pause_writing(self) -> None:
        self._answers_wait = True

    def resume_writing(self) -> None:
        self._answers_wait = False
        self._begin_calls()

    def _begin_calls(self) -> None:
        try:
            while self._is_ready and (call := self._frames.next()) is not None:
                self._begin(call)
        except (wire.FrameTooLarge, ValueError) as error:
            log.warning("index_call_rejected", error=str(error))
            self._transport.close()
        if self._is_ready == self._is_paused and not self._transport.is_closing():
            self._is_paused = not self._is_ready
            (self._transport.pause_reading if self._is_paused else self._transport.resume_reading)()

    @property
    def _is_ready(self) -> bool:
        return self._in_progress < MAX_CALLS_IN_PROGRESS and not self._answers_wait

    def _begin(self, call: wire.Message) -> None:
        self._in_progress += 1
        carrying_out = asyncio.create_task(self._carry_out(call))
        self._calls.add(carrying_out)
        carrying_out.add_done_callback(self._end)

    async def _carry_out(self, call: wire.Message) -> None:
        framed = await self._answer(call)
        if self._transport.is_closing():
            log.info("index_caller_disconnected", verb=call.get("verb"))
        else:
            self._transport.write(framed)

    def _end(self, carried_out: asyncio.Task[None]) -> None:
        self._calls.discard(carried_out)
        self._in_progress -= 1
        self._begin_calls()


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
