"""Stores measurements: inserts operations and requests in batches, and adds to the totals of crawls."""

import asyncio
from collections import defaultdict, deque
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from itertools import islice
from typing import Any, NamedTuple, Protocol

import structlog
from sqlalchemy import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from crawlscope import models
from crawlscope.core.errors import CrawlscopeError
from crawlscope.core.values import storable
from crawlscope.database.engine import Database
from crawlscope.sessions.repository import add_totals, note_operations

OPERATIONS = models.table_of(models.OperationMetric)
REQUESTS = models.table_of(models.RequestMetric)
FLUSH_SECONDS = 0.4
BATCH = 1_000
CAPACITY = 100_000

Record = Callable[[AsyncConnection, Sequence[Any]], Awaitable[None]]

log = structlog.get_logger(__name__)


class Measurement(Protocol):
    """A finished `TimingContext`."""

    operation_type: str
    operation_name: str
    request_id: str | None
    job_id: str | None
    crawl_id: str | None
    document_url: str | None
    metadata: dict[str, Any]
    success: bool
    error_message: str | None
    timestamp: float

    @property
    def duration_ms(self) -> float: ...


class RequestRecord(NamedTuple):
    timestamp: datetime
    method: str
    path: str
    status_code: int
    duration_ms: float
    request_id: str
    client_ip: str | None
    user_agent: str | None
    extra_metadata: dict[str, Any] | None = None


async def record_operations(
    connection: AsyncConnection, measurements: Sequence[Measurement], announced: bool = False
) -> None:
    """Inserts operations and adds the successful ones to their crawls' totals.

    Creates the session of an unknown crawl; the row of a deleted crawl has no crawl. `announced`: the caller
    knows that all sessions exist in this transaction.
    """
    if not measurements:
        return
    durations = [each.duration_ms for each in measurements]
    rows: list[dict[str, Any]] = [
        {
            "timestamp": datetime.fromtimestamp(each.timestamp, UTC),
            "operation_type": each.operation_type[:50],
            "operation_name": each.operation_name[:100],
            "duration_ms": duration_ms,
            "success": each.success,
            "error_message": each.error_message and storable(each.error_message),
            "request_id": each.request_id and storable(each.request_id),
            "job_id": each.job_id and storable(each.job_id),
            "crawl_id": storable(each.crawl_id)[:255] if each.crawl_id else None,
            "document_url": each.document_url and storable(each.document_url),
            "extra_metadata": each.metadata or None,
        }
        for each, duration_ms in zip(measurements, durations, strict=True)
    ]
    if not announced:
        began: dict[str, list[datetime]] = defaultdict(list)
        for row in rows:
            if row["crawl_id"]:
                began[row["crawl_id"]].append(row["timestamp"])
        deleted = {
            crawl_id
            for crawl_id, at in sorted(began.items())
            if not await note_operations(connection, crawl_id, min(at), max(at))
        }
        for row in rows:
            row["crawl_id"] = None if row["crawl_id"] in deleted else row["crawl_id"]
    await connection.execute(insert(OPERATIONS), rows)
    await add_totals(connection, rows)


async def record_requests(connection: AsyncConnection, requests: Sequence[RequestRecord]) -> None:
    if requests:
        await connection.execute(insert(REQUESTS), [each._asdict() for each in requests])


class MeasurementBuffer:
    """Holds what is measured outside a page until it is written, within half a second.

    Adding never blocks or fails and is safe from any thread. While the database is unavailable measurements
    wait; beyond `CAPACITY` the oldest are dropped, and logged.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._operations: deque[Measurement] = deque()
        self._requests: deque[RequestRecord] = deque()
        self._stopping = asyncio.Event()
        self._writer: asyncio.Task[None] | None = None
        self._flushing = asyncio.Lock()

    def add_operation(self, measurement: Measurement) -> None:
        self._operations.append(measurement)

    def add_request(self, request: RequestRecord) -> None:
        self._requests.append(request)

    def start(self) -> None:
        self._writer = asyncio.create_task(self._write_until_stopped())

    async def stop(self) -> None:
        """Writes what is left; what the database does not take then is lost, and logged."""
        self._stopping.set()
        if self._writer:
            await self._writer
        await self.flush()
        if left := len(self._operations) + len(self._requests):
            log.warning("measurements_lost", count=left)

    async def _write_until_stopped(self) -> None:
        """Ends between two writes: a cancelled write may have been committed, and would be repeated."""
        while not self._stopping.is_set():
            with suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), FLUSH_SECONDS)
            await self.flush()

    async def flush(self) -> None:
        """Writes everything that waits; while the database is unavailable it goes on waiting."""
        try:
            async with self._flushing:  # two at once would write the same
                await self._drain(self._operations, record_operations)
                await self._drain(self._requests, record_requests)
        except CrawlscopeError as error:
            log.warning("measurements_delayed", reason=str(error), count=len(self._operations))
            for queue in (self._operations, self._requests):
                if (excess := len(queue) - CAPACITY) > 0:
                    _drop_oldest(queue, excess)
                    log.warning("measurements_lost", count=excess)

    async def _drain(self, queue: deque[Any], record: Record) -> None:
        size = BATCH
        while queue:
            batch = list(islice(queue, size))
            try:
                async with self._database.transaction() as connection:
                    await record(connection, batch)
            except CrawlscopeError:
                raise
            except Exception:
                if len(batch) > 1:  # one of them cannot be stored: the others shall be
                    size = 1
                    continue
                log.exception("measurement_refused")
            _drop_oldest(queue, len(batch))


def _drop_oldest(queue: deque[Any], count: int) -> None:
    for _ in range(count):
        queue.popleft()
