"""MCP over streamable HTTP, at `/mcp` of the service and behind its secret."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager
from typing import TYPE_CHECKING

from fastapi import APIRouter, FastAPI, Request, Response
from starlette.types import Receive, Scope, Send

from crawlscope.api.client import ServiceClient
from crawlscope.api.http.access import Authenticated

if TYPE_CHECKING:
    from mcp.server.streamable_http_manager import StreamableHTTPSessionManager

Handle = Callable[[Scope, Receive, Send], Awaitable[None]]

router = APIRouter(tags=["mcp"], dependencies=[Authenticated])


@router.post("/mcp")
async def speak_mcp(request: Request) -> Response:
    """MCP over streamable HTTP: each request stands alone, there are no sessions."""
    door: McpDoor = request.app.state.mcp
    return _Spoken(await door.opened())


@asynccontextmanager
async def mcp_door(app: FastAPI) -> AsyncIterator[None]:
    """The application's lifespan: closes what the first MCP request opened."""
    yield
    await app.state.mcp.close()


class McpDoor:
    """Opened by the first request: loading the SDK would make every start of the service a second longer."""

    def __init__(self, app: FastAPI, stopping: asyncio.Event) -> None:
        self._app = app
        self._stopping = stopping
        self._opening = asyncio.Lock()
        self._closing = asyncio.Event()
        self._handle: Handle | None = None
        self._holder: asyncio.Task[None] | None = None

    async def opened(self) -> Handle:
        async with self._opening:
            if self._handle is None:
                create_session_manager = await asyncio.to_thread(_load)
                client = ServiceClient.within(self._app, self._app.state.parts.secret)
                manager, entered = create_session_manager(client, self._stopping), asyncio.Event()
                self._holder = asyncio.create_task(self._hold(client, manager, entered))
                await entered.wait()
                self._handle = manager.handle_request
            return self._handle

    async def close(self) -> None:
        self._closing.set()
        if self._holder is not None:
            await self._holder

    async def _hold(
        self, client: ServiceClient, manager: "StreamableHTTPSessionManager", entered: asyncio.Event
    ) -> None:
        """The task that enters the session manager has to be the one that leaves it."""
        async with aclosing(client), manager.run():
            entered.set()
            await self._closing.wait()


class _Spoken(Response):
    """Leaves the answer to the SDK."""

    def __init__(self, handle: Handle) -> None:
        super().__init__()
        self._handle = handle

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._handle(scope, receive, send)


def _load() -> "Callable[[ServiceClient, asyncio.Event], StreamableHTTPSessionManager]":
    from crawlscope.api.mcp.server import create_session_manager  # noqa: PLC0415 - takes a second

    return create_session_manager
