"""Whether answers about crawls cost the same for any size, and what the histograms behind them cost.

    python -m benchmarks.insights [--quick] [--rounds N] [--json FILE]

A crawl of 1,000,000 operations against one of 50 pages, and a list of 100,000 crawls against one of 100: of
two databases on one server, asked in turns. All rows come from the service's own writers.
"""

import asyncio
import json
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random
from typing import Any, TypeVar
from unittest.mock import patch

from sqlalchemy import select, text

from benchmarks.part import Options, Row, number, run_alone
from crawlscope.core.vocabulary import OperationType, PageState
from crawlscope.database import schema
from crawlscope.database.embedded import EmbeddedPostgres
from crawlscope.database.engine import Database, sqlalchemy_url
from crawlscope.insights.service import Insights
from crawlscope.models import Page
from crawlscope.pages.attempts import (
    ClaimedPage,
    EndedAttempt,
    Outcome,
    PageJob,
    claim_pages,
    end_attempts,
    still_claimed,
)
from crawlscope.sessions.histograms import histogram_arrays
from crawlscope.timing import TimingContext
from crawlscope.timing.store import record_operations
from crawlscope.webhooks.acceptance import Acceptance

T = TypeVar("T")

PART = "insights"
FEW_PAGES, MANY_PAGES = 50, 1_000
OPERATIONS, QUICK_OPERATIONS = 1_000_000, 50_000
FEW_CRAWLS, MANY_CRAWLS, QUICK_CRAWLS = 100, 100_000, 2_000
MAX_GROWTH = 1.5
TOGETHER = 16
"""Pages of a transaction, as a worker has them."""
BULK = 1_000
DELIVERIES_AT_ONCE = 500
STAGES = (
    (OperationType.WORKER, "index_document", 40.0),
    (OperationType.CHUNKING, "chunk_text", 4.0),
    (OperationType.EMBEDDING, "embed_batch", 28.0),
    (OperationType.BM25, "index_document", 1.0),
    (OperationType.QDRANT, "index_chunks", 5.0),
)
"""Of each page, with the usual milliseconds."""
SITE = "https://docs.example.com"
BEGAN, DURATION = datetime.now(UTC) - timedelta(hours=6), timedelta(hours=5)
HISTOGRAM_ARRAYS = "crawlscope.timing.store.histogram_arrays"


@dataclass(frozen=True)
class Size:
    pages: int
    operations: int
    crawls: int


async def measure(options: Options) -> Sequence[Row]:
    rounds = options.rounds_or(40)
    few = Size(FEW_PAGES, FEW_PAGES * len(STAGES), FEW_CRAWLS)
    quick = options.quick
    many = Size(MANY_PAGES, QUICK_OPERATIONS if quick else OPERATIONS, QUICK_CRAWLS if quick else MANY_CRAWLS)
    with (
        tempfile.TemporaryDirectory(prefix="crawlscope-benchmark-") as folder,
        EmbeddedPostgres(Path(folder)) as server,
    ):
        small, large = await opened(server.url, "small"), await opened(server.url, "large")
        try:
            await fill(small, few)
            await fill(large, many)
            return [
                *await compared(small, large, few, many, rounds),
                await cost_of_histograms(small, rounds),
            ]
        finally:
            await small.close()
            await large.close()


async def opened(url: str, name: str) -> Database:
    """A new database on the server."""
    admin = Database.open(url, pool_size=1)
    async with admin.engine.connect() as connection:
        session = await connection.execution_options(isolation_level="AUTOCOMMIT")
        await session.execute(text(f"CREATE DATABASE {name}"))
    await admin.close()
    named = sqlalchemy_url(url).set(drivername="postgresql", database=name)
    database = Database.open(named.render_as_string(hide_password=False), statement_seconds=None)
    await schema.upgrade(database)
    return database


