"""Whether answers about crawls cost the same for any size, and what the histograms behind them cost.

    python -m benchmarks.insights [--quick] [--rounds N] [--json FILE]

A crawl of 1,000,000 operations against one of 50 pages, a list of 100,000 crawls against one of 100, and the
list of all operations: of two databases on one server, asked in turns. All rows come from the service's own
writers.
"""

import asyncio
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from random import Random
from typing import Any, TypeVar
from unittest.mock import patch

from sqlalchemy import select

from benchmarks.part import Options, Row, number, run_alone
from benchmarks.recorded import STAGES, Comparison, Question, event, operation, seconds, two_databases, vacuum
from crawlscope.core.vocabulary import PageState
from crawlscope.database.engine import Database
from crawlscope.insights.service import Insights
from crawlscope.models import Page
from crawlscope.pages.attempts import ClaimedPage, PageJob, claim_pages
from crawlscope.pages.index_page import EndedAttempt, Outcome, end_attempts, still_claimed
from crawlscope.sessions.changes import histogram_arrays
from crawlscope.sessions.hours import sum_up_hours
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
SITE = "https://docs.example.com"
BEGAN, DURATION = datetime.now(UTC) - timedelta(hours=6), timedelta(hours=5)
HISTOGRAM_ARRAYS = "crawlscope.sessions.changes.histogram_arrays"
HOURS_LATER = timedelta(hours=2)
"""When the hours in which the crawls are recorded are summed up."""


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
    async with two_databases("large", "small") as (large, small):
        await fill(small, few)
        await fill(large, many)
        return [*await compared(small, large, few, many, rounds), await cost_of_histograms(small, rounds)]


async def fill(database: Database, size: Size) -> None:
    acceptance, random = Acceptance(database), Random(1)
    for some in slices(range(size.crawls), DELIVERIES_AT_ONCE):
        for kind in ("crawl.started", "crawl.completed"):
            await asyncio.gather(*(deliver(acceptance, f"other-{each}", kind) for each in some))
    await deliver(acceptance, "crawl", "crawl.started")
    for some in slices(range(size.pages), DELIVERIES_AT_ONCE):
        await asyncio.gather(*(deliver_page(acceptance, "crawl", each) for each in some))
    for claims in slices(await claimed(database, "crawl"), TOGETHER):
        await settle(database, claims, random)
    left = range(size.operations - size.pages * len(STAGES))
    for some in slices(left, BULK):
        at = BEGAN + DURATION * (some[0] / len(left))
        operations = [measured("crawl", each // len(STAGES), each, at, random) for each in some]
        async with database.transaction() as connection:
            await record_operations(connection, operations)
    await deliver(acceptance, "crawl", "crawl.completed")
    while await database.run(partial(sum_up_hours, now=datetime.now(UTC) + HOURS_LATER)):
        pass
    await vacuum(database)


async def deliver(acceptance: Acceptance, crawl_id: str, kind: str, **further: Any) -> None:
    await acceptance.accept(event(crawl_id, kind, **further), datetime.now(UTC))


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
            [measured(claim.crawl_id, claim.id, each, BEGAN, random) for each in range(len(STAGES))],
        )
        for claim in claims
    ]
    async with database.transaction() as connection:
        await still_claimed(connection, claims)
        await end_attempts(connection, ended)


def measured(crawl_id: str, page: int, number: int, at: datetime, random: Random) -> TimingContext:
    began = at + timedelta(seconds=random.uniform(0, 10))
    ids = {"crawl_id": crawl_id, "job_id": str(page), "document_url": f"{SITE}/{page}"}
    return operation(STAGES[number % len(STAGES)], began, random, 1, **ids)


async def compared(small: Database, large: Database, few: Size, many: Size, rounds: int) -> list[Row]:
    of_pages, of_crawls = f"of {few.pages} pages", f"of {few.crawls} crawls"
    questions: dict[str, tuple[Question, str, float | None]] = {
        f"a crawl of {many.operations:,} operations": (
            *(lambda insights: insights.crawl("crawl"), of_pages),
            MAX_GROWTH,
        ),
        f"list of {many.crawls:,} crawls": (lambda insights: insights.crawls(), of_crawls, MAX_GROWTH),
        f"list of {many.operations:,} operations": (
            *(lambda insights: insights.operations(), of_pages),
            MAX_GROWTH,
        ),
        "totals of a day": (lambda insights: insights.summary(), of_crawls, None),
        "timeline of the crawl": (lambda insights: insights.timeline("crawl"), of_pages, None),
        "diagnosis of the crawl": (lambda insights: insights.diagnosis("crawl"), of_pages, None),
    }
    rows = []
    for name, (ask, whose, limit) in questions.items():
        turns = rounds if limit else min(rounds, 5)
        rows.append(
            await Comparison(PART, Insights(large), Insights(small), turns).row(name, ask, whose, limit)
        )
    return rows


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


if __name__ == "__main__":
    run_alone(measure, __doc__)
