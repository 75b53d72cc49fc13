"""The tools' answers as data; `texts` has them as text."""

from datetime import datetime

from crawlscope.core.vocabulary import Completeness, CrawlStatus, VerdictName
from crawlscope.crawls.schemas import PagesQueued
from crawlscope.insights.schemas import Answer, CrawlMetricsResponse, DiagnosisResponse, Eta, PageRow
from crawlscope.search.schemas import Mode


class CrawlState(Answer):
    """The state of a crawl."""

    crawl_id: str
    crawl_url: str
    status: CrawlStatus
    safe_to_search: bool
    """A search finds all pages of this crawl."""
    sealed: bool
    """It has ended, its pages are settled, and it was compared with Firecrawl if one is configured."""
    completeness: Completeness
    """How certain it is that no page is missing."""
    awaits: str | None
    """The step that the crawl waits for; null if waiting brings nothing more."""
    searchability: str
    """Whether it is safe to search, with the reason or the missing pages."""
    verdict: VerdictName | None
    """The state of an unsealed crawl; null for a sealed one."""
    total_pages: int
    """Indexed and failed pages."""
    pages_indexed: int
    pages_failed: int
    pages_pending: int
    """Received pages that are not indexed yet."""
    pages_found: int | None
    """URLs that the crawler has found so far; null if that is not known."""
    started_at: datetime
    completed_at: datetime | None
    searchable_at: datetime | None
    time_to_searchable_ms: float | None
    error_message: str | None
    eta: Eta | None
    """When it will be searchable; null if that is not known."""


class CrawlStates(Answer):
    crawls: list[CrawlState]
    """Newest first."""
    total: int
    """The number of all crawls, listed or not."""


class PageError(Answer):
    url: str
    code: str | None
    error: str | None
    status_code: int | None
    """The page's HTTP status."""
    attempts: int


class Profile(Answer):
    crawl: CrawlMetricsResponse
    safe_to_search: bool
    searchability: str
    diagnosis: DiagnosisResponse
    """The bottleneck of the crawl, its numbers, and the change that helps most."""
    errors: list[PageError]
    """Failed pages, sorted by URL, from `error_offset` on."""
    total_errors: int
    next_error_offset: int | None
    """The `error_offset` of the next errors; null after the last one."""
    slowest_pages: list[PageRow] | None
    """With the milliseconds of each stage; null without `include_details`."""


class Requeued(PagesQueued, Answer):
    still_failed: int
    """Failed pages that were not retried, because their content was never received."""


class CancelledCrawl(Answer):
    cancelled: bool
    """False if the crawl had ended already."""
    crawl: CrawlState


class ScrapedBatch(Answer):
    crawl: CrawlState
    invalid_urls: list[str]
    """Given URLs that cannot be scraped and were left out."""


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
    corrected_query: str | None = None
    """The query that was used instead, because no page has a word of the given one."""
