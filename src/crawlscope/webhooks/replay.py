"""Reprocesses stored deliveries, for example after a fix of the rules that read them."""

from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial

from sqlalchemy import ColumnElement, Table, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from crawlscope.core.compression import decompress
from crawlscope.core.errors import NotFoundError, UsageError
from crawlscope.core.values import storable
from crawlscope.database.engine import Database
from crawlscope.pages.receive import PageDelivery, receive_pages
from crawlscope.sessions.recount import recount
from crawlscope.sessions.repository import (
    DELIVERIES,
    fact_to_json,
    keep_action,
    keep_crawls,
    require_session,
)
from crawlscope.webhooks import payload
from crawlscope.webhooks.acceptance import UNKNOWN, accept_delivery


@dataclass(frozen=True)
class WhichDeliveries:
    """Conditions that must all hold; without any, every delivery."""

    crawl_id: str | None = None
    event_type: str | None = None
    since: datetime | None = None
    until: datetime | None = None
    noted: bool = False
    """Only deliveries with a note, for example that they name no page."""


@dataclass
class Replayed:
    deliveries: int = 0
    changed: int = 0
    """Deliveries with another content by this version's rules, of pages or of their crawl."""
    pages_queued: int = 0
    unreadable: int = 0
    """Deliveries whose body is no longer kept, or cannot be read."""
    newly_known: int = 0
    """Events of a type that was not known when they came."""
    crawls: set[str] = field(default_factory=set)


async def replay(database: Database, which: WhichDeliveries, now: datetime) -> Replayed:
    """Reads the bodies with this version's rules; with the same rules nothing changes. Each delivery keeps
    the time it was received at, and pages whose content is the same keep their state."""
    replayed = Replayed()
    found = select(DELIVERIES.c.id).where(*_conditions(DELIVERIES, which))
    if which.crawl_id is not None:
        found = found.where(DELIVERIES.c.crawl_id == storable(which.crawl_id))
    if which.noted:
        found = found.where(DELIVERIES.c.note.is_not(None))
    async with database.transaction() as connection:
        delivery_ids = (await connection.scalars(found.order_by(DELIVERIES.c.id))).all()
    for delivery_id in delivery_ids:
        replayed.deliveries += 1
        try:
            changed = await database.run(partial(replay_delivery, delivery_id=delivery_id))
        except UsageError:
            replayed.unreadable += 1
            continue
        if changed:
            crawl_id, queued = changed
            replayed.changed += 1
            replayed.pages_queued += queued
            replayed.crawls.add(crawl_id)

    async def note(connection: AsyncConnection, crawl_id: str) -> None:
        await require_session(connection, crawl_id)
        await keep_action(connection, crawl_id, now, "replay")

    for crawl_id in sorted(replayed.crawls):
        with suppress(NotFoundError):  # it was deleted meanwhile
            await database.run(partial(note, crawl_id=crawl_id))
    if which.crawl_id is None and not which.noted:
        await accept_newly_known(database, which, replayed)
    return replayed


def _conditions(kept: Table, which: WhichDeliveries) -> list[ColumnElement[bool]]:
    """The conditions by type and time."""
    conditions = []
    if which.event_type is not None:
        conditions.append(kept.c.event_type == storable(which.event_type))
    if which.since is not None:
        conditions.append(kept.c.received_at >= which.since)
    if which.until is not None:
        conditions.append(kept.c.received_at < which.until)
    return conditions


async def replay_delivery(connection: AsyncConnection, delivery_id: int) -> tuple[str, int] | None:
    """The crawl and its newly queued pages; None where nothing changed."""
    its_crawl = select(DELIVERIES.c.crawl_id).where(DELIVERIES.c.id == delivery_id)
    await keep_crawls(connection, await connection.scalars(its_crawl))
    found = select(*DELIVERIES.c).where(DELIVERIES.c.id == delivery_id).with_for_update(key_share=True)
    row = (await connection.execute(found)).one_or_none()
    if row is None:  # its crawl was deleted meanwhile
        return None
    if row.body is None:
        raise UsageError("the body is no longer kept")
    body = decompress(row.body)
    content = payload.content_of(payload.read(body), body, row.received_at)
    [effect] = await receive_pages(connection, [PageDelivery(row.crawl_id, content.pages, delivery_id)])
    columns = content.columns | {"facts": list(map(fact_to_json, content.facts))}
    differs = any(getattr(row, name) != value for name, value in columns.items())
    if differs:
        await connection.execute(update(DELIVERIES).where(DELIVERIES.c.id == delivery_id).values(columns))
        await recount(connection, row.crawl_id)
    if not differs and not effect.touched and not effect.reworded:
        return None
    return row.crawl_id, len(effect.job_ids)


async def accept_newly_known(database: Database, which: WhichDeliveries, replayed: Replayed) -> None:
    """Events that were kept because their type was unknown, and that this version knows."""
    found = select(UNKNOWN.c.id).where(*_conditions(UNKNOWN, which)).order_by(UNKNOWN.c.id)
    async with database.transaction() as connection:
        event_ids = (await connection.scalars(found)).all()
    for event_id in event_ids:
        this_event = UNKNOWN.c.id == event_id
        async with database.transaction() as connection:
            event = (await connection.execute(select(*UNKNOWN.c).where(this_event))).one_or_none()
        if event is None:  # another replay took it
            continue
        try:
            body = decompress(event.body)
            if not payload.read(body).known:
                continue
            await accept_delivery(database, body, event.received_at)
        except UsageError:
            replayed.unreadable += 1
            continue
        async with database.transaction() as connection:
            await connection.execute(UNKNOWN.delete().where(this_event))
        replayed.newly_known += 1
