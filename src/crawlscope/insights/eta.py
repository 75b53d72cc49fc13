"""When a running crawl will be searchable, as a range: a pure rule over the times of its last pages."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from math import sqrt

from crawlscope.insights.schemas import Eta

MAX_PAGES = 256
"""The number of last settled pages that give the pace."""
MIN_PAGES = 12
MIN_SECONDS = 2.0
"""Fewer pages, or less time, show no pace."""
WINDOWS = 8
"""The time of these pages in equal parts: how much their numbers differ is how much the pace varies."""
MAX_GAPS = 8.0
"""Usual times between two pages without a page, after which the pace is not known any more."""
MIN_GAP_SECONDS = 2.0
MIN_WINDOWS = 0.25
"""Less time to come is not predicted better."""
DEVIATIONS = 1.5
DRIFT = 1.2
"""The pace may become slower or faster by this factor."""
LAST_PAGE_SECONDS = 15.0
"""The last pages do not follow the pace: a page that times out at its crawler takes half a minute."""
MAX_LEFT_SHARE = 0.5
"""A share of the pages found. If more are left, the end of a crawler that may find further ones cannot be
estimated yet."""
MAX_GROWTH = 2.0
"""Such a crawler may find so many more pages for each that is left."""


@dataclass(frozen=True)
class Remaining:
    """The evidence."""

    now: datetime
    settled_at: Sequence[datetime]
    """The times of the pages that settled last, at most `MAX_PAGES`, in any order."""
    left: int
    """Known pages that are not settled."""
    found: int
    """All known pages."""
    limit: int | None
    """The largest number of pages of the crawl. None: not known, so that it may always grow."""
    grows: bool
    """Whether the crawler may find more pages."""

    @property
    def most_left(self) -> int | None:
        """With pages that the crawler may still find; None if it is too early to say."""
        if not self.grows:
            return self.left
        if self.left > MAX_LEFT_SHARE * self.found:
            return None
        growth = round(MAX_GROWTH * self.left)
        return self.left + (growth if self.limit is None else min(growth, self.limit - self.found))


@dataclass(frozen=True)
class Pace:
    """How fast pages settled, and how much that varied."""

    page_seconds: float
    window_pages: float
    variance: float
    """The variance of the windows' numbers of pages."""

    @classmethod
    def of(cls, settled_at: Sequence[datetime], now: datetime) -> "Pace | None":
        """None where the evidence is thin."""
        if len(settled_at) < MIN_PAGES:
            return None
        ages = sorted((now - each).total_seconds() for each in settled_at)
        page_seconds = ages[-1] / (len(ages) - 1)
        if ages[-1] < MIN_SECONDS or ages[0] > max(MAX_GAPS * page_seconds, MIN_GAP_SECONDS):
            return None
        counts = Counter(min(int(age / ages[-1] * WINDOWS), WINDOWS - 1) for age in ages[:-1])
        mean = (len(ages) - 1) / WINDOWS
        squares = sum((counts[window] - mean) ** 2 for window in range(WINDOWS))
        return cls(page_seconds, mean, max(mean, squares / (WINDOWS - 1)))

    def margin(self, pages: int) -> float:
        """The factor by which the time of so many pages may be longer or shorter.

        The windows so far make the pace uncertain, and the windows to come make the rest uncertain.
        """
        to_come = max(pages / self.window_pages, MIN_WINDOWS)
        uncertainty = sqrt(self.variance) / self.window_pages * sqrt(1 / WINDOWS + 1 / to_come)
        return DRIFT * (1 + DEVIATIONS * uncertainty)


def estimate(remaining: Remaining) -> Eta | None:
    """None where the evidence is thin.

    The true end lies within the range in at least 80 of 100 answers, see `tests/insights/test_eta.py`.
    """
    now, left, most_left = remaining.now, remaining.left, remaining.most_left
    pace = Pace.of(remaining.settled_at, now)
    if pace is None or most_left is None or left <= 0:
        return None
    seconds, most_seconds = left * pace.page_seconds, most_left * pace.page_seconds * pace.margin(most_left)
    return Eta(
        at=now + timedelta(seconds=seconds),
        earliest=now + timedelta(seconds=seconds / pace.margin(left)),
        latest=now + timedelta(seconds=most_seconds + LAST_PAGE_SECONDS),
        pages_left=left,
    )
