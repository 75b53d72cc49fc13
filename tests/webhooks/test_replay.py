"""Stored deliveries are reprocessed."""

import json
import zlib
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import func, select, update

from crawlscope.core.compression import decompress
from crawlscope.core.vocabulary import PageState
from crawlscope.database.engine import Database
from crawlscope.database.retention import Keep
from crawlscope.firecrawl import documents as scraped_page
from crawlscope.models import CrawlSession, Delivery, Page, UnknownEvent
from crawlscope.sessions.recount import recount
from crawlscope.webhooks import payload
from crawlscope.webhooks.acceptance import accept_delivery
from crawlscope.webhooks.replay import WhichDeliveries, replay
from crawlscope.webhooks.retention import prune_bodies
from tests.support.producing import deliver, deliver_pages, document, index_pages

NOW = datetime(2026, 1, 31, 12, tzinfo=UTC)
A, B = "https://a.example/1", "https://a.example/2"


async def pages_of(database: Database) -> dict[str, Any]:
    async with database.transaction() as connection:
        rows = await connection.execute(select(*Page.__table__.columns))
        return {row.source_url: row for row in rows}


async def some_crawl(database: Database) -> None:
    await deliver(database, "crawl-1", "crawl.started", at=NOW)
    await deliver_pages(database, "crawl-1", A, at=NOW + timedelta(seconds=1))
    await deliver(database, "crawl-1", "crawl.page", [document(B, status_code=404)], at=NOW)
    await deliver(database, "crawl-1", "crawl.page", [], at=NOW, success=False)
    await index_pages(database, "crawl-1")
    await deliver(database, "crawl-1", "crawl.completed", at=NOW + timedelta(seconds=9))


async def test_with_the_same_rules_nothing_changes(database: Database) -> None:
    await some_crawl(database)
    before = await pages_of(database)
    replayed = await replay(database, WhichDeliveries(), datetime.now(UTC))
    assert (replayed.deliveries, replayed.changed, replayed.unreadable) == (5, 0, 0)
    assert await pages_of(database) == before


async def test_with_better_rules_what_was_read_wrong_is_right(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As if an older version had taken markdown from another field, and ends for something else."""
    with monkeypatch.context() as older:
        older.setattr(scraped_page, "_text_in", lambda document, *names: "nothing")
        older.setattr(scraped_page, "_status_code", lambda metadata: None)
        older.setattr(payload, "ENDS", {})
        await some_crawl(database)
    pages = await pages_of(database)
    assert pages[B].state == PageState.INDEXED

    replayed = await replay(database, WhichDeliveries(crawl_id="crawl-1"), datetime.now(UTC))

    assert (replayed.changed, replayed.pages_queued, replayed.crawls) == (3, 1, {"crawl-1"})
    pages = await pages_of(database)
    assert (pages[A].state, pages[A].revision) == (PageState.QUEUED, 2)
    assert (pages[B].state, pages[B].error_code) == (PageState.FAILED, "http_404")
    async with database.transaction() as connection:
        session = (await connection.execute(select(*CrawlSession.__table__.columns))).one()
    assert (session.status, session.completed_at) == ("completed", NOW + timedelta(seconds=1))
    assert await database.run(lambda connection: recount(connection, "crawl-1")) == {}
    again = await replay(database, WhichDeliveries(), datetime.now(UTC))
    assert again.changed == 0


async def test_filters_choose_what_is_replayed(database: Database) -> None:
    await some_crawl(database)
    await deliver(database, "crawl-2", "crawl.started", at=NOW + timedelta(hours=1))

    async def number(**which: Any) -> int:
        return (await replay(database, WhichDeliveries(**which), NOW)).deliveries

    assert await number(crawl_id="crawl-2") == 1
    assert await number(event_type="crawl.page") == 3
    assert await number(since=NOW + timedelta(minutes=1)) == 1
    assert await number(until=NOW + timedelta(seconds=1)) == 3
    assert await number(noted=True) == 1
    assert await number(crawl_id="nobody") == 0


async def test_bodies_that_are_gone_are_counted_and_passed_over(database: Database) -> None:
    await some_crawl(database)
    [pruned] = await prune_bodies(database, Keep(days=30), NOW + timedelta(days=31))
    assert pruned.rows == 5
    assert await prune_bodies(database, Keep(days=30), NOW + timedelta(days=31)) == []
    assert await database.run(lambda connection: recount(connection, "crawl-1")) == {}
    replayed = await replay(database, WhichDeliveries(), datetime.now(UTC))
    assert (replayed.deliveries, replayed.unreadable, replayed.changed) == (5, 5, 0)


async def test_events_of_a_type_that_is_known_by_now_are_taken_in(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    body = json.dumps({"type": "map.page", "id": "crawl-1", "data": [document(A)]}).encode()
    await accept_delivery(database, body, NOW)
    assert (await replay(database, WhichDeliveries(), NOW)).newly_known == 0
    monkeypatch.setattr(payload, "FAMILIES", {*payload.FAMILIES, "map"})
    for others in ({"since": NOW + timedelta(seconds=1)}, {"until": NOW}, {"event_type": "crawl.page"}):
        assert (await replay(database, WhichDeliveries(**others), NOW)).newly_known == 0
    assert (await replay(database, WhichDeliveries(since=NOW), NOW)).newly_known == 1
    async with database.transaction() as connection:
        assert await connection.scalar(select(func.count()).select_from(UnknownEvent)) == 0
        assert await connection.scalar(select(Delivery.received_at)) == NOW


async def test_an_event_of_a_newly_known_type_that_makes_no_sense_stays_as_it_is(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    for body in ({"type": "map.completed"}, {"type": "map.completed", "id": "crawl-1"}):
        await accept_delivery(database, json.dumps(body).encode(), NOW)
    monkeypatch.setattr(payload, "FAMILIES", {*payload.FAMILIES, "map"})
    for newly_known in (1, 0):
        replayed = await replay(database, WhichDeliveries(), NOW)
        assert (replayed.newly_known, replayed.unreadable) == (newly_known, 1)
    async with database.transaction() as connection:
        assert await connection.scalar(select(func.count()).select_from(UnknownEvent)) == 1


async def test_bodies_that_older_versions_compressed_are_read(database: Database) -> None:
    await some_crawl(database)
    async with database.transaction() as connection:
        for row in (await connection.execute(select(Delivery.id, Delivery.body))).all():
            older = zlib.compress(decompress(row.body), 1)
            await connection.execute(update(Delivery).where(Delivery.id == row.id).values(body=older))
    replayed = await replay(database, WhichDeliveries(), datetime.now(UTC))
    assert (replayed.deliveries, replayed.changed, replayed.unreadable) == (5, 0, 0)


@pytest.mark.parametrize("stored", [b"", b"words", b"\x28\xb5\x2f\xfd words"])
async def test_a_damaged_body_is_unreadable(database: Database, stored: bytes) -> None:
    await deliver_pages(database, "crawl-1", A)
    async with database.transaction() as connection:
        await connection.execute(update(Delivery).values(body=stored))
    replayed = await replay(database, WhichDeliveries(), datetime.now(UTC))
    assert (replayed.deliveries, replayed.changed, replayed.unreadable) == (1, 0, 1)
