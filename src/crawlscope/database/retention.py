"""How long the rows of a table are kept: what all prunings have in common."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Select, func, select
from sqlalchemy.ext.asyncio import AsyncConnection

from crawlscope.database.engine import Database

BATCH_SIZE = 1_000
"""Rows of one transaction: small ones, so that writers need not wait."""


@dataclass(frozen=True)
class Keep:
    """Limits of age and size; None: no limit."""

    days: int | None = None
    bytes: int | None = None

    def since(self, now: datetime) -> datetime | None:
        return now - timedelta(days=self.days) if self.days is not None else None


@dataclass(frozen=True)
class Pruned:
    """The rows that were deleted, or would be."""

    what: str
    rows: int
    bytes: int


async def prune_rows(
    database: Database,
    what: str,
    rows: Select[Any],
    drop: Callable[[datetime], Awaitable[None]],
    keep: Keep,
    now: datetime,
    *,
    dry_run: bool = False,
) -> list[Pruned]:
    """Deletes the oldest of `rows`, which have the columns `at` and `size` (bytes), until `keep` holds.

    `drop` deletes those before a moment.
    """
    kept = rows.subquery()
    async with database.transaction() as connection:
        moments = [since] if (since := keep.since(now)) else []
        if keep.bytes is not None:
            newer = select(kept.c.at, func.sum(kept.c.size).over(order_by=kept.c.at.desc()).label("total"))
            summed = newer.subquery()
            last = await connection.scalar(select(func.max(summed.c.at)).where(summed.c.total > keep.bytes))
            moments += [last + timedelta(microseconds=1)] if last else []
        if not moments:
            return []
        before = max(moments)
        totals = select(func.count(), func.coalesce(func.sum(kept.c.size), 0)).where(kept.c.at < before)
        count, size = (await connection.execute(totals)).one()
    if count and not dry_run:
        await drop(before)
    return [Pruned(what, count, int(size))] if count else []


def in_batches(
    database: Database, drop: Callable[[AsyncConnection, datetime], Awaitable[int]]
) -> Callable[[datetime], Awaitable[None]]:
    """Deletes all rows before a moment by `drop`, which deletes a batch and returns how many there were."""

    async def drop_all(before: datetime) -> None:
        while await database.run(lambda connection: drop(connection, before)):
            pass

    return drop_all
