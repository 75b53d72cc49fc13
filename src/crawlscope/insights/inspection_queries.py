"""The SQL of `insights.inspection`: what people look at in a browser. All statements only read."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any
from uuid import UUID

from sqlalchemy import Float, and_, case, cast, func, literal, select
from sqlalchemy.sql import ColumnElement

from crawlscope.core.values import hash_key, storable
from crawlscope.core.vocabulary import PageState
from crawlscope.database.queue import INDEX_PAGE, jobs_in_progress
from crawlscope.insights.queries import (
    ATTEMPTS,
    DELIVERIES,
    DOCUMENTS,
    GENERATIONS,
    OPERATIONS,
    OUTAGES,
    PAGES,
    SESSIONS,
    Rows,
)
from crawlscope.pages.contents import CONTENTS, TEXT, WITH_BODIES

EXAMPLES_OF_A_CAUSE = 3
MAX_URLS_OF_A_CAUSE = 10_000
UNSETTLED = [PageState.QUEUED, PageState.INDEXING]


class SpanOrder(StrEnum):
    """The order of the pages in a waterfall."""

    STARTED = "started"
    SLOWEST = "slowest"
    RECENT = "recent"
    URL = "url"


@dataclass(frozen=True)
class WhichPages:
    """Conditions that must all hold."""

    state: PageState | None = None
    url: str | None = None
    """Any part of the source URL."""
    cause: str | None = None
    """An error code."""


def _of_crawl(crawl_id: str, which: WhichPages) -> list[ColumnElement[bool]]:
    conditions: list[ColumnElement[bool]] = [PAGES.c.crawl_id == storable(crawl_id)]
    if which.state is not None:
        conditions.append(PAGES.c.state == which.state)
    if which.url:
        conditions.append(PAGES.c.source_url.contains(storable(which.url), autoescape=True))
    if which.cause is not None:
        conditions.append(PAGES.c.error_code == storable(which.cause))
    return conditions


def spans(crawl_id: str, which: WhichPages, order: SpanOrder) -> Rows:
    """One row per page, with the data of its bars in the waterfall."""
    ended = PAGES.c.settled_at.is_not(None)
    orders = {
        SpanOrder.STARTED: func.coalesce(PAGES.c.started_at, PAGES.c.queued_at, PAGES.c.received_at).asc(),
        SpanOrder.SLOWEST: case((ended, PAGES.c.total_ms)).desc().nulls_last(),
        SpanOrder.RECENT: func.greatest(PAGES.c.queued_at, PAGES.c.started_at, PAGES.c.settled_at).desc(),
        SpanOrder.URL: PAGES.c.source_url.asc(),
    }
    return (
        select(
            PAGES.c.source_url.label("url"),
            PAGES.c.state,
            PAGES.c.attempts,
            PAGES.c.received_at,
            PAGES.c.queued_at,
            PAGES.c.started_at,
            PAGES.c.settled_at,
            *(
                case((ended, column)).label(column.key)
                for column in (PAGES.c.queue_wait_ms, PAGES.c.total_ms, PAGES.c.stages, PAGES.c.chunks)
            ),
            PAGES.c.error_code,
        )
        .where(*_of_crawl(crawl_id, which))
        .order_by(orders[order], PAGES.c.id)
    )


def count_of_spans(crawl_id: str, which: WhichPages) -> Rows:
    return select(func.count()).select_from(PAGES).where(*_of_crawl(crawl_id, which))


def span_of_crawl(crawl_id: str) -> Rows:
    """When the first page of the crawl was received and queued, and when the last one settled."""
    return select(
        func.min(PAGES.c.received_at).label("first_received_at"),
        func.min(PAGES.c.queued_at).label("first_queued_at"),
        func.max(PAGES.c.settled_at).label("last_settled_at"),
    ).where(PAGES.c.crawl_id == storable(crawl_id))


def causes(crawl_id: str) -> Rows:
    """Failed pages by error code, the largest group first, with the most frequent reason and examples."""
    urls = func.array_agg(PAGES.c.source_url)
    return (
        select(
            PAGES.c.error_code.label("code"),
            func.count().label("pages"),
            func.count().filter(PAGES.c.delivered).label("with_content"),
            func.mode().within_group(PAGES.c.error).label("reason"),
            func.max(PAGES.c.status_code).label("status_code"),
            func.max(func.coalesce(PAGES.c.settled_at, PAGES.c.received_at)).label("last_at"),
            func.trim_array(urls, func.greatest(0, func.cardinality(urls) - EXAMPLES_OF_A_CAUSE)).label(
                "examples"
            ),
        )
        .where(PAGES.c.crawl_id == storable(crawl_id), PAGES.c.state == PageState.FAILED)
        .group_by(PAGES.c.error_code)
        .order_by(func.count().desc(), PAGES.c.error_code)
    )


def urls_of_cause(crawl_id: str, cause: str | None) -> Rows:
    """The source URLs of the failed pages with this error code; of those without one for None."""
    code = PAGES.c.error_code
    return (
        select(PAGES.c.source_url)
        .where(PAGES.c.crawl_id == storable(crawl_id), PAGES.c.state == PageState.FAILED)
        .where(code.is_(None) if cause is None else code == storable(cause))
        .order_by(PAGES.c.id)
        .limit(MAX_URLS_OF_A_CAUSE)
    )


def settled_over_time(crawl_ids: Sequence[str], buckets: int) -> Rows:
    """Per crawl and bucket of the crawl's time (0 to `buckets` - 1) the number of settled pages."""
    began, ended = SESSIONS.c.started_at, func.coalesce(SESSIONS.c.last_settled_at, SESSIONS.c.started_at)
    seconds = func.greatest(func.extract("epoch", ended - began), 0.001)
    share = func.extract("epoch", PAGES.c.settled_at - began) / seconds
    bucket = func.least(buckets - 1, func.greatest(0, func.floor(cast(share, Float) * buckets)))
    return (
        select(PAGES.c.crawl_id, bucket.label("bucket"), func.count().label("pages"))
        .join(SESSIONS, SESSIONS.c.crawl_id == PAGES.c.crawl_id)
        .where(PAGES.c.crawl_id.in_(crawl_ids), PAGES.c.settled_at.is_not(None))
        .group_by(PAGES.c.crawl_id, bucket)
    )


