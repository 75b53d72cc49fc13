"""The percentiles that the database computes are those of `statistics.quantiles`."""

from statistics import quantiles

import pytest
from sqlalchemy import text

from crawlscope.database.engine import Database

SAMPLES = ([1.0, 2.0], [3.0, 1.0, 2.0], [5.0] * 40, [i * 7919 % 1009 / 3 for i in range(1_000)])


async def test_the_database_and_the_standard_library_agree(database: Database):
    query = text(
        "SELECT percentile_cont(CAST(:points AS float8[])) WITHIN GROUP (ORDER BY ms)"
        " FROM unnest(CAST(:values AS float8[])) AS ms"
    )
    points = [number / 100 for number in range(1, 100)]
    async with database.transaction() as connection:
        for values in SAMPLES:
            computed = await connection.scalar(query, {"points": points, "values": values})
            assert computed == pytest.approx(quantiles(values, n=100, method="inclusive"), rel=1e-12)
