"""Reports of all processes, in the database: what each counted is added to the totals every few seconds.

`/metrics` reads them there, because workers have no port, come and go, and run on any host. Totals continue
to grow after restarts. A process that is killed loses what it counted since its last report.
"""

import asyncio
import os
import socket
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any

import psutil
import structlog
from sqlalchemy import func, select, text
from sqlalchemy.ext.asyncio import AsyncConnection

from crawlscope import __version__, models
from crawlscope.core.errors import CrawlscopeError
from crawlscope.core.values import storable_json
from crawlscope.database.engine import Database
from crawlscope.database.revision import ALIVE, NEWEST
from crawlscope.timing.telemetry import conventions, meters
from crawlscope.timing.telemetry.meters import Series, Total, Totals

INTERVAL_SECONDS = 5.0
IDLE_INTERVALS = 2
"""Between two reports of a process that counted nothing."""
FORGOTTEN = timedelta(minutes=10)
PROCESSES = models.table_of(models.Process)
TOTALS = models.table_of(models.MetricTotal)
log = structlog.get_logger(__name__)

METRICS = {metric.name: metric for metric in conventions.COUNTED}
_ADD_TOTALS = """
    INSERT INTO webhook.metric_totals AS total (metric, labels, value, buckets)
    SELECT metric, labels, value, buckets
    FROM jsonb_to_recordset(CAST(:totals AS jsonb))
        AS given (metric text, labels text[], value float8, buckets bigint[])
    ORDER BY metric COLLATE "C", labels COLLATE "C"
    ON CONFLICT (metric, labels) DO UPDATE SET
        value = CASE WHEN cardinality(total.buckets) = cardinality(excluded.buckets)
            THEN total.value ELSE 0 END + excluded.value,
        buckets = CASE WHEN cardinality(total.buckets) = cardinality(excluded.buckets)
            THEN ARRAY(
                SELECT mine + theirs
                FROM unnest(total.buckets, excluded.buckets) WITH ORDINALITY AS pair (mine, theirs, number)
                ORDER BY number
            )
            ELSE excluded.buckets END
"""
"""In one order, because several processes add to the same rows. A version with other buckets begins anew."""
_REPORT = text(f"""
    WITH forgotten AS (
        DELETE FROM webhook.processes WHERE reported_at < now() - CAST(:forgotten AS interval)
    ), counted AS ({_ADD_TOTALS})
    INSERT INTO webhook.processes (name, kind, version, revision, started_at, memory_bytes)
    VALUES (:name, :kind, :version, :revision, :started_at, :memory_bytes)
    ON CONFLICT (name) DO UPDATE SET
        kind = excluded.kind, version = excluded.version, revision = excluded.revision,
        started_at = excluded.started_at, memory_bytes = excluded.memory_bytes, reported_at = now()
""")  # noqa: S608 - of a constant
_RECORD_OUTAGE = text("""
    INSERT INTO webhook.past_outages (part, worker, since, until, reason)
    VALUES ('database', :process, :since, greatest(:since, now()), :reason)
""")
_REMOVE_PROCESS = text("DELETE FROM webhook.processes WHERE name = :name")


@dataclass(frozen=True)
class KindOfProcess:
    """The processes of one kind and version that are alive."""

    kind: str
    version: str
    count: int
    memory_bytes: int


@asynccontextmanager
async def reported(database: Database, kind: str) -> AsyncIterator[None]:
    """Counts what the process does in the block, and reports it as one of this kind.

    While the database is unavailable the counts wait, and take no more memory.
    """
    totals, stopping = Totals(), asyncio.Event()
    reporter = _Reporter(database, kind, totals)
    with meters.use(totals):
        reporting = asyncio.create_task(reporter.report_until(stopping))
        try:
            yield
        finally:
            stopping.set()
            await reporting


