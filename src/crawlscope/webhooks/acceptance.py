"""Accepts a delivery: ledger, pages, jobs and the crawl's state in one transaction, or nothing at all."""

import asyncio
import zlib
from datetime import datetime
from functools import partial
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
from crawlscope.sessions.repository import (
    DELIVERIES,
    SessionChange,
    apply_facts,
    change_sessions,
    ensure_session,
)
from crawlscope.timing import TimingContext, scope
from crawlscope.timing.store import insert_operations
from crawlscope.webhooks import payload
from crawlscope.webhooks.payload import Brought, Delivery

UNKNOWN = models.table_of(models.UnknownEvent)
LARGE_BODY_BYTES = 256 * 1024
"""A smaller body is not worth a thread."""


async def accept_delivery(database: Database, body: bytes, received_at: datetime) -> dict[str, Any]:
    """Returns the answer once everything is committed. The same delivery again changes nothing.

    Raises `UnreadableDelivery` or `MalformedDelivery` for what is no delivery, `DatabaseUnavailable` when
    it cannot be committed.
    """
    measured: list[TimingContext] = []
    with scope(collect=measured.append), TimingContext(OperationType.WEBHOOK, "receive") as timing:
        read = partial(_read, body, received_at)
        delivery, brought, row = read() if len(body) < LARGE_BODY_BYTES else await asyncio.to_thread(read)
        timing.operation_name, timing.crawl_id = delivery.event_type, delivery.crawl_id or None

        async def store(connection: AsyncConnection) -> dict[str, Any]:
            if not delivery.known:
                await connection.execute(insert(UNKNOWN).values(row).on_conflict_do_nothing())
                return {"status": "ignored", "event_type": delivery.event_type}
            if not await ensure_session(connection, delivery.crawl_id, received_at):
                return {"status": "ignored", "reason": "the crawl was deleted"}
            entered = insert(DELIVERIES).values(row).on_conflict_do_nothing().returning(DELIVERIES.c.id)
            if await connection.scalar(entered) is None:
                return {"status": "duplicate", "crawl_id": delivery.crawl_id}
            taken = await take_pages(connection, delivery.crawl_id, brought.pages)
            change = SessionChange(taken.change, taken.settled_at, brought.without_url)
            await change_sessions(connection, {delivery.crawl_id: change})
            before = await apply_facts(connection, delivery.crawl_id, brought.facts)
            # A new page, start or end of a crawl that had ended: it went on, and more may have been lost.
            ended = before is not None and bool(before.ends or before.answers)
            again = before is not None and (delivery.end in before.ends or delivery.action == "started")
            if ended and (taken.touched or again):
                await note_news(connection, delivery.crawl_id)
            elif delivery.end:
                await note_end(connection, delivery.crawl_id)
            timing.stop()
            await insert_operations(connection, measured[-1:])  # which no total contains
            queued = {"queued_jobs": len(taken.job_ids), "job_ids": list(map(str, taken.job_ids))}
            if delivery.action == "page" and delivery.brings_pages:
                return {"status": "queued", **queued, "crawl_id": delivery.crawl_id}
            answer = {"status": "acknowledged", "event_type": delivery.event_type}
            answer["crawl_id"] = delivery.crawl_id
            return answer | queued if delivery.documents else answer

        return await database.run(store)


def _read(body: bytes, received_at: datetime) -> tuple[Delivery, Brought, dict[str, Any]]:
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
        **brought.columns,
    }
    return delivery, brought, row
