"""What the insight service answers, for every face: field names are part of the contract with clients.

Times are UTC, written as ISO 8601; durations are milliseconds. Lists say in `total` how many match in all.
"""

from datetime import datetime
from typing import Any
from uuid import UUID

from pydantic import BaseModel, ConfigDict

from crawlscope.core.vocabulary import (
    Completeness,
    CrawlStatus,
    NotificationState,
    NotificationType,
    PageState,
    ReconcileState,
    VerdictName,
)


class Answer(BaseModel):
    """Made from database rows; columns that are not shown are passed over."""

    model_config = ConfigDict(use_attribute_docstrings=True)


class OperationStats(Answer):
    """Operations of one type. Times are of those that succeeded: null where none did."""

    count: int
    failed: int
    total_ms: float
    mean_ms: float | None
    p50_ms: float | None
    p95_ms: float | None
    p99_ms: float | None
    max_ms: float | None


class QueueWait(Answer):
    """How long the crawl's settled pages waited for their last attempt; null where no page did."""

    p50_ms: float | None = None
    p95_ms: float | None = None
    max_ms: float | None = None


class AggregateTiming(Answer):
    """Sums over the crawl's successful operations."""

    chunking_ms: float
    embedding_ms: float
    qdrant_ms: float
    bm25_ms: float


class PageMetric(Answer):
    """One operation on one page."""

    url: str
    operation_type: str
    operation_name: str
    duration_ms: float
    success: bool
    timestamp: datetime


class Verdict(Answer):
    """What a crawl that is not sealed is doing, and on what evidence."""

    verdict: VerdictName
    since: datetime
    stage: str | None
    """Where it is stalled: `queue`, `indexing`, or the stage whose part is away."""
    reason: str
    awaits: str | None = None
    """What is waited for, as a phrase; null where waiting brings nothing more."""


class ReconciliationInfo(Answer):
    """How far the crawl was compared with what Firecrawl says of it."""

    state: ReconcileState
    checked_at: datetime | None
    checks: int
    next_check_at: datetime | None
    """Null where no further check is planned."""
    added: int
    """Pages that only this brought."""
    completed: int | None = None
    """Pages that brought a document, as Firecrawl counted them when it was asked last."""
    total: int | None = None
    """Pages of the crawl, as Firecrawl counted them; shrinks as pages fail."""
    missing: int = 0
    """Pages that Firecrawl has, or was asked for, and that nothing is known of."""
    missing_urls: list[str] = []
    """The first 100 of them, as far as they can be named."""
    note: str | None


class CrawlMetricsResponse(Answer):
    crawl_id: str
    crawl_url: str
    status: CrawlStatus
    success: bool | None
    """Null while the crawl runs."""
    started_at: datetime
    """The earliest fact known of the crawl."""
    completed_at: datetime | None
    duration_ms: float | None
    e2e_duration_ms: float | None
    """From `initiated_at` to `completed_at`."""
    total_pages: int
    """Pages whose outcome is known: indexed and failed ones."""
    pages_indexed: int
    """Unchanged and empty pages included."""
    pages_failed: int
    aggregate_timing: AggregateTiming
    per_page_metrics: list[PageMetric] | None
    """Null unless asked for."""
    error_message: str | None
    extra_metadata: dict[str, Any] | None
    """What the initiator sent along."""

    initiated_at: datetime | None
    pages_pending: int
    """Queued or being indexed; not in `total_pages`."""
    pages_unchanged: int
    pages_empty: int
    pages_cancelled: int
    """In none of the other counts."""
    failures_without_url: int
    """Failures that named no page: facts of the crawl, but no pages."""
    searchable_at: datetime | None
    """When the last page settled, once the end is known and nothing is pending."""
    time_to_searchable_ms: float | None
    operations: dict[str, OperationStats]
    queue_wait: QueueWait
    last_fact_at: datetime
    """When anything was last heard of this crawl."""
    lacks: list[str]
    """What was never heard of it: any of `started`, `initiated_at`, `url`, `pages`, `end`."""
    sealed: bool
    """Its end is known, its pages are settled, and it was compared with Firecrawl where that can be asked:
    `searchable_at` stays, unless something new comes."""
    completeness: Completeness
    """How far it is certain that all of its pages are there."""
    reservation: str | None
    """What is not certain, or missing, as a sentence; null where all is there, or not known yet."""
    awaits: str | None
    """What is waited for, as a phrase; null where waiting brings nothing more: for a sealed crawl, and for
    one that nobody will tell more of."""
    verdict: Verdict | None
    """Null for a sealed crawl."""
    reconciliation: ReconciliationInfo | None
    """Null before the first comparison."""

    engine: str | None
    """What crawls, for a crawl that was asked for here."""
    pages_expected: int | None = None
    """Pages that its crawler knows of so far, while it goes on; null where that is not known. Firecrawl is
    asked every few seconds."""
    cancel_requested: bool = False
    """Whether somebody asked here for it to be cancelled."""
    found: int | None
    """URLs that the built-in crawler has accepted so far; null for other engines."""
    fetched: int | None


