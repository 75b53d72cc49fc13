"""The SQL of the insight service. All statements only read."""

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, TypeAlias

from sqlalchemy import (
    ARRAY,
    BigInteger,
    RowMapping,
    Select,
    String,
    Subquery,
    Table,
    Text,
    case,
    cast,
    func,
    literal,
    or_,
    select,
    true,
    tuple_,
    union_all,
)
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlalchemy.sql import ColumnElement

from crawlscope import models
from crawlscope.core.values import hash_key, storable
from crawlscope.core.vocabulary import CrawlStatus, Engine, NotificationState, PageState
from crawlscope.database.queue import CRAWL_SITE, is_waiting, jobs_in_progress
from crawlscope.database.row_counts import number_of_rows
from crawlscope.pages.contents import CONTENTS, TEXT, WITH_BODIES

ATTEMPTS = models.table_of(models.PageAttempt)
CHANGED_HOURS = models.table_of(models.ChangedHour)
CHANGES = models.table_of(models.ChangeEvent)
DELIVERIES = models.table_of(models.Delivery)
DOCUMENTS = models.table_of(models.Document)
FACTS = models.table_of(models.CrawlFact)
GENERATIONS = models.table_of(models.IndexGeneration)
HISTOGRAMS = models.table_of(models.OperationHistogram)
HOURS = models.table_of(models.HourHistogram)
NOTIFICATIONS = models.table_of(models.Notification)
OPERATIONS = models.table_of(models.OperationMetric)
OUTAGES = models.table_of(models.Outage)
PAGES = models.table_of(models.Page)
RECONCILIATIONS = models.table_of(models.Reconciliation)
REQUESTED = models.table_of(models.CrawlRequest)
REQUESTS = models.table_of(models.RequestMetric)
SESSIONS = models.table_of(models.CrawlSession)

UNKNOWN_URL = "unknown"
MAX_EARLIER_CRAWLS = 50
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
    matching = _sessions().order_by(SESSIONS.c.started_at.desc(), SESSIONS.c.id.desc())
    if status is not None:
        matching = matching.where(SESSIONS.c.status == status)
    if url:
        matching = matching.where(_has_part(SESSIONS.c.crawl_url, url))
    return _between(matching, SESSIONS.c.started_at, since, until)


def crawl(crawl_id: str) -> Rows:
    return _sessions().where(SESSIONS.c.crawl_id == storable(crawl_id))


def earlier_crawls(session: Mapping[Any, Any], limit: int) -> Rows:
    """Completed crawls of the same URL and the same limit before this one, the latest first."""
    limit_asked = REQUESTED.c.options["limit"].astext
    asked = select(limit_asked).where(REQUESTED.c.crawl_id == session["crawl_id"]).scalar_subquery()
    return (
        select(SESSIONS)
        .outerjoin(REQUESTED, REQUESTED.c.crawl_id == SESSIONS.c.crawl_id)
        .where(
            func.md5(SESSIONS.c.crawl_url) == func.md5(session["crawl_url"]),
            SESSIONS.c.crawl_url == session["crawl_url"],
            SESSIONS.c.crawl_url != UNKNOWN_URL,
            SESSIONS.c.started_at < session["started_at"],
            SESSIONS.c.status == CrawlStatus.COMPLETED,
            SESSIONS.c.pages_pending == 0,
            limit_asked.is_not_distinct_from(asked),
        )
        .order_by(SESSIONS.c.started_at.desc())
        .limit(limit)
    )


def crawl_exists(crawl_id: str) -> Rows:
    return select(SESSIONS.c.crawl_id).where(SESSIONS.c.crawl_id == storable(crawl_id))


def histograms(crawl_ids: Sequence[str]) -> Rows:
    """Per crawl, type and hour."""
    return select(*HISTOGRAMS.c).where(HISTOGRAMS.c.crawl_id.in_(crawl_ids))


def histogram_totals(since: datetime, until: datetime) -> Rows:
    """Per type over all crawls, without the buckets. The hour in which `since` lies is included."""
    part = _parts_of_totals(since, until).c
    columns = [
        *(_whole_sum(part[name]).label(name) for name in ("count", "failed")),
        *(func.sum(part[name]).label(name) for name in ("total_ms", "failed_ms")),
        func.min(part.min_ms).label("min_ms"),
        func.max(part.max_ms).label("max_ms"),
    ]
    return select(part.operation_type, *columns).group_by(part.operation_type)


