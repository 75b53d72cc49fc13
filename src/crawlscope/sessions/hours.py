"""Sums up the histograms of all crawls by past hour, so that totals need not read each crawl's."""

from datetime import datetime

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

_BEFORE = "coalesce(CAST(:now AS timestamptz), now()) - interval '75 minutes'"
"""Hours are summed up that began before this. A trigger notes what is written later than one hour after that,
by the same clock; a transaction that wrote before commits within the quarter of an hour."""
HOURS_AT_ONCE = 24
_LOCK = text("SELECT pg_try_advisory_xact_lock(7108, 8)")
"""Writers of past hours share it. If one does not end, the hours wait, not the next writer."""
_FORGET_EARLY = text(f"DELETE FROM webhook.hour_histograms WHERE hour >= {_BEFORE}")  # noqa: S608 - of constants
"""If the clock was set back: the trigger notes nothing of these hours before they are over."""
_DUE = text(f"""
    WITH RECURSIVE following AS (
        SELECT min(hour) AS hour, 1 AS number FROM webhook.operation_histograms
        WHERE hour > coalesce((SELECT max(hour) FROM webhook.hour_histograms), '-infinity')
        UNION ALL
        SELECT (
            SELECT min(hour) FROM webhook.operation_histograms AS later WHERE later.hour > following.hour
        ), number + 1
        FROM following WHERE number < :at_once
    )
    SELECT hour FROM following WHERE hour < {_BEFORE}
    UNION
    (SELECT hour FROM webhook.changed_hours ORDER BY id LIMIT :at_once)
""")  # noqa: S608 - of constants
"""The next hours that have ended, and those that have changed."""
_FORGET = (
    text("DELETE FROM webhook.hour_histograms WHERE hour = ANY(:hours)"),
    text("DELETE FROM webhook.changed_hours WHERE hour = ANY(:hours)"),
)
_SUM_UP = text("""
    WITH part AS (
        SELECT * FROM webhook.operation_histograms WHERE hour = ANY(:hours)
    ), total AS (
        SELECT hour, operation_type, sum(count)::bigint AS count, sum(failed)::bigint AS failed,
            sum(total_ms) AS total_ms, sum(failed_ms) AS failed_ms,
            min(min_ms) AS min_ms, max(max_ms) AS max_ms
        FROM part GROUP BY hour, operation_type
    ), bucketed AS (
        SELECT hour, operation_type, bucket, sum(number)::bigint AS number
        FROM part CROSS JOIN unnest(buckets, counts) AS pair (bucket, number)
        GROUP BY hour, operation_type, bucket
    ), merged AS (
        SELECT hour, operation_type, array_agg(bucket ORDER BY bucket) AS buckets,
            array_agg(number ORDER BY bucket) AS counts
        FROM bucketed GROUP BY hour, operation_type
    )
    INSERT INTO webhook.hour_histograms (
        hour, operation_type, count, failed, total_ms, failed_ms, min_ms, max_ms, buckets, counts
    )
    SELECT hour, operation_type, count, failed, total_ms, failed_ms, min_ms, max_ms,
        coalesce(buckets, '{}'), coalesce(counts, '{}')
    FROM total LEFT JOIN merged USING (hour, operation_type)
""")


async def sum_up_hours(connection: AsyncConnection, now: datetime | None = None) -> int:
    """The next hours; returns how many, 0 if none is left. Any number of processes may do so at once.

    `now` replaces the time of the database.
    """
    if not await connection.scalar(_LOCK):
        return 0
    await connection.execute(_FORGET_EARLY, {"now": now})
    hours = list(await connection.scalars(_DUE, {"now": now, "at_once": HOURS_AT_ONCE}))
    if hours:
        for statement in (*_FORGET, _SUM_UP):
            await connection.execute(statement, {"hours": hours})
    return len(hours)
