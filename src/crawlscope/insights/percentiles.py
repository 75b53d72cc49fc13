"""What a percentile is here: interpolated between the two nearest values, as SQL's `percentile_cont` does."""

from collections.abc import Sequence
from math import floor

MEDIAN, P95, P99 = 0.5, 0.95, 0.99


def percentiles(values: Sequence[float], points: Sequence[float]) -> list[float]:
    """The value at each point (0 is the least, 1 the greatest); raises `ValueError` where there is none."""
    if not values:
        raise ValueError("no values, no percentiles")
    ordered = sorted(values)
    return [_at(ordered, point) for point in points]


def _at(ordered: Sequence[float], point: float) -> float:
    if not 0 <= point <= 1:
        raise ValueError(f"a percentile lies between 0 and 1, not at {point}")
    position = point * (len(ordered) - 1)
    below = floor(position)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (ordered[above] - ordered[below]) * (position - below)
