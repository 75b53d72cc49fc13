"""Stores measurements: inserts operations and requests in batches, and adds to the totals of crawls."""

import asyncio
from collections import defaultdict, deque
from collections.abc import Awaitable, Callable, Mapping, Sequence, Set
from contextlib import suppress
from datetime import UTC, datetime
from itertools import islice
from random import getrandbits
from typing import Any, NamedTuple
from uuid import UUID

import structlog
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from crawlscope import models
from crawlscope.core.errors import CrawlscopeError
from crawlscope.core.values import arrays, storable, storable_json
from crawlscope.database.engine import Database
from crawlscope.database.row_counts import counted, counting
from crawlscope.sessions.changes import (
    ADD_HISTOGRAMS,
    CHANGE_SESSIONS,
    SessionChange,
    change_sessions,
)
from crawlscope.sessions.fold import Fact, Lifecycle
from crawlscope.sessions.repository import note_operations
from crawlscope.timing.measurement import Measurement
from crawlscope.timing.telemetry import conventions, meters

OPERATIONS = models.table_of(models.OperationMetric)
REQUESTS = models.table_of(models.RequestMetric)
_COLUMNS = (
    *("id", "timestamp", "operation_type", "operation_name", "duration_ms", "success", "error_message"),
    *("request_id", "job_id", "crawl_id", "document_url", "extra_metadata"),
)
_WRITE_CHANGES = text(
    f"""
    WITH counted AS ({counted(OPERATIONS, "cardinality(CAST(:id AS uuid[]))")}), operations AS (
        INSERT INTO webhook.operation_metrics (
            id, timestamp, operation_type, operation_name, duration_ms, success, error_message,
            request_id, job_id, crawl_id, document_url, extra_metadata
        )
        SELECT * FROM unnest(
            CAST(:id AS uuid[]), CAST(:timestamp AS timestamptz[]),
            CAST(:operation_type AS text[]), CAST(:operation_name AS text[]),
            CAST(:duration_ms AS float8[]), CAST(:success AS bool[]), CAST(:error_message AS text[]),
            CAST(:request_id AS text[]), CAST(:job_id AS text[]), CAST(:crawl_id AS text[]),
            CAST(:document_url AS text[]), CAST(:extra_metadata AS jsonb[])
        )
    ), {CHANGE_SESSIONS}, histograms AS ({ADD_HISTOGRAMS})
    SELECT * FROM changed
"""  # noqa: S608 - of constants
)
_INSERT_REQUESTS = counting(
    REQUESTS,
    "cardinality(CAST(:timestamp AS timestamptz[]))",
    """
    INSERT INTO webhook.request_metrics (
        timestamp, method, path, status_code, duration_ms, request_id, client_ip, user_agent, extra_metadata
    )
    SELECT * FROM unnest(
        CAST(:timestamp AS timestamptz[]), CAST(:method AS text[]), CAST(:path AS text[]),
        CAST(:status_code AS int[]), CAST(:duration_ms AS float8[]), CAST(:request_id AS text[]),
        CAST(:client_ip AS text[]), CAST(:user_agent AS text[]), CAST(:extra_metadata AS jsonb[])
    )
    """,
)
FLUSH_SECONDS = 0.4
BATCH = 1_000
CAPACITY = 100_000

Record = Callable[[AsyncConnection, Sequence[Any]], Awaitable[None]]

log = structlog.get_logger(__name__)


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


async def record_operations(connection: AsyncConnection, measurements: Sequence[Measurement]) -> None:
    """Inserts operations and adds them to their crawls' totals.

    Creates the session of an unknown crawl; the row of a deleted crawl has no crawl.
    """
    began: dict[str, list[datetime]] = defaultdict(list)
    for each in measurements:
        if crawl_id := _crawl_id(each):
            began[crawl_id].append(_timestamp(each))
    deleted, facts = set[str](), list[tuple[str, Sequence[Fact]]]()
    if began:
        moments = {crawl_id: (min(at), max(at)) for crawl_id, at in began.items()}
        deleted, facts = await note_operations(connection, moments)
    await write_changes(connection, measurements=measurements, deleted=deleted, facts=facts)


