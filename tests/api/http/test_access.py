"""Unauthenticated requests are refused before their body is read; bodies may not exceed the limit."""

from collections.abc import AsyncIterator

import pytest

from tests.api.http.conftest import SECRET, TOKEN, Serve, Service
from tests.support.stack import new_crawl_id, page_event

LIMIT = 4_096
JSON = {"Content-Type": "application/json"}
READ = ["/api/search", "/api/crawls", "/api/crawls/x/retry", "/api/crawls/x/watches"]
READ += ["/api/deliveries/replay", "/mcp"]
ENDPOINTS = ["/api/webhook/firecrawl", "/api/webhook/changedetection"]
ELSEWHERE = [
    ("GET", "/nowhere"),
    ("PUT", "/api/search"),
    ("GET", "/api/metrics/crawls?limit=-1"),
    ("GET", "/openapi.json"),
    ("GET", "/docs"),
    ("GET", "/mcp"),
    ("GET", "/health%2F.."),
    ("POST", "/api/webhook/firecrawl-and-more"),
    ("POST", "/api//webhook/firecrawl"),
]


class Blanks:
    """A body of one KiB a part, without `Content-Length`; knows how many parts of it were taken."""

    def __init__(self, count: int) -> None:
        self.count, self.taken = count, 0

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while self.taken < self.count:
            self.taken += 1
            yield b" " * 1_024


async def test_the_body_of_an_unauthenticated_request_is_not_read(service: Service):
    for path in (*READ, *ENDPOINTS, f"{ENDPOINTS[0]}/a-guess", "/nowhere"):
        body = Blanks(1_000)
        answer = await service.anonymous.post(path, content=aiter(body), headers=JSON)
        assert (answer.status_code, body.taken) == (401, 0), path
        assert answer.json()["detail"]
        assert answer.headers["x-request-id"]


@pytest.mark.parametrize("headers", [{}, {"X-API-Secret": "a guess"}, {"Authorization": SECRET}])
async def test_without_the_secret_every_path_answers_the_same(service: Service, headers: dict[str, str]):
    for method, path in ELSEWHERE:
        answer = await service.anonymous.request(method, path, content=b"no JSON", headers=headers)
        assert answer.status_code == 401, path
        assert answer.headers["www-authenticate"] == "Bearer"
        assert "X-API-Secret" in answer.json()["detail"]


async def test_the_secret_counts_in_either_header(service: Service):
    for headers in (
        {"X-API-Secret": "a proxy's", "Authorization": f"Bearer {SECRET}"},
        {"X-API-Secret": SECRET, "Authorization": "Bearer of-a-proxy"},
    ):
        assert (await service.anonymous.get("/api/stats", headers=headers)).status_code == 200
        delivery = {"type": "crawl.started", "id": "either"}
        answer = await service.anonymous.post("/api/webhook/firecrawl", json=delivery, headers=headers)
        assert answer.status_code == 202


async def test_a_path_that_ends_with_a_line_break_is_the_same(service: Service):
    assert (await service.http.post(f"{ENDPOINTS[0]}%0A", json=page_event(new_crawl_id()))).status_code == 202
    for path in ENDPOINTS:
        assert (await service.anonymous.post(f"{path}%0A", json={})).status_code == 401


async def test_with_the_secret_it_says_what_is_wrong(service: Service):
    assert (await service.http.get("/nowhere")).status_code == 404
    answer = await service.http.put("/api/search")
    assert (answer.status_code, answer.headers["allow"]) == (405, "POST")
    bearer = {"Authorization": f"bearer {SECRET}"}
    assert (await service.anonymous.get("/nowhere", headers=bearer)).status_code == 404


async def test_the_health_of_the_service_is_no_secret(service: Service):
    for path in ("/healthz", "/readyz", "/health"):
        assert (await service.anonymous.get(path)).status_code == 200


@pytest.mark.parametrize("announced", [True, False])
async def test_a_body_over_the_limit_is_refused(serve: Serve, announced: bool):
    service = await serve(max_body_bytes=LIMIT)
    for path in (*READ, *ENDPOINTS, *(f"{endpoint}/{TOKEN}" for endpoint in ENDPOINTS)):
        body = Blanks(1_000)
        content = bytes(LIMIT + 1) if announced else aiter(body)
        answer = await service.http.post(path, content=content, headers=JSON)
        assert answer.status_code == 413, path
        assert "CRAWLSCOPE_MAX_BODY_BYTES" in answer.json()["detail"]
        assert body.taken <= LIMIT // 1_024 + 1


async def test_a_body_at_the_limit_is_read(serve: Serve):
    service = await serve(max_body_bytes=LIMIT)
    for path in (*READ, *ENDPOINTS):
        answer = await service.http.post(path, content=aiter(Blanks(LIMIT // 1_024)), headers=JSON)
        assert answer.status_code in (400, 422), path


async def test_a_body_that_cannot_be_read_is_explained(service: Service):
    for body in (b'{"query": "\xff"}', b"[" * 100_000):
        answer = await service.http.post("/api/search", content=body, headers=JSON)
        assert answer.status_code == 400
        assert "JSON in UTF-8" in answer.json()["detail"]