class CrawlListResponse(Answer):
    crawls: list[CrawlMetricsResponse]
    total: int


class Compared(Answer):
    """One number of two crawls."""

    a: int | float | None
    b: int | float | None
    ratio: float | None
    """`a` divided by `b`; null where `b` is 0 or one of them is not known."""


class ComparedCrawl(Answer):
    crawl_id: str
    crawl_url: str
    status: CrawlStatus
    started_at: datetime


class CrawlNumbers(Answer):
    total_pages: Compared
    pages_indexed: Compared
    pages_failed: Compared
    pages_unchanged: Compared
    pages_pending: Compared
    duration_ms: Compared
    e2e_duration_ms: Compared
    time_to_searchable_ms: Compared
    pages_per_second: Compared
    """`total_pages` over `time_to_searchable_ms`."""


class StageComparison(Answer):
    """Operations of one type."""

    count: Compared
    failed: Compared
    total_ms: Compared
    mean_ms: Compared
    p50_ms: Compared
    p95_ms: Compared
    p99_ms: Compared
    max_ms: Compared


class QueueWaitComparison(Answer):
    p50_ms: Compared
    p95_ms: Compared
    max_ms: Compared


class CrawlComparison(Answer):
    a: ComparedCrawl
    b: ComparedCrawl
    """What `a` is compared with."""
    numbers: CrawlNumbers
    stages: dict[str, StageComparison]
    """By operation type, in the order of a page's way."""
    queue_wait: QueueWaitComparison


class PageRow(Answer):
    url: str
    """The URL that was asked for; this is what the page is known by."""
    final_url: str
    """Where it led; what search shows."""
    state: PageState
    attempts: int
    status_code: int | None
    error_code: str | None
    error: str | None
    """In one short sentence."""
    error_detail: str | None = None
    """Firecrawl's own words, where they are longer."""
    queued_at: datetime | None
    settled_at: datetime | None
    queue_wait_ms: float | None
    total_ms: float | None
    unaccounted_ms: float | None
    """What of `total_ms` no stage accounts for."""
    stages: dict[str, float]
    chunks: int | None


class PageListResponse(Answer):
    pages: list[PageRow]
    total: int


class AttemptRow(Answer):
    """One try of a worker at a page."""

    number: int
    revision: int
    """Which content or re-queuing of the page it was for."""
    worker: str
    queued_at: datetime | None
    started_at: datetime
    finished_at: datetime | None
    outcome: str | None
    """A page state, or `retried`, `superseded`, `lost`, `crashed`; null while it runs."""
    error_code: str | None
    error: str | None
    queue_wait_ms: float | None
    total_ms: float | None
    unaccounted_ms: float | None
    stages: dict[str, float]


class AttemptListResponse(Answer):
    attempts: list[AttemptRow]
    total: int


class DeliveryRow(Answer):
    id: int
    event_type: str
    webhook_id: str | None
    received_at: datetime
    body_bytes: int
    pages: int
    """Page objects in it."""
    note: str | None
    """What was odd about it."""


class DeliveryListResponse(Answer):
    deliveries: list[DeliveryRow]
    total: int


class OperationRow(Answer):
    id: UUID
    timestamp: datetime
    """When it began."""
    operation_type: str
    operation_name: str
    duration_ms: float
    success: bool
    error_message: str | None
    request_id: str | None
    job_id: str | None
    crawl_id: str | None
    document_url: str | None
    extra_metadata: dict[str, Any] | None


