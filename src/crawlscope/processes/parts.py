"""The composition root: builds what the API process and the workers consist of."""

from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass

from crawlscope.changes.watches import Watching
from crawlscope.core.periodic import in_background
from crawlscope.core.secrets import api_secret, local_token
from crawlscope.core.settings import Settings
from crawlscope.crawls.reconciliations import compare_after_outage
from crawlscope.crawls.service import Crawls
from crawlscope.database import connections
from crawlscope.database.engine import Database
from crawlscope.firecrawl.client import SharedFirecrawl
from crawlscope.indexing.generations.opened import OpenGenerations
from crawlscope.indexing.service import IndexingService
from crawlscope.indexing.sparse import Bm25Encoder
from crawlscope.indexing.vocabulary import WordCounts
from crawlscope.insights.inspection import Inspection
from crawlscope.insights.service import Insights
from crawlscope.pages.reindexing import Reindexing
from crawlscope.processes.index_host import IndexHost, indexes_of
from crawlscope.processes.maintenance.retention import maintain_tables
from crawlscope.timing.standalone import measured_database
from crawlscope.timing.store import MeasurementBuffer
from crawlscope.webhooks.acceptance import Acceptance
from crawlscope.webhooks.refusals import Refusals


@dataclass(frozen=True)
class WorkerParts:
    indexing: IndexingService
    reindexing: Reindexing
    words: WordCounts


@dataclass
class Parts:
    """The API process. The webhook endpoint and the metrics need the database alone; indexes open later."""

    settings: Settings
    secret: str
    local_token: str
    database: Database
    buffer: MeasurementBuffer
    insights: Insights
    inspection: Inspection
    acceptance: Acceptance
    refusals: Refusals
    crawls: Crawls
    watching: Watching
    host: IndexHost


@asynccontextmanager
async def service_parts(settings: Settings) -> AsyncIterator[Parts]:
    """Opens indexes in the background: deliveries are accepted before."""
    secret, token = api_secret(settings), local_token(settings)
    async with measured_database(settings, connections.SERVICE, "api") as (database, buffer):
        if settings.firecrawl_url is not None:
            await database.run(compare_after_outage)  # nobody accepted deliveries until now
        maintenance = in_background(maintain_tables(settings, database))
        firecrawl, refusals = SharedFirecrawl(settings), Refusals(settings.data_dir, database)
        host = IndexHost(settings, database)
        async with aclosing(firecrawl), refusals.stored_in_background(), maintenance, host:
            yield Parts(
                settings=settings,
                secret=secret,
                local_token=token,
                database=database,
                buffer=buffer,
                insights=Insights(
                    database,
                    settings.reconcile_after_seconds,
                    asks_firecrawl=settings.firecrawl_url is not None,
                    expectations=settings.site_expectations,
                ),
                inspection=Inspection(database),
                acceptance=Acceptance(database),
                refusals=refusals,
                crawls=Crawls(settings, database, secret, firecrawl),
                watching=Watching(settings, database),
                host=host,
            )


@asynccontextmanager
async def indexing_service(
    settings: Settings, database: Database, threads: int = 1
) -> AsyncIterator[IndexingService]:
    """For any program besides the service."""
    async with worker_parts(settings, database, threads) as parts:
        yield parts.indexing


@asynccontextmanager
async def worker_parts(
    settings: Settings, database: Database, threads: int = 1, inline: int = 0
) -> AsyncIterator[WorkerParts]:
    words = WordCounts(database)
    opened = OpenGenerations(settings, indexes_of(settings), Bm25Encoder(), threads, words, inline)
    try:
        await opened.ensure_serving(database)
        indexing = IndexingService(database, opened)
        yield WorkerParts(
            indexing,
            Reindexing(database, opened, indexing, settings.max_attempts, settings.page_timeout_seconds),
            words,
        )
        await words.write()
    finally:
        await opened.aclose()
