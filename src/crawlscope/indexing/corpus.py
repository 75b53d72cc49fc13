"""The facts about all documents of an index that a search needs."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path

import structlog

from crawlscope.core.errors import DatabaseUnavailable
from crawlscope.database.engine import Database
from crawlscope.indexing import documents, vocabulary
from crawlscope.indexing.generations.repository import Generation
from crawlscope.indexing.language import is_in_none, likely_languages
from crawlscope.indexing.vocabulary import folded, words_of

REFRESH_SECONDS = 60.0
MAX_CORRECTED = 3
"""Words of a query: one with more unknown words is hardly misspelt."""
MAX_REMEMBERED = 20_000

log = structlog.get_logger(__name__)


class Corpus:
    """The documents of one index, as they were at most a minute ago."""

    def __init__(self, database: Database, generation: Generation, data_dir: Path | None = None) -> None:
        self.model = generation.recipe.identity.model
        """The name of the embedding model."""
        self.has_parts = generation.recipe.has_parts
        self._database, self._data_dir = database, data_dir
        self._generation_id = generation.id
        self._languages: Mapping[str, int] = {}
        self._next_count = 0.0
        self._known = set[str]()
        """Words that the index was found to know."""

    async def languages_of(self, query: str) -> list[str]:
        """The languages of the index that the query may be in, the likeliest first; at least one."""
        counts = await self._count_languages()
        if len(counts) < 2:  # which needs no model, and a thread takes longer
            return likely_languages(query, counts, self._data_dir)
        return await asyncio.to_thread(likely_languages, query, counts, self._data_dir)

    async def correct(self, query: str, is_indexed: Callable[[str], Awaitable[bool]]) -> str:
        """The query with each word that the index does not know replaced by a similar one that it knows.

        `is_indexed` asks the index itself, which also knows other forms of a word. No word is replaced in a
        query that is in none of the languages of the index, and none while the database is unavailable.
        """
        try:
            unknown = [word for word in await self._unrecorded(query) if not await is_indexed(word)]
            if not unknown or len(unknown) > MAX_CORRECTED:
                return query
            async with self._database.transaction() as connection:
                similar = {
                    word: await vocabulary.most_similar(connection, self._generation_id, word)
                    for word in unknown
                }
            if any(similar.values()):
                counts = await self._count_languages()
                if await asyncio.to_thread(is_in_none, query, counts, self._data_dir):
                    return query
        except DatabaseUnavailable as error:
            log.warning("query_not_corrected", reason=str(error))
            return query
        for found in reversed(list(words_of(query))):
            if replacement := similar.get(folded(found[0])):
                query = query[: found.start()] + replacement + query[found.end() :]
        return query

    async def _unrecorded(self, query: str) -> list[str]:
        """Its words that are not in the database's record of the index."""
        words = {folded(found[0]) for found in words_of(query)} - self._known
        if not words:
            return []
        async with self._database.statements() as connection:
            known = await vocabulary.known_among(connection, self._generation_id, words)
        self._known = known if len(self._known) > MAX_REMEMBERED else self._known | known
        return sorted(words - known)

    async def _count_languages(self) -> Mapping[str, int]:
        """Searches use the last count while the database is unavailable."""
        if time.monotonic() >= self._next_count:
            self._next_count = time.monotonic() + REFRESH_SECONDS
            try:
                async with self._database.transaction() as connection:
                    self._languages = await documents.count_languages(connection, self._generation_id)
            except DatabaseUnavailable as error:
                log.warning("languages_not_counted", reason=str(error))
        return self._languages
