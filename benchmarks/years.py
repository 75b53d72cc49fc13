"""A year of crawls: what its records take, before and after retention, and whether answers stay fast.

    python -m benchmarks.years [--quick] [--operations N] [--rounds N] [--json FILE]

Four crawls a day of four sites. Deliveries, operations and requests go through the service's own writers,
with times of the past; a second database gets the last month alone. Both are asked the same in turns.
Retention then keeps 90 days, while a writer goes on measuring. It must change no total of a crawl.
"""

import asyncio
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from random import Random

from sqlalchemy import text

from benchmarks.part import Options, Row, number, run_alone
from benchmarks.recorded import STAGES, Comparison, Question, event, operation, seconds, two_databases, vacuum
from crawlscope.core.settings import Settings
from crawlscope.core.vocabulary import OperationType
from crawlscope.database.engine import Database
from crawlscope.database.retention import Pruned
from crawlscope.insights.service import Insights
from crawlscope.processes.maintenance.retention import prune
from crawlscope.sessions.hours import sum_up_hours
from crawlscope.sessions.recount import recount
from crawlscope.timing import TimingContext
from crawlscope.timing.partitions import make_partitions, month_after
from crawlscope.timing.store import RequestRecord, record_operations, record_requests
from crawlscope.webhooks.acceptance import accept_delivery

PART = "years"
OPERATIONS, QUICK_OPERATIONS = 500_000, 50_000
DAYS, KEPT_DAYS, MONTH = 365, 90, timedelta(days=31)
MONTH_HOURS = 24 * MONTH.days
CRAWLS_A_DAY = 4
SITES = 4
MAX_GROWTH = 1.5
"""The maximum growth of an answer's time, when twelve times as much is stored."""
MAX_WAIT_MS = 2_500.0
"""A month is dropped between writes, and waits for one at most 2 s."""
WRITERS = 4
PAGES_AT_ONCE = 200
PAGE_MS = 50
RECOUNTED = 20
SIZE = """
SELECT coalesce(sum(pg_total_relation_size(oid)), 0) FROM pg_class
WHERE relnamespace = 'webhook'::regnamespace AND relname LIKE :tables AND relkind = 'r'
"""


@dataclass(frozen=True)
class Crawl:
    crawl_id: str
    site: str
    began_at: datetime
    pages: int

    @property
    def ended_at(self) -> datetime:
        return self.began_at + timedelta(milliseconds=PAGE_MS * self.pages)


async def measure(options: Options) -> Sequence[Row]:
    operations = options.operations or (QUICK_OPERATIONS if options.quick else OPERATIONS)
    rounds, now = options.rounds_or(15), datetime.now(UTC)
    crawls = planned(operations, now)
    async with two_databases("year", "month") as (year, month):
        return await _measured(year, month, crawls, now, rounds)


def planned(operations: int, now: datetime) -> list[Crawl]:
    count = DAYS * CRAWLS_A_DAY
    pages = max(1, round(operations / count / len(STAGES)))
    began = [now - timedelta(days=DAYS - each / CRAWLS_A_DAY) for each in range(count)]
    return [
        Crawl(f"crawl-{each}", f"https://{each % SITES}.example.com/", at, pages)
        for each, at in enumerate(began)
    ]


async def _measured(
    year: Database, month: Database, crawls: Sequence[Crawl], now: datetime, rounds: int
) -> list[Row]:
    latest = [each for each in crawls if each.began_at >= now - MONTH]
    operations = sum(each.pages for each in crawls) * len(STAGES)
    of_month = sum(each.pages for each in latest) * len(STAGES)
    await write(month, latest, now)
    written = await seconds(write(year, crawls, now))
    await sum_up(month)
    summed = await seconds(sum_up(year))
    rows = [
        Row(PART, "an operation, written", written / operations * 1e6, "µs", f"{operations:,} operations"),
        Row(PART, "– summed up by hour", summed / operations * 1e6, "µs"),
        *await sizes(year, operations, "before"),
        *await compared(year, month, latest[-1].crawl_id, rounds, "before"),
    ]
    deletion = await seconds(delete_operations(month)) / of_month
    before = await size(year, "%")
    pruned, taken, waited = await pruned_while_written(year, latest[-1].crawl_id, now)
    dropped = [each.rows for each in pruned if each.what.startswith("operation")]
    await require_exact(year, crawls)
    pace = taken / max(1, sum(dropped))
    many, against = (
        f"{len(dropped)} months, {sum(dropped):,} operations",
        f"DELETE {number(deletion * 1e6)} µs",
    )
    return [
        *rows,
        Row(PART, "retention", taken, "s", many),
        Row(PART, "– an operation", pace * 1e6, "µs", against, pace / deletion),
        Row(PART, "– slowest write meanwhile", waited * 1000, "ms", at_most=MAX_WAIT_MS),
        Row(PART, "tables after it", await size(year, "%") / 1e6, "MB", f"before {number(before / 1e6)} MB"),
        *await sizes(year, operations, "after"),
        *await compared(year, month, latest[-1].crawl_id, rounds, "after"),
    ]


