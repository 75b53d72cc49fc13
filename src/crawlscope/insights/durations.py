"""Reads durations from histograms: at the same cost for any number of operations."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Self

from sqlalchemy.ext.asyncio import AsyncConnection

from crawlscope.core.histogram import Histogram
from crawlscope.core.vocabulary import QUEUE_WAIT, UNACCOUNTED
from crawlscope.insights import queries
from crawlscope.insights.queries import rows_of
from crawlscope.insights.schemas import OperationStats, QueueWait
from crawlscope.sessions.histograms import histogram_of


@dataclass(frozen=True)
class Durations:
    """The names are those of a crawl's answer."""

    operations: dict[str, OperationStats] = field(default_factory=dict)
    queue_wait: QueueWait = field(default_factory=QueueWait)
    unaccounted: OperationStats | None = None

    @classmethod
    def of(cls, measured: Mapping[str, Iterable[Histogram]]) -> Self:
        """From the histograms of each type."""
        stats = {}
        for name, parts in sorted(measured.items()):
            whole = Histogram.sum(parts)
            p50_ms, p95_ms, p99_ms = whole.percentiles((0.5, 0.95, 0.99))
            stats[name] = OperationStats(
                count=whole.count,
                failed=whole.failed,
                total_ms=whole.total_ms,
                mean_ms=whole.mean_ms,
                p50_ms=p50_ms,
                p95_ms=p95_ms,
                p99_ms=p99_ms,
                max_ms=whole.max_ms,
                failed_ms=whole.failed_ms,
            )
        waited, unaccounted = stats.pop(QUEUE_WAIT, None), stats.pop(UNACCOUNTED, None)
        return cls(stats, QueueWait(**vars(waited)) if waited else QueueWait(), unaccounted)


async def durations_of(connection: AsyncConnection, crawl_ids: Sequence[str]) -> dict[str, Durations]:
    """By crawl; also of those that have none."""
    parts: dict[str, dict[str, list[Histogram]]] = {each: defaultdict(list) for each in crawl_ids}
    for row in await rows_of(connection, queries.histograms(crawl_ids)):
        parts[row["crawl_id"]][row["operation_type"]].append(histogram_of(row))
    return {crawl_id: Durations.of(measured) for crawl_id, measured in parts.items()}


async def durations_between(connection: AsyncConnection, since: datetime, until: datetime) -> Durations:
    """Over all crawls, by whole hours."""
    buckets: dict[str, dict[int, int]] = defaultdict(dict)
    for row in await rows_of(connection, queries.bucket_totals(since, until)):
        buckets[row["operation_type"]][row["bucket"]] = row["number"]
    totals = await rows_of(connection, queries.histogram_totals(since, until))
    named = ((row, buckets[row["operation_type"]]) for row in totals)
    return Durations.of(
        {
            row["operation_type"]: [histogram_of({**row, "buckets": counted, "counts": counted.values()})]
            for row, counted in named
        }
    )
