"""The SQL of index generations: which index serves, which one is built to replace it, and the switch.

Transactions that store documents hold the generations' lock shared; a switch holds it exclusively. So no
document is stored into the former index after the switch.
"""

import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from functools import lru_cache
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Row,
    func,
    insert,
    select,
    text,
    update,
)
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection

from crawlscope import models
from crawlscope.core.errors import DatabaseUnavailable
from crawlscope.core.values import hash_key
from crawlscope.database.engine import LOCK_NOT_AVAILABLE, Database, sqlstate
from crawlscope.database.queue import REINDEXING, notify
from crawlscope.indexing import documents, vocabulary
from crawlscope.indexing.contents import KnownContent
from crawlscope.indexing.documents import KnownDocument
from crawlscope.indexing.freshness import LATER_FINDINGS, FoundPage
from crawlscope.indexing.generations.recipe import Recipe
from crawlscope.indexing.index.port import FIRST_NAME

GENERATIONS = models.table_of(models.IndexGeneration)
GENERATIONS_LOCK = (7_108, 4)
REINDEXING_LOCK = (7_108, 5)
_LIVE = text(
    f"""
    SELECT generation.*, CAST(generation.embedder AS text) AS embedder_json,
        asked.key, later.answered_gone, later.replaced,
        known.content_hash, known.fingerprint AS document_fingerprint, known.chunks, known.crawl_id,
        known.language, known.revision, known.error,
        content.revision AS content_revision, content.crawl_id AS content_crawl_id
    FROM webhook.index_generations AS generation
    LEFT JOIN unnest(CAST(:keys AS uuid[])) AS asked (key) ON generation.state = 'serving'
    LEFT JOIN webhook.documents AS known ON known.generation_id = generation.id AND known.key = asked.key
    LEFT JOIN webhook.document_contents AS content ON content.key = asked.key
    LEFT JOIN ({LATER_FINDINGS}) AS later ON later.document = asked.key
    WHERE generation.state IN ('serving', 'filling')
"""  # noqa: S608 - of a constant
)
_LOCK_SHARED = text("""
    SELECT CAST(pg_advisory_xact_lock_shared(7108, 4) AS text)
    UNION ALL SELECT CAST(pg_advisory_xact_lock(key) AS text) FROM unnest(CAST(:keys AS bigint[])) AS key
""")
LIMIT_LOCK_WAIT = "SET LOCAL lock_timeout = '5s'"
"""A transaction that waits for the exclusive lock blocks all later requests for the lock."""


class State(StrEnum):
    BUILDING = "filling"
    SERVING = "serving"
    RETIRED = "retired"
    """Searches no longer use it; it is dropped when those in progress are done."""
    DROPPED = "dropped"


@dataclass(frozen=True)
class Generation:
    id: int
    name: str
    fingerprint: str
    recipe: Recipe
    state: State
    problem: str | None
    created_at: datetime
    switched_at: datetime | None


@dataclass(frozen=True)
class Live:
    serving: Generation | None
    replacement: Generation | None
    """The one that a reindexing builds."""
    documents: Mapping[str, KnownDocument] = field(default_factory=dict)
    """The serving index's records of the requested documents, by URL."""
    contents: Mapping[str, KnownContent] = field(default_factory=dict)
    """The contents that programs brought of the requested documents, by URL."""
    answered_gone: Collection[str] = ()
    """Documents that any crawl found gone: see `freshness.LATER_FINDINGS`."""
    replaced: Collection[str] = ()
    """Documents of which another crawl found later what the index has."""

    @property
    def all(self) -> list[Generation]:
        return [each for each in (self.serving, self.replacement) if each]

    @property
    def outdated_recipe(self) -> Recipe | None:
        """The newest index's recipe, if an older version made other chunks or vectors by it."""
        newest = self.replacement or self.serving
        return newest.recipe if newest and newest.fingerprint != newest.recipe.fingerprint else None


async def live(
    connection: AsyncConnection, urls: Iterable[str] = (), pages: Sequence[FoundPage] = ()
) -> Live:
    """`urls` are documents, and `pages` lead to some of them."""
    by_key = {hash_key(url): url for url in urls}
    found = {
        "documents": [hash_key(page.url) for page in pages],
        "sources": [hash_key(page.source_url) for page in pages],
        "crawl_ids": [page.crawl_id for page in pages],
    }
    rows = (await connection.execute(_LIVE, {"keys": list(by_key), **found})).all()
    generations = {row.state: _generation(row, _recipe(row.embedder_json, row.chunk_tokens)) for row in rows}
    asked = [(by_key[row.key], row) for row in rows if row.key is not None]
    return Live(
        generations.get(State.SERVING),
        generations.get(State.BUILDING),
        {
            url: KnownDocument(
                *(row.content_hash, row.document_fingerprint, row.chunks, row.crawl_id, row.language),
                *(row.revision, row.error),
            )
            for url, row in asked
            if row.revision is not None
        },
        {
            url: KnownContent(row.content_revision == row.revision, row.content_crawl_id)
            for url, row in asked
            if row.content_revision is not None
        },
        [url for url, row in asked if row.answered_gone],
        [url for url, row in asked if row.replaced],
    )


async def lock_shared(
    connection: AsyncConnection, urls: Collection[str] = (), pages: Sequence[FoundPage] = ()
) -> Live:
    """Until the transaction ends no generation changes its state, and none other replaces the documents."""
    keys = [key.int & 0x7FFF_FFFF_FFFF_FFFF for key in sorted(map(hash_key, urls))]  # the order of locking
    await connection.execute(_LOCK_SHARED, {"keys": keys})
    return await live(connection, urls, pages)


