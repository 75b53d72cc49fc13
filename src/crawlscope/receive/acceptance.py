"""Takes a delivery in: ledger, pages, jobs and the crawl's state in one transaction, or nothing at all."""

import asyncio
import zlib
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from uuid import UUID, uuid4

from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from crawlscope import models
from crawlscope.crawls.fold import Ended, Fact, Heard, PageSeen
from crawlscope.crawls.page_state import Counts, failure_text
from crawlscope.crawls.pages import receive_page
from crawlscope.crawls.sessions import apply_facts, ensure_session, move_counts
from crawlscope.database.engine import Database
from crawlscope.database.values import hash_key, storable
from crawlscope.receive import payload
from crawlscope.receive.payload import Delivery
from crawlscope.timing import TimingContext, scope
from crawlscope.timing.store import record_operations
from crawlscope.vocabulary import CrawlStatus, OperationType

UNKNOWN = models.table_of(models.UnknownEvent)
DELIVERIES = models.table_of(models.Delivery)


ENDS = {
    "completed": CrawlStatus.COMPLETED,
    "failed": CrawlStatus.FAILED,
    "cancelled": CrawlStatus.CANCELLED,
    "canceled": CrawlStatus.CANCELLED,
}
WITHOUT_URL = "names no page URL"
LARGE_BODY_BYTES = 256 * 1024


@dataclass(frozen=True)
class Acceptance:
    """What became of a delivery; `answer` is the body of the 202."""

    answer: dict[str, Any]


@dataclass
class _Taken:
    """What the pages of one delivery add up to."""

    change: Counts = field(default_factory=Counts)
    job_ids: list[int] = field(default_factory=list)
    settled_at: datetime | None = None
    first_url: str | None = None
    pages: int = 0
    without_url: int = 0


async def accept_delivery(database: Database, body: bytes, received_at: datetime) -> Acceptance:
    """Returns once everything is committed. The same delivery again changes nothing.

    Raises `UnreadableDelivery` or `MalformedDelivery` for what is no delivery, `DatabaseUnavailable` when
    it cannot be committed.
    """
    measured: list[TimingContext] = []
    with scope(collect=measured.append), TimingContext(OperationType.WEBHOOK, "receive") as timing:
        delivery = await _off_loop(body, payload.read, body)
        timing.operation_name = delivery.event_type
        compressed = await _off_loop(body, zlib.compress, body, 1)
        if not delivery.known:
            return await database.run(lambda c: _keep_unknown(c, delivery, compressed))
        timing.crawl_id = delivery.crawl_id
        identity = payload.identity(delivery, body) or uuid4()

        async def take(connection: AsyncConnection) -> Acceptance:
            ledger = _ledger_row(delivery, identity, received_at, compressed, len(body))
            answer = await _take_in(connection, delivery, ledger)
            if answer["status"] not in ("duplicate", "ignored"):
                timing.stop()
                await record_operations(connection, measured[-1:], announced=True)
            return Acceptance(answer)

        return await database.run(take)


async def _take_in(connection: AsyncConnection, delivery: Delivery, ledger: dict[str, Any]) -> dict[str, Any]:
    received_at = ledger["received_at"]
    if not await ensure_session(connection, delivery.crawl_id, received_at):
        return {"status": "ignored", "reason": "the crawl was deleted"}
    entered = await connection.execute(
        insert(DELIVERIES).values(ledger).on_conflict_do_nothing().returning(DELIVERIES.c.id)
    )
    if entered.one_or_none() is None:
        return {"status": "duplicate", "crawl_id": delivery.crawl_id}
    taken = await _take_pages(connection, delivery, received_at)
    await apply_facts(connection, delivery.crawl_id, _facts(delivery, received_at, taken.first_url))
    await move_counts(connection, delivery.crawl_id, taken.change, taken.settled_at, taken.without_url)
    return _answer(delivery, taken)


async def _take_pages(connection: AsyncConnection, delivery: Delivery, received_at: datetime) -> _Taken:
    """In the order of their URLs, so that two deliveries with the same pages cannot wait for each other."""
    taken = _Taken()
    if not delivery.brings_pages:
        return taken
    found = list(payload.pages(delivery, received_at))
    located = [page for page in found if page is not None]
    taken.without_url = len(found) - len(located)
    taken.first_url = located[0].source_url if located else None
    for page in sorted(located, key=lambda page: page.source_url):
        received = await receive_page(connection, delivery.crawl_id, page)
        taken.pages += 1
        taken.change += received.change
        if received.job_id is not None:
            taken.job_ids.append(received.job_id)
        taken.settled_at = received.settled_at or taken.settled_at
    return taken


def _facts(delivery: Delivery, at: datetime, first_url: str | None) -> list[Fact]:
    facts: list[Fact] = [Heard(at, delivery.metadata)]
    if first_url:
        facts.append(PageSeen(at, first_url))
    if status := ENDS.get(delivery.action):
        if status is CrawlStatus.COMPLETED and not delivery.success:
            status = CrawlStatus.FAILED
        error = failure_text(delivery.error)
        facts.append(Ended(at, status, storable(error) if error else None))
    return facts


def _answer(delivery: Delivery, taken: _Taken) -> dict[str, Any]:
    queued = {"queued_jobs": len(taken.job_ids), "job_ids": [str(each) for each in taken.job_ids]}
    if delivery.action == "page" and delivery.brings_pages:
        return {"status": "queued", **queued, "crawl_id": delivery.crawl_id}
    answer = {
        "status": "acknowledged",
        "event_type": delivery.event_type,
        "crawl_id": delivery.crawl_id,
    }
    return answer | queued if delivery.documents else answer


def _ledger_row(
    delivery: Delivery, identity: UUID, received_at: datetime, compressed: bytes, size: int
) -> dict[str, Any]:
    nameless = delivery.action == "page" and not any(page for page in payload.pages(delivery, received_at))
    return {
        "crawl_id": delivery.crawl_id,
        "identity": identity,
        "event_type": delivery.event_type,
        "webhook_id": delivery.webhook_id,
        "received_at": received_at,
        "body": compressed,
        "body_bytes": size,
        "pages": len(delivery.documents),
        "note": WITHOUT_URL if nameless else None,
    }


async def _keep_unknown(connection: AsyncConnection, delivery: Delivery, compressed: bytes) -> Acceptance:
    await connection.execute(
        insert(UNKNOWN)
        .values(
            identity=hash_key(delivery.event_type, delivery.crawl_id, compressed.hex()),
            event_type=delivery.event_type,
            body=compressed,
        )
        .on_conflict_do_nothing()
    )
    return Acceptance({"status": "ignored", "event_type": delivery.event_type})


async def _off_loop(body: bytes, work: Any, *arguments: Any) -> Any:
    """Small bodies are not worth a thread."""
    if len(body) < LARGE_BODY_BYTES:
        return work(*arguments)
    return await asyncio.to_thread(work, *arguments)
