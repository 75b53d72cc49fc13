"""A page in a delivery, and which of several deliveries wins: pure rules, no I/O."""

from dataclasses import dataclass
from datetime import datetime

from crawlscope.core.vocabulary import PageState


@dataclass(frozen=True, order=True)
class Arrival:
    """What decides which of several deliveries of a page wins: the greater one.

    Content beats a failure, and of two failures the more precise one wins. A webhook delivery beats a page
    that was fetched from the crawler's API. Else the last one wins, then the greater webhook id.
    """

    usable: bool
    """Whether it has content to index."""
    precision: int
    """How precise the cause of a failure is; see `causes.precision`."""
    pushed: bool
    """Whether it was delivered by a webhook, not fetched."""
    received_at: datetime
    webhook_id: str


@dataclass(frozen=True)
class DeliveredPage:
    """A page in a delivery: with content to index, or failed already."""

    source_url: str
    url: str
    arrival: Arrival
    markdown: str = ""
    html: str = ""
    """Used if there is no Markdown."""
    title: str | None = None
    language: str | None = None
    status_code: int | None = None
    failure: PageState | None = None
    """`failed` or `cancelled` if there is nothing to index."""
    error_code: str | None = None
    error: str | None = None
    error_detail: str | None = None
    """The error in Firecrawl's words."""
    failed_at: datetime | None = None
    """When it failed by Firecrawl's clock, if known; else when the failure was delivered."""
