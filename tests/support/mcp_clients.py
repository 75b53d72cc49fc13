"""The SDK's own client on both transports, with both generations of the protocol."""

import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import httpx2
from mcp import Client, StdioServerParameters
from mcp.client.streamable_http import streamable_http_client
from mcp.types import CallToolResult, TextContent

from tests.support.stack import API_SECRET, Stack, stack_environment

Connect = Callable[[], AbstractAsyncContextManager[Client]]
TRANSPORTS = [("http", "auto"), ("http", "legacy"), ("stdio", "auto"), ("stdio", "legacy")]
INITIALIZE: dict[str, Any] = {
    "jsonrpc": "2.0",
    "id": 1,
    "method": "initialize",
    "params": {
        "protocolVersion": "2025-06-18",
        "capabilities": {},
        "clientInfo": {"name": "test", "version": "1"},
    },
}


def connect_to(stack: Stack, transport: str, mode: str = "auto") -> Connect:
    if transport == "stdio":
        return lambda: over_stdio(stack.data_dir, mode)
    return lambda: over_http(stack.url, mode)


@asynccontextmanager
async def over_http(url: str, mode: str = "auto", **headers: str) -> AsyncIterator[Client]:
    sent = {"X-API-Secret": API_SECRET, **headers}
    async with (
        httpx2.AsyncClient(headers=sent, timeout=60, trust_env=False) as http,
        Client(streamable_http_client(f"{url}/mcp", http_client=http), mode=mode) as client,
    ):
        yield client


@asynccontextmanager
async def over_stdio(data_dir: Path, mode: str = "auto", **settings: str) -> AsyncIterator[Client]:
    server = StdioServerParameters(
        command=sys.executable,
        args=["-m", "crawlscope", "mcp"],
        env=stack_environment(data_dir, **settings),
    )
    async with Client(server, mode=mode) as client:
        yield client


async def answered(client: Client, tool: str, **arguments: Any) -> tuple[str, dict[str, Any]]:
    """The text and the data of a call that succeeds."""
    result = await client.call_tool(tool, arguments)
    text = text_of(result)
    assert not result.is_error, text
    assert result.structured_content is not None
    return text, result.structured_content


async def refused(client: Client, tool: str, **arguments: Any) -> str:
    """The one line of a call that fails."""
    result = await client.call_tool(tool, arguments)
    text = text_of(result)
    assert result.is_error, text
    assert "\n" not in text
    assert "Traceback" not in text
    return text


def text_of(result: CallToolResult) -> str:
    [content] = result.content
    assert isinstance(content, TextContent)
    return content.text
