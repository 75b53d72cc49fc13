import asyncio
import json
import threading
import time
from functools import partial
from http.server import BaseHTTPRequestHandler
from typing import Any, Self

import pytest

from crawlscope.core.errors import ServiceUnavailable, UsageError
from crawlscope.crawler.sender import DeliveryTooLarge, WebhookSender
from tests.support.fakes.loopback import LoopbackServer, free_port

EVENT = {"type": "crawl.page", "webhookId": "w-1", "data": [{"markdown": "grün \ud800 😀"}]}
Reply = tuple[int, dict[str, str], bytes]
ACCEPTED: Reply = (202, {}, b"{}")


class Service:
    """The webhook endpoint of a service that gives the listed answers in turn, the last one for ever."""

    def __init__(self, *replies: Reply, port: int = 0) -> None:
        self._replies = list(replies)
        self._port = port
        self.bodies: list[bytes] = []
        self.heads: list[tuple[str, str | None, str | None]] = []

    def __enter__(self) -> Self:
        self._server = LoopbackServer(("127.0.0.1", self._port), partial(_Endpoint, self))
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}"

    def reply(self) -> Reply:
        return self._replies.pop(0) if len(self._replies) > 1 else self._replies[0]


class _Endpoint(BaseHTTPRequestHandler):
    def __init__(self, service: Service, *connection: Any) -> None:
        self._service = service
        super().__init__(*connection)

    def do_POST(self) -> None:
        head = (self.path, self.headers["X-API-Secret"], self.headers["Content-Type"])
        self._service.heads.append(head)
        self._service.bodies.append(self.rfile.read(int(self.headers["Content-Length"])))
        status, headers, body = self._service.reply()
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  # the name it overrides
        """Tests read `bodies` instead."""


async def test_an_event_is_posted_once_with_the_secret() -> None:
    with Service(ACCEPTED) as service:
        async with WebhookSender(lambda: service.url + "/", "s3cret") as sender:
            await sender.send(EVENT)
    assert service.heads == [("/api/webhook/firecrawl", "s3cret", "application/json")]
    assert json.loads(service.bodies[0])["data"] == [{"markdown": "grün ? 😀"}]


@pytest.mark.parametrize("status", [429, 500, 502, 503])
async def test_a_busy_service_gets_the_same_bytes_again(status: int) -> None:
    with Service((status, {}, b""), (status, {}, b""), ACCEPTED) as service:
        async with WebhookSender(lambda: service.url, "s") as sender:
            await sender.send(EVENT)
    assert len(service.bodies) == 3
    assert len(set(service.bodies)) == 1


async def test_the_service_says_when_to_come_back() -> None:
    with Service((503, {"Retry-After": "1"}, b""), ACCEPTED) as service:
        began = time.monotonic()
        async with WebhookSender(lambda: service.url, "s") as sender:
            await sender.send(EVENT)
    assert time.monotonic() - began >= 1


async def test_a_service_that_is_down_for_two_seconds_loses_nothing() -> None:
    port = free_port()
    async with WebhookSender(lambda: f"http://127.0.0.1:{port}", "s") as sender:
        sending = [
            asyncio.create_task(sender.send({**EVENT, "webhookId": str(number)})) for number in range(5)
        ]
        _, waiting = await asyncio.wait(sending, timeout=2)
        assert len(waiting) == 5
        with Service(ACCEPTED, port=port) as service:
            await asyncio.wait_for(asyncio.gather(*sending), 60)
    assert sorted(json.loads(body)["webhookId"] for body in service.bodies) == list("01234")


async def test_a_service_that_comes_back_elsewhere_gets_the_delivery() -> None:
    addresses = [f"http://127.0.0.1:{free_port()}"]
    async with WebhookSender(lambda: addresses[-1], "s") as sender:
        sending = asyncio.create_task(sender.send(EVENT))
        _, waiting = await asyncio.wait({sending}, timeout=0.5)
        assert waiting
        with Service(ACCEPTED) as service:
            addresses.append(service.url)
            await asyncio.wait_for(sending, 60)
    assert len(service.bodies) == 1


@pytest.mark.parametrize("status", [400, 401, 404, 413, 422, 302])
async def test_a_refusal_is_an_error_that_says_so(status: int) -> None:
    with Service((status, {}, b'{"detail": "wrong\\nsecret"}')) as service:
        async with WebhookSender(lambda: service.url, "s") as sender:
            with pytest.raises(
                UsageError, match=rf"refused a delivery: it answered {status} \(wrong secret\)"
            ):
                await sender.send(EVENT)
    assert len(service.bodies) == 1


async def test_a_delivery_without_room_is_distinguished() -> None:
    with Service((413, {}, b"")) as service:
        async with WebhookSender(lambda: service.url, "s") as sender:
            with pytest.raises(DeliveryTooLarge):
                await sender.send(EVENT)


async def test_a_service_that_stays_unavailable_is_given_up() -> None:
    nowhere = f"http://127.0.0.1:{free_port()}"
    async with WebhookSender(lambda: nowhere, "s", give_up_after_seconds=0.5) as sender:
        with pytest.raises(ServiceUnavailable, match="did not take a delivery"):
            await sender.send(EVENT)


@pytest.mark.parametrize("retry_after", ["soon", "Wed, 21 Oct 2015 07:28:00 GMT", "-5", "Wed, 99 Xyz"])
async def test_an_invalid_retry_after_does_not_prevent_a_retry(retry_after: str) -> None:
    with Service((503, {"Retry-After": retry_after}, b""), ACCEPTED) as service:
        async with WebhookSender(lambda: service.url, "s", give_up_after_seconds=5) as sender:
            await sender.send(EVENT)
    assert len(service.bodies) == 2
