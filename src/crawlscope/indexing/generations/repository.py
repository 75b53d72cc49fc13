"""The SQL of index generations: which index serves, which one is being filled beside it, and the change over.

A store holds the generations with others; the change over holds them alone. So no page is stored by the old
order of things once the new one holds.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any

from sqlalchemy import Row, delete, func, insert, select, text, update
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection

from crawlscope import models
from crawlscope.core.errors import DatabaseUnavailable
from crawlscope.database.engine import Database, sqlstate, translated_errors
from crawlscope.indexing.generations.recipe import Recipe
from crawlscope.indexing.index.port import FIRST_NAME

DOCUMENTS = models.table_of(models.Document)
GENERATIONS = models.table_of(models.IndexGeneration)
LOCK = (7_108, 4)
"""Key of the advisory lock on which index is which."""
FILLERS_LOCK = (7_108, 5)
"""Key of the advisory lock of the process that fills."""
PATIENCE = "SET LOCAL lock_timeout = '5s'"
"""Who waits for the lock alone holds up all who come after."""
LOCK_NOT_AVAILABLE = "55P03"


class State(StrEnum):
    FILLING = "filling"
    SERVING = "serving"
    RETIRED = "retired"
    """No longer asked; dropped when nobody can be in the middle of asking it."""
    DROPPED = "dropped"


LIVE = (State.SERVING, State.FILLING)


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
    filling: Generation | None

    @property
    def all(self) -> list[Generation]:
        return [each for each in (self.serving, self.filling) if each]


@dataclass(frozen=True)
class Holding:
    """What the database says that an index holds."""

    documents: int
    chunks: int
    failed: int
    """Documents that an earlier index had and this one could not take."""


async def hold(connection: AsyncConnection) -> Live:
    """Until the commit none of them changes its state."""
    await connection.execute(select(func.pg_advisory_xact_lock_shared(*LOCK)))
    return await live(connection)


async def live(connection: AsyncConnection) -> Live:
    rows = await connection.execute(select(*GENERATIONS.c).where(GENERATIONS.c.state.in_(LIVE)))
    by_state = {row.state: _generation(row) for row in rows}
    return Live(by_state.get(State.SERVING), by_state.get(State.FILLING))


def outdated(live: Live) -> Recipe | None:
    """The recipe of the newest index, where an older version of the program made something else of it."""
    newest = live.filling or live.serving
    return newest.recipe if newest and newest.fingerprint != newest.recipe.fingerprint else None


async def holding(connection: AsyncConnection, generation_id: int) -> Holding:
    held = DOCUMENTS.c.error.is_(None)
    row = (
        await connection.execute(
            select(
                func.count().filter(held),
                func.coalesce(func.sum(DOCUMENTS.c.chunks).filter(held), 0),
                func.count().filter(~held),
            ).where(DOCUMENTS.c.generation_id == generation_id)
        )
    ).one()
    return Holding(row[0], int(row[1]), row[2])


async def ensure_serving(connection: AsyncConnection, recipe: Recipe) -> Generation:
    """The serving one: a new one where there is none, or where it is empty and made by another recipe."""
    await _hold_alone(connection)
    current = (await live(connection)).serving
    if current is None:
        return await _add(connection, recipe, State.SERVING)
    if current.fingerprint == recipe.fingerprint or (await holding(connection, current.id)).chunks:
        return current
    await _retire(connection, current.id)
    made = await _add(connection, recipe, State.SERVING)
    await connection.execute(
        update(DOCUMENTS).where(DOCUMENTS.c.generation_id == current.id).values(generation_id=made.id)
    )
    return made


async def begin_filling(connection: AsyncConnection, recipe: Recipe) -> Generation:
    """The one that is being filled by this recipe already, else a new one; another recipe's is given up."""
    await _hold_alone(connection)
    current = (await live(connection)).filling
    if current and current.fingerprint == recipe.fingerprint:
        return current
    if current:
        await _retire(connection, current.id)
    return await _add(connection, recipe, State.FILLING)


