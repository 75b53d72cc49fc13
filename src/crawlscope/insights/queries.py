"""The SQL of the insight service. All statements only read."""

from collections.abc import Sequence
from datetime import datetime
from enum import StrEnum
from typing import Any, TypeAlias

from sqlalchemy import BigInteger, RowMapping, Select, case, cast, func, literal, select
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlalchemy.sql import ColumnElement

from crawlscope.core.values import hash_key, storable
from crawlscope.core.vocabulary import CrawlStatus, Engine, NotificationState, PageState
from crawlscope.database.queue import CRAWL_SITE, is_waiting, jobs_in_progress
from crawlscope.models import (
    ChangeEvent,
    CrawlFact,
    CrawlRequest,
    CrawlSession,
    Delivery,
    Document,
    IndexGeneration,
    Notification,
    OperationMetric,
    Outage,
    Page,
    PageAttempt,
    PageContent,
    Reconciliation,
    RequestMetric,
)

Rows: TypeAlias = Select[*tuple[Any, ...]]


class PageSort(StrEnum):
    SLOWEST = "slowest"
    RECENT = "recent"
    URL = "url"


async def rows_of(connection: AsyncConnection, statement: Rows) -> Sequence[RowMapping]:
    return (await connection.execute(statement)).mappings().all()


async def row_of(connection: AsyncConnection, statement: Rows) -> RowMapping:
    return (await connection.execute(statement)).mappings().one()


async def by_crawl(connection: AsyncConnection, statement: Rows) -> dict[str, RowMapping]:
    return {row["crawl_id"]: row for row in await rows_of(connection, statement)}


def crawls(
    status: CrawlStatus | None = None,
    url: str | None = None,
    since: datetime | None = None,
    until: datetime | None = None,
) -> Rows:
    """Newest first. `url` is any part of a crawl's URL; `since` is included, `until` is not."""
    matching = _sessions().order_by(CrawlSession.started_at.desc(), CrawlSession.id.desc())
    if status is not None:
        matching = matching.where(CrawlSession.status == status)
    if url:
        matching = matching.where(_has_part(CrawlSession.crawl_url, url))
    return _between(matching, CrawlSession.started_at, since, until)


def crawl(crawl_id: str) -> Rows:
    return _sessions().where(CrawlSession.crawl_id == storable(crawl_id))


def crawl_exists(crawl_id: str) -> Rows:
    return select(CrawlSession.crawl_id).where(CrawlSession.crawl_id == storable(crawl_id))


def operation_stats(crawl_ids: Sequence[str]) -> Rows:
    """Per crawl and operation type."""
    return (
        select(OperationMetric.crawl_id, OperationMetric.operation_type, *_spread_of_operations())
        .where(OperationMetric.crawl_id.in_(crawl_ids))
        .group_by(OperationMetric.crawl_id, OperationMetric.operation_type)
    )


def queue_waits(crawl_ids: Sequence[str]) -> Rows:
    """Per crawl, over its settled pages."""
    wait = Page.queue_wait_ms
    return (
        select(
            Page.crawl_id,
            _percentile(wait, 0.5).label("p50_ms"),
            _percentile(wait, 0.95).label("p95_ms"),
            func.max(wait).label("max_ms"),
        )
        .where(Page.crawl_id.in_(crawl_ids), Page.settled_at.is_not(None))
        .group_by(Page.crawl_id)
    )


def reconciliations(crawl_ids: Sequence[str]) -> Rows:
    return select(*Reconciliation.__table__.columns).where(Reconciliation.crawl_id.in_(crawl_ids))


def work_in_progress(crawl_ids: Sequence[str]) -> Rows:
    """Number and times of queued pages and of pages being indexed, per crawl that has any."""
    queued, indexing = Page.state == PageState.QUEUED, Page.state == PageState.INDEXING
    return (
        select(
            Page.crawl_id,
            func.count().filter(queued).label("queued"),
            func.count().filter(indexing).label("indexing"),
            func.min(Page.queued_at).filter(queued).label("oldest_queued_at"),
            func.min(Page.started_at).filter(indexing).label("oldest_started_at"),
            func.max(Page.started_at).filter(indexing).label("newest_started_at"),
        )
        .where(Page.crawl_id.in_(crawl_ids), queued | indexing)
        .group_by(Page.crawl_id)
    )


def waiting_for_crawler(crawl_ids: Sequence[str]) -> Rows:
    """Crawls that the built-in crawler has not begun, and the number of others that it works on."""
    request = CrawlRequest.__table__.c
    return select(request.crawl_id, request.requested_at, jobs_in_progress(CRAWL_SITE).label("others")).where(
        request.crawl_id.in_(crawl_ids), request.engine == Engine.BUILTIN, is_waiting(request.job_id)
    )


