"""A running Crawlscope that a benchmark measures, as its users start it and ask it."""

import asyncio
import os
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from unittest.mock import patch

from crawlscope.api.client import ServiceClient
from crawlscope.cli.stack import Stack
from crawlscope.core.settings import ENV_PREFIX, load_settings
from crawlscope.core.vocabulary import CrawlStatus
from crawlscope.insights.schemas import CrawlMetricsResponse

API_SECRET = "a-secret-of-this-benchmark"


@asynccontextmanager
async def running_service(**settings: str) -> AsyncIterator[ServiceClient]:
    """`crawlscope up` with these settings alone and a data folder of its own, which goes with it."""
    with tempfile.TemporaryDirectory(prefix="crawlscope-benchmark-") as folder:
        others = {name: value for name, value in os.environ.items() if not name.startswith(ENV_PREFIX)}
        own = {"DATA_DIR": f"{folder}/data", "PORT": "0", "API_SECRET": API_SECRET}
        environment = others | {f"{ENV_PREFIX}{name}": value for name, value in (own | settings).items()}
        with patch.dict(os.environ, environment, clear=True):
            async with Stack(load_settings()) as stack:
                await stack.bring_up()
                yield stack.client


async def settled(service: ServiceClient, crawl_id: str, *, completed: bool = False) -> CrawlMetricsResponse:
    """The crawl once none of its pages waits and, if asked for, its crawler has ended it too."""
    async with asyncio.timeout(3_600):
        while True:
            crawl = await service.crawl(crawl_id)
            ended = crawl.status is not CrawlStatus.IN_PROGRESS or not completed
            if ended and crawl.pages_pending == 0:
                return crawl
            await asyncio.sleep(0.25)  # asking costs the service time, too
