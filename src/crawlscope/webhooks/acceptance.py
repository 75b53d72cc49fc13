"""Takes a delivery in: ledger, pages, jobs and the crawl's state in one transaction, or nothing at all."""

import asyncio
import zlib
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import uuid4

from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from crawlscope import models
from crawlscope.core.values import hash_key
from crawlscope.core.vocabulary import OperationType
from crawlscope.crawls.reconciliations import note_end, note_news
from crawlscope.database.engine import Database
from crawlscope.pages.receive import Taken, take_pages
from crawlscope.sessions.fold import Lifecycle, fact_to_json
from crawlscope.sessions.store import apply_facts, ensure_session, move_counts
from crawlscope.timing import TimingContext, scope
from crawlscope.timing.store import record_operations
from crawlscope.webhooks import payload
from crawlscope.webhooks.payload import Brought, Delivery

UNKNOWN = models.table_of(models.UnknownEvent)
DELIVERIES = models.table_of(models.Delivery)


WITHOUT_URL = "names no page URL"
LARGE_BODY_BYTES = 256 * 1024


@dataclass(frozen=True)
class Acceptance:
    """What became of a delivery; `answer` is the body of the 202."""

    answer: dict[str, Any]


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
            return await database.run(lambda c: _keep_unknown(c, delivery, compressed, received_at))
        timing.crawl_id = delivery.crawl_id
        brought = await _off_loop(body, payload.brought, delivery, received_at)
        ledger = {
            "crawl_id": delivery.crawl_id,
            "identity": payload.identity(delivery, body) or uuid4(),
            "event_type": delivery.event_type,
            "webhook_id": delivery.webhook_id,
            "received_at": received_at,
            "body": compressed,
            "body_bytes": len(body),
            **ledger_columns(delivery, brought),
        }

        async def take(connection: AsyncConnection) -> Acceptance:
            answer = await _take_in(connection, delivery, brought, ledger)
            if answer["status"] not in ("duplicate", "ignored"):
                timing.stop()
                await record_operations(connection, measured[-1:], announced=True)
            return Acceptance(answer)

        return await database.run(take)


def ledger_columns(delivery: Delivery, brought: Brought) -> dict[str, Any]:
    """What the ledger says of a delivery's content."""
    nameless = delivery.brings_pages and not brought.pages
    return {
        "pages": len(delivery.documents),
        "without_url": brought.without_url,
        "facts": [fact_to_json(fact) for fact in brought.facts],
        "note": WITHOUT_URL if nameless else None,
    }


async def _take_in(
    connection: AsyncConnection, delivery: Delivery, brought: Brought, ledger: dict[str, Any]
) -> dict[str, Any]:
    if not await ensure_session(connection, delivery.crawl_id, ledger["received_at"]):
        return {"status": "ignored", "reason": "the crawl was deleted"}
    entered = await connection.execute(
        insert(DELIVERIES).values(ledger).on_conflict_do_nothing().returning(DELIVERIES.c.id)
    )
    if entered.one_or_none() is None:
        return {"status": "duplicate", "crawl_id": delivery.crawl_id}
    taken = await take_pages(connection, delivery.crawl_id, brought.pages)
    before = await apply_facts(connection, delivery.crawl_id, brought.facts)
    await move_counts(connection, delivery.crawl_id, taken.change, taken.settled_at, brought.without_url)
    await _plan_check(connection, delivery, before, taken)
    return _answer(delivery, taken)


async def _plan_check(
    connection: AsyncConnection, delivery: Delivery, before: Lifecycle | None, taken: Taken
) -> None:
    """Of a crawl that had ended, a new page, start or end says that it went on; more may have been lost."""
    end, ended = payload.end_of(delivery), before is not None and bool(before.ends or before.told)
    again = before is not None and (end in before.ends or delivery.action == "started")
    if ended and (taken.touched or again):
        await note_news(connection, delivery.crawl_id)
    elif end:
        await note_end(connection, delivery.crawl_id)


def _answer(delivery: Delivery, taken: Taken) -> dict[str, Any]:
    queued = {"queued_jobs": len(taken.job_ids), "job_ids": [str(each) for each in taken.job_ids]}
    if delivery.action == "page" and delivery.brings_pages:
        return {"status": "queued", **queued, "crawl_id": delivery.crawl_id}
    answer = {
        "status": "acknowledged",
        "event_type": delivery.event_type,
        "crawl_id": delivery.crawl_id,
    }
    return answer | queued if delivery.documents else answer


async def _keep_unknown(
    connection: AsyncConnection, delivery: Delivery, compressed: bytes, received_at: datetime
) -> Acceptance:
    await connection.execute(
        insert(UNKNOWN)
        .values(
            identity=hash_key(delivery.event_type, compressed.hex()),
            event_type=delivery.event_type,
            received_at=received_at,
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
