"""Keeps the indexes for the process that owns them: makes the new, checks the old, drops the retired."""

import time

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
"""A search that began with the former index is done by then."""
CHECK_SECONDS = 60.0

log = structlog.get_logger(__name__)


class IndexKeeping:
    def __init__(self, database: Database, indexes: OwnedIndexes) -> None:
        self._database = database
        self._indexes = indexes
        self._kept: set[int] = set()
        self._next_check: dict[int, float] = {}
        self._renewed = False
        """Whether an index of an older version was seen: once is enough for a process."""

    async def look(self) -> Live:
        """Does what has come up since the last look; to be called every second or so."""
        async with self._database.transaction() as connection:
            live = await generations.live(connection)
            retired = await generations.retired(connection, DROP_AFTER_SECONDS)
        if (recipe := generations.outdated(live)) and not self._renewed:
            await self._renew(recipe)
            async with self._database.transaction() as connection:
                live = await generations.live(connection)
        for generation in live.all:
            if generation.id not in self._kept:
                await self._take_over(generation)
        if live.serving:
            await self._check(live.serving)
        for generation in retired:
            await self._drop(generation)
        return live

    async def _renew(self, recipe: Recipe) -> None:
        """Begins to fill an index beside one that an older version made, if all of it can be made again."""

        async def begin(connection: AsyncConnection) -> bool:
            serving = (await generations.live(connection)).serving
            if serving and not await documents.all_kept(connection, serving.id):
                return False
            await generations.begin_filling(connection, recipe)
            return True

        self._renewed = True
        if await self._database.run(begin):
            log.info("index_renewed", reason="this version indexes pages in another way")
        else:
            log.warning("index_outdated", reason="not all of it can be made again: run `crawlscope reindex`")

    async def _take_over(self, generation: Generation) -> None:
        dimension = generation.recipe.identity.dimension
        async with self._database.transaction() as connection:
            if await generations.claim_making(connection, generation.id):
                await self._indexes.make(generation.name, dimension)
        await self._indexes.open(generation.name, dimension)
        self._kept.add(generation.id)

    async def _check(self, generation: Generation) -> None:
        """Once, and then for as long as something is wrong: what is crawled again comes back."""
        if time.monotonic() < self._next_check.get(generation.id, 0.0):
            return
        index = await self._indexes.open(generation.name, generation.recipe.identity.dimension)
        try:
            problem = await self._compare(generation, index)
        except DependencyError as error:
            log.warning("index_not_checked", reason=str(error))
            problem = str(error)
        self._next_check[generation.id] = time.monotonic() + CHECK_SECONDS if problem else float("inf")

    async def _compare(self, generation: Generation, index: SearchIndex) -> str | None:
        async with self._database.transaction() as connection:
            found, wanted = await _count(connection, generation, index)
            if found < wanted:  # so it seems while a store is half done
                await generations.hold_for_change_over(connection)
                found, wanted = await _count(connection, generation, index)
            problem = None
            if found < wanted:
                problem = f"the index holds {found} of {wanted} chunks: run `crawlscope reindex`"
            if problem and not generation.problem:
                log.error("index_lacks_chunks", index=generation.name, found=found, wanted=wanted)
                await documents.distrust(connection, generation.id)
            await generations.note_problem(connection, generation.id, problem)
        return problem

    async def _drop(self, generation: Generation) -> None:
        await self._indexes.drop(generation.name)
        await self._database.run(lambda connection: generations.note_dropped(connection, generation.id))
        log.info("index_dropped", index=generation.name)


async def _count(connection: AsyncConnection, generation: Generation, index: SearchIndex) -> tuple[int, int]:
    """Chunks: what the index holds, and what the database says that it should."""
    wanted = (await generations.holding(connection, generation.id)).chunks
    return (await index.size()).chunks, wanted
