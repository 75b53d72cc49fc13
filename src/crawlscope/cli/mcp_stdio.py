"""MCP on stdin and stdout, over the service that runs or a stack that lives as long as it is needed."""

import asyncio
import os
import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack, aclosing, contextmanager, suppress
from threading import Thread

from crawlscope.api.client import ServiceClient
from crawlscope.api.mcp.server import create_server
from crawlscope.cli.stack import Stack
from crawlscope.core.errors import CrawlscopeError
from crawlscope.core.settings import Settings


async def serve_mcp(settings: Settings) -> None:
    """Until stdin ends. Agent programs start this whenever they run: the stack waits for the first call."""
    with _endable_stdin() as end:
        async with LastingService(settings) as service:
            serving = asyncio.create_task(create_server(service.client, asyncio.Event()).run_stdio_async())
            try:
                await asyncio.shield(serving)
            finally:
                end()
                await serving


class LastingService:
    """A service whenever it is asked for, however often the one before was lost."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._client = ServiceClient.of(settings, local=False)  # MCP may not reach private addresses
        self._held = AsyncExitStack()
        self._stack: Stack | None = None
        self._bringing_up = asyncio.Lock()

    async def __aenter__(self) -> "LastingService":
        return self

    async def __aexit__(self, *_: object) -> None:
        async with aclosing(self._client):
            await self._held.aclose()

    async def client(self) -> ServiceClient:
        """Raises `CrawlscopeError` where none runs and none can be started; asking again tries again."""
        async with self._bringing_up:
            try:
                await self._bring_up()
            except CrawlscopeError:
                self._stack = None
                await self._held.aclose()
                raise
        return self._client

    async def _bring_up(self) -> None:
        if self._stack is None:
            self._stack = await self._held.enter_async_context(Stack(self._settings))
            await self._stack.bring_up()
        else:
            await self._stack.recover()


@contextmanager
def _endable_stdin() -> Iterator[Callable[[], None]]:
    """Nothing wakes whoever reads the real one: the server would not end before its client does."""
    source, replacement = socket.socketpair()
    Thread(target=_copy_stdin, args=(source,), daemon=True).start()
    original, sys.stdin = sys.stdin, replacement.makefile("r", encoding="utf-8")
    try:
        yield lambda: _end(source)
    finally:
        sys.stdin = original


def _end(target: socket.socket) -> None:
    with suppress(OSError):  # has ended by itself
        target.shutdown(socket.SHUT_WR)


def _copy_stdin(target: socket.socket) -> None:
    with suppress(OSError):  # ended meanwhile
        while part := os.read(0, 65_536):
            target.sendall(part)
    _end(target)
