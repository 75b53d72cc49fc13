"""The answers of the insight service to the API, the CLI and MCP. Clients rely on the field names.

Times are in UTC and ISO 8601; durations are in milliseconds. `total` of a list counts all matches.
"""

from datetime import datetime
from typing import Any, Literal, Self
from uuid import UUID

from pydantic import BaseModel, ConfigDict

from crawlscope.core.vocabulary import (
    Bottleneck,
    ChangeKind,
    Completeness,
    CrawlStatus,
    EventKind,
    NotificationState,
    NotificationType,
    PageState,
    ReconcileState,
    VerdictName,
)


class Answer(BaseModel):
    """Made from database rows; other columns of a row are ignored."""

    model_config = ConfigDict(use_attribute_docstrings=True)


class OperationStats(Answer):
    """Operations of one type. Times cover successful operations; null if there is none."""

    count: int
    failed: int
    total_ms: float
    mean_ms: float | None
    p50_ms: float | None
    p95_ms: float | None
    p99_ms: float | None
    max_ms: float | None
    failed_ms: float = 0.0
    """The sum of failed operations, which `total_ms` leaves out."""

    @property
    def spent_ms(self) -> float:
        """The time of all operations. For a crawl, the times of the stages and the rest sum up to those of
        the workers."""
        return self.total_ms + self.failed_ms


class QueueWait(Answer):
    """The time that pages waited in the queue, for each attempt that has ended; null if there is none."""

    mean_ms: float | None = None
    p50_ms: float | None = None
    p95_ms: float | None = None
    p99_ms: float | None = None
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
    """The state of a crawl that is not sealed, with the evidence."""

    verdict: VerdictName
    since: datetime
    stage: str | None
    """The place where it is stalled: `queue`, `indexing`, or the stage whose part is unavailable."""
    reason: str
    awaits: str | None = None
    """The step that the crawl waits for, as a phrase; null if waiting brings nothing more."""


class ReconciliationInfo(Answer):
    """The comparison of the crawl with Firecrawl's records."""

    state: ReconcileState
    checked_at: datetime | None
    checks: int
    next_check_at: datetime | None
    """Null if no further check is planned."""
    added: int
    """Pages that only the comparison added."""
    completed: int | None = None
    """Pages with a document, by Firecrawl's last count."""
    total: int | None = None
    """All pages of the crawl, by Firecrawl's last count, which shrinks as pages fail."""
    missing: int = 0
    """Pages that Firecrawl has, or was asked for, and that were not received."""
    missing_urls: list[str] = []
    """The first 100 of them whose URLs are known."""
    note: str | None


class Eta(Answer):
    """When all known pages of a running crawl will be settled, at the pace of its last pages."""

    at: datetime
    earliest: datetime
    latest: datetime
    """More than `at` if the crawler may find more pages; the last pages can take longer than others."""
    pages_left: int


class CrawlState(Answer):
    """Status, counts and times of a crawl, and the step that it waits for: everything that needs no
    measurement."""

    crawl_id: str
    crawl_url: str
    status: CrawlStatus
    success: bool | None
    """Null while the crawl runs."""
    started_at: datetime
    """The time of the crawl's earliest event."""
    completed_at: datetime | None
    duration_ms: float | None
    e2e_duration_ms: float | None
    """The time from `initiated_at` to `completed_at`."""
    total_pages: int
    """Indexed and failed pages."""
    pages_indexed: int
    """Unchanged and empty pages included."""
    pages_failed: int
    aggregate_timing: AggregateTiming
    error_message: str | None

    initiated_at: datetime | None
    pages_pending: int
    """Queued or being indexed; not in `total_pages`."""
    pages_unchanged: int
    pages_empty: int
    pages_cancelled: int
    """Pages that a cancellation dropped; in no other count."""
    failures_without_url: int
    """Failures without a URL. They count for the crawl, but are no pages."""
    searchable_at: datetime | None
    """When the last page settled; null until the end is known and no page is pending."""
    time_to_searchable_ms: float | None
    last_fact_at: datetime
    """The time of the crawl's last event."""
    lacks: list[str]
    """Facts that no event brought: any of `started`, `initiated_at`, `url`, `pages`, `end`."""
    sealed: bool
    """Its end is known, its pages are settled, and it was compared with Firecrawl if one is configured.
    `searchable_at` then changes only with new events."""
    completeness: Completeness
    """How certain it is that no page is missing."""
    reservation: str | None
    """A sentence about missing or uncertain facts; null if there are none, or if it is not known yet."""
    awaits: str | None
    """The step that the crawl waits for, as a phrase; null if waiting brings nothing more: for a sealed
    crawl, and for one whose end nobody will report."""
    verdict: Verdict | None
    """Null for a sealed crawl."""
    reconciliation: ReconciliationInfo | None
    """Null before the first comparison."""

    engine: str | None
    """The crawler, for a crawl that was requested here."""
    pages_expected: int | None = None
    """Pages that the crawler has found so far, while the crawl runs; null if that is not known. Firecrawl is
    asked every few seconds."""
    cancel_requested: bool = False
    """Whether a cancellation was requested here."""
    found: int | None
    """URLs that the built-in crawler has accepted so far; null for other engines."""
    fetched: int | None
    eta: Eta | None = None
    """Null if no page is left, or if the evidence is too thin: few pages so far, none for a while, or a
    crawler that is still finding many."""


