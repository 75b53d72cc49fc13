"""A running Crawlscope that a benchmark measures, as its users start it and ask it."""

import asyncio
import os
import tempfile
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from unittest.mock import patch

import asyncpg

from benchmarks.instant_embedder import instant_embedder
from benchmarks.load import Delivered, Load, Searches, deliver, search
from benchmarks.processes import cpu_seconds
from crawlscope.api.client import ServiceClient
from crawlscope.api.stack import Stack
from crawlscope.core.settings import ENV_PREFIX, load_settings
from crawlscope.core.vocabulary import CrawlStatus
from crawlscope.database.embedded import EmbeddedPostgres
from crawlscope.insights.schemas import CrawlMetricsResponse

API_SECRET = "a-secret-of-this-benchmark"
INGEST_SECONDS = 1_200.0
POLL_SECONDS = 0.2


@asynccontextmanager
async def running_service(**settings: str) -> AsyncIterator[ServiceClient]:
    """`crawlscope up` with these settings alone and a data folder of its own, which goes with it."""
    async with measured_service(**settings) as service:
        yield service.client


async def settled(service: ServiceClient, crawl_id: str, *, completed: bool = False) -> CrawlMetricsResponse:
    """The crawl once none of its pages waits and, if asked for, its crawler has ended it too."""
    async with asyncio.timeout(3_600):
        while True:
            crawl = await service.crawl(crawl_id)
            ended = crawl.status is not CrawlStatus.IN_PROGRESS or not completed
            if ended and crawl.pages_pending == 0:
                return crawl
            await asyncio.sleep(0.25)  # asking costs the service time, too


@dataclass(frozen=True)
class Ingested:
    """Pages that were delivered and have all become searchable."""

    delivered: Delivered
    seconds: float
    """From the first request to the last page that became searchable."""
    cpu_seconds: Counter[str] = field(default_factory=Counter)
    """By kind of process."""

    @property
    def pages_per_second(self) -> float:
        return self.delivered.count / self.seconds

    def cpu_ms(self, kind: str) -> float:
        """Per page."""
        return 1000 * self.cpu_seconds[kind] / self.delivered.count


def require(delivered: Delivered, status: int) -> None:
    if set(delivered.statuses) != {status}:
        raise SystemExit(f"requests were answered with {dict(delivered.statuses)}")


@dataclass(frozen=True)
class MeasuredService:
    client: ServiceClient
    data_dir: Path
    database: asyncpg.Connection

    @property
    def url(self) -> str:
        assert self.client.url is not None
        return self.client.url

    async def deliver(self, load: Load) -> Delivered:
        return await deliver(self.url, API_SECRET, load)

    async def search(self, searches: Searches) -> Delivered:
        return await search(self.url, API_SECRET, searches)

    async def ingest(self, load: Load) -> Ingested:
        """Delivers the pages and the crawl's end, and waits until each page is searchable."""
        before = cpu_seconds()
        delivered = await self.deliver(load)
        require(delivered, 202)
        await self.await_outcomes(load.crawl_id, delivered.count)
        used = cpu_seconds()
        used.subtract(before)
        crawl = await self.client.crawl(load.crawl_id)
        if crawl.pages_failed or crawl.searchable_at is None:
            raise SystemExit(f"{crawl.pages_failed} of {delivered.count} pages failed")
        return Ingested(delivered, crawl.searchable_at.timestamp() - delivered.began, used)

    async def await_outcomes(self, crawl_id: str, pages: int) -> None:
        """Asks the database, which costs less than asking the service."""
        async with asyncio.timeout(INGEST_SECONDS):
            while await self.outcomes(crawl_id) < pages:  # noqa: ASYNC110 - another process finishes them
                await asyncio.sleep(POLL_SECONDS)

    async def outcomes(self, crawl_id: str) -> int:
        """The number of the crawl's pages whose outcome is known."""
        counted = "SELECT total_pages FROM webhook.crawl_sessions WHERE crawl_id = $1 /* benchmark */"
        return await self.database.fetchval(counted, crawl_id) or 0


@asynccontextmanager
async def measured_service(**settings: str) -> AsyncIterator[MeasuredService]:
    """As `running_service`, with its database and its data folder."""
    with tempfile.TemporaryDirectory(prefix="crawlscope-benchmark-") as folder:
        others = {name: value for name, value in os.environ.items() if not name.startswith(ENV_PREFIX)}
        own = {"DATA_DIR": f"{folder}/data", "PORT": "0", "API_SECRET": API_SECRET}
        environment = others | {f"{ENV_PREFIX}{name}": value for name, value in (own | settings).items()}
        with patch.dict(os.environ, environment, clear=True):
            given = load_settings()
            async with Stack(given) as stack:
                await stack.bring_up()
                database = await asyncpg.connect(EmbeddedPostgres(given.data_dir).url)
                try:
                    yield MeasuredService(stack.client, given.data_dir, database)
                finally:
                    await database.close()


@asynccontextmanager
async def instant_service(**settings: str) -> AsyncIterator[MeasuredService]:
    """A service whose embedder answers at once, after its first pages: those find cold processes."""
    with instant_embedder() as url:
        async with measured_service(EMBEDDER="tei", EMBEDDER_URL=url, **settings) as service:
            await service.ingest(Load("first-pages", pages=24))
            yield service
