import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import text

from crawlscope.database.engine import Database
from crawlscope.insights.percentiles import MEDIAN, P95, P99, percentiles

POINTS = (0.0, 0.1, MEDIAN, P95, P99, 1.0)
milliseconds = st.floats(min_value=0, max_value=1e9, allow_subnormal=False)


@settings(deadline=None)  # numpy may be slow the first time
@given(
    st.lists(milliseconds, min_size=1, max_size=200),
    st.lists(st.floats(min_value=0, max_value=1), min_size=1, max_size=5),
)
def test_agrees_with_numpy(values: list[float], points: list[float]):
    expected = np.percentile(values, [100 * point for point in points])

    assert percentiles(values, points) == pytest.approx(expected.tolist(), rel=1e-9, abs=1e-6)


async def test_the_database_computes_the_same(database: Database):
    query = text(
        "SELECT percentile_cont(CAST(:points AS float8[])) WITHIN GROUP (ORDER BY ms)"
        " FROM unnest(CAST(:values AS float8[])) AS ms"
    )
    samples = ([7.0], [1.0, 2.0], [3.0, 1.0, 2.0], [5.0] * 40, [i * 7919 % 1009 / 3 for i in range(1_000)])
    async with database.transaction() as connection:
        for values in samples:
            computed = await connection.scalar(query, {"points": list(POINTS), "values": values})
            assert computed == pytest.approx(percentiles(values, POINTS), rel=1e-12)


def test_of_nothing_there_is_no_percentile():
    with pytest.raises(ValueError, match="no values"):
        percentiles([], [MEDIAN])


@pytest.mark.parametrize("point", [-0.1, 1.01, 95])
def test_points_are_fractions(point: float):
    with pytest.raises(ValueError, match="between 0 and 1"):
        percentiles([1.0], [point])
