"""The SQL of timing: operations and requests are inserted, and crawls' totals grow with them."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple, Protocol

from sqlalchemy import delete, insert, select, update
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.ext.asyncio import AsyncConnection

from crawlscope import models
from crawlscope.database.values import storable
from crawlscope.vocabulary import OperationType

OPERATIONS = models.table_of(models.OperationMetric)
REQUESTS = models.table_of(models.RequestMetric)
SESSIONS = models.table_of(models.CrawlSession)
DELETED = models.table_of(models.DeletedCrawl)

TOTALLED = {
    OperationType.CHUNKING: "total_chunking_ms",
    OperationType.EMBEDDING: "total_embedding_ms",
    OperationType.QDRANT: "total_qdrant_ms",
    OperationType.BM25: "total_bm25_ms",
}
"""Operation types that a crawl keeps a total of, and its column."""


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


async def ensure_session(connection: AsyncConnection, crawl_id: str, at: datetime) -> bool:
    """Makes the session of a crawl that was not known, as started at `at`; false if it was deleted."""
    await connection.execute(
        upsert(SESSIONS)
        .values(crawl_id=crawl_id, started_at=at, last_fact_at=at)
        .on_conflict_do_nothing(index_elements=["crawl_id"])
    )
    # Asked second: a deletion under way makes the insert wait, and is seen here when it is through.
    deleted = await connection.scalar(select(DELETED.c.crawl_id).where(DELETED.c.crawl_id == crawl_id))
    if deleted:
        await connection.execute(delete(SESSIONS).where(SESSIONS.c.crawl_id == crawl_id))
    return not deleted


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
        crawl_id: announced or await ensure_session(connection, crawl_id, began)
        for crawl_id, began in sorted(_first_seen(measurements).items())
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


def _first_seen(measurements: Sequence[Measurement]) -> dict[str, datetime]:
    first: dict[str, float] = {}
    for each in measurements:
        if crawl_id := _crawl_key(each):
            first[crawl_id] = min(first.get(crawl_id, each.timestamp), each.timestamp)
    return {crawl_id: _moment(at) for crawl_id, at in first.items()}


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
