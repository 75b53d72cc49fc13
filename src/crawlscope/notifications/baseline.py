"""Whether a crawl took longer than earlier ones like it: pure rules, no I/O."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

MIN_RUNS = 3
MAX_RUNS = 10
"""Only the latest ones count: a site that stays slow is notified of once."""
TIMES_THE_MEDIAN = 2.0
MIN_EXCESS_MS = 5_000.0
"""Small crawls vary by more than their own length."""
LIKE_IN_PAGES = 2.0
"""Crawls whose numbers of pages differ by more than this factor do not compare."""


@dataclass(frozen=True)
class Run:
    pages: int
    took_ms: float


@dataclass(frozen=True)
class Baseline:
    median_ms: float
    runs: int


def exceeded_baseline(run: Run, earlier: Sequence[Run]) -> Baseline | None:
    """The baseline that the run has exceeded; None for a usual run, or one with too few to compare.

    `earlier` has the latest first.
    """
    alike = [
        each.took_ms
        for each in earlier
        if max(each.pages, run.pages) <= LIKE_IN_PAGES * min(each.pages, run.pages)
    ][:MAX_RUNS]
    if len(alike) < MIN_RUNS:
        return None
    usual_ms = median(alike)
    slow = run.took_ms > TIMES_THE_MEDIAN * usual_ms and run.took_ms - usual_ms > MIN_EXCESS_MS
    return Baseline(usual_ms, len(alike)) if slow else None
