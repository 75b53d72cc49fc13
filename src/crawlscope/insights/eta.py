"""When a running crawl will be searchable, as a range: a pure rule over the times of its last pages."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from math import sqrt

from crawlscope.insights.schemas import Eta

MAX_PAGES = 256
"""The pace is that of so many pages that settled last."""
MIN_PAGES = 12
MIN_SECONDS = 2.0
"""Fewer pages, or less time, tell no pace."""
WINDOWS = 8
"""The time of these pages in equal parts: how much their numbers differ is how much the pace varies."""
MAX_GAPS = 8.0
"""Usual times between two pages without a page, after which the pace is not known any more."""
MIN_GAP_SECONDS = 2.0
DEVIATIONS = 1.5
DRIFT = 1.2
"""The pace may become slower or faster by this factor."""
LAST_PAGE_SECONDS = 15.0
"""The last pages do not follow the pace: a page that times out at its crawler takes half a minute."""
MAX_LEFT_SHARE = 0.5
"""Of the pages found. A crawler that may find more is asked too early while more are left."""
MAX_GROWTH = 2.0
"""Such a crawler may find so many more pages for each that is left."""


@dataclass(frozen=True)
class Remaining:
    """The evidence."""

    now: datetime
    settled_at: Sequence[datetime]
    """Of the pages that settled last, at most `MAX_PAGES`, in any order."""
    left: int
    """Known pages that are not settled."""
    found: int
    """All known pages."""
    limit: int | None
    """The largest number of pages of the crawl. None: not known, so that it may always grow."""
    grows: bool
    """Whether the crawler may find more pages."""


def estimate(remaining: Remaining) -> Eta | None:
    """None where the evidence is thin.

    The true end lies within the range for at least 80 of 100 crawls, see `tests/insights/test_eta.py`.
    """
    times, now, left = sorted(remaining.settled_at), remaining.now, remaining.left
    if len(times) < MIN_PAGES or left <= 0:
        return None
    span = (now - times[0]).total_seconds()
    page_seconds = span / (len(times) - 1)
    gap_seconds = (now - times[-1]).total_seconds()
    if span < MIN_SECONDS or gap_seconds > max(MAX_GAPS * page_seconds, MIN_GAP_SECONDS):
        return None
    most_left = left
    if remaining.grows:
        if left > MAX_LEFT_SHARE * remaining.found:
            return None
        growth = round(MAX_GROWTH * left)
        most_left += growth if remaining.limit is None else min(growth, remaining.limit - remaining.found)

    counts = [0] * WINDOWS
    for each in times[1:]:
        counts[min(WINDOWS - 1, int((each - times[0]).total_seconds() / span * WINDOWS))] += 1
    mean = sum(counts) / WINDOWS
    variance = max(mean, sum((count - mean) ** 2 for count in counts) / (WINDOWS - 1))

    def margin(pages: int) -> float:
        """The pace is uncertain by the windows seen, and what follows by the windows to come."""
        windows_to_come = max(pages / mean, 0.25)
        uncertainty = sqrt(variance) / mean * sqrt(1 / WINDOWS + 1 / windows_to_come)
        return DRIFT * (1 + DEVIATIONS * uncertainty)

    return Eta(
        at=now + timedelta(seconds=left * page_seconds),
        earliest=now + timedelta(seconds=left * page_seconds / margin(left)),
        latest=now + timedelta(seconds=most_left * page_seconds * margin(most_left) + LAST_PAGE_SECONDS),
        pages_left=left,
    )