async def write(database: Database, crawls: Sequence[Crawl], now: datetime) -> None:
    """As the service would have during that time, with each month's partitions made at its beginning."""
    made = datetime.min.replace(tzinfo=UTC)
    for first in range(0, len(crawls), WRITERS):
        some = crawls[first : first + WRITERS]
        if some[-1].began_at >= made:
            await make_partitions(database, some[0].began_at)
            made = month_after(some[0].began_at)
        await asyncio.gather(*(write_crawl(database, crawl) for crawl in some))
    await make_partitions(database, now)
    await vacuum(database)


async def sum_up(database: Database) -> None:
    """As maintenance does, before anybody asks for totals."""
    while await database.run(sum_up_hours):
        pass
    await vacuum(database)


async def write_crawl(database: Database, crawl: Crawl) -> None:
    random = Random(crawl.crawl_id)
    await deliver(database, crawl, "crawl.started", crawl.began_at)
    for first in range(0, crawl.pages, PAGES_AT_ONCE):
        pages = range(first, min(first + PAGES_AT_ONCE, crawl.pages))
        some = [measured(crawl, page, random) for page in pages]
        async with database.transaction() as connection:
            await record_operations(connection, [each for operations, _ in some for each in operations])
            await record_requests(connection, [request for _, request in some])
    await deliver(database, crawl, "crawl.completed", crawl.ended_at)


async def deliver(database: Database, crawl: Crawl, kind: str, at: datetime) -> None:
    metadata = {"url": crawl.site, "initiated_at": crawl.began_at.isoformat()}
    await accept_delivery(database, event(crawl.crawl_id, kind, metadata=metadata), at)


def measured(crawl: Crawl, page: int, random: Random) -> tuple[list[TimingContext], RequestRecord]:
    """The operations of a page and the request that delivered it."""
    at = crawl.began_at + timedelta(milliseconds=PAGE_MS * page)
    ids = {"crawl_id": crawl.crawl_id, "job_id": str(page), "document_url": f"{crawl.site}pages/{page}"}
    request = RequestRecord(at, "POST", "/api/webhook/firecrawl", 202, 4.0, str(page), "10.0.0.1", None)
    return [operation(stage, at, random, 0.5, **ids) for stage in STAGES], request


async def pruned_while_written(
    database: Database, crawl_id: str, now: datetime
) -> tuple[list[Pruned], float, float]:
    """The pruned rows, the seconds that it took, and the seconds of the slowest write meanwhile."""
    waits = [0.0]

    async def go_on_writing() -> None:
        while True:
            at = datetime.now(UTC)
            operation = TimingContext.past("worker", "index_document", at, at, crawl_id=crawl_id)
            async with database.transaction() as connection:
                waits.append(await seconds(record_operations(connection, [operation])))
            await asyncio.sleep(0.02)

    settings = Settings(_env_file=None, keep_operations_days=KEPT_DAYS, keep_requests_days=KEPT_DAYS)
    writer = asyncio.create_task(go_on_writing())
    began = time.perf_counter()
    pruned = await prune(settings, database, now)
    taken = time.perf_counter() - began
    writer.cancel()
    with suppress(asyncio.CancelledError):
        await writer
    return pruned or [], taken, max(waits)


async def delete_operations(database: Database) -> None:
    """For comparison: the same rows one by one."""
    async with database.transaction() as connection:
        await connection.execute(text("DELETE FROM webhook.operation_metrics"))
    await vacuum(database)


async def require_exact(database: Database, crawls: Sequence[Crawl]) -> None:
    """Raises where a recount finds a difference, or a distribution lost an operation."""
    insights = Insights(database)
    for crawl in crawls[:: max(1, len(crawls) // RECOUNTED)]:
        differing = await database.run(partial(recount, crawl_id=crawl.crawl_id))
        found = (await insights.crawl(crawl.crawl_id)).operations[OperationType.EMBEDDING].count
        if differing or found != crawl.pages:
            raise RuntimeError(f"{crawl.crawl_id} has changed: {differing}, {found} of {crawl.pages} pages")


async def sizes(database: Database, operations: int, when: str) -> list[Row]:
    """With indexes, per operation ever written."""
    return [
        Row(PART, f"{what}, {when}", await size(database, tables) / operations, "bytes an operation")
        for what, tables in (
            ("operations", "operation_metrics%"),
            ("requests", "request_metrics%"),
            ("histograms", "operation_histograms"),
            ("sums of hours", "hour_histograms"),
        )
    ]


async def size(database: Database, tables: str) -> int:
    async with database.transaction() as connection:
        return int(await connection.scalar(text(SIZE), {"tables": tables}) or 0)


async def compared(year: Database, month: Database, crawl_id: str, rounds: int, when: str) -> list[Row]:
    """The time of answers with a year stored, against a month."""
    questions: dict[str, Question] = {
        "list of crawls": lambda insights: insights.crawls(),
        "a crawl": lambda insights: insights.crawl(crawl_id),
        "totals of a month": lambda insights: insights.summary(hours=MONTH_HOURS),
        "operations of a crawl": lambda insights: insights.operations(crawl_id=crawl_id),
    }
    comparison = Comparison(PART, Insights(year), Insights(month), rounds)
    limit = MAX_GROWTH if when == "before" else None  # the month's operations are deleted then
    return [
        await comparison.row(f"{name}, {when}", ask, "of a month", limit) for name, ask in questions.items()
    ]


if __name__ == "__main__":
    run_alone(measure, __doc__)
