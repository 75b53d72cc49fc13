"""What a crawl is follows from the set of facts known about it, in whatever order they came.

Each fact is merged into a `Lifecycle` by minimum, maximum or precedence, so merging commutes and a fact
merged twice changes nothing. `Lifecycle` is what is remembered (the column `fold`); `summarize` computes
from it what is shown.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any, Self

from crawlscope.vocabulary import CrawlStatus

PRECEDENCE = (CrawlStatus.CANCELLED, CrawlStatus.FAILED, CrawlStatus.COMPLETED)
"""Of several ends that are known, the first of these is the crawl's."""
UNKNOWN_URL = "unknown"


@dataclass(frozen=True)
class Heard:
    """Something was heard of the crawl: a delivery, an operation, a request to start it."""

    at: datetime
    metadata: Mapping[str, Any] = field(default_factory=dict)
    """The initiator's own, as every event echoes it."""


@dataclass(frozen=True)
class PageSeen:
    at: datetime
    url: str


@dataclass(frozen=True)
class Ended:
    at: datetime
    status: CrawlStatus
    error: str | None = None


Fact = Heard | PageSeen | Ended


@dataclass(frozen=True)
class Lifecycle:
    """All that is remembered of the facts."""

    started_at: datetime
    last_fact_at: datetime
    metadata: Mapping[str, tuple[datetime, Any]] = field(default_factory=dict)
    """Per key the value that was heard first, and when."""
    first_page: tuple[datetime, str] | None = None
    ends: Mapping[CrawlStatus, tuple[datetime, str]] = field(default_factory=dict)
    """Per kind of end the last time it was told, and its error text (empty for none)."""

    @classmethod
    def from_json(cls, started_at: datetime, last_fact_at: datetime, stored: Mapping[str, Any]) -> Self:
        page = stored.get("first_page")
        return cls(
            started_at=started_at,
            last_fact_at=last_fact_at,
            metadata={key: (_moment(at), value) for key, (at, value) in stored.get("metadata", {}).items()},
            first_page=(_moment(page[0]), page[1]) if page else None,
            ends={
                CrawlStatus(status): (_moment(at), error)
                for status, (at, error) in stored.get("ends", {}).items()
            },
        )

    def to_json(self) -> dict[str, Any]:
        return {
            "metadata": {key: [at.isoformat(), value] for key, (at, value) in self.metadata.items()},
            "first_page": [self.first_page[0].isoformat(), self.first_page[1]] if self.first_page else None,
            "ends": {status: [at.isoformat(), error] for status, (at, error) in self.ends.items()},
        }


@dataclass(frozen=True)
class Summary:
    """The lifecycle as it is shown. Durations are milliseconds and never negative."""

    crawl_url: str
    status: CrawlStatus
    success: bool | None
    started_at: datetime
    completed_at: datetime | None
    duration_ms: float | None
    initiated_at: datetime | None
    e2e_duration_ms: float | None
    error_message: str | None
    extra_metadata: dict[str, Any] | None


def fold(lifecycle: Lifecycle, facts: Iterable[Fact]) -> Lifecycle:
    for fact in facts:
        lifecycle = merge(lifecycle, fact)
    return lifecycle


def merge(lifecycle: Lifecycle, fact: Fact) -> Lifecycle:
    """Merging commutes and is idempotent."""
    lifecycle = replace(
        lifecycle,
        started_at=min(lifecycle.started_at, fact.at),
        last_fact_at=max(lifecycle.last_fact_at, fact.at),
    )
    match fact:
        case Heard(at, metadata):
            return replace(lifecycle, metadata=_earliest(lifecycle.metadata, at, metadata))
        case PageSeen(at, url):
            return replace(lifecycle, first_page=min(lifecycle.first_page or (at, url), (at, url)))
        case Ended(at, status, error):
            end = max(lifecycle.ends.get(status, (at, "")), (at, error or ""))
            return replace(lifecycle, ends={**lifecycle.ends, status: end})


def summarize(lifecycle: Lifecycle) -> Summary:
    status = next((each for each in PRECEDENCE if each in lifecycle.ends), CrawlStatus.IN_PROGRESS)
    completed_at, error = lifecycle.ends.get(status, (None, ""))
    metadata = {key: value for key, (_, value) in lifecycle.metadata.items()}
    initiated_at = parse_moment(metadata.get("initiated_at"))
    return Summary(
        crawl_url=_crawl_url(metadata, lifecycle.first_page),
        status=status,
        success=None if completed_at is None else status is CrawlStatus.COMPLETED,
        started_at=lifecycle.started_at,
        completed_at=completed_at,
        duration_ms=milliseconds_between(lifecycle.started_at, completed_at),
        initiated_at=initiated_at,
        e2e_duration_ms=milliseconds_between(initiated_at, completed_at),
        error_message=error or None,
        extra_metadata=metadata or None,
    )


def parse_moment(value: object) -> datetime | None:
    """ISO 8601 as an initiator writes it, UTC where it names no zone; None for anything else."""
    if not isinstance(value, str):
        return None
    try:
        moment = datetime.fromisoformat(value.strip())
        return moment.astimezone(UTC) if moment.tzinfo else moment.replace(tzinfo=UTC)
    except (ValueError, OverflowError):
        return None


def milliseconds_between(begin: datetime | None, end: datetime | None) -> float | None:
    if begin is None or end is None:
        return None
    return max(0.0, (end - begin).total_seconds() * 1000)


def _earliest(
    known: Mapping[str, tuple[datetime, Any]], at: datetime, metadata: Mapping[str, Any]
) -> Mapping[str, tuple[datetime, Any]]:
    merged = dict(known)
    for key, value in metadata.items():
        rivals = [each for each in (merged.get(key), (at, value)) if each is not None]
        merged[key] = min(rivals, key=lambda rival: (rival[0], repr(rival[1])))
    return merged


def _crawl_url(metadata: Mapping[str, Any], first_page: tuple[datetime, str] | None) -> str:
    url = metadata.get("url")
    if isinstance(url, str) and url:
        return url
    return first_page[1] if first_page else UNKNOWN_URL


def _moment(text: str) -> datetime:
    return datetime.fromisoformat(text)
