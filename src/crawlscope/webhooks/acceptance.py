"""Accepts deliveries: those that arrive while a transaction commits share the next one.

A transaction writes ledger, pages, jobs and the crawls' state of its deliveries, or nothing at all.
"""

import asyncio
from collections import defaultdict
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from itertools import groupby
from typing import Any

from sqlalchemy import text
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection

from crawlscope import models
from crawlscope.core.batcher import Batcher, BatcherByKey
from crawlscope.core.errors import DependencyError
from crawlscope.core.values import arrays, storable_json
from crawlscope.core.vocabulary import OperationType
from crawlscope.crawls.reconciliations import note_end, note_news
from crawlscope.database.engine import LOCK_NOT_AVAILABLE, Database, sqlstate
from crawlscope.pages.receive import Effect, PageDelivery, receive_pages
from crawlscope.sessions.repository import ensure_sessions, fact_to_json
from crawlscope.timing import TimingContext, scope
from crawlscope.timing.telemetry import conventions, meters
from crawlscope.webhooks import payload
from crawlscope.webhooks.payload import Delivery, DeliveryContent

UNKNOWN = models.table_of(models.UnknownEvent)
LARGE_BODY_BYTES = 256 * 1024
"""A smaller body is not worth a thread. Larger ones have transactions of their own, so that others need not
wait for them."""
MAX_DELIVERIES = 64
MAX_BODY_BYTES = 8 * 1024 * 1024
"""The maximum for a transaction; a single larger delivery has its own."""
TRANSACTIONS = 2
"""In progress at once: while one commits, the next one writes."""
_COLUMNS = (
    *("crawl_id", "identity", "event_type", "webhook_id", "received_at", "body", "body_bytes", "pages"),
    *("without_url", "note"),
)
_ENTER = text("""
    INSERT INTO webhook.deliveries (
        crawl_id, identity, event_type, webhook_id, received_at, body, body_bytes, pages, without_url, facts,
        note
    )
    SELECT crawl_id, identity, event_type, webhook_id, received_at, body, body_bytes, pages, without_url,
        CAST(facts AS jsonb), note
    FROM unnest(
        CAST(:crawl_id AS text[]), CAST(:identity AS uuid[]), CAST(:event_type AS text[]),
        CAST(:webhook_id AS text[]), CAST(:received_at AS timestamptz[]), CAST(:body AS bytea[]),
        CAST(:body_bytes AS int[]), CAST(:pages AS int[]), CAST(:without_url AS int[]),
        CAST(:facts AS text[]), CAST(:note AS text[])
    ) WITH ORDINALITY AS given (
        crawl_id, identity, event_type, webhook_id, received_at, body, body_bytes, pages, without_url, facts,
        note, number
    )
    ORDER BY crawl_id COLLATE "C", identity, number
    ON CONFLICT (crawl_id, identity) DO NOTHING
    RETURNING id, crawl_id, identity
""")

_LIMIT_WAIT = text("SET LOCAL lock_timeout = '2s'")
"""Longer than PostgreSQL takes to find a deadlock."""

Answer = dict[str, Any]


class _Delayed(DependencyError):
    """Something else has locked a crawl for long, for example its deletion."""


@dataclass(frozen=True, eq=False)
class Received:
    """A delivery that was read, and waits to be stored."""

    delivery: Delivery
    content: DeliveryContent
    row: dict[str, Any]
    """The row of the ledger, or of unknown events."""
    size: int
    timing: TimingContext


class Acceptance:
    def __init__(self, database: Database) -> None:
        self._database = database
        self._small = Batcher(self._store, max_items=MAX_DELIVERIES, concurrency=TRANSACTIONS)
        self._large = Batcher(
            self._store, max_items=MAX_DELIVERIES, weight=lambda each: each.size, max_weight=MAX_BODY_BYTES
        )

        def patient() -> Batcher[Received, Answer]:
            return Batcher(
                lambda received: database.run(partial(store_deliveries, received=received)),
                max_items=MAX_DELIVERIES,
            )

        self._delayed = BatcherByKey(patient)
        """By crawl, those that were locked for long: the others need not wait for them."""

    async def accept(self, body: bytes, received_at: datetime) -> Answer:
        """Returns the answer once everything is committed. The same delivery again changes nothing.

        Raises `UnreadableDelivery` or `MalformedDelivery` if the body is no delivery, `DatabaseUnavailable`
        if it cannot be committed.
        """
        leave = scope(collect=lambda _: None)  # it is stored with its delivery, or not at all
        with leave, TimingContext(OperationType.WEBHOOK, "receive") as timing:
            read, small = partial(payload.received, body, received_at), len(body) < LARGE_BODY_BYTES
            delivery, content, row = read() if small else await asyncio.to_thread(read)
            timing.operation_name, timing.crawl_id = delivery.event_type, delivery.crawl_id or None
            timing.identify()
            received, answer = Received(delivery, content, row, len(body), timing), None
            if delivery.crawl_id not in self._delayed:
                with suppress(_Delayed):
                    answer = await (self._small if small else self._large).add(received)
            answer = answer or await self._delayed.add(delivery.crawl_id, received)
        meters.count(conventions.DELIVERIES, answer["status"])
        return answer

    async def _store(self, received: Sequence[Received]) -> Sequence[Answer]:
        async def store(connection: AsyncConnection) -> Sequence[Answer]:
            await connection.execute(_LIMIT_WAIT)
            return await store_deliveries(connection, received)

        try:
            return await self._database.run(store)
        except DBAPIError as error:
            if sqlstate(error) != LOCK_NOT_AVAILABLE:
                raise
            raise _Delayed("a crawl is locked") from None


