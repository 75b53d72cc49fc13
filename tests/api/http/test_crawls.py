"""Users' actions on crawls, and odd crawl ids."""

import json
from typing import Any
from urllib.parse import quote

import pytest

from crawlscope.api.app import create_app
from crawlscope.api.client import ServiceClient
from crawlscope.core.errors import NotFoundError
from tests.api.http.conftest import SECRET, Serve, Service
from tests.support.fakes.firecrawl_server import FakeFirecrawl
from tests.support.stack import page_event

JSON = {"Content-Type": "application/json"}
ODD_IDS = ["team/42", "a%2Fb", "100%", "%252F", "/", "//", "x/pages", "ü/%zz?#", " ", "a/"]
NO_TIMES: list[dict[str, Any]] = [
    {"since": "9999-12-31T23:59:59-23:59"},
    {"until": "0001-01-01T00:00:00+23:59"},
    {"since": "yesterday"},
    {"until": 1},
    {"since": 1e18},
]
TIMES: list[tuple[dict[str, Any], int]] = [
    ({}, 1),
    ({"since": None, "until": None}, 1),
    ({"since": "1970-01-01T00:00:00Z", "until": "8999-12-31T23:59:59Z"}, 1),
    ({"since": "2026-01-01T00:00:00"}, 1),
    ({"since": "8999-01-01T00:00:00+02:00"}, 0),
    ({"until": "2026-01-01"}, 0),
]


async def recorded(service: Service, crawl_id: str, event: str = "crawl.started") -> None:
    answer = await service.http.post("/api/webhook/firecrawl", json={"type": event, "id": crawl_id})
    assert answer.status_code == 202


async def test_a_crawl_is_reached_by_any_id(service: Service):
    for crawl_id in ODD_IDS:
        await recorded(service, crawl_id)
        segment = quote(crawl_id, safe="")
        metrics, crawls = f"/api/metrics/crawls/{segment}", f"/api/crawls/{segment}"
        assert (await service.http.get(metrics)).json()["crawl_id"] == crawl_id
        for list_of in ("pages", "deliveries"):
            assert (await service.http.get(f"{metrics}/{list_of}")).status_code == 200
        compared = (await service.http.get(f"{metrics}/compare", params={"against": crawl_id})).json()
        assert compared["a"] == compared["b"]
        for action in ("retry", "recount"):
            answer = await service.http.post(f"{crawls}/{action}")
            assert (answer.is_success, answer.json()["crawl_id"]) == (True, crawl_id)


async def test_an_unknown_crawl_is_not_found_by_any_id(service: Service):
    for crawl_id in ODD_IDS:
        for action in ("cancel", "retry", "recount"):
            answer = await service.http.post(f"/api/crawls/{quote(crawl_id, safe='')}/{action}")
            assert (answer.status_code, answer.json()["detail"]) == (404, f"Crawl not found: {crawl_id}")


async def test_commands_and_tools_reach_it_too(service: Service):
    client = ServiceClient.within(create_app(service.parts), SECRET)
    for crawl_id in ODD_IDS:
        await recorded(service, crawl_id)
        assert (await client.crawl(crawl_id)).crawl_id == crawl_id
        assert (await client.compare(crawl_id, crawl_id)).a.crawl_id == crawl_id
        with pytest.raises(NotFoundError, match="Crawl not found: "):
            await client.crawl(f"{crawl_id}/other")
    await client.aclose()


async def test_a_slash_that_is_not_escaped_still_separates(service: Service):
    await recorded(service, "team/pages")
    answer = await service.http.get("/api/metrics/crawls/team/pages")
    assert answer.json()["detail"] == "Crawl not found: team"
    assert (await service.http.get("/api/metrics/crawls/team/42")).json()["detail"] == "Not Found"


async def test_a_crawl_that_ended_elsewhere_needs_no_firecrawl_to_say_so(service: Service):
    await recorded(service, "crawl-1")
    assert (await service.http.post("/api/crawls/crawl-1/cancel")).status_code == 422
    await recorded(service, "crawl-1", "crawl.completed")
    answer = await service.http.post("/api/crawls/crawl-1/cancel")
    assert (answer.status_code, answer.json()) == (202, {"crawl_id": "crawl-1", "cancelled": False})


async def test_a_started_batch_is_reported_with_its_invalid_urls(serve: Serve):
    with FakeFirecrawl() as firecrawl:
        service = await serve(firecrawl_url=firecrawl.url)
        order = json.dumps({"urls": ["https://a.example/", "\ud800", "a\x00b"]}).encode()
        answer = await service.local.post("/api/crawls", content=order, headers=JSON)
        assert answer.status_code == 202, answer.text
        assert answer.json()["invalid_urls"] == ["�", "a�b"]
        assert answer.json()["crawl_id"] in firecrawl.jobs


async def test_a_replay_of_no_time_is_refused(service: Service):
    for which in NO_TIMES:
        answer = await service.http.post("/api/deliveries/replay", json=which)
        assert answer.status_code == 422
        [problem] = answer.json()["detail"]
        assert problem["loc"] == ["body", *which]
        assert "ISO 8601" in problem["msg"]


async def test_a_replay_takes_the_deliveries_of_its_time(service: Service):
    await service.http.post("/api/webhook/firecrawl", json=page_event("crawl-1"))
    for which, deliveries in TIMES:
        answer = await service.http.post("/api/deliveries/replay", json=which)
        assert answer.status_code == 200, answer.text
        assert answer.json()["deliveries"] == deliveries, which