def bucket_totals(since: datetime, until: datetime) -> Rows:
    """Per type and bucket over all crawls, for the same hours."""
    parts = _parts_of_totals(since, until)
    pairs = (
        func.unnest(parts.c.buckets, parts.c.counts)
        .table_valued("bucket", "number")
        .render_derived(name="pair")
    )
    return (
        select(parts.c.operation_type, pairs.c.bucket, _whole_sum(pairs.c.number).label("number"))
        .select_from(parts.join(pairs, true()))
        .group_by(parts.c.operation_type, pairs.c.bucket)
    )


def reconciliations(crawl_ids: Sequence[str]) -> Rows:
    return select(*RECONCILIATIONS.c).where(RECONCILIATIONS.c.crawl_id.in_(crawl_ids))


def work_in_progress(crawl_ids: Sequence[str]) -> Rows:
    """Number and times of queued pages and of pages being indexed, per crawl that has any."""
    queued, indexing = PAGES.c.state == PageState.QUEUED, PAGES.c.state == PageState.INDEXING
    return (
        select(
            PAGES.c.crawl_id,
            func.count().filter(queued).label("queued"),
            func.count().filter(indexing).label("indexing"),
            func.min(PAGES.c.queued_at).filter(queued).label("oldest_queued_at"),
            func.min(PAGES.c.started_at).filter(indexing).label("oldest_started_at"),
            func.max(PAGES.c.started_at).filter(indexing).label("newest_started_at"),
        )
        .where(PAGES.c.crawl_id.in_(crawl_ids), queued | indexing)
        .group_by(PAGES.c.crawl_id)
    )


def waiting_for_crawler(crawl_ids: Sequence[str]) -> Rows:
    """Crawls that the built-in crawler has not begun, and the number of others that it works on."""
    request = REQUESTED.c
    return select(request.crawl_id, request.requested_at, jobs_in_progress(CRAWL_SITE).label("others")).where(
        request.crawl_id.in_(crawl_ids), request.engine == Engine.BUILTIN, is_waiting(request.job_id)
    )


def failed_at_crawler(crawl_ids: Sequence[str]) -> Rows:
    """Per crawl the pages without a document when Firecrawl was asked, which its total does not include."""
    unsuccessful = PAGES.c.state.in_([PageState.FAILED, PageState.CANCELLED])
    return (
        select(PAGES.c.crawl_id, func.count().label("pages"))
        .join(RECONCILIATIONS, RECONCILIATIONS.c.crawl_id == PAGES.c.crawl_id)
        .where(
            PAGES.c.crawl_id.in_(crawl_ids), unsuccessful, ~PAGES.c.delivered, PAGES.c.status_code.is_(None)
        )
        .where(PAGES.c.received_at <= RECONCILIATIONS.c.running_at)
        .group_by(PAGES.c.crawl_id)
    )


def cancel_requests(crawl_ids: Sequence[str]) -> Rows:
    """Crawls whose cancellation was requested here."""
    return (
        select(FACTS.c.crawl_id)
        .where(FACTS.c.crawl_id.in_(crawl_ids), FACTS.c.fact["action"].astext == "cancel")
        .distinct()
    )


def last_settled() -> Rows:
    """The two crawls that settled a page last; one of them is always another crawl than the given one."""
    settled_at = SESSIONS.c.last_settled_at
    return (
        select(SESSIONS.c.crawl_id, settled_at)
        .where(settled_at.is_not(None))
        .order_by(settled_at.desc())
        .limit(2)
    )


def outages(reported_since: datetime) -> Rows:
    """Per unavailable part the beginning of the outage and the last reason."""
    return (
        select(
            OUTAGES.c.part,
            func.min(OUTAGES.c.since).label("since"),
            func.max(OUTAGES.c.reason).label("reason"),
        )
        .where(OUTAGES.c.reported_at >= reported_since)
        .group_by(OUTAGES.c.part)
    )


