"""The reports of all processes for monitoring."""

from datetime import datetime

from sqlalchemy import ARRAY, BigInteger, String, Text
from sqlalchemy.orm import Mapped, mapped_column

from crawlscope.models.base import Base, now


class MetricTotal(Base):
    """One series of a metric, added up over all processes since the first start."""

    __tablename__ = "metric_totals"

    metric: Mapped[str] = mapped_column(String(100), primary_key=True)
    """The name, as in `timing.telemetry.conventions`."""
    labels: Mapped[list[str]] = mapped_column(ARRAY(Text()), primary_key=True)
    """The values of the metric's labels, in their order."""
    value: Mapped[float]
    """The sum: a number of events, or seconds."""
    buckets: Mapped[list[int]] = mapped_column(ARRAY(BigInteger()))
    """For a histogram: the number of values in each bucket."""


class Process(Base):
    """A process that uses the database, as it reported last."""

    __tablename__ = "processes"

    name: Mapped[str] = mapped_column(primary_key=True)
    """Host and process id."""
    kind: Mapped[str] = mapped_column(String(50))
    version: Mapped[str] = mapped_column(String(50))
    revision: Mapped[str | None] = mapped_column(String(32))
    """The revision of the tables that its version needs."""
    started_at: Mapped[datetime]
    reported_at: Mapped[datetime] = now()
    memory_bytes: Mapped[int]
    """Its resident memory."""
