"""The SQL of timing: operations and requests are inserted, and crawls' totals grow with them."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple, Protocol

from sqlalchemy import insert, update
from sqlalchemy.ext.asyncio import AsyncConnection

from crawlscope import models
from crawlscope.core.values import storable
from crawlscope.sessions.store import hear_operations
from crawlscope.sessions.totals import TOTALLED

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
