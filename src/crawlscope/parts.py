"""Puts the parts of a process together; of a service and its workers the service owns the embedded index."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import structlog

from crawlscope.database import schema
from crawlscope.database.connect import connected_database
from crawlscope.database.engine import Database
from crawlscope.errors import CrawlscopeError, IndexUnavailable
from crawlscope.firecrawl.shared import SharedFirecrawl
from crawlscope.indexing.documents import distrust_all
from crawlscope.indexing.embedders import open_embedder
from crawlscope.indexing.embedding import Embedder
from crawlscope.indexing.index.edge import EdgeIndex
from crawlscope.indexing.index.port import SearchIndex
from crawlscope.indexing.index.remote import RemoteIndex
from crawlscope.indexing.index.server_socket import IndexServer
from crawlscope.indexing.index.socket_path import socket_path_for
from crawlscope.indexing.service import IndexingService
from crawlscope.indexing.sparse import Bm25Encoder
from crawlscope.observe.insights import Insights
from crawlscope.receive.refusals import Refusals
from crawlscope.search.service import SearchService
from crawlscope.secrets import api_secret, local_token
from crawlscope.settings import Settings
from crawlscope.timing import standalone
from crawlscope.timing.buffer import MeasurementBuffer

REOPEN_SECONDS = 2.0

log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class IndexParts:
    """Everything that needs both the embedder and the index."""

    embedder: Embedder
    index: SearchIndex
    indexing: IndexingService
    search: SearchService


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
    firecrawl: SharedFirecrawl
    indexed: IndexParts | None = None
    index_problem: str = "the index is being opened"

    def require_index(self) -> IndexParts:
        if self.indexed is None:
            raise IndexUnavailable(f"search is not ready: {self.index_problem}")
        return self.indexed


@asynccontextmanager
async def service_parts(settings: Settings) -> AsyncIterator[Parts]:
    """The service's parts; the index is opened beside, so that deliveries are taken while it is away."""
    secret, token = api_secret(settings), local_token(settings)
    async with connected_database(settings, pool_size=20) as database:
        await schema.require_current(database)
        buffer = MeasurementBuffer(database)
        buffer.start()
        refusals = Refusals(settings.data_dir, database)
        insights = Insights(database, settings.reconcile_after_seconds)
        firecrawl = SharedFirecrawl(settings)
        parts = Parts(settings, secret, token, database, buffer, insights, refusals, firecrawl)
        with standalone.use(buffer):
            async with AsyncExitStack() as opened, refusals.written_down():
                opened.push_async_callback(firecrawl.aclose)
                opening = asyncio.create_task(_open_index(parts, opened))
                try:
                    yield parts
                finally:
                    opening.cancel()
                    with suppress(asyncio.CancelledError):
                        await opening
        await buffer.stop()


@asynccontextmanager
async def indexing_service(
    settings: Settings, database: Database, threads: int = 1
) -> AsyncIterator[IndexingService]:
    """For a worker, or any program beside the service: an embedded index is reached through the service."""
    embedder = await open_embedder(settings, threads)
    index = _server_index(settings, embedder) or RemoteIndex(socket_path_for(settings.data_dir))
    try:
        yield IndexingService(database, embedder, index, Bm25Encoder(), settings.chunk_tokens)
    finally:
        await index.aclose()
        await embedder.aclose()


def _server_index(settings: Settings, embedder: Embedder) -> SearchIndex | None:
    if settings.qdrant_url is None:
        return None
    # Here, because importing the client takes longer than everything else a process needs to start.
    from qdrant_client import AsyncQdrantClient  # noqa: PLC0415

    from crawlscope.indexing.index.qdrant_server import QdrantServerIndex  # noqa: PLC0415

    key = settings.qdrant_api_key
    client = AsyncQdrantClient(
        url=settings.qdrant_url, api_key=key.get_secret_value() if key else None, timeout=30
    )
    return QdrantServerIndex(client, embedder.identity.dimension)


async def _open_index(parts: Parts, opened: AsyncExitStack) -> None:
    """Tries until it works: the embedder may be a server that starts later than this one."""
    while True:
        try:
            parts.indexed = await _opened_index(parts, opened)
        except CrawlscopeError as error:
            if parts.index_problem != str(error):
                log.warning("index_not_open", reason=str(error))
            parts.index_problem = str(error)
            await asyncio.sleep(REOPEN_SECONDS)
        else:
            return


async def _opened_index(parts: Parts, opened: AsyncExitStack) -> IndexParts:
    settings = parts.settings
    embedder = await open_embedder(settings)
    index = _server_index(settings, embedder) or await _own_index(parts, embedder, opened)
    opened.push_async_callback(embedder.aclose)
    bm25 = Bm25Encoder()
    return IndexParts(
        embedder=embedder,
        index=index,
        indexing=IndexingService(parts.database, embedder, index, bm25, settings.chunk_tokens),
        search=SearchService(index, embedder, bm25),
    )


async def _own_index(parts: Parts, embedder: Embedder, opened: AsyncExitStack) -> EdgeIndex:
    folder = parts.settings.data_dir / "index"
    fresh = not _has_content(folder)
    index = await asyncio.to_thread(EdgeIndex.open, folder, embedder.identity.dimension)
    opened.push_async_callback(index.aclose)
    if fresh:
        async with parts.database.transaction() as connection:
            await distrust_all(connection)
    server = IndexServer(index, socket_path_for(parts.settings.data_dir))
    await server.start()
    opened.push_async_callback(server.stop)
    return index


def _has_content(folder: Path) -> bool:
    return folder.is_dir() and any(folder.iterdir())