def page_metrics(crawl_id: str) -> Rows:
    """The operations on the crawl's pages, in the order they began."""
    return (
        select(
            OPERATIONS.c.document_url.label("url"),
            OPERATIONS.c.operation_type,
            OPERATIONS.c.operation_name,
            OPERATIONS.c.duration_ms,
            OPERATIONS.c.success,
            OPERATIONS.c.timestamp,
        )
        .where(
            OPERATIONS.c.crawl_id == storable(crawl_id),
            OPERATIONS.c.document_url.is_not(None),
        )
        .order_by(OPERATIONS.c.timestamp, OPERATIONS.c.id)
    )


def pages(crawl_id: str, state: PageState | None = None, sort: PageSort = PageSort.RECENT) -> Rows:
    matching = select(*_page_columns()).where(PAGES.c.crawl_id == storable(crawl_id))
    if state is not None:
        matching = matching.where(PAGES.c.state == state)
    match sort:
        case PageSort.SLOWEST:
            order = _once_settled(PAGES.c.total_ms).desc().nulls_last()
        case PageSort.URL:
            order = PAGES.c.source_url.asc()
        case PageSort.RECENT:
            order = func.greatest(PAGES.c.queued_at, PAGES.c.started_at, PAGES.c.settled_at).desc()
    return matching.order_by(order, PAGES.c.id.desc())


def settled_pages(after: Mapping[str, tuple[int, int]], limit: int) -> Rows:
    """Per crawl the next pages that settled after a transaction and page id, at most `limit` and one more.

    Pages that a database restored from a backup has from transactions of another server are left out.
    """
    transactions, page_ids = zip(*after.values(), strict=True) if after else ((), ())
    seen = (
        func.unnest(
            cast([storable(crawl_id) for crawl_id in after], ARRAY(String)),
            cast(list(transactions), ARRAY(BigInteger)),
            cast(list(page_ids), ARRAY(BigInteger)),
        )
        .table_valued("crawl_id", "transaction", "page_id")
        .render_derived(name="seen")
    )
    following = (
        select(PAGES.c.crawl_id, PAGES.c.id.label("page_id"), PAGES.c.settled_in, *_page_columns())
        .where(
            PAGES.c.crawl_id == seen.c.crawl_id,
            PAGES.c.settled_in.is_not(None),
            tuple_(PAGES.c.settled_in, PAGES.c.id) > tuple_(seen.c.transaction, seen.c.page_id),
            PAGES.c.settled_in < _transaction(func.pg_snapshot_xmax(func.pg_current_snapshot())),
        )
        .order_by(PAGES.c.settled_in, PAGES.c.id)
        .limit(limit + 1)
        .lateral("following")
    )
    return select(*following.c).select_from(seen.join(following, true()))


def last_settlements(crawl_ids: Sequence[str], limit: int) -> Rows:
    """Per crawl the times of the pages that settled last, as an array."""
    crawl = (
        func.unnest(cast(list(crawl_ids), ARRAY(String)))
        .table_valued("crawl_id")
        .render_derived(name="crawl")
    )
    last = (
        select(PAGES.c.settled_at)
        .where(PAGES.c.crawl_id == crawl.c.crawl_id, PAGES.c.settled_in.is_not(None))
        .order_by(PAGES.c.settled_in.desc(), PAGES.c.id.desc())
        .limit(limit)
        .lateral("last")
    )
    return (
        select(crawl.c.crawl_id, func.array_agg(last.c.settled_at).label("settled_at"))
        .select_from(crawl.join(last, true()))
        .where(last.c.settled_at.is_not(None))
        .group_by(crawl.c.crawl_id)
    )


def pages_to_export(crawl_id: str, source_url: str | None = None) -> Rows:
    """All pages of a crawl, or one, in the order in which they were received; `bytes_to_read` is the size of
    the text or body of each."""
    only = [] if source_url is None else [PAGES.c.source_key == hash_key(storable(source_url))]
    columns = (PAGES.c.id.label("page_id"), PAGES.c.title, PAGES.c.language, PAGES.c.received_at)
    read = func.coalesce(DELIVERIES.c.body_bytes, func.octet_length(CONTENTS.c.markdown), 0)
    return (
        select(*columns, *_page_columns(), read.label("bytes_to_read"))
        .select_from(PAGES.outerjoin(WITH_BODIES, CONTENTS.c.page_id == PAGES.c.id))
        .where(PAGES.c.crawl_id == storable(crawl_id), *only)
        .order_by(PAGES.c.id)
    )