def failed_at_crawler(crawl_ids: Sequence[str]) -> Rows:
    """Per crawl the pages without a document when Firecrawl was asked, which its total does not include."""
    unsuccessful = Page.state.in_([PageState.FAILED, PageState.CANCELLED])
    return (
        select(Page.crawl_id, func.count().label("pages"))
        .join(Reconciliation, Reconciliation.crawl_id == Page.crawl_id)
        .where(Page.crawl_id.in_(crawl_ids), unsuccessful, ~Page.delivered, Page.status_code.is_(None))
        .where(Page.received_at <= Reconciliation.running_at)
        .group_by(Page.crawl_id)
    )


def cancel_requests(crawl_ids: Sequence[str]) -> Rows:
    """Crawls whose cancellation was requested here."""
    return (
        select(CrawlFact.crawl_id)
        .where(CrawlFact.crawl_id.in_(crawl_ids), CrawlFact.fact["action"].astext == "cancel")
        .distinct()
    )


def last_settled() -> Rows:
    """The two crawls that settled a page last; one of them is always another crawl than the given one."""
    settled_at = CrawlSession.last_settled_at
    return (
        select(CrawlSession.crawl_id, settled_at)
        .where(settled_at.is_not(None))
        .order_by(settled_at.desc())
        .limit(2)
    )


def outages(reported_since: datetime) -> Rows:
    """Per unavailable part the beginning of the outage and the last reason."""
    return (
        select(
            Outage.part,
            func.min(Outage.since).label("since"),
            func.max(Outage.reason).label("reason"),
        )
        .where(Outage.reported_at >= reported_since)
        .group_by(Outage.part)
    )


def page_metrics(crawl_id: str) -> Rows:
    """The operations on the crawl's pages, in the order they began."""
    return (
        select(
            OperationMetric.document_url.label("url"),
            OperationMetric.operation_type,
            OperationMetric.operation_name,
            OperationMetric.duration_ms,
            OperationMetric.success,
            OperationMetric.timestamp,
        )
        .where(
            OperationMetric.crawl_id == storable(crawl_id),
            OperationMetric.document_url.is_not(None),
        )
        .order_by(OperationMetric.timestamp, OperationMetric.id)
    )


def pages(crawl_id: str, state: PageState | None = None, sort: PageSort = PageSort.RECENT) -> Rows:
    matching = select(
        Page.source_url.label("url"),
        Page.url.label("final_url"),
        Page.state,
        Page.attempts,
        Page.status_code,
        Page.error_code,
        Page.error,
        Page.error_detail,
        Page.queued_at,
        Page.settled_at,
        *(_once_settled(column) for column in (Page.queue_wait_ms, Page.total_ms, Page.stages, Page.chunks)),
    ).where(Page.crawl_id == storable(crawl_id))
    if state is not None:
        matching = matching.where(Page.state == state)
    match sort:
        case PageSort.SLOWEST:
            order = _once_settled(Page.total_ms).desc().nulls_last()
        case PageSort.URL:
            order = Page.source_url.asc()
        case PageSort.RECENT:
            order = func.greatest(Page.queued_at, Page.started_at, Page.settled_at).desc()
    return matching.order_by(order, Page.id.desc())


def page_id(crawl_id: str, source_url: str) -> Rows:
    return select(Page.id).where(
        Page.crawl_id == storable(crawl_id), Page.source_key == hash_key(storable(source_url))
    )


def attempts(of_page: int) -> Rows:
    """The first one first."""
    columns = [column for column in PageAttempt.__table__.columns if column.name not in ("id", "page_id")]
    wait_ms = func.extract("epoch", PageAttempt.started_at - PageAttempt.queued_at) * 1000
    return (
        select(*columns, func.greatest(0, wait_ms).label("queue_wait_ms"))
        .where(PageAttempt.page_id == of_page)
        .order_by(PageAttempt.number)
    )


def deliveries(crawl_id: str) -> Rows:
    """Newest first, without their bodies."""
    return (
        select(
            Delivery.id,
            Delivery.event_type,
            Delivery.webhook_id,
            Delivery.received_at,
            Delivery.body_bytes,
            Delivery.pages,
            Delivery.note,
        )
        .where(Delivery.crawl_id == storable(crawl_id))
        .order_by(Delivery.received_at.desc(), Delivery.id.desc())
    )


