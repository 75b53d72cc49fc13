"""How fast a crawl's pages become searchable, and when it will be done."""

from collections import deque
from dataclasses import dataclass

from crawlscope.observe.responses import CrawlMetricsResponse
from crawlscope.vocabulary import CrawlStatus

WINDOW_SECONDS = 15.0
SHORTEST_SECONDS = 1.0
"""A rate over less time than this says nothing."""


@dataclass(frozen=True)
class Progress:
    """A crawl's counts as they are followed."""

    expected: int
    """Pages known so far; a running crawl may find more."""
    received: int
    indexed: int
    failed: int
    settled: int

    @classmethod
    def of(cls, crawl: CrawlMetricsResponse) -> "Progress":
        received = crawl.total_pages + crawl.pages_pending + crawl.pages_cancelled
        found = crawl.found or 0 if crawl.status is CrawlStatus.IN_PROGRESS else 0
        return cls(
            expected=max(found, received),
            received=received,
            indexed=crawl.pages_indexed,
            failed=crawl.pages_failed,
            settled=crawl.total_pages + crawl.pages_cancelled,
        )


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
        """Until what is known is settled."""
        rate = self.pages_per_second
        return (progress.expected - progress.settled) / rate if rate else None
