"""The SQL of crawl sessions and of the facts about them: creates, keeps, reads and claims them."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

from sqlalchemy import (
    ARRAY,
    ColumnElement,
    Row,
    RowMapping,
    String,
    any_,
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
from crawlscope.core.values import hash_key
from crawlscope.core.vocabulary import CrawlStatus
from crawlscope.database.row_counts import count_rows, counted
from crawlscope.sessions.changes import lock_sessions, merge_facts
from crawlscope.sessions.fold import CrawlSeen, Ended, Fact, PageSeen, StatusAnswer, credible_moment

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
_CREATE = text(
    f"""
    WITH created AS (
        INSERT INTO webhook.crawl_sessions (crawl_id, started_at, last_fact_at)
        SELECT crawl_id, at, at
        FROM unnest(CAST(:crawl_ids AS text[]), CAST(:moments AS timestamptz[])) WITH ORDINALITY
            AS given (crawl_id, at, number)
        ORDER BY number
        ON CONFLICT (crawl_id) DO NOTHING
        RETURNING id
    )
    {counted(SESSIONS, "(SELECT count(*) FROM created)")}
"""  # noqa: S608 - of constants
)
_STOP_KEEPING = text("SELECT pg_advisory_xact_lock(7109, hashtext(:crawl_id))")


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
    ordered = sorted(unknown)
    moments = [first_seen[crawl_id] for crawl_id in ordered]
    await connection.execute(_CREATE, {"crawl_ids": ordered, "moments": moments})
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
    """The event type of any delivery of the crawl; None if none came."""
    return await connection.scalar(
        select(DELIVERIES.c.event_type).where(DELIVERIES.c.crawl_id == crawl_id).limit(1)
    )


async def was_delivered_since(connection: AsyncConnection, crawl_id: str, moment: datetime) -> bool:
    delivered = exists().where(DELIVERIES.c.crawl_id == crawl_id, DELIVERIES.c.received_at >= moment)
    return bool(await connection.scalar(select(delivered)))


async def keep_fact(connection: AsyncConnection, crawl_id: str, fact: Fact, *identity: str) -> None:
    """Stores and merges a fact without a delivery, unless one with the same `identity` is stored."""
    kept = await connection.execute(
        _fact_row(crawl_id, fact.at, fact_to_json(fact), hash_key(*identity))
        .on_conflict_do_nothing()
        .returning(FACTS.c.id)
    )
    if kept.one_or_none() is not None:
        stored = await lock_sessions(connection, [crawl_id])
        sessions = {each: (lifecycle, lifecycle) for each, lifecycle in stored.items()}
        await merge_facts(connection, [(crawl_id, [fact])], sessions)


async def keep_action(
    connection: AsyncConnection, crawl_id: str, at: datetime, action: str, /, **details: Any
) -> None:
    """Stores what an operator did; it is not merged."""
    await connection.execute(_fact_row(crawl_id, at, {"action": action, **details}, uuid4()))


async def note_operations(
    connection: AsyncConnection, began: Mapping[str, tuple[datetime, datetime]]
) -> tuple[set[str], list[tuple[str, Sequence[Fact]]]]:
    """Stores operations as signs of their crawls, which may be unknown so far: `began` says when the first
    one and the last one of each began. Returns the crawls that were deleted, and the facts for `merge_facts`.
    """
    deleted = await ensure_sessions(connection, {crawl_id: first for crawl_id, (first, _) in began.items()})
    noted: list[tuple[str, Sequence[Fact]]] = [
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
    return deleted, noted


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
    """The `traceparent` of the initiators of crawls, valid or not."""
    given = SESSIONS.c.extra_metadata["traceparent"].label("given")
    found = select(SESSIONS.c.crawl_id, given).where(_one_of(SESSIONS.c.crawl_id, crawl_ids))
    return {row.crawl_id: row.given for row in await connection.execute(found)}


async def failures_without_url(connection: AsyncConnection, crawl_id: str) -> int:
    found = select(SESSIONS.c.failures_without_url).where(SESSIONS.c.crawl_id == crawl_id)
    return await connection.scalar(found) or 0


def fact_to_json(fact: Fact) -> dict[str, Any]:
    """The JSON that `fact_from_json` needs besides the time."""
    stored: dict[str, Any]
    match fact:
        case CrawlSeen(_, metadata, what):
            stored = {"heard": what, "metadata": dict(metadata)}
        case PageSeen(_, url, fetched):
            stored = {"page": url, "fetched": fetched}
        case Ended(_, status, error, late):
            stored = {"ended": status.value, "error": error, "late": late}
        case StatusAnswer(_, ended, created_at, completed_at, error, failed_at, running_at):
            stored = {
                "told": ended.value if ended else CrawlStatus.IN_PROGRESS.value,
                "created_at": created_at and created_at.isoformat(),
                "completed_at": completed_at and completed_at.isoformat(),
                "error": error,
                "failed_at": failed_at and failed_at.isoformat(),
                "running_at": running_at and running_at.isoformat(),
            }
    return {name: value for name, value in stored.items() if value or name == "heard"}


def fact_from_json(at: datetime, stored: Mapping[str, Any]) -> Fact | None:
    """None for a fact that is not merged, such as an operator's action."""
    if "heard" in stored:
        return CrawlSeen(at, stored.get("metadata", {}), stored["heard"])
    if "page" in stored:
        return PageSeen(at, stored["page"], stored.get("fetched", False))
    if "ended" in stored:
        return Ended(at, CrawlStatus(stored["ended"]), stored.get("error"), stored.get("late", False))
    if "told" in stored:
        ended = CrawlStatus(stored["told"])
        return StatusAnswer(
            at,
            None if ended is CrawlStatus.IN_PROGRESS else ended,
            credible_moment(stored.get("created_at")),
            credible_moment(stored.get("completed_at")),
            stored.get("error"),
            credible_moment(stored.get("failed_at")),
            credible_moment(stored.get("running_at")),
        )
    return None


def _fact_row(crawl_id: str, at: datetime, fact: dict[str, Any], identity: UUID) -> Insert:
    return upsert(FACTS).values(crawl_id=crawl_id, identity=identity, at=at, fact=fact)
