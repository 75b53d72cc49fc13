"""Deliveries that are refused are logged, counted by cause, and named by the doctor."""

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

import pytest
from structlog.testing import capture_logs

from crawlscope.cli.doctor import find
from crawlscope.core.settings import Settings
from crawlscope.webhooks.refusals import BY_STATUS, Cause, RefusalLog
from tests.api.http.conftest import SECRET, TOKEN, Serve, Service
from tests.support.recordings import signature
from tests.support.stack import new_crawl_id, page_event

ENDPOINT, CHANGES = "/api/webhook/firecrawl", "/api/webhook/changedetection"
SIGNING = "a-signing-secret"
SIGNED_WRONG = {"X-Firecrawl-Signature": "sha256=" + "0" * 64}
AUTHORISED = {"X-API-Secret": SECRET}
REFUSED: list[tuple[str, Mapping[str, str], bytes | None, int, str | None, str]] = [
    (ENDPOINT, {}, None, 401, "firecrawl", "no_credentials"),
    (ENDPOINT, {"X-API-Secret": "a guess"}, None, 401, "firecrawl", "wrong_secret"),
    (ENDPOINT, {"Authorization": "Bearer a guess"}, None, 401, "firecrawl", "wrong_secret"),
    (ENDPOINT, SIGNED_WRONG, None, 401, "firecrawl", "no_signing_secret"),
    (f"{ENDPOINT}/a-guess", {}, None, 401, "firecrawl", "wrong_token"),
    (f"{ENDPOINT}/{TOKEN}/more", {}, None, 404, "firecrawl", "wrong_path"),
    (f"{CHANGES}/a-guess", {}, None, 401, "changedetection", "wrong_token"),
    (CHANGES, {}, None, 401, "changedetection", "no_credentials"),
    (CHANGES, {"X-API-Secret": "a guess"}, None, 401, "changedetection", "wrong_secret"),
    ("/webhook/firecrawl", {}, None, 401, None, "wrong_path"),
    ("/api/webhook/firecrwal", AUTHORISED, None, 404, None, "wrong_path"),
    (ENDPOINT, {**AUTHORISED, "Content-Type": "text/plain"}, b"x", 415, "firecrawl", "wrong_type"),
    (ENDPOINT, AUTHORISED, b"{", 400, "firecrawl", "unreadable"),
    (ENDPOINT, AUTHORISED, b"[]", 422, "firecrawl", "malformed"),
    (ENDPOINT, AUTHORISED, b" " * 5_000, 413, "firecrawl", "too_large"),
    (CHANGES, AUTHORISED, b"{}", 422, "changedetection", "malformed"),
]


async def deliver(service: Service, path: str, headers: Mapping[str, str] = {}, content: bytes | None = None):
    usual = {"Content-Type": "application/json", **headers}
    event = {"json": page_event(new_crawl_id())} if content is None else {"content": content}
    return await service.anonymous.post(path, headers=usual, **event)


async def refused(service: Service) -> list[dict[str, Any]]:
    await service.parts.buffer.flush()
    summary = (await service.http.get("/api/metrics/summary")).json()
    return summary["refused_deliveries"]


async def found(settings: Settings):
    return await find("deliveries", settings)


@pytest.mark.parametrize(("path", "headers", "content", "status", "endpoint", "cause"), REFUSED)
async def test_a_refusal_is_counted_and_logged_with_its_cause(
    serve: Serve,
    path: str,
    headers: Mapping[str, str],
    content: bytes | None,
    status: int,
    endpoint: str | None,
    cause: str,
):
    service = await serve(max_body_bytes=4_096)
    with capture_logs() as lines:
        assert (await deliver(service, path, headers, content)).status_code == status
    [line] = [line for line in lines if line["event"] == "delivery_refused"]
    assert (line["cause"], line["status"], line["count"]) == (cause, status, 1)
    [counted] = await refused(service)
    assert (counted["door"], counted["cause"], counted["count"]) == (endpoint, cause, 1)
    assert counted["senders"] == ["127.0.0.1"]
    verdict = await found(service.parts.settings)
    assert not verdict.ok
    assert verdict.words.startswith("1 delivery was refused in the last 24 hours because ")
    for secret in (SECRET, TOKEN, "guess", "0" * 64):
        assert secret not in f"{lines}{counted}{verdict.words}"


