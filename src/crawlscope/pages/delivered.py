"""A page in a delivery, and which of several deliveries wins: pure rules, no I/O."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from hashlib import sha256
from typing import Any

from pydantic_core import from_json

from crawlscope.core.compression import DamagedBody, decompress
from crawlscope.core.vocabulary import PageState


@dataclass(frozen=True, order=True)
class Arrival:
    """The order of several deliveries of a page: the greatest one wins.

    Content beats a failure, and a more precise failure beats a less precise one. A webhook delivery beats a
    page that was fetched from the crawler's API. Otherwise the last one wins, then the greater webhook id.
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
    text_at: tuple[int, int] | None = None
    """The place of the Markdown in the body of its delivery: from the first byte until before the second."""
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

    @property
    def content(self) -> str:
        return self.html or self.markdown


@dataclass(frozen=True)
class KnownPage:
    """A page of a crawl, as far as further deliveries of it depend on that."""

    id: int
    revision: int = 1
    state: PageState | None = None
    """None for a page that is not stored yet."""
    arrival: Arrival | None = None
    """The arrival of the delivery that has won so far."""
    url: str | None = None
    title: str | None = None
    language: str | None = None
    error_code: str | None = None
    error: str | None = None
    settled_at: datetime | None = None
    """Also None for a page that settles now."""
    is_html: bool = False
    """Whether it was delivered as HTML."""
    content_hash: bytes | None = None
    """SHA-256 of the delivered content."""
    delivered: DeliveredPage | None = None
    """The page to be stored, if a delivery has changed it."""

    def after(self, page: DeliveredPage) -> "KnownPage":
        """The page after another delivery; itself where the delivery before wins: it is better, or the same
        page was delivered again or fetched."""
        if self.arrival and self._wins(self.arrival, page):
            return self
        failed_before = self.settled_at if self.state in (PageState.FAILED, PageState.CANCELLED) else None
        reported_at = page.arrival.received_at if page.failed_at else None
        failed_at = min((at for at in (reported_at, failed_before) if at), default=None)  # the first known
        return KnownPage(
            id=self.id,
            revision=self.revision if page.failure or self.state is None else self.revision + 1,
            state=page.failure or PageState.QUEUED,
            arrival=page.arrival,
            url=page.url,
            title=page.title,
            language=page.language,
            error_code=page.error_code,
            error=page.error,
            settled_at=failed_at if page.failure else None,
            delivered=page,
        )

    def _wins(self, arrival: Arrival, page: DeliveredPage) -> bool:
        if replace(page.arrival, usable=arrival.usable, precision=arrival.precision) == arrival:
            return self._is_same(page)
        if page.arrival < arrival:
            return True
        if page.arrival.pushed and arrival.pushed:
            return False
        if page.failure:  # the same failure in other words
            return (self.state, self.error_code) == (page.failure, page.error_code)
        return self._is_same(page)

    def _is_same(self, page: DeliveredPage) -> bool:
        if page.failure:
            return (self.state, self.error_code, self.error) == (page.failure, page.error_code, page.error)
        usable = self.arrival is not None and self.arrival.usable
        described = (True, page.url, page.title, page.language, bool(page.html))
        is_html = bool(self.delivered.html) if self.delivered else self.is_html
        if (usable, self.url, self.title, self.language, is_html) != described:
            return False
        if self.delivered:
            return self.delivered.content == page.content
        return self.content_hash == sha256(page.content.encode()).digest()


def markdown_of(row: Mapping[Any, Any]) -> str | None:
    """None for a page whose content is not kept, or cannot be read any more."""
    markdown: str | None = row["markdown"]
    if markdown or row["begins"] is None:  # the version of 0025 replaces a text, and leaves the place of it
        return markdown
    try:
        in_body: str = from_json(decompress(row["body"] or b"")[row["begins"] : row["ends"]])
    except DamagedBody:
        return None
    return in_body
