"""The indexes as the service has them: what serves is searched, what is filled is there for the workers."""

import asyncio
from contextlib import suppress
from dataclasses import dataclass
from types import TracebackType
from typing import Self

import structlog

from crawlscope.core.errors import CrawlscopeError, IndexUnavailable
from crawlscope.core.settings import Settings
from crawlscope.database.engine import Database
from crawlscope.indexing.generations.embedder import IndexEmbedder
from crawlscope.indexing.generations.lifecycle import IndexKeeping
from crawlscope.indexing.generations.opened import OpenGenerations
from crawlscope.indexing.generations.repository import Generation, begin_filling
from crawlscope.indexing.index.edge_folders import EdgeIndexes
from crawlscope.indexing.index.port import OwnedIndexes, SearchIndex
from crawlscope.indexing.index.socket_path import socket_path_for
from crawlscope.indexing.index.socket_server import IndexServer
from crawlscope.indexing.service import IndexingService
from crawlscope.indexing.sparse import Bm25Encoder
from crawlscope.search.service import SearchService

LOOK_SECONDS = 1.0
REOPEN_SECONDS = 2.0
BEING_OPENED = "the index is being opened"

log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class IndexParts:
    """Everything that belongs to the index that serves."""

    generation: Generation
    embedder: IndexEmbedder
    index: SearchIndex
    indexing: IndexingService
    search: SearchService


class IndexHost:
    """Opens the indexes beside what else the service does, tries until it works, and follows each change."""

    def __init__(self, settings: Settings, database: Database) -> None:
        self._settings = settings
        self._database = database
        embedded = EdgeIndexes(settings.data_dir)
        indexes: OwnedIndexes = qdrant_indexes(settings) or embedded
        self._server = IndexServer(embedded.opened, socket_path_for(settings.data_dir))
        self._serves_workers = not settings.embedded_index
        self._opened = OpenGenerations(settings, indexes, Bm25Encoder())
        self._keeping = IndexKeeping(database, indexes)
        self._looking = asyncio.Lock()
        self._serving: IndexParts | None = None
        self._problem = BEING_OPENED

    async def __aenter__(self) -> Self:
        self._following = asyncio.create_task(self._follow())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._following.cancel()
        with suppress(asyncio.CancelledError):
            await self._following
        await self._server.stop()
        await self._opened.aclose()

    def require_index(self) -> IndexParts:
        if self._serving is None:
            raise IndexUnavailable(f"search is not ready: {self._problem}")
        return self._serving

    async def reindex(self) -> None:
        """Begins to fill a new index for what is configured now, unless one is being filled so."""
        recipe = await self._opened.open_configured()
        await self._database.run(lambda connection: begin_filling(connection, recipe))
        await self._look()

    async def _follow(self) -> None:
        while True:
            try:
                await self._look()
            except CrawlscopeError as error:
                self._note(str(error))
                await asyncio.sleep(REOPEN_SECONDS)
            except Exception as error:  # noqa: BLE001 - else nobody would follow any more
                self._note(f"unexpected {type(error).__name__}; see the log of the service", error)
                await asyncio.sleep(REOPEN_SECONDS)
            else:
                self._problem = BEING_OPENED
                await asyncio.sleep(LOOK_SECONDS)

    async def _look(self) -> None:
        async with self._looking:
            if self._serving is None:
                await self._opened.ensure_serving(self._database)
            live = await self._keeping.look()
            if not self._serves_workers:
                await self._server.start()
                self._serves_workers = True
            if live.serving and (self._serving is None or self._serving.generation.id != live.serving.id):
                await self._serve(live.serving)
            await self._opened.close_others(live)

    async def _serve(self, generation: Generation) -> None:
        embedder, index = self._opened.embedder(generation), await self._opened.index(generation)
        self._serving = IndexParts(
            generation=generation,
            embedder=embedder,
            index=index,
            indexing=IndexingService(self._database, self._opened),
            search=SearchService(index, embedder, Bm25Encoder()),
        )
        with suppress(CrawlscopeError):  # whoever needs it is told why
            await embedder.ready()

    def _note(self, problem: str, unexpected: Exception | None = None) -> None:
        """Logs what is new."""
        if self._problem != problem:
            log.warning("index_not_open", reason=problem, exc_info=unexpected)
        self._problem = problem


def qdrant_indexes(settings: Settings) -> OwnedIndexes | None:
    """On the server that the settings name, if they do."""
    if settings.qdrant_url is None:
        return None
    # Here, because importing the client takes longer than everything else a process needs to start.
    from qdrant_client import AsyncQdrantClient  # noqa: PLC0415

    from crawlscope.indexing.index.qdrant_server import QdrantIndexes  # noqa: PLC0415

    key = settings.qdrant_api_key
    return QdrantIndexes(
        AsyncQdrantClient(
            url=settings.qdrant_url,
            api_key=key.get_secret_value() if key else None,
            timeout=30,
            check_compatibility=False,  # it would complain on stderr, where a log is expected
        )
    )
