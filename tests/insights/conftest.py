"""The insight service over the test's own database."""

import pytest

from crawlscope.database.engine import Database
from crawlscope.insights.service import Insights


@pytest.fixture
def insights(database: Database) -> Insights:
    return Insights(database)
