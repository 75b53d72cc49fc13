"""Keys: each allows what its scope says on every route, and nothing after it is revoked."""

import asyncio
from collections.abc import Iterator
from hashlib import sha256

import httpx2
import pytest
from fastapi.routing import APIRoute
from sqlalchemy import select

from crawlscope.api.keys import registry
from crawlscope.api.keys.registry import KEYS, REFRESH_SECONDS, Keys
from crawlscope.api.keys.schemas import KeyScope
from crawlscope.core.errors import DatabaseUnavailable
from crawlscope.core.secrets import new_sign_in_token
from crawlscope.database.engine import Database
from tests.api.http.conftest import SECRET, Serve, Service

OPEN = {"/health", "/healthz", "/readyz", "/sign-in", "/sign-out"}
ENDPOINTS = ("/api/webhook/",)
READS = {"/api/search"}
DELIVERY = b'{"type": "crawl.started", "id": "crawl-1", "data": []}'
JSON = {"Content-Type": "application/json"}


async def make(service: Service, scope: str, name: str = "a program") -> dict[str, str]:
    answer = await service.http.post("/api/keys", json={"name": name, "scope": scope})
    assert answer.status_code == 201
    made: dict[str, str] = answer.json()
    return made


def routes(service: Service) -> Iterator[tuple[str, str]]:
    """Every method and path of the application that needs a credential."""
    included = [getattr(each, "original_router", None) for each in service.app.routes]
    for route in [route for router in included if router for route in router.routes]:
        if isinstance(route, APIRoute) and route.path not in OPEN and not route.path.startswith(ENDPOINTS):
            for method in route.methods or ():
                yield method, route.path.replace("{", "").replace("}", "")


async def test_every_route_asks_for_a_credential_and_heeds_the_scope(service: Service) -> None:
    scopes = {scope: await make(service, scope) for scope in KeyScope}
    checked = 0
    for method, path in routes(service):
        checked += 1
        assert (await service.anonymous.request(method, path)).status_code in (401, 303), path
        for scope, key in scopes.items():
            answer = await service.anonymous.request(method, path, headers={"X-API-Secret": key["key"]})
            manages = path.startswith("/api/keys")
            reads = method in ("GET", "HEAD") or path in READS
            allowed = not manages and (scope is KeyScope.OPERATE or (scope is KeyScope.READ and reads))
            assert (answer.status_code in (401, 403)) is not allowed, (scope, method, path, answer.text)
    assert checked > 30


async def test_only_receiving_keys_deliver(service: Service) -> None:
    for scope, status in ((KeyScope.RECEIVE, 202), (KeyScope.OPERATE, 202), (KeyScope.READ, 401)):
        key = (await make(service, scope))["key"]
        for headers in ({"X-API-Secret": key}, {"Authorization": f"Bearer {key}"}):
            answer = await service.anonymous.post(
                "/api/webhook/firecrawl", content=DELIVERY, headers=JSON | headers
            )
            assert answer.status_code == status, (scope, answer.text)
    in_url = {scope: (await make(service, scope))["key"] for scope in (KeyScope.RECEIVE, KeyScope.OPERATE)}
    answers = [
        await service.anonymous.post(f"/api/webhook/firecrawl/{key}", content=DELIVERY, headers=JSON)
        for key in in_url.values()
    ]
    assert [each.status_code for each in answers] == [202, 401], "only a key that can do nothing else"
    for key in in_url.values():
        assert (await service.http.post(f"/api/hooks/{key}/x")).status_code == 404
    assert not any(key in path for path in await service.request_paths() for key in in_url.values())


