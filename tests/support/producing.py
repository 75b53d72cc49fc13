"""Drives the real producers: deliveries as the endpoint accepts them, pages through a worker's steps."""

import json
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

from sqlalchemy import select

from crawlscope.core.vocabulary import OperationType, PageState, ReconcileState
from crawlscope.crawls import reconciliations
from crawlscope.database.engine import Database
from crawlscope.models import Page
from crawlscope.pages.attempts import ClaimedPage, PageJob, claim_pages
from crawlscope.pages.index_page import EndedAttempt, Outcome, end_attempts, still_claimed
from crawlscope.timing import TimingContext, scope
from crawlscope.webhooks.acceptance import accept_delivery

A, B, C = "https://a.example/", "https://b.example/", "https://c.example/"
NOON = datetime(2025, 1, 31, 12, tzinfo=UTC)
STAGES = (
    (OperationType.CHUNKING, "chunk_text"),
    (OperationType.EMBEDDING, "embed_batch"),
    (OperationType.BM25, "index_document"),
    (OperationType.QDRANT, "index_chunks"),
)


def document(url: str, final_url: str | None = None, status_code: int = 200) -> dict[str, Any]:
    metadata = {"sourceURL": url, "url": final_url or url, "statusCode": status_code}
    return {"markdown": f"# {url}\n\nSome words.", "metadata": metadata}


async def deliver(
    database: Database,
    crawl_id: str,
    event: str,
    documents: Sequence[dict[str, Any]] = (),
    at: datetime | None = None,
    **further: Any,
) -> dict[str, Any]:
    body = {"type": event, "id": crawl_id, "webhookId": str(uuid4()), "data": list(documents), **further}
    return await accept_delivery(database, json.dumps(body).encode(), at or datetime.now(UTC))


async def deliver_pages(database: Database, crawl_id: str, *urls: str, **further: Any) -> None:
    for url in urls:
        await deliver(database, crawl_id, "crawl.page", [document(url)], **further)


async def index_pages(
    database: Database, crawl_id: str, state: PageState = PageState.INDEXED, chunks: int | None = 3
) -> int:
    """Settles all queued pages of the crawl as a worker does; returns how many there were."""
    jobs = await queued(database, crawl_id)
    for job in jobs:
        await end(database, *await attempt(database, job), Outcome(state, chunks))
    return len(jobs)


async def fail_pages(database: Database, crawl_id: str, code: str, words: str) -> None:
    """As when the embedding goes wrong for good."""
    for job in await queued(database, crawl_id):
        outcome = Outcome(PageState.FAILED, error_code=code, error=words)
        await end(database, *await attempt(database, job, failing=words), outcome)


async def put_pages_back(database: Database, crawl_id: str, code: str, words: str) -> None:
    for job in await queued(database, crawl_id):
        outcome = Outcome(PageState.QUEUED, error_code=code, error=words)
        await end(database, *await attempt(database, job, failing=words), outcome)


async def end(
    database: Database, claim: ClaimedPage, measured: list[TimingContext], outcome: Outcome
) -> bool:
    """Ends an attempt; whether its claim still held."""
    async with database.transaction() as connection:
        [held] = await still_claimed(connection, [claim])
        await end_attempts(connection, [EndedAttempt(claim, outcome if held else None, measured)])
    return held


async def due(database: Database, quiet: timedelta = timedelta(0)) -> str | None:
    """A crawl that Firecrawl is to be asked after now, which this claims."""
    await database.run(reconciliations.enrol_all)
    claim = await database.run(lambda connection: reconciliations.claim_due(connection, quiet))
    return claim.crawl_id if claim else None


async def note_settled(database: Database, crawl_id: str, asked_at: datetime | None = None) -> None:
    """As when Firecrawl returns nothing that is not known."""
    found = reconciliations.Found(ReconcileState.SETTLED)
    at = asked_at or datetime.now(UTC)
    await database.run(lambda connection: reconciliations.note_check(connection, crawl_id, found, at))
    await database.run(lambda connection: reconciliations.end_lease(connection, crawl_id))


async def queued(database: Database, crawl_id: str) -> list[PageJob]:
    """The job of each page that waits."""
    async with database.transaction() as connection:
        rows = await connection.execute(
            select(Page.id, Page.revision, Page.job_id)
            .where(Page.crawl_id == crawl_id, Page.state == PageState.QUEUED)
            .order_by(Page.id)
        )
        return [PageJob(row.id, row.revision, row.job_id or 0) for row in rows]


async def attempt(
    database: Database, job: PageJob, failing: str | None = None
) -> tuple[ClaimedPage, list[TimingContext]]:
    """Claims the page and measures what a worker measures; `failing` is the embedder's error."""
    async with database.transaction() as connection:
        [claim] = await claim_pages(connection, [job], "worker-1")
    assert claim is not None
    return claim, measured_attempt(claim, failing)


def measured_attempt(claim: ClaimedPage, failing: str | None = None) -> list[TimingContext]:
    measured: list[TimingContext] = []
    with scope(
        crawl_id=claim.crawl_id,
        job_id=str(claim.job_id),
        document_url=claim.source_url,
        collect=measured.append,
    ):
        try:
            with TimingContext(OperationType.WORKER, "index_document"):
                for operation_type, name in STAGES:
                    with TimingContext(operation_type, name):
                        work(failing if operation_type is OperationType.EMBEDDING else None)
        except RuntimeError:
            assert failing
    return measured


def work(failure: str | None) -> None:
    sum(range(2_000))
    if failure:
        raise RuntimeError(failure)
