"""The job queue: pgqueuer's tables in a schema of their own, in the same database as everything else."""

import asyncio
import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
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
    literal,
    select,
    table,
    text,
)
from sqlalchemy.ext.asyncio import AsyncConnection

from crawlscope.database.engine import Database
from crawlscope.database.retention import BATCH_SIZE, Keep, Pruned, in_batches, prune_rows

QUEUE_SCHEMA = "queue"
_JOBS = table("pgqueuer", column("id"), column("status"), column("entrypoint"), schema=QUEUE_SCHEMA)
_LOG = table("pgqueuer_log", column("id"), column("created"), schema=QUEUE_SCHEMA)
KEEP_LOG = Keep(days=1)
"""The retention of pgqueuer's own log, which gets some rows for each job and is never read here."""
LOG_ROW_BYTES = 370
"""With its indexes."""
MAX_COUNTED = 1_000_000
"""Counting more jobs would take longer than a scrape may."""
COUNT_JOBS = text("""
    SELECT entrypoint, status::text AS state, count(*) AS jobs
    FROM (SELECT entrypoint, status FROM queue.pgqueuer LIMIT :max_counted) AS counted
    GROUP BY entrypoint, status
""")
OLDEST_JOB = text("""
    SELECT extract(epoch FROM now() - created)::float8 FROM queue.pgqueuer
    WHERE entrypoint = :queue AND status = 'queued' ORDER BY priority DESC, id LIMIT 1
""")
INDEX_PAGE = "index_page"
CRAWL_SITE = "crawl_site"
TABLE_CHANGED: Literal["table_changed_event"] = "table_changed_event"

REINDEXING, CHANGED_PAGES = "ch_reindexing", "ch_changed_pages"
"""Channels of what is not a job, and that a worker looks for by itself only now and then."""
CHANNELS = {INDEX_PAGE: "ch_pgqueuer", CRAWL_SITE: "ch_crawl_site"}
"""The channels of job notifications. The queue's own trigger notifies the first one of every change: on it,
workers that wait for a crawl would wake up for every page."""


@cache
def queue_settings(entrypoint: str = INDEX_PAGE) -> DBSettings:
    """Read once: pydantic's settings take milliseconds."""
    return DBSettings(db_schema=QUEUE_SCHEMA, channel=CHANNELS[entrypoint])


def queue_queries(driver: Driver, entrypoint: str = INDEX_PAGE) -> Queries:
    """pgqueuer's statements for workers of one kind of job."""
    settings = queue_settings(entrypoint)
    return Queries(
        driver,
        qbe=QueryBuilderEnvironment(settings),
        qbq=QueryQueueBuilder(settings),
        qbs=QuerySchedulerBuilder(settings),
    )


class SelectiveDriver(AsyncpgPoolDriver):
    """Passes on notifications of new jobs only while its worker wants one, and none of jobs that ended: each
    one costs several queries.
    """

    def __init__(self, pool: asyncpg.Pool) -> None:
        super().__init__(pool)
        self.wants_news: Callable[[], bool] = lambda: True
        self._callbacks: dict[str, NotifyCallback] = {}

    async def listen(self, channel: str) -> asyncio.Event:
        """An event that each notification sets."""
        news = asyncio.Event()
        await super().add_listener(channel, lambda _: news.set())
        return news

    async def add_listener(self, channel: str, callback: NotifyCallback) -> None:
        def pass_on(payload: str | bytes | bytearray) -> None:
            words = str(payload)
            if TABLE_CHANGED not in words or ('"delete"' not in words and self.wants_news()):
                callback(payload)

        self._callbacks[channel] = callback
        await super().add_listener(channel, pass_on)

    def poll_now(self, channel: str) -> None:
        """As if a notification had come. A manager that does not listen yet looks when it begins."""
        if callback := self._callbacks.get(channel):
            callback(_insert_notification(channel))


def schema_installation() -> list[str]:
    """The queue's tables, function and triggers, a statement each (the driver takes one at a time)."""
    script = QueryBuilderEnvironment(queue_settings()).build_install_query(create_schema=False)
    return re.split(r"\n\n(?=CREATE )", script)[1:]


def schema_removal() -> list[str]:
    return QueryBuilderEnvironment(queue_settings()).build_uninstall_query().splitlines()