async def test_two_keys_are_valid_during_a_rotation_until_one_is_revoked(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(registry, "REFRESH_SECONDS", 0.0)
    monkeypatch.setattr(registry, "MIN_INTERVAL_SECONDS", 0.0)
    monkeypatch.setattr(registry, "USE_NOTED_SECONDS", 0.0)
    old, new = await make(service, "read"), await make(service, "read")

    async def statuses() -> list[int]:
        sent = [{"X-API-Secret": each["key"]} for each in (old, new)]
        return [(await service.anonymous.get("/api/stats", headers=each)).status_code for each in sent]

    assert await statuses() == [200, 200]
    assert (await service.http.delete(f"/api/keys/{old['id']}")).status_code == 204
    assert await statuses() == [401, 200]
    listed = (await service.http.get("/api/keys")).json()
    assert [bool(each["revoked_at"]) for each in listed["keys"]] == [False, True]
    assert listed["keys"][0]["used_at"], "the use was noted"
    assert (await service.http.delete("/api/keys/00000000-0000-0000-0000-000000000000")).status_code == 404


async def test_a_single_use_is_noted(service: Service) -> None:
    made = await make(service, "read")
    assert (await service.http.get("/api/keys")).json()["keys"][0]["used_at"] is None
    answer = await service.anonymous.get("/api/stats", headers={"X-API-Secret": made["key"]})
    assert answer.status_code == 200
    assert (await service.http.get("/api/keys")).json()["keys"][0]["used_at"]


async def test_a_key_is_stored_as_its_hash_and_shown_once(service: Service) -> None:
    made = await make(service, "receive")
    async with service.parts.database.transaction() as connection:
        row = (await connection.execute(select(KEYS))).mappings().one()
    assert row["digest"] == sha256(made["key"].encode()).digest()
    assert made["key"] not in str(dict(row))
    assert made["key"] not in (await service.http.get("/api/keys")).text


async def test_a_flood_of_guesses_costs_few_queries(service: Service) -> None:
    keys = Keys(service.parts.database)
    reads = 0
    refresh = keys._read

    async def counted() -> None:
        nonlocal reads
        reads += 1
        await refresh()

    keys._read = counted  # type: ignore[method-assign]
    guesses = [keys.scope_of(f"csk_{number}") for number in range(500)]
    assert set(await asyncio.gather(*guesses)) == {None}
    assert reads <= 5


async def test_known_keys_work_while_the_database_is_unavailable(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(registry, "REFRESH_SECONDS", 0.0)
    keys = Keys(service.parts.database)
    key = (await make(service, "read"))["key"]
    assert await keys.scope_of(key) is KeyScope.READ
    monkeypatch.setattr(registry, "REFRESH_SECONDS", REFRESH_SECONDS)
    keys._database = Database.open("postgresql://nobody@127.0.0.1:1/nowhere")
    keys._read_at = float("-inf")
    assert await keys.scope_of(key) is KeyScope.READ
    with pytest.raises(DatabaseUnavailable):
        await Keys(keys._database).scope_of(key)


async def test_wrong_requests_say_what_to_do(serve: Serve) -> None:
    service = await serve()
    answer = await service.http.post("/api/keys", json={"name": "", "scope": "admin"})
    assert answer.status_code == 422
    assert "receive" in answer.text
    assert "Value error" not in answer.text
    assert (await make(service, "read", name="a \0 b"))["name"] == "a \ufffd b"


async def test_failed_sign_ins_are_limited(service: Service) -> None:
    own = {"Sec-Fetch-Site": "same-origin"}

    async def statuses(secret: str, count: int) -> list[int]:
        sent = [
            service.anonymous.post("/sign-in", data={"secret": secret}, headers=own) for _ in range(count)
        ]
        return [(await each).status_code for each in sent]

    assert await statuses("a guess", 11) == [401] * 10 + [429]
    assert await statuses(SECRET, 1) == [429], "a right guess must not be recognised"
    assert (await service.http.get("/api/stats")).status_code == 200


async def test_failed_sign_ins_are_limited_whatever_addresses_they_claim(service: Service) -> None:
    found = [await sign_in_from(service, f"192.0.2.{number}", secret="a guess") for number in range(101)]
    assert found == [401] * 100 + [429]


async def test_attackers_cannot_lock_out_who_signs_in_again(service: Service) -> None:
    assert await sign_in_from(service, "198.51.100.1", secret=SECRET) == 303
    for number in range(101):
        await sign_in_from(service, f"192.0.2.{number}", secret="a guess")
    assert await sign_in_from(service, "198.51.100.2", secret=SECRET) == 429
    assert await sign_in_from(service, "198.51.100.1", secret=SECRET) == 303
    token = new_sign_in_token(service.parts.settings.data_dir)
    assert await sign_in_from(service, "192.0.2.1", token=token) == 303
    tried = [await sign_in_from(service, "198.51.100.1", secret="a guess") for _ in range(11)]
    assert tried == [401] * 10 + [429]


async def sign_in_from(service: Service, address: str, **form: str) -> int:
    transport = httpx2.ASGITransport(app=service.app, client=(address, 0))
    async with httpx2.AsyncClient(transport=transport, base_url="http://service") as client:
        return (
            await client.post("/sign-in", data=form, headers={"Sec-Fetch-Site": "same-origin"})
        ).status_code
