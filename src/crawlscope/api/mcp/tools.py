"""The tools, over the service's own HTTP API. Models read their docstrings."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Annotated, Literal
from urllib.parse import urlsplit

from mcp.server.mcpserver import Context
from mcp.types import CallToolResult, TextContent
from pydantic import BaseModel, Field, StringConstraints

from crawlscope.api.client import ServiceClient
from crawlscope.api.mcp import texts
from crawlscope.api.mcp.schemas import (
    CancelledCrawl,
    CrawlState,
    CrawlStates,
    FoundPage,
    FoundPages,
    PageError,
    Profile,
    Requeued,
    ScrapedBatch,
)
from crawlscope.api.mcp.searchability import searchability
from crawlscope.core.backoff import retry_context
from crawlscope.core.errors import ServiceUnavailable
from crawlscope.core.vocabulary import NotRetried, PageState
from crawlscope.crawls.schemas import MAX_BATCH_URLS
from crawlscope.insights.progress import Progress, is_settled, poll_interval
from crawlscope.insights.schemas import CrawlComparison, CrawlMetricsResponse
from crawlscope.search.schemas import Mode, SearchFilters

Connect = Callable[[], Awaitable[ServiceClient]]
"""Raises `CrawlscopeError` if no service runs and none can be started."""

OPENING_SECONDS = 10.0
"""Time that a service has to open its index after its start."""
SLOWEST_PAGES = 20
_SHARED = CrawlState.model_fields.keys() & CrawlMetricsResponse.model_fields.keys() - {"verdict"}

CrawlId = Annotated[
    str,
    StringConstraints(min_length=1, max_length=255),
    Field(description="From the answer of crawl or list_crawls."),
]
Wait = Annotated[
    bool, Field(description="Wait until the whole crawl is searchable, at most timeout_seconds.")
]
Timeout = Annotated[
    float,
    Field(
        gt=0,
        le=3600,
        description="Maximum seconds to wait. The crawl continues afterwards. "
        "Many programs give up on a tool after 60 seconds.",
    ),
]
DEFAULT_TIMEOUT_SECONDS = 50.0


class Tools:
    def __init__(self, connect: Connect, stopping: asyncio.Event) -> None:
        self._connect = connect
        self._stopping = stopping

    async def crawl(
        self,
        url: Annotated[
            str, Field(description="Where to start: a full http or https URL. The crawl stays on its host.")
        ],
        context: Context,
        limit: Annotated[
            int | None,
            Field(
                ge=1,
                le=1_000_000,
                description="Maximum number of pages, including the start page. Default: 10,000.",
            ),
        ] = None,
        engine: Annotated[
            Literal["builtin", "firecrawl"] | None,
            Field(description="The crawler. Default: firecrawl if one is configured, otherwise builtin."),
        ] = None,
        wait: Wait = False,
        timeout_seconds: Timeout = DEFAULT_TIMEOUT_SECONDS,
    ) -> Annotated[CallToolResult, CrawlState]:
        """Start a crawl of a website. Its pages are indexed and become searchable.

        Answers at once with the crawl's id. Pages arrive later: call crawl_status to see whether it is safe
        to search, or use wait=true.
        """
        client = await self._connect()
        crawl_id = await client.start_crawl(url, limit, engine)
        return _state_answer(await self._started(crawl_id, context, timeout_seconds if wait else 0))

    async def batch_scrape(
        self,
        urls: Annotated[
            list[str],
            Field(
                min_length=1,
                max_length=MAX_BATCH_URLS,
                description="The pages to scrape, as full http or https URLs.",
            ),
        ],
        context: Context,
        wait: Wait = False,
        timeout_seconds: Timeout = DEFAULT_TIMEOUT_SECONDS,
    ) -> Annotated[CallToolResult, ScrapedBatch]:
        """Scrape only these pages with Firecrawl, without following links. They become searchable.

        A batch is a crawl like any other: call crawl_status to see whether it is safe to search, or use
        wait=true. Needs a configured Firecrawl.
        """
        started = await (await self._connect()).start_batch(urls)
        crawl = await self._started(started.crawl_id, context, timeout_seconds if wait else 0)
        scraped = ScrapedBatch(crawl=_state(crawl), invalid_urls=started.invalid_urls or [])
        return _answer(texts.scraped_text(scraped), scraped)

    async def crawl_status(
        self,
        crawl_id: CrawlId,
        context: Context,
        wait: Wait = False,
        timeout_seconds: Timeout = DEFAULT_TIMEOUT_SECONDS,
    ) -> Annotated[CallToolResult, CrawlState]:
        """Show the state of a crawl, and whether it is safe to search, with the reason if it is not."""
        return _state_answer(await self._wait_for(crawl_id, context, timeout_seconds if wait else 0))

    async def list_crawls(
        self,
        limit: Annotated[int, Field(ge=1, le=1000, description="Maximum number of crawls.")] = 20,
    ) -> Annotated[CallToolResult, CrawlStates]:
        """List all crawls, newest first."""
        listed = await (await self._connect()).crawls(limit)
        states = CrawlStates(crawls=[_state(crawl) for crawl in listed.crawls], total=listed.total)
        return _answer(texts.states_text(states), states)

    async def profile_crawl(
        self,
        crawl_id: CrawlId,
        include_details: Annotated[
            bool, Field(description=f"Add the {SLOWEST_PAGES} slowest pages with the time of each stage.")
        ] = False,
        error_offset: Annotated[
            int, Field(ge=0, le=2**31, description="Number of failed pages to skip.")
        ] = 0,
        error_limit: Annotated[int, Field(ge=1, le=1000, description="Maximum number of failed pages.")] = 20,
    ) -> Annotated[CallToolResult, Profile]:
        """Show the results and the timing of a crawl, its bottleneck, and its failed pages with their errors.

        The diagnosis names the cause that costs most time, and the change that would help most.
        """
        client = await self._connect()
        report = await client.report(crawl_id)
        failed = await client.pages(
            crawl_id, state=PageState.FAILED.value, sort="url", offset=error_offset, limit=error_limit
        )
        found, end = searchability(report.crawl), error_offset + len(failed.pages)
        profile = Profile(
            crawl=report.crawl,
            safe_to_search=found.safe,
            searchability=found.sentence,
            diagnosis=report.diagnosis,
            errors=[
                PageError(
                    url=page.url,
                    code=page.error_code,
                    error=page.error,
                    status_code=page.status_code,
                    attempts=page.attempts,
                )
                for page in failed.pages
            ],
            total_errors=failed.total,
            next_error_offset=end if end < failed.total else None,
            slowest_pages=report.slowest.pages[:SLOWEST_PAGES] if include_details else None,
        )
        return _answer(texts.profile_text(profile, report), profile)

    async def compare_crawls(
        self,
        a: CrawlId,
        b: CrawlId,
    ) -> Annotated[CallToolResult, CrawlComparison]:
        """Compare two crawls, stage by stage. Each ratio is a's number divided by b's number."""
        compared = await (await self._connect()).compare(a, b)
        return _answer(texts.comparison_text(compared), compared)

    async def retry_failed_pages(
        self,
        crawl_id: CrawlId,
        rescrape: Annotated[
            bool,
            Field(description="Scrape failed pages again if their content was never received."),
        ] = False,
    ) -> Annotated[CallToolResult, Requeued]:
        """Index the failed pages of a crawl again if their content was received.

        Pages that failed at the crawler have no content to index. With rescrape=true the crawler fetches
        only these pages again, in a new crawl. The answer contains its id.
        """
        client = await self._connect()
        retried = await client.retry(crawl_id, rescrape=rescrape)
        requeued = Requeued(
            **retried.model_dump(), still_failed=retried.left.get(NotRetried.NOT_RECEIVED.value, 0)
        )
        return _answer(texts.requeued_text(retried), requeued)

    async def cancel_crawl(self, crawl_id: CrawlId) -> Annotated[CallToolResult, CancelledCrawl]:
        """Cancel a crawl, wherever it runs. Pages that were already received are still indexed."""
        client = await self._connect()
        answer = await client.cancel(crawl_id)
        state = _state(await client.crawl(crawl_id))
        cancelled = CancelledCrawl(cancelled=answer.cancelled, crawl=state)
        return _answer(texts.cancelled_text(cancelled), cancelled)

    async def search(
        self,
        query: Annotated[
            str,
            StringConstraints(strip_whitespace=True, min_length=1, max_length=4096),
            Field(description="Words or a question."),
        ],
        mode: Annotated[
            Mode, Field(description="Match words (keyword), meaning (semantic), or both (hybrid).")
        ] = "hybrid",
        limit: Annotated[int, Field(ge=1, le=100, description="Maximum number of pages.")] = 10,
        domain: Annotated[
            str | None,
            StringConstraints(strip_whitespace=True, min_length=1, max_length=255),
            Field(description="Return only pages of this host, for example docs.python.org."),
        ] = None,
    ) -> Annotated[CallToolResult, FoundPages]:
        """Search all crawled pages. Each page is listed once, with its best passage and its URL.

        Pages of a running crawl can be missing until crawl_status says that it is safe to search.
        """
        filters = SearchFilters(domain=_host(domain)) if domain else None
        async for attempt in retry_context(
            on=ServiceUnavailable, attempts=None, timeout=OPENING_SECONDS, wait_max=1.0
        ):
            with attempt:
                client = await self._connect()
                response = await client.search(query, mode=mode, limit=limit, filters=filters)
        found = FoundPages(
            results=[FoundPage.model_validate(each, from_attributes=True) for each in response.results],
            total=response.total,
            mode=response.mode,
            took_ms=response.took_ms,
            corrected_query=response.corrected_query,
        )
        return _answer(texts.found_text(query, found), found)

    async def _started(
        self, crawl_id: str, context: Context, patience_seconds: float
    ) -> CrawlMetricsResponse:
        try:
            return await self._wait_for(crawl_id, context, patience_seconds)
        except ServiceUnavailable as error:
            raise ServiceUnavailable(f"crawl {crawl_id} was started, but then {error}") from error

    async def _wait_for(
        self, crawl_id: str, context: Context, patience_seconds: float
    ) -> CrawlMetricsResponse:
        """The crawl when it is settled, or its state after `patience_seconds`."""
        deadline, reported = time.monotonic() + patience_seconds, -1
        while True:
            asked = time.monotonic()
            late = self._stopping.is_set() or asked >= deadline
            try:
                crawl = await (await self._connect()).crawl(crawl_id)
            except ServiceUnavailable:
                if late:
                    raise
            else:
                progress = Progress.of(crawl)
                if patience_seconds and progress.settled > reported:  # MCP wants progress to grow
                    reported = progress.settled
                    done = f"{progress.indexed:,} of {progress.expected:,} pages indexed"
                    message = f"{done}, {progress.failed:,} failed"
                    await context.report_progress(reported, progress.expected, message)
                if late or is_settled(crawl):
                    return crawl
            with suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), poll_interval(time.monotonic() - asked))


def _state_answer(crawl: CrawlMetricsResponse) -> CallToolResult:
    state = _state(crawl)
    return _answer(texts.state_text(state), state)


def _answer(text: str, data: BaseModel) -> CallToolResult:
    return CallToolResult(
        content=[TextContent(type="text", text=text)], structured_content=data.model_dump(mode="json")
    )


def _state(crawl: CrawlMetricsResponse) -> CrawlState:
    found = searchability(crawl)
    return CrawlState(
        **crawl.model_dump(include=_SHARED),
        safe_to_search=found.safe,
        searchability=found.sentence,
        verdict=crawl.verdict.verdict if crawl.verdict else None,
        pages_found=crawl.pages_expected if crawl.found is None else crawl.found,
    )


def _host(domain: str) -> str:
    """The host of a URL: models often pass a URL where a host is wanted."""
    try:
        return urlsplit(domain if "//" in domain else f"//{domain}").hostname or domain
    except ValueError:
        return domain
