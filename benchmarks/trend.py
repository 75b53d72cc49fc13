"""Whether a measured series grows, with the confidence of the answer."""

import itertools
import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

BLOCKS = 12
"""Neighbouring samples resemble each other, so the means of that many blocks count."""
T_95 = 2.228
"""Student's t of a 95 % interval, with two degrees of freedom less than blocks."""


@dataclass(frozen=True)
class Trend:
    level: float
    """The mean."""
    growth: float
    """Per unit of time."""
    uncertainty: float
    """Half of the 95 % interval of the growth."""

    @property
    def at_least(self) -> float:
        return self.growth - self.uncertainty


def trend(series: Sequence[tuple[float, float]]) -> Trend:
    """A straight line through the means of blocks of (time, value). Raises ValueError for too few."""
    if len(series) < 2 * BLOCKS:
        raise ValueError(f"A trend needs {2 * BLOCKS} samples: measure for longer than {len(series)}.")
    bounds = [round(n * len(series) / BLOCKS) for n in range(BLOCKS + 1)]
    blocks = [series[begin:end] for begin, end in itertools.pairwise(bounds)]
    times = [statistics.fmean(time for time, _ in block) for block in blocks]
    values = [statistics.fmean(value for _, value in block) for block in blocks]
    slope, intercept = statistics.linear_regression(times, values)
    errors = sum((value - intercept - slope * time) ** 2 for time, value in zip(times, values, strict=True))
    spread = sum((time - statistics.fmean(times)) ** 2 for time in times)
    uncertainty = T_95 * math.sqrt(errors / (BLOCKS - 2) / spread)
    return Trend(statistics.fmean(values), slope, uncertainty)
