"""The SQL of crawl sessions: merges facts and moves counts under the lock of the session's row."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from datetime import datetime, timedelta
from functools import cache
from typing import Any
from uuid import UUID, uuid4

import structlog
from sqlalchemy import (
    ARRAY,
    ColumnElement,
    Row,
    RowMapping,
    String,
    any_,
    bindparam,
    cast,
    delete,
    exists,
    func,
    select,
    text,
    update,
)
from sqlalchemy.dialects.postgresql import Insert
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.ext.asyncio import AsyncConnection

from crawlscope import models
from crawlscope.core.errors import NotFoundError
from crawlscope.core.values import arrays, hash_key
from crawlscope.core.vocabulary import OperationType, PageState
from crawlscope.database.row_counts import count_rows
from crawlscope.sessions.fold import (
    CrawlSeen,
    Fact,
    Lifecycle,
    credible_moment,
    fact_to_json,
    fold,
    session_columns,
)
from crawlscope.sessions.histograms import Measured


@dataclass(frozen=True)
class Counts:
    """What pages add to their crawl: the names are the session's columns."""

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
    """What one page in this state counts for; None is a page that does not exist yet."""
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
    """What a transaction adds to the session of a crawl, and to its histograms. `timing.store.write_changes`
    writes it."""

    counts: Counts = Counts()
    settled_at: datetime | None = None
    """When a page of the crawl settled last, if one did."""
    failures_without_url: int = 0
    measured: list[Measured] = field(default_factory=list)

    def move_page(
        self, before: PageState | None, after: PageState | None, settled_at: datetime | None = None
    ) -> None:
        """Counts one page that changed its state."""
        self.counts += counts_of(after) - counts_of(before)
        self.settle(settled_at)

    def settle(self, at: datetime | None) -> None:
        self.settled_at = max(filter(None, (self.settled_at, at)), default=None)

    @property
    def totals(self) -> list[float]:
        """Milliseconds of successful operations, in the order of `TOTALLED`."""
        totals = dict.fromkeys(TOTALLED, 0.0)
        for _, operation_type, duration_ms, success in self.measured:
            if success and operation_type in totals:
                totals[operation_type] += duration_ms
        return list(totals.values())


NO_CHANGE = SessionChange()
QUIET = timedelta(seconds=5)
"""A crawl's end may arrive before its last page: after this time without news it has ended."""
MAX_CLAIMED = 100
SESSIONS = models.table_of(models.CrawlSession)
DELETED = models.table_of(models.DeletedCrawl)
FACTS = models.table_of(models.CrawlFact)
DELIVERIES = models.table_of(models.Delivery)

_KEEP_CRAWLS = text("""
    SELECT given.crawl_id, session.crawl_id IS NOT NULL AS known,
        pg_advisory_xact_lock_shared(7109, hashtext(given.crawl_id))
    FROM unnest(CAST(:crawl_ids AS text[])) WITH ORDINALITY AS given (crawl_id, number)
    LEFT JOIN webhook.crawl_sessions AS session ON session.crawl_id = given.crawl_id
    ORDER BY number
""")
_STOP_KEEPING = text("SELECT pg_advisory_xact_lock(7109, hashtext(:crawl_id))")
_CHANGED_COLUMNS = (
    *("crawl_id", "settled_at", "failures_without_url"),
    *(each.name for each in fields(Counts)),
    *TOTALLED.values(),
)
CHANGE_SESSIONS = """
    locked AS (
        SELECT crawl_id FROM webhook.crawl_sessions
        WHERE crawl_id = ANY(CAST(:session_crawl_id AS text[]))
        ORDER BY crawl_id COLLATE "C"
        FOR NO KEY UPDATE
    ), changed AS (
        UPDATE webhook.crawl_sessions AS session SET
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
            CAST(:session_crawl_id AS text[]), CAST(:session_settled_at AS timestamptz[]),
            CAST(:session_failures_without_url AS int[]), CAST(:session_total_pages AS int[]),
            CAST(:session_pages_indexed AS int[]), CAST(:session_pages_failed AS int[]),
            CAST(:session_pages_pending AS int[]), CAST(:session_pages_unchanged AS int[]),
            CAST(:session_pages_empty AS int[]), CAST(:session_pages_cancelled AS int[]),
            CAST(:session_total_chunking_ms AS float8[]), CAST(:session_total_embedding_ms AS float8[]),
            CAST(:session_total_qdrant_ms AS float8[]), CAST(:session_total_bm25_ms AS float8[])
        ) AS given (
            crawl_id, settled_at, failures_without_url, total_pages, pages_indexed, pages_failed,
            pages_pending, pages_unchanged, pages_empty, pages_cancelled, total_chunking_ms,
            total_embedding_ms, total_qdrant_ms, total_bm25_ms
        ) ON given.crawl_id = locked.crawl_id
        WHERE session.crawl_id = locked.crawl_id
        RETURNING session.crawl_id
    )
"""
"""Two common table expressions. The sessions are locked in the order in which all transactions lock them."""