async def write_changes(
    connection: AsyncConnection,
    changes: Mapping[str, SessionChange] | None = None,
    measurements: Sequence[Measurement] = (),
    deleted: Set[str] = frozenset(),
    facts: Sequence[tuple[str, Sequence[Fact]]] = (),
) -> list[Lifecycle | None]:
    """Inserts operations, merges `facts`, and adds operations and `changes` to sessions and histograms: the
    last step of a transaction, because it locks the sessions, which exist besides those of `deleted` crawls.

    Returns what `merge_facts` does.
    """
    durations = [each.duration_ms for each in measurements]
    rows = [
        (
            *(_new_id(each), _timestamp(each), each.operation_type[:50], each.operation_name[:100]),
            *(duration_ms, each.success, each.error_message, each.request_id, each.job_id),
            None if deleted and _crawl_id(each) in deleted else each.crawl_id and each.crawl_id[:255],
            *(each.document_url, each.metadata or None),
        )
        for each, duration_ms in zip(measurements, durations, strict=True)
    ]
    operations = arrays(_COLUMNS, rows)
    added: dict[str | None, SessionChange] = defaultdict(SessionChange)
    added.update(changes or {})
    measured = (operations[name] for name in ("timestamp", "operation_type", "duration_ms", "success"))
    for crawl_id, *each in zip(operations["crawl_id"], *measured, strict=True):
        added[crawl_id].measured.append(tuple(each))
    for crawl_id, merged in facts:
        added[crawl_id].facts.extend(merged)
    return await change_sessions(connection, _WRITE_CHANGES, operations, added, facts)


def _crawl_id(measurement: Measurement) -> str | None:
    return storable(measurement.crawl_id)[:255] if measurement.crawl_id else None


def _new_id(measurement: Measurement) -> UUID:
    """A UUID of version 7, which orders by time: new rows are neighbours in the index of the key, not one
    somewhere in each of its blocks."""
    milliseconds = int(measurement.timestamp * 1000) & 0xFFFF_FFFF_FFFF
    return UUID(int=milliseconds << 80 | 0x7 << 76 | getrandbits(12) << 64 | 0b10 << 62 | getrandbits(62))


def _timestamp(measurement: Measurement) -> datetime:
    return datetime.fromtimestamp(measurement.timestamp, UTC)


async def record_requests(connection: AsyncConnection, requests: Sequence[RequestRecord]) -> None:
    if requests:
        metadata = [each.extra_metadata and storable_json(each.extra_metadata) for each in requests]
        rows = [(*each[:-1], written) for each, written in zip(requests, metadata, strict=True)]
        await connection.execute(_INSERT_REQUESTS, arrays(RequestRecord._fields, rows))


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
        self._added = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self._is_woken = False
        """Whether the writer was told that something waits."""
        self._writer: asyncio.Task[None] | None = None
        self._flushing = asyncio.Lock()

    def add_operation(self, measurement: Measurement) -> None:
        self._operations.append(measurement)
        self._wake_writer()

    def add_request(self, request: RequestRecord) -> None:
        self._requests.append(request)
        self._wake_writer()

    def start(self) -> None:
        self._writer = asyncio.create_task(self._write_until_stopped())

    async def stop(self) -> None:
        """Writes what is left; what the database does not take then is lost, and logged."""
        self._stopping.set()
        self._added.set()
        if self._writer:
            await self._writer
        await self.flush()
        if left := len(self._operations) + len(self._requests):
            log.warning("measurements_lost", count=left)
            meters.count(conventions.LOST, amount=left)

    async def _write_until_stopped(self) -> None:
        """Ends between two writes: a cancelled write may have been committed, and would be repeated."""
        while not self._stopping.is_set():
            await self._added.wait()
            with suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), FLUSH_SECONDS)
            self._added.clear()
            self._is_woken = False  # before it reads what waits, so that nothing is added unseen
            await self.flush()
            if self._operations or self._requests:
                self._wake_writer()

    def _wake_writer(self) -> None:
        """Only once until it writes: a process that measures nothing does not wake up."""
        if not self._is_woken:
            self._is_woken = True
            with suppress(RuntimeError):  # the event loop was closed
                self._loop.call_soon_threadsafe(self._added.set)

    async def flush(self) -> None:
        """Writes everything that waits; while the database is unavailable, it waits."""
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
                    meters.count(conventions.LOST, amount=excess)

    async def _drain(self, queue: deque[Any], record: Record) -> None:
        size, batch = BATCH, list[Any]()

        async def write(connection: AsyncConnection) -> None:
            await record(connection, batch)

        while queue:
            batch = list(islice(queue, size))
            try:
                await self._database.run(write)
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