class _Reporter:
    def __init__(self, database: Database, kind: str, totals: Totals) -> None:
        self._database = database
        self._kind = kind
        self._totals = totals
        self._name = _name_of_this_process()
        self._process = psutil.Process()
        self._cpu_seconds = 0.0

    async def report(self) -> bool:
        """Whether the process counted anything besides its processor time."""
        cpu_seconds = sum(self._process.cpu_times()[:2])
        self._totals.add(conventions.CPU, (self._kind,), cpu_seconds - self._cpu_seconds)
        self._cpu_seconds = cpu_seconds
        alive = {
            "name": self._name,
            "kind": self._kind,
            "version": __version__,
            "revision": NEWEST,
            "started_at": _started_at(os.getpid()),
            "memory_bytes": self._process.memory_info().rss,
            "forgotten": FORGOTTEN,
        }
        taken = self._totals.take()
        try:
            async with self._database.transaction() as connection:
                await connection.execute(_REPORT, alive | _encoded(taken))
        except Exception:
            self._totals.put_back(taken)
            raise
        return len(taken) > 1

    async def report_until(self, stopping: asyncio.Event) -> None:
        """Ends between two reports: a cancelled one may have been committed, and would be repeated.

        Records an outage of the database when it is over.
        """
        failed: dict[str, Any] | None = None
        while not stopping.is_set():
            seconds = INTERVAL_SECONDS
            try:
                if not await self.report():
                    seconds *= IDLE_INTERVALS
                if failed:
                    async with self._database.transaction() as connection:
                        await connection.execute(_RECORD_OUTAGE, failed)
                failed = None
            except Exception as error:  # noqa: BLE001 - monitoring must not end what it monitors
                reason = str(error) or type(error).__name__
                if failed is None:
                    log.warning("metrics_report_failed", reason=reason)
                    failed = {"process": _host_and_pid(), "since": datetime.now(UTC), "reason": reason}
            with suppress(TimeoutError):
                await asyncio.wait_for(stopping.wait(), seconds)
        with suppress(CrawlscopeError):
            await self.report()
            async with self._database.transaction() as connection:
                await connection.execute(_REMOVE_PROCESS, {"name": self._name})


async def is_oldest(connection: AsyncConnection) -> bool:
    """Whether this process started before all others that are alive: as a rule true of one at a time."""
    alive = PROCESSES.c.reported_at > func.now() - ALIVE
    oldest = select(PROCESSES.c.name).where(alive).order_by(PROCESSES.c.started_at, PROCESSES.c.name).limit(1)
    return await connection.scalar(oldest) == _name_of_this_process()


def _name_of_this_process() -> str:
    """Not that of a former process with the same id: versions before 0027 would keep its revision."""
    return f"{_host_and_pid()} since {_started_at(os.getpid()):%Y-%m-%d %H:%M:%S}"


def _host_and_pid() -> str:
    return f"{socket.gethostname()}:{os.getpid()}"


@cache
def _started_at(pid: int) -> datetime:
    """The same at each call: the system computes it from a clock that can be set."""
    return datetime.fromtimestamp(psutil.Process(pid).create_time(), UTC)


async def add_totals(connection: AsyncConnection, series: Series) -> None:
    """Locks the rows of the series until the commit."""
    if series:
        await connection.execute(text(_ADD_TOTALS), _encoded(series))


def _encoded(series: Series) -> dict[str, str]:
    rows = [
        {"metric": metric.name, "labels": labels, "value": total.value, "buckets": total.buckets}
        for (metric, labels), total in series.items()
    ]
    return {"totals": storable_json(rows)}


async def totals_of_all(connection: AsyncConnection) -> Series:
    """The counts of all processes, without those of another version with other labels or buckets."""
    found: Series = {}
    for row in await connection.execute(select(*TOTALS.c)):
        metric = METRICS.get(row.metric)
        if metric is None or len(row.labels) != len(metric.labels):
            continue
        if len(row.buckets) == (len(metric.buckets) + 1 if metric.buckets else 0):
            found[metric, tuple(row.labels)] = Total(row.value, row.buckets)
    return found


async def processes_alive(connection: AsyncConnection) -> Sequence[KindOfProcess]:
    alive = (
        select(
            PROCESSES.c.kind,
            PROCESSES.c.version,
            func.count().label("processes"),
            func.sum(PROCESSES.c.memory_bytes).label("memory_bytes"),
        )
        .where(PROCESSES.c.reported_at > func.now() - ALIVE)
        .group_by(PROCESSES.c.kind, PROCESSES.c.version)
    )
    rows = await connection.execute(alive)
    return [KindOfProcess(row.kind, row.version, row.processes, int(row.memory_bytes)) for row in rows]
