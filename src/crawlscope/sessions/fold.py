"""Computes the life of a crawl from its facts, which may arrive in any order.

Each fact is merged into a `Lifecycle` by minimum, maximum, union or precedence, so merging commutes and a
fact merged twice changes nothing. The column `fold` stores the `Lifecycle`; `summarize` computes from it the
columns that are shown.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from typing import Any, Self

from crawlscope.core.vocabulary import CrawlStatus

PRECEDENCE = (CrawlStatus.CANCELLED, CrawlStatus.FAILED, CrawlStatus.COMPLETED)
"""If several ends are known, the first of these is the crawl's."""
UNKNOWN_URL = "unknown"
BEGINNINGS = frozenset({"request", "started"})
"""Values of `CrawlSeen.what` that say when a crawl was started."""
EARLIEST, LATEST = datetime(1970, 1, 1, tzinfo=UTC), datetime(9000, 1, 1, tzinfo=UTC)
"""No time outside of these is credible."""


@dataclass(frozen=True)
class CrawlSeen:
    """A sign of the crawl: an event, a request to start it, an operation."""

    at: datetime
    metadata: Mapping[str, Any] = field(default_factory=dict)
    """The metadata of the crawl's initiator, which every event repeats."""
    what: str = ""
    """The event's part after the dot, `request` or `operation`."""


@dataclass(frozen=True)
class PageSeen:
    at: datetime
    url: str
    fetched: bool = False
    """Whether it was fetched from Firecrawl's API: then `at` is not the time at which it was scraped."""


@dataclass(frozen=True)
class Ended:
    at: datetime
    status: CrawlStatus
    error: str | None = None
    late: bool = False
    """Whether the crawler announces an end long after it."""


@dataclass(frozen=True)
class StatusAnswer:
    """An answer of the crawler's status API; its times are by the crawler's own clock."""

    at: datetime
    """When the API was asked."""
    ended: CrawlStatus | None = None
    """None while the crawl is in progress."""
    created_at: datetime | None = None
    completed_at: datetime | None = None
    error: str | None = None
    failed_at: datetime | None = None
    """When the last page failed; `completed_at` does not cover failed pages."""
    running_at: datetime | None = None
    """When the API was last asked while the crawl was in progress."""


Fact = CrawlSeen | PageSeen | Ended | StatusAnswer


@dataclass(frozen=True)
class AnsweredEnd:
    """An end as the status API reports it."""

    asked_at: datetime
    """When the API first reported it."""
    completed_at: datetime | None
    error: str
    running_at: datetime | None = None
    """When the crawl was last known to be in progress."""

    @classmethod
    def from_json(
        cls, asked_at: str, completed_at: str | None, error: str, running_at: str | None = None
    ) -> Self:
        moment = datetime.fromisoformat(asked_at)
        return cls(moment, credible_moment(completed_at), error, credible_moment(running_at))


@dataclass(frozen=True)
class Lifecycle:
    """The facts of a crawl, merged."""

    first_fact_at: datetime
    last_fact_at: datetime
    seen: frozenset[str] = frozenset()
    metadata: Mapping[str, tuple[datetime, Any]] = field(default_factory=dict)
    """Per key the value that arrived first, and when."""
    first_page: tuple[datetime, str] | None = None
    ends: Mapping[CrawlStatus, tuple[datetime, str]] = field(default_factory=dict)
    """Per kind of end when it was announced last, and its error text (empty for none)."""
    prompt_end_at: datetime | None = None
    """When a crawler that announces its end at once did so last."""
    last_page_at: datetime | None = None
    """When a page was delivered last."""
    failed_at: datetime | None = None
    """When the last page failed, by the errors API."""
    created_at: datetime | None = None
    """By the status API."""
    answers: Mapping[CrawlStatus, AnsweredEnd] = field(default_factory=dict)

    @classmethod
    def from_json(cls, stored: Mapping[str, Any], last_fact_at: datetime) -> Self | None:
        """None where nothing is stored: no fact was merged yet."""
        if not stored:
            return None
        page = stored.get("first_page")
        return cls(
            first_fact_at=datetime.fromisoformat(stored["first_fact_at"]),
            last_fact_at=last_fact_at,
            seen=frozenset(stored.get("heard", ())),
            metadata={
                key: (datetime.fromisoformat(at), value)
                for key, (at, value) in stored.get("metadata", {}).items()
            },
            first_page=(datetime.fromisoformat(page[0]), page[1]) if page else None,
            ends={
                CrawlStatus(status): (datetime.fromisoformat(at), error)
                for status, (at, error) in stored.get("ends", {}).items()
            },
            created_at=credible_moment(stored.get("created_at")),
            answers={
                CrawlStatus(status): AnsweredEnd.from_json(*end)
                for status, end in stored.get("told", {}).items()
            },
            prompt_end_at=credible_moment(stored.get("prompt_end_at")),
            last_page_at=credible_moment(stored.get("last_page_at")),
            failed_at=credible_moment(stored.get("failed_at")),
        )

    @property
    def has_ended(self) -> bool:
        """Whether an end is known: from then on, the time of the last page may change what is shown."""
        return bool(self.ends or self.answers)

    def to_json(self) -> dict[str, Any]:
        """Without values at their default: most crawls need few of these, and each delivery writes them."""
        stored = {
            "first_fact_at": self.first_fact_at.isoformat(),
            "heard": sorted(self.seen),
            "metadata": {key: [at.isoformat(), value] for key, (at, value) in self.metadata.items()},
            "first_page": self.first_page and [self.first_page[0].isoformat(), self.first_page[1]],
            "ends": {status: [at.isoformat(), error] for status, (at, error) in self.ends.items()},
            "created_at": _text(self.created_at),
            "told": {
                status: [end.asked_at.isoformat(), _text(end.completed_at), end.error, _text(end.running_at)]
                for status, end in self.answers.items()
            },
            "prompt_end_at": _text(self.prompt_end_at),
            "last_page_at": _text(self.last_page_at),
            "failed_at": _text(self.failed_at),
        }
        return {name: value for name, value in stored.items() if value}


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
    lacks: list[str]
    """The facts that are missing, of `started`, `initiated_at`, `url`, `pages` and `end`."""