class BaselineNumber(Answer):
    """One number of a crawl, and its usual band in the site's last crawls."""

    value: float
    median: float
    low: float | None
    """Null if a smaller number is no regression."""
    high: float
    runs: int
    """The crawls that it was compared with."""
    regressed: bool


class MetExpectation(Answer):
    """An expectation of the site, and whether the crawl meets it."""

    expectation: str
    met: bool | None
    """Null if the number is not known, or too few earlier crawls are."""
    value: float | None
    bound: float | None


class Baseline(Answer):
    """The crawl among the last completed crawls of the same URL with the same limit."""

    runs: int
    numbers: dict[str, BaselineNumber]
    """The numbers that enough earlier crawls have: any of `total_pages`, `failed_percent`,
    `time_to_searchable_ms`, and the means per embedded page `chunking_ms`, `embedding_ms`, `bm25_ms`,
    `qdrant_ms`."""
    regressions: list[str]
    """The numbers outside of their band, each as a sentence."""
    expectations: list[MetExpectation]


class CrawlMetricsResponse(CrawlState):
    """A crawl with the measurements of its pages."""

    per_page_metrics: list[PageMetric] | None
    """Null without `include_per_page`."""
    extra_metadata: dict[str, Any] | None
    """Metadata from the initiator."""
    operations: dict[str, OperationStats]
    """By operation type. Percentiles differ by at most 1 % from those of the single operations."""
    queue_wait: QueueWait
    baseline: Baseline | None = None
    """Null in lists, and until the crawl is completed and searchable."""
    unaccounted: OperationStats | None = None
    """The time of attempts outside all stages; null if no attempt has ended."""


class CrawlListResponse(Answer):
    crawls: list[CrawlMetricsResponse]
    total: int


class LiveCrawls(Answer):
    """The first event of the feed of all crawls."""

    crawls: list[CrawlState]
    """The newest, and those in progress."""


class LivePages(Answer):
    """Pages that settled."""

    crawl_id: str
    pages: list["PageRow"]
    """In the order in which they settled."""


class LiveEnd(Answer):
    """Nothing more will be reported about this crawl."""

    crawl_id: str
    reason: Literal["sealed", "deleted"]


class Compared(Answer):
    """One number of two crawls."""

    a: int | float | None
    b: int | float | None
    ratio: float | None
    """`a` divided by `b`; null if `b` is 0 or one of them is not known."""


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
    mean_ms: Compared
    p50_ms: Compared
    p95_ms: Compared
    max_ms: Compared


class CrawlComparison(Answer):
    a: ComparedCrawl
    b: ComparedCrawl
    """The crawl that `a` is compared with."""
    numbers: CrawlNumbers
    stages: dict[str, StageComparison]
    """By operation type, in the order in which a page passes through them."""
    queue_wait: QueueWaitComparison


class TimelineBucket(Answer):
    """A part of the crawl's time."""

    at: datetime
    """Its beginning."""
    received: int
    """Pages whose last delivery arrived in it."""
    indexed: int
    """Pages that settled in it: indexed, unchanged or empty."""
    failed: int
    received_per_second: float
    indexed_per_second: float
    failed_per_second: float
    queued: int
    """Pages that wait in the queue, at its end."""
    indexing: int
    """Pages that workers work on, at its end."""
    stages: dict[str, float]
    """Milliseconds of the crawl's operations that fall into it, by operation type. An operation that lasts
    longer is divided."""


