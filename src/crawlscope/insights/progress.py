"""How fast a crawl's pages become searchable, and when it will be done."""

from collections import deque
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from crawlscope.core.vocabulary import Completeness, CrawlStatus, VerdictName
from crawlscope.insights.schemas import CrawlMetricsResponse

POLL_SECONDS = 0.3
MAX_POLL_SECONDS = 3.0
POLL_SHARE = 10
"""Polling may take one part in so many of the service's time: answers of large crawls cost something."""
STRAGGLERS = timedelta(seconds=2)
WINDOW_SECONDS = 15.0
SHORTEST_SECONDS = 1.0
"""A rate over less time than this says nothing."""
_HELD_UP = (VerdictName.STARVED, VerdictName.STALLED)


@dataclass(frozen=True)
class Progress:
    """A crawl's counts as they are followed."""

    expected: int
    """Pages known so far; a running crawl may find more."""
    received: int
    indexed: int
    failed: int
    settled: int
    is_known: bool = True
    """False while only the crawler knows how many pages there are, and has not said."""
    awaits: str | None = None
    """What is waited for, beside what the numbers say."""

    @classmethod
    def of(cls, crawl: CrawlMetricsResponse) -> "Progress":
        received = crawl.total_pages + crawl.pages_pending + crawl.pages_cancelled
        goes_on = crawl.status is CrawlStatus.IN_PROGRESS
        told = (crawl.pages_expected or crawl.found) if goes_on else None
        return cls(
            expected=max(told or 0, received),
            received=received,
            indexed=crawl.pages_indexed,
            failed=crawl.pages_failed,
            settled=crawl.total_pages + crawl.pages_cancelled,
            is_known=told is not None or not goes_on,
            awaits=_awaited(crawl),
        )


def _awaited(crawl: CrawlMetricsResponse) -> str | None:
    """With the reason where things do not go on by themselves."""
    verdict = crawl.verdict
    if verdict and verdict.verdict in _HELD_UP:
        return f"{crawl.awaits}: {verdict.reason}" if crawl.pages_pending else crawl.awaits
    return None if crawl.pages_pending else crawl.awaits


class Pace:
    """The rate of the last seconds, not since the start: it follows what happens now."""

    def __init__(self) -> None:
        self._seen: deque[tuple[float, int]] = deque()

    def note(self, at_seconds: float, settled: int) -> None:
        self._seen.append((at_seconds, settled))
        while len(self._seen) > 2 and self._is_old(at_seconds):
            self._seen.popleft()

    def _is_old(self, now: float) -> bool:
        return now - self._seen[1][0] >= WINDOW_SECONDS

    @property
    def pages_per_second(self) -> float | None:
        """None until enough is known."""
        if len(self._seen) < 2:
            return None
        (began, before), (now, after) = self._seen[0], self._seen[-1]
        if now - began < SHORTEST_SECONDS:
            return None
        return max(0.0, (after - before) / (now - began))

    def seconds_left(self, progress: Progress) -> float | None:
        """Until what is known is settled; None where that says nothing of how long it takes."""
        rate, left = self.pages_per_second, progress.expected - progress.settled
        return left / rate if rate and left and progress.is_known else None


def poll_interval(answer_seconds: float) -> float:
    """Seconds to wait before the crawl is asked for again, when the last answer took so long."""
    return min(max(POLL_SECONDS, POLL_SHARE * answer_seconds), MAX_POLL_SECONDS)


def is_settled(crawl: CrawlMetricsResponse) -> bool:
    """Nothing more is waited for; where that was not compared, for a moment: Firecrawl does not wait for its
    pages before it says completed."""
    silence = datetime.now(UTC) - crawl.last_fact_at
    straggling = crawl.completeness is Completeness.AS_DELIVERED and silence < STRAGGLERS
    return crawl.awaits is None and not straggling
