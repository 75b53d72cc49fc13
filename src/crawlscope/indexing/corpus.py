"""What a search needs to know of all documents of an index together."""

import asyncio
import time
from collections.abc import Mapping

import structlog

from crawlscope.core.errors import DatabaseUnavailable
from crawlscope.database.engine import Database
from crawlscope.indexing import documents
from crawlscope.indexing.generations.repository import Generation
from crawlscope.indexing.language import likely_languages

REFRESH_SECONDS = 60.0

log = structlog.get_logger(__name__)


class Corpus:
    """The documents of one index, as they were at most a minute ago."""

    def __init__(self, database: Database, generation: Generation) -> None:
        self.model = generation.recipe.identity.model
        """The name of the embedding model."""
        self._database = database
        self._generation_id = generation.id
        self._languages: Mapping[str, int] = {}
        self._next_count = 0.0

    async def languages_of(self, query: str) -> list[str]:
        """The languages of the index that the query may be in, the likeliest first; at least one."""
        return await asyncio.to_thread(likely_languages, query, await self._count_languages())

    async def _count_languages(self) -> Mapping[str, int]:
        """Searches go on with the last count while the database is unavailable."""
        if time.monotonic() >= self._next_count:
            self._next_count = time.monotonic() + REFRESH_SECONDS
            try:
                async with self._database.transaction() as connection:
                    self._languages = await documents.count_languages(connection, self._generation_id)
            except DatabaseUnavailable as error:
                log.warning("languages_not_counted", reason=str(error))
        return self._languages
