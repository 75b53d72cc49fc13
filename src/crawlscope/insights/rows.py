"""Runs the statements of `queries`."""

from collections.abc import Sequence

from sqlalchemy import RowMapping
from sqlalchemy.ext.asyncio import AsyncConnection

from crawlscope.insights.queries import Rows


async def rows_of(connection: AsyncConnection, statement: Rows) -> Sequence[RowMapping]:
    return (await connection.execute(statement)).mappings().all()


async def row_of(connection: AsyncConnection, statement: Rows) -> RowMapping:
    return (await connection.execute(statement)).mappings().one()


async def by_crawl(connection: AsyncConnection, statement: Rows) -> dict[str, RowMapping]:
    return {row["crawl_id"]: row for row in await rows_of(connection, statement)}
