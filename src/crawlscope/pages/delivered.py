"""A page as a delivery brings it, and which of several deliveries wins: pure rules, no I/O."""

from dataclasses import dataclass
from datetime import datetime

from crawlscope.core.vocabulary import PageState


@dataclass(frozen=True, order=True)
class Arrival:
    """One delivery of a page, as far as it decides which of several wins: the greater one.

    A success beats a failure, and of two failures the one that tells more wins. What was delivered beats what
    was fetched from the crawler's API; of two alike the one received last wins, then the greater webhook id.
    """

    usable: bool
    """Whether it brought content to index, not a failure."""
    precision: int
    """How much it tells of the cause of a failure; see `causes.precision`."""
    pushed: bool
    """Whether it was delivered, not fetched."""
    received_at: datetime
    webhook_id: str


@dataclass(frozen=True)
class DeliveredPage:
    """A page as a delivery brings it: with content to index, or failed already."""

    source_url: str
    url: str
    arrival: Arrival
    markdown: str = ""
    html: str = ""
    """In place of Markdown, where none came."""
    title: str | None = None
    language: str | None = None
    status_code: int | None = None
    failure: PageState | None = None
    """`failed` or `cancelled` where there is nothing to index."""
    error_code: str | None = None
    error: str | None = None
    error_detail: str | None = None
    """Firecrawl's own words."""
    failed_at: datetime | None = None
    """When it failed by Firecrawl's clock, where it says so; else when that was delivered."""
