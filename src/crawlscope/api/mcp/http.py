"""MCP over streamable HTTP, at `/mcp` of the service, with the API secret."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from fastapi import APIRouter, FastAPI, Request, Response
from starlette.types import Receive, Scope, Send

from crawlscope.api.client import ServiceClient

if TYPE_CHECKING:
    from mcp.server.streamable_http_manager import StreamableHTTPSessionManager

Handler = Callable[[Scope, Receive, Send], Awaitable[None]]

router = APIRouter(tags=["mcp"])


@router.post("/mcp", summary="Model Context Protocol")
async def speak_mcp(request: Request) -> Response:
    """MCP over streamable HTTP, without sessions: any request can go to any process."""
    endpoint: McpEndpoint = request.app.state.mcp
    return SdkResponse(await endpoint.handler())


@asynccontextmanager
async def mcp_lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Closes at the application's end what the first MCP request opened."""
    yield
    await app.state.mcp.close()


class McpEndpoint:
    """The first request opens it, because loading the SDK takes a second that each start would need."""

    def __init__(self, app: FastAPI, stopping: asyncio.Event) -> None:
        self._app = app
        self._stopping = stopping
        self._opening = asyncio.Lock()
        self._closing = asyncio.Event()
        self._handler: Handler | None = None
        self._holder: asyncio.Task[None] | None = None

    async def handler(self) -> Handler:
        async with self._opening:
            if self._handler is None:
                manager, entered = await self._session_manager(), asyncio.Event()

                async def hold() -> None:
                    """The task that enters the session manager has to be the one that leaves it."""
                    async with manager.run():
                        entered.set()
                        await self._closing.wait()

                self._holder = asyncio.create_task(hold())
                await entered.wait()
                self._handler = manager.handle_request
            return self._handler

    async def _session_manager(self) -> "StreamableHTTPSessionManager":
        def load() -> "Callable[[ServiceClient, asyncio.Event], StreamableHTTPSessionManager]":
            from crawlscope.api.mcp.server import create_session_manager  # noqa: PLC0415 - takes a second

            return create_session_manager

        create_session_manager = await asyncio.to_thread(load)
        self._client = ServiceClient.within(self._app, self._app.state.parts.secret)
        return create_session_manager(self._client, self._stopping)

    async def close(self) -> None:
        self._closing.set()
        if self._holder is not None:
            await self._holder
            await self._client.aclose()


class SdkResponse(Response):
    """An answer that the MCP SDK sends."""

    def __init__(self, handler: Handler) -> None:
        super().__init__()
        self._handler = handler

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._handler(scope, receive, send)
