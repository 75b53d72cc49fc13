"""What a process has opened of the index generations: indexes, and the embedders they were built with."""

from functools import partial

from crawlscope.core.settings import Settings
from crawlscope.database.engine import Database
from crawlscope.indexing.embedders import open_embedder
from crawlscope.indexing.embedders.port import Embedder
from crawlscope.indexing.generations import repository as generations
from crawlscope.indexing.generations.embedder import IndexEmbedder, Reopened, reopen_embedder
from crawlscope.indexing.generations.recipe import Recipe
from crawlscope.indexing.generations.repository import Generation, Live
from crawlscope.indexing.index.port import Indexes, SearchIndex
from crawlscope.indexing.prepare import Workshop
from crawlscope.indexing.sparse import Bm25Encoder


class OpenGenerations:
    """`threads` is for embedders that compute here."""

    def __init__(self, settings: Settings, indexes: Indexes, bm25: Bm25Encoder, threads: int = 1) -> None:
        self._settings = settings
        self._indexes = indexes
        self._bm25 = bm25
        self._threads = threads
        self._embedders: dict[str, IndexEmbedder] = {}

    async def ensure_serving(self, database: Database) -> Generation:
        """The generation that serves: the configured embedder's where there is none, or one without a chunk.

        Raises `EmbedderUnavailable` or `SettingsError` where that one is needed and cannot be opened.
        """
        async with database.transaction() as connection:
            serving = (await generations.live(connection)).serving
            if serving and (await generations.holding(connection, serving.id)).chunks:
                return serving
        recipe = await self.open_configured()
        return await database.run(lambda connection: generations.ensure_serving(connection, recipe))

    async def open_configured(self) -> Recipe:
        """What the settings ask for."""
        embedder = await open_embedder(self._settings, self._threads)
        recipe = Recipe.of(embedder, self._settings)
        known = self._embedders.get(recipe.fingerprint)
        if known and known.is_open:
            await embedder.aclose()
        else:
            self._embedders[recipe.fingerprint] = IndexEmbedder(partial(_opened, embedder))
        return recipe

    async def index(self, generation: Generation) -> SearchIndex:
        return await self._indexes.open(generation.name, generation.recipe.identity.dimension)

    def embedder(self, generation: Generation) -> IndexEmbedder:
        recipe = generation.recipe
        if recipe.fingerprint not in self._embedders:
            opening = partial(reopen_embedder, self._settings, recipe, self._threads)
            self._embedders[recipe.fingerprint] = IndexEmbedder(opening)
        return self._embedders[recipe.fingerprint]

    def workshop(self, generation: Generation) -> Workshop:
        return Workshop(generation.id, generation.recipe, self.embedder(generation), self._bm25)

    async def close_others(self, live: Live) -> None:
        """Embedders that no live generation needs: each takes memory or a connection."""
        needed = {each.recipe.fingerprint for each in live.all}
        for fingerprint in self._embedders.keys() - needed:
            await self._embedders.pop(fingerprint).aclose()

    async def aclose(self) -> None:
        for embedder in self._embedders.values():
            await embedder.aclose()
        await self._indexes.aclose()


async def _opened(embedder: Embedder) -> Reopened:
    return Reopened(embedder)
