"""The state of the whole installation at one moment, at a cost that does not grow with its records."""

from dataclasses import dataclass

from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncConnection

from crawlscope.core.vocabulary import CrawlStatus
from crawlscope.database.queue import jobs_in_queue
from crawlscope.insights.course import OUTAGE_REPORT_LASTS
from crawlscope.insights.queries import NOTIFICATIONS, OUTAGES, SESSIONS, Rows, rows_of
from crawlscope.timing.telemetry import conventions
from crawlscope.timing.telemetry.meters import Gauges, Series
from crawlscope.timing.telemetry.reports import processes_alive, totals_of_all


@dataclass(frozen=True)
class InstallationMetrics:
    totals: Series
    """The counts of all processes since the first start."""
    gauges: Gauges


async def installation_metrics(connection: AsyncConnection) -> InstallationMetrics:
    gauges: Gauges = {
        (conventions.CRAWLS_IN_PROGRESS, ()): await connection.scalar(crawls_in_progress()) or 0,
        (conventions.NOTIFICATIONS_PENDING, ()): await connection.scalar(notifications_pending()) or 0,
        (conventions.DATABASE_BYTES, ()): await connection.scalar(database_bytes()) or 0,
    }
    for jobs in await jobs_in_queue(connection):
        gauges[conventions.OLDEST_JOB, (jobs.queue,)] = jobs.oldest_seconds
        for state, count in jobs.by_state.items():
            gauges[conventions.JOBS, (jobs.queue, state)] = count
    waiting = {row["part"]: row["workers"] for row in await rows_of(connection, waiting_workers())}
    for dependency, workers in ({"database": 0, "embedder": 0, "index": 0} | waiting).items():
        gauges[conventions.WAITING, (dependency,)] = workers
    for process in await processes_alive(connection):
        gauges[conventions.PROCESSES, (process.kind, process.version)] = process.count
        gauges[conventions.MEMORY_BYTES, (process.kind, process.version)] = process.memory_bytes
    return InstallationMetrics(await totals_of_all(connection), gauges)


def crawls_in_progress() -> Rows:
    return select(func.count()).where(SESSIONS.c.status == CrawlStatus.IN_PROGRESS)


def waiting_workers() -> Rows:
    reported_lately = OUTAGES.c.reported_at >= func.now() - OUTAGE_REPORT_LASTS
    workers = func.count(OUTAGES.c.worker.distinct()).label("workers")
    return select(OUTAGES.c.part, workers).where(reported_lately).group_by(OUTAGES.c.part)


def notifications_pending() -> Rows:
    return select(func.count()).where(NOTIFICATIONS.c.delivered_at.is_(None), ~NOTIFICATIONS.c.dead)


def database_bytes() -> Rows:
    return select(func.pg_database_size(func.current_database()))