def texts(page_ids: Sequence[int]) -> Rows:
    """Per page what `markdown_of` reads."""
    return select(CONTENTS.c.page_id, *TEXT).select_from(WITH_BODIES).where(CONTENTS.c.page_id.in_(page_ids))


def oldest_transaction() -> Rows:
    """The oldest one in progress: all before it are visible or were rolled back."""
    return select(_transaction(func.pg_snapshot_xmin(func.pg_current_snapshot())))


def watched_crawls(crawl_ids: Collection[str], newest: int) -> Rows:
    """These crawls, the `newest`, and the newest of those that are in progress."""
    chosen = [SESSIONS.c.crawl_id.in_([storable(crawl_id) for crawl_id in crawl_ids])]
    if newest:
        latest = select(SESSIONS.c.crawl_id).order_by(SESSIONS.c.started_at.desc()).limit(newest)
        running = latest.where(SESSIONS.c.status == CrawlStatus.IN_PROGRESS)
        chosen += [SESSIONS.c.crawl_id.in_(latest), SESSIONS.c.crawl_id.in_(running)]
    return _sessions().where(or_(*chosen)).order_by(SESSIONS.c.started_at.desc(), SESSIONS.c.id.desc())


def page_id(crawl_id: str, source_url: str) -> Rows:
    return select(PAGES.c.id).where(
        PAGES.c.crawl_id == storable(crawl_id), PAGES.c.source_key == hash_key(storable(source_url))
    )


def attempts(of_page: int) -> Rows:
    """The first one first."""
    columns = [column for column in ATTEMPTS.c if column.name not in ("id", "page_id")]
    wait_ms = func.extract("epoch", ATTEMPTS.c.started_at - ATTEMPTS.c.queued_at) * 1000
    return (
        select(*columns, func.greatest(0, wait_ms).label("queue_wait_ms"))
        .where(ATTEMPTS.c.page_id == of_page)
        .order_by(ATTEMPTS.c.number)
    )


def deliveries(crawl_id: str) -> Rows:
    """Newest first, without their bodies."""
    return (
        select(
            DELIVERIES.c.id,
            DELIVERIES.c.event_type,
            DELIVERIES.c.webhook_id,
            DELIVERIES.c.received_at,
            DELIVERIES.c.body_bytes,
            DELIVERIES.c.pages,
            DELIVERIES.c.note,
        )
        .where(DELIVERIES.c.crawl_id == storable(crawl_id))
        .order_by(DELIVERIES.c.received_at.desc(), DELIVERIES.c.id.desc())
    )


def operations(
    since: datetime | None = None,
    until: datetime | None = None,
    url: str | None = None,
    success: bool | None = None,
    **equal: str | None,
) -> Rows:
    """Newest first; `equal` gives the values of columns."""
    matching = select(*OPERATIONS.c).order_by(OPERATIONS.c.timestamp.desc(), OPERATIONS.c.id.desc())
    for name, value in equal.items():
        if value is not None:
            matching = matching.where(OPERATIONS.c[name] == storable(value))
    if url:
        matching = matching.where(_has_part(OPERATIONS.c.document_url, url))
    if success is not None:
        matching = matching.where(OPERATIONS.c.success.is_(success))
    return _between(matching, OPERATIONS.c.timestamp, since, until)


def requests(
    since: datetime | None = None,
    until: datetime | None = None,
    url: str | None = None,
    method: str | None = None,
    status_code: int | None = None,
) -> Rows:
    """Newest first; `url` is any part of the path."""
    matching = select(*REQUESTS.c).order_by(REQUESTS.c.timestamp.desc(), REQUESTS.c.id.desc())
    if url:
        matching = matching.where(_has_part(REQUESTS.c.path, url))
    if method:
        matching = matching.where(REQUESTS.c.method == storable(method).upper())
    if status_code is not None:
        matching = matching.where(REQUESTS.c.status_code == status_code)
    return _between(matching, REQUESTS.c.timestamp, since, until)


