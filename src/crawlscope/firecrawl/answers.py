"""What Firecrawl's API answers, in Crawlscope's words."""

from datetime import datetime
from enum import StrEnum
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, AliasChoices, BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

from crawlscope.sessions.fold import credible


class JobKind(StrEnum):
    """As in the event types of deliveries, before the dot."""

    CRAWL = "crawl"
    BATCH_SCRAPE = "batch_scrape"

    @property
    def path(self) -> str:
        return self.value.replace("_", "/")


Moment = Annotated[datetime, AfterValidator(credible)] | None


class _Answer(BaseModel):
    model_config = ConfigDict(frozen=True, alias_generator=to_camel, validate_by_name=True)


class JobStatus(_Answer):
    """How far a crawl or batch is. Older servers and v1 give no `created_at` and `completed_at`."""

    status: Literal["scraping", "completed", "failed", "cancelled"]
    total: int
    """Shrinks as pages fail."""
    completed: int
    """Pages that brought a document."""
    created_at: Moment = None
    completed_at: Moment = None
    expires_at: Moment = None
    """When Firecrawl forgets the results: 24 hours after the start, by default."""
    error: str | None = None
    warning: str | None = None

    @property
    def ended(self) -> bool:
        return self.status != "scraping"


class StatusPage(JobStatus):
    """One page of results: the status, some documents, and where the next ones are."""

    data: list[Any] = []
    next: str | None = None

    @property
    def documents(self) -> list[dict[str, Any]]:
        return [document for document in self.data if isinstance(document, dict)]


class PageFailure(_Answer):
    url: str | None = None
    code: str | None = None
    """Such as `SCRAPE_TIMEOUT`; some failures have none."""
    error: str = ""
    at: Moment = Field(None, validation_alias=AliasChoices("timestamp", "at"))


class JobErrors(_Answer):
    """Pages that brought no document. After a cancel also the dropped ones, which are no failures."""

    errors: list[PageFailure]
    robots_blocked: list[str] = []
    """URLs that robots.txt forbids."""


class ActiveCrawls(_Answer):
    crawls: list[Any]


class CrawlStarted(_Answer):
    id: str = Field(pattern=r"^[A-Za-z0-9_-]{1,255}$")


class BatchStarted(CrawlStarted):
    invalid_urls: list[str] = Field([], validation_alias=AliasChoices("invalidURLs", "invalid_urls"))
    """What Firecrawl does not take for a URL, and leaves out."""