def page(crawl_id: str, source_url: str) -> Rows:
    return (
        select(
            PAGES,
            *TEXT,
            CONTENTS.c.page_id.is_not(None).label("is_kept"),
            func.octet_length(CONTENTS.c.html).label("html_bytes"),
        )
        .select_from(PAGES.outerjoin(WITH_BODIES, CONTENTS.c.page_id == PAGES.c.id))
        .where(
            PAGES.c.crawl_id == storable(crawl_id),
            PAGES.c.source_key == hash_key(storable(source_url)),
        )
    )


def operations_of_page(crawl_id: str, source_url: str) -> Rows:
    """The page's measured operations, in the order in which they began."""
    return (
        select(
            OPERATIONS.c.operation_type,
            OPERATIONS.c.operation_name,
            OPERATIONS.c.timestamp,
            OPERATIONS.c.duration_ms,
            OPERATIONS.c.success,
            OPERATIONS.c.error_message,
        )
        .where(OPERATIONS.c.document_url == storable(source_url), OPERATIONS.c.crawl_id == storable(crawl_id))
        .order_by(OPERATIONS.c.timestamp, OPERATIONS.c.duration_ms.desc())
        .limit(500)
    )


def history_of_page(source_url: str) -> Rows:
    """The page in every crawl, the latest crawl first."""
    return (
        select(
            PAGES.c.crawl_id,
            SESSIONS.c.started_at,
            PAGES.c.received_at,
            PAGES.c.settled_at,
            PAGES.c.state,
            PAGES.c.status_code,
            PAGES.c.error_code,
            PAGES.c.chunks,
            PAGES.c.total_ms,
            func.coalesce(CONTENTS.c.characters, func.char_length(CONTENTS.c.markdown)).label("characters"),
            func.coalesce(CONTENTS.c.hash, func.sha256(func.convert_to(CONTENTS.c.markdown, "UTF8"))).label(
                "digest"
            ),
        )
        .join(SESSIONS, SESSIONS.c.crawl_id == PAGES.c.crawl_id)
        .outerjoin(CONTENTS, CONTENTS.c.page_id == PAGES.c.id)
        .where(PAGES.c.source_key == hash_key(storable(source_url)))
        .order_by(PAGES.c.received_at.desc())
        .limit(50)
    )


