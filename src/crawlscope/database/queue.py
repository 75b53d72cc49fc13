"""The job queue: pgqueuer's tables in a schema of their own, in the same database as everything else."""

import re
from collections.abc import Iterable
from typing import Any

from pgqueuer.adapters.persistence.qb import (
    QueryBuilderEnvironment,
    QueryQueueBuilder,
    QuerySchedulerBuilder,
)
from pgqueuer.db import AsyncpgDriver, Driver
from pgqueuer.domain.settings import DBSettings
from pgqueuer.queries import Queries
from sqlalchemy import ARRAY, BigInteger, Text, any_, cast, column, delete, table
from sqlalchemy.ext.asyncio import AsyncConnection

QUEUE_SCHEMA = "queue"
_JOBS = table("pgqueuer", column("id"), column("status"), schema=QUEUE_SCHEMA)
INDEX_PAGE = "index_page"
CRAWL_SITE = "crawl_site"


def queue_settings() -> DBSettings:
    return DBSettings(db_schema=QUEUE_SCHEMA)


def queue_queries(driver: Driver) -> Queries:
    settings = queue_settings()
    return Queries(
        driver,
        qbe=QueryBuilderEnvironment(settings),
        qbq=QueryQueueBuilder(settings),
        qbs=QuerySchedulerBuilder(settings),
    )


def schema_installation() -> list[str]:
    """The queue's tables, function and triggers, a statement each (the driver takes one at a time)."""
    script = QueryBuilderEnvironment(queue_settings()).build_install_query(create_schema=False)
    return re.split(r"\n\n(?=CREATE )", script)[1:]


def schema_removal() -> list[str]:
    return QueryBuilderEnvironment(queue_settings()).build_uninstall_query().splitlines()


async def drop_waiting_jobs(connection: AsyncConnection, jobs: Iterable[int | None]) -> None:
    """Leaves a job that is being done: its worker finds out by itself that there is nothing to do."""
    waiting = [job for job in jobs if job is not None]
    await connection.execute(
        delete(_JOBS).where(
            _JOBS.c.id == any_(cast(waiting, ARRAY(BigInteger))), cast(_JOBS.c.status, Text) != "picked"
        )
    )


async def queries_within(connection: AsyncConnection) -> Queries:
    """The queue on the connection of a transaction that is under way: jobs commit with it."""
    raw = await connection.get_raw_connection()
    driver_connection: Any = raw.driver_connection
    return queue_queries(AsyncpgDriver(driver_connection))
