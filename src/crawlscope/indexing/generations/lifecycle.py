"""Makes, checks and drops the indexes, in the process that owns them."""

import time
from functools import partial

import structlog
from sqlalchemy.ext.asyncio import AsyncConnection

from crawlscope.core.errors import DependencyError
from crawlscope.database.engine import Database
from crawlscope.indexing import documents
from crawlscope.indexing.generations import repository as generations
from crawlscope.indexing.generations.recipe import Recipe
from crawlscope.indexing.generations.repository import Generation, Live
from crawlscope.indexing.index.port import OwnedIndexes, SearchIndex

DROP_AFTER_SECONDS = 30.0
"""Searches that began with the former index are done by then."""
CHECK_INTERVAL_SECONDS = 60.0

log = structlog.get_logger(__name__)


class IndexLifecycle:
    def __init__(self, database: Database, indexes: OwnedIndexes) -> None:
        self._database = database
        self._indexes = indexes
        self._ready: set[int] = set()
        """Generations whose index this process has made or opened."""
        self._next_check: dict[int, float] = {}
        self._looked_for_outdated = False

    async def advance(self) -> Live:
        """Does what is due; to be called every few seconds, once a second while an index is built."""
        async with self._database.transaction() as connection:
            live = await generations.live(connection)
            retired = await generations.retired(connection, DROP_AFTER_SECONDS)
        if live.outdated_recipe and not self._looked_for_outdated:
            self._looked_for_outdated = True
            live = await self._replace_outdated(live.outdated_recipe)
        for generation in live.all:
            if generation.id not in self._ready:
                dimension = generation.recipe.identity.dimension
                async with self._database.transaction() as connection:
                    if await generations.claim_creation(connection, generation.id):
                        await generations.lock_exclusively(connection)  # workers may store in it already
                        if not (await documents.count(connection, generation.id)).chunks:
                            await self._indexes.make(generation.name, dimension)
                await self._indexes.open(generation.name, dimension)
                self._ready.add(generation.id)
        if live.serving and time.monotonic() >= self._next_check.get(live.serving.id, 0.0):
            await self._check(live.serving)
        for generation in retired:
            await self._indexes.drop(generation.name)
            await self._database.run(partial(generations.mark_dropped, generation_id=generation.id))
            log.info("index_dropped", index=generation.name)
        return live

    async def _replace_outdated(self, recipe: Recipe) -> Live:
        async def begin(connection: AsyncConnection) -> Live:
            await generations.begin_reindexing(connection, recipe)
            return await generations.live(connection)

        live = await self._database.run(begin)
        log.info("reindexing_started", reason="this version indexes pages in another way")
        return live

    async def _check(self, generation: Generation) -> None:
        """Compares the index with the database: once, and then as long as something is wrong, because pages
        that are crawled again restore what is missing.
        """
        index = await self._indexes.open(generation.name, generation.recipe.identity.dimension)
        problem = None
        try:
            async with self._database.transaction() as connection:
                found, wanted = await _count_chunks(connection, generation, index)
                if found < wanted:  # also while a document is being stored
                    await generations.lock_exclusively(connection)
                    found, wanted = await _count_chunks(connection, generation, index)
                if found < wanted:
                    problem = f"the index holds {found} of {wanted} chunks: run `crawlscope reindex`"
                    if not generation.problem:
                        log.error("index_chunks_lost", index=generation.name, found=found, wanted=wanted)
                        await documents.invalidate(connection, generation.id)
                await generations.set_problem(connection, generation.id, problem)
        except DependencyError as error:
            log.warning("index_check_failed", reason=str(error))
            problem = str(error)
        next_check = time.monotonic() + CHECK_INTERVAL_SECONDS if problem else float("inf")
        self._next_check[generation.id] = next_check


async def _count_chunks(
    connection: AsyncConnection, generation: Generation, index: SearchIndex
) -> tuple[int, int]:
    """Chunks that the index holds, and chunks that it should hold by the database."""
    wanted = (await documents.count(connection, generation.id)).chunks
    return (await index.size()).chunks, wanted