def operations(
    since: datetime | None = None,
    until: datetime | None = None,
    url: str | None = None,
    success: bool | None = None,
    **equal: str | None,
) -> Rows:
    """Newest first; `equal` gives the values of columns."""
    matching = _all_columns(OperationMetric).order_by(
        OperationMetric.timestamp.desc(), OperationMetric.id.desc()
    )
    for name, value in equal.items():
        if value is not None:
            matching = matching.where(getattr(OperationMetric, name) == storable(value))
    if url:
        matching = matching.where(_has_part(OperationMetric.document_url, url))
    if success is not None:
        matching = matching.where(OperationMetric.success.is_(success))
    return _between(matching, OperationMetric.timestamp, since, until)


def requests(
    since: datetime | None = None,
    until: datetime | None = None,
    url: str | None = None,
    method: str | None = None,
    status_code: int | None = None,
) -> Rows:
    """Newest first; `url` is any part of the path."""
    matching = _all_columns(RequestMetric).order_by(RequestMetric.timestamp.desc(), RequestMetric.id.desc())
    if url:
        matching = matching.where(_has_part(RequestMetric.path, url))
    if method:
        matching = matching.where(RequestMetric.method == storable(method).upper())
    if status_code is not None:
        matching = matching.where(RequestMetric.status_code == status_code)
    return _between(matching, RequestMetric.timestamp, since, until)


def crawl_totals(since: datetime, until: datetime) -> Rows:
    totals = select(
        func.count().label("total"),
        *(func.count().filter(CrawlSession.status == each).label(each.value) for each in CrawlStatus),
        *(
            _whole_sum(column).label(column.key)
            for column in (
                CrawlSession.total_pages,
                CrawlSession.pages_indexed,
                CrawlSession.pages_failed,
                CrawlSession.pages_pending,
            )
        ),
    )
    return _between(totals, CrawlSession.started_at, since, until)


def operation_totals(since: datetime, until: datetime) -> Rows:
    """Per operation type."""
    totals = select(OperationMetric.operation_type, *_spread_of_operations()).group_by(
        OperationMetric.operation_type
    )
    return _between(totals, OperationMetric.timestamp, since, until)


def request_totals(since: datetime, until: datetime) -> Rows:
    totals = select(
        func.count().label("count"),
        func.count().filter(RequestMetric.status_code.between(400, 499)).label("client_errors"),
        func.count().filter(RequestMetric.status_code >= 500).label("server_errors"),
        *_spread(RequestMetric.duration_ms),
    )
    return _between(totals, RequestMetric.timestamp, since, until)


def refused_deliveries(since: datetime, until: datetime) -> Rows:
    """Per endpoint and cause, the latest first; `senders` are the first ten addresses."""
    door, cause = (RequestMetric.extra_metadata[name].astext for name in ("door", "refused"))
    senders = func.array_agg(RequestMetric.client_ip.distinct()).filter(RequestMetric.client_ip.is_not(None))
    last_at = func.max(RequestMetric.timestamp)
    refused = (
        select(
            door.label("door"),
            cause.label("cause"),
            func.count().label("count"),
            last_at.label("last_at"),
            func.trim_array(senders, func.greatest(0, func.cardinality(senders) - 10)).label("senders"),
        )
        .where(cause.is_not(None))
        .group_by(door, cause)
        .order_by(last_at.desc())
    )
    return _between(refused, RequestMetric.timestamp, since, until)


def changes(url: str | None = None) -> Rows:
    """Newest first. `url` is any part of the page's URL."""
    seconds = func.extract("epoch", ChangeEvent.indexed_at - ChangeEvent.detected_at)
    took_ms = case((seconds.is_not(None), func.greatest(0, seconds * 1000)))
    matching = select(
        ChangeEvent.id,
        ChangeEvent.watch_id,
        ChangeEvent.watch_url,
        ChangeEvent.detected_at,
        ChangeEvent.created_at.label("received_at"),
        ChangeEvent.diff_summary,
        ChangeEvent.snapshot_url,
        ChangeEvent.rescrape_job_id.label("crawl_id"),
        ChangeEvent.rescrape_status,
        ChangeEvent.rescrape_error,
        ChangeEvent.indexed_at,
        took_ms.label("change_to_searchable_ms"),
        ChangeEvent.extra_metadata.label("metadata"),
    ).order_by(ChangeEvent.detected_at.desc(), ChangeEvent.id.desc())
    return matching.where(ChangeEvent.watch_url.contains(storable(url), autoescape=True)) if url else matching