async def lock_exclusively(connection: AsyncConnection) -> Live:
    """Waits for transactions that store documents; raises `DatabaseUnavailable` if one takes too long."""
    await connection.execute(text(LIMIT_LOCK_WAIT))
    try:
        await connection.execute(select(func.pg_advisory_xact_lock(*GENERATIONS_LOCK)))
    except DBAPIError as error:
        if sqlstate(error) != LOCK_NOT_AVAILABLE:
            raise
        raise DatabaseUnavailable("documents are being stored or removed: try again in a moment") from None
    return await live(connection)


async def ensure_serving(connection: AsyncConnection, recipe: Recipe) -> Generation:
    """The serving generation; adds one if there is none, or if it is empty and has another recipe."""
    serving = (await lock_exclusively(connection)).serving
    if serving is None:
        return await _add(connection, recipe, State.SERVING)
    if serving.fingerprint == recipe.fingerprint or (await documents.count(connection, serving.id)).chunks:
        return serving
    await _retire(connection, GENERATIONS.c.id == serving.id)
    added = await _add(connection, recipe, State.SERVING)
    await documents.move_all(connection, serving.id, added.id)
    return added


async def begin_reindexing(connection: AsyncConnection, recipe: Recipe) -> Generation:
    """The replacement that is built by this recipe; adds it if needed, and retires one of another recipe."""
    current = (await lock_exclusively(connection)).replacement
    if current and current.fingerprint == recipe.fingerprint:
        return current
    if current:
        await _retire(connection, GENERATIONS.c.id == current.id)
    await notify(connection, REINDEXING)
    return await _add(connection, recipe, State.BUILDING)


def reindexing_lock(database: Database) -> AbstractAsyncContextManager[bool]:
    """True if this process got the lock, of which there is one; it ends with the block or the process."""
    return database.alone(*REINDEXING_LOCK)


async def switch(connection: AsyncConnection, replacement_id: int) -> None:
    """Makes the replacement serve. The caller holds the lock by `lock_exclusively`."""
    await _retire(connection, GENERATIONS.c.state == State.SERVING)
    await connection.execute(
        update(GENERATIONS)
        .where(GENERATIONS.c.id == replacement_id)
        .values(state=State.SERVING, switched_at=func.now(), problem=None)
    )


async def claim_creation(connection: AsyncConnection, generation_id: int) -> bool:
    """True if the index still has to be created; no other process creates it before the transaction ends."""
    claimed = await connection.execute(
        update(GENERATIONS)
        .where(GENERATIONS.c.id == generation_id, GENERATIONS.c.made_at.is_(None))
        .values(made_at=func.now())
        .returning(GENERATIONS.c.id)
    )
    return claimed.one_or_none() is not None


async def set_problem(connection: AsyncConnection, generation_id: int, problem: str | None) -> None:
    await connection.execute(
        update(GENERATIONS)
        .where(GENERATIONS.c.id == generation_id, GENERATIONS.c.problem.is_distinct_from(problem))
        .values(problem=problem)
    )


async def retired(connection: AsyncConnection, for_seconds: float) -> list[Generation]:
    """The generations that were retired at least `for_seconds` ago and are not dropped yet."""
    rows = await connection.execute(
        select(*GENERATIONS.c).where(
            GENERATIONS.c.state == State.RETIRED,
            GENERATIONS.c.retired_at < func.now() - timedelta(seconds=for_seconds),
        )
    )
    return [_generation(row, Recipe.from_json(row.embedder, row.chunk_tokens)) for row in rows]


async def mark_dropped(connection: AsyncConnection, generation_id: int) -> None:
    """Deletes the record of its documents and words too."""
    await documents.delete_all(connection, generation_id)
    await vocabulary.delete_all(connection, generation_id)
    await connection.execute(
        update(GENERATIONS).where(GENERATIONS.c.id == generation_id).values(state=State.DROPPED)
    )


async def _add(connection: AsyncConnection, recipe: Recipe, state: State) -> Generation:
    newest = await connection.scalar(select(func.max(GENERATIONS.c.id))) or 0
    added = await connection.execute(
        insert(GENERATIONS)
        .values(
            id=newest + 1,
            name=f"{FIRST_NAME}-{newest + 1}" if newest else FIRST_NAME,
            fingerprint=recipe.fingerprint,
            embedder=recipe.embedder_to_json(),
            chunk_tokens=recipe.chunk_tokens,
            state=state,
            switched_at=func.now() if state is State.SERVING else None,
        )
        .returning(*GENERATIONS.c)
    )
    return _generation(added.one(), recipe)


async def _retire(connection: AsyncConnection, which: ColumnElement[bool]) -> None:
    await connection.execute(
        update(GENERATIONS).where(which).values(state=State.RETIRED, retired_at=func.now())
    )


@lru_cache
def _recipe(embedder: str, chunk_tokens: int) -> Recipe:
    return Recipe.from_json(json.loads(embedder), chunk_tokens)


def _generation(row: Row[*tuple[Any, ...]], recipe: Recipe) -> Generation:
    return Generation(
        id=row.id,
        name=row.name,
        fingerprint=row.fingerprint,
        recipe=recipe,
        state=State(row.state),
        problem=row.problem,
        created_at=row.created_at,
        switched_at=row.switched_at,
    )
