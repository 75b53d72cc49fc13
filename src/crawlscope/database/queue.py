"""The job queue: pgqueuer's tables in a schema of their own, in the same database as everything else."""

import json
import re
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from functools import cache
from typing import Any, Literal

import asyncpg
from pgqueuer.adapters.persistence.qb import (
    QueryBuilderEnvironment,
    QueryQueueBuilder,
    QuerySchedulerBuilder,
)
from pgqueuer.db import AsyncpgDriver, AsyncpgPoolDriver, Driver
from pgqueuer.domain.settings import DBSettings
from pgqueuer.models import TableChangedEvent
from pgqueuer.ports.driver import NotifyCallback
from pgqueuer.queries import Queries
from pgqueuer.types import Channel
from sqlalchemy import (
    ARRAY,
    BigInteger,
    ColumnElement,
    ScalarSelect,
    Text,
    any_,
    cast,
    column,
    delete,
    exists,
    func,
    select,
    table,
)
from sqlalchemy.ext.asyncio import AsyncConnection

QUEUE_SCHEMA = "queue"
_JOBS = table("pgqueuer", column("id"), column("status"), column("entrypoint"), schema=QUEUE_SCHEMA)
INDEX_PAGE = "index_page"
CRAWL_SITE = "crawl_site"
JOB_NEWS: Literal["table_changed_event"] = "table_changed_event"


CHANNELS = {INDEX_PAGE: "ch_pgqueuer", CRAWL_SITE: "ch_crawl_site"}
"""Where workers of each kind hear of jobs. The queue's own trigger tells of every change on the first: who
waits for a crawl to run would wake with every page."""


@cache
def queue_settings(entrypoint: str = INDEX_PAGE) -> DBSettings:
    """Read once: pydantic's settings take milliseconds."""
    return DBSettings(db_schema=QUEUE_SCHEMA, channel=CHANNELS[entrypoint])


def queue_queries(driver: Driver, entrypoint: str = INDEX_PAGE) -> Queries:
    """The queue as workers for one kind of job see it."""
    settings = queue_settings(entrypoint)
    return Queries(
        driver,
        qbe=QueryBuilderEnvironment(settings),
        qbq=QueryQueueBuilder(settings),
        qbs=QuerySchedulerBuilder(settings),
    )


class AttentiveDriver(AsyncpgPoolDriver):
    """Passes on news of jobs only while its worker has a hand free: each piece costs several queries."""

    def __init__(self, pool: asyncpg.Pool, has_hand_free: Callable[[], bool]) -> None:
        super().__init__(pool)
        self._has_hand_free = has_hand_free
        self._callbacks: dict[str, NotifyCallback] = {}

    async def add_listener(self, channel: str, callback: NotifyCallback) -> None:
        def attentive(payload: str | bytes | bytearray) -> None:
            if self._has_hand_free() or JOB_NEWS not in str(payload):
                callback(payload)

        self._callbacks[channel] = callback
        await super().add_listener(channel, attentive)

    def look_again(self, channel: str) -> None:
        """As if news had come: for a worker that has just finished a job."""
        self._callbacks[channel](_job_added(channel))


def schema_installation() -> list[str]:
    """The queue's tables, function and triggers, a statement each (the driver takes one at a time)."""
    script = QueryBuilderEnvironment(queue_settings()).build_install_query(create_schema=False)
    return re.split(r"\n\n(?=CREATE )", script)[1:]


def schema_removal() -> list[str]:
    return QueryBuilderEnvironment(queue_settings()).build_uninstall_query().splitlines()


def is_waiting(job_id: ColumnElement[int]) -> ColumnElement[bool]:
    """Whether no worker has taken the job yet."""
    return exists().where(_JOBS.c.id == job_id, cast(_JOBS.c.status, Text) == "queued")


def jobs_in_hand(entrypoint: str) -> ScalarSelect[int]:
    in_hand = (_JOBS.c.entrypoint == entrypoint, cast(_JOBS.c.status, Text) == "picked")
    return select(func.count()).select_from(_JOBS).where(*in_hand).scalar_subquery()


async def drop_waiting_jobs(connection: AsyncConnection, jobs: Iterable[int | None]) -> None:
    """Leaves a job that is being done: its worker finds out by itself that there is nothing to do."""
    waiting = [job for job in jobs if job is not None]
    await connection.execute(
        delete(_JOBS).where(
            _JOBS.c.id == any_(cast(waiting, ARRAY(BigInteger))), cast(_JOBS.c.status, Text) != "picked"
        )
    )


async def drop_job(connection: AsyncConnection, job: int | None) -> None:
    """Also one that is being done: for the job of a worker that died."""
    await connection.execute(delete(_JOBS).where(_JOBS.c.id == job))


async def enqueue(connection: AsyncConnection, entrypoint: str, order: dict[str, Any]) -> int:
    """Adds a job on the connection of a transaction: it commits with it, and workers hear of it then."""
    raw = await connection.get_raw_connection()
    driver_connection: Any = raw.driver_connection
    queue = queue_queries(AsyncpgDriver(driver_connection), entrypoint)
    [job_id] = await queue.enqueue(entrypoint, json.dumps(order).encode())
    if entrypoint != INDEX_PAGE:
        await queue.driver.notify(CHANNELS[entrypoint], _job_added(CHANNELS[entrypoint]))
    return int(job_id)


def _job_added(channel: str) -> str:
    """What the queue's trigger would say."""
    return TableChangedEvent(
        type=JOB_NEWS,
        channel=Channel(channel),
        sent_at=datetime.now(UTC),
        operation="insert",
        table="pgqueuer",
    ).model_dump_json()
