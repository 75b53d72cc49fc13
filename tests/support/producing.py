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
from crawlscope.pages.repository import ClaimedPage, Outcome, claim_page, put_back, settle_page, still_claimed
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
    for page_id, revision in jobs:
        claim, measured = await attempt(database, page_id, revision)
        async with database.transaction() as connection:
            assert await still_claimed(connection, claim)
            await settle_page(connection, claim, Outcome(state, chunks), measured)
    return len(jobs)


async def fail_pages(database: Database, crawl_id: str, code: str, words: str) -> None:
    """As when the embedding goes wrong for good."""
    for page_id, revision in await queued(database, crawl_id):
        claim, measured = await attempt(database, page_id, revision, failing=words)
        outcome = Outcome(PageState.FAILED, error_code=code, error=words)
        async with database.transaction() as connection:
            assert await still_claimed(connection, claim)
            await settle_page(connection, claim, outcome, measured)


async def put_pages_back(database: Database, crawl_id: str, code: str, words: str) -> None:
    for page_id, revision in await queued(database, crawl_id):
        claim, measured = await attempt(database, page_id, revision, failing=words)
        async with database.transaction() as connection:
            await put_back(connection, claim, code, words, measured)


async def due(database: Database, quiet: timedelta = timedelta(0)) -> str | None:
    """A crawl that Firecrawl is to be asked after now, which this claims."""
    await database.run(reconciliations.enrol_all)
    claim = await database.run(lambda connection: reconciliations.claim_due(connection, quiet))
    return claim.crawl_id if claim else None


async def note_settled(database: Database, crawl_id: str, asked_at: datetime | None = None) -> None:
    """As when Firecrawl hands out nothing that is not known."""
    found = reconciliations.Found(ReconcileState.SETTLED)
    at = asked_at or datetime.now(UTC)
    await database.run(lambda connection: reconciliations.note_check(connection, crawl_id, found, at))
    await database.run(lambda connection: reconciliations.end_lease(connection, crawl_id))


async def queued(database: Database, crawl_id: str) -> list[tuple[int, int]]:
    """Id and revision of each page that waits: what its job says."""
    async with database.transaction() as connection:
        rows = await connection.execute(
            select(Page.id, Page.revision)
            .where(Page.crawl_id == crawl_id, Page.state == PageState.QUEUED)
            .order_by(Page.id)
        )
        return [(row.id, row.revision) for row in rows]


async def attempt(
    database: Database, page_id: int, revision: int, failing: str | None = None
) -> tuple[ClaimedPage, list[TimingContext]]:
    """Claims the page and measures what a worker measures; `failing` is the embedder's error."""
    async with database.transaction() as connection:
        claim = await claim_page(connection, page_id, revision, "worker-1")
    assert claim is not None
    measured: list[TimingContext] = []
    with scope(
        crawl_id=claim.crawl_id, job_id=str(page_id), document_url=claim.source_url, collect=measured.append
    ):
        try:
            with TimingContext(OperationType.WORKER, "index_document"):
                for operation_type, name in STAGES:
                    with TimingContext(operation_type, name):
                        work(failing if operation_type is OperationType.EMBEDDING else None)
        except RuntimeError:
            assert failing
    return claim, measured


def work(failure: str | None) -> None:
    sum(range(2_000))
    if failure:
        raise RuntimeError(failure)
