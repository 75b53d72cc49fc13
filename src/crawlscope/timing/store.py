"""Stores measurements: inserts operations and requests in batches, and adds to the totals of crawls."""

import asyncio
from collections import defaultdict, deque
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from itertools import islice
from typing import Any, NamedTuple, Protocol

import structlog
from sqlalchemy import insert, update
from sqlalchemy.ext.asyncio import AsyncConnection

from crawlscope import models
from crawlscope.core.errors import CrawlscopeError
from crawlscope.core.values import storable
from crawlscope.database.engine import Database
from crawlscope.sessions.store import TOTALLED, hear_operations

OPERATIONS = models.table_of(models.OperationMetric)
REQUESTS = models.table_of(models.RequestMetric)
SESSIONS = models.table_of(models.CrawlSession)


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

    A crawl that nobody has announced gets its session; one that was deleted is left out of the row. With
    `announced` the caller knows that the sessions exist in this transaction.
    """
    if not measurements:
        return
    known = {
        crawl_id: announced or await hear_operations(connection, crawl_id, *began)
        for crawl_id, began in sorted(_seen(measurements).items())
    }
    rows = [_row(each, known) for each in measurements]
    await connection.execute(insert(OPERATIONS), rows)
    await add_to_totals(connection, rows)


async def add_to_totals(connection: AsyncConnection, rows: Iterable[dict[str, Any]]) -> None:
    for crawl_id, totals in sorted(stage_totals(rows).items()):
        await connection.execute(
            update(SESSIONS)
            .where(SESSIONS.c.crawl_id == crawl_id)
            .values({column: getattr(SESSIONS.c, column) + ms for column, ms in totals.items()})
        )


def stage_totals(rows: Iterable[dict[str, Any]]) -> dict[str, dict[str, float]]:
    """Milliseconds of the successful operations, per crawl and total column."""
    totals: dict[str, dict[str, float]] = defaultdict(lambda: defaultdict(float))
    for row in rows:
        column = TOTALLED.get(row["operation_type"])
        if column and row["success"] and row["crawl_id"]:
            totals[row["crawl_id"]][column] += row["duration_ms"]
    return totals


async def record_requests(connection: AsyncConnection, requests: Sequence[RequestRecord]) -> None:
    if requests:
        await connection.execute(insert(REQUESTS), [each._asdict() for each in requests])


def _seen(measurements: Sequence[Measurement]) -> dict[str, tuple[datetime, datetime]]:
    """Per crawl when its first and its last operation began."""
    began: dict[str, list[float]] = defaultdict(list)
    for each in measurements:
        if crawl_id := _crawl_key(each):
            began[crawl_id].append(each.timestamp)
    return {crawl_id: (_moment(min(each)), _moment(max(each))) for crawl_id, each in began.items()}


def _row(measurement: Measurement, known: dict[str, bool]) -> dict[str, Any]:
    crawl_id = _crawl_key(measurement)
    return {
        "timestamp": _moment(measurement.timestamp),
        "operation_type": measurement.operation_type[:50],
        "operation_name": measurement.operation_name[:100],
        "duration_ms": measurement.duration_ms,
        "success": measurement.success,
        "error_message": measurement.error_message and storable(measurement.error_message),
        "request_id": measurement.request_id and storable(measurement.request_id),
        "job_id": measurement.job_id and storable(measurement.job_id),
        "crawl_id": crawl_id if crawl_id and known[crawl_id] else None,
        "document_url": measurement.document_url and storable(measurement.document_url),
        "extra_metadata": measurement.metadata or None,
    }


def _crawl_key(measurement: Measurement) -> str | None:
    """The crawl as its session's key can hold it."""
    return storable(measurement.crawl_id)[:255] if measurement.crawl_id else None


def _moment(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)


FLUSH_SECONDS = 0.4
BATCH = 1_000
CAPACITY = 100_000

Record = Callable[[AsyncConnection, Sequence[Any]], Awaitable[None]]

log = structlog.get_logger(__name__)


class MeasurementBuffer:
    """Adding never blocks or fails and is safe from any thread.

    While the database is away measurements wait; beyond `CAPACITY` the oldest are dropped and counted.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._operations: deque[Measurement] = deque()
        self._requests: deque[RequestRecord] = deque()
        self._stopping = asyncio.Event()
        self._writer: asyncio.Task[None] | None = None
        self._flushing = asyncio.Lock()
        self.dropped = 0

    def add_operation(self, measurement: Measurement) -> None:
        self._operations.append(measurement)

    def add_request(self, request: RequestRecord) -> None:
        self._requests.append(request)

    def start(self) -> None:
        self._writer = asyncio.create_task(self._write_on())

    async def stop(self) -> None:
        """Writes what is left; what the database does not take then is lost, and logged."""
        self._stopping.set()
        if self._writer:
            await self._writer
        await self.flush()
        if left := len(self._operations) + len(self._requests):
            log.warning("measurements_lost", count=left)

    async def _write_on(self) -> None:
        while not self._stopping.is_set():
            with suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), FLUSH_SECONDS)
            await self.flush()

    async def flush(self) -> None:
        """Writes everything that waits; while the database is away it goes on waiting."""
        try:
            async with self._flushing:  # two at once would write the same
                await self._drain(self._operations, record_operations)
                await self._drain(self._requests, record_requests)
        except CrawlscopeError as error:
            log.warning("measurements_wait", reason=str(error), count=len(self._operations))
            for queue in (self._operations, self._requests):
                self.dropped += _take(queue, len(queue) - CAPACITY)

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
                self.dropped += 1
            _take(queue, len(batch))


def _take(queue: deque[Any], count: int) -> int:
    """Removes up to `count` from the old end; returns how many there were."""
    taken = min(max(count, 0), len(queue))
    for _ in range(taken):
        queue.popleft()
    return taken
