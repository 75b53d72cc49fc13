"""The geometry of the server's drawings: bars, sparklines, spans on a time axis. Pure functions."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Any

from crawlscope.core.vocabulary import QUEUE_WAIT, STAGES, UNACCOUNTED, OperationType, PageState
from crawlscope.insights.schemas import CrawlMetricsResponse, OperationStats, TimelineResponse

WIDTH = 1000.0
"""The width of every figure in its own units; the browser stretches it to the width of the page."""
MIN_VISIBLE = 3.0
"""The width of the smallest part that is drawn, so that nothing that exists looks like nothing."""
RATE_SECONDS = 1.0
"""The shortest time over which a rate is shown."""
STAGE_NAMES = (QUEUE_WAIT, *(stage.value for stage in STAGES), UNACCOUNTED)
"""All that a bar of a page can show."""


@dataclass(frozen=True)
class Part:
    """A part of a bar."""

    name: str
    """Names the colour too."""
    value: float
    share: float
    """Its share of the whole, 0 to 1."""
    x: float
    width: float


@dataclass(frozen=True)
class Chart:
    """Lines over the buckets of a timeline."""

    key: str
    title: str
    series: dict[str, list[float]]


def parts_of(values: Iterable[tuple[str, float]], width: float = WIDTH) -> list[Part]:
    """Side by side in the given order, together so wide; parts without a value are left out."""
    named = [(name, value) for name, value in values if value > 0]
    whole = sum(value for _, value in named)
    if not whole:
        return []
    widths = [max(MIN_VISIBLE, width * value / whole) for _, value in named]
    scale, x, parts = width / sum(widths), 0.0, []
    for (name, value), wide in zip(named, widths, strict=True):
        parts.append(Part(name, value, value / whole, round(x, 2), round(wide * scale, 2)))
        x += wide * scale
    return parts


def page_counts(crawl: CrawlMetricsResponse) -> list[tuple[str, int]]:
    """The pages of a crawl by outcome. `indexed` leaves out those with a name of their own."""
    return [
        ("indexed", crawl.pages_indexed - crawl.pages_unchanged - crawl.pages_empty),
        ("unchanged", crawl.pages_unchanged),
        ("empty", crawl.pages_empty),
        ("failed", crawl.pages_failed),
        ("pending", crawl.pages_pending),
        ("cancelled", crawl.pages_cancelled),
        ("expected", _not_received(crawl)),
    ]


def _not_received(crawl: CrawlMetricsResponse) -> int:
    """Pages that the crawler has found and not delivered yet, while the crawl runs."""
    received = crawl.total_pages + crawl.pages_pending + crawl.pages_cancelled
    return max(0, (crawl.pages_expected or 0) - received)


def stage_totals(operations: Mapping[str, OperationStats]) -> list[tuple[str, float]]:
    """The milliseconds of each stage over all attempts, and the rest of the workers' time."""
    totals = [(stage.value, operations[stage].spent_ms) for stage in STAGES if stage in operations]
    whole = operations.get(OperationType.WORKER)
    rest = max(0.0, (whole.spent_ms if whole else 0.0) - sum(total for _, total in totals))
    return [*totals, (UNACCOUNTED, rest)]


def sparkline(counts: Sequence[int], width: float = 120.0, height: float = 24.0) -> str:
    """The path of an area; empty without a count."""
    highest = max(counts, default=0)
    if not highest:
        return ""
    step = width / len(counts)
    points = []
    for number, count in enumerate(counts):
        y = height - (height - 1) * count / highest
        points += [f"L{number * step:.1f} {y:.1f}", f"L{(number + 1) * step:.1f} {y:.1f}"]
    return f"M0 {height:.0f}{''.join(points)}L{width:.0f} {height:.0f}Z"


def lines(values: Mapping[str, Sequence[float]], height: float = 100.0) -> dict[str, str]:
    """The points of one polyline per name, each `WIDTH` wide, on a common scale from 0."""
    highest = max((value for row in values.values() for value in row), default=0) or 1.0
    return {
        name: " ".join(
            f"{(number + 0.5) * WIDTH / len(row):.1f},{height - (height - 2) * value / highest:.1f}"
            for number, value in enumerate(row)
        )
        for name, row in values.items()
    }