def crawl_totals(since: datetime, until: datetime) -> Rows:
    totals = select(
        func.count().label("total"),
        *(func.count().filter(SESSIONS.c.status == each).label(each.value) for each in CrawlStatus),
        *(
            _whole_sum(column).label(column.key)
            for column in (
                SESSIONS.c.total_pages,
                SESSIONS.c.pages_indexed,
                SESSIONS.c.pages_failed,
                SESSIONS.c.pages_pending,
            )
        ),
    )
    return _between(totals, SESSIONS.c.started_at, since, until)


def request_totals(since: datetime, until: datetime) -> Rows:
    duration_ms = REQUESTS.c.duration_ms
    totals = select(
        func.count().label("count"),
        func.count().filter(REQUESTS.c.status_code.between(400, 499)).label("client_errors"),
        func.count().filter(REQUESTS.c.status_code >= 500).label("server_errors"),
        func.avg(duration_ms).label("mean_ms"),
        _percentile(duration_ms, 0.5).label("p50_ms"),
        _percentile(duration_ms, 0.95).label("p95_ms"),
        _percentile(duration_ms, 0.99).label("p99_ms"),
        func.max(duration_ms).label("max_ms"),
    )
    return _between(totals, REQUESTS.c.timestamp, since, until)


def refused_deliveries(since: datetime, until: datetime) -> Rows:
    """Per endpoint and cause, the latest first; `senders` are the first ten addresses."""
    door, cause = (REQUESTS.c.extra_metadata[name].astext for name in ("door", "refused"))
    senders = func.array_agg(REQUESTS.c.client_ip.distinct()).filter(REQUESTS.c.client_ip.is_not(None))
    last_at = func.max(REQUESTS.c.timestamp)
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
    return _between(refused, REQUESTS.c.timestamp, since, until)


def changes(url: str | None = None) -> Rows:
    """Newest first. `url` is any part of the page's URL."""
    seconds = func.extract("epoch", CHANGES.c.indexed_at - CHANGES.c.detected_at)
    took_ms = case((seconds.is_not(None), func.greatest(0, seconds * 1000)))
    matching = select(
        CHANGES.c.id,
        CHANGES.c.watch_id,
        CHANGES.c.watch_url,
        CHANGES.c.detected_at,
        CHANGES.c.created_at.label("received_at"),
        CHANGES.c.diff_summary,
        CHANGES.c.snapshot_url,
        CHANGES.c.rescrape_job_id.label("crawl_id"),
        CHANGES.c.rescrape_status,
        CHANGES.c.rescrape_error,
        CHANGES.c.indexed_at,
        took_ms.label("change_to_searchable_ms"),
        CHANGES.c.metadata.label("metadata"),
    ).order_by(CHANGES.c.detected_at.desc(), CHANGES.c.id.desc())
    return matching.where(CHANGES.c.watch_url.contains(storable(url), autoescape=True)) if url else matching


def notifications(state: NotificationState | None = None) -> Rows:
    """Newest first."""
    state_now = case(
        (NOTIFICATIONS.c.delivered_at.is_not(None), NotificationState.DELIVERED.value),
        (NOTIFICATIONS.c.dead, NotificationState.DEAD.value),
        else_=NotificationState.PENDING.value,
    ).label("state")
    pending = state_now == NotificationState.PENDING.value
    matching = select(
        NOTIFICATIONS.c.id,
        NOTIFICATIONS.c.crawl_id,
        NOTIFICATIONS.c.event_type.label("type"),
        state_now,
        NOTIFICATIONS.c.created_at,
        NOTIFICATIONS.c.attempts,
        NOTIFICATIONS.c.attempted_at,
        case((pending, NOTIFICATIONS.c.next_attempt_at)).label("next_attempt_at"),
        NOTIFICATIONS.c.delivered_at,
        NOTIFICATIONS.c.last_status,
        NOTIFICATIONS.c.last_error,
        NOTIFICATIONS.c.payload,
    ).order_by(NOTIFICATIONS.c.created_at.desc(), NOTIFICATIONS.c.id.desc())
    return matching if state is None else matching.where(state_now == state.value)


def last_delivery_at() -> Rows:
    return select(func.max(DELIVERIES.c.received_at))


