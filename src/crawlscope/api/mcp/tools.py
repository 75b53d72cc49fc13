"""The tools, over the service's own HTTP API; their docstrings are what a model reads of them."""

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
from crawlscope.api.mcp.answers import (
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
from crawlscope.api.report import gather_report
from crawlscope.core.backoff import retry_context
from crawlscope.core.errors import ServiceUnavailable
from crawlscope.core.vocabulary import NotRetried, PageState
from crawlscope.crawls.schemas import MAX_BATCH_URLS
from crawlscope.insights.progress import Progress, is_settled, poll_interval
from crawlscope.insights.schemas import CrawlComparison, CrawlMetricsResponse, PageListResponse
from crawlscope.search.schemas import Mode, SearchFilters, SearchRequest, SearchResponse

Connect = Callable[[], Awaitable[ServiceClient]]
"""Raises `CrawlscopeError` where there is no service and none can be started."""

OPENING_SECONDS = 10.0
"""How long a service that has just started may take to open its index."""
SLOWEST_PAGES = 20
_SHARED = CrawlState.model_fields.keys() & CrawlMetricsResponse.model_fields.keys() - {"verdict"}

CrawlId = Annotated[
    str,
    StringConstraints(min_length=1, max_length=255),
    Field(description="As crawl and list_crawls tell it."),
]
Wait = Annotated[
    bool, Field(description="Answer only when all of it is searchable, or after timeout_seconds.")
]
Timeout = Annotated[
    float,
    Field(
        gt=0,
        le=3600,
        description="The most seconds to wait; the crawl goes on afterwards. "
        "Many programs give up on a tool after 60.",
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
                ge=1, le=1_000_000, description="The most pages, the first one included; 10,000 without it."
            ),
        ] = None,
        engine: Annotated[
            Literal["builtin", "firecrawl"] | None,
            Field(
                description="Who crawls. Without it Firecrawl where one is set up, else the built-in crawler."
            ),
        ] = None,
        wait: Wait = False,
        timeout_seconds: Timeout = DEFAULT_TIMEOUT_SECONDS,
    ) -> Annotated[CallToolResult, CrawlState]:
        """Start a crawl of a website; its pages are indexed and become searchable.

        Answers with the crawl's id at once. Its pages come in later: ask crawl_status whether it is safe
        to search, or use wait=true.
        """
        client = await self._connect()
        crawl_id = await client.start_crawl(url, limit, engine)
        return _told(await self._begun(crawl_id, context, timeout_seconds if wait else 0))

    async def batch_scrape(
        self,
        urls: Annotated[
            list[str],
            Field(
                min_length=1, max_length=MAX_BATCH_URLS, description="Full http or https URLs, and no others."
            ),
        ],
        context: Context,
        wait: Wait = False,
        timeout_seconds: Timeout = DEFAULT_TIMEOUT_SECONDS,
    ) -> Annotated[CallToolResult, ScrapedBatch]:
        """Have Firecrawl scrape just these pages, without following links; they become searchable.

        It is a crawl like any other: ask crawl_status whether it is safe to search, or use wait=true. Needs
        a Firecrawl.
        """
        started = await (await self._connect()).start_batch(urls)
        crawl = await self._begun(started.crawl_id, context, timeout_seconds if wait else 0)
        scraped = ScrapedBatch(crawl=_state(crawl), invalid_urls=started.invalid_urls or [])
        return _answer(texts.scraped_text(scraped), scraped)

    async def crawl_status(
        self,
        crawl_id: CrawlId,
        context: Context,
        wait: Wait = False,
        timeout_seconds: Timeout = DEFAULT_TIMEOUT_SECONDS,
    ) -> Annotated[CallToolResult, CrawlState]:
        """Say how a crawl stands, whether it is safe to search yet, and if not why not."""
        return _told(await self._looked_at(crawl_id, context, timeout_seconds if wait else 0))

    async def list_crawls(
        self,
        limit: Annotated[int, Field(ge=1, le=1000, description="The most crawls to list.")] = 20,
    ) -> Annotated[CallToolResult, CrawlStates]:
        """List the known crawls, newest first."""
        listed = await (await self._connect()).crawls(limit)
        states = CrawlStates(crawls=[_state(crawl) for crawl in listed.crawls], total=listed.total)
        return _answer(texts.states_text(states), states)

    async def profile_crawl(
        self,
        crawl_id: CrawlId,
        include_details: Annotated[
            bool, Field(description=f"Also the {SLOWEST_PAGES} slowest pages with the time of each stage.")
        ] = False,
        error_offset: Annotated[int, Field(ge=0, le=2**31, description="How many failed pages to skip.")] = 0,
        error_limit: Annotated[int, Field(ge=1, le=1000, description="The most failed pages to list.")] = 20,
    ) -> Annotated[CallToolResult, Profile]:
        """Show what became of a crawl's pages, where the time went, and which pages failed and why."""
        client = await self._connect()
        report = await gather_report(client, crawl_id)
        failed = await client.pages(
            crawl_id, state=PageState.FAILED.value, sort="url", offset=error_offset, limit=error_limit
        )
        slowest = report.slowest.pages[:SLOWEST_PAGES] if include_details else None
        profile = _profile(report.crawl, failed, error_offset).model_copy(update={"slowest_pages": slowest})
        return _answer(texts.profile_text(profile, report), profile)

    async def compare_crawls(
        self,
        a: CrawlId,
        b: CrawlId,
    ) -> Annotated[CallToolResult, CrawlComparison]:
        """Put two crawls side by side, stage by stage; each ratio is a's number divided by b's."""
        compared = await (await self._connect()).compare(a, b)
        return _answer(texts.comparison_text(compared), compared)

    async def retry_failed_pages(
        self,
        crawl_id: CrawlId,
        rescrape: Annotated[
            bool,
            Field(description="Also have the crawler fetch pages again whose content was never received."),
        ] = False,
    ) -> Annotated[CallToolResult, Requeued]:
        """Index the failed pages of a crawl again whose content was received.

        Pages that failed while they were crawled have no content to index. With rescrape=true whoever
        crawled them fetches just these again, in a crawl of its own, whose id is answered.
        """
        client = await self._connect()
        retried = await client.retry(crawl_id, rescrape=rescrape)
        requeued = Requeued(
            **retried.model_dump(), still_failed=retried.left.get(NotRetried.NOT_RECEIVED.value, 0)
        )
        return _answer(texts.requeued_text(retried), requeued)

    async def cancel_crawl(self, crawl_id: CrawlId) -> Annotated[CallToolResult, CancelledCrawl]:
        """Stop a crawl, wherever it runs. Pages that were received are still indexed."""
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
            Field(description="What to look for, in words or as a question."),
        ],
        mode: Annotated[
            Mode, Field(description="By words (keyword), by meaning (semantic), or both (hybrid).")
        ] = "hybrid",
        limit: Annotated[int, Field(ge=1, le=100, description="The most pages to return.")] = 10,
        domain: Annotated[
            str | None,
            StringConstraints(strip_whitespace=True, min_length=1, max_length=255),
            Field(description="Only pages of this host, such as docs.python.org."),
        ] = None,
    ) -> Annotated[CallToolResult, FoundPages]:
        """Search all crawled pages; each page comes once, with its best passage and its URL.

        Until crawl_status says that it is safe to search, pages of a running crawl can be missing.
        """
        filters = SearchFilters(domain=_host(domain)) if domain else None
        request = SearchRequest(query=query, mode=mode, limit=limit, filters=filters)
        found = _found(await self._searched(request))
        return _answer(texts.found_text(query, found), found)

    async def _begun(self, crawl_id: str, context: Context, patience_seconds: float) -> CrawlMetricsResponse:
        try:
            return await self._looked_at(crawl_id, context, patience_seconds)
        except ServiceUnavailable as error:
            raise ServiceUnavailable(f"crawl {crawl_id} was started, but then {error}") from error

    async def _looked_at(
        self, crawl_id: str, context: Context, patience_seconds: float
    ) -> CrawlMetricsResponse:
        """The crawl once it is settled, or as it stands after so long."""
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
                    await context.report_progress(reported, progress.expected, _words(progress))
                if late or is_settled(crawl):
                    return crawl
            with suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), poll_interval(time.monotonic() - asked))

    async def _searched(self, request: SearchRequest) -> SearchResponse:
        async for attempt in retry_context(
            on=ServiceUnavailable, attempts=None, timeout=OPENING_SECONDS, wait_max=1.0
        ):
            with attempt:
                return await (await self._connect()).search(request)
        raise AssertionError("an attempt returns or raises")


def _told(crawl: CrawlMetricsResponse) -> CallToolResult:
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


def _profile(crawl: CrawlMetricsResponse, failed: PageListResponse, offset: int) -> Profile:
    found = searchability(crawl)
    end = offset + len(failed.pages)
    return Profile(
        crawl=crawl,
        safe_to_search=found.safe,
        searchability=found.sentence,
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
        slowest_pages=None,
    )


def _found(response: SearchResponse) -> FoundPages:
    results = [FoundPage.model_validate(each, from_attributes=True) for each in response.results]
    return FoundPages(results=results, total=response.total, mode=response.mode, took_ms=response.took_ms)


def _words(progress: Progress) -> str:
    return f"{progress.indexed:,} of {progress.expected:,} pages indexed, {progress.failed:,} failed"


def _host(domain: str) -> str:
    """Models like to pass a URL where a host is asked for."""
    try:
        return urlsplit(domain if "//" in domain else f"//{domain}").hostname or domain
    except ValueError:
        return domain
