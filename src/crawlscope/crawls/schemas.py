"""The HTTP API's requests and answers of the actions on crawls."""

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, StrictBool

from crawlscope.core.json_types import Whole
from crawlscope.core.vocabulary import CrawlStatus, Engine, ReconcileState

MAX_BATCH_URLS = 10_000
GOES_ON_HEADER = "X-Crawl-Goes-On"
"""A header of the answer to a deletion, which has no body: the reason that `CrawlDeleted.goes_on` gives."""


class StartCrawl(BaseModel):
    model_config = ConfigDict(extra="forbid")

    url: str | None = None
    urls: list[str] | None = None
    limit: Annotated[Whole, Field(ge=1, le=1_000_000)] | None = None
    engine: Engine | None = None
    scrape_options: dict[str, Any] | None = None
    crawl_options: dict[str, Any] | None = None


class RetryPages(BaseModel):
    model_config = ConfigDict(extra="forbid")

    urls: list[str] | None = None
    """Only these pages; all failed ones without it."""
    rescrape: StrictBool = False
    """Whether the crawler shall fetch those again whose content is not known."""


class _Answer(BaseModel):
    model_config = ConfigDict(use_attribute_docstrings=True)

    crawl_id: str


class CrawlStarted(_Answer):
    crawl_url: str
    status: str
    invalid_urls: list[str] | None = None
    """For a batch scrape: the given URLs that cannot be scraped."""


class CrawlCancelled(_Answer):
    cancelled: bool


class CrawlDeleted(_Answer):
    goes_on: str | None
    """The reason why the crawl may still run at Firecrawl, if it could not be cancelled; null if it does not.
    """


class PageNotRetried(BaseModel):
    url: str
    reason: str
    """See `core.vocabulary.NotRetried`."""
    error_code: str | None
    error: str | None


class PagesQueued(_Answer):
    queued: int
    """Failed pages that are indexed anew."""
    rescraped: int
    """Pages that their crawler fetches again, in the crawl `rescrape_crawl_id`."""
    rescrape_crawl_id: str | None
    left: dict[str, int]
    """By reason, the number of requested pages that are neither."""
    pages: list[PageNotRetried]
    """The first of these pages, by URL."""


class CrawlReconciled(_Answer):
    status: CrawlStatus
    added: int
    """Pages that were fetched, and queued to be indexed."""
    failed: int
    cancelled: int
    state: ReconcileState
    note: str | None
    """The reason why the comparison is not done, or the pages that stay missing."""
    adopted: bool
    """Whether the crawl was unknown here before."""


class CountDifference(BaseModel):
    was: Any
    counted: Any


class CrawlRecounted(_Answer):
    changed: dict[str, CountDifference]
    """By column of `crawl_sessions`, or `row_counts` for the number of crawls; empty if all is consistent."""