class OperationListResponse(Answer):
    operations: list[OperationRow]
    total: int


class RequestRow(Answer):
    id: UUID
    timestamp: datetime
    """When it began."""
    method: str
    path: str
    status_code: int
    duration_ms: float
    request_id: str | None
    client_ip: str | None
    user_agent: str | None
    extra_metadata: dict[str, Any] | None


class RequestListResponse(Answer):
    requests: list[RequestRow]
    total: int


class CrawlTotals(Answer):
    """Crawls that started in the time asked about, and what is known of their pages by now."""

    total: int
    in_progress: int
    completed: int
    failed: int
    cancelled: int
    total_pages: int
    pages_indexed: int
    pages_failed: int
    pages_pending: int


class RequestTotals(Answer):
    """Answered HTTP requests; times are of all of them."""

    count: int
    client_errors: int
    server_errors: int
    mean_ms: float | None
    p50_ms: float | None
    p95_ms: float | None
    p99_ms: float | None
    max_ms: float | None


class RefusedDeliveries(Answer):
    """Deliveries that were refused at one door for one cause."""

    door: str | None
    """`firecrawl` or `changedetection`; null where the path was not quite that of a door."""
    cause: str
    count: int
    last_at: datetime
    senders: list[str] | None
    """Addresses that they came from, ten at most; those of proxies where there are any."""


class SummaryResponse(Answer):
    hours: int
    since: datetime
    until: datetime
    crawls: CrawlTotals
    operations: dict[str, OperationStats]
    requests: RequestTotals
    refused_deliveries: list[RefusedDeliveries]


class StatsResponse(Answer):
    crawls: int
    pages: int
    documents: int
    """URLs that the index holds."""
    chunks: int
    pages_kept: int
    """Pages whose content is kept, so that the index can be rebuilt."""
    database_bytes: int
    index_chunks: int | None = None
    """As the index itself counts; null while it cannot be asked."""
    index_bytes: int | None = None
    embedder: str | None = None
    """What the index was built with."""
    index_problem: str | None = None
    """What is wrong with the index, or that another embedder is configured, and what to do."""


class IndexReport(Answer):
    """One index: what its vectors are made with, and what the database says that it holds."""

    name: str
    """Of its folder; the collection on a Qdrant server ends alike."""
    embedder: str
    """With model and dimension."""
    chunk_tokens: int
    documents: int
    chunks: int
    failed: int
    """Documents of the index before it that it could not take; `documents.error` has the reason of each."""
    problem: str | None
    """What is wrong with it, or what its filling waits for."""
    created_at: datetime
    switched_at: datetime | None
    """When searches began to use it."""


class ReindexResponse(Answer):
    serving: IndexReport | None
    """What searches use; null before the first start has found its embedder."""
    filling: IndexReport | None
    """What is filled from the kept pages, to take its place."""
    notice: str | None = None
    """That another embedder is configured than the index was built with, and what to do."""


class ChangeRow(Answer):
    id: UUID
    watch_id: str | None
    watch_url: str
    detected_at: datetime
    """When the watcher says that it saw the change; when it told, where it does not say."""
    received_at: datetime
    diff_summary: str | None
    snapshot_url: str | None
    crawl_id: str | None
    """The crawl that fetches the page again; null before there is one."""
    rescrape_status: str | None
    rescrape_error: str | None
    indexed_at: datetime | None
    """When the new content was searchable."""
    change_to_searchable_ms: float | None
    """From `detected_at` to `indexed_at`."""
    metadata: dict[str, Any] | None
    """What else was sent."""


class ChangeListResponse(Answer):
    changes: list[ChangeRow]
    total: int


class NotificationRow(Answer):
    id: UUID
    """Sent as `webhook-id`."""
    crawl_id: str
    type: NotificationType
    state: NotificationState
    created_at: datetime
    attempts: int
    attempted_at: datetime | None
    next_attempt_at: datetime | None
    """Null unless it is pending."""
    delivered_at: datetime | None
    last_status: int | None
    """The HTTP status of the last attempt; null where none came."""
    last_error: str | None
    payload: dict[str, Any]


class NotificationListResponse(Answer):
    notifications: list[NotificationRow]
    total: int
