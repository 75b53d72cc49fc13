"""The real application over a real database, asked in this process; its index is never ready."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import httpx2
import pytest

from crawlscope.api.app import create_app
from crawlscope.core.settings import Settings
from crawlscope.processes.parts import Parts, service_parts
from tests.support.serving import serving

SECRET = "a-secret-of-this-test"
TOKEN = "a-token-of-this-test"
NOWHERE = "http://127.0.0.1:1"


class Service:
    """`http` knows the secret, `local` may besides read the data folder, `anonymous` neither."""

    def __init__(self, parts: Parts) -> None:
        self.parts = parts
        self.app = create_app(parts)
        self._transport = httpx2.ASGITransport(app=self.app, raise_app_exceptions=False)
        self.anonymous = self._client()
        self.http = self._client(**{"X-API-Secret": SECRET})
        self.local = self._client(**{"X-API-Secret": SECRET, "X-Crawlscope-Local": parts.local_token})

    def set(self, **changed: Any) -> "Service":
        """The same with other settings."""
        settings = Settings(_env_file=None, **{**dict(self.parts.settings), **changed})
        return Service(replace(self.parts, settings=settings))

    async def request_paths(self) -> list[str]:
        """The paths of all requests until now, as the recorder keeps them; it keeps none from then on."""
        await self.parts.buffer.stop()
        return [kept["path"] for kept in (await self.http.get("/api/metrics/requests")).json()["requests"]]

    def _client(self, **headers: str) -> httpx2.AsyncClient:
        return httpx2.AsyncClient(transport=self._transport, base_url="http://service", headers=headers)


Serve = Callable[..., Awaitable[Service]]


@pytest.fixture
async def serve(database_url: str, tmp_path: Path) -> AsyncIterator[Serve]:
    """Opens a service with settings of the test's own."""
    async with AsyncExitStack() as opened:

        async def open_service(**own: Any) -> Service:
            usual = {"api_secret": SECRET, "receive_token": TOKEN, "database_url": database_url}
            embedder = {"embedder": "tei", "embedder_url": NOWHERE}
            settings = Settings(_env_file=None, data_dir=tmp_path, **{**usual, **embedder, **own})
            return Service(await opened.enter_async_context(service_parts(settings)))

        yield open_service


@pytest.fixture
async def service(serve: Serve) -> Service:
    return await serve()


@dataclass
class Served:
    settings: Settings
    http: httpx2.AsyncClient
    stopping: asyncio.Event
    ended: "asyncio.Task[None]"


@pytest.fixture
async def served(database_url: str, tmp_path: Path) -> AsyncIterator[Served]:
    """The API process without its embedder, in this one."""
    settings = Settings(
        _env_file=None,
        data_dir=tmp_path,
        api_secret=SECRET,
        database_url=database_url,
        port=0,
        embedder="tei",
        embedder_url=NOWHERE,
    )
    async with (
        serving(settings) as running,
        httpx2.AsyncClient(
            base_url=running.url, headers={"X-API-Secret": SECRET}, timeout=60, trust_env=False
        ) as http,
    ):
        yield Served(settings, http, running.stopping, running.ended)
