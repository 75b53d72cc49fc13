"""The indexes in the API process: it makes and drops them, and searches the one that serves."""

import asyncio
from contextlib import suppress
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from crawlscope.core.data_dir import shard_folders
from crawlscope.core.errors import CrawlscopeError, IndexUnavailable
from crawlscope.core.periodic import run_periodically
from crawlscope.core.settings import Settings
from crawlscope.database.engine import Database
from crawlscope.indexing.corpus import Corpus
from crawlscope.indexing.generations.lifecycle import IndexLifecycle
from crawlscope.indexing.generations.opened import IndexEmbedder, OpenGenerations
from crawlscope.indexing.generations.repository import Generation, Live, begin_reindexing
from crawlscope.indexing.index.port import OwnedIndexes, SearchIndex
from crawlscope.indexing.index.sharded import ShardedIndexes
from crawlscope.indexing.index.socket_client import RemoteIndexes
from crawlscope.indexing.index.socket_path import socket_path_for
from crawlscope.indexing.service import IndexingService
from crawlscope.indexing.sparse import Bm25Encoder
from crawlscope.search.reranker import Reranker
from crawlscope.search.service import SearchService

POLL_INTERVAL_SECONDS = 1.0
IDLE_SECONDS = 5.0
"""Between two looks while no index is built; after a switch, the former index is kept for longer."""
RETRY_SECONDS = 2.0
OPENING = "the index is being opened"


@dataclass(frozen=True)
class ServingIndex:
    """The index that serves, and all that belongs to it."""

    generation: Generation
    embedder: IndexEmbedder
    index: SearchIndex
    indexing: IndexingService
    search: SearchService


class IndexHost:
    """Opens the indexes in the background, retries until that works, and follows each switch."""

    def __init__(self, settings: Settings, database: Database) -> None:
        self._settings = settings
        self._database = database
        indexes = indexes_of(settings)
        self._opened = OpenGenerations(settings, indexes, Bm25Encoder())
        self._lifecycle = IndexLifecycle(database, indexes)
        self._reranker = Reranker.of(settings)
        self._updating = asyncio.Lock()
        self._reindexing = asyncio.Event()
        self._serving: ServingIndex | None = None
        self._problem = OPENING

    async def __aenter__(self) -> Self:
        self._background = asyncio.create_task(
            run_periodically(
                self._poll,
                interval_seconds=lambda seconds: seconds,
                retry_seconds=RETRY_SECONDS,
                failure_event="index_open_failed",
                news=self._reindexing,
            )
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._background.cancel()
        with suppress(asyncio.CancelledError):
            await self._background
        await self._opened.aclose()
        if self._reranker:
            await self._reranker.aclose()

    def require_index(self) -> ServingIndex:
        """Raises `IndexUnavailable` with the reason."""
        if self._serving is None:
            raise IndexUnavailable(f"search is not ready: {self._problem}")
        return self._serving

    async def reindex(self) -> None:
        """Begins a new index for the configured embedder, unless one is being built for it already."""
        recipe = await self._opened.open_configured()
        await self._database.run(lambda connection: begin_reindexing(connection, recipe))
        await self._update()
        self._reindexing.set()

    async def _poll(self) -> float:
        """The seconds until the next one."""
        try:
            live = await self._update()
        except CrawlscopeError as error:
            self._problem = str(error)
            raise
        except Exception as error:
            self._problem = f"unexpected {type(error).__name__}; see the log of the service"
            raise
        self._problem = OPENING
        return POLL_INTERVAL_SECONDS if live.replacement else IDLE_SECONDS

    async def _update(self) -> Live:
        async with self._updating:
            if self._serving is None:
                await self._opened.ensure_serving(self._database)
            live = await self._lifecycle.advance()
            serving = live.serving
            if serving and (self._serving is None or self._serving.generation.id != serving.id):
                embedder, index = self._opened.embedder(serving), await self._opened.index(serving)
                corpus = Corpus(self._database, serving, self._settings.data_dir)
                self._serving = ServingIndex(
                    generation=serving,
                    embedder=embedder,
                    index=index,
                    indexing=IndexingService(self._database, self._opened),
                    search=SearchService(index, embedder, Bm25Encoder(), corpus, self._reranker),
                )
                with suppress(CrawlscopeError):  # requests that need the embedder get the error
                    await embedder.ready()
            await self._opened.close_others(live)
            return live


def indexes_of(settings: Settings) -> OwnedIndexes:
    """The indexes on the Qdrant server of the settings, or those of the index processes."""
    if settings.qdrant_url is None:
        shards = [RemoteIndexes(socket_path_for(folder)) for folder in shard_folders(settings.data_dir)]
        return ShardedIndexes(shards) if len(shards) > 1 else shards[0]
    # Imported here because importing the client takes longer than all other imports of a process.
    from qdrant_client import AsyncQdrantClient  # noqa: PLC0415

    from crawlscope.indexing.index.qdrant_server import QdrantIndexes  # noqa: PLC0415

    key = settings.qdrant_api_key
    return QdrantIndexes(
        AsyncQdrantClient(
            url=settings.qdrant_url,
            api_key=key.get_secret_value() if key else None,
            timeout=30,
            check_compatibility=False,  # its warning would go to stderr, past the log
        )
    )
