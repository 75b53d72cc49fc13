"""Histograms against the values themselves."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from crawlscope.core.histogram import GROWTH, RELATIVE_ERROR, TICKS_PER_MS, Histogram, bucket_of, middle_of

POINTS = (0.0, 0.05, 0.5, 0.95, 0.99, 0.999, 1.0)
DURATIONS = st.lists(st.integers(0, 10**10).map(lambda ticks: ticks / TICKS_PER_MS), min_size=1, max_size=60)
AGREES = RELATIVE_ERROR + 1e-9


def histogram_of(values: list[float]) -> Histogram:
    found = Histogram()
    for value in values:
        found.add(value)
    return found


def test_percentiles_of_a_million_values_agree_with_numpy_and_parts_merge_in_any_order():
    random = np.random.default_rng(7)
    shapes = (
        random.lognormal(4, 2, 500_000),
        random.exponential(30, 300_000),
        random.normal(9e4, 9e3, 200_000),
    )
    values = np.round(np.abs(np.concatenate(shapes)) * TICKS_PER_MS) / TICKS_PER_MS
    random.shuffle(values)
    whole = histogram_of(values.tolist())

    assert whole.percentiles(POINTS) == pytest.approx(np.quantile(values, POINTS).tolist(), rel=AGREES)
    assert whole.mean_ms == pytest.approx(values.mean())
    assert len(whole.buckets) < 1_200
    parts = [histogram_of(part.tolist()) for part in np.array_split(values, 7)]
    assert Histogram.sum(parts) == Histogram.sum(parts[::-1]) == whole
    assert parts[3] + (parts[1] + parts[0]) == (parts[0] + parts[3]) + parts[1]


@given(DURATIONS, st.floats(0, 1))
def test_any_percentile_of_any_values_agrees_with_numpy(values: list[float], point: float):
    assert histogram_of(values).percentiles([point]) == pytest.approx(
        [np.quantile(values, point)], rel=AGREES
    )


@given(st.integers(0, 2**40))
def test_the_middle_of_a_bucket_is_near_each_value_in_it(ticks: int):
    duration_ms = ticks / TICKS_PER_MS
    assert middle_of(bucket_of(duration_ms)) == pytest.approx(duration_ms, rel=AGREES)


def test_no_duration_of_a_day_is_so_near_to_a_border_that_rounding_moves_it():
    """So that Python and PostgreSQL, whose logarithms may differ in the last bit, choose the same bucket."""
    growth, border, number = Fraction(101, 99), Fraction(1), 0
    assert float(growth) == pytest.approx(GROWTH, rel=1e-15)
    while (number := number + 1) and (border := border * growth) < 86_400_000 * TICKS_PER_MS:
        nearest = round(border)
        assert abs(nearest - border) / border > Fraction(1, 10**14)


def test_failed_measurements_count_and_add_their_time_but_have_no_percentile():
    found = histogram_of([3.0])
    found.add(500.0, success=False)

    assert (found.count, found.failed, found.total_ms, found.failed_ms) == (2, 1, 3.0, 500.0)
    assert found.percentiles([0.5, 0.99]) == [3.0, 3.0]
    only_failed = Histogram()
    only_failed.add(1.0, success=False)
    assert (only_failed.mean_ms, only_failed.percentiles([0.5])) == (None, [None])
