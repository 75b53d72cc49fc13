"""Watches for the pages of a recorded crawl, over the real routes and a real database."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from pydantic import SecretStr

from crawlscope.api.app import create_app
from crawlscope.api.client import ServiceClient
from crawlscope.changes.schemas import CrawlWatched
from crawlscope.changes.watches import AT_ONCE, BODY, Watching
from crawlscope.core.errors import (
    ChangedetectionRefused,
    ChangedetectionUnavailable,
    NotFoundError,
    SettingsError,
)
from crawlscope.core.settings import Settings
from crawlscope.core.vocabulary import PageState
from crawlscope.database.engine import Database
from crawlscope.processes.parts import Parts
from tests.support.fakes.changedetection_server import KEY, FakeChangedetection, said
from tests.support.fakes.firecrawl_http import Reply
from tests.support.producing import A, B, C, deliver, deliver_pages, document, fail_pages, index_pages

SECRET = "the-api-secret-of-this-test"
TOKEN = "the-token-of-this-test"
HERE = "http://here.example:8108"
ENDPOINT = "post://here.example:8108/api/webhook/changedetection"


@pytest.fixture
def watcher() -> Iterator[FakeChangedetection]:
    with FakeChangedetection() as running:
        yield running


Open = Callable[..., Watching]


@pytest.fixture
def settings(watcher: FakeChangedetection, tmp_path: Path) -> Settings:
    return Settings(
        data_dir=tmp_path,
        api_secret=SecretStr(SECRET),
        public_url=HERE,
        changedetection_url=watcher.url,
        changedetection_api_key=SecretStr(KEY),
        _env_file=None,
    )


@pytest.fixture
def watching_with(database: Database, settings: Settings) -> Open:
    def opened(**given: Any) -> Watching:
        return Watching(settings.model_copy(update=given), database)

    return opened


@pytest.fixture
def watching(database: Database, settings: Settings) -> Watching:
    return Watching(settings, database)


async def searchable(database: Database, crawl_id: str, *urls: str) -> None:
    await deliver_pages(database, crawl_id, *urls)
    await index_pages(database, crawl_id)


def numbered(count: int) -> list[str]:
    return [f"https://docs.example/{number}" for number in range(count)]


def numbers(watched: CrawlWatched) -> tuple[int, int, int, int]:
    return watched.created, watched.known, len(watched.refused), watched.left


async def test_a_watch_sends_what_the_endpoint_reads(
    database: Database, watching: Watching, watcher: FakeChangedetection
) -> None:
    page = document(A)
    page["metadata"]["title"] = "A page"
    await deliver(database, "crawl-1", "crawl.page", [page])
    await index_pages(database, "crawl-1")
    await watching.watch("crawl-1")
    [watch] = watcher.watches.values()
    assert watch == {
        "url": A,
        "title": "A page",
        "notification_urls": [f"{ENDPOINT}?+X-API-Secret={SECRET}"],
        "notification_format": "text",
        "notification_body": BODY,
    }


async def test_with_a_token_the_secret_stays_here(
    database: Database, watching_with: Open, watcher: FakeChangedetection
) -> None:
    await searchable(database, "crawl-1", A)
    await watching_with(receive_token=SecretStr(TOKEN)).watch("crawl-1")
    assert watcher.posted[0]["notification_urls"] == [f"{ENDPOINT}/{TOKEN}"]
    assert SECRET.encode() not in b"".join(request.content for request in watcher.requests)


async def test_only_what_search_finds_is_watched(
    database: Database, watching: Watching, watcher: FakeChangedetection
) -> None:
    await searchable(database, "crawl-1", A)
    await deliver_pages(database, "crawl-1", B)
    await index_pages(database, "crawl-1", PageState.UNCHANGED)
    await deliver_pages(database, "crawl-1", "https://empty.example/")
    await index_pages(database, "crawl-1", PageState.EMPTY)
    await deliver_pages(database, "crawl-1", "https://failed.example/")
    await fail_pages(database, "crawl-1", "binary_content", "no text")
    await deliver_pages(database, "crawl-1", "https://waiting.example/")
    await searchable(database, "crawl-2", C)
    assert numbers(await watching.watch("crawl-1")) == (2, 0, 0, 0)
    assert sorted(watcher.watched) == [A, B]


async def test_two_ways_to_one_page_are_one_watch(
    database: Database, watching: Watching, watcher: FakeChangedetection
) -> None:
    for source in (A, B):
        await deliver(database, "crawl-1", "crawl.page", [document(source, final_url=C)])
    await index_pages(database, "crawl-1")
    assert numbers(await watching.watch("crawl-1")) == (1, 0, 0, 0)
    assert watcher.watched == [C]


async def test_again_nothing_is_created_and_what_others_watch_is_left_alone(
    database: Database, watching: Watching, watcher: FakeChangedetection
) -> None:
    await searchable(database, "crawl-1", A, B, C)
    watcher.watch(B)
    assert numbers(await watching.watch("crawl-1")) == (2, 1, 0, 0)
    assert numbers(await watching.watch("crawl-1")) == (0, 3, 0, 0)
    assert sorted(watcher.watched) == [A, B, C]


async def test_two_at_once_create_each_watch_once(
    database: Database, watching: Watching, watcher: FakeChangedetection
) -> None:
    await searchable(database, "crawl-1", A, B, C)
    both = await asyncio.gather(watching.watch("crawl-1"), watching.watch("crawl-1"))
    assert sorted(map(numbers, both)) == [(0, 3, 0, 0), (3, 0, 0, 0)], "in either order"
    assert len(watcher.watches) == 3


async def test_a_limit_leaves_the_rest_for_the_next_time(
    database: Database, watching: Watching, watcher: FakeChangedetection
) -> None:
    urls = numbered(10)
    await searchable(database, "crawl-1", *urls)
    assert numbers(await watching.watch("crawl-1", limit=4)) == (4, 0, 0, 6)
    assert sorted(watcher.watched) == urls[:4]
    assert numbers(await watching.watch("crawl-1", limit=4)) == (4, 4, 0, 2)
    assert numbers(await watching.watch("crawl-1", limit=4)) == (2, 8, 0, 0)
    assert sorted(watcher.watched) == urls


async def test_a_few_are_asked_for_at_a_time(
    database: Database, watching: Watching, watcher: FakeChangedetection
) -> None:
    await searchable(database, "crawl-1", *numbered(12))
    watcher.delay_seconds = 0.05
    assert numbers(await watching.watch("crawl-1")) == (12, 0, 0, 0)
    assert watcher.most_at_once == AT_ONCE


async def test_only_the_pages_that_are_named(
    database: Database, watching: Watching, watcher: FakeChangedetection
) -> None:
    await deliver(database, "crawl-1", "crawl.page", [document(A, final_url="https://a.example/home")])
    await searchable(database, "crawl-1", B, C)
    await searchable(database, "crawl-2", "https://other.example/")
    named = [A, C, "https://other.example/", "\ud800"]
    watched = await watching.watch("crawl-1", urls=named)
    assert numbers(watched) == (2, 0, 2, 0)
    assert sorted(watcher.watched) == ["https://a.example/home", C]
    assert [(each.url, each.reason) for each in watched.refused] == [
        ("https://other.example/", "no searchable page of this crawl"),
        ("\N{REPLACEMENT CHARACTER}", "no searchable page of this crawl"),
    ]


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("https://a.example/{{ 7*7 }}", "template"),
        ("https://a.example/{% now 'utc' %}", "template"),
        ("https://changedetection.io/share/x", "shared watch"),
        ("gopher://a.example/", "Invalid or unsupported URL"),
        (f"https://a.example/{'x' * 5_000}", "400 Bad Request"),
    ],
)
async def test_a_page_that_cannot_be_watched_costs_the_others_nothing(
    database: Database, watching: Watching, watcher: FakeChangedetection, url: str, reason: str
) -> None:
    await searchable(database, "crawl-1", A, url, B)
    watched = await watching.watch("crawl-1")
    assert numbers(watched) == (2, 0, 1, 0)
    assert watched.refused[0].url == url
    assert reason in watched.refused[0].reason
    assert len(watched.refused[0].reason) < 400
    assert sorted(watcher.watched) == [A, B]


async def test_braces_alone_make_no_template(
    database: Database, watching: Watching, watcher: FakeChangedetection
) -> None:
    url = "https://a.example/?q={%22a%22:{}}"
    await searchable(database, "crawl-1", url)
    await watching.watch("crawl-1")
    assert watcher.watched == [url]


@pytest.mark.parametrize(
    ("reply", "reason"),
    [
        (None, "It may have been created all the same"),
        (Reply(500, "<h1>"), "500 Internal Server Error"),
        (said(403, "Invalid access - API key invalid."), "CRAWLSCOPE_CHANGEDETECTION_API_KEY"),
    ],
)
async def test_watches_created_before_an_outage_are_reported(
    database: Database, watching: Watching, watcher: FakeChangedetection, reply: Reply | None, reason: str
) -> None:
    await searchable(database, "crawl-1", *numbered(30))
    watcher.answer_with(
        *[reply] * AT_ONCE, applies_to=lambda request: request.method == "POST" and len(watcher.posted) > 10
    )
    watched = await watching.watch("crawl-1")
    assert watched.created == len(watcher.watches) > 10 - AT_ONCE
    assert 1 <= len(watched.refused) <= AT_ONCE
    assert watched.left == 30 - watched.created - len(watched.refused) > 0
    assert all(reason in each.reason for each in watched.refused)
    watcher.behave()
    again = await watching.watch("crawl-1")
    assert numbers(again) == (30 - watched.created, watched.created, 0, 0)


async def test_a_watch_whose_answer_was_lost_is_not_created_twice(
    database: Database, watching: Watching, watcher: FakeChangedetection
) -> None:
    await searchable(database, "crawl-1", A)
    watcher.answer_with(None, applies_to=lambda request: request.method == "POST", done=True)
    with pytest.raises(ChangedetectionUnavailable):
        await watching.watch("crawl-1")
    assert numbers(await watching.watch("crawl-1")) == (0, 1, 0, 0)
    assert watcher.watched == [A]


async def test_a_full_server_is_reported_with_what_fitted(
    database: Database, watching: Watching, watcher: FakeChangedetection
) -> None:
    await searchable(database, "crawl-1", *numbered(9))
    watcher.watch_limit = 3
    watched = await watching.watch("crawl-1")
    assert (watched.created, len(watcher.watches)) == (3, 3)
    assert watched.left == 6 - len(watched.refused)
    assert "Watch limit reached" in watched.refused[0].reason
    with pytest.raises(ChangedetectionRefused, match="Watch limit reached"):
        await watching.watch("crawl-1")


async def test_nothing_is_asked_for_an_unknown_crawl(
    watching: Watching, watcher: FakeChangedetection
) -> None:
    with pytest.raises(NotFoundError, match="Crawl not found: crawl-9"):
        await watching.watch("crawl-9")
    assert watcher.requests == []


async def test_without_an_address_it_is_said_what_to_set(database: Database, watching_with: Open) -> None:
    await searchable(database, "crawl-1", A)
    with pytest.raises(SettingsError, match="set CRAWLSCOPE_CHANGEDETECTION_URL"):
        await watching_with(changedetection_url=None).watch("crawl-1")


@pytest.fixture
async def service(settings: Settings, watching: Watching) -> AsyncIterator[ServiceClient]:
    """The API as the command line reaches it."""
    parts = SimpleNamespace(settings=settings, secret=SECRET, watching=watching, database=None)
    client = ServiceClient.within(create_app(cast(Parts, parts)), SECRET)
    yield client
    await client.aclose()


async def test_over_http(database: Database, service: ServiceClient, watcher: FakeChangedetection) -> None:
    await searchable(database, "crawl-1", A, B, C)
    watcher.watch(A)
    assert numbers(await service.watch("crawl-1", limit=1)) == (1, 1, 0, 1)
    assert numbers(await service.watch("crawl-1")) == (1, 2, 0, 0)


@pytest.mark.parametrize(
    ("path", "body", "status", "says"),
    [
        ("crawl-9", None, 404, "Crawl not found: crawl-9"),
        ("crawl-1", {"limit": 0}, 422, "greater than or equal to 1"),
        ("crawl-1", {"limit": 10_001}, 422, "less than or equal to 10000"),
        ("crawl-1", {"urls": []}, 422, "at least 1 item"),
        ("crawl-1", {"everything": True}, 422, "Extra inputs"),
    ],
)
async def test_what_cannot_be_is_said_so(
    database: Database, service: ServiceClient, path: str, body: Any, status: int, says: str
) -> None:
    await searchable(database, "crawl-1", A)
    answer = await service._http.post(f"http://crawlscope/api/crawls/{path}/watches", json=body)
    assert (answer.status_code, says in answer.text) == (status, True), answer.text


@pytest.mark.parametrize(
    ("reply", "status", "headers", "says"),
    [
        (said(403, "Invalid access - API key invalid."), 502, {}, "CRAWLSCOPE_CHANGEDETECTION_API_KEY"),
        (Reply(503, {}, {"Retry-After": "60"}), 503, {"retry-after": "60"}, "503 Service Unavailable"),
        (Reply(404, "<h1>"), 502, {}, "is no changedetection.io"),
    ],
)
async def test_what_it_does_not_answer_is_passed_on(
    database: Database,
    service: ServiceClient,
    watcher: FakeChangedetection,
    reply: Reply,
    status: int,
    headers: dict[str, str],
    says: str,
) -> None:
    await searchable(database, "crawl-1", A)
    watcher.answer_with(reply)
    answer = await service._http.post("http://crawlscope/api/crawls/crawl-1/watches")
    assert (answer.status_code, says in answer.json()["detail"]) == (status, True), answer.text
    assert answer.headers.items() >= headers.items()
    assert not any(secret in answer.text for secret in (SECRET, KEY))
