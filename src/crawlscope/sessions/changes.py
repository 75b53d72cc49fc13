"""The changes of a transaction to crawls' sessions: facts, counts of pages, totals and histograms. Each
transaction writes them at its end, because that locks the sessions."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from datetime import datetime
from functools import cache
from typing import Any

import structlog
from sqlalchemy import ARRAY, String, TextClause, any_, bindparam, cast, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from crawlscope import models
from crawlscope.core.histogram import Histogram, whole_ticks
from crawlscope.core.values import arrays
from crawlscope.core.vocabulary import QUEUE_WAIT, UNACCOUNTED, OperationType, PageState
from crawlscope.sessions.fold import (
    CrawlSeen,
    Fact,
    Lifecycle,
    PageSeen,
    credible_moment,
    fold,
    session_columns,
)

SESSIONS = models.table_of(models.CrawlSession)
Histograms = Mapping[tuple[datetime, str], Histogram]
"""By the hour in which the measurements began, and their type."""
Measured = tuple[datetime, str, float, bool]
"""When it began, its type, its milliseconds, and whether it succeeded."""

log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class Counts:
    """The counts that pages add to their crawl: the names are the session's columns."""

    total_pages: int = 0
    pages_indexed: int = 0
    pages_failed: int = 0
    pages_pending: int = 0
    pages_unchanged: int = 0
    pages_empty: int = 0
    pages_cancelled: int = 0

    def __add__(self, other: "Counts") -> "Counts":
        return Counts(**{name: value + getattr(other, name) for name, value in vars(self).items()})

    def __sub__(self, other: "Counts") -> "Counts":
        return Counts(**{name: value - getattr(other, name) for name, value in vars(self).items()})

    def __mul__(self, times: int) -> "Counts":
        return Counts(**{name: value * times for name, value in vars(self).items()})


@cache
def counts_of(state: PageState | None) -> Counts:
    """The counts of one page in this state; None is a page that does not exist yet."""
    if state is None:
        return Counts()
    return Counts(
        total_pages=int(state.succeeded or state is PageState.FAILED),
        pages_indexed=int(state.succeeded),
        pages_failed=int(state is PageState.FAILED),
        pages_pending=int(not state.settled),
        pages_unchanged=int(state is PageState.UNCHANGED),
        pages_empty=int(state is PageState.EMPTY),
        pages_cancelled=int(state is PageState.CANCELLED),
    )


TOTALLED: Mapping[str, str] = {
    OperationType.CHUNKING: "total_chunking_ms",
    OperationType.EMBEDDING: "total_embedding_ms",
    OperationType.QDRANT: "total_qdrant_ms",
    OperationType.BM25: "total_bm25_ms",
}
"""Per operation type whose time a crawl sums up, the session's column."""


@dataclass
class SessionChange:
    """The change of a transaction to the session of a crawl, and to its histograms.
    `timing.store.write_changes` writes it."""

    moved: Counter[tuple[PageState | None, PageState | None]] = field(default_factory=Counter)
    """Number of pages by their states before and after; None for a page that was not stored before."""
    settled_at: list[datetime | None] = field(default_factory=list)
    """When pages settled, None for one that did not."""
    failures_without_url: int = 0
    measured: list[Measured] = field(default_factory=list)
    facts: list[Fact] = field(default_factory=list)

    def measure_attempt(
        self, started_at: datetime, queued_at: datetime | None, unaccounted_ms: float
    ) -> None:
        """Adds the measurements of an attempt at a page besides its operations."""
        self.measured.append((started_at, UNACCOUNTED, unaccounted_ms, True))
        if queued_at is not None:
            waited_ms = whole_ticks(max(0.0, (started_at - queued_at).total_seconds() * 1000))
            self.measured.append((started_at, QUEUE_WAIT, waited_ms, True))