class TimelineEvent(Answer):
    """Something that happened during the crawl. Equal events of one bucket are one, with their number."""

    at: datetime
    until: datetime | None = None
    """The end of an outage; null while it lasts, and for other events."""
    kind: EventKind
    what: str
    """The event in a few words."""
    count: int = 1


class TimelineResponse(Answer):
    crawl_id: str
    began_at: datetime
    ended_at: datetime
    """The last event of the crawl; now while pages are pending."""
    bucket_seconds: float
    buckets: list[TimelineBucket]
    """The earliest first. Together they cover the time from `began_at` to `ended_at` without gaps."""
    events: list[TimelineEvent]
    """The earliest first."""


class StageTime(Answer):
    """The time that the operations of one type took, failed ones included."""

    work_ms: float
    """The sum of their durations."""
    wall_ms: float
    """The time during which at least one was in progress."""
    concurrency: float | None
    """`work_ms` divided by `wall_ms`: how many were in progress at once, on average."""

    @classmethod
    def of(cls, work_ms: float, wall_ms: float) -> Self:
        return cls(work_ms=work_ms, wall_ms=wall_ms, concurrency=work_ms / wall_ms if wall_ms else None)


class IdleTime(Answer):
    """The time during which no worker could work on the crawl, by its cause."""

    crawler_ms: float
    """No page had been received that was not settled."""
    queue_ms: float
    """Pages waited, and no worker took one."""
    embedder_ms: float
    """It was unavailable."""
    index_ms: float
    """It was unavailable."""
    database_ms: float
    """It was unavailable."""


class Finding(Answer):
    """One cause that makes the crawl take longer."""

    bound_by: Bottleneck
    reason: str
    """One sentence with the main numbers."""
    change: str | None
    """The change that helps most; null if there is none."""
    saving_ms: float | None
    """The estimated time that the change would save."""
    evidence: dict[str, float]
    """The numbers behind it; names end with their unit."""


class DiagnosisResponse(Finding):
    """The cause that costs the crawl most time."""

    crawl_id: str
    others: list[Finding]
    """Further causes, the most costly first."""
    wall_ms: float
    """From the beginning of the crawl until its last page settled; without pauses after its end."""
    busy_ms: float
    """The part in which workers worked on it."""
    late_ms: float
    """The part in which pages waited or were indexed for longer than two seconds: indexing, not the crawler,
    determined the pace."""
    idle: IdleTime
    """The rest of `wall_ms` besides `busy_ms`."""
    stages: dict[str, StageTime]
    """The times by operation type."""


class PageRow(Answer):
    url: str
    """The source URL, which identifies the page."""
    final_url: str
    """The URL after redirects, which search shows."""
    state: PageState
    attempts: int
    status_code: int | None
    error_code: str | None
    error: str | None
    """The reason in one short sentence."""
    error_detail: str | None = None
    """Firecrawl's own message, if it is longer."""
    queued_at: datetime | None
    settled_at: datetime | None
    queue_wait_ms: float | None
    total_ms: float | None
    unaccounted_ms: float | None
    """The part of `total_ms` outside of all stages."""
    stages: dict[str, float]
    chunks: int | None


class PageVersion(Answer):
    """A page as one crawl left it."""

    state: PageState
    status_code: int | None
    error_code: str | None
    error: str | None
    title: str | None
    settled_at: datetime
    total_ms: float | None
    chunks: int | None


class PageChange(Answer):
    """One difference of a page. A page that differs in several ways is listed for each of them."""

    url: str
    """The source URL."""
    kind: ChangeKind
    now: PageVersion | None
    """The page in this crawl; null if it has no such page."""
    before: PageVersion | None
    """The page in the other crawl."""


class DiffMark(Answer):
    """Characters of a line, without the one at `end`."""

    begin: int
    end: int


class DiffLine(Answer):
    kind: Literal["same", "removed", "added"]
    text: str
    marks: list[DiffMark] = []
    """The parts that differ from the line on the other side."""


class DiffHunk(Answer):
    """Lines that differ, with three lines around them."""

    before_line: int
    """The number of its first line in the old text, from 1. Blank lines do not count."""
    now_line: int
    lines: list[DiffLine]


