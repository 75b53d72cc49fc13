"""The state of the whole installation at one moment, at a cost that does not grow with its records."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncConnection

from crawlscope.core.vocabulary import CrawlStatus
from crawlscope.database.queue import WaitingJobs, jobs_in_queue
from crawlscope.insights.queries import NOTIFICATIONS, OUTAGES, SESSIONS, Rows, rows_of
from crawlscope.insights.service import OUTAGE_REPORT_LASTS
from crawlscope.timing.telemetry.meters import Series
from crawlscope.timing.telemetry.reports import KindOfProcess, processes_alive, totals_of_all


@dataclass(frozen=True)
class Fleet:
    totals: Series
    """What all processes have counted since the first start."""
    processes: Sequence[KindOfProcess]
    jobs: Sequence[WaitingJobs]
    crawls_in_progress: int
    waiting_workers: Mapping[str, int]
    """Per dependency that workers wait for."""
    notifications_pending: int
    database_bytes: int


async def fleet(connection: AsyncConnection) -> Fleet:
    return Fleet(
        totals=await totals_of_all(connection),
        processes=await processes_alive(connection),
        jobs=await jobs_in_queue(connection),
        crawls_in_progress=await connection.scalar(crawls_in_progress()) or 0,
        waiting_workers={row["part"]: row["workers"] for row in await rows_of(connection, waiting_workers())},
        notifications_pending=await connection.scalar(notifications_pending()) or 0,
        database_bytes=await connection.scalar(select(func.pg_database_size(func.current_database()))) or 0,
    )


def crawls_in_progress() -> Rows:
    return select(func.count()).where(SESSIONS.c.status == CrawlStatus.IN_PROGRESS)


def waiting_workers() -> Rows:
    reported_lately = OUTAGES.c.reported_at >= func.now() - OUTAGE_REPORT_LASTS
    workers = func.count(OUTAGES.c.worker.distinct()).label("workers")
    return select(OUTAGES.c.part, workers).where(reported_lately).group_by(OUTAGES.c.part)


def notifications_pending() -> Rows:
    return select(func.count()).where(NOTIFICATIONS.c.delivered_at.is_(None), ~NOTIFICATIONS.c.dead)
