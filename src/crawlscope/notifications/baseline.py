"""Whether a crawl took longer than its like used to: pure rules, no I/O."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

FEWEST_RUNS = 3
MOST_RUNS = 10
"""Only the latest ones count: a site that has grown slow for good is no news."""
TIMES_THE_MEDIAN = 2.0
LEAST_EXCESS_MS = 5_000.0
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
    """What the run was slower than; None for one that was as fast as usual, or where too little is known.

    `earlier` has the latest first.
    """
    alike = [each.took_ms for each in earlier if _alike(each.pages, run.pages)][:MOST_RUNS]
    if len(alike) < FEWEST_RUNS:
        return None
    usual_ms = median(alike)
    slow = run.took_ms > TIMES_THE_MEDIAN * usual_ms and run.took_ms - usual_ms > LEAST_EXCESS_MS
    return Baseline(usual_ms, len(alike)) if slow else None


def _alike(pages: int, others: int) -> bool:
    return max(pages, others) <= LIKE_IN_PAGES * min(pages, others)
