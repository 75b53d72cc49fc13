"""Histograms of durations: they need the same space for any number of values, and can be added up.

A value counts in a bucket whose middle differs from it by at most `RELATIVE_ERROR`. Buckets are the same in
every histogram, so that PostgreSQL adds two of them within the statement that writes one. The sketches of
libraries would have to be read, decoded, merged and written back.
"""

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from math import ceil, floor, log
from typing import TypeVar

Key = TypeVar("Key")

RELATIVE_ERROR = 0.01
TICKS_PER_MS = 1024
"""Durations are multiples of 1/1024 ms: floating point adds these exactly in any order, so that a total is
the sum of its parts."""
GROWTH = (1 + RELATIVE_ERROR) / (1 - RELATIVE_ERROR)
LOG_GROWTH = log(GROWTH)
ZERO = -1
"""The bucket of durations of less than a tick."""


def whole_ticks(milliseconds: float) -> float:
    return round(milliseconds * TICKS_PER_MS) / TICKS_PER_MS


def bucket_of(duration_ms: float) -> int:
    """Bucket n has the durations from `GROWTH ** (n - 1)` ticks, excluded, to `GROWTH ** n`."""
    ticks = round(duration_ms * TICKS_PER_MS)
    return ceil(log(ticks) / LOG_GROWTH) if ticks > 0 else ZERO


def middle_of(bucket: int) -> float:
    """In milliseconds; it differs from no duration in the bucket by more than `RELATIVE_ERROR`."""
    return 0.0 if bucket == ZERO else 2 * GROWTH**bucket / (GROWTH + 1) / TICKS_PER_MS


@dataclass
class Histogram:
    """Measurements of one kind. Times cover successful ones."""

    count: int = 0
    """Failed ones included."""
    failed: int = 0
    total_ms: float = 0.0
    failed_ms: float = 0.0
    """The sum of failed ones."""
    min_ms: float | None = None
    max_ms: float | None = None
    buckets: dict[int, int] = field(default_factory=dict)
    """The number of successful measurements, by bucket."""

    def add(self, duration_ms: float, success: bool = True) -> None:
        self.count += 1
        if not success:
            self.failed += 1
            self.failed_ms += duration_ms
            return
        self.total_ms += duration_ms
        bucket = bucket_of(duration_ms)
        self.buckets[bucket] = self.buckets.get(bucket, 0) + 1
        self.min_ms = duration_ms if self.min_ms is None else min(self.min_ms, duration_ms)
        self.max_ms = duration_ms if self.max_ms is None else max(self.max_ms, duration_ms)

    @classmethod
    def by_key(cls, measured: Iterable[tuple[Key, float, bool]]) -> dict[Key, "Histogram"]:
        """Makes a histogram for each key, from its milliseconds and whether the operation succeeded."""
        histograms: dict[Key, Histogram] = {}
        for key, duration_ms, success in measured:
            histograms.setdefault(key, cls()).add(duration_ms, success)
        return histograms

    def __add__(self, other: "Histogram") -> "Histogram":
        return Histogram.sum((self, other))

    @classmethod
    def sum(cls, parts: Iterable["Histogram"]) -> "Histogram":
        """The histogram of all measurements, in any order of the parts."""
        whole = cls()
        for part in parts:
            whole.count += part.count
            whole.failed += part.failed
            whole.total_ms += part.total_ms
            whole.failed_ms += part.failed_ms
            if whole.buckets:
                known = whole.buckets.get
                for bucket, number in part.buckets.items():
                    whole.buckets[bucket] = known(bucket, 0) + number
            else:
                whole.buckets = dict(part.buckets)
            whole.min_ms = min((ms for ms in (whole.min_ms, part.min_ms) if ms is not None), default=None)
            whole.max_ms = max((ms for ms in (whole.max_ms, part.max_ms) if ms is not None), default=None)
        return whole

    @property
    def mean_ms(self) -> float | None:
        return self.total_ms / (self.count - self.failed) if self.count > self.failed else None

    def percentiles(self, points: Sequence[float]) -> list[float | None]:
        """In milliseconds, for points from 0 to 1; interpolated between the two nearest values.

        Each differs by at most `RELATIVE_ERROR` from the percentile of the values themselves.
        """
        if self.min_ms is None or self.max_ms is None:
            return [None] * len(points)
        buckets = sorted(self.buckets)
        ends = list(accumulate(self.buckets[bucket] for bucket in buckets))
        least, most = self.min_ms, self.max_ms

        def value(number: int) -> float:
            middle = middle_of(buckets[bisect_right(ends, number)])
            return min(max(middle, least), most)

        found: list[float | None] = []
        for point in points:
            place = point * (ends[-1] - 1)
            low = floor(place)
            high = min(low + 1, ends[-1] - 1)
            found.append(value(low) + (value(high) - value(low)) * (place - low))
        return found
