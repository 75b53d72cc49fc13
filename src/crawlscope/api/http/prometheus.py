"""`/metrics` for Prometheus, and its gauges for OpenTelemetry. One reading serves all for some seconds."""

import asyncio
import shutil
import time
from collections.abc import Awaitable
from dataclasses import dataclass
from typing import Annotated, TypeVar

from fastapi import APIRouter, Header, Request, Response

from crawlscope import __version__
from crawlscope.api.http.exposition import exposition
from crawlscope.api.http.health import CHECK_SECONDS, check_parts
from crawlscope.api.http.parameters import ServiceParts
from crawlscope.core.errors import CrawlscopeError
from crawlscope.core.periodic import run_periodically
from crawlscope.indexing.index.port import IndexSize
from crawlscope.insights.monitoring import InstallationMetrics, installation_metrics
from crawlscope.processes.parts import Parts
from crawlscope.timing.telemetry import conventions, meters, traces
from crawlscope.timing.telemetry.meters import Gauges, Series

T = TypeVar("T")

KEPT_SECONDS = 2.0
SHOW_INTERVAL_SECONDS = 15.0

router = APIRouter(tags=["health"])


@dataclass(frozen=True)
class Reading:
    read_at: float
    """By the monotonic clock."""
    gauges: Gauges
    totals: Series | None
    """None while the database is unavailable."""


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
    text, media_type = exposition(accept, reading.gauges, reading.totals)
    return Response(text, media_type=media_type)


async def show_gauges(parts: Parts, readings: Readings) -> None:
    """Gives them to the exporter of the process until cancelled; returns at once if there is none."""

    async def show() -> None:
        for (metric, labels), value in (await readings.latest(parts)).gauges.items():
            meters.show(metric, labels, value)

    if traces.in_use():
        await run_periodically(
            show,
            interval_seconds=SHOW_INTERVAL_SECONDS,
            retry_seconds=SHOW_INTERVAL_SECONDS,
            failure_event="gauge_export_failed",
        )


async def _read(parts: Parts) -> Reading:
    """Without the database or the index, it has the other metrics."""

    async def state() -> InstallationMetrics:
        async with parts.database.transaction() as connection:
            return await installation_metrics(connection)

    async def size() -> IndexSize:
        return await parts.host.require_index().index.size()

    health, known, index = await asyncio.gather(check_parts(parts), _in_time(state()), _in_time(size()))
    gauges: Gauges = {(conventions.BUILD, (__version__,)): 1.0}
    for name, part in health.items():
        gauges[conventions.DEPENDENCY_UP, (name,)] = float(part.state == "ok")
    if index:
        gauges[conventions.INDEX_CHUNKS, ()] = index.chunks
    if index and index.bytes is not None:
        gauges[conventions.INDEX_BYTES, ()] = index.bytes
    if parts.settings.embedded_database:
        gauges[conventions.FREE_BYTES, ()] = shutil.disk_usage(parts.settings.data_dir).free
    if known:
        gauges |= known.gauges
    return Reading(time.monotonic(), gauges, known.totals if known else None)


async def _in_time(answer: Awaitable[T]) -> T | None:
    """None where a dependency is unavailable or silent: Prometheus waits for ten seconds by default."""
    try:
        return await asyncio.wait_for(answer, CHECK_SECONDS)
    except (CrawlscopeError, TimeoutError):
        return None
