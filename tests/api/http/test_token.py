"""The token of a delivery URL lets deliveries in, and is written down nowhere."""

from urllib.parse import quote

import pytest
from structlog.testing import capture_logs

from tests.api.http.conftest import TOKEN, Serve, Service
from tests.support.stack import new_crawl_id, page_event

ODD_TOKEN = "a token of/100% this test"
ESCAPED = quote(ODD_TOKEN, safe="")
ENDPOINT = "/api/webhook/firecrawl"
BEFORE = [
    "/api/webhook/firecrawl/",
    "/api/webhook/changedetection/",
    "//api/webhook/firecrawl/",
    "/api//webhook/firecrawl/",
    "/api/webhook/firecrawl//",
    "/api/webhook/Firecrawl/",
    "/behind/a/proxy/api/webhook/firecrawl/",
]


async def test_a_token_of_any_letters_authenticates(serve: Serve):
    service = await serve(receive_token=ODD_TOKEN)
    for token, status in ((ESCAPED, 202), (f"{ESCAPED}x", 401), ("x", 401), (ODD_TOKEN, 404)):
        answer = await service.anonymous.post(f"{ENDPOINT}/{token}", json=page_event(new_crawl_id()))
        assert answer.status_code == status, token


@pytest.mark.parametrize("before", ["/api/webhook/firecrawl/", "/api/webhook/changedetection/"])
async def test_a_refusal_logs_no_token(service: Service, before: str):
    full = service.set(database_url=None, min_free_disk_bytes=2**60)
    with capture_logs() as lines:
        answer = await full.anonymous.post(before + TOKEN, json=page_event(new_crawl_id()))
    assert answer.status_code == 503
    assert lines
    assert TOKEN not in str(lines)


@pytest.mark.parametrize("token", [TOKEN, "a-token-of-yesterday"])
async def test_what_a_delivery_brings_as_a_token_is_not_kept(service: Service, token: str):
    for path in BEFORE:
        for after in ("", "/", "/more"):
            await service.anonymous.post(f"http://service{path}{token}{after}", json={})
    assert set(await service.request_paths()) == {f"{path}{{token}}" for path in BEFORE}


async def test_the_right_one_is_not_kept_wherever_it_stands(serve: Serve):
    service = await serve(receive_token=ODD_TOKEN)
    paths = ["/api/webhook/firecrwal/{}", "/{}", "/api/webhook/firecrawl{}/x", "/{}/{}"]
    for path in paths:
        await service.anonymous.post(path.replace("{}", ESCAPED), json={})
    assert set(await service.request_paths()) == {path.replace("{}", "{token}") for path in paths}
