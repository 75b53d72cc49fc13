"""The client against a changedetection.io that is slow, down, full, another program, or lies."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from crawlscope.changes.changedetection_client import ChangedetectionClient
from crawlscope.core.errors import ChangedetectionRefused, ChangedetectionUnavailable, SettingsError
from tests.support.fakes.changedetection_server import KEY, FakeChangedetection, said
from tests.support.fakes.firecrawl_http import Reply
from tests.support.fakes.loopback import free_port

URL = "https://docs.example/page"
SECRET = "the-api-secret"
WATCH = {"url": URL, "notification_urls": [f"post://here/?+X-API-Secret={SECRET}"]}


@pytest.fixture
def watcher() -> Iterator[FakeChangedetection]:
    with FakeChangedetection(base_path="/watch") as running:
        yield running


@pytest.fixture
async def client(watcher: FakeChangedetection) -> AsyncIterator[ChangedetectionClient]:
    async with client_of(f"{watcher.url}/") as opened:
        yield opened


def client_of(url: str, key: str | None = KEY, patience_seconds: float = 30.0) -> ChangedetectionClient:
    return ChangedetectionClient(url, key, patience_seconds=patience_seconds, hidden=[SECRET])


async def test_creates_and_lists(watcher: FakeChangedetection, client: ChangedetectionClient) -> None:
    assert await client.watched_urls() == set()
    uuid = await client.create(WATCH)
    assert watcher.watches == {uuid: WATCH}
    assert await client.watched_urls() == {URL}


@pytest.mark.parametrize("key", [None, "wrong-key-of-mine"])
async def test_a_wrong_key_is_said_so_and_not_repeated(watcher: FakeChangedetection, key: str | None) -> None:
    async with client_of(watcher.url, key) as client:
        with pytest.raises(ChangedetectionRefused) as caught:
            await client.watched_urls()
    assert str(caught.value) == (
        "changedetection.io refused (403 Forbidden): Invalid access - API key invalid. "
        "Check CRAWLSCOPE_CHANGEDETECTION_API_KEY."
    )
    assert len(watcher.requests) == 1


async def test_what_passes_is_tried_again(
    watcher: FakeChangedetection, client: ChangedetectionClient
) -> None:
    watcher.answer_with(Reply(503, {}), said(429, "Slow down."))
    await client.create(WATCH)
    assert watcher.watched == [URL]
    watcher.answer_with(Reply(500, "<h1>"), None)
    assert await client.watched_urls() == {URL}


async def test_it_waits_as_long_as_it_is_asked_to(
    watcher: FakeChangedetection, client: ChangedetectionClient
) -> None:
    watcher.answer_with(Reply(429, {}, {"Retry-After": "0"}))
    await client.create(WATCH)
    watcher.answer_with(Reply(503, {}, {"Retry-After": "60"}))
    async with asyncio.timeout(30):
        with pytest.raises(ChangedetectionUnavailable, match="503 Service Unavailable") as caught:
            await client.create(WATCH)
    assert (caught.value.retry_after, caught.value.maybe_done) == (60, False)


@pytest.mark.parametrize("reply", [Reply(500, "<h1>"), None, Reply(201, {"id": 7}), Reply(201, "<p>")])
async def test_what_may_be_done_is_not_asked_twice(
    watcher: FakeChangedetection, client: ChangedetectionClient, reply: Reply | None
) -> None:
    watcher.answer_with(reply, done=True)
    with pytest.raises(ChangedetectionUnavailable) as caught:
        await client.create(WATCH)
    assert caught.value.maybe_done
    assert watcher.watched == [URL]


async def test_a_full_one_is_not_asked_again(
    watcher: FakeChangedetection, client: ChangedetectionClient
) -> None:
    watcher.watch_limit = 0
    with pytest.raises(ChangedetectionRefused, match=r"429 .*: Watch limit reached \(0/0 watches\)"):
        await client.create(WATCH)
    assert len(watcher.requests) == 1


async def test_its_complaint_is_reported_without_the_secret(
    watcher: FakeChangedetection, client: ChangedetectionClient
) -> None:
    with pytest.raises(ChangedetectionRefused) as caught:
        await client.create(WATCH | {"notification_urls": [f"mail://x?+X-API-Secret={SECRET}\n"]})
    assert caught.value.status_code == 400
    assert "is not a valid AppRise URL" in str(caught.value)
    assert SECRET not in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("status", [400, 503])
async def test_its_words_can_be_sent_on(
    watcher: FakeChangedetection, client: ChangedetectionClient, status: int
) -> None:
    watcher.answer_with(Reply(status, {"message": "half an emoji \ud83d"}, {"Retry-After": "60"}))
    with pytest.raises((ChangedetectionRefused, ChangedetectionUnavailable)) as caught:
        await client.create(WATCH)
    assert "half an emoji \ufffd" in str(caught.value)
    assert str(caught.value).encode()


async def test_a_slow_one_is_not_waited_for(watcher: FakeChangedetection) -> None:
    watcher.delay_seconds = 3.0
    async with client_of(watcher.url, patience_seconds=0.5) as client:
        with pytest.raises(ChangedetectionUnavailable, match=r"did not answer within 0\.5 s") as caught:
            await client.watched_urls()
    assert caught.value.maybe_done


async def test_no_server_there() -> None:
    async with client_of(f"http://user:pass@127.0.0.1:{free_port()}/x?y=z", patience_seconds=5) as client:
        with pytest.raises(ChangedetectionUnavailable, match="cannot be reached") as caught:
            await client.watched_urls()
    assert "/x cannot" in str(caught.value)
    assert "pass" not in str(caught.value)


@pytest.mark.parametrize("reply", [Reply(404, "<h1>Not Found</h1>"), Reply(302, "", {"Location": "/login"})])
async def test_another_server(
    watcher: FakeChangedetection, client: ChangedetectionClient, reply: Reply
) -> None:
    watcher.answer_with(reply)
    with pytest.raises(ChangedetectionRefused, match="Check CRAWLSCOPE_CHANGEDETECTION_URL"):
        await client.watched_urls()


@pytest.mark.parametrize(
    "body", [{"status": "ok"}, {"a": {"title": "no URL"}}, ["x"], "<h1>Welcome</h1>", {"a": {"url": 7}}]
)
async def test_a_list_of_another_shape(
    watcher: FakeChangedetection, client: ChangedetectionClient, body: Any
) -> None:
    watcher.answer_with(Reply(200, body))
    with pytest.raises(ChangedetectionUnavailable, match="something else than its API does"):
        await client.watched_urls()


@pytest.mark.parametrize(
    ("url", "key", "names"),
    [
        ("watch.example:5000", KEY, "CRAWLSCOPE_CHANGEDETECTION_URL"),
        ("ftp://watch.example", KEY, "CRAWLSCOPE_CHANGEDETECTION_URL"),
        ("http://watch.example", "a key\nof two lines", "CRAWLSCOPE_CHANGEDETECTION_API_KEY"),
    ],
)
def test_settings_that_cannot_work(url: str, key: str, names: str) -> None:
    with pytest.raises(SettingsError, match=names) as caught:
        client_of(url, key)
    assert "lines" not in str(caught.value)
