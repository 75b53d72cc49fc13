"""How a fake Firecrawl delivers events: each once, several at a time, and some not at all."""

import hashlib
import hmac
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import httpx2

from tests.support.fakes.firecrawl_http import as_json

TIMEOUT_SECONDS = 10.0


@dataclass(frozen=True)
class Event:
    """`number` counts a job's events from 0, in the order they happened."""

    job_id: str
    number: int
    body: dict[str, Any]

    @property
    def type(self) -> str:
        return str(self.body["type"])

    @property
    def source_url(self) -> str | None:
        """None for events about no page."""
        data = self.body["data"]
        return data[0]["metadata"]["sourceURL"] if data else None


@dataclass(frozen=True)
class Target:
    """The request's `webhook`."""

    url: str
    headers: Mapping[str, str] = field(default_factory=dict)
    metadata: Mapping[str, str] = field(default_factory=dict)
    events: tuple[str, ...] | None = None

    def wants(self, event: Event) -> bool:
        return self.events is None or event.type.partition(".")[2] in self.events


@dataclass(frozen=True)
class Delivery:
    event: Event
    body: bytes
    headers: Mapping[str, str]
    status: int | None
    """The receiver's answer; None if it did not answer, or got no request."""


class Courier:
    def __init__(self) -> None:
        self.drops: Callable[[Event], bool] = lambda event: False
        """Which events get lost on their way."""
        self.deliveries: list[Delivery] = []
        """In the order in which they ended, dropped ones included."""
        self._pool = ThreadPoolExecutor(4, thread_name_prefix="fake-firecrawl-delivery")
        self._http = httpx2.Client(timeout=TIMEOUT_SECONDS, trust_env=False, verify=False)
        self._under_way: Counter[str] = Counter()
        self._changed = threading.Condition()

    def send(self, event: Event, target: Target, secret: str | None) -> None:
        """Returns at once; with a secret the delivery is signed."""
        body = as_json(event.body)
        headers = {**_sender(event), **target.headers}
        if secret is not None:
            signature = hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()
            headers["X-Firecrawl-Signature"] = f"sha256={signature}"
        if self.drops(event):
            self._note(Delivery(event, body, headers, None))
            return
        with self._changed:
            self._under_way[event.job_id] += 1
        self._pool.submit(self._post, event, target.url, headers, body)

    def wait_until_idle(self, job_id: str, deadline: float) -> None:
        with self._changed:
            while self._under_way[job_id]:
                assert self._changed.wait(deadline - time.monotonic()), f"deliveries of {job_id} hang"

    def close(self) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)
        self._http.close()

    def _post(self, event: Event, url: str, headers: dict[str, str], body: bytes) -> None:
        status = None
        try:
            status = self._http.post(url, content=body, headers=headers).status_code
        except (httpx2.HTTPError, RuntimeError):  # nobody listens, or this server was just closed
            pass
        finally:
            self._note(Delivery(event, body, headers, status))
            with self._changed:
                self._under_way[event.job_id] -= 1
                self._changed.notify_all()

    def _note(self, delivery: Delivery) -> None:
        with self._changed:
            self.deliveries.append(delivery)


def _sender(event: Event) -> dict[str, str]:
    newer = "webhookId" in event.body
    agent, accept = ("undici", "*/*") if newer else ("axios/1.11.0", "application/json, text/plain, */*")
    return {"Content-Type": "application/json", "User-Agent": agent, "Accept": accept}
