"""MCP on stdin and stdout, with the running service or one that runs for as long as it is needed."""

import asyncio
import os
import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack, aclosing, contextmanager, suppress
from threading import Thread

from crawlscope.api.client import ServiceClient
from crawlscope.api.mcp.server import create_server
from crawlscope.api.stack import Stack
from crawlscope.core.errors import CrawlscopeError
from crawlscope.core.settings import Settings


async def serve_mcp(settings: Settings) -> None:
    """Serves until stdin ends. The first call starts the service, because agent programs start this early."""
    with _endable_stdin() as end:
        async with LastingService(settings) as service:
            serving = asyncio.create_task(create_server(service.client, asyncio.Event()).run_stdio_async())
            try:
                await asyncio.shield(serving)
            finally:
                end()
                await serving


class LastingService:
    """A service for each call, even after a former one was lost."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._client = ServiceClient.of(settings, local=False)  # MCP may not reach private addresses
        self._held = AsyncExitStack()
        self._stack: Stack | None = None
        self._starting = asyncio.Lock()

    async def __aenter__(self) -> "LastingService":
        return self

    async def __aexit__(self, *_: object) -> None:
        async with aclosing(self._client):
            await self._held.aclose()

    async def client(self) -> ServiceClient:
        """Raises `CrawlscopeError` if no service runs and none can be started; the next call tries again."""
        async with self._starting:
            try:
                if self._stack is None:
                    self._stack = await self._held.enter_async_context(Stack(self._settings))
                    await self._stack.bring_up()
                else:
                    await self._stack.recover()
            except CrawlscopeError:
                self._stack = None
                await self._held.aclose()
                raise
        return self._client


@contextmanager
def _endable_stdin() -> Iterator[Callable[[], None]]:
    """Replaces stdin by one that this process can end: nothing interrupts a read of the real one, so that
    the server would not end before its client."""
    source, replacement = socket.socketpair()

    def end() -> None:
        with suppress(OSError):  # has ended by itself
            source.shutdown(socket.SHUT_WR)

    def copy_stdin() -> None:
        with suppress(OSError):  # ended meanwhile
            while part := os.read(0, 65_536):
                source.sendall(part)
        end()

    Thread(target=copy_stdin, daemon=True).start()
    original, sys.stdin = sys.stdin, replacement.makefile("r", encoding="utf-8")
    try:
        yield end
    finally:
        sys.stdin = original
