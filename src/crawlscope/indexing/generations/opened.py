"""The index generations that a process has open, with the embedders that built them."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial

from crawlscope.core.errors import CrawlscopeError, EmbedderUnavailable, IndexUnavailable
from crawlscope.core.settings import Settings, without_credentials
from crawlscope.database.engine import Database
from crawlscope.indexing import documents
from crawlscope.indexing.documents import KnownDocument
from crawlscope.indexing.embedders import open_embedder
from crawlscope.indexing.embedders.models import local_model, text_prefixes
from crawlscope.indexing.embedders.port import Embedder, Vectors
from crawlscope.indexing.generations import repository as generations
from crawlscope.indexing.generations.recipe import Recipe
from crawlscope.indexing.generations.repository import Generation, Live
from crawlscope.indexing.index.port import Indexes, SearchIndex
from crawlscope.indexing.prepare import DocumentPreparer, Lanes, PreparedDocument
from crawlscope.indexing.schemas import IndexDocumentRequest
from crawlscope.indexing.sparse import Bm25Encoder
from crawlscope.indexing.vocabulary import WordCounts

REOPEN_AFTER_SECONDS = 2.0
"""How long an embedder that could not be opened is not tried again."""
NO_INDEX = "there is no index yet: it is made when the service has its embedder"
REMEDY = "run `crawlscope reindex`"


@dataclass(frozen=True)
class Reopened:
    embedder: Embedder
    notice: str | None = None
    """The notice that the settings differ from those that the index was built with, with the remedy."""


class IndexEmbedder:
    """The embedder of one index, opened when it is first needed: keyword searches need none."""

    def __init__(self, opening: Callable[[], Awaitable[Reopened]], opened: Reopened | None = None) -> None:
        self._opening = opening
        self._lock = asyncio.Lock()
        self._opened = opened
        self._failure: CrawlscopeError | None = None
        self._failed_at = 0.0
        self._users = 0
        self._closing = False

    @property
    def is_open(self) -> bool:
        return self._opened is not None

    @property
    def notice(self) -> str | None:
        """A notice for its user: why it cannot be opened, or that another embedder is configured."""
        if self._opened:
            return self._opened.notice
        return str(self._failure) if self._failure else None

    async def ready(self) -> None:
        """Opens it. Raises `EmbedderUnavailable` or `SettingsError`."""
        async with self._lock:
            if self._opened is not None:
                return
            if self._failure and time.monotonic() - self._failed_at < REOPEN_AFTER_SECONDS:
                raise self._failure
            try:
                self._opened = await self._opening()
            except CrawlscopeError as error:
                self._failure, self._failed_at = error, time.monotonic()
                raise

    async def embed(self, texts: Sequence[str]) -> Vectors:
        """Texts that are queries."""
        async with self.in_use() as embedder:
            prefix = text_prefixes(embedder.identity.model).query
            return await embedder.embed([f"{prefix}{text}" for text in texts])

    @asynccontextmanager
    async def in_use(self) -> AsyncIterator[Embedder]:
        """The embedder stays open while the block runs."""
        await self.ready()
        assert self._opened is not None
        embedder = self._opened.embedder
        self._users += 1
        try:
            yield embedder
        finally:
            self._users -= 1
            if self._closing and not self._users:
                await embedder.aclose()

    async def aclose(self) -> None:
        """Closes it now, or when its last user is done."""
        self._closing = True
        if self._opened and not self._users:
            await self._opened.embedder.aclose()


class OpenGenerations:
    """`threads` is for embedders that compute in this process, `inline` for `Lanes`."""

    def __init__(
        self,
        settings: Settings,
        indexes: Indexes,
        bm25: Bm25Encoder,
        threads: int = 1,
        words: WordCounts | None = None,
        inline: int = 0,
    ) -> None:
        self._settings = settings
        self._words = words
        self.indexes = indexes
        self._bm25 = bm25
        self._threads = threads
        self._lanes = Lanes(inline)
        self._embedders: dict[str, IndexEmbedder] = {}
        """By the fingerprint of the recipe."""
        self._serving: Generation | None = None
        """The one for which a page was prepared last."""

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
        return await self.indexes.open(generation.name, generation.recipe.identity.dimension)

    def embedder(self, generation: Generation) -> IndexEmbedder:
        recipe = generation.recipe
        if recipe.fingerprint not in self._embedders:
            opening = partial(reopen_embedder, self._settings, recipe, self._threads)
            self._embedders[recipe.fingerprint] = IndexEmbedder(opening)
        return self._embedders[recipe.fingerprint]

    @asynccontextmanager
    async def preparer(self, generation: Generation) -> AsyncIterator[DocumentPreparer]:
        """Opens the embedder, which stays open while the block runs."""
        async with self.embedder(generation).in_use() as embedder:
            yield DocumentPreparer(
                generation_id=generation.id,
                recipe=generation.recipe,
                embedder=embedder,
                bm25=self._bm25,
                lanes=self._lanes,
                words=self._words,
                open_index=partial(self.index, generation),
                data_dir=self._settings.data_dir,
            )

    async def prepare(
        self,
        database: Database,
        document: IndexDocumentRequest,
        generation_id: int | None,
        known: KnownDocument | None,
    ) -> PreparedDocument:
        """Cleans, chunks, embeds and encodes for the serving index, without any lock. `known` are the records
        of that generation a moment ago. Raises `IndexUnavailable` if none serves."""
        if self._serving is None or self._serving.id != generation_id:
            async with database.transaction() as connection:
                live = await generations.live(connection)
            await self.close_others(live)
            self._serving = live.serving
        if self._serving is None:
            raise IndexUnavailable(NO_INDEX)
        async with self.preparer(self._serving) as preparer:
            same_index = preparer.generation_id == generation_id
            return await preparer.prepare(document, known if same_index else None)

    async def close_others(self, live: Live) -> None:
        """Closes embedders that no live generation needs: each takes memory or a connection."""
        needed = {each.recipe.fingerprint for each in (live.serving, live.replacement) if each}
        stale = [self._embedders.pop(each) for each in self._embedders.keys() - needed]  # before others can
        for embedder in stale:
            await embedder.aclose()

    async def aclose(self) -> None:
        for embedder in self._embedders.values():
            await embedder.aclose()
        await self.indexes.aclose()


async def reopen_embedder(settings: Settings, recipe: Recipe, threads: int = 1) -> Reopened:
    """The configured embedder if it makes the same vectors, else one like that of the recipe.

    Raises `EmbedderUnavailable`, which names the embedder of the index, the configured one, and the remedy.
    """
    same_kind, as_configured = settings.embedder == recipe.identity.embedder, _asks_for(settings, recipe)
    candidates = [settings] if same_kind else []
    if not as_configured:
        candidates.append(_as_built(settings, recipe))
    problem = ""
    for candidate in candidates:
        try:
            embedder = await open_embedder(candidate, threads)
        except CrawlscopeError as error:
            if as_configured:
                raise
            problem = str(error).rstrip(".")
            continue
        if embedder.identity == recipe.identity:
            return Reopened(embedder, _notice(embedder, recipe, settings, candidate))
        await embedder.aclose()
        problem = f"in its place there is {embedder.identity.description}"
    raise EmbedderUnavailable(
        f"the index was built with {recipe.identity.description}, which cannot be opened ({problem}); now "
        f"{_configured(settings)} is configured: {REMEDY}, or go back to the former"
    )


def _configured(settings: Settings) -> str:
    return " ".join(filter(None, [settings.embedder, settings.embedder_model]))


def _asks_for(settings: Settings, recipe: Recipe) -> bool:
    """As far as the settings say; a server may have changed its model since."""
    return (
        settings.embedder == recipe.identity.embedder
        and _is_same_model(settings, recipe)
        and settings.embedder_dimensions in (None, recipe.identity.dimension)
        and _same_server(settings, recipe)
    )


def _is_same_model(settings: Settings, recipe: Recipe) -> bool:
    asked, built_with = settings.embedder_model, recipe.identity.model
    if settings.embedder == "local":
        return local_model(asked) == local_model(built_with)
    return asked in (None, built_with)


def _as_built(settings: Settings, recipe: Recipe) -> Settings:
    """The key goes to no other server than the one it is for."""
    same = _same_server(settings, recipe)
    return settings.model_copy(
        update={
            "embedder": recipe.identity.embedder,
            "embedder_model": recipe.identity.model,
            "embedder_url": settings.embedder_url if same else recipe.url,
            "embedder_api_key": settings.embedder_api_key if same else None,
            "embedder_dimensions": settings.embedder_dimensions and recipe.identity.dimension,
        }
    )


def _same_server(settings: Settings, recipe: Recipe) -> bool:
    return recipe.url is None or without_credentials(settings.embedder_url or "") == recipe.url


def _notice(embedder: Embedder, recipe: Recipe, settings: Settings, opened: Settings) -> str | None:
    if opened is not settings:
        return (
            f"the index was built with {recipe.identity.description} and is used with it; now "
            f"{_configured(settings)} is configured: to change over, {REMEDY}"
        )
    if Recipe.of(embedder, settings).fingerprint != recipe.fingerprint:
        return f"the index was built with other chunks than configured: to change over, {REMEDY}"
    return None
