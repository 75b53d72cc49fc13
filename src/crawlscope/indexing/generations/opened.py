"""What a process has open of the index generations: indexes, and the embedders they were built with."""

from functools import partial

from crawlscope.core.settings import Settings
from crawlscope.database.engine import Database
from crawlscope.indexing import documents
from crawlscope.indexing.embedders import open_embedder
from crawlscope.indexing.generations import repository as generations
from crawlscope.indexing.generations.embedder import IndexEmbedder, Reopened, reopen_embedder
from crawlscope.indexing.generations.recipe import Recipe
from crawlscope.indexing.generations.repository import Generation, Live
from crawlscope.indexing.in_thread import Lanes
from crawlscope.indexing.index.port import Indexes, SearchIndex
from crawlscope.indexing.prepare import DocumentPreparer
from crawlscope.indexing.sparse import Bm25Encoder


class OpenGenerations:
    """`threads` is for embedders that compute in this process."""

    def __init__(self, settings: Settings, indexes: Indexes, bm25: Bm25Encoder, threads: int = 1) -> None:
        self._settings = settings
        self._indexes = indexes
        self._bm25 = bm25
        self._threads = threads
        self._lanes = Lanes()
        self._embedders: dict[str, IndexEmbedder] = {}
        """By the fingerprint of the recipe."""

    async def ensure_serving(self, database: Database) -> Generation:
        """The serving generation; adds one for the configured embedder if there is none or it is empty.

        Raises `EmbedderUnavailable` or `SettingsError` if that embedder is needed and cannot be opened.
        """
        async with database.transaction() as connection:
            serving = (await generations.live(connection)).serving
            if serving and (await documents.count(connection, serving.id)).chunks:
                return serving
        recipe = await self.open_configured()
        return await database.run(partial(generations.ensure_serving, recipe=recipe))

    async def open_configured(self) -> Recipe:
        """Opens the embedder of the settings and returns the recipe with it."""
        embedder = await open_embedder(self._settings, self._threads)
        recipe = Recipe.of(embedder, self._settings)
        known = self._embedders.get(recipe.fingerprint)
        if known and known.is_open:
            await embedder.aclose()
        else:
            opening = partial(reopen_embedder, self._settings, recipe, self._threads)
            self._embedders[recipe.fingerprint] = IndexEmbedder(opening, Reopened(embedder))
        return recipe

    async def index(self, generation: Generation) -> SearchIndex:
        return await self._indexes.open(generation.name, generation.recipe.identity.dimension)

    def embedder(self, generation: Generation) -> IndexEmbedder:
        recipe = generation.recipe
        if recipe.fingerprint not in self._embedders:
            opening = partial(reopen_embedder, self._settings, recipe, self._threads)
            self._embedders[recipe.fingerprint] = IndexEmbedder(opening)
        return self._embedders[recipe.fingerprint]

    def preparer(self, generation: Generation) -> DocumentPreparer:
        embedder = self.embedder(generation)
        return DocumentPreparer(generation.id, generation.recipe, embedder, self._bm25, self._lanes)

    async def close_others(self, live: Live) -> None:
        """Closes embedders that no live generation needs: each takes memory or a connection."""
        needed = {each.recipe.fingerprint for each in live.all}
        for fingerprint in self._embedders.keys() - needed:
            await self._embedders.pop(fingerprint).aclose()

    async def aclose(self) -> None:
        for embedder in self._embedders.values():
            await embedder.aclose()
        await self._indexes.aclose()