async def claim_making(connection: AsyncConnection, generation_id: int) -> bool:
    """Whether its index is still to be made, which nobody else does until the commit."""
    claimed = await connection.execute(
        update(GENERATIONS)
        .where(GENERATIONS.c.id == generation_id, GENERATIONS.c.made_at.is_(None))
        .values(made_at=func.now())
        .returning(GENERATIONS.c.id)
    )
    return claimed.one_or_none() is not None


async def change_over(connection: AsyncConnection, filled: int) -> None:
    """Makes the filled one serve. The caller holds the generations alone, by `hold_for_change_over`."""
    await connection.execute(
        update(GENERATIONS)
        .where(GENERATIONS.c.state == State.SERVING)
        .values(state=State.RETIRED, retired_at=func.now())
    )
    await connection.execute(
        update(GENERATIONS)
        .where(GENERATIONS.c.id == filled)
        .values(state=State.SERVING, switched_at=func.now(), problem=None)
    )


async def hold_for_change_over(connection: AsyncConnection) -> Live:
    """Waits for stores in progress; raises `DatabaseUnavailable` where one takes too long."""
    await _hold_alone(connection)
    return await live(connection)


async def note_problem(connection: AsyncConnection, generation_id: int, problem: str | None) -> None:
    await connection.execute(
        update(GENERATIONS)
        .where(GENERATIONS.c.id == generation_id, GENERATIONS.c.problem.is_distinct_from(problem))
        .values(problem=problem)
    )


@asynccontextmanager
async def sole_filler(database: Database) -> AsyncIterator[bool]:
    """Whether nobody else fills; then nobody will until the end of the block, or of this process."""
    with translated_errors():
        async with database.engine.connect() as connection:
            lasting = await connection.execution_options(isolation_level="AUTOCOMMIT")
            try:
                yield bool(await lasting.scalar(select(func.pg_try_advisory_lock(*FILLERS_LOCK))))
            finally:
                await connection.invalidate()  # the lock ends with its session


async def retired(connection: AsyncConnection, for_seconds: float) -> list[Generation]:
    """Those whose index can be dropped by now."""
    rows = await connection.execute(
        select(*GENERATIONS.c).where(
            GENERATIONS.c.state == State.RETIRED,
            GENERATIONS.c.retired_at < func.now() - timedelta(seconds=for_seconds),
        )
    )
    return [_generation(row) for row in rows]


async def note_dropped(connection: AsyncConnection, generation_id: int) -> None:
    """Locks its documents in the order in which those of a crawl are, lest both wait for each other."""
    its_own = DOCUMENTS.c.generation_id == generation_id
    in_order = select(DOCUMENTS.c.key).where(its_own).order_by(DOCUMENTS.c.key).with_for_update()
    await connection.execute(delete(DOCUMENTS).where(its_own, DOCUMENTS.c.key.in_(in_order)))
    await connection.execute(
        update(GENERATIONS).where(GENERATIONS.c.id == generation_id).values(state=State.DROPPED)
    )


async def _hold_alone(connection: AsyncConnection) -> None:
    await connection.execute(text(PATIENCE))
    try:
        await connection.execute(select(func.pg_advisory_xact_lock(*LOCK)))
    except DBAPIError as error:
        if sqlstate(error) != LOCK_NOT_AVAILABLE:
            raise
        raise DatabaseUnavailable("documents are being stored or removed: try again in a moment") from None


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
    return _generation(added.one())


async def _retire(connection: AsyncConnection, generation_id: int) -> None:
    await connection.execute(
        update(GENERATIONS)
        .where(GENERATIONS.c.id == generation_id)
        .values(state=State.RETIRED, retired_at=func.now())
    )


def _generation(row: Row[Any]) -> Generation:
    return Generation(
        id=row.id,
        name=row.name,
        fingerprint=row.fingerprint,
        recipe=Recipe.from_json(row.embedder, row.chunk_tokens),
        state=State(row.state),
        problem=row.problem,
        created_at=row.created_at,
        switched_at=row.switched_at,
    )
