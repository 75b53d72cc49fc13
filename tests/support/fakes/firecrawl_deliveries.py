"""How a fake Firecrawl delivers events: fire and forget, several at once, and as badly as a test wants."""

import hashlib
import hmac
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from random import Random
from typing import Any

import httpx2

from tests.support.fakes.firecrawl_http import as_json

GIVES_UP_AFTER_SECONDS = 10.0


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


Rule = float | Callable[[Event], bool]
"""Which events it befalls: a share of them, or those that the function says."""


@dataclass(frozen=True)
class Faults:
    """What becomes of deliveries. The same seed picks the same events, however threads run."""

    drop: Rule = 0.0
    duplicate: Rule = 0.0
    late: Rule = 0.0
    late_seconds: float = 0.2
    shuffle: int = 0
    """So many events are held back and sent in another order; the rest when the job has ended."""
    seed: int = 0

    def befalls(self, name: str, event: Event) -> bool:
        rule: Rule = getattr(self, name)
        if callable(rule):
            return rule(event)
        return Random(f"{self.seed} {name} {event.type} {event.source_url} {event.number}").random() < rule


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
    """What the receiver answered; None where it did not, or was never asked."""
    dropped: bool = False


class Courier:
    def __init__(self, at_once: int) -> None:
        self.faults = Faults()
        self.deliveries: list[Delivery] = []
        """In the order in which they ended, dropped ones included."""
        self._pool = ThreadPoolExecutor(at_once, thread_name_prefix="fake-firecrawl-delivery")
        self._http = httpx2.Client(timeout=GIVES_UP_AFTER_SECONDS, trust_env=False, verify=False)
        self._held: defaultdict[str, list[tuple[Event, Target, str | None]]] = defaultdict(list)
        self._under_way: Counter[str] = Counter()
        self._changed = threading.Condition()
        self._timers: list[threading.Timer] = []

    def send(self, event: Event, target: Target, secret: str | None) -> None:
        """Returns at once; with a secret the delivery is signed."""
        held = self._held[event.job_id]
        held.append((event, target, secret))
        if len(held) > self.faults.shuffle:
            self.release(event.job_id)

    def release(self, job_id: str) -> None:
        """Sends what was held back to be shuffled."""
        held = self._held.pop(job_id, [])
        if self.faults.shuffle:
            Random(f"{self.faults.seed} {job_id}").shuffle(held)
        for event, target, secret in held:
            self._dispatch(event, target, secret)

    def wait_until_idle(self, job_id: str, deadline: float) -> None:
        with self._changed:
            while self._under_way[job_id]:
                assert self._changed.wait(deadline - time.monotonic()), f"deliveries of {job_id} hang"

    def close(self) -> None:
        for timer in self._timers:
            timer.cancel()
        self._pool.shutdown(wait=False, cancel_futures=True)
        self._http.close()

    def _dispatch(self, event: Event, target: Target, secret: str | None) -> None:
        body = as_json(event.body)
        headers = {**_sender(event), **target.headers}
        if secret is not None:
            headers["X-Firecrawl-Signature"] = f"sha256={sign(secret, body)}"
        if self.faults.befalls("drop", event):
            self._note(Delivery(event, body, headers, None, dropped=True))
            return
        for _ in range(1 + self.faults.befalls("duplicate", event)):
            self._begin(event.job_id)
            seconds = self.faults.late_seconds if self.faults.befalls("late", event) else 0.0
            self._submit_after(seconds, event, target.url, headers, body)

    def _submit_after(
        self, seconds: float, event: Event, url: str, headers: dict[str, str], body: bytes
    ) -> None:
        if not seconds:
            self._pool.submit(self._post, event, url, headers, body)
            return
        timer = threading.Timer(seconds, self._post, (event, url, headers, body))
        timer.daemon = True
        self._timers.append(timer)
        timer.start()

    def _post(self, event: Event, url: str, headers: dict[str, str], body: bytes) -> None:
        status = None
        try:
            status = self._http.post(url, content=body, headers=headers).status_code
        except (httpx2.HTTPError, RuntimeError):  # nobody listens, or this server was just closed
            pass
        finally:
            self._note(Delivery(event, body, headers, status))
            self._end(event.job_id)

    def _note(self, delivery: Delivery) -> None:
        with self._changed:
            self.deliveries.append(delivery)

    def _begin(self, job_id: str) -> None:
        with self._changed:
            self._under_way[job_id] += 1

    def _end(self, job_id: str) -> None:
        with self._changed:
            self._under_way[job_id] -= 1
            self._changed.notify_all()


def sign(secret: str, body: bytes) -> str:
    return hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()


def _sender(event: Event) -> dict[str, str]:
    newer = "webhookId" in event.body
    agent, accept = ("undici", "*/*") if newer else ("axios/1.11.0", "application/json, text/plain, */*")
    return {"Content-Type": "application/json", "User-Agent": agent, "Accept": accept}
