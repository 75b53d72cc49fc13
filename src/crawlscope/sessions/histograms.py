"""The SQL of histograms: reads those of a crawl, and counts them anew."""

from collections.abc import Mapping
from typing import Any

from sqlalchemy import CursorResult, text
from sqlalchemy.ext.asyncio import AsyncConnection

from crawlscope.core.histogram import LOG_GROWTH, TICKS_PER_MS, ZERO, Histogram
from crawlscope.core.vocabulary import QUEUE_WAIT, UNACCOUNTED
from crawlscope.sessions.changes import ADD_HISTOGRAMS, Histograms, histogram_arrays

_ADD_ALONE = text(f"WITH changed AS (SELECT) {ADD_HISTOGRAMS}")
_FORGET = text("DELETE FROM webhook.operation_histograms WHERE crawl_id = :crawl_id")
_OF_CRAWL = text("SELECT * FROM webhook.operation_histograms WHERE crawl_id = :crawl_id")
_COUNT_ANEW = text(
    """
    WITH attempt AS (
        SELECT started_at, unaccounted_ms, queued_at
        FROM webhook.page_attempts
        WHERE page_id IN (SELECT id FROM webhook.pages WHERE crawl_id = :crawl_id) AND total_ms IS NOT NULL
    ), measured AS (
        SELECT timestamp AS at, operation_type, duration_ms * :ticks_per_ms AS ticks, success
        FROM webhook.operation_metrics WHERE crawl_id = :crawl_id
        UNION ALL
        SELECT started_at, CAST(:queue_wait AS text),
            greatest(0, extract(epoch FROM started_at - queued_at)) * 1000 * :ticks_per_ms, true
        FROM attempt WHERE queued_at IS NOT NULL
        UNION ALL
        SELECT started_at, CAST(:unaccounted AS text), unaccounted_ms * :ticks_per_ms, true FROM attempt
    ), bucketed AS (
        SELECT
            date_trunc('hour', at, 'UTC') AS hour, operation_type, success,
            CASE
                WHEN NOT success THEN NULL
                WHEN round(ticks) > 0 THEN ceil(ln(round(ticks)) / CAST(:log_growth AS float8))::int
                ELSE CAST(:zero AS int)
            END AS bucket,
            count(*) AS number, sum(round(ticks)) AS ticks,
            min(round(ticks)) AS least_ticks, max(round(ticks)) AS most_ticks
        FROM measured GROUP BY 1, 2, 3, 4
    )
    SELECT
        hour, operation_type, sum(number)::bigint AS count,
        coalesce(sum(number) FILTER (WHERE NOT success), 0)::bigint AS failed,
        coalesce(sum(ticks) FILTER (WHERE success), 0) / :ticks_per_ms AS total_ms,
        coalesce(sum(ticks) FILTER (WHERE NOT success), 0) / :ticks_per_ms AS failed_ms,
        min(least_ticks) FILTER (WHERE success) / :ticks_per_ms AS min_ms,
        max(most_ticks) FILTER (WHERE success) / :ticks_per_ms AS max_ms,
        coalesce(array_agg(bucket ORDER BY bucket) FILTER (WHERE success), '{}') AS buckets,
        coalesce(array_agg(number ORDER BY bucket) FILTER (WHERE success), '{}') AS counts
    FROM bucketed GROUP BY hour, operation_type
""".replace(":ticks_per_ms", f"CAST({TICKS_PER_MS} AS float8)")
)


async def add_histograms(connection: AsyncConnection, added: Mapping[str | None, Histograms]) -> None:
    """The caller has locked the crawls' sessions, so that no other transaction waits here for longer than it
    did there."""
    await connection.execute(_ADD_ALONE, histogram_arrays(added))


async def replace_histograms(connection: AsyncConnection, crawl_id: str, by: Histograms) -> None:
    await connection.execute(_FORGET, {"crawl_id": crawl_id})
    await add_histograms(connection, {crawl_id: by})


async def stored_histograms(connection: AsyncConnection, crawl_id: str) -> Histograms:
    return _by_hour_and_type(await connection.execute(_OF_CRAWL, {"crawl_id": crawl_id}))


async def count_histograms(connection: AsyncConnection, crawl_id: str) -> Histograms:
    """From the crawl's operations and attempts."""
    values = {"queue_wait": QUEUE_WAIT, "unaccounted": UNACCOUNTED, "log_growth": LOG_GROWTH, "zero": ZERO}
    return _by_hour_and_type(await connection.execute(_COUNT_ANEW, {"crawl_id": crawl_id, **values}))


def histogram_of(row: Mapping[Any, Any]) -> Histogram:
    """From the columns of `operation_histograms`."""
    names = ("count", "failed", "total_ms", "failed_ms", "min_ms", "max_ms")
    buckets = dict(zip(row["buckets"], row["counts"], strict=True))
    return Histogram(**{name: row[name] for name in names}, buckets=buckets)


def _by_hour_and_type(rows: CursorResult[Any]) -> Histograms:
    return {(row["hour"], row["operation_type"]): histogram_of(row) for row in rows.mappings()}