def deliveries_of_page(crawl_id: str, webhook_id: str) -> Rows:
    """The delivery that brought the page's content, with its compressed body."""
    columns = ("id", "event_type", "webhook_id", "received_at", "body", "body_bytes", "pages", "note")
    return (
        select(*(DELIVERIES.c[name] for name in columns))
        .where(DELIVERIES.c.crawl_id == storable(crawl_id), DELIVERIES.c.webhook_id == webhook_id)
        .order_by(DELIVERIES.c.id.desc())
        .limit(1)
    )


def delivery(crawl_id: str, delivery_id: int) -> Rows:
    columns = ("id", "event_type", "webhook_id", "received_at", "body", "body_bytes", "pages", "note")
    return select(*(DELIVERIES.c[name] for name in columns)).where(
        DELIVERIES.c.crawl_id == storable(crawl_id), DELIVERIES.c.id == delivery_id
    )


def document_in_index(document_key: UUID) -> Rows:
    """The document of the serving index under this key."""
    serving = select(GENERATIONS.c.id).where(GENERATIONS.c.state == "serving")
    return select(DOCUMENTS.c.url, DOCUMENTS.c.chunks, DOCUMENTS.c.crawl_id, DOCUMENTS.c.indexed_at).where(
        DOCUMENTS.c.generation_id.in_(serving), DOCUMENTS.c.key == document_key
    )


def queue() -> Rows:
    """Pages that wait and pages in progress, over all crawls, and the age of the oldest one that waits."""
    waiting = PAGES.c.state == PageState.QUEUED
    return select(
        func.count().filter(waiting).label("queued"),
        func.count().filter(~waiting).label("indexing"),
        func.min(PAGES.c.queued_at).filter(waiting).label("oldest_queued_at"),
        jobs_in_progress(INDEX_PAGE).label("jobs_in_progress"),
    ).where(
        PAGES.c.crawl_id.in_(select(SESSIONS.c.crawl_id).where(SESSIONS.c.pages_pending > 0)),
        PAGES.c.state.in_(UNSETTLED),
    )


def open_attempts() -> Rows:
    """The attempts of each worker that have not ended, the oldest one first."""
    return (
        select(
            ATTEMPTS.c.worker,
            ATTEMPTS.c.number,
            ATTEMPTS.c.started_at,
            PAGES.c.crawl_id,
            PAGES.c.source_url.label("url"),
        )
        .join(PAGES, PAGES.c.id == ATTEMPTS.c.page_id)
        .where(ATTEMPTS.c.finished_at.is_(None))
        .order_by(ATTEMPTS.c.worker, ATTEMPTS.c.started_at)
        .limit(500)
    )


def throughput(since: datetime) -> Rows:
    """Attempts of workers that began since then, and failed ones among them."""
    return select(
        func.count().label("attempts"),
        func.count().filter(~OPERATIONS.c.success).label("failed"),
        func.count(OPERATIONS.c.job_id.distinct()).label("jobs"),
    ).where(OPERATIONS.c.timestamp >= since, OPERATIONS.c.operation_type == literal("worker"))


def recent_errors(since: datetime) -> Rows:
    """The last failed operations, the latest first."""
    return (
        select(
            OPERATIONS.c.timestamp,
            OPERATIONS.c.operation_type,
            OPERATIONS.c.crawl_id,
            OPERATIONS.c.document_url,
            OPERATIONS.c.error_message,
        )
        .where(and_(OPERATIONS.c.timestamp >= since, ~OPERATIONS.c.success))
        .where(OPERATIONS.c.operation_type != "worker")
        .order_by(OPERATIONS.c.timestamp.desc())
        .limit(20)
    )


def all_outages() -> Rows:
    columns: list[Any] = list(OUTAGES.c)
    return select(*columns).order_by(OUTAGES.c.since)
