"""The SQL of notifications: new events of crawls, pending notifications, and the results of attempts."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, RowMapping, Select, delete, exists, func, literal, or_, select, update
from sqlalchemy.dialects.postgresql import aggregate_order_by
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.ext.asyncio import AsyncConnection

from crawlscope import models
from crawlscope.core.errors import NotFoundError
from crawlscope.core.vocabulary import CrawlStatus, Engine, NotificationType, ReconcileState
from crawlscope.insights.queries import rows_of
from crawlscope.insights.sealing import Row, sealing
from crawlscope.notifications.retry import Reply
from crawlscope.sessions.repository import SESSIONS

NOTIFYING = models.table_of(models.Notifying)
NOTIFICATIONS = models.table_of(models.Notification)

CHECKS = models.table_of(models.Reconciliation)
REQUESTS = models.table_of(models.CrawlRequest)

COLUMNS = [column for column in SESSIONS.c if column.name not in ("fold", "lacks")]
OF_SEALING = [REQUESTS.c.engine, *(column for column in CHECKS.c if column.name != "crawl_id")]
CRAWLS = SESSIONS.outerjoin(REQUESTS, REQUESTS.c.crawl_id == SESSIONS.c.crawl_id).outerjoin(
    CHECKS, CHECKS.c.crawl_id == SESSIONS.c.crawl_id
)
MAX_EVENTS = 100
MAX_CLAIMS = 8
LEASE = timedelta(minutes=1)
"""How long an attempt may take before another process may make the next."""


@dataclass(frozen=True)
class Due:
    """A notification that this process is to send."""

    id: UUID
    attempts: int
    """This one included."""
    payload: dict[str, Any]


@dataclass(frozen=True)
class Failing:
    count: int
    at: datetime
    """When one was tried last."""
    error: str


async def begin_notifying(connection: AsyncConnection) -> datetime:
    """The time since which crawls cause notifications: now, if none was stored before."""
    await connection.execute(upsert(NOTIFYING).values(since=datetime.now(UTC)).on_conflict_do_nothing())
    since: datetime = (await connection.execute(select(NOTIFYING.c.since))).scalar_one()
    return since


async def stop_notifying(connection: AsyncConnection) -> None:
    await connection.execute(delete(NOTIFYING))


async def new_searchable(
    connection: AsyncConnection,
    since: datetime,
    quiet_since: datetime,
    facts_since: datetime,
    asks_firecrawl: bool,
) -> Sequence[RowMapping]:
    """Sealed crawls without a fact since `quiet_since`, after which more could follow at once."""
    sealed_at = func.greatest(SESSIONS.c.completed_at, SESSIONS.c.last_settled_at)
    can_be_sealed = or_(CHECKS.c.settled, REQUESTS.c.engine == Engine.BUILTIN, literal(not asks_firecrawl))
    new = _new(
        NotificationType.SEARCHABLE,
        SESSIONS.c.completed_at.is_not(None),
        SESSIONS.c.pages_pending == 0,
        or_(SESSIONS.c.status != CrawlStatus.FAILED, SESSIONS.c.total_pages > 0),
        sealed_at >= since,
        sealed_at < quiet_since,
        SESSIONS.c.last_fact_at < quiet_since,
        func.coalesce(CHECKS.c.state, "") != ReconcileState.INCOMPLETE,
        can_be_sealed,
        _has_fact_since(facts_since),
        settled_at=SESSIONS.c.last_settled_at,
    )
    found = await rows_of(connection, new)
    return [each for each in found if sealing(each, check_in(each), asks_firecrawl).sealed]


def check_in(session: RowMapping) -> RowMapping | None:
    """The row of `reconciliations` that was read with the session; None if there is none."""
    return session if session["settled"] is not None else None


async def new_failed(
    connection: AsyncConnection, since: datetime, facts_since: datetime
) -> Sequence[RowMapping]:
    new = _new(
        NotificationType.FAILED,
        SESSIONS.c.status == CrawlStatus.FAILED,
        SESSIONS.c.completed_at >= since,
        _has_fact_since(facts_since),
        settled_at=None,
    )
    return await rows_of(connection, new)


async def with_pending_pages(connection: AsyncConnection) -> Sequence[RowMapping]:
    """Crawls with pending pages, without a notification that they stalled at this point."""
    new = _new(NotificationType.STALLED, SESSIONS.c.pages_pending > 0, settled_at=SESSIONS.c.last_settled_at)
    return await rows_of(connection, new.limit(None))


async def put(
    connection: AsyncConnection, session: Row, payload: dict[str, Any], settled_at: datetime | None
) -> bool:
    """False for an event that is in the outbox already."""
    entered = await connection.execute(
        upsert(NOTIFICATIONS)
        .values(
            crawl_id=session["crawl_id"],
            event_type=payload["type"],
            settled_at=settled_at,
            payload=payload,
        )
        .on_conflict_do_nothing()
        .returning(NOTIFICATIONS.c.id)
    )
    return entered.one_or_none() is not None


async def claim_due(connection: AsyncConnection, lease: timedelta = LEASE) -> list[Due]:
    """Notifications to be sent now, for this process alone; each claim counts as an attempt."""
    now = datetime.now(UTC)
    due = (
        select(NOTIFICATIONS.c.id)
        .where(
            NOTIFICATIONS.c.delivered_at.is_(None),
            ~NOTIFICATIONS.c.dead,
            NOTIFICATIONS.c.next_attempt_at <= now,
        )
        .order_by(NOTIFICATIONS.c.next_attempt_at)
        .limit(MAX_CLAIMS)
        .with_for_update(skip_locked=True)
    )
    claimed = await connection.execute(
        update(NOTIFICATIONS)
        .where(NOTIFICATIONS.c.id.in_(due))
        .values(attempts=NOTIFICATIONS.c.attempts + 1, attempted_at=now, next_attempt_at=now + lease)
        .returning(NOTIFICATIONS.c.id, NOTIFICATIONS.c.attempts, NOTIFICATIONS.c.payload)
    )
    return [Due(*row) for row in claimed]


async def note_reply(
    connection: AsyncConnection, sent: Due, reply: Reply, delay_seconds: float | None
) -> None:
    """Ignored for a notification that was requested to be sent again meanwhile."""
    now = datetime.now(UTC)
    values: dict[str, Any] = {"last_status": reply.status, "last_error": reply.error}
    if reply.accepted:
        values["delivered_at"] = now
    elif delay_seconds is None:
        values["dead"] = True
    else:
        values["next_attempt_at"] = now + timedelta(seconds=delay_seconds)
    await connection.execute(
        update(NOTIFICATIONS)
        .where(NOTIFICATIONS.c.id == sent.id, NOTIFICATIONS.c.attempts == sent.attempts)
        .values(values)
    )


async def send_again(connection: AsyncConnection, notification_id: UUID) -> None:
    """With attempts reset, also one that was delivered or given up. Raises `NotFoundError`."""
    found = await connection.execute(
        update(NOTIFICATIONS)
        .where(NOTIFICATIONS.c.id == notification_id)
        .values(attempts=0, dead=False, delivered_at=None, next_attempt_at=datetime.now(UTC))
        .returning(NOTIFICATIONS.c.id)
    )
    if found.one_or_none() is None:
        raise NotFoundError(f"Notification not found: {notification_id}")


async def failing(connection: AsyncConnection) -> Failing | None:
    """Notifications that failed since the last one was delivered; None if there are none."""
    delivered = select(func.max(NOTIFICATIONS.c.delivered_at)).scalar_subquery()
    latest_first = aggregate_order_by(NOTIFICATIONS.c.last_error, NOTIFICATIONS.c.attempted_at.desc())
    failed = (
        select(func.count(), func.max(NOTIFICATIONS.c.attempted_at), func.array_agg(latest_first))
        .where(NOTIFICATIONS.c.delivered_at.is_(None), NOTIFICATIONS.c.last_error.is_not(None))
        .where(or_(delivered.is_(None), NOTIFICATIONS.c.attempted_at > delivered))
    )
    count, at, errors = (await connection.execute(failed)).one()
    return Failing(count, at, errors[0]) if count else None


def _has_fact_since(moment: datetime) -> ColumnElement[bool]:
    """Whether there is news of any kind: a fact, an outcome of a page, or an answer of Firecrawl."""
    latest = func.greatest(SESSIONS.c.last_fact_at, SESSIONS.c.last_settled_at, CHECKS.c.checked_at)
    return latest >= moment


def _new(
    event_type: NotificationType,
    *conditions: ColumnElement[bool],
    settled_at: ColumnElement[datetime | None] | None,
) -> Select[Any]:
    """Sessions that meet the conditions, without such a notification since their last page settled."""
    notified = exists().where(
        NOTIFICATIONS.c.crawl_id == SESSIONS.c.crawl_id,
        NOTIFICATIONS.c.event_type == event_type,
        NOTIFICATIONS.c.settled_at.is_not_distinct_from(settled_at),
    )
    columns = select(*COLUMNS, *OF_SEALING).select_from(CRAWLS)
    return columns.where(*conditions, ~notified).limit(MAX_EVENTS)