async def fill(database: Database, size: Size) -> None:
    acceptance, random = Acceptance(database), Random(1)
    for some in slices(range(size.crawls), DELIVERIES_AT_ONCE):
        for event in ("crawl.started", "crawl.completed"):
            await asyncio.gather(*(deliver(acceptance, f"other-{each}", event) for each in some))
    await deliver(acceptance, "crawl", "crawl.started")
    for some in slices(range(size.pages), DELIVERIES_AT_ONCE):
        await asyncio.gather(*(deliver_page(acceptance, "crawl", each) for each in some))
    for claims in slices(await claimed(database, "crawl"), TOGETHER):
        await settle(database, claims, random)
    left = range(size.operations - size.pages * len(STAGES))
    for some in slices(left, BULK):
        at = BEGAN + DURATION * (some[0] / len(left))
        operations = [operation("crawl", each // len(STAGES), each, at, random) for each in some]
        async with database.transaction() as connection:
            await record_operations(connection, operations)
    await deliver(acceptance, "crawl", "crawl.completed")
    async with database.engine.connect() as connection:
        session = await connection.execution_options(isolation_level="AUTOCOMMIT")
        await session.execute(text("VACUUM ANALYZE"))


async def deliver(acceptance: Acceptance, crawl_id: str, event: str, **further: Any) -> None:
    body = {"type": event, "id": crawl_id, "success": True, "webhookId": event, "data": [], **further}
    await acceptance.accept(json.dumps(body).encode(), datetime.now(UTC))


async def deliver_page(acceptance: Acceptance, crawl_id: str, page: int) -> None:
    url = f"{SITE}/{page}"
    document = {"markdown": f"# {page}\n\nSome words.", "metadata": {"sourceURL": url, "url": url}}
    await deliver(acceptance, crawl_id, "crawl.page", data=[document], webhookId=url)


async def claimed(database: Database, crawl_id: str) -> list[ClaimedPage]:
    async with database.transaction() as connection:
        waiting = select(Page.id, Page.revision, Page.job_id)
        waiting = waiting.where(Page.crawl_id == crawl_id, Page.state == PageState.QUEUED)
        rows = await connection.execute(waiting)
        jobs = [PageJob(row.id, row.revision, row.job_id or 0) for row in rows]
        return [each for each in await claim_pages(connection, jobs, "worker-1") if each]


async def settle(database: Database, claims: Sequence[ClaimedPage], random: Random) -> None:
    ended = [
        EndedAttempt(
            claim,
            Outcome(PageState.INDEXED, 3),
            [operation(claim.crawl_id, claim.id, each, BEGAN, random) for each in range(len(STAGES))],
        )
        for claim in claims
    ]
    async with database.transaction() as connection:
        await still_claimed(connection, claims)
        await end_attempts(connection, ended)


def operation(crawl_id: str, page: int, number: int, at: datetime, random: Random) -> TimingContext:
    kind, name, usual_ms = STAGES[number % len(STAGES)]
    at += timedelta(seconds=random.uniform(0, 10))
    until = at + timedelta(milliseconds=usual_ms * random.lognormvariate(0, 1))
    return TimingContext.past(
        kind, name, at, until, crawl_id=crawl_id, job_id=str(page), document_url=f"{SITE}/{page}"
    )


async def compared(small: Database, large: Database, few: Size, many: Size, rounds: int) -> list[Row]:
    """Medians of turns, with the answer as JSON."""
    questions: dict[str, tuple[Callable[[Insights], Awaitable[Any]], str, float | None]] = {
        f"a crawl of {many.operations:,} operations": (
            *(lambda insights: insights.crawl("crawl"), f"of {few.pages} pages"),
            MAX_GROWTH,
        ),
        f"list of {many.crawls:,} crawls": (
            *(lambda insights: insights.crawls(), f"of {few.crawls}"),
            MAX_GROWTH,
        ),
        "totals of a day": (lambda insights: insights.summary(), f"of {few.crawls} crawls", None),
        "timeline of the crawl": (lambda insights: insights.timeline("crawl"), f"of {few.pages} pages", None),
        "diagnosis of the crawl": (
            lambda insights: insights.diagnosis("crawl"),
            f"of {few.pages} pages",
            None,
        ),
    }
    rows = []
    of_small, of_large = Insights(small), Insights(large)
    for name, (ask, whose, limit) in questions.items():
        turns = [
            (await seconds(answered(ask, of_large)), await seconds(answered(ask, of_small)))
            for _ in range((rounds if limit else min(rounds, 5)) + 1)
        ][1:]
        long, short = (statistics.median(times) * 1000 for times in zip(*turns, strict=True))
        rows.append(Row(PART, name, long, "ms", f"{whose} {number(short)} ms", long / short, at_most=limit))
    return rows


async def answered(ask: Callable[[Insights], Awaitable[Any]], insights: Insights) -> str:
    return str((await ask(insights)).model_dump_json())


async def cost_of_histograms(database: Database, rounds: int) -> Row:
    """The time to settle the pages of a transaction, in turns with histograms and without."""
    acceptance, random = Acceptance(database), Random(2)
    await asyncio.gather(*(deliver_page(acceptance, "cost", each) for each in range(2 * TOGETHER * rounds)))
    claims = slices(await claimed(database, "cost"), TOGETHER)
    with_it, without = [], []
    for turn in range(rounds):
        with_it.append(await seconds(settle(database, claims[2 * turn], random)))
        with patch(HISTOGRAM_ARRAYS, lambda _: histogram_arrays({})):
            without.append(await seconds(settle(database, claims[2 * turn + 1], random)))
    long, short = statistics.median(with_it) * 1000, statistics.median(without) * 1000
    what = f"{TOGETHER} pages settled, with histograms"
    return Row(PART, what, long, "ms", f"without {number(short)} ms", long / short)


def slices(items: Sequence[T], size: int) -> list[Sequence[T]]:
    return [items[first : first + size] for first in range(0, len(items), size)]


async def seconds(work: Awaitable[Any]) -> float:
    began = time.perf_counter()
    await work
    return time.perf_counter() - began


if __name__ == "__main__":
    run_alone(measure, __doc__)
