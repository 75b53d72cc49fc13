"""The insight service over HTTP: crawls, pages, deliveries, changes, operations, requests and totals."""

from datetime import UTC, datetime, timedelta
from typing import Annotated

from fastapi import APIRouter, Query

from crawlscope.api.http.parameters import Hours, Limit, Offset, Segment, ServiceParts, Since, Until, UrlPart
from crawlscope.core.errors import CrawlscopeError
from crawlscope.core.vocabulary import ChangeKind, CrawlStatus, PageState
from crawlscope.insights.queries import PageSort
from crawlscope.insights.schemas import (
    AttemptListResponse,
    ChangeListResponse,
    CrawlComparison,
    CrawlListResponse,
    CrawlMetricsResponse,
    DeliveryListResponse,
    DiagnosisResponse,
    ExportedPage,
    OperationListResponse,
    PageChangesResponse,
    PageListResponse,
    RequestListResponse,
    StatsResponse,
    SummaryResponse,
    TimelineResponse,
)
from crawlscope.insights.service import DEFAULT_BUCKETS, DEFAULT_LIMIT

router = APIRouter()


@router.get("/api/metrics/crawls", tags=["metrics"])
async def list_crawls(
    parts: ServiceParts,
    status: CrawlStatus | None = None,
    url: UrlPart = None,
    since: Since = None,
    until: Until = None,
    limit: Limit = DEFAULT_LIMIT,
    offset: Offset = 0,
) -> CrawlListResponse:
    """Crawls by the time they started, newest first."""
    return await parts.insights.crawls(status, url, since, until, limit, offset)


@router.get("/api/metrics/crawls/{crawl_id}", tags=["metrics"])
async def show_crawl(
    crawl_id: Segment, parts: ServiceParts, include_per_page: bool = False
) -> CrawlMetricsResponse:
    """All numbers of a crawl; `include_per_page` adds each operation on each of its pages."""
    return await parts.insights.crawl(crawl_id, include_per_page)


@router.get("/api/metrics/crawls/{crawl_id}/pages", tags=["metrics"])
async def list_pages(
    crawl_id: Segment,
    parts: ServiceParts,
    state: PageState | None = None,
    sort: PageSort = PageSort.RECENT,
    limit: Limit = DEFAULT_LIMIT,
    offset: Offset = 0,
) -> PageListResponse:
    """The pages of the crawl with their state and timing."""
    return await parts.insights.pages(crawl_id, state, sort, limit, offset)


@router.get("/api/metrics/crawls/{crawl_id}/compare", tags=["metrics"])
async def compare_crawls(
    crawl_id: Segment,
    parts: ServiceParts,
    against: Annotated[str, Query(description="the crawl to compare it with")],
) -> CrawlComparison:
    """Both crawls side by side; each ratio is of this crawl to the other."""
    return await parts.insights.compare(crawl_id, against)


@router.get("/api/metrics/crawls/{crawl_id}/timeline", tags=["metrics"])
async def show_timeline(
    crawl_id: Segment,
    parts: ServiceParts,
    buckets: Annotated[
        int, Query(ge=1, le=1_000, description="the number of parts to divide the time into")
    ] = DEFAULT_BUCKETS,
) -> TimelineResponse:
    """Pages per second, the time of each stage, and the queue's length over the time of the crawl."""
    return await parts.insights.timeline(crawl_id, buckets)


@router.get("/api/metrics/crawls/{crawl_id}/diagnosis", tags=["metrics"])
async def diagnose_crawl(crawl_id: Segment, parts: ServiceParts) -> DiagnosisResponse:
    """The bottleneck of the crawl, its numbers, and the change that helps most."""
    return await parts.insights.diagnosis(crawl_id)


@router.get("/api/metrics/crawls/{crawl_id}/changes", tags=["metrics"])
async def list_page_changes(
    crawl_id: Segment,
    parts: ServiceParts,
    against: Annotated[str, Query(description="the crawl to compare it with, usually an earlier one")],
    kind: ChangeKind | None = None,
    url: Annotated[str | None, Query(description="one page: its source URL, all of it")] = None,
    limit: Limit = DEFAULT_LIMIT,
    offset: Offset = 0,
) -> PageChangesResponse:
    """The pages that differ between two crawls, or one page with the differences of its text."""
    if url is not None:
        return await parts.insights.changes_of_page(crawl_id, against, url)
    return await parts.insights.page_changes(crawl_id, against, kind, limit, offset)


