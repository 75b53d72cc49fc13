"""The answers of Firecrawl's API."""

from collections.abc import Callable, Mapping
from datetime import datetime
from enum import StrEnum
from typing import Annotated, Any, Literal, TypeVar, get_args

from pydantic import (
    AfterValidator,
    AliasChoices,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    WrapValidator,
)
from pydantic.alias_generators import to_camel

from crawlscope.sessions.fold import credible


class JobKind(StrEnum):
    """As in the event types of deliveries, before the dot."""

    CRAWL = "crawl"
    BATCH_SCRAPE = "batch_scrape"

    @property
    def path(self) -> str:
        return self.value.replace("_", "/")


MAX_COUNT = 2**31 - 1


def _none_if_unreadable(given: Any, read: Callable[[Any], Any]) -> Any:
    """An optional field must not keep an answer from being read."""
    try:
        return read(given)
    except ValidationError:
        return None


Moment = Annotated[Annotated[datetime, AfterValidator(credible)] | None, WrapValidator(_none_if_unreadable)]

Item = TypeVar("Item")
Listed = Annotated[list[Item], BeforeValidator(lambda given: [] if given is None else given)]
"""Some servers write null for an empty list."""
Text = Annotated[str | None, WrapValidator(_none_if_unreadable)]
Strings = Annotated[
    Listed[str],
    BeforeValidator(
        lambda given: [each for each in given if isinstance(each, str)] if isinstance(given, list) else given
    ),
]
Count = Annotated[
    int,
    BeforeValidator(lambda given: 0 if given is None else given),
    AfterValidator(lambda given: min(max(given, 0), MAX_COUNT)),
]

JobState = Literal["scraping", "completed", "failed", "cancelled"]


def tells_of_job(answer: Mapping[str, Any]) -> bool:
    return answer.get("status") in get_args(JobState)


class _Answer(BaseModel):
    model_config = ConfigDict(frozen=True, alias_generator=to_camel, validate_by_name=True)


class JobStatus(_Answer):
    """The progress of a crawl or batch. Older servers and v1 give no `created_at` and `completed_at`."""

    status: JobState
    total: Count = 0
    """Shrinks as pages fail."""
    completed: Count = 0
    """Pages that brought a document."""
    created_at: Moment = None
    completed_at: Moment = None
    expires_at: Moment = None
    """When Firecrawl forgets the results: 24 hours after the start, by default."""
    error: Any = None
    """Words, or an object with words in it; see `pages.causes.error_words`."""

    @property
    def ended(self) -> bool:
        return self.status != "scraping"


class StatusPage(JobStatus):
    """One page of results: the status, some documents, and the URL of the next page."""

    data: Listed[Any] = []
    next: str | None = None

    @property
    def documents(self) -> list[dict[str, Any]]:
        return [document for document in self.data if isinstance(document, dict)]


class PageFailure(_Answer):
    url: str | None = None
    code: Text = None
    """Such as `SCRAPE_TIMEOUT`; some failures have none."""
    error: Any = None
    """Words, or an object with its own code; see `pages.causes.cause_of`."""
    at: Moment = Field(None, validation_alias=AliasChoices("timestamp", "at"))


class JobErrors(_Answer):
    """Pages without a document. After a cancel that includes dropped ones, which are no failures."""

    errors: Listed[PageFailure]
    robots_blocked: Strings = []
    """URLs that robots.txt forbids."""


class ActiveCrawls(_Answer):
    crawls: list[Any]


class CrawlStarted(_Answer):
    id: str = Field(pattern=r"^[A-Za-z0-9_-]{1,255}$")


class BatchStarted(CrawlStarted):
    invalid_urls: Listed[str] = Field([], validation_alias=AliasChoices("invalidURLs", "invalid_urls"))
    """URLs that Firecrawl regards as invalid, and leaves out."""