def stats() -> Rows:
    serving = select(GENERATIONS.c.id).where(GENERATIONS.c.state == "serving")
    return select(
        number_of_rows(SESSIONS).scalar_subquery().label("crawls"),
        _rows_of(PAGES).label("pages"),
        _rows_of(CONTENTS).label("pages_kept"),
        func.count(DOCUMENTS.c.key).label("documents"),
        _whole_sum(DOCUMENTS.c.chunks).label("chunks"),
        func.pg_database_size(func.current_database()).label("database_bytes"),
    ).where(DOCUMENTS.c.generation_id.in_(serving), DOCUMENTS.c.error.is_(None))


def count_of(matching: Rows, whole: Table | None = None) -> Rows:
    """Without a filter, all rows of `whole`, whose number is known."""
    if whole is not None and matching.whereclause is None:
        return number_of_rows(whole)
    return select(func.count()).select_from(matching.order_by(None).subquery())


def slice_of(matching: Rows, limit: int, offset: int) -> Rows:
    return matching.limit(literal(limit, BigInteger)).offset(literal(offset, BigInteger))


def _sessions() -> Rows:
    columns = [column for column in SESSIONS.c if column.name != "fold"]
    progress = [
        case((REQUESTED.c.engine == Engine.BUILTIN, column)).label(column.name)
        for column in (REQUESTED.c.found, REQUESTED.c.fetched)
    ]
    urls = case((REQUESTED.c.engine == Engine.FIRECRAWL, REQUESTED.c.options["urls"].astext))
    return (
        select(
            *columns,
            REQUESTED.c.engine,
            cast(urls, BigInteger).label("urls_asked"),
            cast(REQUESTED.c.options["limit"].astext, BigInteger).label("limit_asked"),
            *progress,
        )
        .select_from(SESSIONS)
        .outerjoin(REQUESTED, REQUESTED.c.crawl_id == SESSIONS.c.crawl_id)
    )


def _page_columns() -> list[ColumnElement[Any]]:
    return [
        PAGES.c.source_url.label("url"),
        PAGES.c.url.label("final_url"),
        PAGES.c.state,
        PAGES.c.attempts,
        PAGES.c.status_code,
        PAGES.c.error_code,
        PAGES.c.error,
        PAGES.c.error_detail,
        PAGES.c.queued_at,
        PAGES.c.settled_at,
        *(
            _once_settled(column)
            for column in (PAGES.c.queue_wait_ms, PAGES.c.total_ms, PAGES.c.stages, PAGES.c.chunks)
        ),
    ]


def _transaction(number: ColumnElement[Any]) -> ColumnElement[int]:
    """As `pages.settled_in` has it."""
    return cast(cast(number, Text), BigInteger)


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
    return case((PAGES.c.settled_at.is_not(None), column)).label(column.key)


def _parts_of_totals(since: datetime, until: datetime) -> Subquery:
    """The histograms of hours that are summed up, and those of each crawl in other hours."""
    since = since.replace(minute=0, second=0, microsecond=0)
    changed = select(CHANGED_HOURS.c.hour)
    latest = select(func.max(HOURS.c.hour)).scalar_subquery()
    later = HISTOGRAMS.c.hour > func.coalesce(latest, since - timedelta(hours=1))
    names = [column.name for column in HOURS.c]

    def within(table: Table, *which: ColumnElement[bool]) -> Rows:
        columns = [table.c[name] for name in names]
        return _between(select(*columns).where(*which), table.c.hour, since, until)

    return union_all(
        within(HOURS, HOURS.c.hour.not_in(changed)),
        within(HISTOGRAMS, later),
        within(HISTOGRAMS, HISTOGRAMS.c.hour.in_(changed.where(CHANGED_HOURS.c.hour <= latest))),
    ).subquery("part")


def _percentile(column: Any, point: float) -> Any:
    """Interpolated between the two nearest values; several of one column share one sort."""
    return func.percentile_cont(point).within_group(column)


def _whole_sum(column: Any) -> Any:
    return cast(func.coalesce(func.sum(column), 0), BigInteger)


def _rows_of(table: Any) -> Any:
    return select(func.count()).select_from(table).scalar_subquery()
