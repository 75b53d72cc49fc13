"""Accepts a delivery: ledger, pages, jobs and the crawl's state in one transaction, or nothing at all."""

import asyncio
import zlib
from collections.abc import Mapping
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
from crawlscope.pages.receive import take_pages
from crawlscope.sessions.fold import fact_to_json
from crawlscope.sessions.repository import DELIVERIES, apply_facts, ensure_session, move_counts
from crawlscope.timing import TimingContext, scope
from crawlscope.timing.store import record_operations
from crawlscope.webhooks import payload
from crawlscope.webhooks.payload import Brought, Delivery

UNKNOWN = models.table_of(models.UnknownEvent)
WITHOUT_URL = "names no page URL"
LARGE_BODY_BYTES = 256 * 1024
"""A smaller body is not worth a thread."""


async def accept_delivery(database: Database, body: bytes, received_at: datetime) -> dict[str, Any]:
    """Returns the answer once everything is committed. The same delivery again changes nothing.

    Raises `UnreadableDelivery` or `MalformedDelivery` for what is no delivery, `DatabaseUnavailable` when
    it cannot be committed.
    """
    measured: list[TimingContext] = []
    with scope(collect=measured.append), TimingContext(OperationType.WEBHOOK, "receive") as timing:
        if len(body) < LARGE_BODY_BYTES:
            delivery, brought, row = _read(body, received_at)
        else:
            delivery, brought, row = await asyncio.to_thread(_read, body, received_at)
        timing.operation_name, timing.crawl_id = delivery.event_type, delivery.crawl_id or None

        async def take(connection: AsyncConnection) -> dict[str, Any]:
            if not delivery.known:
                await connection.execute(insert(UNKNOWN).values(row).on_conflict_do_nothing())
                return {"status": "ignored", "event_type": delivery.event_type}
            if not await ensure_session(connection, delivery.crawl_id, received_at):
                return {"status": "ignored", "reason": "the crawl was deleted"}
            entered = insert(DELIVERIES).values(row).on_conflict_do_nothing().returning(DELIVERIES.c.id)
            if await connection.scalar(entered) is None:
                return {"status": "duplicate", "crawl_id": delivery.crawl_id}
            answer = await _take_in(connection, delivery, brought)
            timing.stop()
            await record_operations(connection, measured[-1:], announced=True)
            return answer

        return await database.run(take)


def ledger_columns(delivery: Delivery, brought: Brought) -> dict[str, Any]:
    """The ledger's columns that follow from a delivery's content."""
    nameless = delivery.brings_pages and not brought.pages
    return {
        "pages": len(delivery.documents),
        "without_url": brought.without_url,
        "facts": list(map(fact_to_json, brought.facts)),
        "note": WITHOUT_URL if nameless else None,
    }


def _read(body: bytes, received_at: datetime) -> tuple[Delivery, Brought, Mapping[str, Any]]:
    """With the row of the ledger, or of unknown events."""
    delivery = payload.read(body)
    brought = payload.brought(delivery, received_at)
    compressed = zlib.compress(body, 1)
    row = {"event_type": delivery.event_type, "received_at": received_at, "body": compressed}
    if not delivery.known:
        return delivery, brought, {**row, "identity": hash_key(delivery.event_type, compressed.hex())}
    row |= {
        "crawl_id": delivery.crawl_id,
        "identity": payload.identity(delivery, body) or uuid4(),
        "webhook_id": delivery.webhook_id,
        "body_bytes": len(body),
        **ledger_columns(delivery, brought),
    }
    return delivery, brought, row


async def _take_in(connection: AsyncConnection, delivery: Delivery, brought: Brought) -> dict[str, Any]:
    crawl_id = delivery.crawl_id
    taken = await take_pages(connection, crawl_id, brought.pages)
    before = await apply_facts(connection, crawl_id, brought.facts)
    await move_counts(connection, crawl_id, taken.change, taken.settled_at, brought.without_url)
    # A new page, start or end of a crawl that had ended says that it went on: more may have been lost.
    ended = before is not None and bool(before.ends or before.answers)
    again = before is not None and (delivery.end in before.ends or delivery.action == "started")
    if ended and (taken.touched or again):
        await note_news(connection, crawl_id)
    elif delivery.end:
        await note_end(connection, crawl_id)
    queued = {"queued_jobs": len(taken.job_ids), "job_ids": list(map(str, taken.job_ids))}
    if delivery.action == "page" and delivery.brings_pages:
        return {"status": "queued", **queued, "crawl_id": crawl_id}
    answer = {"status": "acknowledged", "event_type": delivery.event_type, "crawl_id": crawl_id}
    return answer | queued if delivery.documents else answer
