from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from crawlscope.database.engine import Database
from tests.support.installation import Installation, running_installation


@pytest.fixture
async def here(database: Database, tmp_path: Path) -> AsyncIterator[Installation]:
    async with running_installation(database, tmp_path) as installation:
        yield installation
