from random import Random

import pytest
from benchmarks.trend import trend


def noisy(slope: float) -> list[tuple[float, float]]:
    random = Random(5)
    return [(minute / 60, 100 + slope * minute / 60 + random.gauss(0, 2)) for minute in range(60)]


def test_a_series_that_grows_does_so_for_certain():
    found = trend(noisy(slope=20.0))
    assert found.growth == pytest.approx(20, abs=4)
    assert 0 < found.at_least < 20


def test_noise_alone_does_not_grow():
    assert trend(noisy(slope=0.0)).at_least < 0


def test_an_even_series_has_no_uncertainty():
    found = trend([(hour, 7.0) for hour in range(24)])
    assert (found.level, found.growth, found.uncertainty) == (7.0, 0.0, 0.0)


def test_too_few_samples_are_refused():
    with pytest.raises(ValueError, match="A trend needs 24 samples"):
        trend([(0.0, 1.0)] * 23)