def notifications(state: NotificationState | None = None) -> Rows:
    """Newest first."""
    state_now = case(
        (Notification.delivered_at.is_not(None), NotificationState.DELIVERED.value),
        (Notification.dead, NotificationState.DEAD.value),
        else_=NotificationState.PENDING.value,
    ).label("state")
    pending = state_now == NotificationState.PENDING.value
    matching = select(
        Notification.id,
        Notification.crawl_id,
        Notification.event_type.label("type"),
        state_now,
        Notification.created_at,
        Notification.attempts,
        Notification.attempted_at,
        case((pending, Notification.next_attempt_at)).label("next_attempt_at"),
        Notification.delivered_at,
        Notification.last_status,
        Notification.last_error,
        Notification.payload,
    ).order_by(Notification.created_at.desc(), Notification.id.desc())
    return matching if state is None else matching.where(state_now == state.value)


def last_delivery_at() -> Rows:
    return select(func.max(Delivery.received_at))


def stats() -> Rows:
    serving = select(IndexGeneration.id).where(IndexGeneration.state == "serving")
    return select(
        _rows_of(CrawlSession).label("crawls"),
        _rows_of(Page).label("pages"),
        _rows_of(PageContent).label("pages_kept"),
        func.count(Document.key).label("documents"),
        _whole_sum(Document.chunks).label("chunks"),
        func.pg_database_size(func.current_database()).label("database_bytes"),
    ).where(Document.generation_id.in_(serving), Document.error.is_(None))


def count_of(matching: Rows) -> Rows:
    return select(func.count()).select_from(matching.order_by(None).subquery())


def slice_of(matching: Rows, limit: int, offset: int) -> Rows:
    return matching.limit(literal(limit, BigInteger)).offset(literal(offset, BigInteger))


def _sessions() -> Rows:
    columns = [column for column in CrawlSession.__table__.columns if column.name != "fold"]
    progress = [
        case((CrawlRequest.engine == Engine.BUILTIN, column)).label(column.name)
        for column in (CrawlRequest.__table__.c.found, CrawlRequest.__table__.c.fetched)
    ]
    urls = case((CrawlRequest.engine == Engine.FIRECRAWL, CrawlRequest.options["urls"].astext))
    return (
        select(
            *columns,
            CrawlRequest.engine,
            cast(urls, BigInteger).label("urls_asked"),
            *progress,
        )
        .select_from(CrawlSession)
        .outerjoin(CrawlRequest, CrawlRequest.crawl_id == CrawlSession.crawl_id)
    )


def _all_columns(table: type[OperationMetric | RequestMetric]) -> Rows:
    return select(*table.__table__.columns)


def _has_part(column: Any, part: str) -> ColumnElement[bool]:
    return column.contains(storable(part), autoescape=True)  # type: ignore[no-any-return]  # of an Any


def _between(matching: Rows, column: Any, since: datetime | None, until: datetime | None) -> Rows:
    if since is not None:
        matching = matching.where(column >= since)
    if until is not None:
        matching = matching.where(column < until)
    return matching


def _once_settled(column: Any) -> Any:
    """A page that is queued again still has the measurements of its last outcome, which are left out."""
    return case((Page.settled_at.is_not(None), column)).label(column.key)


def _spread_of_operations() -> list[ColumnElement[Any]]:
    """Times cover successful operations, as the crawl's totals do."""
    succeeded = OperationMetric.success
    total = func.sum(OperationMetric.duration_ms).filter(succeeded)
    return [
        func.count().label("count"),
        func.count().filter(~succeeded).label("failed"),
        func.coalesce(total, 0.0).label("total_ms"),
        *_spread(OperationMetric.duration_ms, succeeded),
    ]


def _spread(duration_ms: Any, *which: Any) -> list[ColumnElement[Any]]:
    return [
        func.avg(duration_ms).filter(*which).label("mean_ms"),
        _percentile(duration_ms, 0.5).filter(*which).label("p50_ms"),
        _percentile(duration_ms, 0.95).filter(*which).label("p95_ms"),
        _percentile(duration_ms, 0.99).filter(*which).label("p99_ms"),
        func.max(duration_ms).filter(*which).label("max_ms"),
    ]


def _percentile(column: Any, point: float) -> Any:
    """Interpolated between the two nearest values; several of one column share one sort."""
    return func.percentile_cont(point).within_group(column)


def _whole_sum(column: Any) -> Any:
    return cast(func.coalesce(func.sum(column), 0), BigInteger)


def _rows_of(table: Any) -> Any:
    return select(func.count()).select_from(table).scalar_subquery()