_CHANGED_COLUMNS = (
    *("crawl_id", "last_fact_at", "last_page_at", "settled_at", "failures_without_url"),
    *(each.name for each in fields(Counts)),
    *TOTALLED.values(),
)
CHANGE_SESSIONS = """
    locked AS (
        SELECT crawl_id, fold, last_fact_at FROM webhook.crawl_sessions
        WHERE crawl_id = ANY(CAST(:session_crawl_id AS text[]))
        ORDER BY crawl_id COLLATE "C"
        FOR NO KEY UPDATE
    ), changed AS (
        UPDATE webhook.crawl_sessions AS session SET
            last_fact_at = greatest(session.last_fact_at, given.last_fact_at),
            fold = CASE
                WHEN session.fold = '{}' OR given.last_page_at IS NULL
                    OR CAST(given.last_page_at AS timestamptz)
                        <= CAST(session.fold ->> 'last_page_at' AS timestamptz)
                    THEN session.fold
                ELSE session.fold || jsonb_build_object('last_page_at', given.last_page_at)
            END,
            last_settled_at = greatest(session.last_settled_at, given.settled_at), -- which passes over NULL
            failures_without_url = session.failures_without_url + given.failures_without_url,
            total_pages = session.total_pages + given.total_pages,
            pages_indexed = session.pages_indexed + given.pages_indexed,
            pages_failed = session.pages_failed + given.pages_failed,
            pages_pending = session.pages_pending + given.pages_pending,
            pages_unchanged = session.pages_unchanged + given.pages_unchanged,
            pages_empty = session.pages_empty + given.pages_empty,
            pages_cancelled = session.pages_cancelled + given.pages_cancelled,
            total_chunking_ms = session.total_chunking_ms + given.total_chunking_ms,
            total_embedding_ms = session.total_embedding_ms + given.total_embedding_ms,
            total_qdrant_ms = session.total_qdrant_ms + given.total_qdrant_ms,
            total_bm25_ms = session.total_bm25_ms + given.total_bm25_ms
        FROM locked JOIN unnest(
            CAST(:session_crawl_id AS text[]), CAST(:session_last_fact_at AS timestamptz[]),
            CAST(:session_last_page_at AS text[]), CAST(:session_settled_at AS timestamptz[]),
            CAST(:session_failures_without_url AS int[]), CAST(:session_total_pages AS int[]),
            CAST(:session_pages_indexed AS int[]), CAST(:session_pages_failed AS int[]),
            CAST(:session_pages_pending AS int[]), CAST(:session_pages_unchanged AS int[]),
            CAST(:session_pages_empty AS int[]), CAST(:session_pages_cancelled AS int[]),
            CAST(:session_total_chunking_ms AS float8[]), CAST(:session_total_embedding_ms AS float8[]),
            CAST(:session_total_qdrant_ms AS float8[]), CAST(:session_total_bm25_ms AS float8[])
        ) AS given (
            crawl_id, last_fact_at, last_page_at, settled_at, failures_without_url, total_pages,
            pages_indexed, pages_failed, pages_pending, pages_unchanged, pages_empty, pages_cancelled,
            total_chunking_ms, total_embedding_ms, total_qdrant_ms, total_bm25_ms
        ) ON given.crawl_id = locked.crawl_id
        WHERE session.crawl_id = locked.crawl_id
        RETURNING session.crawl_id, session.fold, session.last_fact_at,
            locked.fold AS former_fold, locked.last_fact_at AS former_last_fact_at
    )
"""
"""Two common table expressions. The sessions are locked in the order in which all transactions lock them. The
time of a crawl's last fact and page, which are what most facts change, are merged here."""
_HISTOGRAM_COLUMNS = (
    *("crawl_id", "hour", "operation_type", "count", "failed", "total_ms", "failed_ms", "min_ms", "max_ms"),
    *("buckets", "counts"),
)
ADD_HISTOGRAMS = """
    INSERT INTO webhook.operation_histograms AS kept (
        crawl_id, hour, operation_type, count, failed, total_ms, failed_ms, min_ms, max_ms, buckets, counts
    )
    SELECT crawl_id, hour, operation_type, count, failed, total_ms, failed_ms, min_ms, max_ms,
        CAST(buckets AS int[]), CAST(counts AS bigint[])
    FROM unnest(
        CAST(:histogram_crawl_id AS text[]), CAST(:histogram_hour AS timestamptz[]),
        CAST(:histogram_operation_type AS text[]), CAST(:histogram_count AS bigint[]),
        CAST(:histogram_failed AS bigint[]), CAST(:histogram_total_ms AS float8[]),
        CAST(:histogram_failed_ms AS float8[]), CAST(:histogram_min_ms AS float8[]),
        CAST(:histogram_max_ms AS float8[]), CAST(:histogram_buckets AS text[]),
        CAST(:histogram_counts AS text[])
    ) AS given (
        crawl_id, hour, operation_type, count, failed, total_ms, failed_ms, min_ms, max_ms, buckets, counts
    )
    WHERE (SELECT count(*) FROM changed) >= 0
    ON CONFLICT (crawl_id, hour, operation_type) DO UPDATE SET
        count = kept.count + excluded.count,
        failed = kept.failed + excluded.failed,
        total_ms = kept.total_ms + excluded.total_ms,
        failed_ms = kept.failed_ms + excluded.failed_ms,
        min_ms = least(kept.min_ms, excluded.min_ms), -- which passes over NULL
        max_ms = greatest(kept.max_ms, excluded.max_ms),
        (buckets, counts) = (
            SELECT coalesce(array_agg(bucket ORDER BY bucket), '{}'),
                coalesce(array_agg(number ORDER BY bucket), '{}')
            FROM (
                SELECT bucket, sum(number)::bigint AS number FROM (
                    SELECT unnest(kept.buckets) AS bucket, unnest(kept.counts) AS number
                    UNION ALL
                    SELECT unnest(excluded.buckets), unnest(excluded.counts)
                ) AS parts GROUP BY bucket
            ) AS merged
        )
"""
"""Adds nothing before all of `changed` is there, which locks the crawls' sessions."""