log = structlog.get_logger(__name__)


async def keep_crawls(connection: AsyncConnection, crawl_ids: Iterable[str]) -> set[str]:
    """Lets no deletion of these crawls begin before the commit, and waits for one in progress; returns those
    that are known.

    The first lock of a transaction: a deletion takes it before all others.
    """
    kept = await connection.execute(_KEEP_CRAWLS, {"crawl_ids": sorted(crawl_ids)})
    return {row.crawl_id for row in kept if row.known}


async def lock_for_deletion(connection: AsyncConnection, crawl_id: str) -> None:
    """Waits for the transactions that keep the crawl; those that want to keep it wait for this one."""
    await connection.execute(_STOP_KEEPING, {"crawl_id": crawl_id})


async def ensure_sessions(connection: AsyncConnection, first_seen: Mapping[str, datetime]) -> set[str]:
    """Creates the sessions of unknown crawls, as started then, and keeps all; returns the crawls that were
    deleted.
    """
    unknown = first_seen.keys() - await keep_crawls(connection, first_seen)
    if not unknown:
        return set()
    rows = [
        {"crawl_id": crawl_id, "started_at": first_seen[crawl_id], "last_fact_at": first_seen[crawl_id]}
        for crawl_id in sorted(unknown)
    ]
    new = upsert(SESSIONS).on_conflict_do_nothing(index_elements=["crawl_id"]).returning(SESSIONS.c.id)
    await count_rows(connection, SESSIONS, len((await connection.scalars(new, rows)).all()))
    # After the insert, which waits for a deletion in progress: that is visible here.
    found = select(DELETED.c.crawl_id).where(_one_of(DELETED.c.crawl_id, unknown))
    deleted = set(await connection.scalars(found))
    if deleted:
        await delete_sessions(connection, deleted)
    return deleted


async def delete_sessions(connection: AsyncConnection, crawl_ids: Iterable[str]) -> None:
    gone = await connection.execute(delete(SESSIONS).where(_one_of(SESSIONS.c.crawl_id, crawl_ids)))
    await count_rows(connection, SESSIONS, -gone.rowcount)


async def ensure_session(connection: AsyncConnection, crawl_id: str, at: datetime) -> bool:
    """Like `ensure_sessions` for one crawl; false if it was deleted."""
    return not await ensure_sessions(connection, {crawl_id: at})


def _one_of(column: ColumnElement[str], values: Iterable[str]) -> ColumnElement[bool]:
    """As an array, so that the statement is the same for any number of values."""
    return column == any_(cast(list(values), ARRAY(String)))


async def require_session(connection: AsyncConnection, crawl_id: str) -> None:
    """Keeps the crawl. Raises `NotFoundError`."""
    await keep_crawls(connection, [crawl_id])
    found = select(SESSIONS.c.crawl_id).where(SESSIONS.c.crawl_id == crawl_id)
    if await connection.scalar(found.with_for_update(read=True, key_share=True)) is None:
        raise NotFoundError(f"Crawl not found: {crawl_id}")


async def find_session(connection: AsyncConnection, crawl_id: str) -> Row[*tuple[Any, ...]] | None:
    """Its `status` and times, as they are at this moment; None if unknown."""
    columns = (
        *(SESSIONS.c.status, SESSIONS.c.started_at, SESSIONS.c.completed_at),
        *(SESSIONS.c.last_fact_at, SESSIONS.c.last_settled_at),
    )
    return (await connection.execute(select(*columns).where(SESSIONS.c.crawl_id == crawl_id))).one_or_none()


async def delivered_event_type(connection: AsyncConnection, crawl_id: str) -> str | None:
    """The event type of any delivery of the crawl; None where none came."""
    return await connection.scalar(
        select(DELIVERIES.c.event_type).where(DELIVERIES.c.crawl_id == crawl_id).limit(1)
    )


async def was_delivered_since(connection: AsyncConnection, crawl_id: str, moment: datetime) -> bool:
    delivered = exists().where(DELIVERIES.c.crawl_id == crawl_id, DELIVERIES.c.received_at >= moment)
    return bool(await connection.scalar(select(delivered)))


async def merge_facts(
    connection: AsyncConnection, facts: Sequence[tuple[str, Sequence[Fact]]]
) -> list[Lifecycle | None]:
    """Merges the facts of deliveries into the sessions of their crawls, which must exist, in this order;
    locks the sessions until the commit.

    The caller stores the facts, with their delivery; facts without one go through `keep_fact`. Returns for
    each delivery the lifecycle before it.
    """
    locked = await lock_sessions(connection, {crawl_id for crawl_id, _ in facts})
    stored = {name: Lifecycle.from_json(row.fold, row.last_fact_at) for name, row in locked.items()}
    merged, before = dict(stored), []
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
        if lifecycle and lifecycle != stored[crawl_id]
    ]
    if changed:
        await connection.execute(
            update(SESSIONS).where(SESSIONS.c.crawl_id == bindparam("of_crawl")), changed
        )
    return before


