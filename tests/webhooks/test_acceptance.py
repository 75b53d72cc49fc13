"""Odd but readable deliveries are committed, and get the answer for their kind."""

import json
from datetime import UTC, datetime
from typing import Any

import pytest
from sqlalchemy import func, select

from crawlscope.database.engine import Database
from crawlscope.models import CrawlSession, Delivery, Page, UnknownEvent
from crawlscope.sessions.recount import recount
from crawlscope.webhooks.acceptance import accept_delivery
from tests.support.producing import deliver

URL = "https://a.example/"


async def take(database: Database, body: dict[str, Any]) -> str:
    answer = await accept_delivery(database, json.dumps(body).encode(), datetime.now(UTC))
    return str(answer["status"])


@pytest.mark.parametrize(
    "odd",
    [
        {"metadata": {"note": "see \\u0000", "\x00": "\ud83d", "nan": float("nan"), "many": 10**4000}},
        {"data": [{"markdown": "\\u0000", "metadata": {"sourceURL": f"{URL}?q=\\u0000", "title": ["\x00"]}}]},
        {"success": False, "error": {"code": "A\x00B\ud800", "message": "\\u0000"}},
        {"success": False, "error": "bad \\u0000 escape\x00"},
        {"webhookId": "\ud800\x00", "error": {"code": ["\x00"]}, "success": False},
    ],
)
async def test_texts_that_the_database_cannot_hold_keep_nothing_out(
    database: Database, odd: dict[str, Any]
) -> None:
    page = {"type": "crawl.page", "data": [{"markdown": "Words.", "metadata": {"sourceURL": URL}}], **odd}
    ended: dict[str, Any] = {
        "type": "crawl.failed",
        "data": [],
        "metadata": odd.get("metadata"),
        "error": odd.get("error"),
    }
    for event in (page, ended):
        assert await take(database, {"id": "crawl\x00\ud800", **event}) in ("queued", "acknowledged")
    assert await database.run(lambda connection: recount(connection, "crawl\x00\ud800")) == {}
    async with database.transaction() as connection:
        assert await connection.scalar(select(func.count()).select_from(Page)) == 1


async def test_events_of_an_unknown_type_are_kept_whatever_they_look_like(database: Database) -> None:
    bodies: list[dict[str, Any]] = [
        {"type": "account.low_credits", "teamId": "team-1"},
        {"type": "account.low_credits", "teamId": "team-2"},
        {"type": "map.completed", "id": "map-1", "data": [URL]},
    ]
    for body in [*bodies, bodies[0]]:
        assert await take(database, body) == "ignored"
    async with database.transaction() as connection:
        assert await connection.scalar(select(func.count()).select_from(UnknownEvent)) == 3
        assert await connection.scalar(select(func.count()).select_from(CrawlSession)) == 0


@pytest.mark.parametrize("data", [[], [{}], [{"metadata": {"statusCode": 500}}]])
async def test_each_failure_without_a_url_counts(database: Database, data: list[Any]) -> None:
    failed = {"type": "crawl.page", "jobId": "crawl-1", "success": False, "error": "It broke.", "data": data}
    for _ in range(3):
        assert await take(database, failed) == "queued"
    async with database.transaction() as connection:
        assert await connection.scalar(select(CrawlSession.failures_without_url)) == 3
        assert set(await connection.scalars(select(Delivery.note))) == {"names no page URL"}


async def test_only_what_should_name_a_page_is_noted_for_naming_none(database: Database) -> None:
    changed = {"url": URL, "status": "changed"}
    await deliver(database, "monitor-1", "monitor.page", [changed])
    await deliver(database, "agent-1", "agent.completed", data="some text")
    await deliver(database, "crawl-1", "crawl.completed")
    async with database.transaction() as connection:
        rows = await connection.execute(select(Delivery.note, Delivery.pages, Delivery.without_url))
        assert rows.all() == [(None, 0, 0)] * 3
