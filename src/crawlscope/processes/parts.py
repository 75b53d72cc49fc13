"""Puts the parts of a process together; of a service and its workers the service owns the embedded index."""

from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass

from crawlscope.changes.watches import Watching
from crawlscope.core.secrets import api_secret, local_token
from crawlscope.core.settings import Settings
from crawlscope.crawls.reconciliations import compare_after_outage
from crawlscope.crawls.service import Crawls
from crawlscope.database import connections, revision
from crawlscope.database.connect import connected_database
from crawlscope.database.engine import Database
from crawlscope.firecrawl.client import SharedFirecrawl
from crawlscope.indexing.generations.opened import OpenGenerations
from crawlscope.indexing.index.port import Indexes
from crawlscope.indexing.index.socket_client import RemoteIndexes
from crawlscope.indexing.index.socket_path import socket_path_for
from crawlscope.indexing.service import IndexingService
from crawlscope.indexing.sparse import Bm25Encoder
from crawlscope.insights.insights import Insights
from crawlscope.pages.reindexing import Reindexing
from crawlscope.processes.index_host import IndexHost, ServingIndex, qdrant_indexes
from crawlscope.timing import standalone
from crawlscope.timing.store import MeasurementBuffer
from crawlscope.webhooks.refusals import Refusals


@dataclass(frozen=True)
class WorkerParts:
    indexing: IndexingService
    reindexing: Reindexing


@dataclass
class Parts:
    """The running service. The door and the metrics need the database only; the rest may come later."""

    settings: Settings
    secret: str
    local_token: str
    database: Database
    buffer: MeasurementBuffer
    insights: Insights
    refusals: Refusals
    crawls: Crawls
    watching: Watching
    host: IndexHost

    def require_index(self) -> ServingIndex:
        """Raises `IndexUnavailable` with the reason."""
        return self.host.require_index()


@asynccontextmanager
async def service_parts(settings: Settings) -> AsyncIterator[Parts]:
    """The service's parts; indexes are opened beside, so that deliveries are taken while they are away."""
    secret, token = api_secret(settings), local_token(settings)
    async with connected_database(settings, connections.SERVICE) as database:
        await revision.require_current(database)
        if settings.firecrawl_url is not None:
            await database.run(compare_after_outage)  # nobody took deliveries until now
        buffer = MeasurementBuffer(database)
        buffer.start()
        refusals = Refusals(settings.data_dir, database)
        insights = Insights(
            database, settings.reconcile_after_seconds, asks_firecrawl=settings.firecrawl_url is not None
        )
        firecrawl, watching = SharedFirecrawl(settings), Watching(settings, database)
        crawls = Crawls(settings, database, secret, firecrawl)
        with standalone.use(buffer):
            async with aclosing(firecrawl), refusals.written_down(), IndexHost(settings, database) as host:
                yield Parts(
                    settings, secret, token, database, buffer, insights, refusals, crawls, watching, host
                )
        await buffer.stop()


@asynccontextmanager
async def indexing_service(
    settings: Settings, database: Database, threads: int = 1
) -> AsyncIterator[IndexingService]:
    """For any program beside the service: an embedded index is reached through the service."""
    async with worker_parts(settings, database, threads) as parts:
        yield parts.indexing


@asynccontextmanager
async def worker_parts(
    settings: Settings, database: Database, threads: int = 1
) -> AsyncIterator[WorkerParts]:
    indexes: Indexes = qdrant_indexes(settings) or RemoteIndexes(socket_path_for(settings.data_dir))
    opened = OpenGenerations(settings, indexes, Bm25Encoder(), threads)
    try:
        await opened.ensure_serving(database)
        indexing = IndexingService(database, opened)
        yield WorkerParts(
            indexing,
            Reindexing(database, opened, indexing, settings.max_attempts, settings.page_timeout_seconds),
        )
    finally:
        await opened.aclose()