async def lock_sessions(
    connection: AsyncConnection, crawl_ids: Iterable[str]
) -> dict[str, Row[*tuple[Any, ...]]]:
    """Locks sessions until the commit, in the order of their ids; returns `fold` and `last_fact_at` of each
    that exists."""
    locked = await connection.execute(
        select(SESSIONS.c.crawl_id, SESSIONS.c.fold, SESSIONS.c.last_fact_at)
        .where(_one_of(SESSIONS.c.crawl_id, crawl_ids))
        .order_by(SESSIONS.c.crawl_id.collate("C"))
        .with_for_update(key_share=True)
    )
    return {row.crawl_id: row for row in locked}


async def lock_session(connection: AsyncConnection, crawl_id: str) -> bool:
    """Locks the session until the commit; false if it is unknown."""
    return bool(await lock_sessions(connection, [crawl_id]))


async def keep_fact(connection: AsyncConnection, crawl_id: str, fact: Fact, *identity: str) -> None:
    """Stores and merges a fact without a delivery, unless one with the same `identity` is stored."""
    kept = await connection.execute(
        _fact_row(crawl_id, fact.at, fact_to_json(fact), hash_key(*identity))
        .on_conflict_do_nothing()
        .returning(FACTS.c.id)
    )
    if kept.one_or_none() is not None:
        await merge_facts(connection, [(crawl_id, [fact])])


async def keep_action(
    connection: AsyncConnection, crawl_id: str, at: datetime, action: str, /, **details: Any
) -> None:
    """Stores what an operator did; it is not merged."""
    await connection.execute(_fact_row(crawl_id, at, {"action": action, **details}, uuid4()))


async def note_operations(
    connection: AsyncConnection, began: Mapping[str, tuple[datetime, datetime]]
) -> set[str]:
    """Merges operations as signs of their crawls, which may be unknown so far: `began` says when the first
    one and the last one of each began. Returns the crawls that were deleted.
    """
    deleted = await ensure_sessions(connection, {crawl_id: first for crawl_id, (first, _) in began.items()})
    noted = [
        (crawl_id, [CrawlSeen(at, what="operation") for at in moments])
        for crawl_id, moments in sorted(began.items())
        if crawl_id not in deleted
    ]
    for crawl_id, seen in noted:
        for fact, name, further in zip(seen, ("first", "last"), (func.least, func.greatest), strict=True):
            row = _fact_row(crawl_id, fact.at, fact_to_json(fact), hash_key(name, "operation"))
            await connection.execute(
                row.on_conflict_do_update(
                    index_elements=["crawl_id", "identity"],
                    set_={"at": further(FACTS.c.at, row.excluded.at)},
                )
            )
    await merge_facts(connection, noted)
    return deleted


def session_arrays(changes: Mapping[str | None, SessionChange]) -> dict[str, list[Any]]:
    """The parameters of `CHANGE_SESSIONS`."""
    rows = [
        (
            *(crawl_id, change.settled_at, change.failures_without_url),
            *vars(change.counts).values(),
            *change.totals,
        )
        for crawl_id, change in changes.items()
        if crawl_id
    ]
    return arrays(_CHANGED_COLUMNS, rows, "session_")


async def claim_ended(connection: AsyncConnection) -> list[RowMapping]:
    """Sessions of crawls that have ended, with all pages settled, and were not claimed before."""
    quiet_since = func.now() - QUIET
    ended = (
        select(SESSIONS.c.crawl_id)
        .where(
            ~SESSIONS.c.counted,
            SESSIONS.c.completed_at.is_not(None),
            SESSIONS.c.pages_pending == 0,
            func.greatest(SESSIONS.c.last_fact_at, SESSIONS.c.last_settled_at) < quiet_since,
        )
        .order_by(SESSIONS.c.crawl_id.collate("C"))
        .limit(MAX_CLAIMED)
        .with_for_update(skip_locked=True, key_share=True)
    )
    claimed = await connection.execute(
        update(SESSIONS).where(SESSIONS.c.crawl_id.in_(ended)).values(counted=True).returning(*SESSIONS.c)
    )
    return list(claimed.mappings())


async def traceparents_of(connection: AsyncConnection, crawl_ids: Iterable[str]) -> dict[str, object]:
    """What the initiators of crawls gave as `traceparent`, valid or not."""
    given = SESSIONS.c.extra_metadata["traceparent"].label("given")
    found = select(SESSIONS.c.crawl_id, given).where(_one_of(SESSIONS.c.crawl_id, crawl_ids))
    return {row.crawl_id: row.given for row in await connection.execute(found)}


async def failures_without_url(connection: AsyncConnection, crawl_id: str) -> int:
    found = select(SESSIONS.c.failures_without_url).where(SESSIONS.c.crawl_id == crawl_id)
    return await connection.scalar(found) or 0


def _fact_row(crawl_id: str, at: datetime, fact: dict[str, Any], identity: UUID) -> Insert:
    return upsert(FACTS).values(crawl_id=crawl_id, identity=identity, at=at, fact=fact)
