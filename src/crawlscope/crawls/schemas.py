"""What acting on a crawl answers, over HTTP and to whoever asks through it."""

from typing import Any

from pydantic import BaseModel, ConfigDict

from crawlscope.core.vocabulary import CrawlStatus, ReconcileState

MAX_BATCH_URLS = 10_000
GOES_ON_HEADER = "X-Crawl-Goes-On"
"""Says with the answer of a deletion, which has no body, what `CrawlDeleted.goes_on` says."""


class _Answer(BaseModel):
    model_config = ConfigDict(use_attribute_docstrings=True)

    crawl_id: str


class CrawlStarted(_Answer):
    crawl_url: str
    status: str
    invalid_urls: list[str] | None = None
    """Of a batch scrape: what was given and is no URL that can be scraped."""


class CrawlCancelled(_Answer):
    cancelled: bool


class CrawlDeleted(_Answer):
    goes_on: str | None
    """Why the crawl may go on at Firecrawl, which could not be told to stop it; null where it does not."""


class PageNotRetried(BaseModel):
    url: str
    reason: str
    """See `crawls.retries.NotRetried`."""
    error_code: str | None
    error: str | None


class PagesQueued(_Answer):
    queued: int
    """Failed pages that are indexed anew."""
    rescraped: int
    """Pages that their crawler fetches again, in the crawl `rescrape_crawl_id`."""
    rescrape_crawl_id: str | None
    left: dict[str, int]
    """By reason, how many of the pages asked for are neither."""
    pages: list[PageNotRetried]
    """The first of those, by URL."""


class CrawlReconciled(_Answer):
    status: CrawlStatus
    added: int
    """Pages that were fetched, and queued to be indexed."""
    failed: int
    cancelled: int
    state: ReconcileState
    note: str | None
    """Why it is not settled, or what stays missing."""
    adopted: bool
    """Whether nothing had been heard of the crawl before."""


class DeliveriesReplayed(BaseModel):
    model_config = ConfigDict(use_attribute_docstrings=True)

    deliveries: int
    """How many were read again."""
    changed: int
    """How many of them say something else now."""
    pages_queued: int
    unreadable: int
    """Deliveries whose body is no longer kept, or cannot be read."""
    newly_known: int
    """Events of a type that was not known when they came."""
    crawls: list[str]
    """Those that the changes belong to."""


class CountDifference(BaseModel):
    was: Any
    counted: Any


class CrawlRecounted(_Answer):
    changed: dict[str, CountDifference]
    """By column of `crawl_sessions`; empty where everything was right."""
