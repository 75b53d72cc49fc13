"""The endpoint `/mcp`: authentication, host names, and the time that a start takes."""

import asyncio
import json
import signal
import subprocess
import sys
from pathlib import Path

import httpx2
import pytest
from mcp import Client
from mcp.client.streamable_http import streamable_http_client

from tests.api.mcp.conftest import Service
from tests.support.mcp_clients import INITIALIZE, answered, over_http, text_of
from tests.support.stack import API_SECRET, eventually, new_crawl_id, page_event, running_stack

HEADERS = {"Accept": "application/json, text/event-stream", "Content-Type": "application/json"}
GREETING = json.dumps(INITIALIZE).encode()


def post(mcp_service: Service, content: bytes = GREETING, **headers: str) -> httpx2.Response:
    return mcp_service.stack.anonymous.post("/mcp", content=content, headers={**HEADERS, **headers})


@pytest.mark.parametrize("headers", [{}, {"X-API-Secret": "a guess"}, {"Authorization": "Bearer a guess"}])
def test_without_the_secret_nothing_is_answered(mcp_service: Service, headers: dict[str, str]):
    answer = post(mcp_service, GREETING, **headers)
    assert answer.status_code == 401
    assert "X-API-Secret" in answer.json()["detail"]
    assert mcp_service.stack.anonymous.get("/mcp").status_code in (401, 405)


@pytest.mark.parametrize("secret", [{"X-API-Secret": API_SECRET}, {"Authorization": f"Bearer {API_SECRET}"}])
@pytest.mark.parametrize("host", ["crawlscope.example.com", "10.1.2.3:8108", "localhost"])
def test_with_it_the_service_has_any_name(mcp_service: Service, secret: dict[str, str], host: str):
    answer = post(mcp_service, GREETING, Host=host, Origin="https://agents.example.com", **secret)
    assert answer.status_code == 200
    assert "Crawlscope" in answer.text
    assert "mcp-session-id" not in answer.headers


@pytest.mark.parametrize("method", ["GET", "DELETE", "PUT"])
def test_there_are_no_streams_or_sessions_to_ask_for(mcp_service: Service, method: str):
    answer = mcp_service.stack.http.request(method, "/mcp", headers={"Accept": "text/event-stream"})
    assert answer.status_code == 405


@pytest.mark.parametrize(
    "content",
    [b"", b"no JSON", b"[]", b"[" * 50_000, b'{"jsonrpc": "2.0"}', b'{"id": 1, "method": 5}', b"\xff"],
)
@pytest.mark.parametrize("version", ["2025-06-18", "2026-07-28", "1999-01-01"])
def test_what_is_no_message_is_refused(mcp_service: Service, content: bytes, version: str):
    answer = post(mcp_service, content, **{"X-API-Secret": API_SECRET, "MCP-Protocol-Version": version})
    assert 400 <= answer.status_code < 500
    assert "Traceback" not in answer.text


def test_a_huge_message_is_refused(mcp_service: Service):
    content = json.dumps({**INITIALIZE, "id": "x" * 5_000_000}).encode()
    assert post(mcp_service, content, **{"X-API-Secret": API_SECRET}).status_code == 413


async def test_a_client_that_hangs_up_disturbs_nobody(mcp_service: Service):
    waiting = {"name": "crawl", "arguments": {"url": f"{mcp_service.stack.url}/healthz", "wait": True}}
    call = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": waiting}
    before = mcp_service.stack.http.get("/api/metrics/crawls").json()["total"]
    headers = {**HEADERS, "X-API-Secret": API_SECRET}
    async with httpx2.AsyncClient(trust_env=False, timeout=60) as impatient:
        asking = asyncio.create_task(
            impatient.post(f"{mcp_service.stack.url}/mcp", json=call, headers=headers)
        )
        await asyncio.to_thread(
            eventually,
            lambda: mcp_service.stack.http.get("/api/metrics/crawls").json()["total"],
            lambda now: now > before,
        )
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
    async with over_http(mcp_service.stack.url) as client:
        await answered(client, "list_crawls")


async def test_a_bearer_token_is_enough_for_a_client(mcp_service: Service):
    bearer = {"Authorization": f"Bearer {API_SECRET}"}
    async with (
        httpx2.AsyncClient(headers=bearer, timeout=60, trust_env=False) as http,
        Client(streamable_http_client(f"{mcp_service.stack.url}/mcp", http_client=http)) as client,
    ):
        await answered(client, "list_crawls")


@pytest.mark.slow
async def test_a_service_that_stops_answers_those_who_wait(tmp_path: Path):
    crawl_id, reported = new_crawl_id(), asyncio.Event()

    async def note(progress: float, total: float | None, message: str | None) -> None:
        reported.set()

    with running_stack(tmp_path / "data", WORKERS="1") as stack:
        stack.post_event(page_event(crawl_id))
        async with over_http(stack.url) as client:
            await client.list_tools()  # as the client would after the answer, to check it
            waiting = asyncio.create_task(
                client.call_tool(
                    "crawl_status",
                    {"crawl_id": crawl_id, "wait": True, "timeout_seconds": 600},
                    progress_callback=note,
                )
            )
            await asyncio.wait_for(reported.wait(), 30)
            stack.process.send_signal(signal.SIGTERM)
            result = await asyncio.wait_for(waiting, 9)
            assert "Not safe to search yet" in text_of(result)


def test_the_service_starts_without_the_sdk():
    program = "import sys, crawlscope.api.serve; sys.exit('mcp' in sys.modules)"
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)