class TextDiff(Answer):
    """The differences of the cleaned Markdown, line by line; long paragraphs sentence by sentence."""

    added: int
    """The number of added lines."""
    removed: int
    hunks: list[DiffHunk]
    is_cut: bool
    """Whether the texts are too long to be compared or shown as a whole."""


class PageChangesResponse(Answer):
    crawl_id: str
    against: str
    changes: list[PageChange]
    """The changes, sorted by kind, then by URL."""
    total: int
    counts: dict[ChangeKind, int]
    """The numbers of all kinds."""
    note: str | None = None
    """A sentence about missing information, and the reason."""
    diff: TextDiff | None = None
    """With `url`: the differences of the page's text, if both crawls have a stored one."""


class ExportedPage(PageRow):
    """A page with its text, as it is exported."""

    title: str | None
    language: str | None
    received_at: datetime
    text: str | None
    """Its Markdown; null if no content was received, or if it is no longer stored."""


class PageListResponse(Answer):
    pages: list[PageRow]
    total: int


class AttemptRow(Answer):
    """One attempt of a worker at a page."""

    number: int
    revision: int
    """Counts the contents and retries of the page."""
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
    """The number of pages in it."""
    note: str | None
    """An irregularity of the delivery."""


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
    """Crawls that started in this time, with the present counts of their pages."""

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
    """Answered HTTP requests; the times cover all of them."""

    count: int
    client_errors: int
    server_errors: int
    mean_ms: float | None
    p50_ms: float | None
    p95_ms: float | None
    p99_ms: float | None
    max_ms: float | None


class RefusedDeliveries(Answer):
    """Deliveries that one webhook endpoint refused for one cause."""

    door: str | None
    """The endpoint: `firecrawl` or `changedetection`; null if the path was not quite that of an endpoint."""
    cause: str
    count: int
    last_at: datetime
    senders: list[str] | None
    """IP addresses of the senders or their proxies, at most ten."""


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
    """URLs in the index."""
    chunks: int
    pages_kept: int
    """Pages whose content is stored, so that the index can be rebuilt."""
    database_bytes: int
    index_chunks: int | None = None
    """The index's own count; null while it is unavailable."""
    index_bytes: int | None = None
    embedder: str | None = None
    """The embedder that the index was built with."""
    index_problem: str | None = None
    """A problem of the index, or the note that another embedder is configured, with the remedy."""
    languages: dict[str, int] = {}
    """Documents of each language, by its primary tag; an empty tag is an unknown language."""
    language_notice: str | None = None
    """The notice that many documents are in languages that the embedding model does not read, with the
    remedy."""


class IndexReport(Answer):
    """One index: its embedder, and its contents by the database's count."""

    name: str
    """The name of its folder, and the end of its collection's name on a Qdrant server."""
    embedder: str
    """Its embedder, with model and dimension."""
    chunk_tokens: int
    documents: int
    chunks: int
    failed: int
    """Documents of the former index that could not be indexed; `documents.error` has the reasons."""
    problem: str | None
    """A problem of the index, or the reason why its reindexing waits."""
    created_at: datetime
    switched_at: datetime | None
    """When searches began to use it."""


class ReindexResponse(Answer):
    serving: IndexReport | None
    """The index that searches use; null until the first start has opened its embedder."""
    filling: IndexReport | None
    """The index that is being built from the stored contents to replace it."""
    notice: str | None = None
    """The note that the configured embedder differs from the embedder of the index, with the remedy."""


class ChangeRow(Answer):
    id: UUID
    watch_id: str | None
    watch_url: str
    detected_at: datetime
    """When the watcher saw the change, or else reported it."""
    received_at: datetime
    diff_summary: str | None
    snapshot_url: str | None
    crawl_id: str | None
    """The crawl that scrapes the page again; null until it has started."""
    rescrape_status: str | None
    rescrape_error: str | None
    indexed_at: datetime | None
    """When the new content was searchable."""
    change_to_searchable_ms: float | None
    """The time from `detected_at` to `indexed_at`."""
    metadata: dict[str, Any] | None
    """Further fields of the report."""


class ChangeListResponse(Answer):
    changes: list[ChangeRow]
    total: int


class NotificationRow(Answer):
    id: UUID
    """The id, which is also sent as `webhook-id`."""
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
    """The HTTP status of the last attempt; null without an answer."""
    last_error: str | None
    payload: dict[str, Any]


class NotificationListResponse(Answer):
    notifications: list[NotificationRow]
    total: int
