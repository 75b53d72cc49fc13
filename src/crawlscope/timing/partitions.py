"""The monthly partitions of operations and requests: made ahead of time, and dropped as a whole.

A measurement of a month without a partition goes to the default partition, until its month is made.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import TypeVar

from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection

from crawlscope.core.errors import DatabaseUnavailable
from crawlscope.database.engine import LOCK_NOT_AVAILABLE, Database, sqlstate

T = TypeVar("T")

TABLES = ("operation_metrics", "request_metrics")
MONTHS_AHEAD = 2
LOCK = 7_108_201_427
"""Key of the advisory lock that lets one process change partitions while the others wait."""

_PARTITIONS = text(r"""
    SELECT name, (regexp_match(bounds, 'FROM \(''(.+?)''\)'))[1]::timestamptz AS since,
        (regexp_match(bounds, 'TO \(''(.+?)''\)'))[1]::timestamptz AS until, rows, bytes
    FROM (
        SELECT c.relname AS name, pg_get_expr(c.relpartbound, c.oid) AS bounds,
            greatest(c.reltuples, 0)::bigint AS rows, pg_total_relation_size(c.oid) AS bytes
        FROM pg_inherits JOIN pg_class c ON c.oid = inhrelid
        WHERE inhparent = CAST(:table AS regclass)
    ) partitions
    ORDER BY until
""")


@dataclass(frozen=True)
class Partition:
    name: str
    since: datetime | None
    """None for the rows of any time before `until`."""
    until: datetime | None
    """None for the default partition."""
    rows: int
    """By the server's estimate."""
    bytes: int
    """With indexes."""

    def covers(self, moment: datetime) -> bool:
        return self.until is not None and (self.since is None or self.since <= moment) and moment < self.until


async def partitions_of(connection: AsyncConnection, table: str) -> list[Partition]:
    """The oldest first, the default partition last."""
    found = await connection.execute(_PARTITIONS, {"table": f"webhook.{table}"})
    return [Partition(*row) for row in found]


async def make_partitions(database: Database, now: datetime) -> list[str]:
    """Makes those of this month, of the next ones, and of the months in the default partitions; returns their
    names. Months that are further ahead, which a wrong clock has made, stay in the default partition.
    """
    made = []
    for table in TABLES:
        for month in await database.run(partial(_missing, table=table, now=now)):
            await change(database, partial(_make, table=table, month=month))
            made.append(_name(table, month))
    return made


async def change(database: Database, work: Callable[[AsyncConnection], Awaitable[T]]) -> T:
    """Runs `work` in a transaction, one process at a time.

    Raises `DatabaseUnavailable` if it waits longer than 2 s for a lock: all writers wait behind it.
    """

    async def alone(connection: AsyncConnection) -> T:
        await connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": LOCK})
        await connection.execute(text("SET LOCAL lock_timeout TO '2s'"))
        return await work(connection)

    try:
        return await database.run(alone)
    except DBAPIError as error:
        if sqlstate(error) != LOCK_NOT_AVAILABLE:
            raise
        raise DatabaseUnavailable("a transaction uses the tables of measurements for long") from None


async def _missing(connection: AsyncConnection, table: str, now: datetime) -> list[datetime]:
    months = {month_after(now, number) for number in range(MONTHS_AHEAD + 1)}
    waiting = f"SELECT DISTINCT date_trunc('month', timestamp, 'UTC') FROM webhook.{table}_default"  # noqa: S608
    found = set(await connection.scalars(text(waiting)))
    months |= {month for month in found if month < max(months)}
    existing = await partitions_of(connection, table)
    return sorted(month for month in months if not any(each.covers(month) for each in existing))


async def _make(connection: AsyncConnection, table: str, month: datetime) -> None:
    """As a table of its own that is then attached, so that other months can be read and written meanwhile."""
    if any(each.covers(month) for each in await partitions_of(connection, table)):
        return
    partition, default = f"webhook.{_name(table, month)}", f"webhook.{table}_default"
    since, until = month.isoformat(), month_after(month).isoformat()
    bounds = f"FOR VALUES FROM ('{since}') TO ('{until}')"
    locks = [f"LOCK TABLE {default} IN ACCESS EXCLUSIVE MODE"]
    if table == "operation_metrics":  # attaching it adds a reference to the sessions
        locks.insert(0, "LOCK TABLE webhook.crawl_sessions IN SHARE ROW EXCLUSIVE MODE")
    moved = f"DELETE FROM {default} WHERE timestamp >= '{since}' AND timestamp < '{until}' RETURNING *"  # noqa: S608
    for statement in (
        f"CREATE TABLE {partition} (LIKE webhook.{table} INCLUDING ALL)",
        *locks,
        f"WITH moved AS ({moved}) INSERT INTO {partition} SELECT * FROM moved",  # noqa: S608
        f"ALTER TABLE webhook.{table} ATTACH PARTITION {partition} {bounds}",
    ):
        await connection.execute(text(statement))


def month_after(moment: datetime, months: int = 1) -> datetime:
    """The beginning of the month that is so many months after the month of `moment`, in UTC."""
    at = moment.astimezone(UTC)
    number = at.year * 12 + at.month - 1 + months
    return datetime(number // 12, number % 12 + 1, 1, tzinfo=UTC)


def _name(table: str, month: datetime) -> str:
    return f"{table}_{month.year:04}_{month.month:02}"
