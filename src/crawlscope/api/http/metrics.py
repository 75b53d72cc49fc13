"""The recorder over HTTP: crawls, their pages and deliveries, operations, requests, totals."""

from datetime import UTC, datetime, timedelta
from typing import Annotated

from fastapi import APIRouter, Query
from pydantic import BeforeValidator

from crawlscope.api.http.access import Authenticated
from crawlscope.api.http.parts import ServiceParts
from crawlscope.api.http.segments import Segment
from crawlscope.core.errors import CrawlscopeError
from crawlscope.core.vocabulary import CrawlStatus, PageState
from crawlscope.insights.queries import PageSort
from crawlscope.insights.schemas import (
    AttemptListResponse,
    CrawlComparison,
    CrawlListResponse,
    CrawlMetricsResponse,
    DeliveryListResponse,
    OperationListResponse,
    PageListResponse,
    RequestListResponse,
    StatsResponse,
    SummaryResponse,
)
from crawlscope.insights.service import DEFAULT_LIMIT
from crawlscope.sessions.fold import parse_moment

LARGEST_OFFSET = 2**63 - 1
HOURS_OF_A_YEAR = 8_760

router = APIRouter(tags=["metrics"], dependencies=[Authenticated])


def _moment(value: object) -> datetime:
    """A `+` that nobody escaped arrives as a blank."""
    moment = parse_moment(value.strip().replace(" ", "+") if isinstance(value, str) else value)
    if moment is None:
        raise ValueError("give a time in ISO 8601, such as 2025-01-31T12:00:00Z")
    return moment


Limit = Annotated[int, Query(ge=1, le=1_000)]
Offset = Annotated[int, Query(ge=0, le=LARGEST_OFFSET)]
Hours = Annotated[int, Query(ge=1, le=HOURS_OF_A_YEAR, description="only the last so many hours")]
Moment = Annotated[datetime, BeforeValidator(_moment)]
Since = Annotated[
    Moment | None,
    Query(description="ISO 8601, UTC where it names no zone; this moment is included"),
]
Until = Annotated[
    Moment | None,
    Query(description="ISO 8601, UTC where it names no zone; this moment is not included"),
]
UrlPart = Annotated[str | None, Query(description="any part of the URL")]


@router.get("/api/metrics/crawls")
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


@router.get("/api/metrics/crawls/{crawl_id}")
async def show_crawl(
    crawl_id: Segment, parts: ServiceParts, include_per_page: bool = False
) -> CrawlMetricsResponse:
    """All numbers of a crawl; with `include_per_page` also each operation on each of its pages."""
    return await parts.insights.crawl(crawl_id, include_per_page)


@router.get("/api/metrics/crawls/{crawl_id}/pages")
async def list_pages(
    crawl_id: Segment,
    parts: ServiceParts,
    state: PageState | None = None,
    sort: PageSort = PageSort.RECENT,
    limit: Limit = DEFAULT_LIMIT,
    offset: Offset = 0,
) -> PageListResponse:
    """What became of the crawl's pages and what that took."""
    return await parts.insights.pages(crawl_id, state, sort, limit, offset)


@router.get("/api/metrics/crawls/{crawl_id}/compare")
async def compare_crawls(
    crawl_id: Segment,
    parts: ServiceParts,
    against: Annotated[str, Query(description="the crawl to compare it with")],
) -> CrawlComparison:
    """Both crawls side by side; each ratio is of this crawl to the other."""
    return await parts.insights.compare(crawl_id, against)


@router.get("/api/metrics/crawls/{crawl_id}/attempts")
async def list_attempts(
    crawl_id: Segment,
    parts: ServiceParts,
    url: Annotated[str, Query(description="the page's source URL, all of it")],
) -> AttemptListResponse:
    """Every try at one page, the first one first."""
    return await parts.insights.attempts(crawl_id, url)


@router.get("/api/metrics/crawls/{crawl_id}/deliveries")
async def list_deliveries(
    crawl_id: Segment, parts: ServiceParts, limit: Limit = DEFAULT_LIMIT, offset: Offset = 0
) -> DeliveryListResponse:
    """The webhook deliveries of the crawl, newest first, without their bodies."""
    return await parts.insights.deliveries(crawl_id, limit, offset)


@router.get("/api/metrics/operations")
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


@router.get("/api/metrics/requests")
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


@router.get("/api/metrics/summary")
async def summarize(parts: ServiceParts, hours: Hours = 24) -> SummaryResponse:
    """Totals: crawls that started, operations and requests that began in the last `hours`."""
    return await parts.insights.summary(hours)


@router.get("/api/stats")
async def show_stats(parts: ServiceParts) -> StatsResponse:
    """How much there is: crawls, pages, documents, chunks, bytes."""
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
    """The beginning of the time asked for, where both ways to say it are used the later one."""
    if hours is None:
        return since
    cutoff = datetime.now(UTC) - timedelta(hours=hours)
    return max(since, cutoff) if since else cutoff