def session_columns(lifecycle: Lifecycle) -> dict[str, Any]:
    """The columns of `crawl_sessions` that follow from the facts."""
    return {
        **asdict(summarize(lifecycle)),
        "last_fact_at": lifecycle.last_fact_at,
        "fold": lifecycle.to_json(),
    }


def fold(lifecycle: Lifecycle | None, facts: Iterable[Fact]) -> Lifecycle | None:
    """None if there are neither a lifecycle nor facts."""
    for fact in facts:
        lifecycle = merge(lifecycle, fact)
    return lifecycle


def merge(lifecycle: Lifecycle | None, fact: Fact) -> Lifecycle:
    """Merging commutes and is idempotent."""
    lifecycle = lifecycle or Lifecycle(first_fact_at=fact.at, last_fact_at=fact.at)
    lifecycle = replace(
        lifecycle,
        first_fact_at=min(lifecycle.first_fact_at, fact.at),
        last_fact_at=max(lifecycle.last_fact_at, fact.at),
    )
    match fact:
        case CrawlSeen(at, metadata, what):
            merged = dict(lifecycle.metadata)
            for key, value in metadata.items():
                rivals = [merged.get(key, (at, value)), (at, value)]
                merged[key] = min(rivals, key=lambda rival: (rival[0], json.dumps(rival[1], sort_keys=True)))
            return replace(lifecycle, seen=lifecycle.seen | ({what} if what else set()), metadata=merged)
        case PageSeen(at, url, fetched):
            return replace(
                lifecycle,
                first_page=min(lifecycle.first_page or (at, url), (at, url)),
                last_page_at=_latest(lifecycle.last_page_at, None if fetched else at),
            )
        case Ended(at, status, error, late):
            end = max(lifecycle.ends.get(status, (at, "")), (at, error or ""))
            return replace(
                lifecycle,
                ends={**lifecycle.ends, status: end},
                prompt_end_at=_latest(lifecycle.prompt_end_at, None if late else at),
            )
        case StatusAnswer():
            return _merge_answer(lifecycle, fact)


def summarize(lifecycle: Lifecycle) -> Summary:
    ends = lifecycle.ends.keys() | lifecycle.answers.keys()
    status = next((each for each in PRECEDENCE if each in ends), CrawlStatus.IN_PROGRESS)
    _, announced_error = lifecycle.ends.get(status, (None, ""))
    answer = lifecycle.answers.get(status)
    metadata = {key: value for key, (_, value) in lifecycle.metadata.items()}
    initiated_at = credible_moment(metadata.get("initiated_at"))
    started_at = lifecycle.created_at or lifecycle.first_fact_at
    completed_at = _completed_at(lifecycle, status)
    return Summary(
        crawl_url=_crawl_url(metadata, lifecycle.first_page),
        status=status,
        success=None if completed_at is None else status is CrawlStatus.COMPLETED,
        started_at=started_at,
        completed_at=completed_at,
        duration_ms=milliseconds_between(started_at, completed_at),
        initiated_at=initiated_at,
        e2e_duration_ms=milliseconds_between(initiated_at, completed_at),
        error_message=announced_error or (answer.error if answer else "") or None,
        extra_metadata=metadata or None,
        lacks=_lacks(lifecycle, metadata, initiated_at, completed_at),
    )


