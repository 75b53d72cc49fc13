"""What the tools answer as data; the same as text is in `texts`."""

from datetime import datetime

from crawlscope.core.vocabulary import Completeness, CrawlStatus, VerdictName
from crawlscope.crawls.schemas import PagesQueued
from crawlscope.insights.schemas import Answer, CrawlMetricsResponse, PageRow
from crawlscope.search.schemas import Mode


class CrawlState(Answer):
    """How a crawl stands."""

    crawl_id: str
    crawl_url: str
    status: CrawlStatus
    safe_to_search: bool
    """A search sees all that this crawl brings."""
    sealed: bool
    """It has ended, all its pages are settled, and it was compared with Firecrawl where that can be asked."""
    completeness: Completeness
    """How far it is certain that all of its pages are there."""
    awaits: str | None
    """What is waited for; null where waiting brings nothing more."""
    searchability: str
    """Whether it is safe to search, and why not or what is missing."""
    verdict: VerdictName | None
    """What a crawl is doing that is not sealed; null for a sealed one."""
    total_pages: int
    """Pages whose outcome is known: indexed and failed ones."""
    pages_indexed: int
    pages_failed: int
    pages_pending: int
    """Received and not indexed yet."""
    pages_found: int | None
    """URLs that its crawler knows of so far; null where that is not known."""
    started_at: datetime
    completed_at: datetime | None
    searchable_at: datetime | None
    time_to_searchable_ms: float | None
    error_message: str | None


class CrawlStates(Answer):
    crawls: list[CrawlState]
    """Newest first."""
    total: int
    """All crawls that are known, listed or not."""


class PageError(Answer):
    url: str
    code: str | None
    error: str | None
    status_code: int | None
    """HTTP status that the page answered with."""
    attempts: int


class Profile(Answer):
    crawl: CrawlMetricsResponse
    safe_to_search: bool
    searchability: str
    errors: list[PageError]
    """Failed pages by URL, from `error_offset` on."""
    total_errors: int
    next_error_offset: int | None
    """Where the next page of errors begins; null after the last one."""
    slowest_pages: list[PageRow] | None
    """With the milliseconds of each stage; null unless details were asked for."""


class Requeued(PagesQueued, Answer):
    still_failed: int
    """Failed pages that nothing was done for, because their content was never received."""


class CancelledCrawl(Answer):
    cancelled: bool
    """False where it had ended already."""
    crawl: CrawlState


class ScrapedBatch(Answer):
    crawl: CrawlState
    invalid_urls: list[str]
    """What was left out, because it cannot be scraped."""


class FoundPage(Answer):
    url: str
    title: str
    text: str
    """The best passage of the page."""
    score: float
    crawl_id: str | None
    """The latest crawl that found the page."""


class FoundPages(Answer):
    results: list[FoundPage]
    """Best first, each page once."""
    total: int
    """A lower bound of the pages that match."""
    mode: Mode
    took_ms: float