async def accept_delivery(database: Database, body: bytes, received_at: datetime) -> Answer:
    """Like `Acceptance.accept`, for one delivery alone."""
    return await Acceptance(database).accept(body, received_at)


async def store_deliveries(connection: AsyncConnection, received: Sequence[Received]) -> list[Answer]:
    """As if one came after the other. Returns their answers."""
    known = [each for each in received if each.delivery.known]
    if unknown := [each.row for each in received if not each.delivery.known]:
        unknown.sort(key=lambda row: row["identity"])  # as others insert them
        await connection.execute(insert(UNKNOWN).on_conflict_do_nothing(), unknown)
    first_seen = {each.delivery.crawl_id: each.row["received_at"] for each in reversed(known)}
    deleted = await ensure_sessions(connection, first_seen)
    new = await _enter(connection, [each for each in known if each.delivery.crawl_id not in deleted])
    effects = dict(zip(new, await receive_pages(connection, list(new.values())), strict=True))
    await _note_checks(connection, effects)
    return [_answer(each.delivery, deleted, effects.get(each)) for each in received]


async def _enter(connection: AsyncConnection, known: Sequence[Received]) -> dict[Received, PageDelivery]:
    """Adds deliveries to the ledger; returns what those bring that it did not have."""
    if not known:
        return {}
    rows = [[each.row[name] for name in _COLUMNS] for each in known]
    facts = [storable_json(list(map(fact_to_json, each.content.facts))) for each in known]
    entered = {
        (row.crawl_id, row.identity): row.id
        for row in await connection.execute(_ENTER, arrays(_COLUMNS, rows) | {"facts": facts})
    }
    new = {}
    for each in known:  # a further one in this batch is a duplicate
        if delivery_id := entered.pop((each.delivery.crawl_id, each.row["identity"]), None):
            crawl_id, content = each.delivery.crawl_id, each.content
            new[each] = PageDelivery(
                *(crawl_id, content.pages, delivery_id, content.facts, content.without_url, each.timing)
            )
    return new


async def _note_checks(connection: AsyncConnection, new: Mapping[Received, Effect]) -> None:
    """Plans the comparison with Firecrawl of crawls that ended, or continued after their end."""
    noted: dict[str, list[Callable[[AsyncConnection, str], Awaitable[None]]]] = defaultdict(list)
    for each, effect in new.items():
        delivery, before, notes = each.delivery, effect.before, noted[each.delivery.crawl_id]
        # A new page, start or end of a crawl that had ended: it continued, and more may have been lost.
        ended = before is not None and before.has_ended
        again = before is not None and (delivery.end in before.ends or delivery.action == "started")
        if ended and (effect.touched or again):
            notes.append(note_news)
        elif delivery.end:
            notes.append(note_end)
    for crawl_id, notes in sorted(noted.items()):
        for note, _ in groupby(notes):  # the same again changes nothing
            await note(connection, crawl_id)


def _answer(delivery: Delivery, deleted: Collection[str], effect: Effect | None) -> Answer:
    """`effect` is that of a delivery that is new."""
    if not delivery.known:
        return {"status": "ignored", "event_type": delivery.event_type}
    if delivery.crawl_id in deleted:
        return {"status": "ignored", "reason": "the crawl was deleted"}
    if effect is None:
        return {"status": "duplicate", "crawl_id": delivery.crawl_id}
    queued = {"queued_jobs": len(effect.job_ids), "job_ids": list(map(str, effect.job_ids))}
    if delivery.action == "page" and delivery.brings_pages:
        return {"status": "queued", **queued, "crawl_id": delivery.crawl_id}
    answer = {"status": "acknowledged", "event_type": delivery.event_type, "crawl_id": delivery.crawl_id}
    return answer | queued if delivery.documents else answer
