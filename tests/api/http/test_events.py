"""Live feeds as clients get them: over connections of a served application."""

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx2
import pytest
from starlette.types import Message

from crawlscope.api.http import events
from crawlscope.api.keys import registry
from crawlscope.core.errors import NotFoundError
from crawlscope.database.engine import Database
from crawlscope.insights.schemas import LiveEnd
from tests.api.http.conftest import Served
from tests.insights.test_live import LONG_AGO, fail_at_crawler, urls
from tests.support.producing import A, deliver

Events = AsyncIterator[dict[str, Any]]
CRAWL = "/api/metrics/crawls/crawl-1/events"
ALL = "/api/metrics/events"


@asynccontextmanager
async def feed(
    http: httpx2.AsyncClient, path: str, **headers: str
) -> AsyncIterator[AsyncIterator[dict[str, Any]]]:
    async with http.stream("GET", path, headers=headers) as answer:
        assert answer.status_code == 200
        assert answer.headers["content-type"].startswith("text/event-stream")
        yield _events(answer)


async def _events(answer: httpx2.Response) -> Events:
    event: dict[str, Any] = {}
    async for line in answer.aiter_lines():
        name, _, value = line.partition(": ")
        if not line and "data" in event:
            yield {**event, "data": json.loads(event["data"])}
        event = {**event, name: value} if line else {}


async def test_a_client_follows_a_crawl_and_resumes_until_nothing_is_left(database: Database, served: Served):
    await deliver(database, "crawl-1", "crawl.started", at=LONG_AGO)
    async with feed(served.http, CRAWL) as received:
        first = await anext(received)
        assert first["event"] == "crawl"
        assert first["data"]["status"] == "in_progress"
        await fail_at_crawler(database, "crawl-1", [A])
        pages = await anext(received)
        assert (pages["event"], [page["url"] for page in pages["data"]["pages"]]) == ("pages", [A])
        assert pages["retry"] == str(events.RECONNECT_MS)
    await fail_at_crawler(database, "crawl-1", urls(0, 3))
    await deliver(database, "crawl-1", "crawl.completed", at=LONG_AGO)

    async with feed(served.http, CRAWL, **{"Last-Event-ID": pages["id"]}) as received:
        rest = [event async for event in received]

    pages_of = [event["data"]["pages"] for event in rest if event["event"] == "pages"]
    assert [page["url"] for pages in pages_of for page in pages] == urls(0, 3)
    assert [event["event"] for event in rest][-2:] == ["crawl", "end"]
    assert rest[-1]["data"] == {"crawl_id": "crawl-1", "reason": "sealed"}
    answer = await served.http.get(CRAWL, headers={"Last-Event-ID": rest[-1]["id"]})
    assert (answer.status_code, answer.content) == (204, b"")


async def test_feeds_end_in_order_when_the_service_stops(database: Database, served: Served):
    await deliver(database, "crawl-1", "crawl.started", at=LONG_AGO)
    async with feed(served.http, CRAWL) as one, feed(served.http, ALL) as every:
        assert (await anext(one))["event"] == "crawl"
        assert [crawl["crawl_id"] for crawl in (await anext(every))["data"]["crawls"]] == ["crawl-1"]

        served.stopping.set()

        assert [event async for event in one] == [event async for event in every] == []
    await asyncio.wait_for(served.ended, 60)


async def test_a_feed_tells_nothing_after_its_key_is_revoked(
    database: Database, served: Served, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(registry, "REFRESH_SECONDS", 0.0)
    await deliver(database, "crawl-1", "crawl.started", at=LONG_AGO)
    key = (await served.http.post("/api/keys", json={"name": "a program", "scope": "read"})).json()
    async with feed(served.http, CRAWL, **{"X-API-Secret": key["key"]}) as received:
        assert (await anext(received))["event"] == "crawl"
        assert (await served.http.delete(f"/api/keys/{key['id']}")).status_code == 204
        await fail_at_crawler(database, "crawl-1", [A])
        async with asyncio.timeout(60):
            assert [event async for event in received if event["event"] == "pages"] == []


async def test_what_is_no_feed_is_an_ordinary_error(database: Database, served: Served):
    await deliver(database, "crawl-1", "crawl.started", at=LONG_AGO)

    unknown = await served.http.get("/api/metrics/crawls/nobody/events")
    wrong = await served.http.get(CRAWL, params={"last_event_id": "yesterday"})
    unauthenticated = await served.http.get(CRAWL, headers={"X-API-Secret": "wrong"})

    assert (unknown.status_code, unknown.json()["detail"]) == (404, "Crawl not found: nobody")
    assert (wrong.status_code, wrong.json()["detail"][:13]) == (422, "Last-Event-ID")
    assert unauthenticated.status_code == 401


async def test_a_client_that_takes_nothing_is_disconnected(monkeypatch: pytest.MonkeyPatch):
    """As when its connection and all buffers on the way to it are full."""
    monkeypatch.setattr(events, "SEND_SECONDS", 0.1)
    ended: list[str] = []

    async def endless() -> AsyncIterator[bytes]:
        try:
            while True:
                yield events.encoded("end", LiveEnd(crawl_id="crawl-1", reason="sealed"), None)
        finally:
            ended.append("the feed")

    async def send(message: Message) -> None:
        if message["type"] == "http.response.body":
            await asyncio.Event().wait()

    async def receive() -> Message:
        await asyncio.Event().wait()
        raise AssertionError("unreachable")

    await asyncio.wait_for(events.Feed(endless())({"type": "http", "method": "GET"}, receive, send), 60)

    assert ended == ["the feed"]


async def test_the_feed_of_a_crawl_that_is_deleted_as_it_begins_ends_in_order():
    sent: list[Message] = []

    async def deleted() -> AsyncIterator[bytes]:
        raise NotFoundError("Crawl not found: crawl-1")
        yield b""

    async def send(message: Message) -> None:
        sent.append(message)

    async def receive() -> Message:
        await asyncio.Event().wait()
        raise AssertionError("unreachable")

    await asyncio.wait_for(events.Feed(deleted())({"type": "http", "method": "GET"}, receive, send), 60)

    assert sent[-1] == {"type": "http.response.body", "body": b"", "more_body": False}


async def test_the_duration_of_a_feed_is_the_time_to_its_beginning(database: Database, served: Served):
    await deliver(database, "crawl-1", "crawl.started", at=LONG_AGO)
    asked = time.perf_counter()
    async with feed(served.http, CRAWL) as received:
        await anext(received)
        begun_after_ms = (time.perf_counter() - asked) * 1000
        await deliver(database, "crawl-1", "crawl.completed", at=LONG_AGO)
        assert [event async for event in received][-1]["event"] == "end"

    recorded: list[dict[str, Any]] = []
    while not recorded:
        await asyncio.sleep(0.05)
        answer = await served.http.get("/api/metrics/requests", params={"url": "/events"})
        recorded = answer.json()["requests"]
    assert recorded[0]["duration_ms"] <= begun_after_ms