def parse_moment(value: object) -> datetime | None:
    """ISO 8601, in UTC, which is also the default zone; None for anything else."""
    if not isinstance(value, str):
        return None
    try:
        moment = datetime.fromisoformat(value.strip())
        return moment.astimezone(UTC) if moment.tzinfo else moment.replace(tzinfo=UTC)
    except (ValueError, OverflowError):
        return None


def credible_moment(value: object) -> datetime | None:
    """The time in `value`, as other programs write it; None if it is no time, or not credible."""
    moment = parse_moment(value)
    return credible(moment) if moment else None


def credible(moment: datetime) -> datetime | None:
    """In UTC; None for values that mean "no time" in other programs, and infinity in PostgreSQL."""
    aware = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return aware.astimezone(UTC) if EARLIEST <= aware < LATEST else None


def milliseconds_between(begin: datetime | None, end: datetime | None) -> float | None:
    if begin is None or end is None:
        return None
    return max(0.0, (end - begin).total_seconds() * 1000)


def _merge_answer(lifecycle: Lifecycle, fact: StatusAnswer) -> Lifecycle:
    created = [each for each in (lifecycle.created_at, fact.created_at) if each]
    lifecycle = replace(
        lifecycle,
        created_at=min(created, default=None),
        failed_at=_latest(lifecycle.failed_at, fact.failed_at),
    )
    if fact.ended is None:
        return lifecycle
    known = lifecycle.answers.get(fact.ended)
    end = AnsweredEnd(
        asked_at=min(known.asked_at, fact.at) if known else fact.at,
        completed_at=_latest(known.completed_at if known else None, fact.completed_at),
        error=max(known.error if known else "", fact.error or ""),
        running_at=_latest(known.running_at if known else None, fact.running_at),
    )
    return replace(lifecycle, answers={**lifecycle.answers, fact.ended: end})


def _completed_at(lifecycle: Lifecycle, status: CrawlStatus) -> datetime | None:
    """By the crawler's own clock if that is known, else the time at which the end was announced.

    The crawler's own time of the end passes over pages that failed, which can be later.
    """
    if status is CrawlStatus.IN_PROGRESS:
        return None
    answer = lifecycle.answers.get(status)
    own_ends = [answer] if answer and answer.completed_at else lifecycle.answers.values()
    own_end = _latest(*[end.completed_at for end in own_ends])
    return _latest(own_end or _announced_end(lifecycle), lifecycle.failed_at)


def _announced_end(lifecycle: Lifecycle) -> datetime | None:
    """An end that was announced at once is exact. One that was announced late, or found out by asking, came
    after the last page and after the crawl was last known to be in progress.
    """
    found_out_at = _earliest_of(*[end.asked_at for end in lifecycle.answers.values()])
    if lifecycle.prompt_end_at:
        return _earliest_of(lifecycle.prompt_end_at, found_out_at)
    announced_at = _latest(*[at for at, _ in lifecycle.ends.values()])
    running_at = [end.running_at for end in lifecycle.answers.values()]
    went_on_at = _latest(lifecycle.last_page_at, lifecycle.failed_at, *running_at)
    return _earliest_of(went_on_at, announced_at, found_out_at)


def _latest(*moments: datetime | None) -> datetime | None:
    return max((at for at in moments if at), default=None)


def _earliest_of(*moments: datetime | None) -> datetime | None:
    return min((at for at in moments if at), default=None)


def _lacks(
    lifecycle: Lifecycle,
    metadata: Mapping[str, Any],
    initiated_at: datetime | None,
    completed_at: datetime | None,
) -> list[str]:
    known = {
        "started": bool(lifecycle.seen & BEGINNINGS) or lifecycle.created_at is not None,
        "initiated_at": initiated_at is not None,
        "url": _crawl_url(metadata, lifecycle.first_page) != UNKNOWN_URL,
        "pages": lifecycle.first_page is not None,
        "end": completed_at is not None,
    }
    return [name for name, is_known in known.items() if not is_known]


def _crawl_url(metadata: Mapping[str, Any], first_page: tuple[datetime, str] | None) -> str:
    url = metadata.get("url")
    if isinstance(url, str) and url:
        return url
    return first_page[1] if first_page else UNKNOWN_URL


def _text(moment: datetime | None) -> str | None:
    return moment.isoformat() if moment else None
