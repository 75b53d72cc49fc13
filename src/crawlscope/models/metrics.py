"""Measured operations and HTTP requests."""

from datetime import datetime
from typing import Any
from uuid import UUID, uuid4

from sqlalchemy import (
    ARRAY,
    BigInteger,
    ForeignKey,
    Identity,
    Index,
    Integer,
    String,
    UniqueConstraint,
    func,
    text,
)
from sqlalchemy.orm import Mapped, mapped_column

from crawlscope.models.base import SCHEMA, Base, count, crawl_reference, now, total

BY_MONTH = {"postgresql_partition_by": "RANGE (timestamp)"}
"""Each month has a partition; see `timing.partitions`."""


class OperationMetric(Base):
    """One measured operation. The key includes the time, by which the table is partitioned."""

    __tablename__ = "operation_metrics"
    __table_args__ = (
        Index("ix_operation_metrics_crawl_id_timestamp", "crawl_id", "timestamp"),
        Index("ix_operation_metrics_document_url", "document_url", postgresql_using="hash"),
        BY_MONTH,
    )

    id: Mapped[UUID] = mapped_column(
        primary_key=True, default=uuid4, server_default=text("gen_random_uuid()")
    )
    timestamp: Mapped[datetime] = mapped_column(primary_key=True, index=True, server_default=func.now())
    operation_type: Mapped[str] = mapped_column(String(50))
    operation_name: Mapped[str] = mapped_column(String(100))
    duration_ms: Mapped[float]
    success: Mapped[bool]
    error_message: Mapped[str | None]
    request_id: Mapped[str | None]
    job_id: Mapped[str | None] = mapped_column(index=True)
    crawl_id: Mapped[str | None] = mapped_column(
        String(255), ForeignKey(f"{SCHEMA}.crawl_sessions.crawl_id", ondelete="SET NULL")
    )
    document_url: Mapped[str | None]
    extra_metadata: Mapped[dict[str, Any] | None]
    created_at: Mapped[datetime] = now()


class PrunedOperations(Base):
    """The sums of the deleted operations of a crawl: they remain part of its totals."""

    __tablename__ = "pruned_operations"

    crawl_id: Mapped[str] = crawl_reference(primary_key=True)
    operation_type: Mapped[str] = mapped_column(String(50), primary_key=True)
    failed: Mapped[int] = count()
    total_ms: Mapped[float] = total()
    """The sum over successful operations."""
    count: Mapped[int] = count()


class Durations:
    """The columns of a histogram."""

    count: Mapped[int]
    """Failed operations included."""
    failed: Mapped[int]
    total_ms: Mapped[float]
    """The sum over successful operations, like minimum, maximum and buckets."""
    failed_ms: Mapped[float]
    min_ms: Mapped[float | None]
    max_ms: Mapped[float | None]
    buckets: Mapped[list[int]] = mapped_column(ARRAY(Integer))
    """The buckets with operations in them, in order; see `core.histogram`."""
    counts: Mapped[list[int]] = mapped_column(ARRAY(BigInteger))
    """The number of operations in each."""


class OperationHistogram(Durations, Base):
    """The durations of a crawl's operations of one type that began in one hour, without their number growing.

    It is written with its operations and outlives them. `queue_wait` and `unaccounted` have one measurement
    per attempt. Those without a crawl, and of deleted crawls, have none.
    """

    __tablename__ = "operation_histograms"
    __table_args__ = (
        UniqueConstraint("crawl_id", "hour", "operation_type", postgresql_nulls_not_distinct=True),
    )

    id: Mapped[int] = mapped_column(Identity(), primary_key=True)
    crawl_id: Mapped[str | None] = mapped_column(
        String(255), ForeignKey(f"{SCHEMA}.crawl_sessions.crawl_id", ondelete="CASCADE")
    )
    hour: Mapped[datetime] = mapped_column(index=True)
    """Its beginning, in UTC."""
    operation_type: Mapped[str] = mapped_column(String(50))


class HourHistogram(Durations, Base):
    """The durations of one type of operations that began in a past hour: the sum over all crawls."""

    __tablename__ = "hour_histograms"

    hour: Mapped[datetime] = mapped_column(primary_key=True)
    operation_type: Mapped[str] = mapped_column(String(50), primary_key=True)


class ChangedHour(Base):
    """An hour in which a histogram of a crawl changed after it was summed up. A trigger adds the row."""

    __tablename__ = "changed_hours"

    id: Mapped[int] = mapped_column(Identity(), primary_key=True)
    hour: Mapped[datetime]


class RequestMetric(Base):
    """One answered HTTP request, partitioned like operations."""

    __tablename__ = "request_metrics"
    __table_args__ = BY_MONTH

    id: Mapped[UUID] = mapped_column(
        primary_key=True, default=uuid4, server_default=text("gen_random_uuid()")
    )
    timestamp: Mapped[datetime] = mapped_column(primary_key=True, index=True, server_default=func.now())
    method: Mapped[str] = mapped_column(String(10))
    path: Mapped[str]
    status_code: Mapped[int]
    duration_ms: Mapped[float]
    request_id: Mapped[str | None]
    client_ip: Mapped[str | None]
    user_agent: Mapped[str | None]
    extra_metadata: Mapped[dict[str, Any] | None]
    created_at: Mapped[datetime] = now()
