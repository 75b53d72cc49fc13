"""The API process, in the process of the test."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from crawlscope.api.serve import serve
from crawlscope.core import service_file
from crawlscope.core.settings import Settings
from tests.support.polling import eventually


@dataclass
class Serving:
    url: str
    stopping: asyncio.Event
    ended: "asyncio.Task[None]"


@asynccontextmanager
async def serving(settings: Settings, keeps_index: bool = False) -> AsyncIterator[Serving]:
    """Over HTTP, until the block ends."""
    stopping = asyncio.Event()
    ended = asyncio.create_task(serve(settings, stopping, keeps_index=keeps_index))
    try:
        await eventually(lambda: service_file.read(settings.data_dir) is not None or ended.done())
        service = service_file.read(settings.data_dir)
        assert service is not None, ended.exception()
        yield Serving(service.url, stopping, ended)
    finally:
        stopping.set()
        await ended