def _change_arrays(changes: Mapping[str | None, SessionChange]) -> dict[str, list[Any]]:
    """The parameters of `CHANGE_SESSIONS` and `ADD_HISTOGRAMS`; The key None has changes that belong to no
    crawl. No session is locked to which nothing is added."""
    sessions, histograms = [], {}
    for crawl_id, change in changes.items():
        counts, totals = Counts(), dict.fromkeys(TOTALLED, 0.0)
        for (before, after), number in change.moved.items():
            counts += (counts_of(after) - counts_of(before)) * number
        for _, operation_type, duration_ms, success in change.measured:
            if success and operation_type in totals:
                totals[operation_type] += duration_ms
        settled_at = max(filter(None, change.settled_at), default=None)
        last_fact_at = max((fact.at for fact in change.facts), default=None)
        pages_at = (each.at for each in change.facts if isinstance(each, PageSeen) and not each.fetched)
        last_page_at = max(pages_at, default=None)
        row = (
            *(last_fact_at, last_page_at and last_page_at.isoformat()),
            *(settled_at, change.failures_without_url, *vars(counts).values(), *totals.values()),
        )
        if crawl_id and (change.measured or any(row)):
            sessions.append((crawl_id, *row))
        histograms[crawl_id] = Histogram.by_key(
            ((at.replace(minute=0, second=0, microsecond=0), operation_type), duration_ms, success)
            for at, operation_type, duration_ms, success in change.measured
        )
    return arrays(_CHANGED_COLUMNS, sessions, "session_") | histogram_arrays(histograms)


def _array(numbers: Iterable[int]) -> str:
    """As PostgreSQL writes it: `unnest` would take an array of arrays apart."""
    return f"{{{','.join(map(str, numbers))}}}"