@router.get("/api/metrics/crawls/{crawl_id}/page", tags=["metrics"])
async def show_page(
    crawl_id: Segment,
    parts: ServiceParts,
    url: Annotated[str, Query(description="the page's source URL, all of it")],
) -> ExportedPage:
    """One page with its state, timing and text."""
    return await parts.insights.page(crawl_id, url)


@router.get("/api/metrics/crawls/{crawl_id}/attempts", tags=["metrics"])
async def list_attempts(
    crawl_id: Segment,
    parts: ServiceParts,
    url: Annotated[str, Query(description="the page's source URL, all of it")],
) -> AttemptListResponse:
    """All attempts at one page, oldest first."""
    return await parts.insights.attempts(crawl_id, url)


@router.get("/api/metrics/crawls/{crawl_id}/deliveries", tags=["metrics"])
async def list_deliveries(
    crawl_id: Segment, parts: ServiceParts, limit: Limit = DEFAULT_LIMIT, offset: Offset = 0
) -> DeliveryListResponse:
    """The webhook deliveries of the crawl, newest first, without their bodies."""
    return await parts.insights.deliveries(crawl_id, limit, offset)


@router.get("/api/metrics/operations", tags=["metrics"])
async def list_operations(
    parts: ServiceParts,
    crawl_id: str | None = None,
    operation_type: str | None = None,
    operation_name: str | None = None,
    job_id: str | None = None,
    document_url: Annotated[str | None, Query(description="the whole URL; found by an index")] = None,
    url: UrlPart = None,
    success: bool | None = None,
    hours: Hours | None = None,
    since: Since = None,
    until: Until = None,
    limit: Limit = DEFAULT_LIMIT,
    offset: Offset = 0,
) -> OperationListResponse:
    """Measured operations, newest first."""
    return await parts.insights.operations(
        crawl_id=crawl_id,
        operation_type=operation_type,
        operation_name=operation_name,
        job_id=job_id,
        document_url=document_url,
        url=url,
        success=success,
        since=_later(since, hours),
        until=until,
        limit=limit,
        offset=offset,
    )


@router.get("/api/metrics/requests", tags=["metrics"])
async def list_requests(
    parts: ServiceParts,
    url: Annotated[str | None, Query(description="any part of the path")] = None,
    method: str | None = None,
    status_code: Annotated[int | None, Query(ge=100, le=999)] = None,
    hours: Hours | None = None,
    since: Since = None,
    until: Until = None,
    limit: Limit = DEFAULT_LIMIT,
    offset: Offset = 0,
) -> RequestListResponse:
    """HTTP requests that this service answered, newest first."""
    return await parts.insights.requests(url, method, status_code, _later(since, hours), until, limit, offset)


@router.get("/api/changes", tags=["changes"])
async def list_changes(
    parts: ServiceParts, url: UrlPart = None, limit: Limit = DEFAULT_LIMIT, offset: Offset = 0
) -> ChangeListResponse:
    """Reported changes, newest first, and the time until each was searchable."""
    return await parts.insights.changes(url, limit, offset)


@router.get("/api/metrics/summary", summary="Show totals", tags=["metrics"])
async def summarize(parts: ServiceParts, hours: Hours = 24) -> SummaryResponse:
    """Totals: crawls that started, operations and requests that began in the last `hours`."""
    return await parts.insights.summary(hours)


@router.get("/api/stats", tags=["metrics"])
async def show_stats(parts: ServiceParts) -> StatsResponse:
    """The number of crawls, pages, documents and chunks, and their size in bytes."""
    stats = await parts.insights.stats()
    try:
        index = parts.host.require_index()
        size = await index.index.size()
    except CrawlscopeError as error:  # the rest of the numbers do not need it
        stats.index_problem = str(error)
    else:
        stats.index_chunks, stats.index_bytes = size.chunks, size.bytes
        stats.index_problem = stats.index_problem or index.embedder.notice
    return stats


def _later(since: datetime | None, hours: int | None) -> datetime | None:
    """The later of `since` and the beginning of the last `hours`."""
    if hours is None:
        return since
    cutoff = datetime.now(UTC) - timedelta(hours=hours)
    return max(since, cutoff) if since else cutoff
