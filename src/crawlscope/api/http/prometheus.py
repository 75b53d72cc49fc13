"""`/metrics` for Prometheus. One reading of the state serves all scrapes of the next seconds."""

import asyncio
import time
from contextlib import suppress
from dataclasses import dataclass
from typing import Annotated

from fastapi import APIRouter, Header, Request, Response

from crawlscope.api.http.access import Authenticated
from crawlscope.api.http.exposition import exposition
from crawlscope.api.http.health import CHECK_SECONDS, check_parts
from crawlscope.api.http.parameters import ServiceParts
from crawlscope.core.errors import CrawlscopeError
from crawlscope.indexing.index.port import IndexSize
from crawlscope.insights.fleet import Fleet, fleet
from crawlscope.processes.parts import Parts

KEPT_SECONDS = 2.0

router = APIRouter(dependencies=[Authenticated], tags=["health"])


@dataclass(frozen=True)
class Reading:
    read_at: float
    """By the monotonic clock."""
    dependencies: dict[str, bool]
    fleet: Fleet | None
    index: IndexSize | None


class Readings:
    """Any number of scrapers cost what one costs."""

    def __init__(self) -> None:
        self._reading: Reading | None = None
        self._lock = asyncio.Lock()

    async def latest(self, parts: Parts) -> Reading:
        async with self._lock:
            if self._reading is None or time.monotonic() - self._reading.read_at > KEPT_SECONDS:
                self._reading = await _read(parts)
            return self._reading


@router.get("/metrics", response_class=Response)
async def metrics(request: Request, parts: ServiceParts, accept: Annotated[str, Header()] = "") -> Response:
    """Metrics of the whole installation, in the text format of Prometheus or OpenMetrics."""
    readings: Readings = request.app.state.readings
    reading = await readings.latest(parts)
    data_dir = parts.settings.data_dir if parts.settings.embedded_database else None
    text, media_type = exposition(accept, reading.dependencies, reading.fleet, reading.index, data_dir)
    return Response(text, media_type=media_type)


async def _read(parts: Parts) -> Reading:
    """Without the database or the index, what is known besides."""
    read: Fleet | None = None
    size: IndexSize | None = None
    health = await check_parts(parts)
    with suppress(CrawlscopeError, TimeoutError):
        async with asyncio.timeout(CHECK_SECONDS), parts.database.transaction() as connection:
            read = await fleet(connection)
    with suppress(CrawlscopeError, TimeoutError):
        size = await asyncio.wait_for(parts.host.require_index().index.size(), CHECK_SECONDS)
    up = {name: part.state == "ok" for name, part in health.items()}
    return Reading(time.monotonic(), up, read, size)