def histogram_arrays(added: Mapping[str | None, Histograms]) -> dict[str, list[Any]]:
    """The parameters of `ADD_HISTOGRAMS`."""
    rows = [
        (
            *(crawl_id, hour, operation_type, each.count, each.failed, each.total_ms, each.failed_ms),
            *(each.min_ms, each.max_ms, _array(each.buckets), _array(each.buckets.values())),
        )
        for crawl_id, histograms in sorted(added.items(), key=lambda of: of[0] or "")
        for (hour, operation_type), each in sorted(histograms.items())
    ]
    return arrays(_HISTOGRAM_COLUMNS, rows, "histogram_")


async def change_sessions(
    connection: AsyncConnection,
    statement: TextClause,
    given: Mapping[str, Any],
    changes: Mapping[str | None, SessionChange],
    facts: Sequence[tuple[str, Sequence[Fact]]],
) -> list[Lifecycle | None]:
    """Executes a statement with `CHANGE_SESSIONS` and `ADD_HISTOGRAMS`, and with `given` for its other parts;
    merges `facts`. Returns what `merge_facts` does."""
    given = {**given, **_change_arrays(changes)}
    if not any(given.values()):
        return []
    changed = await connection.execute(statement, given)
    if not facts:
        return []
    sessions = {
        row.crawl_id: (
            Lifecycle.from_json(row.former_fold, row.former_last_fact_at),
            Lifecycle.from_json(row.fold, row.last_fact_at),
        )
        for row in changed
    }
    return await merge_facts(connection, facts, sessions)


async def merge_facts(
    connection: AsyncConnection,
    facts: Sequence[tuple[str, Sequence[Fact]]],
    sessions: Mapping[str, tuple[Lifecycle | None, Lifecycle | None]],
) -> list[Lifecycle | None]:
    """Merges the facts of deliveries into the sessions of their crawls, in this order. `sessions` are locked:
    each as it was before, and as it is stored now, with the time of the last fact and page.

    The caller stores the facts, with their delivery; facts without one go through `keep_fact`. Returns for
    each delivery the lifecycle before it.
    """
    merged, before = {crawl_id: former for crawl_id, (former, _) in sessions.items()}, []
    for crawl_id, each in facts:
        before.append(merged[crawl_id])
        merged[crawl_id] = fold(merged[crawl_id], each)
        for fact in each:
            if isinstance(fact, CrawlSeen) and "initiated_at" in fact.metadata:
                value = fact.metadata["initiated_at"]
                if credible_moment(value) is None:
                    log.warning("initiated_at_ignored", crawl_id=crawl_id, value=str(value)[:100])
    changed = [
        {"of_crawl": crawl_id, **session_columns(lifecycle)}
        for crawl_id, lifecycle in sorted(merged.items())
        if lifecycle and (lifecycle != sessions[crawl_id][1] or lifecycle.has_ended)
    ]
    if changed:
        await connection.execute(
            update(SESSIONS).where(SESSIONS.c.crawl_id == bindparam("of_crawl")), changed
        )
    return before


async def lock_sessions(connection: AsyncConnection, crawl_ids: Iterable[str]) -> dict[str, Lifecycle | None]:
    """Locks those that exist until the commit, in the order of their ids."""
    locked = await connection.execute(
        select(SESSIONS.c.crawl_id, SESSIONS.c.fold, SESSIONS.c.last_fact_at)
        .where(SESSIONS.c.crawl_id == any_(cast(list(crawl_ids), ARRAY(String))))
        .order_by(SESSIONS.c.crawl_id.collate("C"))
        .with_for_update(key_share=True)
    )
    return {row.crawl_id: Lifecycle.from_json(row.fold, row.last_fact_at) for row in locked}


async def lock_session(connection: AsyncConnection, crawl_id: str) -> bool:
    """Locks the session until the commit; false if it is unknown."""
    return bool(await lock_sessions(connection, [crawl_id]))