def smoothed(rates: Sequence[float], bucket_seconds: float) -> list[float]:
    """Rates of buckets, each over the buckets around it that make a second together.

    A page in a bucket of some milliseconds would otherwise be hundreds of pages per second.
    """
    wide = max(1, math.ceil(RATE_SECONDS / bucket_seconds))
    first = [number - (wide - 1) // 2 for number in range(len(rates))]
    return [sum(rates[max(0, at) : max(0, at + wide)]) / wide for at in first]


def timeline_charts(timeline: TimelineResponse) -> list[Chart]:
    """Pages per second, pages in progress, and how many pages each stage worked on at once."""
    buckets, ms = timeline.buckets, timeline.bucket_seconds * 1000
    smooth = partial(smoothed, bucket_seconds=timeline.bucket_seconds)
    return [
        Chart(
            "pages",
            "Pages per second",
            {
                "received": smooth([each.received_per_second for each in buckets]),
                "indexed": smooth([each.indexed_per_second for each in buckets]),
                "failed": smooth([each.failed_per_second for each in buckets]),
            },
        ),
        Chart(
            "queue",
            "Pages in progress",
            {
                "queued": [float(each.queued) for each in buckets],
                "indexing": [float(each.indexing) for each in buckets],
            },
        ),
        Chart(
            "stages",
            "Pages in each stage",
            {
                stage.value: [each.stages.get(stage, 0.0) / ms for each in buckets]
                for stage in STAGES
                if any(each.stages.get(stage) for each in buckets)
            },
        ),
    ]


@dataclass(frozen=True)
class Axis:
    """A stretch of time, drawn `WIDTH` wide."""

    began: datetime
    ms: float

    @classmethod
    def between(cls, *moments: datetime | None) -> "Axis | None":
        known = [each for each in moments if each is not None]
        if not known:
            return None
        return cls(min(known), max(1.0, (max(known) - min(known)).total_seconds() * 1000))

    def x(self, moment: datetime) -> float:
        at_ms = (moment - self.began).total_seconds() * 1000
        return round(min(WIDTH, max(0.0, WIDTH * at_ms / self.ms)), 2)

    def bar(self, name: str, began: datetime, ended: datetime) -> Part:
        x, ms = self.x(began), max(0.0, (ended - began).total_seconds() * 1000)
        width = max(MIN_VISIBLE, self.x(ended) - x)
        return Part(name, ms, ms / self.ms, min(x, WIDTH - width), round(width, 2))


def page_spans(row: Mapping[Any, Any], axis: Axis, now: datetime) -> list[Part]:
    """The bars of one page: its wait in the queue, then each stage of its last attempt one after another.

    The row is one of `insights.inspection.Spans`. The stages of a page do not overlap; `unaccounted`
    is the time between them, and drawn last.
    """
    queued_at, started_at, settled_at = row["queued_at"], row["started_at"], row["settled_at"]
    state, parts = PageState(row["state"]), []
    if queued_at is not None:
        until = started_at if started_at is not None and started_at >= queued_at else settled_at or now
        parts.append(axis.bar(QUEUE_WAIT, queued_at, until))
    if state is PageState.INDEXING and started_at is not None:
        parts.append(axis.bar("running", started_at, now))
    if row["total_ms"] is None or started_at is None or settled_at is None:
        return parts
    at, scale = axis.x(started_at), WIDTH / axis.ms
    for name, ms in stages_of(row["stages"], row["total_ms"]):
        width = ms * scale
        parts.append(
            Part(name, ms, ms / row["total_ms"] if row["total_ms"] else 0.0, round(at, 2), round(width, 2))
        )
        at += width
    return parts


def stages_of(stages: Mapping[str, float], total_ms: float) -> list[tuple[str, float]]:
    """The stages of an attempt in their order, and the rest of its time."""
    known = [(stage.value, float(stages[stage])) for stage in STAGES if stages.get(stage)]
    rest = total_ms - sum(ms for _, ms in known)
    return [*known, (UNACCOUNTED, rest)] if rest > 0 else known
