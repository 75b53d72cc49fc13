"""Makes a large crawl, and many crawls, by the steps of deliveries and workers, many at a time."""

import asyncio
import json
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from math import inf
from uuid import uuid4

from sqlalchemy import select

from crawlscope.core.vocabulary import STAGES, OperationType, PageState
from crawlscope.database.engine import Database
from crawlscope.models import Page
from crawlscope.pages.attempts import ClaimedPage, PageJob, claim_pages
from crawlscope.pages.index_page import EndedAttempt, Outcome, end_attempts
from crawlscope.timing import TimingContext, scope
from crawlscope.webhooks.acceptance import Acceptance, accept_delivery

AT_ONCE = 500


async def make_crawl(database: Database, crawl_id: str, pages: int, seconds: float = inf) -> int:
    """Every fiftieth page failed at the crawler, all others are indexed. Returns how many were made."""
    made = 0
    for numbers in _in_time(pages, seconds):
        await _deliver(database, crawl_id, "crawl.page", [_document(number) for number in numbers])
        await _index(database, crawl_id)
        made = numbers.stop
    await _deliver(database, crawl_id, "crawl.completed", [])
    return made


async def make_crawls(database: Database, crawls: int, seconds: float = inf) -> int:
    """Completed crawls of 1,000 sites, which have no pages. Returns how many were made."""
    acceptance, made = Acceptance(database), 0

    async def deliver(number: int) -> None:
        url = f"https://site-{number % 1_000}.example/"
        body = {"type": "crawl.completed", "id": f"crawl-{number}", "webhookId": str(uuid4()), "data": []}
        given = json.dumps(body | {"success": True, "metadata": {"url": url}}).encode()
        await acceptance.accept(given, datetime.now(UTC))

    for numbers in _in_time(crawls, seconds):
        await asyncio.gather(*map(deliver, numbers))
        made = numbers.stop
    return made


def _in_time(number: int, seconds: float) -> Iterator[range]:
    until = time.monotonic() + seconds
    for first in range(0, number, AT_ONCE):
        if time.monotonic() > until:
            return
        yield range(first, min(first + AT_ONCE, number))


async def _deliver(database: Database, crawl_id: str, event: str, documents: list[dict[str, object]]) -> None:
    body = {"type": event, "id": crawl_id, "webhookId": str(uuid4()), "data": documents}
    await accept_delivery(database, json.dumps(body).encode(), datetime.now(UTC))


def _document(number: int) -> dict[str, object]:
    url = f"https://docs.example.com/section-{number % 97}/page-{number}"
    metadata = {"sourceURL": url, "url": url, "statusCode": 200 if number % 50 else 404}
    return {"markdown": f"# Page {number}\n\nSome words of it.", "metadata": metadata}


async def _index(database: Database, crawl_id: str) -> None:
    async with database.transaction() as connection:
        waiting = select(Page.id, Page.revision, Page.job_id)
        waiting = waiting.where(Page.crawl_id == crawl_id, Page.state == PageState.QUEUED)
        jobs = [PageJob(row.id, row.revision, row.job_id or 0) for row in await connection.execute(waiting)]
        claims = await claim_pages(connection, jobs, "worker-1")
        outcome = Outcome(PageState.INDEXED, 3)
        ended = [EndedAttempt(claim, outcome, list(_measured(claim))) for claim in claims if claim]
        await end_attempts(connection, ended)


def _measured(claim: ClaimedPage) -> Iterator[TimingContext]:
    measured: list[TimingContext] = []
    job_id, collect = str(claim.job_id), measured.append
    with (
        scope(crawl_id=claim.crawl_id, job_id=job_id, document_url=claim.source_url, collect=collect),
        TimingContext(OperationType.WORKER, "index_document"),
    ):
        for stage in STAGES:
            with TimingContext(stage, "stage"):
                pass
    yield from measured
