"""The progress of a crawl: counts and rate."""

from collections import deque
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from crawlscope.core.vocabulary import Completeness, CrawlStatus, VerdictName
from crawlscope.insights.schemas import CrawlMetricsResponse, CrawlState, Eta

MIN_POLL_INTERVAL_SECONDS = 0.3
MAX_POLL_INTERVAL_SECONDS = 3.0
POLL_FACTOR = 10
"""The interval is this many times the duration of an answer, because answers on large crawls are costly."""
LATE_PAGES = timedelta(seconds=2)
"""Time after the last event in which further pages of an ended crawl may arrive."""
WINDOW_SECONDS = 15.0
MIN_WINDOW_SECONDS = 1.0
"""A rate over less time is not meaningful."""
_HELD_UP = (VerdictName.STARVED, VerdictName.STALLED)


@dataclass(frozen=True)
class Progress:
    """The counts of a crawl that is followed."""

    expected: int
    """Pages found so far; a running crawl may find more."""
    received: int
    indexed: int
    failed: int
    settled: int
    is_known: bool = True
    """False while the number of pages is not known."""
    awaits: str | None = None
    """The step that the crawl waits for, if the counts do not show it."""
    eta: Eta | None = None

    @property
    def left(self) -> int:
        """Known pages that are not settled; 0 while the number of pages is not known."""
        return self.expected - self.settled if self.is_known else 0

    @classmethod
    def of(cls, crawl: CrawlState) -> "Progress":
        received = crawl.total_pages + crawl.pages_pending + crawl.pages_cancelled
        goes_on = crawl.status is CrawlStatus.IN_PROGRESS
        found = (crawl.pages_expected or crawl.found) if goes_on else None
        awaits, verdict = None if crawl.pages_pending else crawl.awaits, crawl.verdict
        if crawl.pages_pending and verdict and verdict.verdict in _HELD_UP:
            awaits = f"{crawl.awaits}: {verdict.reason}"
        return cls(
            expected=max(found or 0, received),
            received=received,
            indexed=crawl.pages_indexed,
            failed=crawl.pages_failed,
            settled=crawl.total_pages + crawl.pages_cancelled,
            is_known=found is not None or not goes_on,
            awaits=awaits,
            eta=crawl.eta,
        )


class Pace:
    """The rate of the last seconds, not since the start."""

    def __init__(self) -> None:
        self._seen: deque[tuple[float, int]] = deque()

    def note(self, at_seconds: float, settled: int) -> None:
        self._seen.append((at_seconds, settled))
        while len(self._seen) > 2 and at_seconds - self._seen[1][0] >= WINDOW_SECONDS:
            self._seen.popleft()

    @property
    def pages_per_second(self) -> float | None:
        """None until there are enough measurements."""
        if len(self._seen) < 2:
            return None
        (began, before), (now, after) = self._seen[0], self._seen[-1]
        if now - began < MIN_WINDOW_SECONDS:
            return None
        return max(0.0, (after - before) / (now - began))


def pages_per_second(crawl: CrawlMetricsResponse) -> float | None:
    """Over the whole crawl, until its last page was searchable; None if nothing of it is."""
    taken = crawl.time_to_searchable_ms
    return crawl.total_pages * 1000 / taken if taken and crawl.pages_indexed else None


def poll_interval(answer_seconds: float) -> float:
    """Seconds until the next request, if the last answer took `answer_seconds`."""
    return min(max(MIN_POLL_INTERVAL_SECONDS, POLL_FACTOR * answer_seconds), MAX_POLL_INTERVAL_SECONDS)


def is_settled(crawl: CrawlState) -> bool:
    """Whether waiting brings nothing more.

    Firecrawl may report the end before its last pages. A crawl that is not compared with Firecrawl is
    therefore settled only after a moment without events.
    """
    silence = datetime.now(UTC) - crawl.last_fact_at
    expects_pages = crawl.completeness is Completeness.AS_DELIVERED and silence < LATE_PAGES
    return crawl.awaits is None and not expects_pages