async def test_a_signature_that_is_not_valid(serve: Serve):
    service = await serve(firecrawl_webhook_secret=SIGNING)
    for _ in range(17):
        assert (await deliver(service, ENDPOINT, SIGNED_WRONG)).status_code == 401
    [counted] = await refused(service)
    assert (counted["cause"], counted["count"]) == ("bad_signature", 17)
    words = (await found(service.parts.settings)).words
    assert words.startswith(
        "17 deliveries were refused in the last 24 hours because their signature was not valid"
    )
    assert "set CRAWLSCOPE_FIRECRAWL_WEBHOOK_SECRET to Firecrawl's signing secret" in words
    assert SIGNING not in words


async def test_an_endpoint_without_a_token(serve: Serve):
    service = await serve(receive_token=None)
    assert (await deliver(service, f"{ENDPOINT}/a-guess")).status_code == 401
    assert [each["cause"] for each in await refused(service)] == ["no_token"]


async def test_a_delivery_that_cannot_be_stored_is_refused_with_the_reason(service: Service):
    full = service.set(database_url=None, min_free_disk_bytes=2**60)
    with capture_logs() as lines:
        assert (await deliver(full, f"{ENDPOINT}/{TOKEN}")).status_code == 503
    [line] = [line for line in lines if line["event"] == "delivery_refused"]
    assert line["cause"] == "unavailable"
    assert "bytes are free" in line["reason"]


async def test_accepted_deliveries_and_other_requests_are_not_counted(serve: Serve):
    service = await serve(firecrawl_webhook_secret=SIGNING)
    event = b'{"type": "crawl.started", "id": "crawl-1"}'
    signed = {"X-Firecrawl-Signature": signature(event, SIGNING)}
    assert (await deliver(service, ENDPOINT, signed, event)).status_code == 202
    assert (await service.anonymous.get(ENDPOINT)).status_code >= 400
    assert (await service.anonymous.post("/api/search", json={})).status_code == 401
    assert await refused(service) == []
    assert (await found(service.parts.settings)).words == ""


async def test_old_refusals_are_no_failure_once_deliveries_are_accepted_again(
    service: Service, monkeypatch: pytest.MonkeyPatch
):
    await deliver(service, ENDPOINT)
    await refused(service)
    assert (await deliver(service, ENDPOINT, AUTHORISED)).status_code == 202
    assert not (await found(service.parts.settings)).ok
    monkeypatch.setattr("crawlscope.cli.doctor.REFUSALS_PASS", timedelta(0))
    verdict = await found(service.parts.settings)
    assert verdict.ok
    assert verdict.words.startswith("the last one was accepted at ")
    assert "1 delivery was refused" in verdict.words


def test_each_cause_is_logged_once_a_minute():
    now = [0.0]
    refusals = RefusalLog(lambda: now[0])
    with capture_logs() as lines:
        for second in range(150):
            now[0] = float(second)
            refusals.note(Cause.BAD_SIGNATURE, 401, "10.0.0.1", None)
            refusals.note(Cause.TOO_LARGE, 413, "10.0.0.1", None)
    of_one = [line["count"] for line in lines if line["cause"] == "bad_signature"]
    assert of_one == [1, 60, 60]
    assert len(lines) == 6


def test_every_cause_has_its_remedy():
    from crawlscope.cli.doctor import REFUSALS

    assert set(REFUSALS) == set(Cause)
    assert set(BY_STATUS.values()) <= set(Cause)