def is_waiting(job_id: ColumnElement[int]) -> ColumnElement[bool]:
    """Whether no worker has taken the job yet."""
    return exists().where(_JOBS.c.id == job_id, cast(_JOBS.c.status, Text) == "queued")


def jobs_in_progress(entrypoint: str) -> ScalarSelect[int]:
    in_progress = (_JOBS.c.entrypoint == entrypoint, cast(_JOBS.c.status, Text) == "picked")
    return select(func.count()).select_from(_JOBS).where(*in_progress).scalar_subquery()


@dataclass(frozen=True)
class WaitingJobs:
    """The jobs of one kind."""

    queue: str
    by_state: Mapping[str, int]
    """How many wait (`queued`), are in progress (`picked`), or were given up by the queue (`failed`)."""
    oldest_seconds: float
    """Age of the oldest one that waits; 0 without one."""


async def jobs_in_queue(connection: AsyncConnection) -> list[WaitingJobs]:
    counted = (await connection.execute(COUNT_JOBS, {"max_counted": MAX_COUNTED})).all()
    found = []
    for queue in (INDEX_PAGE, CRAWL_SITE):
        by_state = {row.state: row.jobs for row in counted if row.entrypoint == queue}
        oldest = await connection.scalar(OLDEST_JOB, {"queue": queue})
        by_state = dict.fromkeys(("queued", "picked", "failed"), 0) | by_state
        found.append(WaitingJobs(queue, by_state, max(0.0, oldest or 0.0)))
    return found


async def drop_waiting_jobs(connection: AsyncConnection, jobs: Iterable[int | None]) -> None:
    """Leaves jobs in progress: their workers find out by themselves that there is nothing to do."""
    waiting = [job for job in jobs if job is not None]
    await connection.execute(
        delete(_JOBS).where(
            _JOBS.c.id == any_(cast(waiting, ARRAY(BigInteger))), cast(_JOBS.c.status, Text) != "picked"
        )
    )


async def drop_job(connection: AsyncConnection, job: int | None) -> None:
    """This includes one in progress, for the job of a worker that died."""
    await connection.execute(delete(_JOBS).where(_JOBS.c.id == job))


async def prune_log(database: Database, now: datetime, *, dry_run: bool = False) -> list[Pruned]:
    """pgqueuer never deletes what it logs."""
    logged = select(_LOG.c.created.label("at"), literal(LOG_ROW_BYTES).label("size"))
    return await prune_rows(
        database, "log of the queue", logged, in_batches(database, _drop_log), KEEP_LOG, now, dry_run=dry_run
    )


async def _drop_log(connection: AsyncConnection, before: datetime) -> int:
    oldest = select(_LOG.c.id).where(_LOG.c.created < before).order_by(_LOG.c.created).limit(BATCH_SIZE)
    return (await connection.execute(delete(_LOG).where(_LOG.c.id.in_(oldest)))).rowcount


async def enqueue(
    connection: AsyncConnection, entrypoint: str, payloads: Sequence[dict[str, Any]]
) -> list[int]:
    """Adds jobs in the connection's transaction; workers are notified when that commits. The jobs' ids."""
    if not payloads:
        return []
    raw = await connection.get_raw_connection()
    driver_connection: Any = raw.driver_connection
    queue = queue_queries(AsyncpgDriver(driver_connection), entrypoint)
    count = len(payloads)
    encoded: list[bytes | None] = [json.dumps(each).encode() for each in payloads]
    job_ids = await queue.enqueue([entrypoint] * count, encoded, [0] * count)
    if entrypoint != INDEX_PAGE:
        await queue.driver.notify(CHANNELS[entrypoint], _insert_notification(CHANNELS[entrypoint]))
    return list(map(int, job_ids))


async def notify(connection: AsyncConnection, channel: str) -> None:
    """When the transaction commits. It then waits for all others that notify: not for what each page does."""
    await connection.execute(select(func.pg_notify(channel, "")))


def _insert_notification(channel: str) -> str:
    """As the queue's trigger sends it."""
    return TableChangedEvent(
        type=TABLE_CHANGED,
        channel=Channel(channel),
        sent_at=datetime.now(UTC),
        operation="insert",
        table="pgqueuer",
    ).model_dump_json()
