"""Background work that ends by an error is logged with its name."""

import asyncio
from pathlib import Path

from structlog.testing import capture_logs

from crawlscope.core.periodic import in_background
from crawlscope.core.settings import Settings
from crawlscope.database.engine import Database
from crawlscope.processes.maintenance.sweep import reconcile_crawls
from tests.support.polling import eventually


async def broken() -> None:
    raise ZeroDivisionError


async def test_work_that_fails_is_logged_by_name(database: Database, tmp_path: Path) -> None:
    settings = Settings(data_dir=tmp_path, firecrawl_url="http://127.0.0.1:1", firecrawl_api_key="two words")
    with capture_logs() as lines:
        async with in_background(reconcile_crawls(settings, database), broken(), asyncio.sleep(60)):
            await eventually(lambda: len(lines) == 2)
    logged = {line["work"]: line for line in lines}
    assert "FIRECRAWL_API_KEY" in logged["reconcile_crawls"]["reason"]
    assert isinstance(logged["broken"]["exc_info"], ZeroDivisionError)
    assert len(lines) == 2, "what is cancelled at the end is no failure"
