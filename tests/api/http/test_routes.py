"""Every route, each kind of credential: who is let in, and the headers of every answer."""

import asyncio
import re
from collections.abc import Iterator, Sequence
from typing import Any

import httpx2
import pytest
from fastapi.routing import APIRoute

from crawlscope.api.http.access import SESSION_COOKIE, new_session
from tests.api.http.conftest import SECRET, TOKEN, Service

OPEN = {"/health", "/healthz", "/readyz", "/sign-in"}
ENDPOINTS = {"/api/webhook/firecrawl", "/api/webhook/changedetection"}
FEED = "/api/metrics/events"
"""It streams to those who may read it."""
READING = ("GET", "HEAD")


def routes(service: Service) -> Iterator[tuple[str, str]]:
    """Method and path of each route, with values that nothing has."""
    for route in all_routes(service.app.routes):
        path = re.sub(r"\{(\w+_id)\}", "00000000-0000-0000-0000-000000000000", route.path)
        for method in sorted(route.methods or ()):
            yield method, re.sub(r"\{\w+\}", "nothing", path)


def all_routes(found: Sequence[Any]) -> Iterator[APIRoute]:
    for route in found:
        if isinstance(route, APIRoute):
            yield route
        elif router := getattr(route, "original_router", None):
            yield from all_routes(router.routes)


def is_open(path: str) -> bool:
    return path in OPEN


def is_endpoint(path: str) -> bool:
    return any(path == endpoint or path.startswith(f"{endpoint}/") for endpoint in ENDPOINTS)


async def ask(service: Service, method: str, path: str, headers: dict[str, str]) -> httpx2.Response:
    return await service.anonymous.request(method, path, headers=headers)


async def test_there_are_routes_of_every_kind(service: Service):
    found = list(routes(service))
    assert len(found) > 60
    assert {"/api/keys", "/mcp", "/metrics", "/system", "/openapi.json", FEED} <= {path for _, path in found}


@pytest.mark.parametrize(
    "headers", [{}, {"X-API-Secret": "guess"}, {"Cookie": f"{SESSION_COOKIE}=guess"}, {"Accept": "text/html"}]
)
async def test_nothing_but_what_is_open_answers_without_a_credential(service: Service, headers):
    for method, path in routes(service):
        answer = await ask(service, method, path, headers)
        if is_open(path):
            assert answer.status_code in (200, 403, 503), path
        elif "Accept" in headers and method in READING and not path.startswith("/api/"):
            assert answer.headers["location"].startswith("/sign-in"), path
        elif path == "/" and method in READING:
            assert answer.status_code == 303
        else:
            assert answer.status_code == 401, f"{method} {path}: {answer.status_code}"


async def test_files_of_the_dashboard_are_all_that_static_gives(service: Service):
    for path in ("..%2fapp.py", "%2e%2e/app.py", "../rendering.py", "%00", "/etc/passwd", "..\\app.py"):
        assert (await service.anonymous.get(f"/static/{path}")).status_code in (401, 404), path


async def test_a_cookie_acts_only_for_pages_of_this_service(service: Service):
    cookie = {"Cookie": f"{SESSION_COOKIE}={new_session(SECRET)}"}
    for method, path in routes(service):
        if is_open(path) or is_endpoint(path) or path == FEED or method in READING:
            continue
        for other in ({"Sec-Fetch-Site": "cross-site"}, {"Origin": "https://evil.example"}, {}):
            answer = await ask(service, method, path, {**cookie, **other})
            assert answer.status_code == 401, f"{method} {path} {other}"


async def test_revoked_keys_and_old_cookies_are_refused(service: Service):
    made = (await service.http.post("/api/keys", json={"name": "old", "scope": "operate"})).json()
    await service.http.delete(f"/api/keys/{made['id']}")
    await asyncio.sleep(0)
    for headers in (
        {"X-API-Secret": made["key"]},
        {"Cookie": f"{SESSION_COOKIE}={new_session('an older secret')}"},
    ):
        assert (await service.anonymous.get("/api/stats", headers=headers)).status_code == 401


async def test_every_answer_has_security_headers(service: Service):
    asked = [
        *(("GET", path, {"X-API-Secret": SECRET}) for path in ("/", "/api/stats", "/nowhere", "/docs")),
        *(("GET", path, {}) for path in ("/", "/healthz", "/nowhere", "/sign-in", "/static/nothing")),
        ("POST", f"/api/webhook/firecrawl/{TOKEN}", {}),
        ("POST", "/api/search", {"X-API-Secret": SECRET}),
    ]
    for method, path, headers in asked:
        answer = await ask(service, method, path, headers)
        where = f"{method} {path}: {answer.status_code}"
        assert answer.headers["x-content-type-options"] == "nosniff", where
        assert "frame-ancestors 'none'" in answer.headers["content-security-policy"], where
        assert "'unsafe" not in answer.headers["content-security-policy"], where
        assert answer.headers["referrer-policy"] == "same-origin", where
        assert answer.headers.get_list("cache-control") == ["no-store"], where
        assert "server" not in answer.headers, where


async def test_an_unexpected_error_says_nothing_of_itself(service: Service, monkeypatch: pytest.MonkeyPatch):
    async def fail(*_: object) -> None:
        raise RuntimeError("a secret of the code")

    monkeypatch.setattr(service.parts.insights, "stats", fail)
    answer = await service.http.get("/api/stats")
    assert (answer.status_code, answer.headers["x-content-type-options"]) == (500, "nosniff")
    assert "secret of the code" not in answer.text
